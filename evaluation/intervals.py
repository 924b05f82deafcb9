"""Confidence intervals of a mean over items.

Convention: the jackknife of a mean needs no resampling. Leaving item i out of n gives (S - x_i) / (n - 1), so the bias
is zero and the standard error is the sample's standard deviation over √n. The interval is the normal one that the
organisers print (astropy's `jackknife_stats` in the DCASE 2022 task 6B script): value ± 1.96 standard errors at 95 %.
It is not cut at 0 or 1.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        value: The mean over all items.
        std_error: Its standard error; NaN for a single item.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: How many items.
        interval: How the interval was made, such as `jackknife-95`.
    """

    value: float
    std_error: float
    low: float
    high: float
    n: int
    interval: str


def jackknife(values: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Return the mean of (n,) values with its jackknife interval, in closed form.

    Raises:
        ValueError: There is no value, or one that is not finite, or the confidence is not between 0 and 1.

    >>> round(jackknife(np.array([0.0, 1.0, 1.0, 0.0])).high, 4)
    1.0658
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"values must be one or more finite numbers in one dimension, but {values!r} was given")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, but {confidence} was given")
    n, value = len(values), values.mean()
    std_error = values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    margin = NormalDist().inv_cdf((1 + confidence) / 2) * std_error
    label = f"jackknife-{100 * confidence:g}"
    return Estimate(float(value), float(std_error), float(value - margin), float(value + margin), n, label)
