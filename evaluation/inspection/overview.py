"""The top of a page: metrics, differences between systems, charts and lists."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.inspection.charts import Chart, Table
from evaluation.inspection.content import Content
from evaluation.inspection.sounds import Sound
from evaluation.metrics import catalogue
from evaluation.report import number, p_value, with_interval
from evaluation.statistics import comparison


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
    metric = content.item_metrics(content.systems[0].score)[0]
    values = [system.score.items.values[metric] for system in content.systems]
    seconds = np.array([math.nan if sound.seconds is None else sound.seconds for sound in sounds])
    metrics = [_metrics(content)]
    if len(names) > 1:
        metrics.append(_differences(content))
    charts = [chart for chart in content.charts(metric, values, seconds) if chart]
    return Overview(metrics, charts, content.tables(metric, values))


def _metrics(content: Content) -> Table:
    """Return the table of all metrics. If several items share a clip, the intervals treat each clip as one unit."""
    first = content.systems[0].score
    kind = "95 % interval"
    if first.items.shared:
        kind = f"95 % interval by {content.clip_noun}"
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
