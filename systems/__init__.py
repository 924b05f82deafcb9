"""Training systems and predicting with them. Of the kit's packages, this one imports only `evaluation`."""
