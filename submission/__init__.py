"""The challenge's rules, with one file of facts for each task, and the tools that make, check and rank submissions."""
