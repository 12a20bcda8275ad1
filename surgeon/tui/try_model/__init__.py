"""The Try screen: text and scores of a model before it is written."""
