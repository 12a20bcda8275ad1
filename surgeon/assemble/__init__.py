"""Write a plan to disk: copied byte ranges and computed chunks at offsets that are known before the first write.

Workers write parts of files; the output gets its final name after everything is written and checked.
"""

from .options import AssembleOptions
from .progress_tracker import Cancelled
from .run import Result, assemble, ready

__all__ = ["AssembleOptions", "Cancelled", "Result", "assemble", "ready"]
