"""Embeddings, final norm and head: their owners, and the rows of token tables."""
