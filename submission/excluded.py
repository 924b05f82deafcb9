"""The check that the training data do not contain sounds which a task excludes from training."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from evaluation.data import tables
from evaluation.findings import WARNING, BadRequest, Faulty, Finding
from submission.tasks import Task

LINKS = re.compile(r"freesound\.org/(?:people/[^/\s]+/sounds|s)/(\d+)")
ID = re.compile(r"\s*0*(\d{1,18})(\.0)?\s*")


def training_sounds(task: Task, training: Iterable[Path], excluded: Path) -> list[Finding]:
    """Find sounds in the training data that the task excludes.

    The findings are warnings, not errors. The organisers of 2024 did not refuse such systems, but marked them; and
    three sounds of Clotho's own development split are in the list of 2025.

    Args:
        task: The task.
        training: Lists of sounds. A list is a CSV with the column `sound_id`, such as Clotho's metadata, or a text with
            links to Freesound or with an id in each line.
        excluded: The task's list (`dcase-submission tasks NAME` prints its address).

    Returns:
        A warning for each excluded sound in a list, with its first line there.

    Raises:
        BadRequest: The task has no known list of excluded sounds, a file does not exist, or a file has no ids.
        Faulty: A list cannot be read completely.
    """
    if not task.excluded_ids:
        raise BadRequest(f"{task.name} has no known list of excluded sounds; remove --excluded")
    for path in (excluded, *training):
        if not path.is_file():
            raise BadRequest(f"{path}: no such file; give a list of Freesound ids")
    forbidden = _read_ids(excluded, task.excluded_ids.column.value)
    findings = []
    for path in training:
        for sound, line in _read_ids(path, "sound_id").items():
            if sound in forbidden:
                message = f"the system must not be trained on Freesound's sound {sound}, which is in {excluded}"
                message += "; remove the sound and train again"
                findings.append(Finding(str(path), line, message=message, severity=WARNING))
    return findings


def _read_ids(path: Path, column: str | int) -> dict[str, int]:
    """Return a dict from each Freesound id in a list to the first line that contains it.

    Words in the place of an id, such as Clotho's `Not found`, are skipped.

    Args:
        path: The list.
        column: Name of the column that has the ids, or its number from 1.

    Raises:
        BadRequest: The list has no ids.
        Faulty: The list cannot be read completely.
    """
    text = path.read_bytes().decode("utf-8-sig", "replace")  # Clotho's metadata are Latin-1
    header = text.partition("\n")[0]
    columns = [name.strip().casefold() for name in re.split(r"[,;\t]", header.strip())]
    if isinstance(column, int):
        cells = _column_cells(path, text, header, column - 1)
        where = f"the column {column}"
    elif column in columns:
        cells = _column_cells(path, text, header, columns.index(column))
        where = f"the column {column}"
    else:
        cells = _lines_and_links(text)
        where = "links and lines"
    ids: dict[str, int] = {}
    for line, cell in cells:
        match = ID.fullmatch(cell)
        if match:
            ids.setdefault(match[1], line)
    if not ids:
        advice = "give a CSV with the column sound_id, or a text with an id in each line"
        raise BadRequest(f"{path}: must have Freesound ids; found none in {where}: {advice}")
    return ids


def _column_cells(path: Path, text: str, header: str, index: int) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each cell in a column of a CSV."""
    separator = max(",;\t", key=header.count)
    findings: list[Finding] = []
    rows, whole = tables.parse_table(text, str(path), findings, separator)
    if not whole:
        raise Faulty(findings)
    for line, cells in rows[1:]:
        if len(cells) > index:
            yield line, cells[index]


def _lines_and_links(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line, and the id in each link to Freesound, with the line's number."""
    for line, row in enumerate(text.splitlines(), start=1):
        yield line, row
        for sound in LINKS.findall(row):
            yield line, sound
