"""Many runs of one system: the grid, the workers, and the table of results."""
