"""What an evaluation found: metrics with intervals, the items they are made of, and a signature; printed and kept.

The signature, in sacreBLEU's manner, names all that changes the numbers. Two scores in which a part of it differs are
of different things, and `evaluation.statistics.comparison` refuses them (it says which parts do not count). The file
is JSON:

    {"signature": "…",
     "metrics": {"mAP@10": {"value":, "std_error":, "low":, "high":, "n":, "interval": "jackknife-95",
                            "chance":, "by_clip": {"std_error":, "low":, "high":, "n":, "interval":}}, …},
     "unavailable": {"spice": "why, and the command that mends it"},
     "items": {"kind": "queries", "names": […], "groups": […], "values": {"mAP@10": […]}}}

The values of a metric that is a mean are the items' own; of a corpus metric they are the jackknife's pseudo-values
(`evaluation.statistics.intervals`), whose differences between two systems are as good. `chance`, `by_clip` and
`unavailable` stand where there is such a thing. A figure that is none (the standard error of a single item)
or not finite is null.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding, table
from evaluation.metrics import catalogue
from evaluation.statistics.intervals import (
    METHODS,
    RESAMPLES,
    Estimate,
    Metric,
    bootstrap,
    grouped,
    jackknife,
    mean,
    pseudo_values,
)

VERSION = "0.2.0"
EXACT = "cider_d:idf-of-split-left-out-exact"  # the part of a signature that says so
ROUNDING = 1e-6  # relative; a file may hold figures of six or more digits
MANY = 50  # items, from which on the pseudo-values' mean is known to lie near the metric
NEAR = 3  # standard errors; BLEU-4, the most biased, was within 0.3 of CoNeTTE's captions, and 1 where one clip matches


@dataclass(frozen=True)
class Measured:
    """One metric of one prediction.

    Attributes:
        estimate: The metric with its interval, each item counted for itself.
        by_clip: The same where items of one clip are left out together; None where each item is a clip, and for
            metrics that have no such interval.
        values: (n,) the items' pseudo-values (of a mean: the items' own values); None where the metric has none.
        chance: What a random prediction reaches; None where that is not known.
    """

    estimate: Estimate
    by_clip: Estimate | None = None
    values: np.ndarray | None = field(default=None, repr=False, compare=False)
    chance: float | None = None

    def figures(self) -> dict[str, Any]:
        """What is kept of it as JSON; the items' values stand elsewhere."""
        figures = plain(asdict(self.estimate))
        if self.chance is not None:
            figures["chance"] = plain(self.chance)
        if self.by_clip:
            figures["by_clip"] = {key: value for key, value in plain(asdict(self.by_clip)).items() if key != "value"}
        return figures


@dataclass(frozen=True)
class Items:
    """What a metric is computed over.

    Attributes:
        kind: What they are, in the plural: queries or clips.
        names: (n,) their names.
        groups: (n,) the group of each: equal for those that share a clip.
    """

    kind: str
    names: tuple[str, ...]
    groups: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether some items share a group."""
        return len(set(self.groups)) < len(self.groups)


def measure(
    statistics: np.ndarray,
    items: Items,
    method: str,
    metric: Metric = mean,
    *,
    chance: float | None = None,
) -> Measured:
    """Compute a metric with its intervals.

    Args:
        statistics: (n, d) what adds up over items, or (n,) values of which the mean is taken.
        items: The items.
        method: One of `intervals.METHODS`.
        metric: What sums of statistics make.
        chance: What a random prediction reaches.
    """
    if statistics.ndim == 1:
        value, values = float(statistics.mean()), np.asarray(statistics, dtype=np.float64)
    else:
        value, values = pseudo_values(statistics, metric)
    made = []
    for groups in (None, items.groups) if items.shared else (None,):
        if method.startswith("bootstrap"):
            made.append(bootstrap(statistics, metric, groups=groups, bca=method == "bootstrap-bca"))
        elif groups is None or statistics.ndim == 1:
            made.append(jackknife(values, value=value, groups=groups, t=method == "jackknife-t"))
        else:
            together = pseudo_values(grouped(statistics, groups)[0], metric)[1]
            made.append(jackknife(together, value=value, t=method == "jackknife-t"))
    return Measured(made[0], made[1] if items.shared else None, values, chance)


def interval_method(name: str) -> str:
    """Return the name of an interval method as the signature has it, or raise BadRequest."""
    if name not in METHODS:
        raise BadRequest(f"unknown interval {name!r}; there are: {', '.join(METHODS)}")
    if name.startswith("bootstrap"):
        return f"{name}-95-{RESAMPLES}-seed-0-scipy-{version('scipy')}"
    return f"{name}-95" + ("-normal" if name == "jackknife" else "")


@dataclass(frozen=True)
class Score:
    """The metrics of one prediction and the signature that says what was measured.

    Attributes:
        metrics: What was measured, by the metric's name.
        items: What the values of the metrics belong to.
        signature: All that the numbers depend on, as `key:value` joined by `|`.
        unavailable: Metrics that could not be computed, with the reason and the command that mends it.
        findings: Warnings and notes about the prediction.
    """

    metrics: Mapping[str, Measured]
    items: Items
    signature: str
    unavailable: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        """The metrics as a table, with the signature below."""
        columns: list[tuple[str, Callable[[Measured], str]]] = [
            ("value", lambda m: number(m.estimate.value)),
            ("95 % interval", lambda m: _span(m.estimate)),
        ]
        if any(m.by_clip for m in self.metrics.values()):
            columns.append(("by clip", lambda m: _span(m.by_clip)))
        if any(m.chance is not None for m in self.metrics.values()):
            columns.append(("chance", lambda m: number(m.chance)))
        columns.append((self.items.kind, lambda m: str(m.estimate.n)))
        rows = [[name, *(show(m) for _, show in columns)] for name, m in self.metrics.items()]
        rows += [[name, "not available"] for name in self.unavailable]
        text = table(rows, ["metric", *(head for head, _ in columns)], numbers=range(1, len(columns) + 1))
        names: dict[str, list[str]] = {}
        for name, reason in self.unavailable.items():
            names.setdefault(reason, []).append(name)
        reasons = [f"{', '.join(those)}: {reason}" for reason, those in names.items()]
        return "\n".join([text, *reasons, f"signature: {self.signature}"])

    def save(self, path: Path) -> None:
        """Write as JSON at full precision, whole or not at all."""
        content: dict[str, Any] = {"signature": self.signature, "metrics": {}}
        for name, measured in self.metrics.items():
            content["metrics"][name] = measured.figures()
        if self.unavailable:
            content["unavailable"] = dict(self.unavailable)
        items = {
            "kind": self.items.kind,
            "names": self.items.names,
            "groups": self.items.groups,
            "values": {name: m.values.tolist() for name, m in self.metrics.items() if m.values is not None},
        }
        # The figures are laid out for people to read; the items, thousands of numbers, on one line.
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        text += f',\n  "items": {json.dumps(items, ensure_ascii=False, allow_nan=False)}\n}}\n'
        with replacing(path) as part:
            # What no UTF-8 has, half a surrogate pair, stands in a text, and there "\\udc80" is JSON's own escape.
            part.write_text(text, encoding="utf-8", errors="backslashreplace")


def plain(content: Any) -> Any:
    """The same with null for numbers that JSON does not have: NaN and infinity."""
    if isinstance(content, Mapping):
        return {key: plain(value) for key, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content


def number(value: float | None) -> str:
    """A figure for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _span(estimate: Estimate | None) -> str:
    if estimate is None or not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "–"
    return f"{number(estimate.low)} – {number(estimate.high)}"


def read(path: Path) -> Score:
    """Read what `Score.save` wrote.

    Raises:
        BadRequest: There is no such file.
        Faulty: It is not a score, or one that holds no items.
    """
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give what `evaluation score … --json FILE` wrote")
    try:
        content = {"the file": json.loads(path.read_text(encoding="utf-8"))}
        score = _take(content, "the file", dict)
        items = _take(score, "items", dict)
        kept = Items(
            _take(items, "kind", str, place="items."),
            _each(_take(items, "names", list, place="items."), str, "items.names"),
            _each(_take(items, "groups", list, place="items."), int, "items.groups"),
        )
        if not kept.names or len(kept.groups) != len(kept.names):
            found = f"{len(kept.names)} and {len(kept.groups)}"
            raise ValueError(f"items.names and items.groups must be one or more and as many, not {found}")
        values = _take(items, "values", dict, place="items.")
        metrics = {}
        for name in _take(score, "metrics", dict):
            place = f"metrics.{name}."
            figures = _take(score["metrics"], name, dict, place="metrics.")
            estimate, by_clip = _estimate(figures, place), None
            if "by_clip" in figures:
                shared = _take(figures, "by_clip", dict, place=place) | {"value": figures["value"]}
                by_clip = _estimate(shared, f"{place}by_clip.")
            metrics[name] = Measured(
                estimate,
                by_clip,
                _values(values, name, len(kept.names)) if name in values else None,
                _figure(figures, "chance", place) if "chance" in figures else None,
            )
        unavailable = _take(score, "unavailable", dict) if "unavailable" in score else {}
        _each(unavailable.values(), str, "unavailable")
        return Score(metrics, kept, _take(score, "signature", str), unavailable)
    except (ValueError, OverflowError, RecursionError) as error:  # of json and of numbers beyond all bounds too
        reason = "it is no JSON" if isinstance(error, UnicodeDecodeError | json.JSONDecodeError) else error
        message = f"must be what `evaluation score … --json FILE` writes ({reason}); score the prediction again"
        raise Faulty([Finding(str(path), message=message)]) from None


def check(score: Score, file: str) -> list[Finding]:
    """Recompute the figures of a score from the values of its items.

    A metric that is a mean must be the mean of its items' values. BLEU and METEOR are no means: their items' values are
    the jackknife's pseudo-values, whose mean differs from the metric by its bias. Such a metric must be the middle of
    its jackknife interval, and, of `MANY` items or more, within `NEAR` standard errors of that mean. Jackknife
    intervals must be those of the values. Metrics without values, such as the median rank, cannot be recomputed, and
    bootstrap intervals would need the draws of the scipy that made them; neither is compared by `evaluation compare`.

    Args:
        score: A score that was read from a file.
        file: The file's name in findings.

    Returns:
        One finding for each figure that differs from what the values give.
    """
    findings = []
    for name, measured in score.metrics.items():
        if measured.values is None or not math.isfinite(measured.estimate.value):
            continue
        fault = _value_fault(name, measured, score)
        if fault:
            findings.append(Finding(file, column=f"metrics.{name}.value", message=f"{fault}; {_AGAIN}"))
            continue  # the interval lies around the value: it would only repeat the fault
        for key, wanted, found in _interval_differences(name, measured, score):
            message = f"must be {wanted:.6g}, computed from items.values.{name}; found {found:.6g}; {_AGAIN}"
            findings.append(Finding(file, column=f"metrics.{name}.{key}", message=message))
    return findings


_AGAIN = "was the file changed by hand? score the prediction again"


def _is_mean(name: str, score: Score) -> bool:
    """Return whether a metric is the mean of its items' values."""
    metric = catalogue.find(name)
    if metric is None:
        return True
    if metric.statistic == "weighted":
        return EXACT not in score.signature.split("|")
    return metric.statistic != "corpus"


def _value_fault(name: str, measured: Measured, score: Score) -> str | None:
    """Say why a metric cannot be what its items' values make; None where it can."""
    estimate, values = measured.estimate, measured.values
    average = float(values.mean())
    if _is_mean(name, score):
        if _equal(estimate.value, average):
            return None
        return f"must be the mean of items.values.{name}, {average:.6g}; found {estimate.value:.6g}"
    if estimate.interval.startswith("jackknife"):
        middle = (estimate.low + estimate.high) / 2
        if math.isfinite(middle) and not _equal(estimate.value, middle):
            return f"must be the middle of its interval, {middle:.6g}; found {estimate.value:.6g}"
    if len(values) >= MANY:
        distance = NEAR * float(values.std(ddof=1)) / math.sqrt(len(values))
        if abs(estimate.value - average) > distance + ROUNDING:
            low, high = average - distance, average + distance
            return (
                f"must lie between {low:.6g} and {high:.6g}, {NEAR} standard errors around the mean of the "
                f"pseudo-values in items.values.{name}; found {estimate.value:.6g}"
            )
    return None


def _interval_differences(name: str, measured: Measured, score: Score) -> list[tuple[str, float, float]]:
    """Return the key, the recomputed and the stored figure of each jackknife interval's figures that differ."""
    stored = {"": measured.estimate}
    if measured.by_clip and _is_mean(name, score):
        stored["by_clip."] = measured.by_clip
    differences = []
    for prefix, estimate in stored.items():
        if not estimate.interval.startswith("jackknife"):
            continue
        groups = score.items.groups if prefix else None
        student = estimate.interval.startswith("jackknife-t")
        wanted = jackknife(measured.values, value=measured.estimate.value, groups=groups, t=student)
        for key in ("std_error", "low", "high", "n"):
            expected, found = getattr(wanted, key), getattr(estimate, key)
            if not _equal(expected, found):
                differences.append((prefix + key, expected, found))
    return differences


def _equal(one: float, other: float) -> bool:
    """Compare two figures, either of which may be rounded; NaN equals NaN."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)


_KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number"}
_FIGURE = (float, int, type(None))


def _take(content: Mapping[str, Any], key: str, *kinds: type, place: str = "") -> Any:
    if key not in content:
        raise ValueError(f"there is no {place}{key}")
    if type(content[key]) not in kinds:
        raise ValueError(f"{place}{key} must be {_KINDS[kinds[0]]}, not {content[key]!r:.60}")
    return content[key]


def _each(values: Iterable[Any], kind: type, place: str) -> tuple[Any, ...]:
    for value in values:
        if type(value) is not kind:
            raise ValueError(f"{place} must each be {_KINDS[kind]}, not {value!r:.60}")
    return tuple(values)


def _values(values: Mapping[str, Any], name: str, n: int) -> np.ndarray:
    listed = _take(values, name, list, place="items.values.")
    if len(listed) != n or not all(type(value) in (float, int) and math.isfinite(value) for value in listed):
        raise ValueError(f"items.values.{name} must hold {n} finite numbers")
    return np.array(listed, dtype=np.float64)


def _figure(figures: Mapping[str, Any], key: str, place: str) -> float:
    figure = _take(figures, key, *_FIGURE, place=place)
    return math.nan if figure is None else float(figure)


def _estimate(figures: Mapping[str, Any], place: str) -> Estimate:
    value, std_error, low, high = (_figure(figures, key, place) for key in ("value", "std_error", "low", "high"))
    n, interval = _take(figures, "n", int, place=place), _take(figures, "interval", str, place=place)
    return Estimate(value, std_error, low, high, n, interval)
