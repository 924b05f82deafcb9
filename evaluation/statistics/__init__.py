"""Confidence intervals, paired comparisons, and what the factors of a sweep do."""
