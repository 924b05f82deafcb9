"""Data sets, tables and audio: strict reading, downloads, and a synthetic data set."""
