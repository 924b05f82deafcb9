"""Statistics of scores: confidence intervals, paired comparisons, and the effects of a sweep's factors on a metric."""
