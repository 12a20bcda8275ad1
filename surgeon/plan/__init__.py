"""Recipe and checkpoints resolved: every output tensor decided, everything that can be wrong found, nothing written."""

from .donors.open_donors import Donors
from .findings import Finding
from .model import Donor, Plan, PlannedLayer, PlannedTensor
from .operands import Convert, Copy
from .resolve import resolve

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
