"""The leaderboard as an HTML page that loads no other file and runs no script. Every text is shown as text."""

import io
import math
import unicodedata
import warnings
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.findings import ERROR, NOTE, WARNING, Finding, limited
from evaluation.report import number
from evaluation.text import printable
from submission.ranking import Leaderboard, Ranking, difference_cells, interval_text
from submission.scoring import ScoredPackage

TEMPLATES = Path(__file__).parent / "templates"
WIDTH, ROW, AXIS = 960, 38, 44  # width of a plot, height of a row, height of the axis, in pixels
# The style sheet replaces these colours in dark mode; leaderboard.css must have the same values.
INK, SOFT, PAPER, GRID, MARK = "#1f2328", "#59636e", "#ffffff", "#d1d9e0", "#0a5cb8"
SVG = "{http://www.w3.org/2000/svg}"


def html(board: Leaderboard) -> str:
    """Return the page with tables, plots, findings and notes.

    Jinja2 escapes every text. In addition, the page's Content Security Policy allows only the page's own style sheet.
    Even if a text were not escaped, a browser would therefore load and run nothing else.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (TEMPLATES / "leaderboard.css").read_text(encoding="utf-8")
    digest = b64encode(sha256(style.encode()).digest()).decode()
    rankings = []
    if board.entries:
        rankings = [board.teams, board.systems]
    plots = {}
    for ranking in rankings:
        if _marks(board, ranking):
            plots[ranking.name] = Markup(svg(board, ranking))  # noqa: S704, ElementTree has escaped its texts
    return environment.get_template("leaderboard.html.j2").render(
        board=board,
        rankings=rankings,
        plots=plots,
        packages=[(package, _shown_findings(package)) for package in board.packages],
        characteristics=[heading.capitalize() for heading in board.headings],
        difference_cells=difference_cells,
        style=Markup(style),  # noqa: S704, the file is part of the kit
        policy=Markup(f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"),  # noqa: S704
    )


def _printable(value: object) -> object:
    """Return a value as text without control characters; leave markup unchanged."""
    if isinstance(value, Markup):
        return value
    return printable(str(value))


def _shown_findings(package: ScoredPackage) -> list[Finding]:
    """Return the findings of a package, errors first, with a limited number of each kind."""
    order = (ERROR, WARNING, NOTE)
    return limited(sorted(package.findings, key=lambda finding: order.index(finding.severity)))


# Plots ----------------------------------------------------------------------------------------------------------------


def _marks(board: Leaderboard, ranking: Ranking) -> list[tuple[str, str, float, float, float]]:
    """Return the rows of a plot: short name, full name, value, and both ends of the interval.

    The ranked systems are first, the best one at the top. The published results follow. They have no interval, so both
    ends are NaN.
    """
    marks = []
    for rank, system in ranking.rows:
        measured = system.score.metrics.get(board.metric)
        if rank and measured:
            estimate = measured.estimate
            name = system.label
            if ranking.name == "teams":
                name = system.team
            short = f"{rank}  {_shortened(printable(name))}"
            marks.append((short, printable(system.label), estimate.value, estimate.low, estimate.high))
    for baseline in board.published:
        if board.metric in baseline.metrics:
            name = f"published: {printable(baseline.system)}"
            marks.append((f"–  {_shortened(name)}", name, baseline.metrics[board.metric], math.nan, math.nan))
    return marks


def figure(board: Leaderboard, ranking: Ranking) -> Figure:
    """Plot the metric that ranks, with its interval, for each system of a ranking."""
    marks = _marks(board, ranking)
    height = ROW * len(marks) + AXIS
    drawing = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = drawing.add_axes((0.05, AXIS / height, 0.9, 1 - AXIS / height))
    for row, (name, _, value, low, high) in enumerate(marks):
        published = name.startswith("–")
        # parse_math=False: Matplotlib must not read a name as TeX.
        axes.text(
            4 / WIDTH, row + 0.42, name, transform=axes.get_yaxis_transform(), fontsize=14, parse_math=False,
            color=SOFT if published else INK, style="italic" if published else "normal",
        )  # fmt: skip
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [row + 0.71] * 2, color=MARK, linewidth=2, marker="|", markersize=8)
        face = PAPER if published else MARK
        edge = SOFT if published else MARK
        axes.plot([value], [row + 0.71], marker="o", markersize=9, color=face, markeredgecolor=edge, gid=f"mark-{row}")
    axes.set_ylim(len(marks), 0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_yticks([])
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0, labelsize=13, labelcolor=SOFT)
    axes.set_xlabel(board.metric, color=SOFT, fontsize=13, fontweight="bold")
    axes.spines[:].set_visible(False)
    return drawing


def svg(board: Leaderboard, ranking: Ranking) -> str:
    """Return the plot of a ranking as SVG for the page.

    The page's Content Security Policy blocks `style` attributes, so attributes of SVG replace them. Each system has a
    tooltip with its label, its value and its interval.
    """
    settings = {"svg.fonttype": "none", "svg.hashsalt": f"leaderboard {ranking.name}", "font.sans-serif": "DejaVu Sans"}
    file = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser draws the texts with its own fonts
        figure(board, ranking).savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(file.getvalue())  # noqa: S314, Matplotlib wrote it
    tooltips = {}
    for row, (_, name, value, low, high) in enumerate(_marks(board, ranking)):
        tooltips[f"mark-{row}"] = f"{name}: {number(value)} {interval_text(low, high)}".strip()
    for element in root.iter():
        for declaration in element.attrib.pop("style", "").split(";"):
            key, _, setting = declaration.partition(":")
            if key.strip():
                element.set(key.strip(), setting.strip())
        if element.tag == f"{SVG}g":  # remove the ids of groups: they are the same in every plot of the page
            tooltip = tooltips.get(element.attrib.pop("id", ""))
            if tooltip:
                title = ElementTree.Element(f"{SVG}title")
                title.text = tooltip
                element.insert(0, title)
    name = f"plot-{ranking.name}"
    title = ElementTree.Element(f"{SVG}title", id=name)
    title.text = f"{ranking.title}: {board.metric} with 95 % intervals"
    about = ElementTree.Element(f"{SVG}desc", id=f"{name}-about")
    about.text = "The best is first. The same numbers are in the table below."
    content = [element for element in root if element.tag != f"{SVG}metadata" and not element.findall(f"{SVG}style")]
    viewbox = root.attrib["viewBox"]
    root.clear()
    root.attrib = {"viewBox": viewbox, "role": "img", "aria-labelledby": f"{name} {name}-about"}
    root.extend([title, about, *content])
    ElementTree.register_namespace("", SVG.strip("{}"))
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode")


def _shortened(text: str, columns: int = 40) -> str:
    """Shorten a text in the middle so that it fits on a small screen. Letters of some scripts take two columns.

    >>> _shortened("Nobody_Nowhere_task6_1", 12)
    'Nobod…sk6_1'
    """
    if _columns(text) <= columns:
        return text
    kept = columns // 2
    while _columns(text[:kept] + text[-kept:]) >= columns:
        kept -= 1
    return f"{text[:kept]}…{text[-kept:]}"


def _columns(text: str) -> int:
    """Return the number of columns that a text takes in a font of fixed width."""
    return len(text) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
