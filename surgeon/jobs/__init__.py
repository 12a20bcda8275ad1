"""Jobs: long work in child processes with their own session, so that a closed terminal does not stop them."""
