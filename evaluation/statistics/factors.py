"""What each factor of a sweep does to a metric: the mean of each setting and level, and paired tests between levels.

Conventions
-----------
- A *factor* has *levels*. A *setting* is one level of each factor. A *run* is a setting with a seed. Settings are
  compared by the mean over their seeds. SD is the sample standard deviation (n - 1).
- **File.** `systems sweep` writes it, and any CSV of this form can be read: the run's name, a column for each factor,
  then `seed`, `state`, `seconds` and `error`, then metrics. The first metric is compared unless another is chosen. Only
  the factors, `seed` and one metric are required. A row without a value (the run failed or has not ended) is skipped
  and counted, and so is a run whose state is `stopped` (early, by `stop_early` in the sweep file).
- **Test.** The one-sided Wilcoxon signed-rank test between two levels of a factor. A pair is a setting of all other
  factors, once with each level, over the seeds that both have. If there is only one such setting, as in a sweep of a
  single factor, the pairs are the seeds. Pairs with a difference of zero are dropped (Wilcoxon's way). p is exact up to
  50 pairs without ties, and by all exchanges of signs up to 13 pairs with ties; otherwise it is the normal
  approximation.
- **Published values.** Weck et al. 2021, section 4, compare an encoder with overlap against the same encoder without:
  W = 84, p < 8.08e-07 (COALA) and W = 112, p < 3.92e-06 (YAMNet). They are the normal approximation, without a
  correction for continuity, for 44 pairs and no other number up to 132. The exact p of these W are 6.61e-08 and
  7.21e-07, which is 12 and 5 times smaller; `normal` gives the published ones. The paper does not say what the 44 pairs
  are, and its grid has none for this test: the settings of one encoder with one overlap are 3 adapters x 11 kinds of
  words = 33, its other products are 3 and 11, and with ten seeds 30, 110 and 330. (4 x 11 = 44 are the encoders and
  kinds of words, but each test is of a single encoder.) Here such a test has 33 pairs.
- **Direction.** Which level should be better is not known beforehand. So both one-sided tests are made, and both count
  in the correction. The table shows the test with the smaller p and calls its level the better. (Its mean can be the
  worse one, if a few large differences outweigh many small ones.)
- **Several tests.** Holm's (1979) correction covers all tests of one factor, 2 for each pair of levels. Within the
  levels of another factor it covers the tests of all these levels together. With `against`, levels are compared with
  that level only, and the correction counts fewer tests.
- **Smallest p.** n pairs cannot give a p below 2 ** -n, which they give if all differ in one direction. After the
  correction, no p is smaller than that times the number of tests (or 1). If this is 0.05 or more, no difference can be
  marked, however large: five seeds of two levels give 2 x 0.03125 = 0.0625.
- **Marks**, of the corrected p: * below 0.05, ** below 0.01, *** below 0.001.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation import report
from evaluation.data import tables
from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics.catalogue import lower_is_better
from evaluation.statistics.comparison import holm
from evaluation.text import printable, unknown_key

if TYPE_CHECKING:
    import pandas as pd

AROUND = ("run", "seed", "state", "seconds", "error")  # the columns around the factors: one before them, four after
SHOWN = 10  # settings in the table for people
EXACT = 50  # pairs up to which the test is exact if no two differences are equal
EXACT_TIES = 13  # pairs up to which the test is exact if some differences are equal
MARKED = 0.05  # corrected p below which a difference is marked


@dataclass(frozen=True, eq=False)
class Results:
    """The runs of a sweep that have a value.

    Attributes:
        file: The file that they were read from.
        metric: The metric that is compared.
        factors: The factors' names.
        runs: A row for each run: its name (`run`), its level of each factor, its `seed`, and the metric.
        missing: Number of runs without a value.
        stopped: Number of runs that were stopped early and are left out, whether they have a value or not.
    """

    file: str
    metric: str
    factors: tuple[str, ...]
    runs: "pd.DataFrame"
    missing: int = 0
    stopped: int = 0

    def levels(self, factor: str) -> list[str]:
        """Return the levels of a factor, in the order of the file."""
        return list(self.runs[factor].unique())


# Reading --------------------------------------------------------------------------------------------------------------


def read(path: Path, metric: str | None = None) -> Results:
    """Read the results of a sweep.

    Args:
        path: The CSV file.
        metric: The metric to compare (default: the first metric of the file).

    Raises:
        BadRequest: There is no such file, or no such metric in it.
        Faulty: The file is not valid; with every finding.
    """
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give the results.csv of a sweep")
    findings: list[Finding] = []
    records, is_complete = tables.read_table(path, str(path), findings)
    if findings and not records:  # the file could not be read at all, so nothing is known of its header
        raise Faulty(findings)
    header = records[0][1] if records else []
    if "seed" not in header or len(set(header)) < len(header):
        message = "must have a header of different names with `seed`, and before it the factors; "
        findings.append(Finding(str(path), 1, message=f"{message}found {', '.join(header) or 'nothing'}"))
    if findings or not is_complete:
        raise Faulty(findings)
    factors, metrics = _factors_and_metrics(header, str(path))
    if metric and metric not in metrics:
        raise BadRequest(f"{path}: {unknown_key(metric, metrics, 'metric')}")
    metric = metric or metrics[0]
    rows = []
    for line, cells in records[1:]:
        if len(cells) == len(header):
            rows.append((line, dict(zip(header, cells, strict=True))))
        else:
            findings.append(Finding(str(path), line, message=f"must have {len(header)} cells, but has {len(cells)}"))
    ended = [(line, row) for line, row in rows if row.get("state") != "stopped"]
    scored = [(line, row) for line, row in ended if row[metric].strip()]
    runs = _runs(scored, factors, metric, str(path), findings)
    if not findings and not runs:
        findings.append(Finding(str(path), message=f"must have a run with a value of {metric}; has none"))
    if findings:
        raise Faulty(findings)
    import pandas as pd  # takes half a second: only when nothing is wrong with the file

    runs_table = pd.DataFrame(runs, columns=["run", *factors, "seed", metric])
    missing, stopped = len(ended) - len(scored), len(rows) - len(ended)
    return Results(str(path), metric, tuple(factors), runs_table, missing, stopped)


def _factors_and_metrics(header: Sequence[str], file: str) -> tuple[list[str], list[str]]:
    """Return the names of the factors, before `seed`, and of the metrics, behind it."""
    seed = header.index("seed")
    factors = [name for name in header[:seed] if name not in AROUND]
    metrics = [name for name in header[seed:] if name not in AROUND]
    if not factors or not metrics:
        if factors:
            required = "a metric's column behind `seed`"
        else:
            required = "a column for each factor before `seed`"
        raise Faulty([Finding(file, 1, message=f"must have {required}; found {', '.join(header)}")])
    return factors, metrics


def _runs(
    rows: Sequence[tuple[int, dict[str, str]]],
    factors: Sequence[str],
    metric: str,
    file: str,
    findings: list[Finding],
) -> list[list[object]]:
    """Return name, levels, seed and value of each run, from rows with their lines; invalid rows are findings."""
    runs = []
    seen = set()
    for line, row in rows:
        levels = [row[factor] for factor in factors]
        try:
            seed, value = int(row["seed"]), float(row[metric])
        except ValueError:
            seed, value = 0, math.nan
        if not math.isfinite(value):
            message = f"seed must be a whole number and {metric} a number; found {row['seed']!r} and {row[metric]!r}"
            findings.append(Finding(file, line, message=message))
            continue
        if (*levels, seed) in seen:
            message = f"is the second row of {', '.join(levels)} with seed {seed}; leave one out"
            findings.append(Finding(file, line, message=message))
        seen.add((*levels, seed))
        runs.append([row.get("run", ""), *levels, seed, value])
    return runs


# Means ----------------------------------------------------------------------------------------------------------------


def settings(results: Results) -> "pd.DataFrame":
    """Summarise the runs of each setting.

    Returns:
        A row for each setting, the best first: `mean` and `sd` over its runs, the number of `runs`, and the `best` run.
    """
    runs = results.runs.groupby(list(results.factors), sort=False)[results.metric]
    summary = runs.agg(mean="mean", sd="std", runs="size", best=_best(results.metric))
    means = summary["mean"].round(12)  # means that differ by rounding only keep the order of the file
    return summary.loc[means.sort_values(ascending=lower_is_better(results.metric), kind="stable").index]


def best_settings(results: Results, factor: str) -> "pd.DataFrame":
    """Return the best setting of each level of a factor, as rows of `settings`."""
    best = settings(results).groupby(level=factor, sort=False).head(1)
    order = [best.index.get_level_values(factor).get_loc(level) for level in results.levels(factor)]
    return best.iloc[order]


def level_means(results: Results, factor: str) -> "pd.DataFrame":
    """Summarise all settings that have a level, for each level of a factor.

    Returns:
        A row for each level: `mean` and `sd` of the settings' means, the number of `settings`, and the `best` run.
    """
    means = settings(results)["mean"].groupby(level=factor)
    summary = means.agg(mean="mean", sd="std", settings="size")
    summary["best"] = results.runs.groupby(factor)[results.metric].agg(_best(results.metric))
    return summary.loc[results.levels(factor)]


def _best(metric: str) -> str:
    """Return the name of pandas' function for the best value."""
    if lower_is_better(metric):
        return "min"
    return "max"


# Tests ----------------------------------------------------------------------------------------------------------------


def wilcoxon(differences: Sequence[float], normal: bool = False) -> tuple[float, float]:
    """Test whether differences tend to be above zero: the one-sided Wilcoxon signed-rank test.

    Args:
        differences: (n,) the difference of each pair.
        normal: Use the normal approximation for any number of pairs, as Weck et al. 2021 do.

    Returns:
        W, the sum of the ranks of the differences below zero, and p.

    >>> wilcoxon([0.3, 0.1, 0.4, 0.2, 0.5])
    (0.0, 0.03125)
    """
    from scipy import stats

    # Equal differences of means may differ in their last digits; they must count as ties.
    rounded = np.array([float(f"{difference:.12g}") for difference in differences])
    rounded[np.abs(rounded) < 1e-12] = 0
    nonzero = rounded[rounded != 0]
    if not len(nonzero):
        return 0.0, 1.0
    has_ties = len(np.unique(np.abs(nonzero))) < len(nonzero)
    method = "asymptotic"
    if not normal and not has_ties and len(nonzero) <= EXACT:
        method = "exact"
    elif not normal and has_ties and len(nonzero) <= EXACT_TIES:
        method = stats.PermutationMethod(n_resamples=np.inf)
    p = float(stats.wilcoxon(nonzero, alternative="greater", method=method).pvalue)
    ranks = stats.rankdata(np.abs(nonzero))
    return float(ranks[nonzero < 0].sum()), p


def paired_differences(results: Results, factor: str, one: str, other: str) -> tuple["pd.Series", str]:
    """Pair two levels of a factor.

    Returns:
        The metric of `one` less that of `other` in each pair, and what the pairs are: `settings` or `seeds`.
    """
    others = [name for name in results.factors if name != factor]
    # A row for each setting of the other factors with a seed, a column for each level.
    by_level = results.runs.pivot(index=[*others, "seed"], columns=factor, values=results.metric)
    by_level = by_level.reindex(columns=[one, other])
    differences = (by_level[one] - by_level[other]).dropna()
    if not others:
        return differences, "seeds"
    by_setting = differences.groupby(level=others)
    if by_setting.ngroups == 1:
        return differences, "seeds"
    return by_setting.mean(), "settings"


def contrasts(
    results: Results,
    factor: str,
    within: str | None = None,
    *,
    against: str | None = None,
    normal: bool = False,
) -> "pd.DataFrame":
    """Test each pair of levels of a factor, over all settings or within each level of another factor.

    Args:
        results: The results.
        factor: The factor.
        within: The other factor (default: none).
        against: The level that all others are compared with (default: each with each).
        normal: As in `wilcoxon`.

    Returns:
        A row for each pair of levels, of the one-sided test with the smaller p:

        - `factor`; `within`, the other factor and its level; `better` and `worse`, the levels
        - `difference`: mean of the pairs' differences, better less worse
        - `pairs`: number of pairs; `of`: what they are, settings or seeds
        - `W`: sum of the ranks of the pairs in which the worse level has the better value
        - `p`, and `p_holm` after Holm's correction over all tests in both directions
        - `p_smallest` and `p_holm_smallest`: the smallest values that so many pairs can give
        - `tests`: number of tests in the correction; `mark`: stars of `p_holm`
    """
    import pandas as pd

    compared = list(itertools.combinations(results.levels(factor), 2))
    if against is not None:
        compared = [pair for pair in compared if against in pair]
    rows = []
    for name, part in _parts(results, within):
        for one, other in compared:
            differences, unit = paired_differences(part, factor, one, other)
            if len(differences):
                test = _better_direction(differences, one, other, results.metric, normal)
                rows.append({"factor": factor, "within": name, "pairs": len(differences), "of": unit, **test})
    columns = ["factor", "within", "better", "worse", "difference", "pairs", "of", "W", "p", "p_other_direction"]
    tests = pd.DataFrame(rows, columns=columns)
    both_directions = tests[["p", "p_other_direction"]].to_numpy(dtype=float)
    corrected = holm(both_directions.ravel()).reshape(both_directions.shape)
    tests = tests.drop(columns="p_other_direction")
    tests["p_smallest"] = 0.5 ** tests["pairs"].astype(float)
    tests["p_holm"] = corrected[:, 0]
    tests["p_holm_smallest"] = (both_directions.size * tests["p_smallest"]).clip(upper=1)
    tests["tests"] = both_directions.size
    tests["mark"] = tests["p_holm"].map(report.marks)
    return tests


def _parts(results: Results, within: str | None) -> Iterator[tuple[str, Results]]:
    """Give the results of each level of a factor with the level's name; all results if there is no factor."""
    if within is None:
        yield "", results
        return
    for level in results.levels(within):
        runs = results.runs[results.runs[within] == level]
        yield f"{within} {level}", replace(results, runs=runs, missing=0)


def _better_direction(
    differences: "pd.Series", one: str, other: str, metric: str, normal: bool
) -> dict[str, float | str]:
    """Test whether either of two levels is better, and return the test with the smaller p."""
    sign = -1 if lower_is_better(metric) else 1
    tests = []
    for better, worse, gained in ((one, other, differences), (other, one, -differences)):
        statistic, p = wilcoxon(sign * gained, normal)
        tests.append({"better": better, "worse": worse, "difference": gained.mean(), "W": statistic, "p": p})
    # If both have the same p, the level with the better mean is called the better.
    shown, opposite = sorted(tests, key=lambda test: (test["p"], -sign * test["difference"]))
    return {**shown, "p_other_direction": opposite["p"]}


def _all_contrasts(results: Results, by: str, against: str | None, normal: bool) -> "pd.DataFrame":
    """Test each pair of levels of every factor; `against` is a level of `by`."""
    import pandas as pd

    tests = []
    for factor in results.factors:
        level = against if factor == by else None
        tests.append(contrasts(results, factor, against=level, normal=normal))
    return pd.concat(tests, ignore_index=True)


# Text and files -------------------------------------------------------------------------------------------------------


def settings_table(found: "pd.DataFrame", metric: str) -> str:
    """Format rows of `settings` or `level_means` as text."""
    heads = {"mean": f"mean {metric}", "sd": "SD", "best": "best run"}
    formats = {heads[column]: _four_decimals for column in heads}
    return report.text(found.rename(columns=heads), {**formats, "runs": str, "settings": str})


def _four_decimals(value: float) -> str:
    return report.number(value, 4)


def contrasts_table(tests: "pd.DataFrame") -> str:
    """Format rows of `contrasts` over all settings as text."""
    shown = tests[["factor", "better", "worse", "difference"]].copy()
    shown["pairs"] = tests["pairs"].astype(str) + " " + tests["of"]
    shown["W"] = tests["W"]
    formats = {
        "difference": lambda difference: report.number(difference, 4, signed=True),
        "pairs": str,
        "W": "{:g}".format,
    }
    heads = {
        "p": "p",
        "p_smallest": "smallest p",
        "p_holm": "p (Holm)",
        "p_holm_smallest": "smallest p (Holm)",
    }
    for column, head in heads.items():
        shown[head] = tests[column]
        formats[head] = report.p_value
    shown[""] = tests["mark"]
    return report.text(shown, formats)


def too_few_pairs(tests: "pd.DataFrame") -> list[str]:
    """Return a note for each factor whose tests cannot mark any difference: how many pairs they would need."""
    notes = []
    for factor, rows in tests.groupby("factor", sort=False):
        if rows["p_holm_smallest"].min() < MARKED:
            continue
        count = rows["tests"].iloc[0]
        needed = math.floor(math.log2(count / MARKED)) + 1  # the first n with count x 2 ** -n below MARKED
        can = f"{rows['pairs'].max()} pairs and {count} tests can mark no difference"
        notes.append(f"{printable(factor)}: {can}; {needed} pairs are needed")
    return notes


def summary(results: Results, by: str, *, against: str | None = None, normal: bool = False) -> str:
    """Format all tables as text: the best settings, the best for each level of a factor, every level, every test.

    Args:
        results: The results.
        by: The factor whose levels have their best settings listed.
        against: The level of `by` that its others are compared with (default: each with each).
        normal: As in `wilcoxon`.
    """
    import pandas as pd

    found = settings(results)
    more = f" (the best {SHOWN} of {len(found)})" if len(found) > SHOWN else ""
    parts = [_counts(results, found), f"settings{more}\n{settings_table(found.head(SHOWN), results.metric)}"]
    if len(results.factors) > 1:
        chosen = settings_table(best_settings(results, by), results.metric)
        parts.append(f"the best setting of each {printable(by)}\n{chosen}")
        by_factor = {factor: level_means(results, factor) for factor in results.factors}
        all_levels = settings_table(pd.concat(by_factor, names=["factor", "level"]), results.metric)
        parts.append(f"levels, over the means of the settings that have them\n{all_levels}")
    tests = _all_contrasts(results, by, against, normal)
    if len(tests):
        notes = _notes(results, by, against, normal)
        lines = ["is one level better than another?", contrasts_table(tests), *notes, *too_few_pairs(tests)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _counts(results: Results, found: "pd.DataFrame") -> str:
    """Say how many runs there are of how many settings."""
    fewest, most = found["runs"].min(), found["runs"].max()
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    text = f"{results.file}: {len(results.runs)} runs of {len(found)} settings, {seeds} of each"
    if results.missing:
        text += f"; {results.missing} more without {results.metric} (failed, or not ended)"
    if results.stopped:
        text += f"; {results.stopped} were stopped early and are left out"
    return text


def _notes(results: Results, by: str, against: str | None, normal: bool) -> list[str]:
    """Explain the columns of the table of tests."""
    test = "p: one-sided Wilcoxon signed-rank test, over pairs that differ in this factor alone"
    if normal:
        test += ", by the normal approximation"
    family = "all pairs of a factor's levels"
    if against is not None:
        family = f"the pairs of {printable(against)} and another {printable(by)}"
        if len(results.factors) > 1:
            family += ", or all pairs of another factor's levels"
    return [
        test,
        "smallest p: what so many pairs give exactly where all differ in one direction",
        f"Holm: over {family}, in both directions; * p < 0.05, ** p < 0.01, *** p < 0.001",
    ]


def save(results: Results, by: str, folder: Path, *, against: str | None = None, normal: bool = False) -> list[Path]:
    """Write settings.csv and tests.csv, which also has the tests within each level of `by`.

    The arguments are those of `summary`, and the folder to write to.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    import pandas as pd

    tests = [_all_contrasts(results, by, against, normal)]
    for factor in results.factors:
        if factor != by:
            tests.append(contrasts(results, factor, by, normal=normal))
    content = {"settings.csv": settings(results), "tests.csv": pd.concat(tests, ignore_index=True)}
    for name, table in content.items():
        with replacing(folder / name) as part:
            part.write_text(report.csv(table), encoding="utf-8", errors="backslashreplace")
    return [folder / name for name in content]
