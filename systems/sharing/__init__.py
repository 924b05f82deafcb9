"""Sharing trained systems: export a run to a folder in the layout of the Hugging Face hub, and load such a folder."""
