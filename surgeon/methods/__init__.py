"""The merge methods: their names, parameters and arithmetic on chunks of numbers.

This package does not know files or recipes. Importing it does not import torch; the functions that compute do.
"""

from .catalogue import every, find, suggestion
from .registry import METHODS, Method, Parameter

__all__ = ["METHODS", "Method", "Parameter", "every", "find", "suggestion"]
