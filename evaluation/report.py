"""Tables and numbers as text, CSV, LaTeX and JSON, for people and for papers.

A table is a pandas DataFrame. The named levels of its index, which name a row, become the first columns; the columns of
the DataFrame follow. `text` and `latex` take a format for each column of numbers: a function that returns the text of a
cell, such as `number`, `p_value` or `str`. These columns are aligned right. `csv` writes full precision.

    print(report.text(table, {"value": report.number, "p": report.p_value}))

This module does not import pandas, so that commands without a table start quickly.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evaluation.data.tables import spreadsheet
from evaluation.files import replacing
from evaluation.text import printable
from evaluation.text import table as lay_out

if TYPE_CHECKING:
    import pandas as pd

Formats = Mapping[str, Callable[[Any], str]]  # from a column's name to the function that formats its cells

NO_FORMATS: Formats = MappingProxyType({})
NOTHING = "–"  # replaces a number that does not exist
DASH, BRACKETS, PARENTHESES = "{} – {}", "[{}, {}]", "({}–{})"  # forms of an interval


# Numbers --------------------------------------------------------------------------------------------------------------


def number(value: float | None, decimals: int | None = None, *, signed: bool = False) -> str:
    """Format a number.

    Args:
        value: The number; None, NaN and infinity give a dash.
        decimals: Number of decimals (default: 3, or 1 if the number has two or more digits before the point).
        signed: Put a plus sign before a number of zero or more.

    >>> number(0.12345), number(12.345), number(0.5, 4, signed=True), number(None)
    ('0.123', '12.3', '+0.5000', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if decimals is None:
        decimals = 3 if abs(value) < 10 else 1
    if signed:
        return f"{value:+z.{decimals}f}"
    return f"{value:z.{decimals}f}"  # z: no minus sign before zero


def interval(
    low: float | None,
    high: float | None,
    form: str = DASH,
    decimals: int | None = None,
    *,
    signed: bool = False,
) -> str:
    """Format an interval.

    Args:
        low: The lower end.
        high: The upper end. If an end is None or not finite, the text is a dash.
        form: `DASH`, `BRACKETS` or `PARENTHESES`.
        decimals: As in `number`.
        signed: As in `number`.

    >>> interval(0.1, 0.2), interval(-0.1, 0.2, BRACKETS, signed=True), interval(None, None)
    ('0.100 – 0.200', '[-0.100, +0.200]', '–')
    """
    ends = [number(end, decimals, signed=signed) for end in (low, high)]
    if NOTHING in ends:
        return NOTHING
    return form.format(*ends)


def with_interval(value: float, low: float | None, high: float | None, decimals: int | None = None) -> str:
    """Format a number, followed by its interval in parentheses if both ends are finite.

    >>> with_interval(0.139, 0.131, 0.146), with_interval(0.139, None, None)
    ('0.139 (0.131–0.146)', '0.139')
    """
    ends = interval(low, high, PARENTHESES, decimals)
    if ends == NOTHING:
        return number(value, decimals)
    return f"{number(value, decimals)} {ends}"


def p_value(p: float) -> str:
    """Format a p value.

    >>> p_value(0.03125), p_value(0.00002)
    ('0.0312', '<0.0001')
    """
    if p >= 0.0001:
        return f"{p:.4f}"
    return "<0.0001"


def marks(p: float) -> str:
    """Return the stars of a p value: * below 0.05, ** below 0.01, *** below 0.001.

    >>> marks(0.03), marks(0.0001), marks(0.05)
    ('*', '***', '')
    """
    levels = [level for level in (0.05, 0.01, 0.001) if p < level]
    return "*" * len(levels)


# Tables ---------------------------------------------------------------------------------------------------------------


def text(table: "pd.DataFrame", formats: Formats = NO_FORMATS) -> str:
    """Format a table as text, one row on each line.

    Args:
        table: The table.
        formats: For each column of numbers, the function that formats a cell.
    """
    heads, rows, numbers = _cells(table, formats)
    lines = lay_out(rows, heads, numbers).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def csv(table: "pd.DataFrame") -> str:
    """Format a table as CSV at full precision.

    None and NaN become empty cells. Texts are changed so that spreadsheet programs do not evaluate them.
    """
    heads, rows = _contents(table)
    lines: list[Sequence[object]] = [heads]
    for row in rows:
        lines.append(["" if _is_missing(cell) else cell for cell in row])
    return spreadsheet(lines)


def latex(table: "pd.DataFrame", formats: Formats = NO_FORMATS, formulas: Sequence[str] = ()) -> str:
    """Format a table as a LaTeX tabular that needs no package.

    There is a rule above each row whose first cell is not empty.

    Args:
        table: The table.
        formats: As in `text`.
        formulas: Columns of numbers to set in LaTeX's math mode.
    """
    heads, rows, numbers = _cells(table, formats)
    align = ["r" if column in numbers else "l" for column in range(len(heads))]
    lines = [rf"\begin{{tabular}}{{{''.join(align)}}}", r"\hline", _latex_row(map(latex_text, heads))]
    for row in rows:
        if row[0]:
            lines.append(r"\hline")
        cells = []
        for head, cell in zip(heads, row, strict=True):
            is_formula = head in formulas and cell not in ("", NOTHING)
            cells.append(f"${cell}$" if is_formula else latex_text(cell))
        lines.append(_latex_row(cells))
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


def booktabs(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format rows as a LaTeX tabular with the rules of the package booktabs.

    Args:
        heads: The heads of the columns.
        rows: The cells of each row. The first one is a text; the others are LaTeX, and are aligned right.
    """
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule", _latex_row(map(latex_text, heads))]
    lines.append(r"\midrule")
    for name, *cells in rows:
        lines.append(_latex_row([latex_text(name), *cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def save_json(content: Any, path: Path) -> None:
    """Write content as JSON at full precision, completely or not at all.

    Raises:
        ValueError: The content has NaN or infinity, which JSON cannot represent.
    """
    formatted = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as part:
        # A name may contain a lone surrogate, which UTF-8 cannot encode. Its escape is also valid JSON.
        part.write_text(formatted, encoding="utf-8", errors="backslashreplace")


def _is_missing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _contents(table: "pd.DataFrame") -> tuple[list[str], list[list[Any]]]:
    """Return the heads and rows of a table; the named levels of its index come first."""
    levels = [name for name in table.index.names if name is not None]
    rows = []
    for key, values in zip(table.index, table.itertuples(index=False, name=None), strict=True):
        names = []
        if levels:
            names = list(key) if isinstance(key, tuple) else [key]
        rows.append([*names, *values])
    return [*levels, *table.columns], rows


def _cells(table: "pd.DataFrame", formats: Formats) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the heads, the formatted rows, and the indices of the columns of numbers."""
    heads, rows = _contents(table)
    levels = len(heads) - len(table.columns)
    numbers = [column for column, head in enumerate(heads) if column >= levels and head in formats]
    formatted = []
    for row in rows:
        cells = [str(cell) for cell in row]
        for column in numbers:
            cells[column] = formats[heads[column]](row[column])
        formatted.append([printable(cell) for cell in cells])
    return [printable(head) for head in heads], formatted, numbers


_LATEX = {letter: f"\\{letter}" for letter in "&%_#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
}
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def latex_text(text: str) -> str:
    r"""Return a text with LaTeX's special characters escaped.

    >>> latex_text("95 % of a_b")
    '95 \\% of a\\_b'
    """
    return _LATEX_SPECIAL.sub(lambda match: _LATEX[match[0]], text)


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
