"""Measuring: donors made for it, a state of memory that every run finds alike, and whole processes timed in turn."""
