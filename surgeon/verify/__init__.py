"""Audits of written models: against config, recipe and donors, against recorded hashes, and against transformers."""
