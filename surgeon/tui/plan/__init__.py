"""The plan screen: what would be written, and what is wrong with it."""
