"""What became of many packages: every system's score, the rankings, and their tables as text, CSV and JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from evaluation.data.tables import spreadsheet
from evaluation.findings import ERROR, NOTE, WARNING, Finding, count, printable, table
from evaluation.metrics.catalogue import lower_is_better
from evaluation.scores import Score, number, plain
from evaluation.statistics import comparison
from evaluation.statistics.comparison import Difference
from evaluation.statistics.intervals import Estimate
from submission.tasks import Figures, Task

SEED = 0  # of the test's draws
ORGANISERS = "organisers (published)"  # in the place of a team


@dataclass(frozen=True)
class Entry:
    """A system that was scored.

    Attributes:
        label: Its label.
        team: Author and institute of the label.
        package: The name of the package that it came in.
        characteristics: What its metadata say, in the order of the task's.
        score: Its score.
    """

    label: str
    team: str
    package: str
    characteristics: tuple[str, ...]
    score: Score

    def value(self, metric: str) -> float:
        """A metric; NaN where the system has none."""
        measured = self.score.metrics.get(metric)
        return measured.estimate.value if measured else math.nan


@dataclass(frozen=True)
class Package:
    """What became of a package: its systems that were scored, and every finding."""

    name: str
    systems: tuple[Entry, ...]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """One line for people."""
        counts = {severity: count(self.findings, severity) for severity in (ERROR, WARNING, NOTE)}
        said = [f"{counts[kind]} {kind}{'s' * (counts[kind] > 1)}" for kind in (ERROR, WARNING, NOTE) if counts[kind]]
        systems = f"{len(self.systems)} system{'s' * (len(self.systems) != 1)} ranked"
        return f"{printable(self.name)}: {', '.join([systems, *said])}"


@dataclass(frozen=True)
class Table:
    """One ranking.

    Attributes:
        name: `teams` or `systems`.
        title: What it shows.
        rows: Rank and system, best first; the rank is None of a system that has no value to rank by.
        neighbours: Each system and the next one down.
    """

    name: str
    title: str
    rows: tuple[tuple[int | None, Entry], ...]
    neighbours: tuple[Difference, ...]


@dataclass(frozen=True)
class Leaderboard:
    """What became of the packages of a folder.

    Attributes:
        task: What was asked for.
        ranked: The task's set that was scored.
        split: The split that stood for it.
        metric: What ranks.
        teams: The best system of each team.
        systems: All systems.
        published: Figures of the task's baselines for that split.
        packages: Every package.
        findings: What was found in the folder beside them.
    """

    task: Task
    ranked: str
    split: str
    metric: str
    teams: Table
    systems: Table
    published: tuple[Figures, ...]
    packages: tuple[Package, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> int:
        """How many errors the packages have."""
        found = [*self.findings, *(finding for package in self.packages for finding in package.findings)]
        return count(found)

    @cached_property
    def entries(self) -> list[Entry]:
        return [entry for _, entry in self.systems.rows]

    @cached_property
    def metrics(self) -> list[str]:
        """The task's metrics that some system has."""
        return [name for name in self.task.metrics.value if any(name in entry.score.metrics for entry in self.entries)]

    @cached_property
    def unavailable(self) -> dict[str, str]:
        """Why some system has not one of the metrics, by metric."""
        return {name: why for entry in reversed(self.entries) for name, why in entry.score.unavailable.items()}

    @property
    def alarm(self) -> str:
        """What must be known before anything else: that another metric ranks. Mostly nothing."""
        asked = self.task.metrics.value[0]
        if not self.entries:
            return "No system could be scored; see the findings of the packages."
        if self.metric == asked:
            without = [entry.label for rank, entry in self.systems.rows if rank is None]
            return f"Without {asked}, and so without a rank: {', '.join(map(printable, without))}." if without else ""
        why = self.unavailable.get(asked, "no system has a value")
        return (
            f"THIS IS NOT THE TASK'S RANKING: it ranks by {asked}, which is not available on this machine ({why}). "
            f"Here {self.metric} ranks."
        )

    @property
    def signatures(self) -> list[str]:
        return list(dict.fromkeys(entry.score.signature for entry in self.entries))

    @property
    def notes(self) -> list[str]:
        lines = []
        if self.entries:
            score = self.entries[0].score
            intervals = dict.fromkeys(
                m.estimate.interval for entry in self.entries for m in entry.score.metrics.values()
            )
            lines.append(f"95 % intervals ({', '.join(intervals)}) over {len(score.items.names)} {score.items.kind}.")
            if score.items.shared:
                groups = len(set(score.items.groups))
                lines[0] += f" They make {groups} groups that share clips; intervals by clip are in the JSON."
        if self.systems.neighbours:
            lines.append(
                "Neighbours in rank: paired two-sided randomisation test, clips exchanged as a whole "
                f"({comparison.DRAWS} draws, seed {SEED}; all exchanges where they are fewer); Holm's correction over "
                "the neighbours of the table; * p < 0.05, ** p < 0.01, *** p < 0.001; jackknife intervals."
            )
        if self.published:
            lines.append("The organisers' baseline is shown with its published figures for this set.")
        names: dict[str, list[str]] = {}
        for name, why in self.unavailable.items():
            names.setdefault(why, []).append(name)
        lines += [f"Not available: {', '.join(those)}: {why}" for why, those in names.items()]
        return [printable(line) for line in lines]

    @property
    def about(self) -> str:
        stands = "" if self.split == self.ranked else f", for which the split {self.split} stands"
        lower = ", less is better" if lower_is_better(self.metric) else ""
        teams, systems = len(self.teams.rows), len(self.systems.rows)
        return (
            f"{systems} system{'s' * (systems != 1)} of {teams} team{'s' * (teams != 1)}, ranked by {self.metric}"
            f"{lower}, on the set {self.ranked}{stands}."
        )

    # Text and CSV

    def __str__(self) -> str:
        """The tables as text."""
        parts = [f"{self.task.name}: {self.task.title}", self.about, *[f"\n!!! {self.alarm}\n"] * bool(self.alarm)]
        heads = ["rank", "team", "system", *self.metrics, *self.missing]
        for ranking in (self.teams, self.systems) if self.entries else ():
            rows = [[ranked(rank), entry.team, entry.label, *self._cells(entry)] for rank, entry in ranking.rows]
            rows += [["–", ORGANISERS, p.system, *self.published_cells(p)] for p in self.published]
            parts += ["", f"{ranking.title}, by {self.metric}", _text(rows, heads, [0])]
            if ranking.neighbours:
                rows = [[d.system, d.against, *difference_cells(d)] for d in ranking.neighbours]
                heads_ = ["system", "less the next", "difference", "95 % interval", "p", "p (Holm)", ""]
                parts += ["", f"{ranking.title}: neighbours in {self.metric}", _text(rows, heads_, [2, 3, 4, 5])]
        if self.entries:
            rows = [[ranked(rank), entry.label, *entry.characteristics] for rank, entry in self.systems.rows]
            parts += ["", "Systems, as their metadata describe them"]
            parts += [_text(rows, ["rank", "system", *self.headings], [0])]
        parts += ["", "Packages", *map(str, self.packages), *map(str, self.findings), ""]
        return "\n".join([*parts, *self.notes, *(f"signature: {s}" for s in self.signatures)])

    @property
    def missing(self) -> list[str]:
        return [name for name in self.task.metrics.value if name in self.unavailable and name not in self.metrics]

    @property
    def headings(self) -> list[str]:
        return [key.rpartition(".")[2].replace("_", " ") for key in self.task.characteristics.value]

    def _cells(self, entry: Entry) -> list[str]:
        found = [entry.score.metrics.get(name) for name in self.metrics]
        cells = [f"{number(m.estimate.value)} {span(m.estimate)}".strip() if m else "–" for m in found]
        return [*cells, *["not available"] * len(self.missing)]

    def published_cells(self, figures: Figures) -> list[str]:
        return [number(figures.metrics.get(name, math.nan)) for name in [*self.metrics, *self.missing]]

    def csv(self) -> str:
        """All tables in long form, at full precision."""
        heads = ["table", "rank", "team", "system", "what", "against", "value", "std_error", "low", "high", "n"]
        heads += ["interval", "p", "p_holm"]
        rows: list[dict[str, object]] = []
        for ranking in (self.teams, self.systems):
            for rank, entry in ranking.rows:
                who = {"table": ranking.name, "rank": rank or "", "team": entry.team, "system": entry.label}
                for name, measured in entry.score.metrics.items():
                    rows.append({**who, "what": name, **_blanks(asdict(measured.estimate))})
            for d in ranking.neighbours:
                who = {"table": f"neighbours of {ranking.name}", "system": d.system, "against": d.against}
                rows.append({**who, "what": d.metric, "p": d.p, "p_holm": d.p_holm, **_blanks(asdict(d.difference))})
        for figures in self.published:
            for name, value in figures.metrics.items():
                who = {"table": "published", "team": ORGANISERS, "system": figures.system}
                rows.append({**who, "what": name, "value": value})
        for entry in self.entries:
            who = {"table": "characteristics", "team": entry.team, "system": entry.label}
            for key, said in zip(self.task.characteristics.value, entry.characteristics, strict=True):
                rows.append({**who, "what": key, "value": said})
        cells = [[row.get(head, "") for head in heads] for row in rows]
        return spreadsheet([heads, *cells])

    def findings_text(self) -> str:
        """Every finding, by package."""
        parts = ["\n".join([str(package), *map(str, package.findings)]) for package in self.packages]
        return "\n\n".join([*map(str, self.findings), *parts]) + "\n"

    # JSON

    def json(self) -> str:
        """Everything at full precision."""
        tables = (self.teams, self.systems)
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
            "teams": [{"rank": rank, "team": e.team, "system": e.label} for rank, e in self.teams.rows],
            "systems": [
                {
                    "rank": rank,
                    "system": e.label,
                    "team": e.team,
                    "package": e.package,
                    "signature": e.score.signature,
                    "metrics": {name: m.figures() for name, m in e.score.metrics.items()},
                    "characteristics": dict(zip(self.task.characteristics.value, e.characteristics, strict=True)),
                }
                for rank, e in self.systems.rows
            ],
            "neighbours": {ranking.name: [plain(asdict(d)) for d in ranking.neighbours] for ranking in tables},
            "published": [figures.model_dump() for figures in self.published],
            "packages": [
                {
                    "package": package.name,
                    "systems": [entry.label for entry in package.systems],
                    "findings": [asdict(finding) for finding in package.findings],
                }
                for package in self.packages
            ],
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _text(rows: Sequence[Sequence[str]], heads: Sequence[str], numbers: Sequence[int]) -> str:
    rows = [[printable(cell) for cell in row] for row in rows]
    return "\n".join(line.rstrip() for line in table(rows, heads, numbers).splitlines())


def ranked(rank: int | None) -> str:
    return str(rank) if rank else "–"


def span(estimate: Estimate) -> str:
    return spans(estimate.low, estimate.high)


def spans(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def difference_cells(d: Difference) -> list[str]:
    e = d.difference
    span = f"[{e.low:+z.3f}, {e.high:+z.3f}]" if math.isfinite(e.low) else "–"
    p = (f"{p:.4f}" if p >= 0.0001 else "<0.0001" for p in (d.p, d.p_holm))
    return [f"{e.value:+z.3f}", span, *p, d.mark]


def _blanks(figures: Mapping[str, object]) -> dict[str, object]:
    return {key: "" if value is None else value for key, value in plain(figures).items()}
