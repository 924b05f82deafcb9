"""Metrics of retrieval and captioning, and the programs and models that compute them."""
