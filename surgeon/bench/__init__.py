"""Benchmarks: generated donors, equal state of memory before each run, and timed processes in alternation."""
