"""Layer surgery on language models: inspect the layers of checkpoints, splice and blend them, try and write models."""

__version__ = "0.1.0"
