"""What is on disk, read from safetensors headers and JSON alone: tensors, config, layer table, tokenizer identity.

Standard library only; knows nobody above it.
"""

from .checkpoint import Checkpoint, open_checkpoint
from .header import TensorEntry, read_header

__all__ = ["Checkpoint", "TensorEntry", "open_checkpoint", "read_header"]
