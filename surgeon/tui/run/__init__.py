"""The run screen: a model while it is written."""
