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

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from evaluation import predictions
from evaluation.data.dataset import Split
from evaluation.files import replacing
from evaluation.findings import NOTE, BadRequest, Finding, say
from evaluation.metrics import retrieval
from evaluation.ordering import natural_key
from submission import archive, package, scoring
from submission.ranking import Leaderboard, rank
from submission.tasks import Task

FILES = ("leaderboard.json", "leaderboard.txt", "leaderboard.csv", "leaderboard.html", "findings.txt")


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
    save(board, out)
    return board


def save(board: Leaderboard, folder: Path) -> None:
    """Write `FILES` into a folder, each file completely or not at all."""
    from submission import leaderboard_page  # matplotlib and Jinja2

    texts = (board.json(), f"{board}\n", board.csv(), leaderboard_page.html(board), board.findings_text())
    for name, text in zip(FILES, texts, strict=True):
        with replacing(folder / name) as part:
            # A name may hold half a surrogate pair, which UTF-8 cannot encode.
            part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def _ranked_set(task: Task, splits: Mapping[str, Split]) -> str:
    """Return the first of the task's sets whose split has a truth."""
    for name in task.sets:
        if name in splits and _has_truth(task, splits[name]):
            return name
    if task.kind == "captioning":
        wanted = "captions of every clip"
    else:
        wanted = "captions or relevance"
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
    for path in sorted(folder.absolute().iterdir(), key=lambda path: natural_key(path.name)):
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
    for name in sorted(names, key=natural_key):
        leftover = _leftover(name)
        if leftover:
            notes.append(Finding(str(out / name), message=leftover, severity=NOTE))
            names.remove(name)
    if FILES[0] in names:  # an interrupted command has written this file first
        names.difference_update(FILES)
    if names:
        raise BadRequest(f"{out}: holds {min(names)!r}, and is no leaderboard of before; give another folder")
    say(notes)
