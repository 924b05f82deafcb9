"""The official baseline, written to be read. Imports `systems` and `evaluation`."""
