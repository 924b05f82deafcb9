"""Sweeps, which make many runs of one system. This package plans the runs, makes them, and writes their results."""
