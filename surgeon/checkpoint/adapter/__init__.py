"""LoRA adapters on disk, in peft's format."""
