"""Measurements of the speed of the kit and of other libraries: `python -m bench`, or `make bench`."""
