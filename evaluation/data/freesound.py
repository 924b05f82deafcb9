"""Lists of Freesound ids, such as the sounds that a challenge excludes from training."""

import re
from collections.abc import Iterator
from pathlib import Path

from evaluation.data import tables
from evaluation.findings import BadRequest, Faulty, Finding

LINKS = re.compile(r"freesound\.org/(?:people/[^/\s]+/sounds|s)/(\d+)")
# The addresses of the lists that challenges publish, for each file name.
EXCLUDED_LISTS = {
    address.rpartition("/")[2]: address
    for address in (
        "https://dcase.community/documents/challenge2024/dcase2024_task6_excluded_freesound_ids.csv",
        "https://github.com/CPJKU/dcase2025_task6_baseline/blob/c78422f/resources/dcase2025_task6_excluded_freesound_ids.csv",
    )
}
ID = re.compile(r"\s*0*(\d{1,18})(\.0)?\s*")


def read_ids(path: Path, column: str | int = "sound_id") -> dict[str, int]:
    """Return a dict from each Freesound id in a list to the first line that contains it.

    Cells without an id, such as Clotho's `Not found`, are skipped.

    Args:
        path: The list.
        column: Name of the column that has the ids, or its number from 1. If the list has no column with this name, the
            ids are read from lines that are ids, and from links to Freesound.

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
