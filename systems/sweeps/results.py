"""The results of a sweep: the state of every run, the file results.csv, and the table that a running sweep prints."""

import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import BaseModel

from evaluation.data.dataset import Dataset, Split
from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.report import number
from evaluation.scores import Score
from evaluation.statistics import factors
from evaluation.text import first_items
from systems.sweeps.grid import PlannedRun
from systems.sweeps.job import Job, Outcome, describe_run, metric_values, read_outcome

if TYPE_CHECKING:
    import pandas as pd

BEST_SETTINGS = 5  # maximum number of settings to show
FAILURES = 10  # maximum number of failed runs to show
DRAW_SECONDS = 1.0  # minimum time between two drawings of the table

DONE, FAILED, STOPPED, OPEN = "done", "failed", "stopped", "open"


@dataclass
class Results:
    """The state of every run of a sweep.

    Attributes:
        path: The path of results.csv.
        factors: The names of the factors.
        metric: The metric that the sweep compares.
        total: The number of runs of the whole sweep.
        runs: The runs that are planned so far, in the order of the rows of results.csv. A search adds runs.
        outcomes: A dict from the name of each run that has ended to its outcome.
    """

    path: Path
    factors: tuple[str, ...]
    metric: str
    total: int
    runs: list[PlannedRun]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def state(self, run: PlannedRun) -> str:
        """Return the state of a run: `done`, `failed`, `stopped` (early), or `open` (not started or not finished)."""
        outcome = self.outcomes.get(run.name)
        if outcome is None:
            return OPEN
        if outcome.error:
            return FAILED
        if outcome.stopped:
            return STOPPED
        return DONE

    def having(self, *states: str) -> list[PlannedRun]:
        """Return the runs that are in one of the given states."""
        return [run for run in self.runs if self.state(run) in states]

    @property
    def left(self) -> int:
        """The number of runs that must still be made. It includes failed runs, because they are tried again."""
        return self.total - len(self.having(DONE, STOPPED))

    def frame(self) -> "pd.DataFrame":
        """Return the table for results.csv, with a row for each run. The compared metric is the first metric column."""
        import pandas as pd

        metrics = {self.metric: None}
        for outcome in self.outcomes.values():
            metrics |= dict.fromkeys(outcome.values)
        rows = []
        for run in self.runs:
            outcome = self.outcomes.get(run.name, Outcome({}, math.nan))
            seconds = ""
            if not math.isnan(outcome.seconds):
                seconds = f"{outcome.seconds:.1f}"
            values = [outcome.values.get(name) for name in metrics]
            rows.append([run.name, *run.levels.values(), run.seed, self.state(run), seconds, outcome.error, *values])
        before, after = factors.AROUND[:1], factors.AROUND[1:]
        return pd.DataFrame(rows, columns=[*before, *self.factors, *after, *metrics])

    def save(self) -> None:
        """Write results.csv, either completely or not at all."""
        text = self.frame().to_csv(index=False, lineterminator="\n")
        with replacing(self.path) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")

    def best_settings(self) -> str:
        """Return a table of the best settings among the runs that are done, or an empty text if no run is done."""
        import pandas as pd

        rows = []
        for run in self.having(DONE):
            value = self.outcomes[run.name].values[self.metric]
            rows.append([run.name, *run.levels.values(), run.seed, value])
        if not rows:
            return ""
        runs = pd.DataFrame(rows, columns=["run", *self.factors, "seed", self.metric])
        settings = factors.settings(factors.Results(str(self.path), self.metric, self.factors, runs))
        return factors.settings_table(settings.head(BEST_SETTINGS), self.metric)

    def __str__(self) -> str:
        """Return a summary: the best settings, the runs that failed or were stopped, and what to do next."""
        best, failed, stopped = self.best_settings(), self.having(FAILED), self.having(STOPPED)
        lines = []
        if best:
            lines.append(best)
        if stopped:
            advice = "leave stop_early out of the sweep file and run the command again to finish them"
            lines.append(f"{len(stopped)} of {len(self.runs)} runs were stopped early; {advice}")
        if failed:
            lines.append(f"{len(failed)} of {len(self.runs)} runs failed; the same command tries them again:")
            errors = [f"{run.name}: {self.outcomes[run.name].error}" for run in failed]
            lines.append("  " + first_items(errors, FAILURES, separator="\n  "))
        return "\n".join([*lines, f"{self.path}: dcase-evaluation report {self.path}"])


def check_folder(out: Path) -> None:
    """Make sure that a folder does not exist, is empty, or contains a sweep.

    Raises:
        BadRequest: The folder contains files, but no results.csv.
    """
    if not out.is_dir() or (out / "results.csv").exists():
        return
    # These files remain if the disk was full or the sweep was killed before the first results were written.
    left_over = {out / "lock", *out.glob(".results.csv.*.part")}
    if set(out.iterdir()) - left_over:
        message = "must be the folder of a sweep or empty; found files, but no results.csv: give a new folder"
        raise BadRequest(f"{out}: {message}")


def read_outcomes(results: Results, job: Job, configs: Mapping[str, BaseModel], dataset: Dataset, split: Split) -> None:
    """Read the outcomes of runs from a sweep's folder into `results.outcomes`.

    Args:
        results: The results. Their `runs` say which runs to look for.
        job: The settings that the runs share.
        configs: A dict from the name of each run to its config.
        dataset: The development and validation splits.
        split: The split to score.

    Raises:
        Faulty: A run folder contains a run with another config, seed, data or setting than planned, or a file in it is
            damaged. The exception lists all differences.
    """
    fingerprint = f"split:{split.name}#{split.fingerprint}"
    findings: list[Finding] = []
    for run in results.runs:
        folder, record = job.run_folder(run.name), job.record(run.name)
        recorded = Outcome({}, math.nan)
        if record.is_file():
            recorded = read_outcome(record)
        if recorded.error or (recorded.stopped and job.stop_early):
            results.outcomes[run.name] = recorded
        if not folder.is_dir():
            continue
        findings += describe_run(job, folder, configs[run.name], dataset, run.seed).mismatches()
        file = folder / "scores" / f"{split.name}.json"
        if file.is_file():
            score = Score.load(file)
            if fingerprint in score.signature.split("|") and job.metric in score.metrics:
                done = recorded._replace(values=metric_values(score), error="", stopped=False)
                results.outcomes[run.name] = done
    if findings:
        raise Faulty(findings)


class LiveTable:
    """The output of a running sweep.

    On a terminal, it is a table that is redrawn, and a line for each run that fails or is stopped early. If the output
    is not a terminal, it is a line for each run.

    Args:
        results: The results so far.
        slots: The number of runs that are made at the same time.
    """

    def __init__(self, results: Results, slots: int):
        self.results, self.slots = results, slots
        self.began = time.monotonic()
        self.outcomes: list[Outcome] = []  # the outcomes of the runs that have ended since the command started
        self.lines_drawn = 0
        self.last_drawn = -math.inf
        self.ended_before = len(results.having(DONE, STOPPED))
        done = ""
        if self.ended_before:
            done = f", {self.ended_before} of them already done"
        print(f"{results.total} runs{done}; {slots} at a time", flush=True)

    def add(self, run: PlannedRun) -> None:
        """Count a run that has ended. Print a line about it, except on a terminal if the run is done."""
        outcome = self.results.outcomes[run.name]
        self.outcomes.append(outcome)
        if outcome.error:
            self._print(f"{run.name}: failed: {outcome.error}")
        elif outcome.stopped:
            self._print(f"{run.name}: stopped after epoch {len(outcome.course)}; {self.progress()}")
        elif not sys.stdout.isatty():
            value = f"{self.results.metric} {number(outcome.values[self.results.metric])}"
            self._print(f"{run.name}: {value} in {duration(outcome.seconds)}; {self.progress()}")

    def progress(self) -> str:
        """Return a text with the number of runs that have ended and an estimate of the remaining time."""
        ended = self.ended_before + len(self.outcomes)
        failed = len([outcome for outcome in self.outcomes if outcome.error])
        text = f"{ended} of {self.results.total}"
        if failed:
            text += f", {failed} failed"
        # The times of failed runs are not used, because a run may fail immediately.
        seconds = [outcome.seconds for outcome in self.outcomes if not outcome.error]
        if seconds and ended < self.results.total:
            rounds = math.ceil((self.results.total - ended) / self.slots)
            text += f", about {duration(fmean(seconds) * rounds)} left"
        return text

    def draw(self, busy: Sequence[PlannedRun]) -> None:
        """Draw the table, at most once a second, and only on a terminal."""
        now = time.monotonic()
        if not sys.stdout.isatty() or now - self.last_drawn < DRAW_SECONDS:
            return
        self.last_drawn = now
        names = ", ".join(run.name for run in busy)
        lines = [f"{self.progress()}; {duration(now - self.began)} elapsed", f"running: {names}"]
        lines += self.results.best_settings().splitlines()
        width, height = shutil.get_terminal_size()
        self.erase()
        lines = [line[: width - 1] for line in lines[: height - 1]]
        print(*lines, sep="\n", flush=True)
        self.lines_drawn = len(lines)

    def erase(self) -> None:
        """Remove the table from the terminal."""
        if self.lines_drawn:
            print(f"\x1b[{self.lines_drawn}F\x1b[J", end="", flush=True)
        self.lines_drawn = 0

    def _print(self, line: str) -> None:
        self.erase()
        print(line, flush=True)


def duration(seconds: float) -> str:
    """Format a duration as text.

    >>> duration(7.25), duration(83), duration(90_000)
    ('7 s', '1 min 23 s', '25 h 0 min')
    """
    if math.isnan(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
