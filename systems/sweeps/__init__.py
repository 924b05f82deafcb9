"""Sweeps, which make many runs of one system: planning, workers, and the table of results."""
