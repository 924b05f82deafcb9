"""Comparison of systems by their scores on the same items: paired differences with intervals and a paired test.

Conventions
-----------
- **Comparable scores.** Scores are comparable if their signatures are equal, their items have the same names, and these
  form the same groups. Items are paired by name. Four things in a signature may differ. The interval may differ,
  because the comparison computes its own intervals. The similarity of embeddings (cosine or dot) may differ, because it
  belongs to the system. How the names of a prediction were matched with those of the split (`match`) may differ,
  because the items have the split's names. A signature may also have entries of metrics that were computed for one
  score only. A metric is compared if every score has a value of it for each item. The median rank, and other metrics
  that are not computed from sums, do not have such values. They are listed as not compared.
- **Pairs.** Each system is compared with the first one. With `pairs`, it is compared with each one before it. A
  difference is the system's metric minus the other system's, so a positive difference means that the system's value is
  larger.
- **Interval.** The interval is the 95 % jackknife interval of the difference. It is computed from the differences of
  the items' pseudo-values, which are exactly the pseudo-values of the difference, for any metric. For a mean, it is the
  interval of a paired z test. Items that share a clip are left out together. This is exact for means. For other metrics
  it is approximate, because the metric is treated as the mean of its pseudo-values.
- **Test.** The test is the two-sided randomisation test of Fisher (1935), which Smucker, Allan and Carterette (2007)
  recommend for retrieval. Under the null hypothesis the systems do not differ, and exchanging their answers for a clip
  does not change the distribution. An exchange changes the sign of that clip's difference. p is the share of exchanges
  with a sum that is at least as far from zero as the observed sum. Items that share a clip are exchanged together. If
  there are at most `DRAWS` exchanges (up to 16 clips), all are evaluated and p is exact. Otherwise `DRAWS` exchanges
  are drawn, and p = (number at least as far + 1) / (`DRAWS` + 1), which is never below 1 / (`DRAWS` + 1). If a metric
  is not a mean of the items' own values (BLEU, METEOR, and CIDEr-D with `idf=exact`), pseudo-values are exchanged. This
  is an approximation, because the metric is not computed again from the exchanged texts.
- **Several systems.** Holm's (1979) step-down correction covers the comparisons of each metric. If no system differs,
  the probability of any mark is at most 5 % for each metric, not for all metrics together.
- **Marks** show the corrected p: * below 0.05, ** below 0.01, *** below 0.001.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from threadpoolctl import threadpool_limits

from evaluation import report, scores
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics import catalogue
from evaluation.names import explain
from evaluation.scores import Items, Score, measure, plain, signature_parts
from evaluation.statistics.intervals import Estimate, Groups, Values, group_indices, grouped, jackknife
from evaluation.text import html_table, printable
from evaluation.values import describe, numbers

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 99_999
FEW = 6  # with fewer clips to exchange, p cannot be below 0.05
INTERVAL = "95 % interval"  # the heading of a column
MAY_DIFFER = ("interval", "similarity", "match")  # keys of a signature that may differ between comparable scores


@dataclass(frozen=True)
class Difference:
    """The difference between two systems in one metric.

    Attributes:
        metric: The metric's name.
        system: The system.
        against: The system that it is compared with.
        value: The system's metric.
        difference: The system's metric minus the metric of `against`, with the interval of this difference.
        p: The p value of the paired test, in (0, 1].
        p_holm: The p value after Holm's correction.
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
        """One to three stars, or "" if p is not below 0.05."""
        return report.marks(self.p_holm)


@dataclass(frozen=True)
class Comparison:
    """All differences between systems, with the facts that explain them.

    Attributes:
        files: A dict from the short name of each system to its score file. The first system is the one that the others
            are compared with, unless each pair is compared.
        values: A dict from each metric that is compared to its value for the first system.
        differences: The differences, metric by metric.
        not_compared: A dict from each metric that is not compared to the reason.
        items: The number and kind of the items, in words.
        groups: The number of units that are exchanged and left out as a whole. A unit is an item, or a group of items.
        signature: The signature of the first score.
        seed: Seed of the draws.
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
        """The notes below the table."""
        exchanges = f"{DRAWS} drawn exchanges (seed {self.seed})"
        if _makes_all_exchanges(self.groups):
            exchanges = f"all {2**self.groups} exchanges"
        first = next(iter(self.files))
        if self._family == 1:
            comparisons = "1 comparison"
        else:
            comparisons = f"{self._family} comparisons"
        lines = [f"{metric}: not compared: {why}" for metric, why in self.not_compared.items()]
        other = "the system in the column `against`" if self._has_pairs else first
        lines.append(f"differences from {other}, over {self.items}; 95 % jackknife intervals")
        lines.append(f"p: paired randomisation test, {exchanges}, never below {_smallest_p(self.groups):.2g}")
        if self.groups < FEW:
            lines.append(f"{self.groups} independent groups of {self.items} are too few for any mark")
        lines.append(f"Holm: over {comparisons} per metric; * p < 0.05, ** p < 0.01, *** p < 0.001")
        lines.append(f"signature: {self.signature}")
        return [printable(line) for line in lines]

    @property
    def _family(self) -> int:
        """The number of comparisons of each metric."""
        return len(self.differences) // len(self.values)

    @property
    def _has_pairs(self) -> bool:
        return len({difference.against for difference in self.differences}) > 1

    def _rows(self) -> Iterator[tuple[str, str, float, Difference | None]]:
        """Yield metric, system, value and difference of each row. In each metric, the first system comes first."""
        for metric, system, value, difference in self._unprinted_rows():
            yield printable(metric), printable(system), value, difference

    def _unprinted_rows(self) -> Iterator[tuple[str, str, float, Difference | None]]:
        """Yield the same rows with the names as they are."""
        first = next(iter(self.files))
        for metric, value in self.values.items():
            yield metric, first, value, None
            for difference in self.differences:
                if difference.metric == metric:
                    yield metric, difference.system, difference.value, difference

    def table(self) -> "pd.DataFrame":
        """Return the values and differences at full precision, one row for each metric and system."""
        import pandas as pd

        rows = []
        for metric, system, value, difference in self._rows():
            row: dict[str, object] = {"metric": metric, "system": system, "value": value}
            if difference:
                row |= {"against": printable(difference.against), "difference": difference.difference.value}
                row |= {key: getattr(difference.difference, key) for key in ("std_error", "low", "high")}
                row |= {"p": difference.p, "p_holm": difference.p_holm, "mark": difference.mark}
            rows.append(row)
        columns = ["metric", "system", "value", "against", "difference", "std_error", "low", "high"]
        return pd.DataFrame(rows, columns=[*columns, "p", "p_holm", "mark"])

    def _shown(self) -> tuple["pd.DataFrame", report.Formats]:
        """Return the table with formatted numbers, and the formats of its columns of numbers."""
        import pandas as pd

        rows = []
        for metric, system, value, difference in self._rows():
            row = {"metric": "" if difference else metric, "system": system, "value": report.number(value, 3)}
            if difference:
                row["against"] = printable(difference.against)
                row |= difference_cells(difference)
            rows.append(row)
        heads = ["metric", "system", "value", "against", *difference_cells(self.differences[0])]
        if not self._has_pairs:
            heads.remove("against")
        numbers = [head for head in heads if head not in ("metric", "system", "against", "")]
        return pd.DataFrame(rows, columns=heads).fillna(""), dict.fromkeys(numbers, str)

    def __str__(self) -> str:
        """Format the table as text, with the notes below."""
        shown, formats = self._shown()
        return "\n".join([report.text(shown, formats), *self.notes])

    def _repr_html_(self) -> str:
        """Show the table in a notebook, with the notes below."""
        shown, formats = self._shown()
        heads = list(shown.columns)
        aligned = [heads.index(head) for head in formats]
        return html_table(shown.to_numpy().tolist(), heads, aligned, self.notes)

    def csv(self) -> str:
        """Format the table as CSV for spreadsheets.

        Numbers have full precision, names cannot act as formulas, and repeated cells are written out.
        """
        return report.csv(self.table()).rstrip("\n")

    def latex(self) -> str:
        """Format the table as a LaTeX tabular, with the marks at the differences and the notes as comments."""
        shown, formats = self._shown()
        stars = shown.pop("")
        marked = [f"^{{{mark}}}" if mark else "" for mark in stars]
        shown["difference"] = shown["difference"] + marked
        text = report.latex(shown, formats, formulas=["difference", INTERVAL])
        comments = [f"% {note}" for note in self.notes]
        return "\n".join([text, *comments])

    def wide(self, form: str = "text") -> str:
        """Format the values as a table with a row for each system and a column for each metric.

        A star marks a value that differs from the first system's. LaTeX sets the best value of each metric in bold,
        and needs the package booktabs. CSV has full precision and no stars.

        Args:
            form: "text", "csv" or "latex".

        Raises:
            BadRequest: The systems are compared in pairs, which one table of values cannot show.
        """
        import pandas as pd

        if self._has_pairs:
            raise BadRequest("a wide table compares all systems with the first one; leave out --pairs or --wide")
        cells: dict[str, dict[str, float]] = {system: {} for system in self.files}
        marks: dict[tuple[str, str], str] = {}
        for metric, system, value, difference in self._unprinted_rows():
            cells[system][metric] = value
            marks[system, metric] = difference.mark if difference else ""
        if form == "csv":
            rows = [[printable(system), *row.values()] for system, row in cells.items()]
            return report.csv(pd.DataFrame(rows, columns=["system", *self.values])).rstrip("\n")
        best = {}
        for metric in self.values:
            column = [round(row[metric], 3) for row in cells.values()]
            best[metric] = min(column) if catalogue.lower_is_better(metric) else max(column)
        table = []
        for system, row in cells.items():
            texts = []
            for metric, value in row.items():
                text, mark = report.number(value, 3), marks[system, metric]
                if form == "latex":
                    if round(value, 3) == best[metric]:
                        text = rf"\textbf{{{text}}}"
                    if mark:
                        text += f"$^{{{mark}}}$"
                else:
                    text += mark
                texts.append(text)
            table.append([printable(system), *texts])
        heads = ["system", *(catalogue.heading(metric) for metric in self.values)]
        if form == "latex":
            comments = [r"% needs \usepackage{booktabs}; bold: the best value of each metric"]
            return "\n".join([report.booktabs(heads, table), *comments, *(f"% {note}" for note in self._wide_notes)])
        shown = pd.DataFrame(table, columns=heads)
        return "\n".join([report.text(shown, dict.fromkeys(heads[1:], str)), *self._wide_notes])

    @property
    def _wide_notes(self) -> list[str]:
        """The notes below a wide table, which does not show differences and intervals."""
        about = f"differences from {next(iter(self.files))}"
        lines = []
        for note in self.notes:
            if note.startswith(printable(about)):
                note = printable(f"stars: {about}, over {self.items}")
            lines.append(note)
        return lines

    def save(self, path: Path) -> None:
        """Write the comparison as JSON at full precision. No incomplete file is left behind."""
        metrics: dict[str, Any] = {}
        for metric, value in self.values.items():
            metrics[metric] = {"value": value, "comparisons": []}
        for difference in self.differences:
            estimate = plain(asdict(difference.difference))
            comparison = {"system": difference.system, "against": difference.against, "value": difference.value}
            comparison["difference"] = estimate.pop("value")
            comparison |= estimate
            comparison |= {"p": difference.p, "p_holm": difference.p_holm, "mark": difference.mark}
            metrics[difference.metric]["comparisons"].append(comparison)
        is_exact = _makes_all_exchanges(self.groups)
        test = {
            "name": "paired randomisation, two-sided",
            "units": self.groups,
            "exact": is_exact,
            "draws": 2**self.groups if is_exact else DRAWS,
            "seed": None if is_exact else self.seed,
            "smallest_p": _smallest_p(self.groups),
            "correction": "Holm",
            "family": self._family,
        }
        content = {"signature": self.signature, "files": self.files, "items": self.items, "test": test}
        report.save_json({**content, "metrics": metrics, "not_compared": self.not_compared}, path)


def difference_cells(difference: Difference) -> dict[str, str]:
    """Format a difference, its interval, its p values and its mark, by the headings of their columns."""
    estimate = difference.difference
    return {
        "difference": report.number(estimate.value, 3, signed=True),
        INTERVAL: report.interval(estimate.low, estimate.high, report.BRACKETS, 3, signed=True),
        "p": report.p_value(difference.p),
        "p (Holm)": report.p_value(difference.p_holm),
        "": difference.mark,
    }


def read_scores(files: Sequence[Path | str]) -> dict[str, Score]:
    """Read the scores to compare, and check that their metrics follow from the values of their items.

    Args:
        files: The score files.

    Returns:
        A dict from the name of each file to its score.

    Raises:
        BadRequest: A file is given twice.
        Faulty: A file is missing, is not a score file, or has metrics that do not follow from the values of its items.
            The exception lists all findings.
    """
    paths = [Path(file) for file in files]
    for first, second in itertools.combinations(paths, 2):
        if first.resolve() == second.resolve():
            raise BadRequest(f"{first} and {second} are the same file; give each score once")
    findings: list[Finding] = []
    given = {}
    status = 1
    for file in paths:
        try:
            score = Score.load(file)
        except Faulty as faulty:
            findings += faulty.findings
        except BadRequest as mistake:
            findings.append(Finding(str(file), message=str(mistake).removeprefix(f"{file}: ")))
            status = 2
        else:
            given[str(file)] = score
            findings += scores.check(score, str(file))
    if findings:
        raise Faulty(findings, status)
    return given


def compare(
    given: Mapping[str, Score] | Mapping[str, Values],
    *,
    groups: Groups | None = None,
    pairs: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare systems by the same items.

    Args:
        given: A dict from the names of two or more systems, or of their score files, to their scores, or to the values
            of the same n items in the same order: (n,) lists, arrays or columns of pandas. The values' mean is then
            compared. The first system is the one that the others are compared with.
        groups: (n,) the group of each item, if `given` has values (default: each item is a group). The items of a
            group, such as the captions of a clip, are exchanged and left out together.
        pairs: Compare each system with all systems before it instead.
        seed: Seed of the test's draws.

    Returns:
        The comparison.

    Raises:
        BadRequest: The seed is below zero, there are fewer than two systems, or the arguments do not fit together.
        Faulty: The scores are not comparable, or have no metric in common; or the values are not finite numbers or
            differ in their number. The exception lists all findings.

    >>> compare({"a": [0.1, 0.2, 0.3], "b": [0.4, 0.6, 0.5]}).differences[0].difference.value.__round__(2)
    0.3
    """
    if seed < 0:
        raise BadRequest(f"the seed must be 0 or more; found {seed}")
    if not isinstance(given, Mapping) or len(given) < 2:
        form = "the systems must be a dict from two or more names to scores or values"
        raise BadRequest(f"{form}; found {describe(given)}")
    systems = _scores_of_systems(given, groups)
    check_comparable(systems)
    metrics, not_compared = shared_metrics(systems)
    names = short_names(list(systems))
    by_name = dict(zip(names, systems.values(), strict=True))
    compared = []
    for against, system in itertools.combinations(names, 2):
        if pairs or against == names[0]:
            compared.append((system, against))
    first = by_name[names[0]]
    items = f"{len(first.items.names)} {first.items.kind}"
    units = len(set(first.items.groups))
    if first.items.shared:
        sharing = "" if groups is not None else " that share a clip"
        items += f" in {units} groups{sharing}"
    return Comparison(
        files=dict(zip(names, given, strict=True)),
        values={metric: first.metrics[metric].estimate.value for metric in metrics},
        differences=compare_pairs(by_name, metrics, compared, seed),
        not_compared=not_compared,
        items=items,
        groups=units,
        signature=first.signature,
        seed=seed,
    )


def _scores_of_systems(given: Mapping[str, Score] | Mapping[str, Values], groups: Groups | None) -> dict[str, Score]:
    """Return the scores of systems. Values become a score with the metric `mean`."""
    systems: dict[str, Score] = {}
    arrays: dict[str, np.ndarray] = {}
    findings = []
    for name, value in given.items():
        if isinstance(value, Score):
            systems[name] = value
            continue
        try:
            jackknife(value)  # checks the values
            arrays[name] = numbers(value, "values", 1).astype(np.float64)
        except ValueError as fault:
            findings.append(Finding(str(name), message=str(fault)))
    if findings:
        raise Faulty(findings)
    if not arrays:
        if groups is not None:
            raise BadRequest("scores contain the groups of their items; leave out groups")
        return systems
    if systems:
        score, other = next(iter(systems)), next(iter(arrays))
        raise BadRequest(f"{score} is a score and {other} is not; give only scores, or only values")
    count = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        if len(array) != count:
            message = f"must have a value for each of the {count} items of {next(iter(arrays))}; found {len(array)}"
            findings.append(Finding(str(name), message=message))
    if findings:
        raise Faulty(findings)
    try:
        indices = range(count) if groups is None else group_indices(groups, count).tolist()
    except ValueError as fault:
        raise Faulty([Finding("groups", message=str(fault))]) from None
    items = Items("items", tuple(map(str, range(count))), tuple(indices))
    for name, array in arrays.items():
        systems[str(name)] = Score({"mean": measure(array, items, "jackknife")}, items, f"values:given|items:{count}")
    return systems


def compare_pairs(
    given: Mapping[str, Score], metrics: Sequence[str], pairs: Sequence[tuple[str, str]], seed: int = 0
) -> tuple[Difference, ...]:
    """Compare pairs of systems in each metric, with Holm's correction over the pairs.

    Args:
        given: A dict from the systems' names to their scores, which must be comparable (see `check_comparable`).
        metrics: Metrics for which all scores contain the values of the items.
        pairs: The pairs, each a system and the system that it is compared with.
        seed: Seed of the test's draws.

    Returns:
        The differences, metric by metric, in the order of the pairs.
    """
    names = next(iter(given.values())).items.names
    groups = next(iter(given.values())).items.groups
    values, measured = {}, {}
    for system, score in given.items():
        values[system] = _item_values(score, metrics, names)
        measured[system] = np.array([score.metrics[metric].estimate.value for metric in metrics])
    # (items, pairs, metrics) and (pairs, metrics)
    differences = np.stack([values[system] - values[against] for system, against in pairs], axis=1)
    observed = np.stack([measured[system] - measured[against] for system, against in pairs])
    # The mean of pseudo-values differs from a corpus metric by the jackknife's estimate of its bias. So the differences
    # are shifted to the observed difference, which is tested.
    differences += observed - differences.mean(axis=0)
    sums, _ = grouped(differences.reshape(len(names), -1), groups)
    p = randomisation(sums, seed).reshape(observed.shape)
    compared = []
    for column, metric in enumerate(metrics):
        corrected = holm(p[:, column])
        for row, (system, against) in enumerate(pairs):
            estimate = jackknife(differences[:, row, column], value=float(observed[row, column]), groups=groups)
            value = float(measured[system][column])
            p_values = float(p[row, column]), float(corrected[row])
            compared.append(Difference(metric, system, against, value, estimate, *p_values))
    return tuple(compared)


def _item_values(score: Score, metrics: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return the (items, metrics) values of a score. The items are in the order of `names`."""
    rows = {name: row for row, name in enumerate(score.items.names)}
    order = [rows[name] for name in names]
    # Each of the metrics has values, because `shared_metrics` leaves out metrics without values.
    columns = [cast(np.ndarray, score.metrics[metric].values) for metric in metrics]
    return np.stack(columns, axis=1)[order]


def check_comparable(given: Mapping[str, Score]) -> None:
    """Check that scores have the same items, and that the shared parts of their signatures are equal.

    The method of the intervals may differ.

    Args:
        given: A dict from names, which the findings use, to scores. The others are compared with the first.

    Raises:
        Faulty: Shared parts of the signatures or the items differ, or an item is repeated. The exception lists all
            findings.
    """
    findings = []
    (reference, first), *_ = given.items()
    expected = signature_parts(first.signature)
    for file, score in given.items():
        repeated = [name for name, count in Counter(score.items.names).items() if count > 1]
        if repeated:
            message = f"must be different; {len(repeated)} appear more than once, for example {repeated[0]!r}"
            findings.append(Finding(file, column="items.names", message=f"{message}; score the prediction again"))
        parts = signature_parts(score.signature)
        common = [key for key in expected if key in parts and key not in MAY_DIFFER]
        differing = [key for key in common if expected[key] != parts[key]]
        for key in differing:
            message = f"must be {expected[key]!r} as in {reference}; found {parts[key]!r}; score both in the same way"
            findings.append(Finding(file, column=key, message=message))
        if not differing and not repeated:  # otherwise findings about items would only repeat the ones above
            findings += _item_findings(file, score.items, reference, first.items)
    if findings:
        raise Faulty(findings)


def _item_findings(file: str, items: Items, reference: str, first: Items) -> Iterator[Finding]:
    """Find differences between the items of a score and those of the first score."""
    groups = dict(zip(items.names, items.groups, strict=True))
    expected = dict(zip(first.names, first.groups, strict=True))
    if items.kind != first.kind:
        message = f"must be {first.kind!r} as in {reference}; found {items.kind!r}"
        yield Finding(file, column="items.kind", message=message)
    missing = [name for name in expected if name not in groups]
    only_here = [name for name in groups if name not in expected]
    match = explain(only_here, missing, texts=items.kind == "queries")
    if match:
        difference = match.message(len(groups), "names", owner="the other names")
        yield Finding(file, column="items.names", message=f"must be those of {reference}; {difference}")
        matched = set(match.pairs.values())
        missing = [name for name in missing if name not in matched]
        only_here = [name for name in only_here if name not in match.pairs]
    for difference, names in (("missing", missing), ("only", only_here)):
        if names:
            example = f"{difference} here: {len(names)}, for example {names[0]!r}"
            message = f"must be those of {reference}; {example}; score both with the same data"
            yield Finding(file, column="items.names", message=message)
    # Two scores may number the same groups differently. The groups are the same if their numbers map one to one.
    if groups.keys() == expected.keys():
        numbers = {(groups[name], group) for name, group in expected.items()}
        if not len(numbers) == len(set(groups.values())) == len(set(expected.values())):
            message = f"must group the same items as {reference}; score both with the same data"
            yield Finding(file, column="items.groups", message=message)


def _has_item_values(score: Score, metric: str) -> bool:
    measured = score.metrics.get(metric)
    return measured is not None and measured.values is not None and math.isfinite(measured.estimate.value)


def shared_metrics(given: Mapping[str, Score]) -> tuple[list[str], dict[str, str]]:
    """Return the metrics that can be compared, and a dict from each other metric to the reason.

    A metric can be compared if all scores contain its values for the items, and its value is finite.

    Raises:
        Faulty: No metric can be compared.
    """
    names: dict[str, None] = {}  # in the order of the scores
    for score in given.values():
        names |= dict.fromkeys([*score.metrics, *score.unavailable])
    metrics, not_compared = [], {}
    for metric in names:
        absent = [file for file, score in given.items() if metric not in score.metrics]
        without_items = [file for file, score in given.items() if not _has_item_values(score, metric)]
        if absent:
            not_compared[metric] = f"not in {', '.join(absent)}"
        elif without_items:
            if len(without_items) < len(given):
                where = f" in {', '.join(without_items)}"
            else:
                where = ""
            not_compared[metric] = f"no values of single items{where}"
        else:
            metrics.append(metric)
    if not metrics:
        findings = []
        for file, score in given.items():
            message = f"must share a metric with item values with all scores; found {', '.join(score.metrics)}"
            findings.append(Finding(file, message=message))
        raise Faulty(findings)
    return metrics, not_compared


def short_names(files: Sequence[str]) -> list[str]:
    """Return a short name for each file: its run folder if it is in `RUN/scores` or `RUN/predictions`, or its stem.

    If these names are not different, the names are those of the folders, or else the whole paths.

    >>> short_names(["runs/a/scores/evaluation.json", "runs/a/floors/constant.json"])
    ['a', 'constant']
    >>> short_names(["a/whole.json", "b/whole.json"])
    ['a', 'b']
    """
    names = []
    folders = []
    for file in files:
        path = Path(file.removesuffix(".json"))
        folder = path.absolute().parent
        if folder.name in ("scores", "predictions"):
            names.append(folder.parent.name)
            folders.append(folder.parent.name)
        else:
            names.append(path.name)
            folders.append(folder.name)
    for short in (names, folders):
        if len(set(short)) == len(files):
            return short
    return list(files)


def randomisation(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the p value of the paired randomisation test for each column.

    Args:
        differences: (n, comparisons) differences of n units. A unit, such as all captions of a clip, is exchanged as a
            whole.
        seed: Seed of the draws. It is not used if all exchanges are evaluated.

    Returns:
        (comparisons,) p values in (0, 1].
    """
    n = len(differences)
    total = differences.sum(axis=0)
    # Sums of the same numbers in another order differ in their last digits, but must count as equal.
    rounding = (n + 4) * np.finfo(np.float64).eps * np.abs(differences).sum(axis=0)

    def count_as_far(exchanged: np.ndarray) -> np.ndarray:
        """Count the exchanges with a sum that is at least as far from zero as the observed sum.

        `exchanged` is an (exchanges, n) array of zeros and ones. A one marks a unit that is exchanged.
        """
        sums = total - 2 * (exchanged.astype(np.float64) @ differences)
        return (np.abs(sums) >= np.abs(total) - rounding).sum(axis=0)

    if _makes_all_exchanges(n):
        exchanges = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return count_as_far(exchanges) / 2**n
    rng = np.random.default_rng(seed)
    count = np.ones(len(total))
    block = max(1, 500_000 // n)  # 4 MB, which fit into a processor's cache
    with threadpool_limits(1, "blas"):  # with several threads, such small products are ten times slower
        for start in range(0, DRAWS, block):
            size = min(block, DRAWS - start), math.ceil(n / 8)
            bits = rng.integers(0, 256, size, dtype=np.uint8)
            count = count + count_as_far(np.unpackbits(bits, axis=1, count=n))
    return count / (DRAWS + 1)


def _makes_all_exchanges(n: int) -> bool:
    return 2**n <= DRAWS


def _smallest_p(n: int) -> float:
    if _makes_all_exchanges(n):
        return 2 / 2**n
    return 1 / (DRAWS + 1)


def holm(p: Values) -> np.ndarray:
    """Return Holm's corrected p values.

    The i-th smallest of m values is multiplied by m - i + 1. A corrected value is at least the corrected value of any
    smaller p, and at most 1.

    >>> holm([0.04, 0.01, 0.03]).tolist()
    [0.06, 0.03, 0.06]
    """
    p = numbers(p, "p values", 1)
    order = np.argsort(p, kind="stable")
    multiplied = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(multiplied), 1)
    return corrected
