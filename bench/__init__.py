"""Speed, measured side by side with what one would use instead: `python -m bench`, or `make bench`."""
