"""Measurements of the kit's speed, next to the alternatives: `python -m bench`, or `make bench`."""
