"""The models that a recipe names, opened: checkpoints, adapters on them, earlier stages."""
