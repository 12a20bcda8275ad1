"""The terminal interface: a session of pure state, one registry of actions, small widgets, four screens."""
