"""Recipe and checkpoints resolved: every output tensor decided, everything that can be wrong found, nothing written."""

from .donors import Donors
from .resolve import resolve
from .types import Convert, Copy, Donor, Finding, Plan, PlannedLayer, PlannedTensor

__all__ = [
    "Convert",
    "Copy",
    "Donor",
    "Donors",
    "Finding",
    "Plan",
    "PlannedLayer",
    "PlannedTensor",
    "resolve",
]
