"""The Results screen: everything that was tried or evaluated."""
