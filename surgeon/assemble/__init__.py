"""The plan to disk: copied byte ranges and computed chunks at offsets known beforehand, in a folder that appears whole.

Workers write one file each; nothing has its final name before everything is written and looked at.
"""

from .options import AssembleOptions
from .progress_tracker import Cancelled
from .run import Result, assemble, ready

__all__ = ["AssembleOptions", "Cancelled", "Result", "assemble", "ready"]
