"""The output's tokenizer: its tokens, its files and its chat template."""
