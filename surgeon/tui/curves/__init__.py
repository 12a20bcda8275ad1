"""The curve editor: parameters drawn and edited as curves over layers."""
