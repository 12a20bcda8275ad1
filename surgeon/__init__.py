"""Layer surgery on language models: see the layers of checkpoints, splice them, try the result, write it."""

__version__ = "0.1.0"
