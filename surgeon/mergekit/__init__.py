"""Recipes for mergekit 0.1.5: surgeon's own keys compiled away, or the reason why they cannot be.

What comes out is planned again and held against the original's plan, tensor by tensor.
"""

from .donor_paths import localised
from .export import Exported, export

__all__ = ["Exported", "export", "localised"]
