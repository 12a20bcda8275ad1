"""Bytes to files: layout, workers, byte copies, hashes and progress."""
