"""Parameters as curves: one value per layer of a slice."""
