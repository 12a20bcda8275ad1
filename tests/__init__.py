"""Tests of surgeon, in the order of its folders; `support/` holds what they share."""
