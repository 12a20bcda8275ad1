"""What the user wants: an immutable recipe in mergekit's YAML, the named edits on it, and their history."""
