"""The leaderboard as one page of HTML, that asks nothing of a network, runs nothing, and shows every text as text."""

import html as markup
import math
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256

from evaluation.findings import ERROR, NOTE, WARNING, limited, printable
from evaluation.report import number
from submission.board import ORGANISERS, Leaderboard, Package, Table, difference_cells, ranked, span, spans

ROW, AXIS = 38, 44  # pixels

STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--paper:#fff;--line:#d1d9e0;--band:#f6f8fa;--mark:#0a5cb8;
--bad:#b3261e;--other:#8a5a00}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b1;--paper:#0d1117;--line:#343b43;--band:#161b22;
--mark:#6db3ff;--bad:#ff8a80;--other:#e3b341}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:80rem;margin:0 auto;padding:1rem clamp(.75rem,3vw,2rem) 3rem}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.2rem 0 .8rem;padding-bottom:.2rem;border-bottom:1px solid var(--line)}
p,li,summary{overflow-wrap:anywhere}
.alarm{border:2px solid var(--bad);border-radius:.4rem;padding:.6rem .8rem;color:var(--bad)}
.wide{overflow-x:auto;margin:.8rem 0}
.wide:focus-visible,summary:focus-visible{outline:2px solid var(--mark)}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:100%}
caption{text-align:left;color:var(--soft);padding:.3rem 0}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
th,td{overflow-wrap:anywhere;min-width:4.5rem}
thead th{border-bottom:2px solid var(--line);overflow-wrap:normal}
tbody th{font-weight:600;min-width:11rem}
tbody tr:nth-child(even){background:var(--band)}
td b,td small,.number{white-space:nowrap;overflow-wrap:normal}
td small{color:var(--soft);display:block}
.number{min-width:3rem}
.said{min-width:9rem}
.published th,.published td{font-style:italic;font-weight:400;color:var(--soft)}
details{margin:.5rem 0}
summary{cursor:pointer}
.error{color:var(--bad)}
.warning{color:var(--other)}
svg{display:block;overflow:hidden;max-width:60rem;font-size:14px;fill:var(--ink)}
.grid{stroke:var(--line)}
.tick{text-anchor:middle;fill:var(--soft);font-size:13px}
.axis{font-weight:600}
svg text{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.span{stroke:var(--mark);stroke-width:2px}
.system circle{fill:var(--mark)}
.paper circle{fill:var(--paper);stroke:var(--soft);stroke-width:2px}
.paper text{fill:var(--soft);font-style:italic}
@media print{.wide{overflow:visible}}
"""


class _Html(str):
    """Text that is HTML already; any other is escaped."""


def html(board: Leaderboard) -> str:
    """One page with tables and plots, that asks nothing of a network and runs nothing."""
    title = f"{board.task.title} ({board.task.name}): leaderboard"
    main = [_element("h1", title), _element("p", board.about)]
    if board.alarm:
        main.append(_element("p", _element("strong", board.alarm), role="alert", class_="alarm"))
    for ranking in (board.teams, board.systems) if board.entries else ():
        main += [_element("h2", ranking.title), _plot(board, ranking), _ranking(board, ranking)]
        if ranking.neighbours:
            main.append(_neighbours(board, ranking))
    if board.entries:
        main += [_element("h2", "What the systems are"), _characteristics(board)]
    main += [_element("h2", "Packages"), *map(_package, board.packages)]
    if board.findings:
        main.append(_element("ul", *(_element("li", str(finding)) for finding in board.findings)))
    notes = [*board.notes, *(f"Signature: {signature}" for signature in board.signatures)]
    main += [_element("h2", "Notes"), _element("ul", *(_element("li", note) for note in notes))]
    # Nothing is loaded or run; of styles, this one alone is, whatever a submission smuggled in.
    digest = b64encode(sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = [
        _Html('<meta charset="utf-8">'),
        _Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        _Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        _element("title", title),
        _Html(f"<style>{STYLE}</style>"),
    ]
    parts = [_element("head", *head), _element("body", _element("main", *main))]
    page = _element("html", *parts, lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _ranking(board: Leaderboard, ranking: Table) -> _Html:
    heads = ["Rank", "Team", "System", *board.metrics, *board.missing]
    rows = []
    for rank, entry in ranking.rows:
        cells = [_element("td", ranked(rank), class_="number")]
        cells.append(_element("td", entry.team, dir="auto", class_="said"))
        cells.append(_element("th", entry.label, scope="row", dir="auto"))
        for name in board.metrics:
            measured = entry.score.metrics.get(name)
            value = number(measured.estimate.value) if measured else "–"
            around = _element("small", span(measured.estimate)) if measured else ""
            cells.append(_element("td", _element("b", value) if name == board.metric else value, " ", around))
        rows.append(_element("tr", *cells, *[_element("td", "not available")] * len(board.missing)))
    for figures in board.published:
        cells = [_element("td", "–", class_="number"), _element("td", f"{ORGANISERS}, not ranked", class_="said")]
        cells.append(_element("th", figures.system, scope="row", dir="auto"))
        cells += [_element("td", cell) for cell in board.published_cells(figures)]
        rows.append(_element("tr", *cells, class_="published"))
    return _table(f"{ranking.title}, ranked by {board.metric}, with 95 % intervals", heads, rows)


def _neighbours(board: Leaderboard, ranking: Table) -> _Html:
    heads = ["System", "less the next one", "Difference", "95 % interval", "p", "p (Holm)", "Mark"]
    rows = [
        _element(
            "tr",
            _element("th", d.system, scope="row", dir="auto"),
            _element("td", d.against, dir="auto", class_="said"),
            *(_element("td", cell, class_="number") for cell in difference_cells(d)),
        )
        for d in ranking.neighbours
    ]
    inner = _table(f"{ranking.title}: differences in {board.metric} between neighbours in rank", heads, rows)
    return _element("details", _element("summary", "Do neighbours differ?"), inner)


def _characteristics(board: Leaderboard) -> _Html:
    rows = [
        _element(
            "tr",
            _element("td", ranked(rank), class_="number"),
            _element("th", entry.label, scope="row", dir="auto"),
            *(_element("td", said or "–", dir="auto", class_="said") for said in entry.characteristics),
        )
        for rank, entry in board.systems.rows
    ]
    heads = [heading.capitalize() for heading in board.headings]
    return _table("Systems, as their metadata describe them", ["Rank", "System", *heads], rows)


def _plot(board: Leaderboard, ranking: Table) -> _Html:
    """The ranking metric of each system with its interval; lengths across are shares of the width there is."""
    marks = []  # what it is called, all of it, value, low, high, class
    for rank, entry in ranking.rows:
        measured = entry.score.metrics.get(board.metric)
        if rank and measured:
            e = measured.estimate
            name = entry.team if ranking.name == "teams" else entry.label
            marks.append((f"{rank}  {_clipped(printable(name))}", entry.label, e.value, e.low, e.high, "system"))
    for figures in board.published:
        if board.metric in figures.metrics:
            value, name = figures.metrics[board.metric], f"published: {figures.system}"
            marks.append((f"–  {_clipped(name)}", name, value, math.nan, math.nan, "paper"))
    if not marks:
        return _Html("")
    ends = [x for _, _, *numbers, _ in marks for x in numbers if math.isfinite(x)]
    ticks = _ticks(min(ends), max(ends))
    first, last = min(ticks[0], *ends), max(ticks[-1], *ends)

    def across(x: float) -> str:
        return f"{5 + 90 * (x - first) / (last - first):.3f}%"

    height = ROW * len(marks) + AXIS
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    parts = [
        _element("title", f"{ranking.title}: {board.metric} with 95 % intervals", id=f"plot-{ranking.name}"),
        _element("desc", "Best first. The same figures are in the table below.", id=f"plot-{ranking.name}-about"),
    ]
    for tick in ticks:
        x, y = across(tick), str(height - AXIS)
        parts.append(_element("line", x1=x, x2=x, y1="0", y2=y, class_="grid"))
        parts.append(_element("text", f"{tick:.{digits}f}", x=x, y=str(height - AXIS + 18), class_="tick"))
    parts.append(_element("text", board.metric, x="50%", y=str(height - 6), class_="tick axis"))
    for row, (name, whole, value, low, high, kind) in enumerate(marks):
        top = row * ROW
        y = str(top + 27)
        inner = [_element("title", f"{printable(whole)}: {number(value)} {spans(low, high)}".strip())]
        inner.append(_element("text", name, x="4", y=str(top + 16)))
        if math.isfinite(low) and math.isfinite(high):
            inner.append(_element("line", x1=across(low), x2=across(high), y1=y, y2=y, class_="span"))
            for end in map(across, (low, high)):
                inner.append(_element("line", x1=end, x2=end, y1=str(top + 23), y2=str(top + 31), class_="span"))
        inner.append(_element("circle", cx=across(value), cy=y, r="4.5"))
        parts.append(_element("g", *inner, class_=kind))
    label = f"plot-{ranking.name} plot-{ranking.name}-about"
    return _element("svg", *parts, role="img", width="100%", height=str(height), aria_labelledby=label)


def _element(name: str, *content: str, **attributes: str) -> _Html:
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{_escaped(x)}"' for key, x in attributes.items())
    inner = "".join(part if isinstance(part, _Html) else _escaped(part) for part in content)
    return _Html(f"<{name}{given}>{inner}</{name}>")


def _escaped(text: str) -> str:
    return markup.escape(printable(text))


def _table(caption: str, heads: Sequence[str], rows: Iterable[_Html]) -> _Html:
    head = _element("tr", *(_element("th", text, scope="col") if text else _element("td") for text in heads))
    parts = [_element("caption", caption), _element("thead", head), _element("tbody", *rows)]
    # What can be scrolled must be reached without a mouse.
    return _element("div", _element("table", *parts), class_="wide", tabindex="0", role="region", aria_label=caption)


def _package(package: Package) -> _Html:
    if not package.findings:
        return _element("p", str(package))
    order = sorted(package.findings, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.severity))
    items = [_element("li", str(finding), class_=finding.severity) for finding in limited(order)]
    return _element("details", _element("summary", str(package)), _element("ul", *items))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, evenly spaced, two or more from below `low` to above `high`.

    >>> _ticks(0.12, 0.31)
    [0.1, 0.15, 0.2, 0.25, 0.3, 0.35]
    """
    width = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(width / 4))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= width / 5 * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _clipped(text: str, columns: int = 40) -> str:
    """Cut a text in its middle to what has room on a small screen; letters of some scripts take two columns.

    >>> _clipped("Nobody_Nowhere_task6_1", 12)
    'Nobod…sk6_1'
    """

    def wide(part: str) -> int:
        return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in part)

    if wide(text) <= columns:
        return text
    kept = next(n for n in range(columns // 2, 0, -1) if wide(text[:n] + text[-n:]) < columns)
    return f"{text[:kept]}…{text[-kept:]}"
