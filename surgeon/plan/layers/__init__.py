"""The output's layers: the parameters and the source of every tensor, and tensors outside the layers."""
