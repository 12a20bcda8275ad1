"""Unfinished outputs: workspace, journal, fingerprint, and whether a run may resume."""
