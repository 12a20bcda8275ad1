"""Resolve a recipe and its checkpoints: decide every output tensor and find every error, without writing anything."""

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
