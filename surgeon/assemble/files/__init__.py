"""The output's small files: config, tokenizer, manifest, recipe and model card."""
