"""Low-level file access: copies of byte ranges, hashes, and system calls that Python lacks."""
