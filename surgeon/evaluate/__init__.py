"""Scores per item, suites of measures, verdicts with intervals, and the results file."""
