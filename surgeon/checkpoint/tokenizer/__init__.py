"""Tokenizers on disk: their vocabularies, and whether two assign the same text to each id."""
