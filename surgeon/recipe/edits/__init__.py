"""Edits of a recipe: named, serialisable, pure; and their text form."""
