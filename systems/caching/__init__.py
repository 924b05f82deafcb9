"""Features and embeddings that are computed once per sound."""
