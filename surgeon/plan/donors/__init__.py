"""Open the models that a recipe names: checkpoints, adapters on them, and earlier stages."""
