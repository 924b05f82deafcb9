"""The check that a module keeps the rules for systems (`systems.contract`). `systems check NAME` runs it."""
