"""The ranking of scored systems, and the leaderboard as text, CSV and JSON."""

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from evaluation import report
from evaluation.findings import ERROR, WARNING, Finding, count
from evaluation.metrics.catalogue import heading, lower_is_better
from evaluation.natural_sort import natural_key
from evaluation.report import NOTHING
from evaluation.scores import Measured, plain
from evaluation.statistics import comparison
from evaluation.statistics.comparison import Difference
from evaluation.statistics.intervals import Estimate
from evaluation.text import plural, printable
from submission import analysis
from submission.analysis import Use
from submission.families import FAMILIES, Aspect, read_families
from submission.kinds import KINDS
from submission.outputs.form import Asked
from submission.scoring import REPORTS, ScoredPackage, ScoredSystem
from submission.tasks import PublishedResults, Task, Tracks

SEED = 0  # seed of the randomisation test
ORGANISERS = "organisers (published)"  # shown in the place of a team
COLUMNS: tuple[str, ...] = ("table", "track", "rank", "team", "system", "what", "against")
COLUMNS += ("value", "std_error", "low", "high", "n", "interval", "low_by_clip", "high_by_clip", "p", "p_holm")
DIFFERENCE_HEADS = ("system", "next system", "difference", "95 % interval", "p", "p (Holm)", "")


@dataclass(frozen=True)
class Ranking:
    """One ranking, of teams or of systems.

    Attributes:
        name: `teams` or `systems`.
        title: Heading of its table.
        rows: Rank and system, best first. The rank is None if the system does not have the metric that ranks.
        neighbours: Comparison of each ranked system with the next one.
        track: Name of the track whose systems are ranked; empty if the systems of all tracks are ranked.
    """

    name: str
    title: str
    rows: tuple[tuple[int | None, ScoredSystem], ...]
    neighbours: tuple[Difference, ...]
    track: str = ""

    @property
    def slug(self) -> str:
        """The name and the track, in a form that identifies the ranking in the page."""
        return re.sub(r"\W+", "-", f"{self.name} {self.track}".strip())


@dataclass(frozen=True)
class Row:
    """One row of a ranking as text. The keys of `values` and `intervals` are metrics.

    `remark` says what is special about the row, for example that its results were published by the organisers.
    `is_submission` is false for these results and for the organisers' baseline.
    """

    rank: str
    team: str
    system: str
    values: Mapping[str, str]
    intervals: Mapping[str, str]
    remark: str = ""
    is_submission: bool = True


@dataclass(frozen=True)
class Leaderboard:
    """The ranking of the packages in a folder.

    Attributes:
        task: The task.
        ranked: The task's set that is scored.
        split: Name of the split that the outputs are for. It differs from `ranked` in a rehearsal.
        metric: The metric that ranks.
        teams: Ranking of the best system of each team.
        systems: Ranking of all systems.
        tracks: For each track that has systems, the ranking of the best system of each team, and that of all systems.
        published: Published results of the task's baselines on `split`.
        packages: Every package, with its findings.
        aspects: The aspects that the analysis counts, from the table of families.
        date: The date that the page shows; empty to show none.
        findings: Findings about files in the folder that are not packages.
    """

    task: Task
    ranked: str
    split: str
    metric: str
    teams: Ranking
    systems: Ranking
    tracks: tuple[Ranking, ...]
    published: tuple[PublishedResults, ...]
    packages: tuple[ScoredPackage, ...]
    aspects: Mapping[str, Aspect]
    date: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> int:
        """The number of errors in all packages and the folder."""
        return count(self.findings) + sum(count(package.findings) for package in self.packages)

    @cached_property
    def entries(self) -> list[ScoredSystem]:
        """All systems, best first. Systems that have no rank are last."""
        return [system for _, system in self.systems.rows]

    @property
    def rankings(self) -> list[Ranking]:
        """The rankings that are shown: those of all tracks if the task has such a ranking, and those of each track."""
        facts = self.task.tracks
        if facts and not facts.overall.value:
            return list(self.tracks)
        return [self.teams, self.systems, *self.tracks]

    @cached_property
    def metrics(self) -> list[str]:
        """The task's metrics that at least one system has."""
        available: set[str] = set()
        for system in self.entries:
            available.update(system.score.metrics)
        return [name for name in self.task.metrics.value if name in available]

    @cached_property
    def unavailable(self) -> dict[str, str]:
        """A dict from each metric that at least one system does not have to the reason."""
        reasons: dict[str, str] = {}
        for system in reversed(self.entries):  # the reason of the best system replaces the others
            reasons.update(system.score.unavailable)
        return reasons

    @property
    def missing(self) -> list[str]:
        """The task's metrics that no system has and whose reason is known."""
        return [name for name in self.task.metrics.value if name in self.unavailable and name not in self.metrics]

    @property
    def shown_metrics(self) -> list[str]:
        """The metrics that have a column in the tables."""
        return [*self.metrics, *self.missing]

    @property
    def refused(self) -> int:
        """The number of packages that have no ranked system because they have an error."""
        return sum(not package.systems for package in self.submitted_packages)

    @property
    def submitted_packages(self) -> list[ScoredPackage]:
        """All packages except that of the organisers' baseline."""
        submitted = []
        for package in self.packages:
            if not any(system.is_baseline for system in package.systems):
                submitted.append(package)
        return submitted

    @property
    def is_task_ranking(self) -> bool:
        """True if the metric that ranks is the task's first metric."""
        return self.metric == self.task.metrics.value[0]

    @cached_property
    def chance(self) -> dict[str, float]:
        """A dict from each metric with a known chance level to the expected value of a random ranking."""
        levels = {}
        for system in self.entries:
            for name, measured in system.score.metrics.items():
                if measured.chance is not None:
                    levels[name] = measured.chance
        return levels

    @cached_property
    def lacking_reports(self) -> set[str]:
        """Names of the packages whose technical report is missing or has an error."""
        return {package.name for package in self.packages if package.lacks_report}

    @cached_property
    def reports(self) -> dict[str, str]:
        """A dict from the name of each package with a report to the name of the report's file in `REPORTS`."""
        names: dict[str, str] = {}
        for package in self.packages:
            if not package.report or not package.systems:
                continue
            name = f"{package.name.removesuffix('.zip')}.pdf"
            if name in names.values():  # a zip and a folder may have the same name
                name = f"{package.name}.pdf"
            names[package.name] = name
        return names

    @cached_property
    def uses(self) -> list[Use]:
        """The analysis: how many systems and teams use each method. First the table of families, then other keys."""
        keys: dict[str, None] = {}
        for system in self.entries:
            for path in system.metadata:
                if path.startswith("system."):
                    keys[re.sub(r"\.\d+(\..*)?$", "", path)] = None
        return analysis.analyse(self.systems.rows, self.aspects, keys)

    @property
    def signatures(self) -> list[str]:
        """The different signatures of the scores. If all systems were scored in the same way, there is only one."""
        return list(dict.fromkeys(system.score.signature for system in self.entries))

    @property
    def about(self) -> str:
        """Sentences with the number of systems, the metric that ranks, the set, and the number of refused packages."""
        submitted = [system for system in self.entries if not system.is_baseline]
        systems = plural(len(submitted), "system")
        teams = plural(len({system.team for system in submitted}), "team")
        sentence = f"{systems} of {teams}, ranked by {heading(self.metric)}"
        if lower_is_better(self.metric):
            sentence += " (lower is better)"
        sentence += f" on the set {self.ranked}."
        if self.split != self.ranked:
            sentence += f" This is a rehearsal: the split {self.split} replaces this set."
        if self.refused:
            sentence += (
                f" {plural(self.refused, 'package')} of {len(self.submitted_packages)} refused because of errors."
            )
        return sentence

    @property
    def alarm(self) -> str:
        """A warning that readers must see first, for example that another metric ranks. It may be empty."""
        if not self.entries:
            return "No system could be scored; see the findings of the packages."
        first = self.task.metrics.value[0]
        if self.metric != first:
            reason = _without_advice(self.unavailable.get(first, "no system has a value"))
            return (
                f"THIS IS NOT THE TASK'S RANKING: the task ranks by {heading(first)}, which is not available on this "
                f"machine ({reason}). This table is ranked by {heading(self.metric)}."
            )
        unranked = [printable(system.label) for rank, system in self.systems.rows if rank is None]
        if unranked:
            return f"These systems have no {heading(first)}, and therefore no rank: {', '.join(unranked)}."
        return ""

    @property
    def notes(self) -> list[str]:
        """Notes that explain the tables: intervals, the test, and metrics that are not available."""
        lines = []
        if self.entries:
            lines.append(self._about_intervals())
        if self.systems.neighbours:
            unit = KINDS[self.task.kind].unit
            lines.append(
                "Neighbours in rank are compared by a paired two-sided randomisation test. It exchanges all values of "
                f"a {unit} together ({comparison.DRAWS} draws, seed {SEED}; all exchanges if there are fewer). The p "
                "values have Holm's correction over the neighbours of the table: * p < 0.05, ** p < 0.01, *** p < "
                "0.001. The intervals of the differences are jackknife intervals."
            )
        if self.task.tracks:
            lines += self._about_tracks(self.task.tracks)
        if self.published:
            lines.append("The organisers' baseline is shown with its published results for this set.")
        if self.chance:
            levels = [f"{heading(name)} {report.number(level)}" for name, level in self.chance.items()]
            lines.append(f"Expected values of a random ranking (chance level): {', '.join(levels)}.")
        metrics_by_reason: dict[str, list[str]] = {}
        for name, reason in self.unavailable.items():
            metrics_by_reason.setdefault(reason, []).append(name)
        for reason, names in metrics_by_reason.items():
            lines.append(f"Not available: {', '.join(map(heading, names))}: {_without_advice(reason)}")
        return [printable(line) for line in lines]

    def _about_tracks(self, facts: Tracks) -> list[str]:
        """Return the notes about the tracks, and how certain these rules are."""
        names = " and ".join(track.name for track in facts.limits.value)
        lines = [
            f"The tracks ({names}) are ranked apart; {facts.key.value} decides the track of a system "
            f"({facts.limits.certainty}: {facts.limits.source})."
        ]
        if facts.overall.value:
            lines.append(
                "The rankings without the name of a track contain the systems of all tracks "
                f"({facts.overall.certainty}: {facts.overall.source})."
            )
        return lines

    def _about_intervals(self) -> str:
        """Return the note about the intervals: the methods, and what they leave out."""
        items = self.entries[0].score.items
        methods: dict[str, None] = {}
        for system in self.entries:
            methods.update(dict.fromkeys(measured.estimate.interval for measured in system.score.metrics.values()))
        line = f"The 95 % intervals ({', '.join(methods)}) are computed over {len(items.names)} {items.kind}"
        if not items.shared:
            return f"{line}."
        groups = len(set(items.groups))
        unit = KINDS[self.task.kind].unit
        return (
            f"{line}. They leave out {items.kind} that share a {unit} together, because these are not independent. "
            f"There are {groups} groups of {items.kind} that are connected by shared {unit}s."
        )

    # The results as a table

    def results(self) -> pd.DataFrame:
        """Return all results in long form at full precision, with one row for each value.

        Returns:
            A DataFrame with the columns `COLUMNS`, which `submission.leaderboard` explains. Cells that do not apply to
            a row are missing (NA).
        """
        rows: list[dict[str, object]] = []
        about: dict[str, object]
        for ranking in self.rankings:
            for rank, system in ranking.rows:
                about = {
                    "table": ranking.name,
                    "track": ranking.track or None,
                    "rank": rank,
                    "team": system.team,
                    "system": system.label,
                }
                for name, measured in system.score.metrics.items():
                    row = {**about, "what": name, **asdict(measured.estimate)}
                    if measured.by_clip:
                        row["low_by_clip"], row["high_by_clip"] = measured.by_clip.low, measured.by_clip.high
                    rows.append(row)
            for difference in ranking.neighbours:
                about = {
                    "table": f"neighbours of {ranking.name}",
                    "track": ranking.track or None,
                    "system": difference.system,
                }
                about |= {"against": difference.against, "p": difference.p, "p_holm": difference.p_holm}
                rows.append({**about, "what": difference.metric, **asdict(difference.difference)})
        for baseline in self.published:
            about = {"table": "published", "team": ORGANISERS, "system": baseline.system}
            for name, value in baseline.metrics.items():
                rows.append({**about, "what": name, "value": value})
        for system in self.entries:
            about = {"table": "characteristics", "team": system.team, "system": system.label}
            track = find_track(self.task, system)
            if track:
                about["track"] = track
            for key, text in system.metadata.items():
                rows.append({**about, "what": key, "value": text})
        frame = pd.DataFrame(rows, columns=COLUMNS, dtype=object)  # pandas' text type refuses half a surrogate pair
        numbers = ["std_error", "low", "high", "low_by_clip", "high_by_clip", "p", "p_holm"]
        frame[numbers] = frame[numbers].astype(float)
        frame = frame.replace([np.inf, -np.inf], np.nan)
        return frame.astype({"rank": "Int64", "n": "Int64"})

    def csv(self) -> str:
        """Return `results` as CSV. Spreadsheet programs do not treat any text in it as a formula."""
        results = self.results().astype(object)
        return report.csv(results.where(results.notna(), None))

    def rows(self, ranking: Ranking) -> list[Row]:
        """Return the rows of a ranking as text, followed by the rows of the published baselines."""
        rows = []
        for rank, system in ranking.rows:
            values = dict.fromkeys(self.metrics, NOTHING) | dict.fromkeys(self.missing, "not available")
            intervals = dict.fromkeys(self.shown_metrics, "")
            for name in self.metrics:
                measured = system.score.metrics.get(name)
                if measured:
                    shown = shown_estimate(measured)
                    values[name] = report.number(shown.value)
                    intervals[name] = interval_text(shown.low, shown.high)
            remark = self._remark(system)
            if not ranking.track:
                remark = ", ".join(part for part in (find_track(self.task, system), remark) if part)
            place = str(rank or NOTHING)
            rows.append(Row(place, system.team, system.label, values, intervals, remark, not system.is_baseline))
        for baseline in [] if ranking.track else self.published:  # the track of a published baseline is not known
            values = {name: report.number(baseline.metrics.get(name)) for name in self.shown_metrics}
            intervals = dict.fromkeys(self.shown_metrics, "")
            remark = "published results, not ranked"
            rows.append(Row(NOTHING, ORGANISERS, baseline.system, values, intervals, remark, is_submission=False))
        return rows

    def _remark(self, system: ScoredSystem) -> str:
        """Return what is special about a system, or an empty text."""
        remarks = []
        if system.is_baseline:
            remarks.append("organisers' baseline")
        if self.task.tracks and not find_track(self.task, system):
            remarks.append("in no track")
        if system.package in self.lacking_reports:
            remarks.append("without a valid technical report")
        return ", ".join(remarks)

    def __str__(self) -> str:
        """Return the tables as text."""
        parts = [f"{self.task.name}: {self.task.title}", self.about]
        if self.alarm:
            parts.append(f"\n!!! {self.alarm}\n")
        if self.entries:
            for ranking in self.rankings:
                parts += self._ranking_text(ranking)
            parts += ["", "Methods of the systems, from their metadata"]
            parts.append(_table(self.methods(self.aspects), ["rank", "system", *self.aspects], ["rank"]))
            parts += ["", "Number of systems and teams that use each method", self._analysis_text()]
        parts.append("")
        signatures = [f"signature: {signature}" for signature in self.signatures]
        return "\n".join([*parts, *self.notes, *signatures])

    def methods(self, aspects: Iterable[str]) -> list[list[str]]:
        """Return the rank and the label of each system, and the families of its methods in some aspects."""
        rows = []
        for rank, system in self.systems.rows:
            row = [str(rank or NOTHING), system.label]
            for name in aspects:
                row.append(", ".join(analysis.families_of(system, self.aspects[name])))
            rows.append(row)
        return rows

    @property
    def family_uses(self) -> list[Use]:
        """The part of the analysis that is about the aspects of the table of families."""
        return [use for use in self.uses if use.aspect in self.aspects]

    def _analysis_text(self) -> str:
        """Return the table of the analysis. Each level below a group begins with a dash."""
        rows = []
        aspect = ""
        for use in self.family_uses:
            shown_aspect = ""
            if use.aspect != aspect:
                aspect = shown_aspect = use.aspect
            method = "- " * (len(use.place) - 1) + use.place[-1]
            baseline = ""
            if use.baseline:
                baseline = "yes"
            rows.append([shown_aspect, method, str(len(use.systems)), str(len(use.teams)), baseline, use.ranks_text])
        heads = ["aspect", "method", "systems", "teams", "baseline", "ranks"]
        return _table(rows, heads, ["systems", "teams"])

    def _ranking_text(self, ranking: Ranking) -> list[str]:
        """Return two tables as text: the ranking, and the comparisons of its neighbours."""
        rows = []
        for row in self.rows(ranking):
            cells = [f"{row.values[name]} {row.intervals[name]}".strip() for name in self.shown_metrics]
            rows.append([row.rank, row.team, row.system, *cells, row.remark])
        parts = ["", f"{ranking.title}, by {heading(self.metric)}"]
        heads = ["rank", "team", "system", *map(heading, self.shown_metrics), ""]
        parts.append(_table(rows, heads, ["rank"]))
        if ranking.neighbours:
            rows = [[each.system, each.against, *difference_cells(each)] for each in ranking.neighbours]
            parts += ["", f"{ranking.title}: neighbours in {heading(self.metric)}"]
            parts.append(_table(rows, DIFFERENCE_HEADS, DIFFERENCE_HEADS[2:6]))
        return parts

    def findings_text(self) -> str:
        """Return every finding, grouped by package."""
        parts = ["\n".join([str(package), *map(str, package.findings)]) for package in self.packages]
        return "\n\n".join([*map(str, self.findings), *parts]) + "\n"

    def analysis_csv(self) -> str:
        """Return the analysis as CSV, one row for each method."""
        uses = analysis.table(self.uses)
        return report.csv(uses.astype(object).where(uses.notna(), None))

    def findings_json(self) -> str:
        """Return every finding as JSON."""
        content = {
            "task": self.task.name,
            "packages": [_package_content(package) for package in self.packages],
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def json(self) -> str:
        """Return all results at full precision as JSON."""
        content = {
            "task": self.task.name,
            "set": self.ranked,
            "split": self.split,
            "ranked_by": self.metric,
            "alarm": self.alarm,
            "date": self.date,
            "packages": {"ranked": len(self.submitted_packages) - self.refused, "refused": self.refused},
            "metrics": self.metrics,
            "unavailable": {name: _without_advice(reason) for name, reason in self.unavailable.items()},
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
            "tracks": [_track_content(ranking) for ranking in self.tracks],
            "published": [baseline.model_dump() for baseline in self.published],
            "analysis": [asdict(use) for use in self.uses],
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _system_content(self, rank: int | None, system: ScoredSystem) -> dict[str, object]:
        return {
            "rank": rank,
            "system": system.label,
            "team": system.team,
            "track": find_track(self.task, system),
            "package": system.package,
            "baseline": system.is_baseline,
            "remark": self._remark(system),
            "report": self.report_link(system),
            "signature": system.score.signature,
            "metrics": {name: measured.figures() for name, measured in system.score.metrics.items()},
            "metadata": dict(system.metadata),
        }

    def report_link(self, system: ScoredSystem) -> str:
        """Return the path of a system's report in the folder of the leaderboard, or an empty text."""
        if system.package in self.reports:
            return f"{REPORTS}/{self.reports[system.package]}"
        return ""


def find_track(task: Task, system: ScoredSystem) -> str:
    """Return the name of a system's track, or an empty text if it is in no track or the task has none."""
    if not task.tracks:
        return ""
    return task.tracks.track_with(system.text(task.tracks.key.value))


def _track_content(ranking: Ranking) -> dict[str, object]:
    return {
        "track": ranking.track,
        "ranking": ranking.name,
        "rows": [{"rank": rank, "team": system.team, "system": system.label} for rank, system in ranking.rows],
        "neighbours": [plain(asdict(difference)) for difference in ranking.neighbours],
    }


def _without_advice(reason: str) -> str:
    """Return the reason why a metric is not available without the command that follows it.

    The command can contain a path of the organisers' machine.
    """
    return reason.partition("; ")[0]


def shown_estimate(measured: Measured) -> Estimate:
    """Return the estimate that is shown: the one with the interval by clip if items share clips."""
    return measured.by_clip or measured.estimate


def _package_content(package: ScoredPackage) -> dict[str, object]:
    return {
        "package": package.name,
        "systems": [system.label for system in package.systems],
        "findings": [asdict(finding) for finding in package.findings],
    }


def _table(rows: Iterable[Sequence[str]], heads: Sequence[str], numbers: Sequence[str]) -> str:
    """Format rows of text as a table, with columns of numbers aligned to the right."""
    frame = pd.DataFrame(rows, columns=heads, dtype=object)
    return report.text(frame, dict.fromkeys(numbers, str))


def interval_text(low: float, high: float) -> str:
    """Return an interval such as `[0.123, 0.456]`, or an empty text if an end is not finite."""
    text = report.interval(low, high, report.BRACKETS)
    if text == NOTHING:
        return ""
    return text


def difference_cells(difference: Difference) -> list[str]:
    """Return the cells of a comparison: difference, interval, p, p after Holm's correction, significance stars."""
    estimate = difference.difference
    return [
        report.number(estimate.value, 3, signed=True),
        report.interval(estimate.low, estimate.high, report.BRACKETS, 3, signed=True),
        report.p_value(difference.p),
        report.p_value(difference.p_holm),
        difference.mark,
    ]


def rank(
    task: Task,
    packages: Iterable[ScoredPackage],
    split: Asked,
    ranked: str,
    aspects: Mapping[str, Aspect] | None = None,
    date: str = "",
    findings: Iterable[Finding] = (),
) -> Leaderboard:
    """Rank the systems that the packages contain.

    Systems whose label is in several packages are not ranked, and each of these packages gets a finding.

    Args:
        task: The task.
        packages: The scored packages, which `scoring.score_packages` returns.
        split: The split that the outputs are for, with its ground truth.
        ranked: The task's set that is scored.
        aspects: The aspects that the analysis counts (default: the kit's table of families).
        date: The date that the page shows (default: none).
        findings: Findings about files in the folder that are not packages.

    Returns:
        The leaderboard. It has a ranking of the best system of each team and a ranking of all systems. If the task has
        tracks, it also has these rankings for each track.

    Raises:
        Faulty: The scores of two systems are not comparable.
    """
    if aspects is None:
        aspects = read_families(FAMILIES)
    packages = _with_team_warnings(_without_shared_labels(list(packages)))
    packages = _with_track_warnings(packages, task)
    entries: list[ScoredSystem] = []
    for each in packages:
        entries += each.systems
    metric = _ranking_metric(task, entries)
    teams, systems = _rankings(entries, metric)
    return Leaderboard(
        task,
        ranked,
        split.name,
        metric,
        teams,
        systems,
        _track_rankings(task, entries, metric),
        tuple(fact.value for fact in task.baselines if task.measured_on(fact.value, split)),
        tuple(packages),
        {name: aspect for name, aspect in aspects.items() if aspect.is_of(task)},
        date,
        tuple(findings),
    )


def _rankings(entries: Iterable[ScoredSystem], metric: str, track: str = "") -> tuple[Ranking, Ranking]:
    """Return the ranking of the best system of each team, and that of all systems.

    Args:
        entries: The systems.
        metric: The metric that ranks.
        track: Name of the track that the systems are in (default: the systems of all tracks).
    """
    rows = _ranked(entries, metric)
    best_by_team: dict[str, ScoredSystem] = {}
    for _, system in rows:
        best_by_team.setdefault(system.team, system)
    best = _ranked(best_by_team.values(), metric)
    of_track = f", {track}" if track else ""
    return (
        Ranking("teams", f"Best system of each team{of_track}", best, _neighbours(best, metric), track),
        Ranking("systems", f"All systems{of_track}", rows, _neighbours(rows, metric), track),
    )


def _track_rankings(task: Task, entries: Sequence[ScoredSystem], metric: str) -> tuple[Ranking, ...]:
    """Return the rankings of each track that has systems, in the order of the task's facts."""
    if not task.tracks:
        return ()
    rankings: list[Ranking] = []
    for track in task.tracks.limits.value:
        members = [system for system in entries if find_track(task, system) == track.name]
        if members:
            rankings += _rankings(members, metric, track.name)
    return tuple(rankings)


def _ranking_metric(task: Task, entries: Sequence[ScoredSystem]) -> str:
    """Return the task's first metric that at least one system has, or its first metric if no system has any."""
    for name in task.metrics.value:
        if any(math.isfinite(system.value(name)) for system in entries):
            return name
    return task.metrics.value[0]


def _without_shared_labels(packages: Sequence[ScoredPackage]) -> list[ScoredPackage]:
    """Return the packages without the systems whose label is in several packages.

    An error about each of these systems is added to each of these packages.
    """
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
            if not others or system.is_baseline:
                kept.append(system)
            else:
                message = f"must be in one package only; found it in {', '.join(others)}, too, so it is not ranked: "
                message += "remove the older package, or give one of them another author or institute"
                findings.append(Finding(f"{each.name}/{system.label}", message=message, severity=ERROR))
        unambiguous.append(replace(each, systems=tuple(kept), findings=tuple(sorted(findings))))
    return unambiguous


def _with_team_warnings(packages: Sequence[ScoredPackage]) -> list[ScoredPackage]:
    """Return the packages with a warning for each team that has systems in several packages."""
    holders: dict[str, dict[str, None]] = {}
    for each in packages:
        for system in each.systems:
            holders.setdefault(system.team, {})[each.name] = None
    checked = []
    for each in packages:
        findings = list(each.findings)
        for team in dict.fromkeys(system.team for system in each.systems):
            others = [name for name in holders[team] if name != each.name]
            if others:
                message = f"has systems of the team {team}; so has {', '.join(others)}: check that both are from this "
                message += "team, and that it does not have too many systems"
                findings.append(Finding(each.name, message=message, severity=WARNING))
        checked.append(replace(each, findings=tuple(sorted(findings))))
    return checked


def _with_track_warnings(packages: Sequence[ScoredPackage], task: Task) -> list[ScoredPackage]:
    """Return the packages with a warning for each system that is in no track, if the task has tracks."""
    if not task.tracks:
        return list(packages)
    key = task.tracks.key.value
    checked = []
    for each in packages:
        findings = list(each.findings)
        for system in each.systems:
            if not find_track(task, system):
                message = f"{task.tracks.no_track(system.text(key))}; ask the team for the right number"
                findings.append(Finding(f"{each.name}/{system.label}", column=key, message=message, severity=WARNING))
        checked.append(replace(each, findings=tuple(sorted(findings))))
    return checked


def _ranked(systems: Iterable[ScoredSystem], metric: str) -> tuple[tuple[int | None, ScoredSystem], ...]:
    """Return the systems with their ranks, best first. Equal values share a rank."""
    in_order = sorted(systems, key=lambda system: natural_key(system.label))
    values = pd.Series([system.value(metric) for system in in_order], dtype=float)
    values = values.round(12)  # rounding errors must not decide a rank; they depend on the order of a sum
    values = values.where(np.isfinite(values))
    ranks = values.rank(method="min", ascending=lower_is_better(metric)).sort_values(kind="stable", na_position="last")
    rows: list[tuple[int | None, ScoredSystem]] = []
    for index, rank in ranks.items():
        if math.isnan(rank):
            rows.append((None, in_order[index]))
        else:
            rows.append((int(rank), in_order[index]))
    return tuple(rows)


def _neighbours(rows: Sequence[tuple[int | None, ScoredSystem]], metric: str) -> tuple[Difference, ...]:
    """Compare each ranked system with the next one, if the metric that ranks has a value for each item."""
    scores = {}
    for rank, system in rows:
        if rank and system.score.metrics[metric].values is not None:
            scores[system.label] = system.score
    pairs = list(itertools.pairwise(scores))
    if not pairs:
        return ()
    comparison.check_comparable(scores)
    return comparison.compare_pairs(scores, [metric], pairs, SEED)
