"""The leaderboard: the systems of a folder of packages, ranked and compared with their neighbours.

`submission.scoring` checks and scores the packages; this module ranks their systems and writes the results.

Conventions
-----------
- **A package with an error has no system on the board.** If two packages hold systems with the same label, neither is
  ranked until one is removed.
- **Rank**, from 1, by the task's first metric. Systems with equal values share a rank, and the next rank counts all of
  them. If no system has that metric here, the task's next metric ranks, and the board says so first. If only some
  systems lack the metric, they are listed last and have no rank.
- **Intervals** are 95 % intervals by the task's method (default: the jackknife). Each item counts for itself, as in the
  official tables. The JSON also has intervals by clip for items that share clips.
- **Neighbours**: the paired randomisation test of `evaluation.statistics.comparison` between each system and the next
  one down, in the metric that ranks, with the jackknife interval of the difference and Holm's correction over the
  neighbours of the table.
- **Published** results of the organisers' baseline are shown if they were measured on the split that is scored: the
  task's facts have the same name, number of clips and number of queries. They were not computed here and have no rank.
- **The same packages give the same bytes**, in every file.

Files
-----
`leaderboard.txt` for reading; `leaderboard.html`, one page that loads nothing and runs nothing; `leaderboard.json` at
full precision; `findings.txt`, by package; and `leaderboard.csv` in long form, the DataFrame of `Leaderboard.results`:

| table | system | what | against | value … interval | p, p_holm |
|---|---|---|---|---|---|
| teams, systems | the system, with its rank and team | the metric | | the metric, its interval | |
| neighbours of teams, … of systems | the upper one | the metric | the lower one | the difference, its interval | yes |
| published | the baseline | the metric | | the metric | |
| characteristics | the system | the metadata's key | | its value in the metadata | |
"""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation import predictions
from evaluation.data.dataset import Split
from evaluation.data.tables import spreadsheet
from evaluation.files import replacing
from evaluation.findings import ERROR, NOTE, BadRequest, Finding, count, printable, say, table
from evaluation.metrics import retrieval
from evaluation.metrics.catalogue import lower_is_better
from evaluation.ordering import natural
from evaluation.report import number
from evaluation.scores import plain
from evaluation.statistics import comparison
from evaluation.statistics.comparison import Difference
from submission import archive, package, scoring
from submission.scoring import ScoredPackage, ScoredSystem
from submission.tasks import Figures, Task

SEED = 0  # of the randomisation test
ORGANISERS = "organisers (published)"  # shown in place of a team
NOTHING = "–"  # in place of a rank, a value or an interval
FILES = ("leaderboard.json", "leaderboard.txt", "leaderboard.csv", "leaderboard.html", "findings.txt")
COLUMNS = ("table", "rank", "team", "system", "what", "against")
COLUMNS += ("value", "std_error", "low", "high", "n", "interval", "p", "p_holm")
DIFFERENCE_HEADS = ("system", "less the next", "difference", "95 % interval", "p", "p (Holm)", "")


@dataclass(frozen=True)
class Ranking:
    """One ranking.

    Attributes:
        name: `teams` or `systems`.
        title: The heading of its table.
        rows: Rank and system, best first; the rank is None if the system lacks the metric that ranks.
        neighbours: Each system compared with the next one down.
    """

    name: str
    title: str
    rows: tuple[tuple[int | None, ScoredSystem], ...]
    neighbours: tuple[Difference, ...]


@dataclass(frozen=True)
class Row:
    """One row of a ranking as text; `values` and `intervals` are by metric."""

    rank: str
    team: str
    system: str
    values: Mapping[str, str]
    intervals: Mapping[str, str]
    published: bool = False


@dataclass(frozen=True)
class Leaderboard:
    """The ranking of a folder's packages.

    Attributes:
        task: The task.
        ranked: The task's set that is scored.
        split: The split that was answered in its place, mostly of the same name.
        metric: The metric that ranks.
        teams: The best system of each team.
        systems: All systems.
        published: Published results of the task's baselines on that split.
        packages: Every package, with its findings.
        findings: Findings about other files of the folder.
    """

    task: Task
    ranked: str
    split: str
    metric: str
    teams: Ranking
    systems: Ranking
    published: tuple[Figures, ...]
    packages: tuple[ScoredPackage, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> int:
        """The number of errors in all packages and the folder."""
        return count(self.findings) + sum(count(package.findings) for package in self.packages)

    @cached_property
    def entries(self) -> list[ScoredSystem]:
        """All systems, best first."""
        return [system for _, system in self.systems.rows]

    @cached_property
    def metrics(self) -> list[str]:
        """The task's metrics that at least one system has."""
        available = set()
        for system in self.entries:
            available.update(system.score.metrics)
        return [name for name in self.task.metrics.value if name in available]

    @cached_property
    def unavailable(self) -> dict[str, str]:
        """By metric that at least one system lacks, the reason."""
        reasons: dict[str, str] = {}
        for system in reversed(self.entries):  # the reason of the best system wins
            reasons.update(system.score.unavailable)
        return reasons

    @property
    def missing(self) -> list[str]:
        """The task's metrics that no system has, for a known reason."""
        return [name for name in self.task.metrics.value if name in self.unavailable and name not in self.metrics]

    @property
    def shown_metrics(self) -> list[str]:
        """The metrics that have a column in the tables."""
        return [*self.metrics, *self.missing]

    @property
    def headings(self) -> list[str]:
        """The column heads of the characteristics."""
        last_keys = [key.rpartition(".")[2] for key in self.task.characteristics.value]
        return [key.replace("_", " ") for key in last_keys]

    @property
    def signatures(self) -> list[str]:
        """The different signatures of the scores; one if all were scored alike."""
        return list(dict.fromkeys(system.score.signature for system in self.entries))

    @property
    def about(self) -> str:
        """One sentence: how many systems, ranked by which metric, on which set."""
        systems = plural(len(self.systems.rows), "system")
        teams = plural(len(self.teams.rows), "team")
        lower = ", less is better" if lower_is_better(self.metric) else ""
        stands = "" if self.split == self.ranked else f", for which the split {self.split} stands"
        return f"{systems} of {teams}, ranked by {self.metric}{lower}, on the set {self.ranked}{stands}."

    @property
    def alarm(self) -> str:
        """A warning to read first, such as that another metric ranks; empty if all is well."""
        if not self.entries:
            return "No system could be scored; see the findings of the packages."
        asked = self.task.metrics.value[0]
        if self.metric != asked:
            why = self.unavailable.get(asked, "no system has a value")
            return (
                f"THIS IS NOT THE TASK'S RANKING: it ranks by {asked}, which is not available on this machine ({why}). "
                f"Here {self.metric} ranks."
            )
        unranked = [printable(system.label) for rank, system in self.systems.rows if rank is None]
        if unranked:
            return f"Without {asked}, and so without a rank: {', '.join(unranked)}."
        return ""

    @property
    def notes(self) -> list[str]:
        """What a reader must know about the tables: intervals, test, metrics that are not available."""
        lines = []
        if self.entries:
            lines.append(self._about_intervals())
        if self.systems.neighbours:
            lines.append(
                "Neighbours in rank: paired two-sided randomisation test, clips exchanged as a whole "
                f"({comparison.DRAWS} draws, seed {SEED}; all exchanges where they are fewer); Holm's correction over "
                "the neighbours of the table; * p < 0.05, ** p < 0.01, *** p < 0.001; jackknife intervals."
            )
        if self.published:
            lines.append("The organisers' baseline is shown with its published figures for this set.")
        metrics_by_reason: dict[str, list[str]] = {}
        for name, why in self.unavailable.items():
            metrics_by_reason.setdefault(why, []).append(name)
        for why, names in metrics_by_reason.items():
            lines.append(f"Not available: {', '.join(names)}: {why}")
        return [printable(line) for line in lines]

    def _about_intervals(self) -> str:
        items = self.entries[0].score.items
        methods: dict[str, None] = {}
        for system in self.entries:
            methods.update(dict.fromkeys(measured.estimate.interval for measured in system.score.metrics.values()))
        line = f"95 % intervals ({', '.join(methods)}) over {len(items.names)} {items.kind}."
        if items.shared:
            groups = len(set(items.groups))
            line += f" They make {groups} groups that share clips; intervals by clip are in the JSON."
        return line

    # The results as a table

    def results(self) -> pd.DataFrame:
        """Return all results in long form at full precision: a row for each value, as the module's table says.

        Returns:
            A DataFrame with the columns `COLUMNS`; what a row does not have is missing (NA).
        """
        rows: list[dict[str, object]] = []
        for ranking in (self.teams, self.systems):
            for rank, system in ranking.rows:
                about = {"table": ranking.name, "rank": rank, "team": system.team, "system": system.label}
                for name, measured in system.score.metrics.items():
                    rows.append({**about, "what": name, **asdict(measured.estimate)})
            for difference in ranking.neighbours:
                about = {"table": f"neighbours of {ranking.name}", "system": difference.system}
                about |= {"against": difference.against, "p": difference.p, "p_holm": difference.p_holm}
                rows.append({**about, "what": difference.metric, **asdict(difference.difference)})
        for figures in self.published:
            about = {"table": "published", "team": ORGANISERS, "system": figures.system}
            for name, value in figures.metrics.items():
                rows.append({**about, "what": name, "value": value})
        for system in self.entries:
            about = {"table": "characteristics", "team": system.team, "system": system.label}
            for key, value in zip(self.task.characteristics.value, system.characteristics, strict=True):
                rows.append({**about, "what": key, "value": value})
        frame = pd.DataFrame(rows, columns=COLUMNS, dtype=object)  # pandas' own texts cannot hold broken surrogates
        numbers = ["std_error", "low", "high", "p", "p_holm"]
        frame[numbers] = frame[numbers].astype(float)
        frame = frame.replace([np.inf, -np.inf], np.nan)
        return frame.astype({"rank": "Int64", "n": "Int64"})

    def csv(self) -> str:
        """Return `results` as CSV in which no text is a formula to a spreadsheet program."""
        frame = self.results().astype(object)
        rows = frame.where(frame.notna(), "").to_numpy().tolist()
        return spreadsheet([COLUMNS, *rows])

    def rows(self, ranking: Ranking) -> list[Row]:
        """Return the rows of a ranking as text, then those of the published baselines."""
        rows = []
        for rank, system in ranking.rows:
            values = dict.fromkeys(self.metrics, NOTHING) | dict.fromkeys(self.missing, "not available")
            intervals = dict.fromkeys(self.shown_metrics, "")
            for name in self.metrics:
                measured = system.score.metrics.get(name)
                if measured:
                    values[name] = number(measured.estimate.value)
                    intervals[name] = interval_text(measured.estimate.low, measured.estimate.high)
            rows.append(Row(str(rank or NOTHING), system.team, system.label, values, intervals))
        for figures in self.published:
            values = {name: number(figures.metrics.get(name)) for name in self.shown_metrics}
            intervals = dict.fromkeys(self.shown_metrics, "")
            rows.append(Row(NOTHING, ORGANISERS, figures.system, values, intervals, published=True))
        return rows

    def __str__(self) -> str:
        """Return the tables as text."""
        parts = [f"{self.task.name}: {self.task.title}", self.about]
        if self.alarm:
            parts.append(f"\n!!! {self.alarm}\n")
        if self.entries:
            parts += [*self._ranking_text(self.teams), *self._ranking_text(self.systems)]
            rows = [[str(rank or NOTHING), system.label, *system.characteristics] for rank, system in self.systems.rows]
            parts += ["", "Systems, as their metadata describe them"]
            parts.append(_table(rows, ["rank", "system", *self.headings], [0]))
        parts += ["", "Packages", *map(str, self.packages), *map(str, self.findings), ""]
        signatures = [f"signature: {signature}" for signature in self.signatures]
        return "\n".join([*parts, *self.notes, *signatures])

    def _ranking_text(self, ranking: Ranking) -> list[str]:
        rows = []
        for row in self.rows(ranking):
            cells = [f"{row.values[name]} {row.intervals[name]}".strip() for name in self.shown_metrics]
            rows.append([row.rank, row.team, row.system, *cells])
        parts = ["", f"{ranking.title}, by {self.metric}"]
        parts.append(_table(rows, ["rank", "team", "system", *self.shown_metrics], [0]))
        if ranking.neighbours:
            rows = [[each.system, each.against, *difference_cells(each)] for each in ranking.neighbours]
            parts += ["", f"{ranking.title}: neighbours in {self.metric}"]
            parts.append(_table(rows, DIFFERENCE_HEADS, [2, 3, 4, 5]))
        return parts

    def findings_text(self) -> str:
        """Return every finding, by package."""
        parts = ["\n".join([str(package), *map(str, package.findings)]) for package in self.packages]
        return "\n\n".join([*map(str, self.findings), *parts]) + "\n"

    def json(self) -> str:
        """Return everything at full precision as JSON."""
        content = {
            "task": self.task.name,
            "set": self.ranked,
            "split": self.split,
            "ranked_by": self.metric,
            "alarm": self.alarm,
            "metrics": self.metrics,
            "unavailable": self.unavailable,
            "signatures": self.signatures,
            "test": {
                "name": "paired randomisation, two-sided, of neighbours in rank",
                "draws": comparison.DRAWS,
                "seed": SEED,
                "correction": "Holm, over the neighbours of each table",
            },
            "teams": [{"rank": rank, "team": best.team, "system": best.label} for rank, best in self.teams.rows],
            "systems": [self._system_content(rank, system) for rank, system in self.systems.rows],
            "neighbours": {
                "teams": [plain(asdict(difference)) for difference in self.teams.neighbours],
                "systems": [plain(asdict(difference)) for difference in self.systems.neighbours],
            },
            "published": [figures.model_dump() for figures in self.published],
            "packages": [_package_content(package) for package in self.packages],
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _system_content(self, rank: int | None, system: ScoredSystem) -> dict[str, object]:
        return {
            "rank": rank,
            "system": system.label,
            "team": system.team,
            "package": system.package,
            "signature": system.score.signature,
            "metrics": {name: measured.figures() for name, measured in system.score.metrics.items()},
            "characteristics": dict(zip(self.task.characteristics.value, system.characteristics, strict=True)),
        }

    def save(self, folder: Path) -> None:
        """Write `FILES` into a folder, each file whole or not at all."""
        from submission import leaderboard_page  # matplotlib and Jinja2

        texts = (self.json(), f"{self}\n", self.csv(), leaderboard_page.html(self), self.findings_text())
        for name, text in zip(FILES, texts, strict=True):
            with replacing(folder / name) as part:
                # A name may hold half a surrogate pair, which UTF-8 cannot encode.
                part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def _package_content(package: ScoredPackage) -> dict[str, object]:
    return {
        "package": package.name,
        "systems": [system.label for system in package.systems],
        "findings": [asdict(finding) for finding in package.findings],
    }


def _table(rows: Iterable[Sequence[str]], heads: Sequence[str], numbers: Sequence[int]) -> str:
    """Align rows in columns, without blanks at the ends of lines."""
    printable_rows = [[printable(cell) for cell in row] for row in rows]
    lines = table(printable_rows, heads, numbers).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, such as `2 systems`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def interval_text(low: float, high: float) -> str:
    """Return an interval such as `[0.123, 0.456]`; empty if an end is not finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(low)}, {number(high)}]"


def difference_cells(difference: Difference) -> list[str]:
    """Return the cells of a comparison: difference, interval, p, p after Holm's correction, stars."""
    estimate = difference.difference
    interval = f"[{estimate.low:+z.3f}, {estimate.high:+z.3f}]" if math.isfinite(estimate.low) else NOTHING
    return [f"{estimate.value:+z.3f}", interval, _p_text(difference.p), _p_text(difference.p_holm), difference.mark]


def _p_text(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


# Making a leaderboard -------------------------------------------------------------------------------------------------


def run(task: Task, folder: Path, splits: Mapping[str, Split], out: Path, cache: Path = Path(".cache")) -> Leaderboard:
    """Check and score every package in a folder, rank the systems, and write the files.

    A package is a zip or a folder. Hidden files are ignored. Other files are ignored with a note, and so are the files
    that macOS, Windows or an interrupted command leave.

    Args:
        task: The task.
        folder: The folder that holds the packages.
        splits: By the task's sets, the split that each answers. The first set whose split has a truth ranks.
        out: The folder for `FILES`: new, empty, or an earlier leaderboard.
        cache: Folder in which tokenised captions are kept.

    Returns:
        The leaderboard that was written.

    Raises:
        BadRequest: There is no such folder, no package in it, or no truth; or `out` holds something else.
        Faulty: The truth does not hold.
    """
    if not folder.is_dir():
        raise BadRequest(f"{folder}: no such folder; give one that holds packages (zips or folders)")
    _check_out(out)
    ranked = _ranked_set(task, splits)
    if task.kind == "retrieval":
        _check_truth(splits[ranked])
    paths, findings = _packages_in(folder, out)
    packages = scoring.score_packages(task, paths, splits, ranked, cache.absolute())
    board = rank(task, packages, splits[ranked], ranked, findings)
    board.save(out)
    return board


def _ranked_set(task: Task, splits: Mapping[str, Split]) -> str:
    """Return the first of the task's sets whose split has a truth."""
    for name in task.sets:
        if name in splits and _has_truth(task, splits[name]):
            return name
    wanted = "captions of every clip" if task.kind == "captioning" else "captions or relevance"
    given = ", ".join(split.name for split in splits.values()) or "none of them"
    raise BadRequest(f"{task.name} asks for {', '.join(task.sets)}; one must have {wanted}: found {given} without")


def _has_truth(task: Task, split: Split) -> bool:
    if task.kind == "captioning":
        return all(clip.captions for clip in split.clips)
    return bool(split.truth)


def _check_truth(split: Split) -> None:
    """Raise Faulty if the truth does not hold, before packages are blamed for it."""
    scores = np.zeros((len(split.truth), len(split.clips)), dtype=np.float32)
    retrieval.evaluate(split, predictions.Similarity(tuple(split.truth), split.file_names, scores), file="truth")


def _packages_in(folder: Path, out: Path) -> tuple[list[Path], list[Finding]]:
    """Return the packages in a folder, in natural order, and notes about its other files."""
    paths: list[Path] = []
    findings: list[Finding] = []
    for path in sorted(folder.absolute().iterdir(), key=lambda path: natural(path.name)):
        leftover = _leftover(path.name)
        if path.resolve() == out.resolve():
            continue
        if leftover:
            findings.append(Finding(path.name, message=leftover, severity=NOTE))
        elif path.name.startswith("."):
            continue
        elif path.is_dir() or path.suffix.lower() == ".zip":
            paths.append(path)
        else:
            findings.append(Finding(path.name, message="is no package, and passed over", severity=NOTE))
    # The folders of a run would be taken for packages.
    if (folder / "config.yaml").is_file() and not any(path.is_file() for path in paths):
        raise BadRequest(f"{folder}: is a run folder; its packages are in {folder / 'submission'}")
    if not any(map(_may_be_package, paths)):
        raise BadRequest(f"{folder}: holds no package; give a folder of zips, or of unpacked ones")
    return paths, findings


def _may_be_package(path: Path) -> bool:
    """Return whether a path is a zip, or a folder with a file of a kind that packages have."""
    if path.is_file():
        return True
    files = islice(path.rglob("*"), archive.ENTRIES)
    return any(file.name.lower().endswith(package.COUNTS) for file in files)


def _leftover(name: str) -> str | None:
    """Return why a file or folder is ignored; None if it may be the user's."""
    kind = archive.junk_kind(name)
    if kind:
        return f"is ignored: {archive.JUNK[kind]} adds it"
    if name.startswith(".") and name.endswith(".part"):
        return "is ignored: an interrupted command left it; delete it"
    return None


def _check_out(out: Path) -> None:
    """Make sure that only an earlier leaderboard is overwritten, and print notes about ignored files."""
    if out.exists() and not out.is_dir():
        raise BadRequest(f"{out}: must be a folder or not there; give another name")
    if not out.is_dir():
        return
    names = {path.name for path in out.iterdir()}
    notes = []
    for name in sorted(names, key=natural):
        leftover = _leftover(name)
        if leftover:
            notes.append(Finding(str(out / name), message=leftover, severity=NOTE))
            names.remove(name)
    if FILES[0] in names:  # an interrupted command has written this file first
        names.difference_update(FILES)
    if names:
        raise BadRequest(f"{out}: holds {min(names)!r}, and is no leaderboard of before; give another folder")
    say(notes)


def rank(
    task: Task, packages: Iterable[ScoredPackage], split: Split, ranked: str, findings: Iterable[Finding] = ()
) -> Leaderboard:
    """Rank the systems of packages.

    Args:
        task: The task.
        packages: The packages, as `scoring.score_package` returns them.
        split: The split that was answered, with its truth.
        ranked: The task's set that the split stands for.
        findings: Findings about other files of the folder.

    Returns:
        The leaderboard, with the best system of each team and with all systems.
    """
    packages = _without_shared_labels(list(packages))
    entries: list[ScoredSystem] = []
    for each in packages:
        entries += each.systems
    metric = _ranking_metric(task, entries)
    rows = _ranked(entries, metric)
    best_by_team: dict[str, ScoredSystem] = {}
    for _, system in rows:
        best_by_team.setdefault(system.team, system)
    best = _ranked(best_by_team.values(), metric)
    return Leaderboard(
        task,
        ranked,
        split.name,
        metric,
        Ranking("teams", "Best system of each team", best, _neighbours(best, metric)),
        Ranking("systems", "All systems", rows, _neighbours(rows, metric)),
        tuple(fact.value for fact in task.baselines if fact.value.measured_on(split)),
        tuple(packages),
        tuple(findings),
    )


def _ranking_metric(task: Task, entries: Sequence[ScoredSystem]) -> str:
    """Return the task's first metric that a system has a value of."""
    for name in task.metrics.value:
        if any(math.isfinite(system.value(name)) for system in entries):
            return name
    return task.metrics.value[0]


def _without_shared_labels(packages: Sequence[ScoredPackage]) -> list[ScoredPackage]:
    """Remove systems whose label another package has too, with a finding in each of these packages."""
    holders: dict[str, list[str]] = {}
    for each in packages:
        for system in each.systems:
            holders.setdefault(system.label, []).append(each.name)
    unambiguous = []
    for each in packages:
        kept = []
        findings = list(each.findings)
        for system in each.systems:
            others = [name for name in holders[system.label] if name != each.name]
            if len(holders[system.label]) == 1:
                kept.append(system)
            else:
                message = f"stands in {', '.join(others)} too, and is ranked in none of them; keep one"
                findings.append(Finding(f"{each.name}/{system.label}", message=message, severity=ERROR))
        unambiguous.append(replace(each, systems=tuple(kept), findings=tuple(sorted(findings))))
    return unambiguous


def _ranked(systems: Iterable[ScoredSystem], metric: str) -> tuple[tuple[int | None, ScoredSystem], ...]:
    """Sort systems, best first, with their ranks; equal values share a rank."""
    in_order = sorted(systems, key=lambda system: natural(system.label))
    values = pd.Series([system.value(metric) for system in in_order], dtype=float)
    values = values.round(12)  # adding up in another order is no difference
    values = values.where(np.isfinite(values))
    ranks = values.rank(method="min", ascending=lower_is_better(metric)).sort_values(kind="stable", na_position="last")
    rows = []
    for index, rank in ranks.items():
        rows.append((None if math.isnan(rank) else int(rank), in_order[index]))
    return tuple(rows)


def _neighbours(rows: Sequence[tuple[int | None, ScoredSystem]], metric: str) -> tuple[Difference, ...]:
    """Compare each ranked system with the next one."""
    scores = {}
    for rank, system in rows:
        if rank and system.score.metrics[metric].values is not None:
            scores[system.label] = system.score
    pairs = list(itertools.pairwise(scores))
    if not pairs:
        return ()
    comparison.check_comparable(scores)
    return comparison.compare_pairs(scores, [metric], pairs, SEED)
