"""The check that a module keeps the rules for systems (`systems.contract`). `dcase-systems check NAME` runs it."""
