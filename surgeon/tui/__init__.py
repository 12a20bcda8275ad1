"""The terminal interface: an application, one registry of actions, controllers, small widgets, a folder per screen."""
