"""Parameters as curves over the layers of a slice."""
