"""Checks of recipes and donors. Each yields findings and changes nothing."""
