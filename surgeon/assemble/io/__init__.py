"""Files of bytes: copies of ranges, hashes, and calls to the system that Python lacks."""
