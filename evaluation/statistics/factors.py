"""Effects of a sweep's factors on a metric: the mean of each setting and level, and paired tests between levels.

Conventions
-----------
- A *factor* has *levels*. A *setting* is one level of each factor. A *run* is a setting with a seed. Settings are
  compared by their mean over the seeds. SD is the sample standard deviation (n - 1).
- **File.** `dcase-systems sweep` writes the file. Any CSV of the same form can be read. Its columns are the run's name,
  one column for each factor, then `seed`, `state`, `seconds` and `error`, then the metrics. Only the factors, `seed`
  and one metric are required. The first metric is compared unless another is chosen. A row without a value (the run
  failed or has not finished) is skipped and counted. A run with the state `stopped`, which `stop_early` in the sweep
  file has stopped early, is skipped and counted too.
- **Test.** The test is the one-sided Wilcoxon signed-rank test between two levels of a factor. A pair is one setting of
  all other factors, once with each level. Each of its two values is the mean over the seeds that both have. If there is
  only one such setting, as in a sweep of a single factor, the pairs are the seeds. Pairs with a difference of zero are
  dropped, as Wilcoxon proposed. p is exact for up to 50 pairs without ties. For up to 13 pairs with ties, p is computed
  from all exchanges of signs, which is exact too. Otherwise p is the normal approximation.
- **Published values.** Weck et al. 2021, section 4, compare an encoder with overlap to the same encoder without
  overlap: W = 84, p < 8.08e-07 (COALA) and W = 112, p < 3.92e-06 (YAMNet). These p equal the normal approximation for
  44 pairs, without a correction for continuity. Other numbers of pairs up to 132 do not give these p. The exact p of
  these W are 6.61e-08 and 7.21e-07, which are 12 and 5 times smaller. The option `normal` gives the published values.
  The paper does not explain what the 44 pairs are, and its grid does not give 44 pairs for this test. One encoder with
  one overlap has 3 adapters x 11 kinds of words = 33 settings. The adapters alone give 3 pairs, the kinds of words 11.
  With ten seeds, these numbers become 330, 30 and 110. (4 encoders x 11 kinds of words = 44, but each test is about a
  single encoder.) In this module, such a test has 33 pairs.
- **Direction.** It is not known in advance which level should be better. So both one-sided tests are computed, and both
  count in the correction. The table shows the test with the smaller p. The level that this test favours is called the
  better one. If both p are equal, the level with the better mean over the pairs is called the better one. (The mean of
  the better level can be worse, if a few large differences outweigh many small ones.)
- **Several tests.** Holm's (1979) correction covers all tests of one factor: two for each pair of levels. If levels are
  tested within the levels of another factor, it covers the tests of all these levels together. The option `against`
  names one level of the factor `by`. The other levels of this factor are then compared with that level only, so the
  correction covers fewer tests.
- **Smallest p.** The smallest p of n pairs is 2 ** -n. It is reached if all pairs differ in the same direction. The
  smallest corrected p is 2 ** -n times the number of tests, but at most 1. If it is 0.05 or more, even a large
  difference cannot be marked. For example, five seeds of two levels give 2 x 0.03125 = 0.0625.
- **Marks** show the corrected p: * below 0.05, ** below 0.01, *** below 0.001.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
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
from evaluation.text import plural, printable, unknown_key

if TYPE_CHECKING:
    import pandas as pd

# Columns that are not factors and not metrics. `run` is before the factors, the others are after them.
AROUND = ("run", "seed", "state", "seconds", "error")
SHOWN = 10  # maximum number of settings in the printed table
EXACT = 50  # maximum number of nonzero differences for an exact test if their absolute values are distinct
EXACT_TIES = 13  # the same maximum if some of their absolute values are equal
MARKED = 0.05  # a difference is marked if its corrected p is below this


@dataclass(frozen=True, eq=False)
class Results:
    """The runs of a sweep that have a value.

    Attributes:
        file: The file that they were read from.
        metric: The metric that is compared.
        factors: The factors' names.
        runs: One row for each run: its name (`run`), its level of each factor, its `seed`, and the metric.
        missing: The number of runs without a value.
        stopped: The number of runs that were stopped early. They are left out even if they have a value.
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


def read(path: Path | str, metric: str | None = None) -> Results:
    """Read the results of a sweep.

    Args:
        path: The CSV file.
        metric: The metric to compare (default: the first metric of the file).

    Raises:
        BadRequest: There is no such file, or no such metric in it.
        Faulty: The file is not valid. The exception lists all findings.
    """
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give the results.csv of a sweep")
    findings: list[Finding] = []
    records, is_complete = tables.read_table(path, str(path), findings)
    if findings and not records:  # the file could not be read at all, so its header is not known
        raise Faulty(findings)
    header = records[0][1] if records else []
    if "seed" not in header or len(set(header)) < len(header):
        message = "must have a header with different names: the factors, then `seed`, then a metric"
        columns = ", ".join(header) or "nothing"
        findings.append(Finding(str(path), 1, message=f"{message}; found {columns}"))
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
            findings.append(Finding(str(path), line, message=f"must have {len(header)} cells; found {len(cells)}"))
    ended = [(line, row) for line, row in rows if row.get("state") != "stopped"]
    scored = [(line, row) for line, row in ended if row[metric].strip()]
    runs = _runs(scored, factors, metric, str(path), findings)
    if not findings and not runs:
        findings.append(Finding(str(path), message=f"must have a run with a value of {metric}; found none"))
    if findings:
        raise Faulty(findings)
    import pandas as pd  # takes half a second, so it is imported only for a valid file

    runs_table = pd.DataFrame(runs, columns=["run", *factors, "seed", metric])
    missing, stopped = len(ended) - len(scored), len(rows) - len(ended)
    return Results(str(path), metric, tuple(factors), runs_table, missing, stopped)


def _factors_and_metrics(header: Sequence[str], file: str) -> tuple[list[str], list[str]]:
    """Return the names of the factors, to the left of the column `seed`, and those of the metrics, to the right."""
    seed = header.index("seed")
    factors = [name for name in header[:seed] if name not in AROUND]
    metrics = [name for name in header[seed:] if name not in AROUND]
    if not factors or not metrics:
        if factors:
            required = "a metric's column after `seed`"
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
    """Return name, levels, seed and value of each run, and add a finding for each invalid row.

    `rows` are pairs of a line number and the cells of this line.
    """
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
            message = f"is the second row of {', '.join(levels)} with seed {seed}; remove one"
            findings.append(Finding(file, line, message=message))
        seen.add((*levels, seed))
        runs.append([row.get("run", ""), *levels, seed, value])
    return runs


# Means ----------------------------------------------------------------------------------------------------------------


def settings(results: Results) -> "pd.DataFrame":
    """Summarise the runs of each setting.

    Returns:
        One row for each setting, best first: the `mean` and `sd` over its runs, the number of `runs`, and the value of
        the `best` run.
    """
    runs = results.runs.groupby(list(results.factors), sort=False)[results.metric]
    summary = runs.agg(mean="mean", sd="std", runs="size", best=_best(results.metric))
    means = summary["mean"].round(12)  # means that differ only by rounding keep the order of the file
    return summary.loc[means.sort_values(ascending=lower_is_better(results.metric), kind="stable").index]


def best_settings(results: Results, factor: str) -> "pd.DataFrame":
    """Return the best setting of each level of a factor, as rows of `settings`."""
    best = settings(results).groupby(level=factor, sort=False).head(1)
    order = [best.index.get_level_values(factor).get_loc(level) for level in results.levels(factor)]
    return best.iloc[order]


def level_means(results: Results, factor: str) -> "pd.DataFrame":
    """Summarise the settings with each level of a factor.

    Returns:
        One row for each level: the `mean` and `sd` of the settings' means, the number of `settings`, and the value of
        the `best` run.
    """
    means = settings(results)["mean"].groupby(level=factor)
    summary = means.agg(mean="mean", sd="std", settings="size")
    summary["best"] = results.runs.groupby(factor)[results.metric].agg(_best(results.metric))
    return summary.loc[results.levels(factor)]


def _best(metric: str) -> str:
    """Return the name of the pandas function that gives the best value."""
    if lower_is_better(metric):
        return "min"
    return "max"


# Tests ----------------------------------------------------------------------------------------------------------------


def wilcoxon(differences: Sequence[float], normal: bool = False) -> tuple[float, float]:
    """Test whether differences tend to be above zero, with the one-sided Wilcoxon signed-rank test.

    Args:
        differences: (n,) differences, one for each pair.
        normal: Use the normal approximation for any number of pairs, as Weck et al. 2021 do.

    Returns:
        W, the sum of the ranks of the differences below zero, and p.

    >>> wilcoxon([0.3, 0.1, 0.4, 0.2, 0.5])
    (0.0, 0.03125)
    """
    from scipy import stats

    # Equal differences of means may differ in their last digits, but must count as ties.
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


def paired_differences(results: Results, factor: str, first: str, second: str) -> tuple["pd.Series", str]:
    """Return the paired differences between two levels of a factor.

    Returns:
        The metric of `first` minus that of `second` in each pair, and the kind of the pairs: `settings` or `seeds`.
    """
    other_factors = [name for name in results.factors if name != factor]
    # One row for each setting of the other factors and each seed, one column for each level.
    by_level = results.runs.pivot(index=[*other_factors, "seed"], columns=factor, values=results.metric)
    by_level = by_level.reindex(columns=[first, second])
    differences = (by_level[first] - by_level[second]).dropna()
    if not other_factors:
        return differences, "seeds"
    by_setting = differences.groupby(level=other_factors)
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
        within: The other factor (default: None, tests over all settings).
        against: The level that all others are compared with (default: None, each pair of levels is compared).
        normal: As in `wilcoxon`.

    Returns:
        One row for each pair of levels, for the one-sided test with the smaller p:

        - `factor`; `within`: the other factor and its level; `better` and `worse`: the two levels
        - `difference`: the mean over the pairs of the better level's value minus the worse level's value
        - `pairs`: the number of pairs; `of`: their kind, settings or seeds
        - `W`: the sum of the ranks of the pairs in which the worse level has the better value
        - `p`: p of the test; `p_holm`: p after Holm's correction over all tests in both directions
        - `p_smallest` and `p_holm_smallest`: the smallest p and corrected p that this number of pairs can give
        - `tests`: the number of tests that the correction covers; `mark`: the stars for `p_holm`
    """
    import pandas as pd

    compared = list(itertools.combinations(results.levels(factor), 2))
    if against is not None:
        compared = [pair for pair in compared if against in pair]
    rows = []
    for name, part in _by_level(results, within):
        for first, second in compared:
            differences, unit = paired_differences(part, factor, first, second)
            if len(differences):
                test = _better_direction(differences, first, second, results.metric, normal)
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


def _by_level(results: Results, within: str | None) -> Iterator[tuple[str, Results]]:
    """Yield the name and the results of each level of the factor `within`.

    If `within` is None, yield all results once, with an empty name.
    """
    if within is None:
        yield "", results
        return
    for level in results.levels(within):
        runs = results.runs[results.runs[within] == level]
        yield f"{within} {level}", replace(results, runs=runs, missing=0)


def _better_direction(
    differences: "pd.Series", first: str, second: str, metric: str, normal: bool
) -> dict[str, float | str]:
    """Test each of two levels for being better than the other, and return the test with the smaller p."""
    sign = -1 if lower_is_better(metric) else 1
    tests = []
    for better, worse, gain in ((first, second, differences), (second, first, -differences)):
        statistic, p = wilcoxon(sign * gain, normal)
        tests.append({"better": better, "worse": worse, "difference": gain.mean(), "W": statistic, "p": p})
    # If both have the same p, the level with the better mean is called the better one.
    shown, opposite = sorted(tests, key=lambda test: (test["p"], -sign * test["difference"]))
    return {**shown, "p_other_direction": opposite["p"]}


def _all_contrasts(results: Results, by: str, against: str | None, normal: bool) -> "pd.DataFrame":
    """Test each pair of levels of every factor. `against` applies only to the factor `by`."""
    import pandas as pd

    tests = []
    for factor in results.factors:
        level = against if factor == by else None
        tests.append(contrasts(results, factor, against=level, normal=normal))
    return pd.concat(tests, ignore_index=True)


# Text and files -------------------------------------------------------------------------------------------------------


def settings_table(rows: "pd.DataFrame", metric: str) -> str:
    """Format rows of `settings` or `level_means` as text."""
    headings = {"mean": f"mean {metric}", "sd": "SD", "best": "best run"}
    formats = dict.fromkeys(headings.values(), _four_decimals)
    return report.text(rows.rename(columns=headings), {**formats, "runs": str, "settings": str})


def _four_decimals(value: float) -> str:
    return report.number(value, 4)


def contrasts_table(tests: "pd.DataFrame") -> str:
    """Format rows of `contrasts` over all settings as text."""
    shown = tests[["factor", "better", "worse", "difference"]].copy()
    shown["pairs"] = tests["pairs"].astype(str) + " " + tests["of"]
    shown["W"] = tests["W"]
    formats: dict[str, Callable[..., str]] = {
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
    """Return a note for each factor with too few pairs to mark a difference. It states the number that is needed."""
    notes = []
    for factor, rows in tests.groupby("factor", sort=False):
        if rows["p_holm_smallest"].min() < MARKED:
            continue
        count = rows["tests"].iloc[0]
        needed = math.floor(math.log2(count / MARKED)) + 1  # the smallest n with count x 2 ** -n below MARKED
        fault = f"{rows['pairs'].max()} pairs are too few to mark a difference among {count} tests"
        notes.append(f"{printable(factor)}: {fault}; {needed} pairs are needed")
    return notes


def summary(results: Results, by: str, *, against: str | None = None, normal: bool = False) -> str:
    """Format all tables as text.

    The tables show the best settings, the best setting of each level of `by`, all levels of all factors, and all tests.

    Args:
        results: The results.
        by: The factor whose levels get a table of their best settings.
        against: The level of `by` that its other levels are compared with (default: each pair is compared).
        normal: As in `wilcoxon`.
    """
    all_settings = settings(results)
    title = "settings"
    if len(all_settings) > SHOWN:
        title = f"settings (the best {SHOWN} of {len(all_settings)})"
    parts = [
        _counts(results, all_settings),
        f"{title}\n{settings_table(all_settings.head(SHOWN), results.metric)}",
    ]
    import pandas as pd

    if len(results.factors) > 1:
        best = settings_table(best_settings(results, by), results.metric)
        parts.append(f"best setting of each {printable(by)}\n{best}")
        by_factor = {factor: level_means(results, factor) for factor in results.factors}
        all_levels = settings_table(pd.concat(by_factor, names=["factor", "level"]), results.metric)
        parts.append(f"levels: mean and SD over the means of the settings with each level\n{all_levels}")
    tests = _all_contrasts(results, by, against, normal)
    if len(tests):
        notes = _notes(results, by, against, normal)
        lines = ["tests between levels", contrasts_table(tests), *notes, *too_few_pairs(tests)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _counts(results: Results, all_settings: "pd.DataFrame") -> str:
    """Return a sentence with the number of runs and the number of settings."""
    fewest, most = all_settings["runs"].min(), all_settings["runs"].max()
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    text = f"{results.file}: {len(results.runs)} runs of {len(all_settings)} settings, {seeds} for each setting"
    if results.missing:
        text += f"; no {results.metric} for {plural(results.missing, 'more run')} (failed or not finished)"
    if results.stopped:
        text += f"; skipped {plural(results.stopped, 'run')} that stopped early"
    return text


def _notes(results: Results, by: str, against: str | None, normal: bool) -> list[str]:
    """Explain the columns of the table of tests."""
    test = "p: one-sided Wilcoxon signed-rank test over pairs that differ only in this factor"
    if normal:
        test += ", normal approximation"
    family = "all pairs of a factor's levels"
    if against is not None:
        family = f"the pairs of {printable(against)} and another {printable(by)}"
        if len(results.factors) > 1:
            family += ", or all pairs of another factor's levels"
    return [
        test,
        "smallest p: the exact p if all pairs differ in the same direction",
        f"Holm: over {family}, in both directions; * p < 0.05, ** p < 0.01, *** p < 0.001",
    ]


def save(results: Results, by: str, folder: Path, *, against: str | None = None, normal: bool = False) -> list[Path]:
    """Write settings.csv and tests.csv. The tests within each level of `by` are also in tests.csv.

    Args:
        results: The results.
        by: As in `summary`.
        folder: The output folder.
        against: As in `summary`.
        normal: As in `wilcoxon`.

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
