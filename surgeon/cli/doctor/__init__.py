"""`surgeon doctor`: check this terminal and this machine."""
