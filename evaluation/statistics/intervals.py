"""Confidence intervals of metrics: the jackknife, the jackknife by groups, and the bootstrap.

All metrics have the same form. Each item (a query or a clip) has *statistics*, numbers that add up over items, and the
metric is a function of their sum. For a mean, the statistics are the item's value and 1. For BLEU, they are counts of
n-grams and lengths. So leaving an item out is a subtraction, and metrics need not be computed again from texts.

Conventions
-----------
- **Jackknife.** n is the number of items, θ the metric, and θ₍ᵢ₎ the metric without item i. The *pseudo-value* of item
  i is nθ - (n - 1)θ₍ᵢ₎; for a mean it is the item's own value. The standard error is the standard deviation of the
  pseudo-values (n - 1 in the denominator) divided by √n. It equals Efron's √((n - 1)/n Σ(θ₍ᵢ₎ - mean θ₍ᵢ₎)²). The 95 %
  interval is θ ± 1.96 standard errors, as astropy's `jackknife_stats` computes it in the DCASE 2022 task 6B script.
  With `jackknife-t`, Student's t with n - 1 degrees of freedom replaces 1.96, as in SELD's scorer by Turpault. The
  interval is centred on θ. The jackknife's estimate of the bias, which is zero for means, is not subtracted. The ends
  of the interval may be below 0 or above 1.
- **By groups.** Items of one group are left out together, and n is the number of groups. The five captions of a clip
  describe the same sound, so their results depend on each other. Leaving captions out one at a time treats five
  dependent captions as five independent ones, and the interval is too narrow. Leaving out whole clips gives an interval
  with the right width for the number of clips. `scores.measure` computes intervals by groups.
- **Bootstrap.** scipy draws items (or groups) with replacement, 9999 times from a fixed seed. The ends of the interval
  are percentiles of the metric over the draws, either plain or corrected for bias and acceleration (BCa, Efron 1987).
  The DCASE 2024 task 6 results state "bootstrap … 95 %", but not which of the two.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from statistics import NormalDist

import numpy as np

from evaluation.values import describe, is_missing, numbers

Metric = Callable[[np.ndarray], np.ndarray]  # computes the metric, (...), from sums of statistics, (..., d)

Values = Sequence[float] | np.ndarray
Groups = Sequence[int] | Sequence[str] | np.ndarray

METHODS = ("jackknife", "jackknife-t", "bootstrap", "bootstrap-bca")
RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval.

    Attributes:
        value: The metric over all items.
        std_error: The standard error of the metric; NaN if it cannot be computed, for example for a single item.
        low: The lower end of the interval.
        high: The upper end of the interval.
        n: The number of units that are left out or drawn. A unit is an item, or a group of items.
        interval: The method and the confidence in percent, such as `jackknife-95`.
    """

    value: float
    std_error: float
    low: float
    high: float
    n: int
    interval: str

    def __eq__(self, other: object) -> bool:
        """Compare all numbers; two NaNs are equal."""
        if not isinstance(other, Estimate):
            return NotImplemented
        return self._comparable() == other._comparable()

    def __hash__(self) -> int:
        """Return a hash of the values that are compared."""
        return hash(self._comparable())

    def _comparable(self) -> tuple[object, ...]:
        values: list[object] = []
        for value in astuple(self):
            if isinstance(value, float) and math.isnan(value):
                value = None  # unlike NaN, None equals itself
            values.append(value)
        return tuple(values)


def mean(sums: np.ndarray) -> np.ndarray:
    """Return the mean from the sums of (value, 1)."""
    return sums[..., 0] / sums[..., 1]


def pseudo_values(statistics: np.ndarray, metric: Metric) -> tuple[float, np.ndarray]:
    """Return a metric and the (n,) pseudo-values of its items.

    If there is only one item, it cannot be left out, and its pseudo-value is the metric itself.

    Args:
        statistics: (n, d) numbers of each item that add up over items.
        metric: Computes the metric from sums of statistics, (..., d).
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    total, n = statistics.sum(axis=0), len(statistics)
    value = float(metric(total))
    if n < 2:
        return value, np.array([value])
    return value, from_left_out(value, metric(total - statistics))


def from_left_out(value: float, left_out: np.ndarray) -> np.ndarray:
    """Return the (n,) pseudo-values of a metric, given the metric and its (n,) values when each item is left out."""
    return len(left_out) * value - (len(left_out) - 1) * left_out


def jackknife(
    values: Values,
    confidence: float = 0.95,
    *,
    value: float | None = None,
    groups: Groups | None = None,
    t: bool = False,
) -> Estimate:
    """Return a metric with its jackknife interval, in closed form.

    Args:
        values: (n,) pseudo-values; for a mean, the items' own values. A list, an array, or a column of pandas.
        confidence: The confidence level: the share of such intervals that contain the true value.
        value: The metric (default: the mean of `values`).
        groups: (n,) the group of each item (default: each item is a group). The values of a group are left out
            together. This is exact only for a mean. For any other metric, pass the pseudo-values of `grouped`
            statistics as `values`, and do not pass `groups`.
        t: Use Student's t with n - 1 degrees of freedom instead of the normal distribution.

    Raises:
        ValueError: There are no values, a value is not finite, the confidence is not between 0 and 1, or the number of
            groups differs from the number of values.

    >>> round(jackknife([0, 1, 1, 0]).high, 4)
    1.0658
    """
    values = _finite(values, confidence, 1)
    average = float(values.mean())
    if groups is not None:
        sums, counts = grouped(values, groups)
        # Without a group the mean is (S - S_g) / (n - n_g). A single group cannot be left out.
        if len(sums) > 1:
            left_out = (sums.sum() - sums) / (counts.sum() - counts)
        else:
            left_out = sums / counts
        values = from_left_out(average, left_out)
    n = len(values)
    std_error = np.nan
    if n > 1:
        std_error = float(values.std(ddof=1) / np.sqrt(n))
    method = "jackknife"
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    if t:
        from scipy.special import stdtrit  # imported only here, because it takes half a second

        method = "jackknife-t"
        quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    if value is None:
        value = average
    margin = quantile * std_error
    return Estimate(value, std_error, value - margin, value + margin, n, f"{method}-{100 * confidence:g}")


def bootstrap(
    statistics: Values,
    metric: Metric = mean,
    confidence: float = 0.95,
    *,
    groups: Groups | None = None,
    bca: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return a metric with its bootstrap interval.

    Args:
        statistics: (n, d) numbers of each item that add up over items; or (n,) values, whose mean is the metric.
        metric: Computes the metric from sums of statistics, (..., d).
        confidence: The confidence level: the share of such intervals that contain the true value.
        groups: (n,) the group of each item (default: each item is a group). Whole groups are drawn.
        bca: Correct the percentiles for bias and acceleration.
        resamples: The number of draws.
        seed: The seed of the draws.

    Returns:
        The metric with its interval. The ends are NaN if the metric of a draw is undefined (a denominator of 0).

    Raises:
        ValueError: As `jackknife`.
    """
    from scipy.stats import DegenerateDataWarning  # imported only here, because it takes a second
    from scipy.stats import bootstrap as draw

    statistics = numbers(statistics, "values")
    if statistics.ndim == 1:
        statistics = np.stack([statistics, np.ones(len(statistics))], axis=1)
    statistics = _finite(statistics, confidence, 2)
    if groups is not None:
        statistics, _ = grouped(statistics, groups)
    n = len(statistics)
    value = float(metric(statistics.sum(axis=0)))
    name = "bootstrap-bca" if bca else "bootstrap"
    label = f"{name}-{100 * confidence:g}"
    if n == 1:
        return Estimate(value, np.nan, np.nan, np.nan, n, label)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = draw(
            (np.arange(n),),
            lambda drawn, axis: metric(statistics[drawn].sum(axis=-2)),
            n_resamples=resamples,
            batch=max(1, 4_000_000 // statistics.size),
            vectorized=True,
            confidence_level=confidence,
            method="BCa" if bca else "percentile",
            rng=seed,
        )
    low, high = map(float, result.confidence_interval)
    if np.allclose(result.bootstrap_distribution, value, rtol=1e-12, atol=0):
        low = high = value  # all draws are equal, so BCa's acceleration is undefined; the interval is one point
    return Estimate(value, float(result.standard_error), low, high, n, label)


def grouped(values: np.ndarray, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of (n, …) values over each group, and the number of values in each group.

    Raises:
        ValueError: As `group_indices`.
    """
    index = group_indices(groups, len(values))
    counts = np.bincount(index)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums, counts


def group_indices(groups: Groups, count: int) -> np.ndarray:
    """Return the (n,) index of each item's group. Groups are numbered in the order of their sorted labels.

    Args:
        groups: (n,) the label of each item's group: whole numbers or texts.
        count: The number of items.

    Raises:
        ValueError: The number of groups differs from the number of items, or a group is missing (NaN or None).
    """
    labels = np.asarray(groups)
    if labels.ndim != 1:
        raise ValueError(f"groups must be a list or an array with one dimension; found {describe(groups)}")
    if len(labels) != count:
        raise ValueError(f"each value must have a group; found {len(labels)} groups for {count} values")
    if labels.dtype.kind in "fO":
        missing = [index for index, label in enumerate(labels) if label is None or is_missing(label)]
        if missing:
            first = missing[0]
            raise ValueError(f"each value must have a group; found {describe(labels[first])} at index {first}")
        if labels.dtype.kind == "O":
            labels = labels.astype(str)
    return np.unique(labels, return_inverse=True)[1]


def _finite(values: Values, confidence: float, dimensions: int) -> np.ndarray:
    """Check the values and the confidence, and return the values as float64."""
    array = numbers(values, "values", dimensions).astype(np.float64, copy=False)
    if not len(array):
        raise ValueError("values must be one or more finite numbers; found none")
    wrong = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    if len(wrong):
        share = f"{len(wrong)} of {len(array)} with NaN or infinity"
        raise ValueError(f"values must be finite numbers; found {share}, the first at index {wrong[0]}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; found {confidence}")
    return array
