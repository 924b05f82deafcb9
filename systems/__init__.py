"""Systems: their contract, check, training, caches, sweeps and shared parts. Imports `evaluation`."""
