"""Scores: metrics with intervals, the items that they are computed from, and a signature.

    score = Score.load("runs/captioner.json")
    score.table()                                   # a DataFrame with a row for each metric
    score.items.table()                             # a DataFrame with a row for each query or clip
    score.extended(other).save("runs/all.json")     # with the metrics of another score of the same prediction

As in sacreBLEU, the signature names everything that changes the numbers. Two scores whose signatures differ measure
different things, and `evaluation.statistics.comparison` refuses to compare them (its docstring lists the three parts
that may differ). A score file is JSON:

    {"signature": "…",
     "metrics": {"mAP@10": {"value":, "std_error":, "low":, "high":, "n":, "interval": "jackknife-95",
                            "chance":, "by_clip": {"std_error":, "low":, "high":, "n":, "interval":}}, …},
     "unavailable": {"spice": "the reason, and the command that makes it available"},
     "items": {"kind": "queries", "names": […], "groups": […], "values": {"mAP@10": […]}}}

If a metric is a mean, `values` contains the metric's value for each item. For a corpus metric, it contains the
jackknife's pseudo-values (`evaluation.statistics.intervals`). To compare two systems, the differences of pseudo-values
are used in the same way as differences of values. `chance`, `by_clip` and `unavailable` are optional. A number is null
if it does not exist, such as the standard error of a single item, or if it is not finite.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, InstanceOf, ValidationError

from evaluation import report
from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding, limited
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
from evaluation.text import html_table, plural, table

if TYPE_CHECKING:
    import pandas as pd

VERSION = "0.2.0"
EXACT = "cider_d:idf-of-split-left-out-exact"  # the part of a signature for `--idf exact`
ROUNDING = 1e-6  # relative tolerance: a file may have numbers rounded to six digits
# The check of a corpus metric: with at least `MANY` items, the mean of its pseudo-values must be within `NEAR` standard
# errors of the metric. BLEU-4 has the largest bias: at most 0.3 standard errors for CoNeTTE, and 1 if only one clip
# matches its references.
MANY = 50
NEAR = 3
TABLE = ("value", "std_error", "low", "high", "by_clip_low", "by_clip_high", "chance", "n")  # columns of `Score.table`
SHOWN = 60  # number of characters of an invalid value to show in a message


@dataclass(frozen=True)
class Measured:
    """One metric of one prediction.

    Attributes:
        estimate: The metric with its interval. A jackknife interval leaves items out one at a time.
        by_clip: The metric with the interval that leaves all items of a clip (in moment retrieval, of a recording) out
            together; None if each item is a clip, and for metrics that have no such interval.
        values: Array of shape (n,) for n items. If the metric is a mean, it has the value of each item, otherwise the
            pseudo-value of each item; None if the metric has no such values.
        chance: The expected value for a random prediction; None if it is not known.
    """

    estimate: Estimate
    by_clip: Estimate | None = None
    values: np.ndarray | None = field(default=None, repr=False, compare=False)
    chance: float | None = None

    def figures(self) -> dict[str, Any]:
        """Return the numbers as they are saved in JSON, without the items' values."""
        figures = plain(asdict(self.estimate))
        if self.chance is not None:
            figures["chance"] = plain(self.chance)
        if self.by_clip:
            by_clip = plain(asdict(self.by_clip))
            del by_clip["value"]
            figures["by_clip"] = by_clip
        return figures


@dataclass(frozen=True)
class Items:
    """The items that a metric is computed over.

    Attributes:
        kind: The plural noun for the items: queries, clips or questions.
        names: The names of the n items.
        groups: The index of each item's group. Items about the same clip or recording have the same group.
        values: For the items of a score, a dict from each metric to the (n,) values of the items. If the metric is not
            a mean, they are pseudo-values (`Measured.values`). Metrics without such values are left out.
    """

    kind: str
    names: tuple[str, ...]
    groups: tuple[int, ...]
    values: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        """Describe the items on one line."""
        return f"Items({len(self.names)} {self.kind} in {len(set(self.groups))} groups)"

    def table(self) -> "pd.DataFrame":
        """Return the group and the values of each item, one row for each item."""
        import pandas as pd

        columns = {"group": self.groups, **self.values}
        return pd.DataFrame(columns, index=pd.Index(self.names, name=self.kind, dtype=object))

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        return str(self.table()._repr_html_())

    @property
    def shared(self) -> bool:
        """True if some items share a group."""
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
        statistics: Either d numbers for each of n items, whose sums over the items give the metric: an array of shape
            (n, d). Or values whose mean is the metric: an array of shape (n,).
        items: The items.
        method: One of `intervals.METHODS`.
        metric: The function that computes the metric from the sums, an array of shape (..., d).
        chance: The expected value for a random prediction.

    Returns:
        The metric, with an interval by clip if items share clips.
    """
    if statistics.ndim == 1:
        value, values = float(statistics.mean()), np.asarray(statistics, dtype=np.float64)
    else:
        value, values = pseudo_values(statistics, metric)

    def estimate(groups: Sequence[int] | None) -> Estimate:
        if method.startswith("bootstrap"):
            return bootstrap(statistics, metric, groups=groups, bca=method == "bootstrap-bca")
        is_student = method == "jackknife-t"
        if groups is None or statistics.ndim == 1:
            return jackknife(values, value=value, groups=groups, t=is_student)
        sums, _ = grouped(statistics, groups)
        _, values_of_groups = pseudo_values(sums, metric)
        return jackknife(values_of_groups, value=value, t=is_student)

    by_clip = estimate(items.groups) if items.shared else None
    return Measured(estimate(None), by_clip, values, chance)


def interval_method(name: str) -> str:
    """Return the text that stands for an interval method in the signature.

    Raises:
        BadRequest: The name is not one of `intervals.METHODS`.
    """
    if name not in METHODS:
        raise BadRequest(f"unknown interval {name!r}; there are: {', '.join(METHODS)}")
    if name.startswith("bootstrap"):
        return f"{name}-95-{RESAMPLES}-seed-0-scipy-{version('scipy')}"
    if name == "jackknife":
        return f"{name}-95-normal"
    return f"{name}-95"


@dataclass(frozen=True)
class Score:
    """The metrics of one prediction, with the signature of the measurement.

    Attributes:
        metrics: Dict from the name of each metric to the metric.
        items: The items that the values of the metrics belong to.
        signature: Everything that the numbers depend on, as `key:value` joined by `|`.
        unavailable: Metrics that could not be computed, with the reason and the command that makes them available.
        findings: Warnings and notes about the prediction.
    """

    metrics: Mapping[str, Measured]
    items: Items
    signature: str
    unavailable: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        """Give the items their values."""
        values = {}
        for name, measured in self.metrics.items():
            if measured.values is not None:
                values[name] = measured.values
        object.__setattr__(self, "items", replace(self.items, values=values))

    def __repr__(self) -> str:
        """Describe the score on one line."""
        numbers = [f"{name} {report.number(measured.estimate.value)}" for name, measured in self.metrics.items()]
        numbers += [f"{name} not available" for name in self.unavailable]
        return f"Score({', '.join(numbers)}; {len(self.items.names)} {self.items.kind})"

    def __str__(self) -> str:
        """Format the metrics as a table, with the signature below."""
        rows, heads = self._rows()
        text = table(rows, heads, numbers=range(1, len(heads)))
        return "\n".join([text, *self._notes()])

    def _repr_html_(self) -> str:
        """Show the table in a notebook, with the findings and the signature below."""
        rows, heads = self._rows()
        findings = [str(finding) for finding in limited(sorted(self.findings))]
        return html_table(rows, heads, range(1, len(heads)), [*findings, *self._notes()])

    def _rows(self) -> tuple[list[list[str]], list[str]]:
        """Return the rows and the headings of the table."""
        has_by_clip = any(measured.by_clip for measured in self.metrics.values())
        has_chance = any(measured.chance is not None for measured in self.metrics.values())
        heads = ["metric", "value", "95 % interval"]
        if has_by_clip:
            heads.append("by recording" if "|truth:moments#" in self.signature else "by clip")
        if has_chance:
            heads.append("chance")
        heads.append(self.items.kind)
        rows = []
        for name, measured in self.metrics.items():
            row = [name, report.number(measured.estimate.value), _interval(measured.estimate)]
            if has_by_clip:
                row.append(_interval(measured.by_clip))
            if has_chance:
                row.append(report.number(measured.chance))
            rows.append([*row, str(measured.estimate.n)])
        rows += [[name, "not available"] for name in self.unavailable]
        return rows, heads

    def _notes(self) -> list[str]:
        """Return the reasons for metrics that are not available, and the signature."""
        names: dict[str, list[str]] = {}
        for name, reason in self.unavailable.items():
            names.setdefault(reason, []).append(name)
        reasons = [f"{', '.join(together)}: {reason}" for reason, together in names.items()]
        return [*reasons, f"signature: {self.signature}"]

    def table(self) -> "pd.DataFrame":
        """Return the metrics at full precision, one row for each metric that is available.

        Returns:
            A DataFrame whose index has the names of the metrics. The columns are `value`, `std_error`, `low`, `high`,
            `by_clip_low` and `by_clip_high` (the interval by clip), `chance`, and `n`, the number of queries or clips.
            A number that does not exist is NaN.
        """
        import pandas as pd

        rows = []
        for measured in self.metrics.values():
            estimate = measured.estimate
            by_clip = measured.by_clip
            rows.append(
                {
                    "value": estimate.value,
                    "std_error": estimate.std_error,
                    "low": estimate.low,
                    "high": estimate.high,
                    "by_clip_low": by_clip.low if by_clip else math.nan,
                    "by_clip_high": by_clip.high if by_clip else math.nan,
                    "chance": _or_nan(measured.chance),
                    "n": estimate.n,
                }
            )
        return pd.DataFrame(rows, columns=TABLE, index=pd.Index(list(self.metrics), name="metric", dtype=object))

    def extended(self, other: "Score") -> "Score":
        """Return a score with the metrics of two scores of the same prediction.

        Args:
            other: The score with the additional metrics. A metric that both scores contain must have the same value.

        Returns:
            The score. It has the signature that scoring all metrics together would give.

        Raises:
            Faulty: The scores differ in their items, in a part of their signatures, or in the value of a metric. The
                exception lists all findings. If the scores do not have a metric in common, scores of different
                predictions cannot be detected.
        """
        findings = _differences(self, other)
        if findings:
            raise Faulty(findings)
        metrics = {**other.metrics, **self.metrics}
        names = dict.fromkeys([*self.metrics, *other.metrics])
        unavailable = {**self.unavailable, **other.unavailable}
        return Score(
            {name: metrics[name] for name in names},
            self.items,
            _joint_signature(self.signature, other.signature),
            {name: reason for name, reason in unavailable.items() if name not in metrics},
            tuple(dict.fromkeys([*self.findings, *other.findings])),
        )

    @classmethod
    def load(cls, path: Path | str) -> "Score":
        """Read what `save` wrote.

        Args:
            path: The score file.

        Raises:
            BadRequest: There is no such file.
            Faulty: The file is not a score file. The exception lists all findings.
        """
        return _read(Path(path))

    def save(self, path: Path | str) -> None:
        """Write the score as JSON at full precision, completely or not at all."""
        content: dict[str, Any] = {"signature": self.signature, "metrics": {}}
        for name, measured in self.metrics.items():
            content["metrics"][name] = measured.figures()
        if self.unavailable:
            content["unavailable"] = dict(self.unavailable)
        values = {}
        for name, measured in self.metrics.items():
            if measured.values is not None:
                values[name] = measured.values.tolist()
        items = {
            "kind": self.items.kind,
            "names": self.items.names,
            "groups": self.items.groups,
            "values": values,
        }
        # The metrics are indented for people; the items, which are thousands of numbers, are on one line.
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        text += f',\n  "items": {json.dumps(items, ensure_ascii=False, allow_nan=False)}\n}}\n'
        with replacing(Path(path)) as part:
            # A name may contain a lone surrogate, which UTF-8 cannot encode. Its escape is also valid JSON.
            part.write_text(text, encoding="utf-8", errors="backslashreplace")


def signature_parts(signature: str) -> dict[str, str]:
    """Return the parts of a signature as a dict from keys to values."""
    parts = {}
    for part in signature.split("|"):
        key, _, value = part.partition(":")
        parts[key] = value
    return parts


def _components() -> list[str]:
    """Return the keys that a signature has only for some metrics, in the order of signatures."""
    names: dict[str, None] = {}
    for metric in catalogue.CAPTIONING.values():
        names.update(dict.fromkeys(metric.components))
    return list(names)


def _differences(first: Score, other: Score) -> list[Finding]:
    """Return a finding for each difference that does not allow two scores to be joined."""
    findings = []
    ours, theirs = signature_parts(first.signature), signature_parts(other.signature)
    for key in dict.fromkeys([*ours, *theirs]):
        is_optional = key in _components() and not (key in ours and key in theirs)
        if not is_optional and ours.get(key) != theirs.get(key):
            message = f"must be {ours.get(key)!r} as in the score to extend; found {theirs.get(key)!r}; {_RESCORE}"
            findings.append(Finding("score", column=key, message=message))
    if not findings and other.items != first.items:
        message = f"must be those of the score to extend, in the same order; {_RESCORE}"
        findings.append(Finding("score", column="items", message=message))
    for name in first.metrics:
        if name not in other.metrics:
            continue
        expected, found = first.metrics[name].estimate.value, other.metrics[name].estimate.value
        if not findings and not _equal(expected, found):
            message = f"must be {expected:.6g} as in the score to extend; found {found:.6g}"
            findings.append(Finding("score", column=name, message=f"{message}; give a score of the same prediction"))
    return findings


def _joint_signature(first: str, other: str) -> str:
    """Return the signature of two scores that differ only in the components of their metrics."""
    parts = {**signature_parts(other), **signature_parts(first)}
    components = [key for key in _components() if key in parts]
    keys: list[str] = []
    for key in signature_parts(first):
        if key == "interval":  # the components are before the interval
            keys += components
        if key not in components:
            keys.append(key)
    return "|".join(f"{key}:{parts[key]}" for key in keys)


def plain(content: Any) -> Any:
    """Return the content with None in place of NaN and infinity, which JSON cannot represent."""
    if isinstance(content, Mapping):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def _interval(estimate: Estimate | None) -> str:
    if estimate:
        return report.interval(estimate.low, estimate.high)
    return report.NOTHING


# Reading --------------------------------------------------------------------------------------------------------------

Text = InstanceOf[str]  # pydantic's `str` refuses half a surrogate pair, which a file name may have


class _IntervalContent(BaseModel):
    """The content of an interval in a score file; null stands for a number that does not exist."""

    model_config = ConfigDict(strict=True, defer_build=True)

    std_error: float | None
    low: float | None
    high: float | None
    n: int
    interval: Text

    def estimate(self, value: float | None) -> Estimate:
        """Return the interval as an `Estimate` of a value."""
        std_error, low, high = _or_nan(self.std_error), _or_nan(self.low), _or_nan(self.high)
        return Estimate(_or_nan(value), std_error, low, high, self.n, self.interval)


class _MetricContent(_IntervalContent):
    """The content of a metric in a score file."""

    value: float | None
    chance: float | None = None
    by_clip: _IntervalContent = cast(_IntervalContent, None)  # optional, but not null: pydantic accepts such a default

    def measured(self, values: list[float] | None) -> Measured:
        """Return the metric as `Measured`, with the values of its items."""
        by_clip = self.by_clip.estimate(self.value) if self.by_clip else None
        array = None if values is None else np.array(values, dtype=np.float64)
        chance = _or_nan(self.chance) if "chance" in self.model_fields_set else None
        return Measured(self.estimate(self.value), by_clip, array, chance)


class _ItemsContent(BaseModel):
    """The content of the items in a score file."""

    model_config = ConfigDict(strict=True, defer_build=True)

    kind: Text
    names: list[Text]
    groups: list[int]
    values: dict[Text, list[FiniteFloat]]


class _ScoreContent(BaseModel):
    """The content of a score file."""

    model_config = ConfigDict(strict=True, defer_build=True)

    signature: Text
    metrics: dict[Text, _MetricContent]
    items: _ItemsContent
    unavailable: dict[Text, Text] = {}


def _or_nan(number: float | None) -> float:
    if number is None:
        return math.nan
    return number


_RESCORE = "score the prediction again"
_CHANGED = f"was the file changed by hand? {_RESCORE}"
_EXPECTED = {  # from the type of pydantic's error to the noun for what is expected
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "is_instance_of": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
}


def _read(path: Path) -> Score:
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give a score file, written by `dcase-evaluation score … --json FILE`")
    try:
        content = _ScoreContent.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as invalid:
        raise Faulty(_schema_findings(invalid, str(path))) from None
    except (ValueError, RecursionError) as error:
        is_unreadable = isinstance(error, UnicodeDecodeError | json.JSONDecodeError)
        reason = "it is not JSON" if is_unreadable else error
        message = f"must be a score file, as `dcase-evaluation score … --json FILE` writes it ({reason}); {_RESCORE}"
        raise Faulty([Finding(str(path), message=message)]) from None
    findings = _length_findings(content.items, str(path))
    if findings:
        raise Faulty(findings)
    items = Items(content.items.kind, tuple(content.items.names), tuple(content.items.groups))
    metrics = {}
    for name, metric in content.metrics.items():
        metrics[name] = metric.measured(content.items.values.get(name))
    return Score(metrics, items, content.signature, content.unavailable)


def _schema_findings(invalid: ValidationError, file: str) -> list[Finding]:
    """Return a finding for each key that is missing or has a value of the wrong type."""
    findings = []
    for error in invalid.errors(include_url=False, include_context=False):
        key = ".".join(map(str, error["loc"]))
        if error["type"] == "missing":
            message = "is missing"
        else:
            message = f"must be {_EXPECTED[error['type']]}; found {error['input']!r:.{SHOWN}}"
        findings.append(Finding(file, column=key, message=f"{message}; {_RESCORE}"))
    return findings


def _length_findings(items: _ItemsContent, file: str) -> list[Finding]:
    """Return a finding for each list of the items that is not as long as the others."""
    count = len(items.names)
    if not count or len(items.groups) != count:
        found = f"found {plural(count, 'name')} and {plural(len(items.groups), 'group')}"
        message = f"must have one or more names, and a group for each name; {found}; {_RESCORE}"
        return [Finding(file, column="items", message=message)]
    findings = []
    for name, values in items.values.items():
        if len(values) != count:
            message = f"must have {count} values, one for each item; found {len(values)}; {_RESCORE}"
            findings.append(Finding(file, column=f"items.values.{name}", message=message))
    return findings


# Checking -------------------------------------------------------------------------------------------------------------


def check(score: Score, file: str) -> list[Finding]:
    """Recompute the numbers of a score from the values of its items, and return the differences.

    - A metric that is a mean must be the mean of its items' values.
    - BLEU and METEOR are not means: their items' values are the jackknife's pseudo-values, whose mean differs from the
      metric by its bias. Such a metric must be the middle of its jackknife interval. If there are at least `MANY`
      items, it must also be within `NEAR` standard errors of the mean of the pseudo-values.
    - A jackknife interval must equal the interval that is computed from the values.

    Metrics without values, such as the median rank, cannot be recomputed. Bootstrap intervals cannot be recomputed
    without the random draws of the scipy version that computed them. `dcase-evaluation compare` does not use such
    metrics and intervals.

    Args:
        score: A score that was read from a file.
        file: The file's name in findings.

    Returns:
        One finding for each number that differs from the recomputed one.
    """
    findings = []
    for name, measured in score.metrics.items():
        estimate, values = measured.estimate, measured.values
        if values is None or not math.isfinite(estimate.value):
            continue
        fault = _value_fault(name, estimate, values, score)
        if fault:
            findings.append(Finding(file, column=f"metrics.{name}.value", message=f"{fault}; {_CHANGED}"))
            continue  # the interval is computed around the value and would only repeat the error
        for key, expected, found in _interval_differences(name, measured, values, score):
            message = f"must be {expected:.6g}, computed from items.values.{name}; found {found:.6g}; {_CHANGED}"
            findings.append(Finding(file, column=f"metrics.{name}.{key}", message=message))
    return findings


def _is_mean(name: str, score: Score) -> bool:
    """Return True if a metric is the mean of its items' values."""
    metric = catalogue.find(name)
    if metric is None:
        return True
    if metric.statistic == "weighted":
        return EXACT not in score.signature.split("|")
    return metric.statistic != "corpus"


def _value_fault(name: str, estimate: Estimate, values: np.ndarray, score: Score) -> str | None:
    """Return a message if a metric does not follow from its items' values, or None if it does."""
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
                f"must be between {low:.6g} and {high:.6g}, {NEAR} standard errors around the mean of the "
                f"pseudo-values in items.values.{name}; found {estimate.value:.6g}"
            )
    return None


def _interval_differences(
    name: str, measured: Measured, values: np.ndarray, score: Score
) -> list[tuple[str, float, float]]:
    """Return (key, recomputed number, stored number) for each number of the jackknife intervals that differs."""
    stored = {"": measured.estimate}
    if measured.by_clip and _is_mean(name, score):
        stored["by_clip."] = measured.by_clip
    differences = []
    for prefix, estimate in stored.items():
        if not estimate.interval.startswith("jackknife"):
            continue
        groups = score.items.groups if prefix else None
        student = estimate.interval.startswith("jackknife-t")
        recomputed = jackknife(values, value=measured.estimate.value, groups=groups, t=student)
        for key in ("std_error", "low", "high", "n"):
            expected, found = getattr(recomputed, key), getattr(estimate, key)
            if not _equal(expected, found):
                differences.append((prefix + key, expected, found))
    return differences


def _equal(one: float, other: float) -> bool:
    """Return True if two numbers are equal up to rounding; NaN equals NaN."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)
