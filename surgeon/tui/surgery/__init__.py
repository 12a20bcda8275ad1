"""The surgery screen: donors beside the stack that is built."""
