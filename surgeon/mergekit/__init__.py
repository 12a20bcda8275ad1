"""Export of recipes to mergekit 0.1.5: surgeon's own keys are compiled away, or a reason is given why they cannot be.

The exported recipe is planned again, and its plan is compared with the original's plan, tensor by tensor.
"""

from .donor_paths import localised
from .export import Exported, export

__all__ = ["Exported", "export", "localised"]
