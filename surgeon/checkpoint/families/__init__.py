"""Facts about model families: tensor names, per-layer settings in configs, and which types compute the same."""
