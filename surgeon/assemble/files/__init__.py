"""The small files beside the weights: config, tokenizer, manifest, recipe and model card."""
