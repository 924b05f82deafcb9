"""Strict reading of CSV files, with the line of each record, and writing of CSV files that are safe in spreadsheets."""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from evaluation.findings import Faulty, Finding
from evaluation.text import printable

LONGEST_CELL = 10_000_000  # maximum number of characters; the default of Python's csv module is 131,072

Record = tuple[int, list[str]]  # the number of its first line, from 1, and its cells

_QUOTED = re.compile(b'"[^"]*"')
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")  # other bytes, as "surrogateescape" decodes them


def read_table(path: Path, file: str, findings: list[Finding], separator: str = ",") -> tuple[list[Record], bool]:
    """Read a CSV file in UTF-8, with or without BOM, with LF or CRLF.

    Bytes that are not UTF-8 are findings. They are then read as Windows-1252 (Latin-1), so that a name with such a byte
    still matches its audio file.

    Args:
        path: The file.
        file: Its name in findings.
        findings: The list to which findings are added.
        separator: The separator of the columns.

    Returns:
        All records, and True if the file could be read to its end.
    """
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        findings.append(Finding(file, message="must be UTF-8; this is UTF-16: save it as UTF-8"))
        return [], False
    if _is_binary(raw):
        findings.append(Finding(file, message="must be text in UTF-8; found binary data: save the table as CSV"))
        return [], False
    records, whole = parse_table(
        raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape"), file, findings, separator
    )
    if not raw.isascii():
        for line, cells in records:
            for index, cell in enumerate(cells):
                stray = _NOT_UTF_8.search(cell)
                if stray:
                    byte, letter = ord(stray[0]) - 0xDC00, _latin_1(stray)
                    message = f"must be UTF-8; byte 0x{byte:02X} is not (Latin-1 {letter!r}?): save the file as UTF-8"
                    findings.append(Finding(file, line, column_name(records[0][1], index), message))
                    cells[index] = _NOT_UTF_8.sub(_latin_1, cell)
    return records, whole


def _is_binary(raw: bytes) -> bool:
    """Return True if bytes are not a text in any encoding that extends ASCII: they have zeros, and are not UTF-8."""
    if b"\0" not in raw:
        return False
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _latin_1(stray: re.Match[str]) -> str:
    # Windows-1252 has letters and quotation marks where Latin-1 has control characters, which nobody intends.
    return bytes([ord(stray[0]) - 0xDC00]).decode("cp1252", "replace")


def separator(path: Path, file: str) -> str:
    """Return the separator of a file's columns: a tab if its first line has a tab, otherwise a comma.

    Raises:
        Faulty: The columns are separated by semicolons; `file` is the file's name in the finding.
    """
    with path.open("rb") as lines:
        first, second = lines.readline(), lines.readline()
    if b"\t" in first:
        return "\t"
    # Names and texts may contain both marks, even unquoted: the header's first cell and the next line decide.
    header, row = _QUOTED.sub(b"", first), _QUOTED.sub(b"", second)
    if header.count(b";") > header.count(b",") and b"," not in header.partition(b";")[0] and (b";" in row or not row):
        message = "columns must be separated by commas or tabs; found semicolons: save the file with commas"
        raise Faulty([Finding(file, 1, message=message)])
    return ","


def parse_table(text: str, file: str, findings: list[Finding], separator: str = ",") -> tuple[list[Record], bool]:
    """Read a text as `read_table` reads a file. A record with wrong quotes is a finding, and reading stops there."""
    limit = csv.field_size_limit(LONGEST_CELL)  # the module has one limit for all readers
    try:
        return _parse(text, file, findings, separator)
    finally:
        csv.field_size_limit(limit)


def _parse(text: str, file: str, findings: list[Finding], separator: str) -> tuple[list[Record], bool]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records: list[Record] = []
    line, blank = 1, 0
    try:
        for cells in reader:
            if not cells or (len(cells) == 1 and cells[0].isspace()):
                blank = blank or line
            else:
                if blank:  # blank lines at the end of a file are harmless
                    findings.append(Finding(file, blank, message="is a blank line; remove it"))
                    blank = 0
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        message = f"is not valid CSV ({error}); quote a cell that holds a comma or a quote, and double its quotes"
        findings.append(Finding(file, line, message=message))
        return records, False
    return records, True


def column_name(header: Sequence[str], index: int) -> str:
    """Return the name of a column for a finding: its name in the header, or its number if it has no name there."""
    if index < len(header) and header[index].strip():
        return header[index]
    return f"column {index + 1}"


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FORMULA_SIGNS = "=+-@\N{MINUS SIGN}"
_CELL_STARTS = re.compile(r"(^|;)( *)([^ ;][^;]*)")  # in locales with decimal commas, cells end at semicolons


def write_table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write rows as CSV in UTF-8, with LF at the end of each row, so that names and texts stay verbatim."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def spreadsheet(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV, with LF at the end of each row, so that spreadsheet programs do not evaluate the texts.

    Use this function for every CSV that people open and that contains texts from other people. Do not use it for
    predictions and outputs, whose names are compared verbatim.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([spreadsheet_cell(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def spreadsheet_cell(text: str) -> str:
    r"""Return a text that spreadsheet programs do not evaluate, with control characters as escapes.

    Programs read a text as a formula if it begins with =, +, - or @, possibly after blanks. Some programs also accept
    variants of these signs that Unicode's NFKC maps to them, such as full-width signs. This function puts an apostrophe
    before such a text, also after a semicolon, where some programs begin a new cell. Numbers do not change.

    >>> [spreadsheet_cell(text) for text in ("rain", " =1+1", "-0.5", "-0.5 dB", "\N{FULLWIDTH EQUALS SIGN}1")]
    ['rain', "' =1+1", '-0.5', "'-0.5 dB", "'\uff1d1"]
    """
    return _CELL_STARTS.sub(_guarded, printable(text))


def _guarded(cell: re.Match[str]) -> str:
    before, blanks, content = cell.groups()
    sign = unicodedata.normalize("NFKC", content[0])[0]
    if sign not in _FORMULA_SIGNS or _NUMBER.fullmatch(content.rstrip(" ")):
        return cell[0]
    return f"{before}'{blanks}{content}"
