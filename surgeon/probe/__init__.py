"""A model in memory, from a plan or from disk: generate, score, perplexity.

torch and transformers are imported when a model is built, not when a module of this folder is imported.
"""
