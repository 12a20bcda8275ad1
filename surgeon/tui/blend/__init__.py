"""The blend screen: donors, method and base of a blend."""
