"""Whether one system is better than another: scores of the same items paired, with intervals and a paired test.

Conventions
-----------
- **What may be compared.** Scores whose signatures agree, over items of the same names; they are paired by name. Two
  things in a signature may differ: the interval, which is made anew here, and what one score alone has, which is of a
  metric that the other lacks. A metric is compared where every score has it with a value for each item. The median
  rank, and other metrics that no sum makes, have none and are listed as not compared.
- **Which with which.** Every system with the first, or with every one before it. A difference is the system's metric
  less the other's: above zero the system's value is the greater.
- **Interval.** The 95 % jackknife of the difference, from the differences of the items' pseudo-values: the difference
  without an item is the difference of what the metrics are without it, so that this is exact for any metric. Of a mean
  it is the interval of a paired z test. Items that share a clip are left out together: exact for means, and for other
  metrics close (as if the metric were the mean of its pseudo-values).
- **Test.** The two-sided randomisation test of Fisher (1935), which Smucker, Allan and Carterette (2007) found the best
  kept for retrieval. If it made no difference which system gave which answer, exchanging the two for any clip, which
  turns the sign of its difference, would be as likely; p is the share of such exchanges whose sum is as far from zero
  as the one found. Items that share a clip are exchanged together. Where all exchanges are no more than `DRAWS`
  (16 clips), they are all made, and p is exact. Else so many are drawn, and p = (as far + 1) / (`DRAWS` + 1), which is
  never below 1 / (`DRAWS` + 1). For corpus metrics (BLEU, CIDEr-D) the exchanges are those of pseudo-values: an
  approximation, as the metric is computed from the texts only once.
- **Several systems.** Holm's (1979) step-down correction, over the comparisons of each metric: the chance of a mark
  where there is no difference at all is at most 5 % for each metric, and not for all the metrics together.
- **Marks**, of the corrected p: * below 0.05, ** below 0.01, *** below 0.001.
"""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from evaluation import scores
from evaluation.data.tables import spreadsheet
from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding, printable, table
from evaluation.names import explain
from evaluation.scores import Items, Score
from evaluation.statistics.intervals import Estimate, grouped, jackknife

DRAWS = 99_999
FEW = 6  # with fewer to exchange, no p is below 0.05


@dataclass(frozen=True)
class Difference:
    """How far one system is from another in one metric.

    Attributes:
        metric: The metric's name.
        system: The system.
        against: What it is compared with.
        value: The system's metric.
        difference: The system's metric less the other's, with its interval.
        p: Of the paired test, in (0, 1].
        p_holm: The same after Holm's correction.
    """

    metric: str
    system: str
    against: str
    value: float
    difference: Estimate
    p: float
    p_holm: float

    @property
    def mark(self) -> str:
        """One to three stars, or nothing."""
        return marks(self.p_holm)


@dataclass(frozen=True)
class Comparison:
    """All differences, and what they rest on.

    Attributes:
        files: Every system's short name and the score that it stands for; the first is what others are compared with.
        values: The first system's metrics.
        differences: Metric by metric.
        not_compared: Other metrics, and why.
        items: How many items there are, in words.
        groups: How many of them, or of their groups, were exchanged and left out.
        signature: What all scores have in common.
        seed: Where the draws start from.
    """

    files: Mapping[str, str]
    values: Mapping[str, float]
    differences: tuple[Difference, ...]
    not_compared: Mapping[str, str]
    items: str
    groups: int
    signature: str
    seed: int

    @property
    def notes(self) -> list[str]:
        """What must be known to read the table, line by line."""
        family = len(self.differences) // len(self.values)
        made = f"all {2**self.groups} exchanges"
        if not _exact(self.groups):
            made = f"{DRAWS} drawn exchanges (seed {self.seed})"
        lines = [
            *(f"{metric}: not compared: {why}" for metric, why in self.not_compared.items()),
            f"differences from {'each' if self._pairs else next(iter(self.files))}, over {self.items}; "
            "95 % jackknife intervals",
            f"p: paired randomisation test, {made}, never below {_smallest(self.groups):.2g}",
            *[f"{self.groups} independent groups of {self.items} are too few for any mark"] * (self.groups < FEW),
            f"Holm: over {family} comparison{'s' * (family > 1)} per metric; * p < 0.05, ** p < 0.01, *** p < 0.001",
            f"signature: {self.signature}",
        ]
        return [printable(line) for line in lines]

    @property
    def _pairs(self) -> bool:
        return len({difference.against for difference in self.differences}) > 1

    def _rows(self) -> Iterable[tuple[str, str, float, Difference | None]]:
        first = next(iter(self.files))
        for metric, value in self.values.items():
            yield metric, first, value, None
            yield from ((metric, d.system, d.value, d) for d in self.differences if d.metric == metric)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        # The figures of a table for people, with the mark for itself at the end.
        heads = ["metric", "system", "value", "difference", "95 % interval", "p", "p (Holm)", ""]
        rows = []
        for metric, system, value, d in self._rows():
            row = ["" if d else printable(metric), printable(system), f"{value:.3f}"]
            if d:
                e = d.difference
                span = f"[{e.low:+z.3f}, {e.high:+z.3f}]" if math.isfinite(e.low) else "–"
                row += [f"{e.value:+z.3f}", span, p_value(d.p), p_value(d.p_holm), d.mark]
            row += [""] * (len(heads) - len(row))
            rows.append([*row[:3], printable(d.against) if d else "", *row[3:]] if self._pairs else row)
        return [*heads[:3], *["against"] * self._pairs, *heads[3:]], rows

    def __str__(self) -> str:
        """The table as text, with the notes below."""
        heads, rows = self._cells()
        numbers = [column for column, head in enumerate(heads) if head not in ("metric", "system", "against", "")]
        lines = table(rows, heads, numbers=numbers).splitlines()
        return "\n".join([*(line.rstrip() for line in lines), *self.notes])

    def csv(self) -> str:
        """Return the table as CSV for spreadsheets: at full precision, names safe, repeated cells written out."""
        heads = [
            "metric",
            "system",
            "value",
            "against",
            "difference",
            "std_error",
            "low",
            "high",
            "p",
            "p_holm",
            "mark",
        ]
        rows: list[list[object]] = [heads]
        for metric, system, value, d in self._rows():
            row: list[object] = [metric, system, value]
            if d:
                e = d.difference
                row += [d.against, e.value, e.std_error, e.low, e.high, d.p, d.p_holm, d.mark]
            rows.append(row + [""] * (len(heads) - len(row)))
        return spreadsheet(rows).rstrip("\n")

    def latex(self) -> str:
        """The table as a LaTeX tabular that needs no package, with marks at the differences and notes as comments."""
        heads, rows = self._cells()
        align = "".join("l" if head in ("metric", "system", "against") else "r" for head in heads[:-1])
        lines = [rf"\begin{{tabular}}{{{align}}}", r"\hline", " & ".join(map(_latex, heads[:-1])) + r" \\"]
        for row in rows:
            *cells, mark = map(_latex, row)
            if row[0]:
                lines.append(r"\hline")
            for column, head in enumerate(heads[:-1]):
                if head in ("difference", "95 % interval") and cells[column] not in ("", "–"):
                    cells[column] = f"${cells[column]}{f'^{{{mark}}}' * (head == 'difference' and bool(mark))}$"
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\hline", r"\end{tabular}", *(f"% {note}" for note in self.notes)])

    def save(self, path: Path) -> None:
        """Write as JSON at full precision, whole or not at all."""
        metrics: dict[str, Any] = {metric: {"value": value, "comparisons": []} for metric, value in self.values.items()}
        for d in self.differences:
            # JSON has no NaN.
            estimate = {k: None if v != v else v for k, v in asdict(d.difference).items() if k != "value"}
            figures = {"system": d.system, "against": d.against, "value": d.value, "difference": d.difference.value}
            metrics[d.metric]["comparisons"].append(figures | estimate | {"p": d.p, "p_holm": d.p_holm, "mark": d.mark})
        content = {
            "signature": self.signature,
            "files": self.files,
            "items": self.items,
            "test": {
                "name": "paired randomisation, two-sided",
                "units": self.groups,
                "exact": _exact(self.groups),
                "draws": 2**self.groups if _exact(self.groups) else DRAWS,
                "seed": None if _exact(self.groups) else self.seed,
                "smallest_p": _smallest(self.groups),
                "correction": "Holm",
                "family": len(self.differences) // len(self.values),
            },
            "metrics": metrics,
            "not_compared": self.not_compared,
        }
        with replacing(path) as part:
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            part.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # as `Score.save`


def read(files: Sequence[Path]) -> dict[str, Score]:
    """Read the scores to compare.

    Raises:
        BadRequest: A file stands there twice.
        Faulty: Some are not there, are no scores, or hold figures that their items' values do not give; with every
            finding.
    """
    for one, other in itertools.combinations(files, 2):
        if one.resolve() == other.resolve():
            raise BadRequest(f"{one} and {other} are one file; give each score once")
    findings: list[Finding] = []
    given, status = {}, 1
    for file in files:
        try:
            given[str(file)] = scores.read(file)
            findings += scores.check(given[str(file)], str(file))
        except Faulty as faulty:
            findings += faulty.findings
        except BadRequest as mistake:
            findings.append(Finding(str(file), message=str(mistake).removeprefix(f"{file}: ")))
            status = 2
    if findings:
        raise Faulty(findings, status)
    return given


def compare(given: Mapping[str, Score], *, pairs: bool = False, seed: int = 0) -> Comparison:
    """Compare systems by the same items.

    Args:
        given: Two or more scores by the names of their files; the first is what the others are compared with.
        pairs: Compare every system with all before it instead.
        seed: Where the draws of the test start from.

    Raises:
        BadRequest: The seed is below zero.
        Faulty: The scores are not of the same thing, or have no metric in common; with every finding.
    """
    if seed < 0:
        raise BadRequest(f"the seed must be 0 or more, but {seed} was given")
    validate(given)
    files, (first, *_) = list(given), given.values()
    metrics, not_compared = _comparable(given)
    names = short_names(files)
    order = {name: row for row, name in enumerate(first.items.names)}
    # (systems, items, metrics), items in the first score's order
    values = np.empty((len(files), len(order), len(metrics)))
    for system, score in enumerate(given.values()):
        rows = [order[name] for name in score.items.names]
        values[system, rows] = np.stack([_values(score, metric) for metric in metrics], axis=1)
    compared = [(a, b) for a, b in itertools.combinations(range(len(files)), 2) if pairs or a == 0]
    differences = np.stack([values[b] - values[a] for a, b in compared], axis=1)  # (items, comparisons, metrics)
    known = {
        (system, metric): score.metrics[metric].estimate.value
        for system, score in enumerate(given.values())
        for metric in metrics
    }
    # The mean of pseudo-values is off a corpus metric by its bias; the test is of the difference that is shown.
    shown = np.array([[known[b, metric] - known[a, metric] for metric in metrics] for a, b in compared])
    differences += shown - differences.mean(axis=0)
    groups = first.items.groups
    sums, _ = grouped(differences.reshape(len(order), -1), groups)
    p = randomisation(sums, seed).reshape(len(compared), len(metrics))
    found = []
    for column, metric in enumerate(metrics):
        corrected = holm(p[:, column])
        for row, (a, b) in enumerate(compared):
            one, other = known[a, metric], known[b, metric]
            estimate = jackknife(differences[:, row, column], value=other - one, groups=groups)
            found.append(
                Difference(metric, names[b], names[a], other, estimate, float(p[row, column]), float(corrected[row]))
            )
    return Comparison(
        dict(zip(names, files, strict=True)),
        {metric: first.metrics[metric].estimate.value for metric in metrics},
        tuple(found),
        not_compared,
        f"{len(order)} {first.items.kind}" + (f" in {len(sums)} groups that share a clip" * first.items.shared),
        len(sums),
        first.signature,
        seed,
    )


def validate(given: Mapping[str, Score]) -> None:
    """Check that scores are of the same thing.

    Raises:
        Faulty: Signatures or items differ, or an item stands there twice; with every finding.
    """
    findings = []
    (reference, first), *_ = given.items()
    for file, score in given.items():
        repeated = [name for name, count in Counter(score.items.names).items() if count > 1]
        if repeated:
            message = f"must be different, but {len(repeated)} stand here more than once, first {repeated[0]!r}"
            findings.append(Finding(file, column="items.names", message=f"{message}; score the prediction again"))
        there, here = _parts(first.signature), _parts(score.signature)
        differ = [key for key in there if key in here and key != "interval" and there[key] != here[key]]
        for key in differ:
            message = f"must be {there[key]!r} as in {reference}, but is {here[key]!r}; score both in the same way"
            findings.append(Finding(file, column=key, message=message))
        if not differ and not repeated:  # of another signature the items are others, and saying so would only repeat it
            findings += _unlike(file, score.items, reference, first.items)
    if findings:
        raise Faulty(findings)


def _parts(signature: str) -> dict[str, str]:
    return {key: value for key, _, value in (part.partition(":") for part in signature.split("|"))}


def _unlike(file: str, items: Items, reference: str, first: Items) -> Iterable[Finding]:
    own, others = dict(zip(items.names, items.groups, strict=True)), dict(zip(first.names, first.groups, strict=True))
    if items.kind != first.kind:
        message = f"must be {first.kind!r} as in {reference}, but is {items.kind!r}"
        yield Finding(file, column="items.kind", message=message)
    missing, only = [name for name in others if name not in own], [name for name in own if name not in others]
    match = explain(only, missing, texts=items.kind == "queries")
    if match:
        difference = match.message(len(own), "names", owner="the other names")
        yield Finding(file, column="items.names", message=f"must be those of {reference}; {difference}")
        matched = set(match.pairs.values())
        missing = [name for name in missing if name not in matched]
        only = [name for name in only if name not in match.pairs]
    for what, names in (("missing", missing), ("only", only)):
        if names:
            message = f"must be those of {reference}; {what} here: {len(names)}, first {names[0]!r}; score both alike"
            yield Finding(file, column="items.names", message=message)
    # Groups are numbered in any way: they are the same when their numbers map one to one.
    numbers = {(own[name], group) for name, group in others.items() if name in own}
    if own.keys() == others.keys() and not len(numbers) == len(set(own.values())) == len(set(others.values())):
        yield Finding(file, column="items.groups", message=f"must put those together that {reference} does")


def _values(score: Score, metric: str) -> np.ndarray | None:
    measured = score.metrics.get(metric)
    return measured.values if measured and math.isfinite(measured.estimate.value) else None


def _comparable(given: Mapping[str, Score]) -> tuple[list[str], dict[str, str]]:
    metrics, not_compared = [], {}
    for metric in dict.fromkeys(name for score in given.values() for name in (*score.metrics, *score.unavailable)):
        absent = [file for file, score in given.items() if metric not in score.metrics]
        without = [file for file, score in given.items() if _values(score, metric) is None]
        if absent:
            not_compared[metric] = f"not in {', '.join(absent)}"
        elif without:
            where = f" in {', '.join(without)}" if len(without) < len(given) else ""
            not_compared[metric] = f"has no values of single items{where}"
        else:
            metrics.append(metric)
    if not metrics:
        raise Faulty(
            Finding(file, message=f"must have a metric with values that all have, but has {', '.join(score.metrics)}")
            for file, score in given.items()
        )
    return metrics, not_compared


def short_names(files: Sequence[str]) -> list[str]:
    """What to call each file in a table: its stem, or where stems are alike the run folder, or else all of it.

    >>> short_names(["runs/a/scores/evaluation.json", "runs/b/scores/evaluation.json"])
    ['a', 'b']
    """

    def run(path: Path) -> str:
        folder = path.absolute().parent
        return (folder.parent if folder.name == "scores" else folder).name

    paths = [Path(file.removesuffix(".json")) for file in files]
    for name in (lambda path: path.name, run):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return list(files)


def randomisation(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the p of the paired randomisation test of each column.

    Args:
        differences: (n, comparisons) of each unit that is exchanged as a whole.
        seed: Where the draws start from; not used where all exchanges are made.

    Returns:
        (comparisons,) in (0, 1].
    """
    n, total = len(differences), differences.sum(axis=0)
    # Sums of the same numbers in another order differ in their last digits; they must count as equal.
    rounding = (n + 4) * np.finfo(np.float64).eps * np.abs(differences).sum(axis=0)

    def as_far(turned: np.ndarray) -> np.ndarray:
        return (np.abs(total - 2 * (turned.astype(np.float64) @ differences)) >= np.abs(total) - rounding).sum(axis=0)

    if _exact(n):
        return as_far(np.arange(2**n)[:, None] >> np.arange(n) & 1) / 2**n
    rng, count = np.random.default_rng(seed), 1
    block = max(1, 500_000 // n)  # 4 MB, which a processor keeps at hand
    with threadpool_limits(1, "blas"):  # so small a product loses to waiting for threads, tenfold
        for start in range(0, DRAWS, block):
            bits = rng.integers(0, 256, (min(block, DRAWS - start), -(-n // 8)), dtype=np.uint8)
            count = count + as_far(np.unpackbits(bits, axis=1, count=n))
    return count / (DRAWS + 1)


def _exact(n: int) -> bool:
    return 2**n <= DRAWS


def _smallest(n: int) -> float:
    return 2 / 2**n if _exact(n) else 1 / (DRAWS + 1)


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's corrected p: the i-th smallest of m times m - i + 1, never below that of a smaller p, at most 1.

    >>> holm(np.array([0.04, 0.01, 0.03])).tolist()
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def marks(p: float) -> str:
    """One to three stars, or nothing."""
    return "*" * sum(p < level for level in (0.05, 0.01, 0.001))


def p_value(p: float) -> str:
    """A p for people."""
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


_SPECIAL = {c: f"\\{c}" for c in "&%_#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}


def _latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, _SPECIAL)), lambda match: _SPECIAL[match[0]], text)
