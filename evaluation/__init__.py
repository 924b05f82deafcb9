"""Data, metrics, statistics and reports. This package imports none of the other packages."""
