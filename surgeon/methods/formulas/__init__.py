"""One module per family of merge methods. `catalogue` imports every module of this package."""
