"""Caches of features and embeddings, which are computed once for each sound."""
