"""Unfinished outputs: workspace, journal, fingerprint, and checks whether a run can be resumed."""
