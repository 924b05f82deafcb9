"""Output files that are tables: CSV files with a header and a row for each clip, query or question."""

import codecs
import csv
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.data import tables
from evaluation.data.cells import SOUND_SUFFIXES
from evaluation.findings import WARNING, Faulty, Finding
from evaluation.text import SHOWN, cut, printable
from submission.outputs import keys
from submission.outputs.form import LIMIT, MANY, Form
from submission.outputs.keys import Term

if TYPE_CHECKING:
    from submission.tasks import Task

CELLS = 6_000_000  # maximum number of cells; Clotho's validation split has 5.5 million (5225 captions by 1045 clips)
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}

Records = Sequence[tables.Record]


class Table(Form):
    """A form of output files that are tables.

    Attributes:
        field: The placeholder that the name of the columns after the first one must contain; empty if there is only one
            such column.
        term: The words for what the first cell of each row names.
        content: What the cells of a row contain, for messages about its width. `{}` stands for the number of cells
            after the first one.
        example: Further column names that the message about a wrong header shows.
    """

    facts: tuple[str, ...] = ("separator", "separators_accepted")
    field = ""
    term: Term
    content: str
    example: Sequence[str] = ()

    @abstractmethod
    def expected(self, split: Any) -> Sequence[str]:
        """Return the first cell of each row that a file for a split must contain."""

    @abstractmethod
    def rows(self, task: "Task", prediction: Any, split: Any, file: str) -> tuple[list[str], Iterable[Sequence[str]]]:
        """Return the header and the rows of an output file.

        Raises:
            BadRequest, Faulty: See `outputs.write`.
        """

    @abstractmethod
    def check_rows(
        self, task: "Task", header: list[str], records: Records, split: Any, file: str, lines: dict[str, int]
    ) -> Iterator[Finding]:
        """Yield the findings about the rows, except for missing and unknown first cells.

        Args:
            task: The task.
            header: The header of the file.
            records: The rows.
            split: The split that the file is for, or its name.
            file: The file's name in findings.
            lines: A dict to which the first cell of each row is added, with its line.
        """

    def check_facts(self, task: "Task") -> None:
        """Check that the columns have the fields of the form, and that there are separators."""
        fields = ["".join(re.findall(r"\{\w*\}", column)) for column in task.columns.value]
        if fields != ["", self.field]:
            message = f"columns.value must have two names for the form {task.form.value}: of the key and of the answer"
            if self.field:
                message += f", the second with {self.field}"
            raise ValueError(message)
        accepted = task.separators_accepted
        if task.separator and accepted and task.separator.value not in accepted.value:
            raise ValueError("separators_accepted.value must contain separator.value")

    def write(self, task: "Task", prediction: Any, split: Any, path: Path, file: str) -> None:
        """Write the header and the rows. The arguments are those of `outputs.write`."""
        header, rows = self.rows(task, prediction, split, file)
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, delimiter=separator_of(task), lineterminator=task.line_end.value)
            writer.writerow(header)
            writer.writerows(rows)

    def check(self, task: "Task", path: Path, split: Any, file: str) -> Iterator[Finding]:
        """Yield all findings about a table, in any order."""
        expected = self.expected_in(split)
        try:
            layout = read_layout(task, path, len(expected), self.term, file)
        except Faulty as faulty:
            yield from faulty.findings
            return
        if layout.bom:
            yield layout.bom
        unreadable: list[Finding] = []
        records, whole = tables.read_table(path, file, unreadable, layout.separator)
        header = records[0][1] if records else []
        if whole or records:
            faults, usable = self.check_header(task, header, split, file, layout.separator)
            yield from faults
            if not usable:  # all other findings would only follow from the wrong header
                return
        yield from unreadable
        if layout.separator != separator_of(task):
            found, usual = SEPARATORS[layout.separator], SEPARATORS[separator_of(task)]
            message = f"columns should be separated by {usual} in {task.name}; found {found}, which are accepted, too"
            yield Finding(file, 1, message=message, severity=WARNING)
        if not whole:  # otherwise the rows that cannot be read would be reported as missing
            return
        if layout.stray_line and not any("\r" in "".join(cells) for _, cells in records):
            message = "lines must end in LF or CRLF; found CR without LF: save the file with other line ends"
            yield Finding(file, layout.stray_line, message=message)
        column = task.columns.value[0]
        rows = records
        if header[0] == column or header[0] not in expected:  # otherwise the header is missing
            rows = records[1:]
        lines: dict[str, int] = {}
        yield from self.check_rows(task, header, rows, split, file, lines)
        yield from self.check_keys(task, path, split, file, lines)

    def expected_in(self, split: Any) -> Sequence[str]:
        """Return what `expected` returns, or nothing if the split is only a name."""
        if isinstance(split, str):
            return ()
        return self.expected(split)

    def check_keys(
        self, task: "Task", path: Path, split: Any, file: str, lines: Mapping[str, int]
    ) -> Iterator[Finding]:
        """Yield the findings about missing and unknown first cells, or about their number if the split is only a name.

        `lines` has the line of each first cell.
        """
        column = task.columns.value[0]
        if isinstance(split, str):
            yield from keys.check_count(task, split, path.name, len(lines), self.term, file, column)
        else:
            expected = self.expected(split)
            yield from keys.compare(lines, expected, self.term, split, file, lambda name: (lines.get(name, 0), column))

    def check_header(
        self, task: "Task", header: list[str], split: Any, file: str, separator: str
    ) -> tuple[Iterable[Finding], bool]:
        """Return the findings about the header, and whether the rows can be checked even so."""
        expected = task.header()
        if header == expected and expected[1:]:
            return (), True
        mark = separator_of(task)
        found = printable(cut(separator.join(header), 2 * SHOWN)) or "nothing"
        message = f"the header must be {mark.join([*expected, *self.example])}; found {found}"
        other = mark
        if len(header) == 1:
            other = max(SEPARATORS, key=header[0].count)
        if other != mark and other in header[0]:
            message += f"; separate the columns by {SEPARATORS[mark]}, not {SEPARATORS[other]}"
        else:
            message += _header_hint(header, expected)
        return [Finding(file, 1, message=message)], len(header) == len(expected) > 1

    def check_width(self, task: "Task", cells: Sequence[str], expected: int, file: str, line: int) -> Iterator[Finding]:
        """Yield a finding if a row does not have the expected number of cells."""
        if len(cells) == expected:
            return
        message = f"must have {expected} columns, {self.content.format(expected - 1)}; found {len(cells)}"
        if len(cells) > expected:
            message += f"; quote a cell that holds a {SEPARATORS[separator_of(task)][:-1]}"
        yield Finding(file, line, message=message)

    def add_key(self, lines: dict[str, int], key: str, line: int, task: "Task", file: str) -> Iterator[Finding]:
        """Add the first cell of a row to `lines`. Yield a finding if it is there already."""
        yield from keys.add_key(lines, key, line, self.term, file, task.columns.value[0])

    def layout_text(self, task: "Task") -> str:
        """Return the sentences about a table that all forms share, for participants."""
        return f"Columns are separated by {SEPARATORS[separator_of(task)]}."


def separator_of(task: "Task") -> str:
    """Return the separator of columns that the kit writes. Every task whose output is a table has one."""
    assert task.separator is not None  # noqa: S101, `Table.check_facts` has checked it
    return task.separator.value


class Layout(NamedTuple):
    """The layout of a file. It is found in the bytes, before they are read as CSV.

    Attributes:
        separator: The separator of columns.
        stray_line: The first line that ends in CR without LF; 0 if there is no such line.
        bom: A warning about a byte order mark; None if the file does not have one.
    """

    separator: str
    stray_line: int
    bom: Finding | None


def read_layout(task: "Task", path: Path, expected: int, term: Term, file: str) -> Layout:
    """Return the layout of a file.

    Args:
        task: The task.
        path: The file.
        expected: The expected number of rows; 0 if it is not known.
        term: The words for what a row answers.
        file: The file's name in findings.

    Raises:
        Faulty: The file is too large, has far too many lines, is not text, or has a wrong separator.
    """
    raw = read_bytes(path, file)
    first_line = re.split(rb"[\r\n]", raw, maxsplit=1)[0]
    usual = separator_of(task)
    accepted = [usual]
    if task.separators_accepted:
        accepted += task.separators_accepted.value
    separator = next((mark for mark in accepted if mark.encode() in first_line), usual)
    utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # `tables.read_table` reports it
    if not utf_16 and b"\0" in raw:
        message = "must be text; found a NUL byte: write the file again"
        raise Faulty([Finding(file, line_of(raw, raw.index(b"\0")), message=message)])
    line_feeds, returns = raw.count(b"\n"), raw.count(b"\r")
    if raw.count(separator.encode()) + line_feeds + returns > CELLS:
        raise Faulty([Finding(file, message=f"must not have more than {CELLS} cells; it does: is it an output file?")])
    lines = line_feeds
    stray = None
    if returns:  # otherwise the searches of a large file would be slow
        lines += returns - raw.count(b"\r\n")
        stray = re.search(rb"\r(?!\n)", raw)
    check_lines(lines, expected, term, file)
    bom = None
    if raw.startswith(codecs.BOM_UTF8):
        bom = Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING)
    other = max(SEPARATORS, key=lambda mark: first_line.count(mark.encode()))
    if b'"' in first_line and separator.encode() not in first_line and other.encode() in first_line:
        # If the file were read with the wrong separator, its quotes would be reported as invalid CSV.
        wanted = SEPARATORS[separator]
        message = f"columns must be separated by {wanted}; found {SEPARATORS[other]}: save the file with {wanted}"
        findings = [Finding(file, 1, message=message)]
        if bom:
            findings.insert(0, bom)
        raise Faulty(findings)
    stray_line = 0
    if stray and not utf_16:
        stray_line = line_of(raw, stray.start())
    return Layout(separator, stray_line, bom)


def read_bytes(path: Path, file: str) -> bytes:
    """Return the content of a file.

    Raises:
        Faulty: The file is larger than `LIMIT`.
    """
    size = path.stat().st_size
    if size > LIMIT:
        message = f"must not be larger than {LIMIT} bytes; found {size} bytes: is it an output file?"
        raise Faulty([Finding(file, message=message)])
    return path.read_bytes()


def check_lines(lines: int, expected: int, term: Term, file: str) -> None:
    """Check that a file does not have far more lines than expected.

    Without this check, the findings about all surplus lines would take minutes.

    Raises:
        Faulty: The file has far more lines.
    """
    if expected and lines > MANY * expected + 100:
        message = f"must have one line for each of {expected} {term.several}; found {lines} lines"
        raise Faulty([Finding(file, message=f"{message}: is it the right file?")])


def _header_hint(header: Sequence[str], expected: Sequence[str]) -> str:
    """Return the end of the message about a wrong header. It says what to do, or is empty if that is not clear."""
    if header[1:] == list(expected):
        return "; remove the first column, which only numbers the rows"
    if header[:1] and header[0].startswith("sep="):
        return "; remove this line, which only spreadsheet programs understand"
    if [name.strip().casefold() for name in header] == [name.casefold() for name in expected]:
        return "; blanks, and upper and lower case, must agree"
    if sorted(header) == sorted(expected):
        return "; put the columns in this order"
    if any(name.lower().endswith(SOUND_SUFFIXES) for name in header):
        return "; add the header line above this line"
    missing = [name for name in expected if name not in header]
    if missing and len(missing) < len(expected) and not set(header).difference(expected):
        return f"; add {' and '.join(missing)}"
    return ""


def line_of(raw: bytes, position: int) -> int:
    """Return the line that contains a byte, from 1. Lines end in LF, CR or CRLF."""
    return 1 + raw.count(b"\n", 0, position) + raw.count(b"\r", 0, position) - raw.count(b"\r\n", 0, position)
