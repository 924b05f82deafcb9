"""Data, metrics, statistics and reports. This package does not import the other packages."""
