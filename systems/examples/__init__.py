"""Example systems to copy and change. `dcase-systems list` does not list them."""
