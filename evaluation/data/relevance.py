"""Relevance files: the relevant clips of each query, optionally with grades, in the form of DCASE 2025 task 6."""

import ast
import sys
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evaluation.data import tables
from evaluation.data.cells import text_fault, unknown_clips
from evaluation.files import no_file
from evaluation.findings import Faulty, Finding
from evaluation.text import printable

Relevance = Mapping[str, frozenset[str] | Mapping[str, float]]  # from a query to names, or to names with grades above 0


def read_relevance(path: Path, file_names: Iterable[str], file: str = "") -> Relevance:
    """Read a relevance file with the header `query,audio_filenames`; the second column has Python lists of clip names.

    If there is a third column, `grades`, each query has a mapping of clips to grades. Clips of grade 0 are left out.

    Args:
        path: The file.
        file_names: The names of all clips.
        file: The file's name in findings (default: its path).

    Raises:
        Faulty: The file is not valid. The exception lists all findings.
    """
    findings: list[Finding] = []
    relevance = parse_relevance(path, file or str(path), frozenset(file_names), findings)
    if findings:
        raise Faulty(findings)
    return relevance


def chosen_relevance(choice: Path | None, captions: Relevance, file_names: Iterable[str]) -> Relevance | None:
    """Return the relevant clips that a user chose, or None for the data folder's own.

    Args:
        choice: A relevance file, `captions` for the clip of each caption, or None.
        captions: The clips of each caption.
        file_names: The names of all clips.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not valid. The exception lists all findings.
    """
    if choice == Path("captions"):
        return captions
    if not choice:
        return None
    if not choice.is_file():
        raise no_file(choice, "a relevance file or `captions`")
    return read_relevance(choice, file_names)


def parse_relevance(path: Path, file: str, file_names: frozenset[str] | None, findings: list[Finding]) -> Relevance:
    """Read a relevance file and add errors to the findings. If `file_names` is None, any name is accepted."""
    relevance: dict[str, frozenset[str] | Mapping[str, float]] = {}
    lines: dict[str, int] = {}
    records, readable = tables.read_table(path, file, findings)
    expected, header = ["query", "audio_filenames"], records[0][1] if records else []
    graded = header == [*expected, "grades"]
    if header != expected and not graded and (records or readable):
        found = printable(",".join(header)) or "nothing"
        findings.append(Finding(file, 1, message=f"the header must be {','.join(expected)}; found {found}"))
        return MappingProxyType(relevance)
    unknown: dict[str, list[int]] = {}  # from a name to the lines that list it
    for line, cells in records[1:]:

        def fault(column: str, message: str, line: int = line) -> None:
            findings.append(Finding(file, line, column, message))

        if len(cells) != len(header):
            message = f"has {len(cells)} columns where the header has {len(header)}; quote a cell that holds a comma"
            fault("", message)
            continue
        query, listed = cells[:2]
        names = _names_in(listed)
        query_fault = text_fault(query, "query")
        if query_fault:
            fault("query", query_fault)
        elif query in lines:
            fault("query", f"is already on line {lines[query]}; list all its clips in one row")
        grades = _grades_in(cells[2]) if graded else [1.0] * len(names)
        if not grades and graded:
            fault("grades", f"must be a list of finite numbers, 0 or more, like [2, 0.5]; found {cells[2]!r}")
        elif graded and not any(grades):
            fault("grades", "must not all be 0; give a relevant clip a grade above 0, or remove the query")
        if not names:
            fault("audio_filenames", f"must be a list of one or more names, like ['a.wav', 'b.wav']; found {listed!r}")
            continue
        if grades and len(grades) != len(names):
            fault("grades", f"must have one grade for each of the {len(names)} names; found {len(grades)}")
        for name in sorted({name for name in names if names.count(name) > 1}):
            fault("audio_filenames", f"lists {name!r} twice; once is enough")
        for name in dict.fromkeys(names):
            if file_names is not None and name not in file_names:
                unknown.setdefault(name, []).append(line)
        lines.setdefault(query, line)
        if graded:
            above_0 = {name: grade for name, grade in zip(names, grades, strict=False) if grade > 0}
            relevance.setdefault(query, MappingProxyType(above_0))
        else:
            relevance.setdefault(query, frozenset(names))
    if not records[1:] and readable:
        findings.append(Finding(file, 1, message="has a header but no queries; add a row for each query"))
    all_names = set(chain.from_iterable(relevance.values()))
    findings += unknown_clips(file, "audio_filenames", unknown, len(all_names), file_names or frozenset())
    return MappingProxyType(relevance)


def _list_in(cell: str) -> list[Any]:
    try:
        values = ast.literal_eval(cell)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return []
    if isinstance(values, list):
        return values
    return []


def _names_in(cell: str) -> list[str]:
    names = _list_in(cell)
    if all(isinstance(name, str) for name in names):
        return names
    return []


def _grades_in(cell: str) -> list[float]:
    grades = _list_in(cell)
    are_valid = all(type(grade) in (int, float) and 0 <= grade <= sys.float_info.max for grade in grades)
    if are_valid:
        return [float(grade) for grade in grades]
    return []
