"""The check of a system against the contract, which `systems check NAME` runs."""
