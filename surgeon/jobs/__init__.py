"""Heavy work in child processes of their own session, so that a closed terminal does not stop it."""
