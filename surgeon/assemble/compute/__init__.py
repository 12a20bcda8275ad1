"""Compute tensors: readers of operands, and the arithmetic of converted and blended tensors."""
