"""Example systems to copy and change. `systems list` does not list them."""
