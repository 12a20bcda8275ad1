"""Write the weight files: workers, their parts of files, and the sink that writes, hashes and records bytes."""
