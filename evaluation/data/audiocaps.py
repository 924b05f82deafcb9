"""Reading AudioCaps' files as published: they have a row for each caption, and break some captions over two rows."""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

from evaluation.data import tables
from evaluation.data.caption_files import CaptionRows
from evaluation.data.cells import text_fault
from evaluation.data.sound_files import sound_files
from evaluation.findings import NOTE, WARNING, Finding
from evaluation.text import plural, printable

AUDIOCAPS = {"development": "train", "validation": "val", "evaluation": "test"}  # file and folder of each split
HEADER = ["audiocap_id", "youtube_id", "start_time", "caption"]
OWN_COLUMNS = frozenset(HEADER[:3])  # columns that no other layout has


def is_audiocaps(path: Path) -> bool:
    """Return True if the first line of a file has a column that only AudioCaps has, even in a header with errors."""
    with path.open("rb") as file:
        header = file.readline(1000).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    return not OWN_COLUMNS.isdisjoint(re.split(r"[^a-z_]+", header))


def warn_of_other_headers(folder: Path) -> list[Finding]:
    """Warn of files with the name of an AudioCaps file but another header."""
    message = (
        f"is not read: its header is not that of AudioCaps, {','.join(HEADER)}; "
        "name a file in Clotho's layout captions_SPLIT.csv"
    )
    findings = []
    for stem in AUDIOCAPS.values():
        path = folder / f"{stem}.csv"
        if path.is_file() and not is_audiocaps(path):
            findings.append(Finding(path.name, 1, message=message, severity=WARNING))
    return findings


def read_audiocaps(path: Path, folder: Path, sound: bool, findings: list[Finding]) -> CaptionRows:
    """Read a file of AudioCaps, which has a row for each caption.

    Errors are added to the findings. Clips without an audio file are skipped, and a warning counts them.

    Args:
        path: The file.
        folder: The folder with the audio files.
        sound: Require that the folder exists. If it does not exist, clips get the names YOUTUBEID_START.wav.
        findings: The list to which findings are added.
    """
    rows, file = CaptionRows(), path.name
    records, rows.whole = tables.read_table(path, file, findings)
    header = records[0][1] if records else []
    if header != HEADER:
        found = printable(",".join(header)) or "no line"
        findings.append(Finding(file, 1, message=f"the header must be {','.join(HEADER)}; found {found}"))
        rows.whole = False
        return rows
    sounds = sound_files(folder, frozenset(), findings)
    if sounds is None and sound:
        findings.append(
            Finding(f"{folder.name}/", message=f"no such folder; it must contain the audio of the clips in {file}")
        )
    by_stem = {name.rpartition(".")[0]: name for name in sorted(sounds or ())}
    rows_of_captions = _join_broken_captions(records[1:], file, findings)
    grouped: dict[tuple[str, str], list[tuple[int, str, str]]] = {}
    for line, cells in rows_of_captions:
        if len(cells) != len(header):
            message = f"has {len(cells)} columns where the header has {len(header)}; quote a caption that holds a comma"
            findings.append(Finding(file, line, message=message))
            continue
        number, video, start, caption = cells
        fault = text_fault(caption)
        if fault:
            findings.append(Finding(file, line, header[3], fault))
        grouped.setdefault((video, start), []).append((line, number, caption))
    absent: set[str] = set()
    for (video, start), group in grouped.items():
        # Each row has its own id, and the audio file may be named by any of them. All captions belong to the clip.
        stems = (f"{video}_{start}", f"Y{video}", video, *(number for _, number, _ in group))
        name = next((by_stem[stem] for stem in stems if stem in by_stem), None)
        if sounds is None:
            name = f"{stems[0]}.wav"
        if name is None:
            absent.add(stems[0])
            continue
        first, captions = rows.clips.get(name, (group[0][0], ()))
        rows.clips[name] = (first, (*captions, *(caption for *_, caption in group)))
    if absent:
        example = f"for example {min(absent)}.wav"
        message = f"skipped {plural(len(absent), 'clip')} without an audio file in {folder.name}/ ({example})"
        findings.append(Finding(file, message=message, severity=WARNING))
    if not rows.clips:
        findings.append(
            Finding(file, message=f"no clip has an audio file in {folder.name}/; name the files YOUTUBEID_START.wav")
        )
    return rows


def _join_broken_captions(records: Sequence[tables.Record], file: str, findings: list[Finding]) -> list[tables.Record]:
    """Join the captions that AudioCaps 2.0 breaks over two rows, and add a note that counts them.

    The second row has the end of the caption, with or without commas for the other columns. A caption in quotation
    marks has a line break instead.
    """
    joined: list[tables.Record] = []
    broken: set[int] = set()  # first lines of these captions
    for line, cells in records:
        parts = [*cells]
        lines = cells[-1].splitlines()
        if len(cells) == len(HEADER) and len(lines) > 1:
            parts[-1] = " ".join(part.strip() for part in lines)
        if joined and _continues_a_caption(cells) and len(joined[-1][1]) == len(HEADER):
            line, (*others, beginning) = joined.pop()
            end = ",".join(cells).rstrip(",")
            parts = [*others, f"{beginning.rstrip()} {end.strip()}"]
        if parts != cells:
            broken.add(line)
        joined.append((line, parts))
    if broken:
        message = "1 caption is broken over two lines; its parts are joined"
        if len(broken) > 1:
            message = f"{len(broken)} captions are broken over two lines, the first one here; their parts are joined"
        findings.append(Finding(file, min(broken), message=message, severity=NOTE))
    return joined


def _continues_a_caption(cells: Sequence[str]) -> bool:
    """Return True if a row of AudioCaps has no ids and no time, but only the end of the previous caption."""
    number, *others = (cell.strip() for cell in cells)
    short = len(cells) < len(HEADER) or not others[-1]
    has_a_time = len(others) > 1 and others[1].isdecimal()
    return bool(number) and not number.isdecimal() and short and not has_a_time
