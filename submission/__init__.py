"""What the challenge asks: one file of facts per task and year. Imports `evaluation`."""
