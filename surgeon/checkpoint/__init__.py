"""Checkpoints on disk: tensors, config, layer table and tokenizer, read from safetensors headers and JSON only.

Uses the standard library only, and imports no package above it.
"""

from .checkpoint import Checkpoint, open_checkpoint
from .header import TensorEntry, read_header

__all__ = ["Checkpoint", "TensorEntry", "open_checkpoint", "read_header"]
