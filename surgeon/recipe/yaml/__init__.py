"""YAML text: read into nodes that know their place, changed without touching the rest, written in one style."""
