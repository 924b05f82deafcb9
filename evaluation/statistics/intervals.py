"""Confidence intervals of metrics: the jackknife, plain and by groups, and the bootstrap.

One form serves every metric. Each item (a query, a clip) has *statistics*, numbers that add up over items, and the
metric is a function of their sum: of a mean these are the item's value and 1, of corpus BLEU the n-gram counts and
lengths. So leaving items out means subtracting, and no metric is ever computed again from its texts.

Conventions
-----------
- **Jackknife.** With n items, the metric θ, and θ₍ᵢ₎ without item i, the *pseudo-value* of an item is
  nθ - (n - 1)θ₍ᵢ₎; of a mean it is the item's own value. The standard error is the pseudo-values' standard deviation
  (n - 1 in the denominator) over √n, which is Efron's (n - 1)/n Σ(θ₍ᵢ₎ - mean θ₍ᵢ₎)² under the root. The interval is
  θ ± 1.96 standard errors at 95 % (astropy's `jackknife_stats` in the DCASE 2022 task 6B script), or with Student's t
  at n - 1 degrees of freedom (as SELD's scorer, Turpault's). It is centred on θ itself: the jackknife's estimate of the
  bias, zero for means, is not subtracted. It is not cut at 0 or 1.
- **By groups.** Items of one group are left out together, and the groups are what is counted. Five captions of one clip
  meet the same sound: what makes it easy makes it easy for all five. Left out one by one they look like five times the
  evidence, and the interval comes out too narrow; left out clip by clip it is as wide as so many clips allow.
- **Bootstrap.** Items (or groups) are drawn with replacement, 9999 times from one seed, by scipy; the interval is the
  percentiles of the metric over the draws, or those corrected for bias and acceleration (BCa, Efron 1987). The DCASE
  2024 task 6 results say "bootstrap … 95 %" and not which.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from statistics import NormalDist

import numpy as np

Metric = Callable[[np.ndarray], np.ndarray]  # sums of statistics (..., d) to the metric (...)

METHODS = ("jackknife", "jackknife-t", "bootstrap", "bootstrap-bca")
RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval.

    Attributes:
        value: The metric over all items.
        std_error: Its standard error; NaN where there is none, as for a single item.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: How many items, or groups of items, were left out or drawn.
        interval: How the interval was made, such as `jackknife-95`.
    """

    value: float
    std_error: float
    low: float
    high: float
    n: int
    interval: str

    def __eq__(self, other: object) -> bool:
        """Compare all figures; where both have none (NaN), they are equal."""
        if not isinstance(other, Estimate):
            return NotImplemented
        return self._comparable() == other._comparable()

    def __hash__(self) -> int:
        """Hash what is compared."""
        return hash(self._comparable())

    def _comparable(self) -> tuple[object, ...]:
        # NaN is not equal to itself, and None is.
        return tuple(None if isinstance(part, float) and math.isnan(part) else part for part in astuple(self))


def mean(sums: np.ndarray) -> np.ndarray:
    """The mean, of the sums of (value, 1)."""
    return sums[..., 0] / sums[..., 1]


def pseudo_values(statistics: np.ndarray, metric: Metric) -> tuple[float, np.ndarray]:
    """Return a metric and the (n,) pseudo-values of its items.

    Args:
        statistics: (n, d) numbers of each item that add up.
        metric: What the sums, (..., d), make.

    Of a single item, which cannot be left out, the pseudo-value is the metric itself.
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    total, n = statistics.sum(axis=0), len(statistics)
    value = float(metric(total))
    return value, from_left_out(value, metric(total - statistics)) if n > 1 else np.array([value])


def from_left_out(value: float, left_out: np.ndarray) -> np.ndarray:
    """The (n,) pseudo-values of a metric, from what it is without each of its n items."""
    return len(left_out) * value - (len(left_out) - 1) * left_out


def jackknife(
    values: np.ndarray,
    confidence: float = 0.95,
    *,
    value: float | None = None,
    groups: Sequence[int] | Sequence[str] | None = None,
    t: bool = False,
) -> Estimate:
    """Return a metric with its jackknife interval, in closed form.

    Args:
        values: (n,) pseudo-values; of a mean the items' own values.
        confidence: How often such an interval holds the true value.
        value: The metric; the mean of `values` unless given.
        groups: (n,) to which group each item belongs; each is its own by default. What is left out are the values,
            which is exact of a mean; of another metric take the pseudo-values of `grouped` statistics.
        t: Student's t at n - 1 degrees of freedom instead of the normal distribution.

    Raises:
        ValueError: There is no value, or one that is not finite, or the confidence is not between 0 and 1, or there
            are not as many groups as values.

    >>> round(jackknife(np.array([0.0, 1.0, 1.0, 0.0])).high, 4)
    1.0658
    """
    values = _finite(values, confidence, 1)
    average = float(values.mean())
    if groups is not None:
        sums, counts = grouped(values, groups)
        # Without a group the mean is (S - S_g) / (n - n_g); of one group nothing is left.
        if len(sums) > 1:
            left_out = (sums.sum() - sums) / (counts.sum() - counts)
        else:
            left_out = sums / counts
        values = from_left_out(average, left_out)
    n = len(values)
    std_error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    if not t:
        quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    elif n > 1:
        from scipy.special import stdtrit  # half a second, which only this choice pays

        quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    else:
        quantile = np.nan
    value, margin = average if value is None else value, quantile * std_error
    label = f"jackknife{'-t' if t else ''}-{100 * confidence:g}"
    return Estimate(value, std_error, value - margin, value + margin, n, label)


def bootstrap(
    statistics: np.ndarray,
    metric: Metric = mean,
    confidence: float = 0.95,
    *,
    groups: Sequence[int] | Sequence[str] | None = None,
    bca: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return a metric with its bootstrap interval.

    Args:
        statistics: (n, d) numbers of each item that add up, or (n,) values of which the mean is taken.
        metric: What the sums, (..., d), make.
        confidence: How often such an interval holds the true value.
        groups: (n,) to which group each item belongs; groups are drawn whole.
        bca: Correct for bias and acceleration instead of taking the percentiles as they are.
        resamples: How many draws.
        seed: Where they start from.

    Raises:
        ValueError: As `jackknife`.

    Where the metric of some draw is none (a denominator that is 0), there is no interval either: its ends are NaN.
    """
    from scipy.stats import DegenerateDataWarning  # a second, which only this choice pays
    from scipy.stats import bootstrap as draw

    statistics = np.asarray(statistics, dtype=np.float64)
    if statistics.ndim == 1:
        statistics = np.stack([statistics, np.ones(len(statistics))], axis=1)
    statistics = _finite(statistics, confidence, 2)
    if groups is not None:
        statistics, _ = grouped(statistics, groups)
    n, value = len(statistics), float(metric(statistics.sum(axis=0)))
    label = f"bootstrap{'-bca' if bca else ''}-{100 * confidence:g}"
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
        low = high = value  # all draws alike: there is no acceleration, and the interval is that one point
    return Estimate(value, float(result.standard_error), low, high, n, label)


def grouped(values: np.ndarray, groups: Sequence[int] | Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of (n, …) values over each group, and how many items each has.

    Raises:
        ValueError: There are more values than groups given, or fewer.
    """
    if len(groups) != len(values):
        raise ValueError(f"groups must be as many as values, but {len(groups)} and {len(values)} were given")
    _, index, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums, counts


def _finite(values: np.ndarray, confidence: float, dimensions: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != dimensions or not len(values) or not np.isfinite(values).all():
        wanted = f"one or more finite numbers in {('one dimension', 'two dimensions')[dimensions - 1]}"
        raise ValueError(f"values must be {wanted}, but {values!r} was given")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, but {confidence} was given")
    return values
