"""`surgeon doctor`: what this terminal and this machine can do."""
