"""Parts that systems share."""
