"""Bar charts and small tables, and the division of items into the groups of a chart.

`Chart` contains the numbers of a chart, and the template of the page draws it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.inspection.content import Content
from evaluation.metrics import catalogue
from evaluation.report import number

GROUPS = 5  # maximum number of groups in a chart of a quantity such as the duration
LISTED = 8  # number of rows of a list
SHARES = (0.2, 0.4, 0.6, 0.8)  # upper limits of the groups of a metric between 0 and 1
BINS = 8  # number of groups of a metric that is not limited to 0 to 1


@dataclass(frozen=True)
class Bar:
    """A bar of a chart, which may have an interval.

    Attributes:
        value: The height.
        low: The lower end of the interval; None if the bar does not have an interval.
        high: The upper end of the interval; None if the bar does not have an interval.
        tooltip: The value in words.
    """

    value: float
    low: float | None
    high: float | None
    tooltip: str


@dataclass(frozen=True)
class Chart:
    """A bar chart.

    Attributes:
        title: The title.
        axis: The name of the horizontal axis.
        labels: The label of each group of bars.
        series: For each system, the bar of each group. For a group without items, it is None.
        top: The value at the upper end of the vertical axis.
        percent: True if the values are shares.
    """

    title: str
    axis: str
    labels: Sequence[str]
    series: Sequence[Sequence[Bar | None]]
    top: float
    percent: bool = False


@dataclass(frozen=True)
class Table:
    """A small table.

    Attributes:
        title: The title.
        heads: The heads of the columns.
        rows: The cells of each row. The first cell is the name of the row.
        note: A text below the table.
        clips: For each row, the clip that the first cell links to, or None; empty if the table does not contain links.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    clips: Sequence[str | None] = field(default_factory=tuple)


def item_title(metric: str) -> str:
    """Return the name that a metric has for a single query.

    >>> item_title("mAP@10"), item_title("R@1")
    ('AP@10', 'R@1')
    """
    if metric.startswith(("mAP", "MRR")):
        return metric[1:]
    return metric


def histogram(title: str, axis: str, metric: str, values: Sequence[np.ndarray]) -> Chart:
    """Return a chart of the distribution of a metric over the items."""
    facts = catalogue.find(metric)
    if facts is not None and (facts.low, facts.high) == (0, 1):
        labels = ["0"]
        uppers = [0.0]
        for end in SHARES:
            labels.append(f"≤{end:g}")
            uppers.append(end)
        labels += ["<1", "1"]
        uppers += [math.nextafter(1, 0), math.inf]
    else:
        together = np.concatenate(values)
        uppers = np.linspace(together.min(), np.percentile(together, 95), BINS)[1:].tolist()
        labels = [f"≤{upper:.2g}" for upper in uppers] + [f">{uppers[-1]:.2g}"]
        uppers.append(math.inf)
    return shares(title, axis, labels, uppers, values)


def shares(
    title: str, axis: str, labels: Sequence[str], uppers: Sequence[float], values: Sequence[np.ndarray]
) -> Chart:
    """Return a chart of the share of values in each group. `uppers` contains the upper limit of each group."""
    series: list[list[Bar | None]] = []
    for numbers in values:
        groups = np.searchsorted(uppers, numbers)
        bars: list[Bar | None] = []
        for group, label in enumerate(labels):
            count = int((groups == group).sum())
            share = count / len(numbers)
            bars.append(Bar(share, None, None, f"{axis} {label}: {count:,} of {len(numbers):,} ({share:.1%})"))
        series.append(bars)
    return Chart(title, axis, labels, series, _top(series), percent=True)


def mean_chart(
    metric: str, factor_name: str, axis: str, factor: np.ndarray, values: Sequence[np.ndarray]
) -> Chart | None:
    """Return a chart of the mean of a metric in each group of items, with 95 % intervals.

    The groups are ranges of a factor, such as the duration. Return None if there are fewer than two groups, or if the
    factor is known for fewer than half of the items, as the duration is if most audio files are missing.
    """
    is_known = np.isfinite(factor)
    if is_known.sum() < len(factor) / 2:
        return None
    uppers = edges(factor[is_known])
    if len(uppers) < 2:
        return None
    labels = group_labels(factor[is_known], uppers)
    series = []
    for numbers in values:
        groups = np.searchsorted(uppers, factor[is_known])
        bars = []
        for group, label in enumerate(labels):
            bars.append(_mean_bar(numbers[is_known][groups == group], f"{axis} {label}"))
        series.append(bars)
    facts = catalogue.find(metric)
    top = min(_top(series), facts.high if facts else math.inf)
    return Chart(f"{catalogue.heading(metric)} by {factor_name}", axis, labels, series, top)


def _mean_bar(values: np.ndarray, label: str) -> Bar | None:
    if not len(values):
        return None
    mean = float(values.mean())
    tooltip = f"{label}: {number(mean)} over {len(values):,}"
    if len(values) < 2:
        return Bar(mean, None, None, tooltip)
    margin = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Bar(mean, mean - margin, mean + margin, f"{tooltip} ({number(mean - margin)} to {number(mean + margin)})")


def edges(factor: np.ndarray) -> list[float]:
    """Divide items into at most `GROUPS` groups of about equal size, and return the largest value of each group."""
    different = np.unique(factor)
    if len(different) <= GROUPS:
        return different.tolist()
    last = len(factor) * np.arange(1, GROUPS + 1) // GROUPS - 1  # the index of each group's last item
    return np.unique(np.sort(factor)[last]).tolist()


def group_labels(factor: np.ndarray, uppers: Sequence[float]) -> list[str]:
    """Return the label of each group, which shows the smallest and the largest value of the group.

    >>> group_labels(np.array([2, 3, 5, 5.5, 9]), [2, 5, 9])
    ['2', '3–5', '5.5–9']
    """
    groups = np.searchsorted(uppers, factor)
    labels = []
    for group, upper in enumerate(uppers):
        lower = factor[groups == group].min()
        if lower == upper:
            labels.append(f"{upper:.3g}")
        else:
            labels.append(f"{lower:.3g}–{upper:.3g}")
    return labels


def _top(series: Sequence[Sequence[Bar | None]]) -> float:
    """Return the upper end of the vertical axis, a round number above all bars and intervals (up to rounding)."""
    largest = max((max(bar.value, bar.high or 0) for bars in series for bar in bars if bar), default=0)
    if largest <= 0:
        return 1.0
    unit = 10 ** math.floor(math.log10(largest))
    return float(next(step * unit for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * unit >= largest * 0.999))


def hardest_and_easiest(
    content: Content, metric: str, values: Sequence[np.ndarray], clips_of_items: Sequence[Sequence[int]]
) -> list[Table]:
    """Return tables of the clips whose items have the worst and the best mean of a metric.

    If there are several systems, the values of the second system decide the order.

    Args:
        content: The content of the page.
        metric: The metric.
        values: For each system, the (items,) values of the metric.
        clips_of_items: For each item, the indices of the clips that it belongs to.
    """
    items = np.repeat(np.arange(len(clips_of_items)), [len(clips) for clips in clips_of_items])
    clips = np.concatenate([np.array(clips, dtype=int) for clips in clips_of_items])
    counts = np.bincount(clips, minlength=len(content.clips))
    means = []
    for numbers in values:
        sums = np.bincount(clips, numbers[items], minlength=len(counts))
        means.append(sums / np.maximum(counts, 1))
    main = min(1, len(content.systems) - 1)
    answered = np.flatnonzero(counts)
    order = answered[np.argsort(means[main][answered], kind="stable")]
    if catalogue.lower_is_better(metric):
        order = order[::-1]
    title = item_title(metric)
    noun = content.clip_noun
    heads = [noun, *(f"mean {title}, {system.name}" for system in content.systems), content.noun]
    if len(content.systems) == 1:
        heads[1] = f"mean {title}"
    owner = f" of {content.systems[main].name}" if len(content.systems) > 1 else ""
    tables = []
    for kind, chosen in (("Hardest", order[:LISTED]), ("Easiest", order[::-1][:LISTED])):
        rows, names = [], []
        for clip in chosen.tolist():
            name = content.clips[clip].file_name
            names.append(name)
            rows.append([name, *(number(float(mean[clip])) for mean in means), str(counts[clip])])
        tables.append(Table(f"{kind} {noun}s{owner}", heads, rows, content.about_clips, names))
    return tables
