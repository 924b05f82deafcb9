"""The leaderboard, which ranks the systems in a folder of packages and compares each system with the next one.

`submission.scoring` checks and scores the packages. `submission.ranking` ranks their systems, and `submission.analysis`
counts their methods. This module runs all of them and writes the results.

Conventions
-----------
- **Errors**: the leaderboard leaves out all systems of a package that has an error. The technical report is an
  exception: if only the report is missing or has an error, the systems are ranked with a remark. If several packages
  contain a system with the same label, it leaves out these systems, because it cannot know which of them is meant.
- **Ranks** start from 1 and follow the task's first metric. Systems with equal values share a rank, and the next rank
  counts all of them. If no system has a value of that metric on this machine, the systems are ranked by the first of
  the task's metrics that has one, and the leaderboard begins with a warning. If only some systems lack the metric, they
  are listed last and have no rank.
- **Tracks**: some tasks rank groups of systems apart, for example by the number of parameters. The task's facts state
  the tracks, and whether there is also a ranking of the systems of all tracks. A system is in no track and gets a
  warning if its metadata do not have the number that decides, or if this number is above every limit.
- **Intervals** are 95 % intervals by the task's method (default: the jackknife). If several items share a clip, the
  intervals leave out all items of a clip together. The official tables leave out one item at a time; these intervals
  are too narrow for items that share clips. The JSON and the CSV have both.
- **Neighbours** are each system and the next one in the ranking. The metric that ranks is compared by the paired
  randomisation test of `evaluation.statistics.comparison`. Each difference has a jackknife interval, and the p values
  have Holm's correction over all neighbours of the table.
- **The organisers' baseline** can be a package, too. It is ranked like the others, as in Table 2 of Xie et al. 2022,
  but it does not count as a submitted system.
- **Published results** of the organisers' baseline are shown if they were measured on the split that is scored. To
  check this, the name of the split, its number of clips and its number of queries are compared with the task's facts.
  The kit did not compute these results, so they have no rank.
- **Reproducible files**: the same packages and the same date give the same bytes in every file.

Files
-----
The files in `PUBLIC` and the folder `reports/` can be published. They do not contain findings, the names of refused
packages, or email addresses.

- `board.html` is one page that loads no other file and runs no script. It links to the technical reports.
- `board.txt` contains the tables as text.
- `board.json` contains all results at full precision.
- `board.csv` contains the results in long form, that is, the DataFrame of `Leaderboard.results`. Its rows depend on the
  table:

| table | system | what | against | `value` to `interval` | `p`, `p_holm` |
|---|---|---|---|---|---|
| teams, systems | the system, with its rank and team | the metric | | the metric, its intervals | |
| neighbours of teams or systems | the upper one | the metric | the lower one | the difference | the p values |
| published | the baseline | the metric | | the metric | |
| characteristics | the system | the metadata's key | | the key's value in the metadata | |

The column `track` names the track whose systems are ranked. It is empty in rankings of the systems of all tracks. In
the table characteristics, it names the track of the system.

- `analysis.csv` contains the analysis of the methods: the columns of `submission.analysis.COLUMNS`.
- `reports/` contains the technical reports of the ranked systems.

The files in `PRIVATE` are for the organisers: `private/findings.html`, `.txt` and `.json` contain all findings, grouped
by package.
"""

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evaluation.files import cache_folder, replacing
from evaluation.findings import NOTE, WARNING, BadRequest, Faulty, Finding, say
from evaluation.natural_sort import natural_key
from submission import archive, package, scoring
from submission.families import FAMILIES, check_keys, read_families
from submission.kinds import KINDS
from submission.outputs.form import Asked
from submission.scoring import REPORTS, ScoredPackage
from submission.tasks import Task

if TYPE_CHECKING:
    from submission.ranking import Leaderboard

PUBLIC = ("board.json", "board.html", "board.txt", "board.csv", "analysis.csv")
PRIVATE = ("private/findings.html", "private/findings.txt", "private/findings.json")
ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")  # archives that are not zips
FILES = (*PUBLIC, *PRIVATE)  # in the order in which they are written


def run(
    task: Task,
    folder: Path,
    splits: Mapping[str, Asked],
    out: Path,
    *,
    cache: Path | None = None,
    baseline: Path | None = None,
    families: Path = FAMILIES,
    date: str = "",
) -> "Leaderboard":
    """Check and score every package in a folder, rank the systems, and write `FILES` and the technical reports.

    Each zip and each folder in the folder is a package. Other files are ignored with a note, and so are the files that
    macOS, Windows or an interrupted command leaves. Other hidden files are ignored without a note.

    Args:
        task: The task.
        folder: The folder that contains the packages.
        splits: A dict from each of the task's sets to the split that its outputs are checked against. The first set
            whose split has a ground truth is scored.
        out: The folder to write into. It must be new, empty, or an earlier leaderboard.
        cache: Folder for tokenised captions (default: `files.cache_folder`).
        baseline: The package of the organisers' baseline, in the folder or elsewhere (default: there is none).
        families: The table of families for the analysis.
        date: The date that the page shows (default: none).

    Returns:
        The leaderboard that was written.

    Raises:
        BadRequest: The folder or the baseline does not exist; the folder contains no package, or is a run folder; no
            split has a ground truth; or `out` is a file or contains other files.
        Faulty: The ground truth, the table of families or the package of the baseline has an error,
            or the scores of two systems are not comparable.
    """
    if not folder.is_dir():
        raise BadRequest(f"{folder}: no such folder; give a folder that contains packages (zips or folders)")
    if baseline and not baseline.exists():
        raise BadRequest(f"{baseline}: no such file or folder; give the package of the organisers' baseline")
    cache = cache or cache_folder()
    _check_out(out)
    ranked = ranked_set(task, splits)
    KINDS[task.kind].check_truth(splits[ranked])
    paths, findings = _packages_in(task, folder, out)
    if baseline:
        paths = [baseline.absolute(), *(path for path in paths if path.resolve() != baseline.resolve())]
    aspects = read_families(families)
    check_keys(aspects, task, families)
    with TemporaryDirectory(prefix="dcase-") as reports:
        packages = scoring.score_packages(task, paths, splits, ranked, cache.absolute(), Path(reports))
        if baseline:
            packages[0] = _as_baseline(packages[0])
        from submission.ranking import rank  # imports pandas, which a wrong request does not wait for

        board = rank(task, packages, splits[ranked], ranked, aspects, date, findings)
        save(board, out)
    return board


def _as_baseline(scored: ScoredPackage) -> ScoredPackage:
    """Return a package with its systems marked as the organisers' baseline.

    Raises:
        Faulty: The package has an error, so that it has no systems.
    """
    if not scored.systems:
        message = "must be valid, because it is the package of the organisers' baseline; no leaderboard is written"
        raise Faulty([*scored.findings, Finding(scored.name, message=message)], status=2)
    return replace(scored, systems=tuple(replace(system, is_baseline=True) for system in scored.systems))


def save(board: "Leaderboard", folder: Path) -> None:
    """Write `FILES` and the technical reports into a folder, each file completely or not at all."""
    from submission import leaderboard_page  # imports matplotlib and Jinja2

    _remove_earlier_reports(folder)
    texts = {
        "board.html": leaderboard_page.html(board),
        "board.txt": f"{board}\n",
        "board.csv": board.csv(),
        "board.json": board.json(),
        "analysis.csv": board.analysis_csv(),
        "private/findings.html": leaderboard_page.findings_html(board),
        "private/findings.txt": board.findings_text(),
        "private/findings.json": board.findings_json(),
    }
    for name in FILES:
        with replacing(folder / name) as part:
            # A name may contain a lone surrogate, which UTF-8 cannot encode.
            part.write_text(texts[name], encoding="utf-8", errors="backslashreplace", newline="")
    for scored in board.packages:
        if scored.name in board.reports and scored.report:
            with replacing(folder / REPORTS / board.reports[scored.name]) as part:
                shutil.copyfile(scored.report, part)


def _remove_earlier_reports(folder: Path) -> None:
    """Remove the reports of an earlier leaderboard from its folder, because they may be of systems that are gone.

    Only the reports that the earlier `board.json` names are removed.
    """
    try:
        earlier = json.loads((folder / PUBLIC[0]).read_text(encoding="utf-8"))
        names = [Path(system["report"]).name for system in earlier["systems"]]
    except (OSError, ValueError, KeyError, TypeError):
        return  # there is no earlier leaderboard
    for name in names:
        if name:
            (folder / REPORTS / name).unlink(missing_ok=True)


def ranked_set(task: Task, splits: Mapping[str, Asked]) -> str:
    """Return the first of the task's sets whose split has a ground truth.

    Raises:
        BadRequest: No split has a ground truth.
    """
    for name in task.sets:
        if name in splits and KINDS[task.kind].has_truth(splits[name]):
            return name
    if len(task.sets) > 1:
        sets = f"one of the sets {', '.join(task.sets)}"
    else:
        sets = f"the set {next(iter(task.sets))}"
    if splits:
        names = dict.fromkeys(split.name for split in splits.values())
        found = f"{', '.join(names)} without this ground truth"
    else:
        found = "none of these sets"
    message = f"the ground truth of {task.name} must have {KINDS[task.kind].truth} for {sets}; found {found}"
    raise BadRequest(f"{message}: give another --truth folder")


def _packages_in(task: Task, folder: Path, out: Path) -> tuple[list[Path], list[Finding]]:
    """Return the packages in a folder, in natural order, and notes about the other files in it.

    Raises:
        BadRequest: The folder contains no package, or is a run folder.
    """
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
        elif path.is_dir() or path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
            paths.append(path)
        elif path.name.lower().endswith(ARCHIVES):
            message = "is ignored: a package must be a zip; ask the team for one, or unpack it into a folder"
            findings.append(Finding(path.name, message=message, severity=WARNING))
        else:
            findings.append(Finding(path.name, message="is ignored: it is not a package", severity=NOTE))
    # Otherwise the folders inside a run folder would be treated as packages.
    if (folder / "config.yaml").is_file() and not any(path.is_file() for path in paths):
        message = f"must be a folder of packages; found a run folder: give {folder / 'submission'}, which has its "
        raise BadRequest(f"{folder}: {message}packages")
    if not any(_may_be_package(task, path) for path in paths):
        raise BadRequest(f"{folder}: must contain packages; found none: give a folder of zips or of unpacked packages")
    return paths, findings


def _may_be_package(task: Task, path: Path) -> bool:
    """Return whether a path is a file, or a folder with a file that may be part of a submission."""
    if path.is_file():
        return True
    files = islice(path.rglob("*"), archive.ENTRIES)
    return any(file.name.lower().endswith(package.part_suffixes(task)) for file in files)


def _leftover(name: str) -> str | None:
    """Return a message if the name of a file or folder shows that a program left it, or None if it does not."""
    kind = archive.junk_kind(name)
    if kind:
        return f"is ignored: {archive.JUNK[kind]} adds it"
    if name.startswith(".") and name.endswith(".part"):
        return "is ignored: an interrupted command left it; delete it"
    return None


def _check_out(out: Path) -> None:
    """Check that `out` is new, empty or an earlier leaderboard, and print notes about ignored files in it.

    Raises:
        BadRequest: `out` is a file or contains other files.
    """
    if out.exists() and not out.is_dir():
        raise BadRequest(f"{out}: must be a folder, or not exist yet; found a file: give another folder with --out")
    if not out.is_dir():
        return
    names = {path.name for path in out.iterdir()}
    notes = []
    for name in sorted(names, key=natural_key):
        leftover = _leftover(name)
        if leftover:
            notes.append(Finding(str(out / name), message=leftover, severity=NOTE))
            names.remove(name)
    if FILES[0] in names:  # this file is written first, so an interrupted command has left it too
        names.difference_update({*PUBLIC, REPORTS, "private"})
    if names:
        message = f"must be an empty folder or an earlier leaderboard; found {min(names)!r}"
        raise BadRequest(f"{out}: {message}: give another folder with --out")
    say(notes)
