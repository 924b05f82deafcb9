"""What the factors of a grid of runs do to a metric: settings, levels, and paired tests between levels.

Conventions
-----------
- A *factor* has *levels*; a *setting* has a level of each factor; a *run* is a setting with a seed. What is compared of
  a setting is the mean over its seeds; SD is the sample standard deviation (n - 1).
- **The file** is what `systems sweep` writes, or any CSV of that form: first the run's name, then a column for each
  factor, then `seed`, `state`, `seconds` and `error`, then metrics, of which the first is the one that is compared. Of
  these only the factors, `seed` and a metric must be there. A row without a value (a run that failed, or has not ended)
  is left out and counted.
- **Test.** The one-sided Wilcoxon signed-rank test between two levels of a factor: a pair is a setting of all other
  factors, with the one level and with the other, over the seeds that both have. Where there is only one such setting,
  as in a sweep of a single factor, the pairs are the seeds. Pairs without a difference are dropped (Wilcoxon's way). p
  is exact up to 50 pairs without ties, and by all exchanges of signs up to 13 pairs with ties; otherwise it is the
  normal approximation.
- **The published figures** of Weck et al. 2021, section 4, are for an encoder with overlap against the same without:
  W = 84, p < 8.08e-07 (COALA) and W = 112, p < 3.92e-06 (YAMNet). They are the normal approximation, without a
  correction for continuity, for 44 pairs and no other number up to 132. The exact p of these W are 6.61e-08 and
  7.21e-07, 12 and 5 times smaller; `normal` gives the published ones. The paper does not say what the 44 pairs are, and
  the grid has none for this test: the settings of one encoder with one overlap are 3 adapters x 11 kinds of words = 33,
  its other products are 3 and 11, with ten seeds 30, 110 and 330. (4 x 11 = 44 are the encoders and kinds of words, but
  each test is of a single encoder.) Here such a test has 33 pairs.
- **Which direction.** Nobody said beforehand which level should be the better, so both one-sided tests are made, and
  both count in the correction; the one that is shown is that with the smaller p, whose level is called the better. (Its
  mean may be the lower one, where a few large differences stand against many small ones.)
- **Several tests.** Holm's (1979) correction over all tests of one factor, 2 for each pair of levels; within the levels
  of another factor, over all of these together. With `against`, levels are compared with that one alone, and the
  correction counts fewer tests.
- **The smallest p** that n pairs can give is 2 ** -n, where all differ in one direction. Corrected, no p is smaller
  than that times the number of tests (or 1). Where this is 0.05 or more, no difference can be marked, however large:
  five seeds of two levels give 2 x 0.03125 = 0.0625.
- **Marks**, of the corrected p: * below 0.05, ** below 0.01, *** below 0.001.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from evaluation.data import tables
from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding, printable, table, unknown_key
from evaluation.metrics.catalogue import lower_is_better
from evaluation.statistics.comparison import holm, marks, p_value

AROUND = ("run", "seed", "state", "seconds", "error")  # the columns around the factors: one before them, four after
SHOWN = 10  # settings in the table for people
EXACT = 50  # pairs up to which the test is exact where no two differences are equal
MARKED = 0.05  # corrected p below which a difference is marked
EXACT_TIES = 13  # pairs up to which ties leave the test exact


class Result(NamedTuple):
    """One run's value of the metric."""

    levels: tuple[str, ...]  # of each factor
    seed: int
    value: float
    name: str = ""  # of its folder, where the file says it


class Setting(NamedTuple):
    """The runs of a setting, or of all settings that have some levels in common."""

    levels: tuple[str, ...]
    mean: float
    sd: float  # NaN of a single one
    n: int
    best: float  # of a single run


@dataclass(frozen=True)
class Results:
    """The runs that have a value.

    Attributes:
        file: Where they are from.
        metric: What is compared.
        factors: The factors' names.
        runs: The runs.
        missing: How many runs have no value.
    """

    file: str
    metric: str
    factors: tuple[str, ...]
    runs: tuple[Result, ...]
    missing: int = 0

    def levels(self, factor: str) -> tuple[str, ...]:
        """The levels of a factor, in the order of the file."""
        place = self.factors.index(factor)
        return tuple(dict.fromkeys(run.levels[place] for run in self.runs))

    def having(self, factor: str, level: str) -> list[Result]:
        """The runs of a level."""
        place = self.factors.index(factor)
        return [run for run in self.runs if run.levels[place] == level]


@dataclass(frozen=True)
class Contrast:
    """The test whether one level of a factor is better than another.

    Attributes:
        factor: The factor.
        within: The level of another factor that all pairs have; empty for all.
        better: The level with the smaller p.
        worse: The other.
        difference: The mean of the pairs' differences, better less worse.
        pairs: How many pairs there are.
        of: What they are: settings or seeds.
        statistic: W, the sum of the ranks of the pairs in which the worse did better.
        p: One-sided.
        p_holm: After Holm's correction.
        tests: How many tests the correction counts.
    """

    factor: str
    within: str
    better: str
    worse: str
    difference: float
    pairs: int
    of: str
    statistic: float
    p: float
    p_holm: float = math.nan
    tests: int = 1

    @property
    def smallest_p(self) -> float:
        """The smallest p that so many pairs can give."""
        return 0.5**self.pairs

    @property
    def smallest_p_holm(self) -> float:
        """The smallest p that so many pairs can give after Holm's correction."""
        return min(1.0, self.tests * self.smallest_p)


def read(path: Path, metric: str | None = None) -> Results:
    """Read a sweep's results.

    Args:
        path: The CSV file.
        metric: What to compare; the first metric of the file where None.

    Raises:
        BadRequest: There is no such file, or no such metric in it.
        Faulty: The file does not hold; with every finding.
    """
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give the results.csv of a sweep")
    findings: list[Finding] = []
    records, whole = tables.read(path, str(path), findings)
    if findings and not records:  # nothing could be read, so nothing is known of the header
        raise Faulty(findings)
    header = records[0][1] if records else []
    if "seed" not in header or len(set(header)) < len(header):
        message = "must have a header of different names with `seed`, and before it the factors; "
        findings.append(Finding(str(path), 1, message=f"{message}found {', '.join(header) or 'nothing'}"))
    if findings or not whole:
        raise Faulty(findings)
    seed = header.index("seed")
    factors = [name for name in header[:seed] if name not in AROUND]
    metrics = [name for name in header[seed:] if name not in AROUND]
    if not factors or not metrics:
        lacks = "a column for each factor before `seed`" if not factors else "a metric's column behind `seed`"
        raise Faulty([Finding(str(path), 1, message=f"must have {lacks}; found {', '.join(header)}")])
    if metric and metric not in metrics:
        raise BadRequest(f"{path}: {unknown_key(metric, metrics, 'metric')}")
    metric = metric or metrics[0]
    runs: dict[tuple[tuple[str, ...], str], Result] = {}
    missing = 0
    for line, cells in records[1:]:
        if len(cells) != len(header):
            findings.append(Finding(str(path), line, message=f"must have {len(header)} cells, but has {len(cells)}"))
            continue
        row = dict(zip(header, cells, strict=True))
        levels = tuple(row[factor] for factor in factors)
        if not row[metric].strip():
            missing += 1
            continue
        try:
            value, number = float(row[metric]), int(row["seed"])
            if not math.isfinite(value):
                raise ValueError
        except ValueError:
            message = f"seed must be a whole number and {metric} a number; found {row['seed']!r} and {row[metric]!r}"
            findings.append(Finding(str(path), line, message=message))
            continue
        if (levels, number) in runs:
            message = f"is the second row of {', '.join(levels)} with seed {number}; leave one out"
            findings.append(Finding(str(path), line, message=message))
        runs[levels, number] = Result(levels, number, value, row.get(AROUND[0], ""))
    if not findings and not runs:
        findings.append(Finding(str(path), message=f"must have a run with a value of {metric}; has none"))
    if findings:
        raise Faulty(findings)
    return Results(str(path), metric, tuple(factors), tuple(runs.values()), missing)


def settings(runs: Iterable[Result], metric: str) -> list[Setting]:
    """The settings of runs, in the order of their first ones."""
    values: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        values.setdefault(run.levels, []).append(run.value)
    return [_summed(levels, those, those, metric) for levels, those in values.items()]


def _summed(levels: tuple[str, ...], values: Sequence[float], runs: Sequence[float], metric: str) -> Setting:
    most = min(runs) if lower_is_better(metric) else max(runs)
    return Setting(levels, fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values), most)


def ranked(found: Iterable[Setting], metric: str) -> list[Setting]:
    """Settings, the best first."""
    return sorted(found, key=lambda one: one.mean, reverse=not lower_is_better(metric))


def best(results: Results, factor: str) -> list[Setting]:
    """The best setting of each level of a factor."""
    metric = results.metric
    found = (ranked(settings(results.having(factor, level), metric), metric) for level in results.levels(factor))
    return [those[0] for those in found]


def marginal(results: Results, factor: str) -> list[Setting]:
    """Each level of a factor over all settings that have it: mean and SD of the settings' means."""
    found = []
    for level in results.levels(factor):
        runs = results.having(factor, level)
        means = [one.mean for one in settings(runs, results.metric)]
        found.append(_summed((level,), means, [run.value for run in runs], results.metric))
    return found


def wilcoxon(differences: Sequence[float], normal: bool = False) -> tuple[float, float]:
    """Test whether differences tend to be above zero: the one-sided Wilcoxon signed-rank test.

    Args:
        differences: (n,) of each pair.
        normal: Whether to use the normal approximation for any number of pairs, as Weck et al. 2021 do.

    Returns:
        W, the sum of the ranks of those below zero, and p.

    >>> wilcoxon([0.3, 0.1, 0.4, 0.2, 0.5])
    (0.0, 0.03125)
    """
    from scipy import stats

    # Equal differences of means may differ in their last digits; they must count as ties.
    found = np.array([float(f"{difference:.12g}") for difference in differences])
    found = np.where(np.abs(found) < 1e-12, 0, found)
    found = found[found != 0]
    if not len(found):
        return 0.0, 1.0
    has_ties = len(np.unique(np.abs(found))) < len(found)
    method = "asymptotic"
    if not normal and not has_ties and len(found) <= EXACT:
        method = "exact"
    elif not normal and has_ties and len(found) <= EXACT_TIES:
        method = stats.PermutationMethod(n_resamples=np.inf)
    p = float(stats.wilcoxon(found, alternative="greater", method=method).pvalue)
    ranks = stats.rankdata(np.abs(found))
    return float(ranks[found < 0].sum()), p


def pairs(results: Results, factor: str, one: str, other: str) -> tuple[list[float], str]:
    """Pair two levels of a factor.

    Returns:
        What the one has more than the other in each pair, and what the pairs are: settings or seeds.
    """
    place = results.factors.index(factor)
    sides: list[dict[tuple[str, ...], dict[int, float]]] = []
    for level in (one, other):
        values: dict[tuple[str, ...], dict[int, float]] = {}
        for run in results.having(factor, level):
            values.setdefault(run.levels[:place] + run.levels[place + 1 :], {})[run.seed] = run.value
        sides.append(values)
    found = []
    for rest in sides[0]:
        left, right = sides[0][rest], sides[1].get(rest, {})
        if common := [seed for seed in left if seed in right]:
            found.append([left[seed] - right[seed] for seed in common])
    if len(found) == 1:
        return found[0], "seeds"
    return [fmean(differences) for differences in found], "settings"


def contrasts(
    results: Results,
    factor: str,
    within: str | None = None,
    *,
    against: str | None = None,
    normal: bool = False,
) -> list[Contrast]:
    """Test two levels of a factor at a time, among all settings or within each level of another factor.

    Args:
        results: The results.
        factor: The factor.
        within: The other factor (default: none).
        against: The level that all others are compared with (default: each with each).
        normal: As in `wilcoxon`.

    Returns:
        For each pair of levels the test with the smaller p, with Holm's correction over all of these and of
        those in the other direction.
    """
    compared = list(itertools.combinations(results.levels(factor), 2))
    if against is not None:
        compared = [levels for levels in compared if against in levels]
    shown, others = [], []
    for group, part in _groups(results, within).items():
        for one, other in compared:
            if tests := _both_directions(part, factor, group, (one, other), normal):
                shown.append(tests[0])
                others.append(tests[1])
    tests = [*shown, *others]
    corrected = holm(np.array([test.p for test in tests]))
    kept = zip(shown, corrected[: len(shown)], strict=True)
    return [replace(test, p_holm=float(p), tests=len(tests)) for test, p in kept]


def _groups(results: Results, within: str | None) -> dict[str, Results]:
    """The results of each level of a factor, by that level; all of them by an empty one where there is no factor."""
    if not within:
        return {"": results}
    groups = {}
    for level in results.levels(within):
        groups[level] = replace(results, runs=tuple(results.having(within, level)), missing=0)
    return groups


def _both_directions(
    results: Results, factor: str, group: str, levels: tuple[str, str], normal: bool
) -> list[Contrast]:
    """Test whether either of two levels is better, the smaller p first; nothing where they have no pair."""
    sign = -1 if lower_is_better(results.metric) else 1
    tests = []
    for one, other in (levels, levels[::-1]):
        differences, of = pairs(results, factor, one, other)
        if differences:
            statistic, p = wilcoxon([sign * difference for difference in differences], normal)
            mean = fmean(differences)
            tests.append(Contrast(factor, group, one, other, mean, len(differences), of, statistic, p))
    return sorted(tests, key=lambda test: (test.p, -sign * test.difference))


# Said to people, and kept ---------------------------------------------------------------------------------------------


def settings_table(metric: str, factors: Sequence[str], found: Sequence[Setting]) -> str:
    """Settings as a table."""
    rows = [[*map(printable, one.levels), *_figures(one)] for one in found]
    return table(
        rows, [*map(printable, factors), f"mean {metric}", "SD", "runs", "best run"], numbers=_last(factors, 4)
    )


def _figures(one: Setting) -> list[str]:
    sd = "–" if math.isnan(one.sd) else f"{one.sd:.4f}"
    return [f"{one.mean:.4f}", sd, str(one.n), f"{one.best:.4f}"]


def _last(before: Sequence[str], count: int) -> range:
    return range(len(before), len(before) + count)


def contrasts_table(found: Sequence[Contrast]) -> str:
    """Tests as a table."""
    heads = ["factor", *(["within"] if any(test.within for test in found) else []), "better", "worse"]
    numbers = ["difference", "pairs", "W", "p", "smallest p", "p (Holm)", "smallest p (Holm)"]
    rows = []
    for test in found:
        words = [test.factor, *([test.within] if "within" in heads else []), test.better, test.worse]
        of = f"{test.pairs} {test.of}"
        every_p = (test.p, test.smallest_p, test.p_holm, test.smallest_p_holm)
        figures = [f"{test.difference:+.4f}", of, f"{test.statistic:g}", *map(p_value, every_p)]
        rows.append([*map(printable, words), *figures, marks(test.p_holm)])
    return table(rows, [*heads, *numbers, ""], numbers=_last(heads, len(numbers)))


def too_few(tested: Sequence[Contrast]) -> list[str]:
    """Say for each factor whose tests can mark no difference how many pairs they would need."""
    lines = []
    for factor in dict.fromkeys(test.factor for test in tested):
        tests = [test for test in tested if test.factor == factor]
        if min(test.smallest_p_holm for test in tests) < MARKED:
            continue
        most, count = max(test.pairs for test in tests), tests[0].tests
        needed = math.floor(math.log2(count / MARKED)) + 1  # the first n with count x 2 ** -n below MARKED
        lines.append(
            f"{printable(factor)}: {most} pairs and {count} tests can mark no difference; {needed} pairs are needed"
        )
    return lines


def report(results: Results, by: str, *, against: str | None = None, normal: bool = False) -> str:
    """Everything as text: the best settings, the best for each level of a factor, every level, every test.

    Args:
        results: The results.
        by: The factor whose levels have their best settings listed.
        against: The level of `by` that its others are compared with (default: each with each).
        normal: As in `wilcoxon`.
    """
    found = ranked(settings(results.runs, results.metric), results.metric)
    counts = sorted({one.n for one in found})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    parts = [f"{results.file}: {len(results.runs)} runs of {len(found)} settings, {seeds} of each"]
    if results.missing:
        parts[0] += f"; {results.missing} more without {results.metric} (failed, or not ended)"
    more = f" (the best {SHOWN} of {len(found)})" if len(found) > SHOWN else ""
    parts.append(f"settings{more}\n{settings_table(results.metric, results.factors, found[:SHOWN])}")
    if len(results.factors) > 1:
        chosen = settings_table(results.metric, results.factors, best(results, by))
        parts.append(f"the best setting of each {printable(by)}\n{chosen}")
        rows = []
        for factor in results.factors:
            rows += [[printable(factor), printable(*one.levels), *_figures(one)] for one in marginal(results, factor)]
        heads = ["factor", "level", f"mean {results.metric}", "SD", "settings", "best run"]
        parts.append(
            f"levels, over the means of the settings that have them\n{table(rows, heads, numbers=range(2, 6))}"
        )
    tested = []
    for factor in results.factors:
        tested += contrasts(results, factor, against=against if factor == by else None, normal=normal)
    if tested:
        notes = ["p: one-sided Wilcoxon signed-rank test, over pairs that differ in this factor alone"]
        if normal:
            notes[0] += ", by the normal approximation"
        notes.append("smallest p: what so many pairs give exactly where all differ in one direction")
        over = "all pairs of a factor's levels"
        if against is not None:
            over = f"the pairs of {printable(against)} and another {printable(by)}"
            if len(results.factors) > 1:
                over += ", or all pairs of another factor's levels"
        notes.append(f"Holm: over {over}, in both directions; * p < 0.05, ** p < 0.01, *** p < 0.001")
        notes += too_few(tested)
        parts.append("\n".join(["is one level better than another?", contrasts_table(tested), *notes]))
    return "\n\n".join(parts)


def save(results: Results, by: str, folder: Path, *, against: str | None = None, normal: bool = False) -> list[Path]:
    """Write settings.csv, tests.csv (within each level of `by`, too) and the figures; return the paths.

    The arguments are those of `report`, and the folder to write to.

    Raises:
        OSError: They cannot be written.
    """
    from evaluation.statistics import figures

    rows: dict[str, list[list[object]]] = {"settings.csv": [[*results.factors, "mean", "sd", "runs", "best"]]}
    for one in ranked(settings(results.runs, results.metric), results.metric):
        rows["settings.csv"].append([*one.levels, one.mean, "" if math.isnan(one.sd) else one.sd, one.n, one.best])
    heads = ["factor", "within", "better", "worse", "difference", "pairs", "of", "W"]
    rows["tests.csv"] = [[*heads, "p", "p_smallest", "p_holm", "p_holm_smallest", "tests", "mark"]]
    asked = [(factor, None) for factor in results.factors]
    asked += [(factor, by) for factor in results.factors if factor != by]
    for factor, within in asked:
        one = against if factor == by else None
        for test in contrasts(results, factor, within, against=one, normal=normal):
            where = f"{within} {test.within}" if within else ""
            values = [test.difference, test.pairs, test.of, test.statistic]
            values += [test.p, test.smallest_p, test.p_holm, test.smallest_p_holm, test.tests, marks(test.p_holm)]
            rows["tests.csv"].append([factor, where, test.better, test.worse, *values])
    written = []
    for name, lines in rows.items():
        with replacing(folder / name) as part:
            part.write_text(tables.spreadsheet(lines), encoding="utf-8", errors="backslashreplace")
        written.append(folder / name)
    return written + figures.draw(results, by, folder)
