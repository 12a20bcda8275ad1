"""The output's layers: slices, their parameters, and the source of every tensor."""
