"""The leaderboard as HTML: a page to publish, and a private page with the findings of the packages.

Both pages load no other file and run no script. Every text is shown as text.
"""

import io
import math
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import matplotlib.axes
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.findings import ERROR, NOTE, WARNING, Finding, limited
from evaluation.metrics.catalogue import heading
from evaluation.pages import page_environment, policy_source
from evaluation.report import NOTHING, number
from evaluation.text import printable
from submission.ranking import Leaderboard, Ranking, difference_cells, find_track, interval_text, shown_estimate
from submission.scoring import ScoredPackage, ScoredSystem

TEMPLATES = Path(__file__).parent / "templates"
WIDE, NARROW = 960, 360  # widths of the two plots of a ranking in pixels; the style sheet shows one of them
ROW, AXIS = 30, 44  # height of a row and of the axis in pixels
LETTER = 7.4  # mean width of a letter of a label in pixels
# The style sheet replaces these colours in dark mode; leaderboard.css must have the same values.
INK, SOFT, PAPER, GRID, MARK = "#1f2328", "#59636e", "#ffffff", "#d1d9e0", "#0a5cb8"
SVG = "{http://www.w3.org/2000/svg}"
SHOWN_ELSEWHERE = ("external data", "ensemble")  # aspects that have columns in another table
PARAMETERS = "system.complexity.total_parameters"


# Pages ----------------------------------------------------------------------------------------------------------------


def html(board: Leaderboard, title: str = "leaderboard") -> str:
    """Return the page to publish, with tables, plots and notes. It does not contain any finding.

    Args:
        board: The leaderboard.
        title: The kind of page, for its heading.
    """
    rankings = []
    if board.entries:
        rankings = board.rankings
    shown_aspects = [name for name in board.aspects if name not in SHOWN_ELSEWHERE]
    plots = {}
    for ranking in rankings:
        if _marks(board, ranking):
            drawings = [svg(board, ranking, width) for width in (WIDE, NARROW)]
            plots[ranking.slug] = [Markup(drawing) for drawing in drawings]  # noqa: S704, ElementTree has escaped them
    return _page(
        "leaderboard.html.j2",
        board=board,
        title=title,
        rankings=rankings,
        plots=plots,
        heading=heading,
        number=number,
        chance=[(heading(name), number(level)) for name, level in board.chance.items()],
        about={system.label: _about(board, system) for system in board.entries},
        shown_aspects=shown_aspects,
        methods=board.methods(shown_aspects),
        metadata=[(system, _metadata_rows(system)) for system in board.entries],
        difference_cells=difference_cells,
    )


def findings_html(board: Leaderboard) -> str:
    """Return the private page with all findings, grouped by package. The packages with errors are first."""
    packages = [(package, _shown_findings(package)) for package in board.packages]
    packages.sort(key=lambda each: bool(each[0].systems))  # a stable sort: packages without systems are first
    return _page("findings.html.j2", board=board, packages=packages)


def _page(template: str, **content: object) -> str:
    """Return a page made from a template.

    Jinja2 escapes every text. In addition, the page's Content Security Policy allows only the page's own style sheet.
    Even if a text were not escaped, a browser would therefore load and run nothing else.
    """
    environment = page_environment(TEMPLATES)
    environment.filters["heading"] = heading
    environment.filters["breakable"] = _breakable
    style = (TEMPLATES / "leaderboard.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        style=Markup(style),  # noqa: S704, the file is part of the kit
        policy=Markup(f"default-src 'none'; style-src {policy_source(style)}; base-uri 'none'; form-action 'none'"),  # noqa: S704
        **content,
    )


def _breakable(label: str) -> Markup:
    """Return a label as HTML that a browser may break after each underscore."""
    parts = [escape(part) for part in printable(label).split("_")]
    return Markup("_<wbr>").join(parts)


def _shown_findings(package: ScoredPackage) -> list[Finding]:
    """Return the findings of a package, errors first, with a limited number of each kind."""
    order = (ERROR, WARNING, NOTE)
    return limited(sorted(package.findings, key=lambda finding: order.index(finding.severity)))


@dataclass(frozen=True)
class About:
    """What the page says about a system.

    Attributes:
        name: Its name, from its metadata.
        authors: The names of its authors.
        institutes: Their institutes.
        report: The link to its technical report, relative to the page; empty if there is none.
        external_data: The external data sets that it uses.
        ensemble: Whether it is an ensemble.
        parameters: The number of its parameters.
        track: Its track; empty if the task has no tracks.
    """

    name: str
    authors: str
    institutes: str
    report: str
    external_data: str
    ensemble: str
    parameters: str
    track: str


def _about(board: Leaderboard, system: ScoredSystem) -> About:
    authors = []
    institutes: dict[str, None] = {}
    for author in _author_keys(system):
        parts = [system.text(f"{author}.{key}") for key in ("firstname", "lastname")]
        authors.append(" ".join(part for part in parts if part))
        institute = system.text(f"{author}.affiliation.institute") or system.text(f"{author}.affiliation.abbreviation")
        if institute:
            institutes[institute] = None
    return About(
        name=system.text("submission.name"),
        authors=", ".join(authors),
        institutes="; ".join(institutes),
        report=quote(board.report_link(system).encode("utf-8", "replace")),
        external_data=system.text("system.external_datasets") or NOTHING,
        ensemble=system.text("system.description.ensemble") or NOTHING,
        parameters=_with_separators(system.text(PARAMETERS)) or NOTHING,
        track=find_track(board.task, system) or NOTHING,
    )


def _author_keys(system: ScoredSystem) -> list[str]:
    """Return the keys of a system's authors, such as `submission.authors.1`, in the order of the metadata."""
    keys: dict[str, None] = {}
    for path in system.metadata:
        parts = path.split(".")
        if parts[:2] == ["submission", "authors"]:
            keys[".".join(parts[:3])] = None
    return list(keys)


def _with_separators(text: str) -> str:
    """Return a whole number with commas between groups of three digits; leave any other text unchanged.

    >>> _with_separators("732354"), _with_separators("about 1M")
    ('732,354', 'about 1M')
    """
    if text.isascii() and text.isdigit():
        return f"{int(text):,}"
    return text


def _metadata_rows(system: ScoredSystem) -> list[tuple[str, str]]:
    """Return the keys below `system` in a system's metadata, with their values."""
    rows = []
    for key, text in system.metadata.items():
        if key.startswith("system."):
            rows.append((key.removeprefix("system."), text))
    return rows


# Plots ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """One row of a plot. Published results have no interval, so both ends are NaN."""

    name: str
    tooltip: str
    value: float
    low: float
    high: float
    is_system: bool


def _marks(board: Leaderboard, ranking: Ranking) -> list[Mark]:
    """Return the rows of a plot: the ranked systems, the best one first, and then the published results."""
    marks = []
    for rank, system in ranking.rows:
        measured = system.score.metrics.get(board.metric)
        if not rank or not measured:
            continue
        name = system.label
        if ranking.name == "teams":
            name = system.team
        estimate = shown_estimate(measured)
        marks.append(
            Mark(
                f"{rank}  {printable(name)}",
                printable(system.label),
                estimate.value,
                estimate.low,
                estimate.high,
                not system.is_baseline,
            )
        )
    for baseline in [] if ranking.track else board.published:
        if board.metric in baseline.metrics:
            name = f"published: {printable(baseline.system)}"
            value = baseline.metrics[board.metric]
            marks.append(Mark(f"{NOTHING}  {name}", name, value, math.nan, math.nan, is_system=False))
    return marks


def figure(board: Leaderboard, ranking: Ranking, width: int = WIDE) -> Figure:
    """Plot the metric that ranks, with its interval, for each system of a ranking.

    The names are to the left of the axes and take at most 45 % of the width.

    Args:
        board: The leaderboard.
        ranking: The ranking to plot.
        width: Width of the plot in pixels.
    """
    marks = _marks(board, ranking)
    letters = int(0.45 * width / LETTER)
    names = [_shortened(mark.name, letters) for mark in marks]
    labels = (max(map(_columns, names)) + 2) * LETTER
    height = ROW * len(marks) + AXIS
    drawing = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = drawing.add_axes((labels / width, AXIS / height, 0.97 - labels / width, 1 - AXIS / height))
    for row, mark in enumerate(marks):
        _draw(axes, row, mark)
    axes.set_ylim(len(marks) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4 if width == NARROW else 8, steps=[1, 2, 5, 10]))
    axes.set_yticks(range(len(marks)), names)
    for label, mark in zip(axes.get_yticklabels(), marks, strict=True):
        label.set_parse_math(False)  # Matplotlib must not read a name as TeX
        label.set(fontsize=13, color=INK)
        if not mark.is_system:
            label.set(color=SOFT, style="italic")
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", labelsize=13, labelcolor=SOFT)
    axes.set_xlabel(heading(board.metric), color=SOFT, fontsize=13, fontweight="bold")
    axes.spines[:].set_visible(False)
    return drawing


def _draw(axes: matplotlib.axes.Axes, row: int, mark: Mark) -> None:
    """Draw the interval and the value of one row."""
    if math.isfinite(mark.low) and math.isfinite(mark.high):
        axes.plot([mark.low, mark.high], [row, row], color=MARK, linewidth=2, marker="|", markersize=8)
    face, edge = MARK, MARK
    if not mark.is_system:
        face, edge = PAPER, SOFT
    axes.plot([mark.value], [row], marker="o", markersize=9, color=face, markeredgecolor=edge, gid=f"mark-{row}")


def svg(board: Leaderboard, ranking: Ranking, width: int = WIDE) -> str:
    """Return the plot of a ranking as SVG for the page.

    The page's Content Security Policy blocks `style` attributes, so attributes of SVG replace them. Each system has a
    tooltip with its label, its value and its interval.
    """
    salt = f"leaderboard {ranking.slug} {width}"
    settings = {"svg.fonttype": "none", "svg.hashsalt": salt, "font.sans-serif": "DejaVu Sans"}
    file = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser draws the texts with its own fonts
        figure(board, ranking, width).savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(file.getvalue())  # noqa: S314, Matplotlib wrote it
    _move_styles(root)
    _replace_ids(root, _marks(board, ranking))
    name = f"plot-{ranking.slug}-{width}"
    title = ElementTree.Element(f"{SVG}title", id=name)
    title.text = f"{ranking.title}: {heading(board.metric)} with 95 % intervals"
    about = ElementTree.Element(f"{SVG}desc", id=f"{name}-about")
    about.text = "The best is first. The same numbers are in the table below."
    content = [element for element in root if element.tag != f"{SVG}metadata" and not element.findall(f"{SVG}style")]
    viewbox = root.attrib["viewBox"]
    root.clear()
    shown = "wide-plot" if width == WIDE else "narrow-plot"
    root.attrib = {"viewBox": viewbox, "class": shown, "role": "img", "aria-labelledby": f"{name} {name}-about"}
    root.extend([title, about, *content])
    ElementTree.register_namespace("", SVG.strip("{}"))
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode")


def _move_styles(root: ElementTree.Element) -> None:
    """Replace the `style` attributes of a drawing by attributes of SVG."""
    for element in root.iter():
        for declaration in element.attrib.pop("style", "").split(";"):
            key, _, setting = declaration.partition(":")
            if key.strip():
                element.set(key.strip(), setting.strip())


def _replace_ids(root: ElementTree.Element, marks: Sequence[Mark]) -> None:
    """Remove the ids of groups, which are the same in every plot of the page, and add a tooltip to each mark."""
    tooltips = {}
    for row, mark in enumerate(marks):
        tooltips[f"mark-{row}"] = f"{mark.tooltip}: {number(mark.value)} {interval_text(mark.low, mark.high)}".strip()
    for element in root.iter(f"{SVG}g"):
        tooltip = tooltips.get(element.attrib.pop("id", ""))
        if tooltip:
            title = ElementTree.Element(f"{SVG}title")
            title.text = tooltip
            element.insert(0, title)


def _shortened(text: str, columns: int) -> str:
    """Shorten a text in the middle so that it fits into some columns. Letters of some scripts take two columns.

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
