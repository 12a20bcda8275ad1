"""The recipe: an immutable value read from mergekit's YAML, the named edits that change it, and the undo history."""
