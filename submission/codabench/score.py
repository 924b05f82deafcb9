"""The scoring program of a competition on Codabench. `bundle` copies this file to the top of the scoring program.

    python3 /app/program/score.py /app/input /app/output

The platform runs this command in the folder `/app/program` of a container, with these folders:

- `/app/input/ref` has the reference data: a data folder with the ground truth, and `SETTINGS`.
- `/app/input/res` has the participant's package, unpacked. The platform adds a file `metadata` to it.
- `/app/output` receives `scores.json` and `detailed_results.html`.

Conventions
-----------
- **A package with an error gets no scores**, except if the error is only about its technical report. The program prints
  the findings and ends with exit status 1. The platform then marks the submission as failed, and shows the participant
  what was printed.
- **The task's first metric ranks**, and no other. If it is not available in the container, the program ends with exit
  status 1. Otherwise, the platform would put a submission without this value above all others: it sorts by this column
  in descending order, and its database puts missing values first. Any other missing metric is left out of
  `scores.json`, and the platform shows `n/a`.
- **The best system of the package** gives `scores.json`. `detailed_results.html` has all systems.
- **Findings about the ground truth are not shown**, because they can quote it.

Source: codalab/codabench@c7dbc75, `compute_worker/compute_worker.py` (`_run_program_directory`, `push_scores`,
`push_output`), `src/apps/api/views/submissions.py` (`upload_submission_scores`), `src/apps/api/serializers/
leaderboards.py` (the order) and `src/static/riot/competitions/detail/leaderboards.tag` (`get_score`).
"""

import json
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.findings import BadRequest, Faulty, count, say
from evaluation.text import plural
from submission import scoring, tasks
from submission.kinds import KINDS
from submission.outputs.form import Asked
from submission.scoring import ScoredPackage, ScoredSystem

SETTINGS = "settings.json"  # file in the reference data
SCORES = "scores.json"
DETAILS = "detailed_results.html"
PACKAGE = "package"  # name of the participant's package in findings
ADDED = "metadata"  # file that the platform adds to the participant's package


@dataclass(frozen=True)
class Settings:
    """What the scoring program must know about the competition.

    Attributes:
        task: Name of the task.
        ranked: The task's set that is scored.
        splits: A dict from each of the task's sets to the name of the split that its outputs are for.
        columns: A dict from each of the task's metrics to the key of its column on the platform.
    """

    task: str
    ranked: str
    splits: Mapping[str, str]
    columns: Mapping[str, str]


def score(reference: Path, submitted: Path, output: Path) -> int:
    """Check and score a participant's package, and write `SCORES` and `DETAILS`.

    Args:
        reference: The folder with the reference data.
        submitted: The folder with the participant's unpacked package. It is not changed.
        output: The folder to write into.

    Returns:
        The exit status: 0 if the scores are written, and 1 if not.

    Raises:
        BadRequest, Faulty: The reference data are not valid.
    """
    settings = Settings(**json.loads((reference / SETTINGS).read_text(encoding="utf-8")))
    task = tasks.read(settings.task)
    dataset = KINDS[task.kind].read_data(reference)
    splits = {name: dataset[split] for name, split in settings.splits.items()}
    with tempfile.TemporaryDirectory(prefix="dcase-") as scratch:
        package = Path(scratch) / PACKAGE
        _copy(submitted, package)
        scored = scoring.score_package(task, package, splits, settings.ranked, Path(scratch) / "cache")
    public = _without_truth(scored)
    say(public.findings)
    if not scored.systems:
        if not count(public.findings):
            print("error: the competition's ground truth has an error; please tell the organisers", file=sys.stderr)
        return 1
    ranking_metric = task.metrics.value[0]
    fault = _ranking_fault(public.systems, ranking_metric)
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    _write_results(task, public, splits[settings.ranked], settings, output)
    return 0


def _copy(submitted: Path, package: Path) -> None:
    """Copy the participant's package, without the file that the platform adds at its top."""

    def added(folder: str, names: Sequence[str]) -> list[str]:
        if Path(folder) == submitted and (submitted / ADDED).is_file():
            return [ADDED]
        return []

    shutil.copytree(submitted, package, ignore=added, symlinks=True)


def _without_truth(scored: ScoredPackage) -> ScoredPackage:
    """Return a package without the findings about the ground truth, which can quote reference captions."""
    about_package = []
    for finding in scored.findings:
        if finding.file == PACKAGE or finding.file.startswith(f"{PACKAGE}/"):
            about_package.append(finding)
    return replace(scored, findings=tuple(about_package))


def _ranking_fault(systems: Sequence[ScoredSystem], metric: str) -> str:
    """Return the reason why the metric that ranks has no value, or "" if all systems have a value."""
    for system in systems:
        if metric in system.score.unavailable:
            reason = system.score.unavailable[metric]
            message = f"the competition ranks by {metric}, which is not available in its Docker image ({reason})"
            return f"{message}; please tell the organisers"
        if not math.isfinite(system.value(metric)):
            return f"{system.label} must have a finite {metric}, by which the competition ranks; it has none"
    return ""


def _write_results(task: tasks.Task, package: ScoredPackage, split: Asked, settings: Settings, output: Path) -> None:
    """Write the page of all systems and the scores of the best system, and print these scores."""
    # These import pandas and matplotlib, which `bundle` does not need for a wrong request.
    from evaluation.report import number
    from submission import leaderboard_page
    from submission.ranking import rank

    board = rank(task, [package], split, settings.ranked)
    best = board.entries[0]
    scores = {}
    lines = []
    for metric, key in settings.columns.items():
        value = best.value(metric)
        if math.isfinite(value):
            scores[key] = value
            lines.append(f"{metric}: {number(value)}")
        else:
            reason = best.score.unavailable.get(metric, "it has no finite value")
            lines.append(f"{metric}: not available: {reason}")
    page = leaderboard_page.html(board, title="results of one package")
    (output / DETAILS).write_text(page, encoding="utf-8", errors="backslashreplace")
    (output / SCORES).write_text(json.dumps(scores, allow_nan=False) + "\n", encoding="utf-8")
    print(f"{plural(len(board.entries), 'system')}; the scores are those of {best.label}")
    print("\n".join(lines))


def main(arguments: Sequence[str]) -> int:
    """Run the scoring program.

    Args:
        arguments: The input folder and the output folder.

    Returns:
        The exit status.
    """
    inputs, output = map(Path, arguments)
    try:
        return score(inputs / "ref", inputs / "res", output)
    except (BadRequest, Faulty):
        # The message could quote the ground truth, and the participant can see everything that is printed.
        print("error: the competition's reference data are not valid; please tell the organisers", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
