"""Tokenizers on disk: which vocabulary one has, and whether two mean the same."""
