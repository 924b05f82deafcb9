"""Competitions on the platform Codabench: `bundle` writes a competition, and `score` is its scoring program."""
