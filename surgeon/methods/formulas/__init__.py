"""One module per family of merge methods; every module here is imported when methods are looked up."""
