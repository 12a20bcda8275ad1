"""A model in memory, from a plan or from disk: generate, score, perplexity.

torch and transformers are imported when something is built, never when a module of this folder is.
"""
