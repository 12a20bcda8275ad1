"""The merge methods, on chunks of numbers: what each is called, what it takes, and how it computes.

Knows no file and no recipe. Importing it imports no torch: the functions that compute do.
"""

from .catalogue import every, find, suggestion
from .registry import METHODS, Method, Parameter

__all__ = ["METHODS", "Method", "Parameter", "every", "find", "suggestion"]
