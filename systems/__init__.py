"""What a team builds: the contract, training, features and shared parts. Imports `evaluation`."""
