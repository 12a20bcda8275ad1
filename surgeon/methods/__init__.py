"""The arithmetic of merging, on chunks of numbers. Knows no file and no recipe; torch is imported where it is used."""
