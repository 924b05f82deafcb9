"""Strict reading of caption files in Clotho's layout, of a blind set's queries, and of Clotho's metadata."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from evaluation.data import tables
from evaluation.data.cells import name_fault, text_fault
from evaluation.findings import WARNING, Finding
from evaluation.text import printable

LONG_FORM = ["file_name", "caption"]  # the header of a file that may have a row for each caption


@dataclass
class CaptionRows:
    """The content of a caption file.

    Attributes:
        clips: A dict from the name of each clip to its line and its captions.
        refused: Invalid names, without their folders.
        whole: True if the file could be read completely. If it could not, the file may contain other names.
    """

    clips: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    whole: bool = True

    @property
    def names(self) -> frozenset[str] | None:
        """All names, including invalid ones; None if the file could not be read completely."""
        if self.whole:
            return frozenset(self.clips.keys() | self.refused)
        return None


def read_captions(path: Path, findings: list[Finding]) -> CaptionRows:
    """Read a caption file, and add errors to the findings."""
    rows, file = CaptionRows(), path.name
    records, rows.whole = tables.read_table(path, file, findings)
    if not records:
        if rows.whole:
            message = "is empty; the first line must be file_name,caption_1,…,caption_N"
            findings.append(Finding(file, 1, message=message))
        rows.whole = False
        return rows
    header = records[0][1]
    expected = ["file_name", *(f"caption_{number}" for number in range(1, max(2, len(header))))]
    if header != expected:
        message = f"the header must be {','.join(expected)}; found {printable(','.join(header))}"
        if header == LONG_FORM and _repeats_a_name(records):
            message += ", with a row for each caption; convert the file with `evaluation data convert`"
            findings.append(Finding(file, 1, message=message))
            rows.whole = False
            return rows
        if len(header) == 1:
            marks = [mark for mark in ("\t", ";", "|") if mark in header[0]]
            if marks:
                message += f" (columns are separated by commas, not by {marks[0]!r})"
        findings.append(Finding(file, 1, message=message))
        # Continue only if names follow in the first column. Otherwise each row would be a finding for the same fault.
        if len(header) == 1 or [name_fault(cells[0]) is None for _, cells in records[:2]] != [False, True]:
            rows.whole = False
            return rows
    widths = {len(cells) for _, cells in records[1:]}
    if len(records) > 2 and len(widths) == 1 and len(header) not in widths:  # the header is wrong, not the rows
        message = f"the header has {len(header)} columns and every row {widths.pop()}; name all columns, and no others"
        findings.append(Finding(file, 1, message=message))
        columns = len(records[1][1])
        header = [*header, *[""] * columns][:columns]
    for line, cells in records[1:]:
        name, captions = cells[0], tuple(cells[1:])
        if len(cells) != len(header):
            message = f"has {len(cells)} columns where the header has {len(header)}"
            if len(cells) > len(header):
                message += "; quote a caption that holds a comma"
            findings.append(Finding(file, line, message=message))
            captions = ()
        fault = name_fault(name)
        if fault:
            findings.append(Finding(file, line, tables.column_name(header, 0), fault))
            rows.refused.add(re.split(r"[/\\]", name)[-1])
            continue
        if name in rows.clips:
            message = f"{name!r} is listed twice, first on line {rows.clips[name][0]}; keep one row"
            findings.append(Finding(file, line, tables.column_name(header, 0), message))
            continue
        for index, caption in enumerate(captions, start=1):
            fault = text_fault(caption)
            if fault:
                findings.append(Finding(file, line, tables.column_name(header, index), fault))
        rows.clips[name] = (line, captions)
    if not records[1:] and rows.whole:
        findings.append(Finding(file, 1, message="has a header but no clips; add a row for each clip"))
        rows.whole = False
    return rows


def _repeats_a_name(records: list[tables.Record]) -> bool:
    names = [cells[0] for _, cells in records[1:]]
    return len(set(names)) < len(names)


def read_queries(path: Path, findings: list[Finding]) -> tuple[str, ...]:
    """Read the queries of a blind set, and add errors to the findings."""
    seen: dict[str, int] = {}
    file = path.name
    records, readable = tables.read_table(path, file, findings)
    header = records[0][1] if records else []
    if header != ["caption"] and (records or readable):
        found = printable(",".join(header)) or "nothing"
        message = f"the header must be caption, with a query on each line below; found {found}"
        findings.append(Finding(file, 1, message=message))
        return ()
    for line, cells in records[1:]:
        if len(cells) != 1:
            message = f"has {len(cells)} columns where the header has 1; quote a caption that holds a comma"
            findings.append(Finding(file, line, message=message))
            continue
        query = cells[0]
        fault = text_fault(query)
        if fault:
            findings.append(Finding(file, line, "caption", fault))
        elif query in seen:
            findings.append(Finding(file, line, "caption", f"is already on line {seen[query]}; keep one of them"))
        else:
            seen[query] = line
    if not records[1:] and readable:
        findings.append(Finding(file, 1, message="has a header but no queries; add a line for each query"))
    return tuple(seen)


def read_metadata(
    folder: Path, split: str, file_names: frozenset[str] | None, findings: list[Finding]
) -> dict[str, Mapping[str, str]]:
    """Return a dict from the name of each clip to its row of the metadata file, which may be missing.

    The kit's results do not depend on these rows, so all findings are warnings.
    """
    candidates = [folder / f"{prefix}metadata_{split}.csv" for prefix in ("", "clotho_")]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return {}
    raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        message = "is not read: must be UTF-8; this is UTF-16: save it as UTF-8"
        findings.append(Finding(path.name, message=message, severity=WARNING))
        return {}
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    problems: list[Finding] = []
    separator = ";" if text.startswith("file_name;") else ","
    records, _ = tables.parse_table(text, path.name, problems, separator)
    header = records[0][1] if records else []
    metadata: dict[str, Mapping[str, str]] = {}
    if header[:1] != ["file_name"]:
        problems.append(Finding(path.name, 1, message="is not read: the first column must be file_name"))
        records = []
    for line, cells in records[1:]:
        if len(cells) != len(header):
            message = f"has {len(cells)} columns where the header has {len(header)}"
            problems.append(Finding(path.name, line, message=message))
        elif file_names is not None and cells[0] not in file_names:
            problems.append(Finding(path.name, line, "file_name", f"{cells[0]!r} is not a clip of {split}"))
        else:
            metadata[cells[0]] = MappingProxyType(dict(zip(header, cells, strict=True)))
    findings += [replace(problem, severity=WARNING) for problem in problems]
    return metadata
