"""The top of a page: metrics, differences between systems, charts and lists.

The items (queries or clips) are divided into groups. A chart shows one bar for each group and system. `Chart` contains
the numbers of a chart, and the template of the page draws it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from evaluation.inspection.collecting import RIGHT, Answers, Content, Descriptions, Queries, item_metrics
from evaluation.inspection.sounds import Sound
from evaluation.metrics import catalogue
from evaluation.report import NOTHING, number, p_value, with_interval
from evaluation.statistics import comparison
from evaluation.text import cut

GROUPS = 5  # maximum number of groups in a chart of a quantity such as the duration
LISTED = 8  # number of rows of a list
RANKS = (1, 2, 5, 10, 20, 100)  # the last rank of each group in the chart of ranks
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


@dataclass(frozen=True)
class Overview:
    """The top of a page.

    Attributes:
        metrics: The table of metrics and, if there are several systems, the table of their differences.
        charts: The charts.
        tables: The lists below the charts.
    """

    metrics: Sequence[Table]
    charts: Sequence[Chart]
    tables: Sequence[Table]


def make_overview(content: Content, sounds: Sequence[Sound]) -> Overview:
    """Compute the metrics, charts and lists at the top of a page."""
    names = [system.name for system in content.systems]
    metric = item_metrics(content.systems[0].score)[0]
    values = [system.score.items.values[metric] for system in content.systems]
    seconds = np.array([math.nan if sound.seconds is None else sound.seconds for sound in sounds])
    metrics = [_metrics(content)]
    if len(names) > 1:
        metrics.append(_differences(content))
    if isinstance(content, Queries):
        charts = _charts_of_queries(content, metric, values, seconds)
        tables = _tables_of_queries(content, metric, values)
    else:
        charts = _charts_of_captions(content, metric, values, seconds)
        tables = _tables_of_captions(content)
    return Overview(metrics, [chart for chart in charts if chart], tables)


# Metrics --------------------------------------------------------------------------------------------------------------


def _metrics(content: Content) -> Table:
    """Return the table of all metrics. If several items share a clip, the intervals treat each clip as one unit."""
    first = content.systems[0].score
    kind = "95 % interval"
    if first.items.shared:
        kind = "95 % interval by clip"
    heads = ["metric", *(system.name for system in content.systems)]
    has_chance = any(measured.chance is not None for measured in first.metrics.values())
    if has_chance:
        heads.append("chance")
    rows = []
    for name, measured in first.metrics.items():
        row = [catalogue.heading(name)]
        for system in content.systems:
            found = system.score.metrics.get(name)
            if found is None:
                row.append("not available")
                continue
            estimate = found.by_clip or found.estimate
            row.append(with_interval(found.estimate.value, estimate.low, estimate.high))
        if has_chance:
            row.append(number(measured.chance))
        rows.append(row)
    note = f"{len(first.items.names):,} {first.items.kind}; in parentheses: {kind}"
    return Table("Metrics", heads, rows, note)


def _differences(content: Content) -> Table:
    """Return the table of each system's differences from the first system, with paired tests."""
    compared = comparison.compare({system.name: system.score for system in content.systems})
    rows = []
    for entry in compared.differences:
        difference = entry.difference
        interval = f"({number(difference.low, signed=True)} to {number(difference.high, signed=True)})"
        rows.append(
            [
                catalogue.heading(entry.metric),
                entry.system,
                f"{number(difference.value, signed=True)} {interval}",
                f"{p_value(entry.p_holm)} {entry.mark}".strip(),
            ]
        )
    first = content.systems[0].name
    note = "p: paired randomisation test, with Holm's correction over the systems; * p < 0.05, ** < 0.01, *** < 0.001"
    return Table(f"Differences from {first}", ["metric", "system", "difference (95 % interval)", "p"], rows, note)


# Charts ---------------------------------------------------------------------------------------------------------------


def _charts_of_queries(
    content: Queries, metric: str, values: Sequence[np.ndarray], seconds: np.ndarray
) -> list[Chart | None]:
    words = np.array([len(text.split()) for text in content.texts], dtype=float)
    counts = np.array([len(clips) for clips in content.right], dtype=float)
    durations = np.array([np.mean(seconds[list(clips)]) for clips in content.right])
    ranks = [system.first_ranks() for system in content.systems]
    return [
        _histogram(f"{_of_item(metric)} over queries", _of_item(metric), metric, values),
        _rank_chart(ranks),
        _mean_chart(metric, "length of the query", "words", words, values),
        _mean_chart(metric, "number of right clips", "right clips", counts, values),
        _mean_chart(metric, "duration of the right clips", "seconds", durations, values),
    ]


def _charts_of_captions(
    content: Descriptions, metric: str, values: Sequence[np.ndarray], seconds: np.ndarray
) -> list[Chart | None]:
    title = catalogue.heading(metric)
    lengths = []
    for clip in content.split.clips:
        lengths.append(np.mean([len(caption.split()) for caption in clip.captions]))
    words = [np.array([len(caption.split()) for caption in system.captions], float) for system in content.systems]
    return [
        _histogram(f"{title} over clips", title, metric, values),
        _length_chart(words),
        _mean_chart(metric, "mean length of the references", "words", np.round(lengths), values),
        _mean_chart(metric, "duration", "seconds", seconds, values),
    ]


def _of_item(metric: str) -> str:
    """Return the name that a metric has for a single query.

    >>> _of_item("mAP@10"), _of_item("R@1")
    ('AP@10', 'R@1')
    """
    if metric.startswith(("mAP", "MRR")):
        return metric[1:]
    return metric


def _histogram(title: str, axis: str, metric: str, values: Sequence[np.ndarray]) -> Chart:
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
    return _shares(title, axis, labels, uppers, values)


def _rank_chart(ranks: Sequence[np.ndarray]) -> Chart:
    """Return a chart of the distribution of the best rank of a relevant clip over the queries."""
    labels = ["1"]
    for before, last in pairwise(RANKS):
        labels.append(str(last) if last == before + 1 else f"{before + 1}–{last}")
    labels += [f">{RANKS[-1]}", "none"]
    uppers = [*map(float, RANKS), float(np.finfo(float).max), math.inf]
    return _shares("Rank of the best right clip", "rank", labels, uppers, ranks)


def _length_chart(words: Sequence[np.ndarray]) -> Chart:
    """Return a chart of the distribution of the number of words over the captions."""
    together = np.concatenate(words)
    uppers = _edges(together)
    return _shares("Length of the predicted captions", "words", _labels(together, uppers), uppers, words)


def _shares(
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


def _mean_chart(
    metric: str, factor_name: str, axis: str, factor: np.ndarray, values: Sequence[np.ndarray]
) -> Chart | None:
    """Return a chart of the mean of a metric in each group of items, with 95 % intervals.

    The groups are ranges of a factor, such as the duration. Return None if there are fewer than two groups, or if the
    factor is known for fewer than half of the items, as the duration is if most audio files are missing.
    """
    is_known = np.isfinite(factor)
    if is_known.sum() < len(factor) / 2:
        return None
    uppers = _edges(factor[is_known])
    if len(uppers) < 2:
        return None
    labels = _labels(factor[is_known], uppers)
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


def _edges(factor: np.ndarray) -> list[float]:
    """Divide items into at most `GROUPS` groups of about equal size, and return the largest value of each group."""
    different = np.unique(factor)
    if len(different) <= GROUPS:
        return different.tolist()
    last = len(factor) * np.arange(1, GROUPS + 1) // GROUPS - 1  # the index of each group's last item
    return np.unique(np.sort(factor)[last]).tolist()


def _labels(factor: np.ndarray, uppers: Sequence[float]) -> list[str]:
    """Return the label of each group, which shows the smallest and the largest value of the group.

    >>> _labels(np.array([2, 3, 5, 5.5, 9]), [2, 5, 9])
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


# Lists ----------------------------------------------------------------------------------------------------------------


def _tables_of_queries(content: Queries, metric: str, values: Sequence[np.ndarray]) -> list[Table]:
    tables = _hard_and_easy(content, metric, values)
    for system in content.systems:
        tables.append(_hubs(content, system))
    return tables


def _hard_and_easy(content: Queries, metric: str, values: Sequence[np.ndarray]) -> list[Table]:
    """Return tables of the clips whose queries have the worst and the best mean of a metric.

    If there are several systems, the values of the second system decide the order.
    """
    queries = np.repeat(np.arange(len(content.right)), [len(clips) for clips in content.right])
    clips = np.concatenate([np.array(clips, dtype=int) for clips in content.right])
    counts = np.bincount(clips, minlength=len(content.split.clips))
    means = []
    for numbers in values:
        sums = np.bincount(clips, numbers[queries], minlength=len(counts))
        means.append(sums / np.maximum(counts, 1))
    main = min(1, len(content.systems) - 1)
    answered = np.flatnonzero(counts)
    order = answered[np.argsort(means[main][answered], kind="stable")]
    if catalogue.lower_is_better(metric):
        order = order[::-1]
    heads = ["clip", *(f"mean {_of_item(metric)}, {system.name}" for system in content.systems), "queries"]
    if len(content.systems) == 1:
        heads[1] = f"mean {_of_item(metric)}"
    owner = f" of {content.systems[main].name}" if len(content.systems) > 1 else ""
    tables = []
    for title, chosen in (("Hardest clips" + owner, order[:LISTED]), ("Easiest clips" + owner, order[::-1][:LISTED])):
        rows, names = [], []
        for clip in chosen.tolist():
            name = content.split.file_names[clip]
            names.append(name)
            rows.append([name, *(number(float(mean[clip])) for mean in means), str(counts[clip])])
        tables.append(Table(title, heads, rows, "The mean is over the queries for which the clip is right.", names))
    return tables


def _hubs(content: Queries, system: Answers) -> Table:
    """Return a table of hubs, the clips that are among the first clips of the most queries.

    The number of these queries is the clip's k-occurrence (Radovanović et al. 2010), where k is the number of clips
    that the page shows for each query.
    """
    returned: Counter[str] = Counter()
    right: Counter[str] = Counter()
    deepest = 0
    for hits in system.hits:
        deepest = max(deepest, len(hits))
        for name in {hit.name for hit in hits}:
            returned[name] += 1
        for hit in hits:
            right[hit.name] += hit.mark == RIGHT
    rows, names = [], []
    for name, count in returned.most_common(LISTED):
        rows.append([name, f"{count:,}", f"{right[name]:,}"])
        names.append(name if name in set(content.split.file_names) else None)
    never = len(set(content.split.file_names) - returned.keys())
    mean = sum(returned.values()) / max(1, len(content.split.clips))
    note = f"A clip is among them {mean:.1f} times on average. Clips that are never among them: {never:,}."
    heads = ["clip", f"times among the {deepest} best", "right"]
    return Table(f"Hubs of {system.name}", heads, rows, note, names)


def _tables_of_captions(content: Descriptions) -> list[Table]:
    return [_vocabulary(content), *(_repeated(system.name, system.captions) for system in content.systems)]


def _vocabulary(content: Descriptions) -> Table:
    """Return a table of the vocabulary of the references and of each system."""
    references = content.split.all_captions
    known = _words(references)
    rows = [["references", *_counts(references), NOTHING]]
    for system in content.systems:
        own = len(_words(system.captions) - known)
        rows.append([system.name, *_counts(system.captions), f"{own:,}"])
    heads = ["captions of", "words each", "different words", "different captions", "words that no reference has"]
    return Table("Vocabulary", heads, rows, "Words are separated by spaces. Punctuation and case are ignored.")


def _words(captions: Sequence[str]) -> set[str]:
    words: set[str] = set()
    for caption in captions:
        for word in caption.lower().split():
            words.add(word.strip(".,;:!?\"'()"))
    words.discard("")
    return words


def _counts(captions: Sequence[str]) -> list[str]:
    length = np.mean([len(caption.split()) for caption in captions])
    return [f"{length:.1f}", f"{len(_words(captions)):,}", f"{len(set(captions)):,} of {len(captions):,}"]


def _repeated(name: str, captions: Sequence[str]) -> Table:
    """Return a table of the captions that a system gives to several clips."""
    counts = Counter(captions)
    rows = [[cut(caption), str(count)] for caption, count in counts.most_common(LISTED) if count > 1]
    repeated = sum(count for count in counts.values() if count > 1)
    note = f"{repeated:,} of {len(captions):,} clips have the same caption as another clip."
    return Table(f"Repeated captions of {name}", ["caption", "clips"], rows, note)
