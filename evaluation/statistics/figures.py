"""Figures of what factors do to a metric, as SVG and PNG; the same results give the same bytes.

Box plots of the runs by level of one factor, a box for each level of another (as Figure 3 of Weck et al. 2021), and
bars of the settings' mean by level of one factor, or of two (as their Figure 4). Where each bar is a single setting, as
in a sweep of one factor, it is the mean of that setting's runs with their SD (as Figure 2 of Weck et al. 2022), and
dots show the runs.
"""

from pathlib import Path
from statistics import fmean, stdev

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.files import replacing
from evaluation.statistics.factors import Result, Results, settings

# Okabe and Ito's, which people who see few colours tell apart; a factor with more levels is not told apart by colour.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
INK, GRID = "#333333", "#DDDDDD"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a dollar in a level's name is a dollar
    "svg.hashsalt": "dcase-kit",
    "svg.fonttype": "path",
}
FORMATS = {"svg": {"Date": None}, "png": {"Software": None}}  # what else the file would say of when and how
LONGEST = 28  # letters of a label
LETTER = 0.083  # inches
HIGH = 34  # letters beside the axis
DPI = 150


def draw(results: Results, by: str, folder: Path) -> list[Path]:
    """Draw every figure.

    Args:
        results: The results.
        by: The factor along the axis of figures of two factors.
        folder: Where to write them: `boxes-BY-FACTOR` and `bars-BY-FACTOR` for each other factor that colours can tell
            apart, and `bars-FACTOR` for each factor.

    Returns:
        The files.
    """
    written = []
    with rc_context(STYLE):
        for factor in results.factors:
            written += _save(_bars(results, factor), folder / f"bars-{_plain(factor)}")
            if factor != by and len(results.levels(factor)) <= len(COLOURS):
                written += _save(_boxes(results, by, factor), folder / f"boxes-{_plain(by)}-{_plain(factor)}")
                written += _save(_bars(results, by, factor), folder / f"bars-{_plain(by)}-{_plain(factor)}")
    return written


def _boxes(results: Results, by: str, factor: str) -> Figure:
    """Box plots of all runs: median, quartiles, and whiskers to the farthest run within 1.5 times their distance."""
    levels = results.levels(factor)
    figure, axes = _axes(results, by, factor)
    width = 0.8 / len(levels)
    for number, level in enumerate(levels):
        values = [[run.value for run in _runs(results, {by: place, factor: level})] for place in results.levels(by)]
        there = [(place, those) for place, those in enumerate(values) if those]
        drawn = axes.boxplot(
            [those for _, those in there],
            positions=[place + (number - (len(levels) - 1) / 2) * width for place, _ in there],
            widths=width * 0.8,
            patch_artist=True,
            medianprops={"color": INK, "linewidth": 1.5},
            whiskerprops={"color": INK},
            capprops={"color": INK},
            boxprops={"facecolor": COLOURS[number], "edgecolor": INK, "linewidth": 0.8},
            flierprops={"marker": ".", "markersize": 4, "markeredgecolor": INK},
            manage_ticks=False,
        )
        drawn["boxes"][0].set_label(_short(level))
    return _finished(figure, axes, results, by, factor)


def _bars(results: Results, by: str, factor: str | None = None) -> Figure:
    """Bars of all runs by level, or by level and level of another factor, with error bars of one SD.

    A bar is the mean over the means of its settings, with the SD of these. Where no bar has two settings, it is the
    mean over the runs of its setting, with their SD, and each run is a dot.
    """
    levels = results.levels(factor) if factor else ("",)
    names = results.levels(by)
    width = 0.8 / len(levels)
    bars: dict[tuple[int, int], list[Result]] = {}  # by number of the level, and place on the axis
    for number, level in enumerate(levels):
        for place, name in enumerate(names):
            chosen = {by: name} | ({factor: level} if factor else {})
            if runs := _runs(results, chosen):
                bars[number, place] = runs
    shows_runs = all(len(settings(runs, results.metric)) == 1 for runs in bars.values())
    figure, axes = _axes(results, by, factor)
    labelled = set()
    for (number, place), runs in bars.items():
        values = [run.value for run in runs]
        if not shows_runs:
            values = [one.mean for one in settings(runs, results.metric)]
        label = None
        if factor and number not in labelled:  # a level stands in the legend once
            label = _short(levels[number])
            labelled.add(number)
        middle = place + (number - (len(levels) - 1) / 2) * width
        axes.bar(
            middle,
            fmean(values),
            width * 0.9,
            yerr=stdev(values) if len(values) > 1 else None,
            color=COLOURS[number],
            ecolor=INK,
            capsize=3,
            label=label,
        )
        if shows_runs and len(values) > 1:
            beside = [middle + width * 0.25] * len(values)
            axes.plot(beside, values, ".", color=INK, markersize=5, markeredgecolor="white", markeredgewidth=0.5)
    what = f"mean and SD of {'runs' if shows_runs else 'settings'}"
    return _finished(figure, axes, results, by, factor, what)


def _runs(results: Results, levels: dict[str, str]) -> list[Result]:
    wanted = {results.factors.index(factor): level for factor, level in levels.items()}
    return [run for run in results.runs if all(run.levels[place] == level for place, level in wanted.items())]


def _axes(results: Results, by: str, factor: str | None) -> tuple[Figure, Axes]:
    """Empty axes, wide enough for the names below them and the legend beside them."""
    names, slant = _names(results, by)
    levels = [_short(level) for level in results.levels(factor)] if factor else []
    place = max(0.75, 0.32 * len(levels), 0 if slant else LETTER * (max(map(len, names)) + 2))
    legend = 0.6 + LETTER * max(map(len, [*levels, factor])) if factor else 0
    figure = Figure(figsize=(min(14, max(4.2, 1 + place * len(names) + legend)), 3.6), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _names(results: Results, by: str) -> tuple[list[str], bool]:
    """What stands below the axis, and whether it must slant."""
    names = [_short(name) for name in results.levels(by)]
    return names, max(map(len, names)) * len(names) > 80


def _finished(figure: Figure, axes: Axes, results: Results, by: str, factor: str | None, what: str = "") -> Figure:
    names, slant = _names(results, by)
    axes.set_xticks(range(len(names)), names, rotation=35 if slant else 0, ha="right" if slant else "center")
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xlabel(_short(by))
    label = _short(results.metric)
    if what:
        between = " " if len(f"{label} ({what})") <= HIGH else "\n"
        label = f"{label}{between}({what})"
    axes.set_ylabel(label)
    if factor:
        figure.legend(title=_short(factor), loc="outside right upper", frameon=False)
    return figure


def _save(figure: Figure, stem: Path) -> list[Path]:
    written = []
    for kind, metadata in FORMATS.items():
        path = stem.with_name(f"{stem.name}.{kind}")
        with replacing(path) as part:
            figure.savefig(part, format=kind, dpi=DPI, metadata=metadata)
        written.append(path)
    return written


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "+-_." else "-" for letter in text)
