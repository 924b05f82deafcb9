"""Caches of features and embeddings. These are computed once for each audio file."""
