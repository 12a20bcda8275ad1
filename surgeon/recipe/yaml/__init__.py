"""YAML text: read into nodes with positions, changed in place, or written in one style."""
