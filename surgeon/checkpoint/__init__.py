"""What is on disk, read from safetensors headers and JSON alone: tensors, config, layer table, tokenizer identity.

Standard library only; knows nobody above it.
"""

from .header import TensorEntry, read_header
from .model import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "TensorEntry", "open_checkpoint", "read_header"]
