"""Figures of the effects of factors on a metric, as SVG and PNG. The same results give identical files.

- Box plots show the runs. One factor is on the horizontal axis, and each level of another factor has a box, as in
  Figure 3 of Weck et al. 2021.
- Bars show the mean over settings for each level of one or two factors, as in Figure 4 of Weck et al. 2021. Error bars
  show one SD.
- If each bar is a single setting, as in a sweep of one factor, the bar shows the mean over the runs of this setting,
  and the error bar shows their SD, as in Figure 2 of Weck et al. 2022. Dots show the runs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evaluation.files import replacing
from evaluation.statistics.factors import Results, settings

# The colours of Okabe and Ito, which colour-blind people can distinguish. A factor with more levels is not shown by
# colours.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
INK, GRID = "#333333", "#DDDDDD"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a dollar sign in a level's name does not start a formula
    "svg.hashsalt": "dcase-kit",
    "svg.fonttype": "path",
}
FORMATS = {"svg": {"Date": None}, "png": {"Software": None}}  # removes metadata that depend on the time or on a version
LONGEST = 28  # the maximum number of letters in a label
LETTER = 0.083  # the width of a letter in inches
HIGH = 34  # number of letters that fit along the vertical axis, which is shorter if the names below are slanted
DPI = 150


def draw(results: Results, by: str, folder: Path) -> list[Path]:
    """Draw all figures.

    Args:
        results: The results.
        by: The factor on the horizontal axis of figures with two factors.
        folder: The output folder. Figures in it are `bars-FACTOR` for each factor, and `boxes-BY-FACTOR` and
            `bars-BY-FACTOR` for each other factor whose number of levels is not larger than the number of colours.

    Returns:
        The files.
    """
    written = []
    with rc_context(STYLE):
        for factor in results.factors:
            written += save(bars(results, factor), folder / f"bars-{_file_name(factor)}")
            if factor != by and len(results.levels(factor)) <= len(COLOURS):
                names = f"{_file_name(by)}-{_file_name(factor)}"
                written += save(boxes(results, by, factor), folder / f"boxes-{names}")
                written += save(bars(results, by, factor), folder / f"bars-{names}")
    return written


def boxes(results: Results, by: str, factor: str) -> Figure:
    """Draw box plots of all runs.

    A box shows the median and the quartiles. Its whiskers end at the farthest runs that are within 1.5 times the
    interquartile range of the box.

    Args:
        results: The results.
        by: The factor on the horizontal axis.
        factor: The factor whose levels have a box each.
    """
    figure, axes = _empty(results, by, factor)
    seaborn.boxplot(
        results.runs,
        **_variables(results, by, factor),
        ax=axes,
        gap=0.2,
        saturation=1,
        linecolor=INK,
        linewidth=0.8,
        medianprops={"linewidth": 1.5},
        flierprops={"marker": ".", "markersize": 4},
        vert=None,  # matplotlib deprecates the value that seaborn passes; it draws vertical boxes by default
    )
    return _finished(figure, axes, results, by, factor)


def bars(results: Results, by: str, factor: str | None = None) -> Figure:
    """Draw a bar with an error bar of one SD for each level of one factor, or for each pair of levels of two factors.

    Args:
        results: The results.
        by: The factor on the horizontal axis.
        factor: The second factor, whose levels have a bar each (default: None, one factor only).
    """
    means = settings(results)["mean"].rename(results.metric)
    drawn = [by] if factor is None else [by, factor]
    shows_runs = means.groupby(level=drawn).size().max() == 1
    values = results.runs if shows_runs else means.reset_index()
    variables = _variables(results, by, factor)
    figure, axes = _empty(results, by, factor)
    error_bars = {"color": INK, "linewidth": 1.5}
    seaborn.barplot(
        values, **variables, ax=axes, errorbar="sd", gap=0.1, saturation=1, capsize=0.15, err_kws=error_bars
    )
    if shows_runs:
        has_error_bar = values.duplicated(drawn, keep=False)
        _draw_runs(axes, values[has_error_bar], variables)
    items = "runs" if shows_runs else "settings"
    return _finished(figure, axes, results, by, factor, f"mean and SD of {items}")


def _variables(results: Results, by: str, factor: str | None) -> dict[str, Any]:
    """Return seaborn's arguments that assign the results to the axes and colours."""
    variables: dict[str, Any] = {"x": by, "y": results.metric, "order": results.levels(by), "legend": False}
    if factor is None:
        return {**variables, "color": COLOURS[0]}
    levels = results.levels(factor)
    return {**variables, "hue": factor, "hue_order": levels, "palette": COLOURS[: len(levels)], "legend": "full"}


def _draw_runs(axes: Axes, values: pd.DataFrame, variables: dict[str, Any]) -> None:
    """Draw each run as a dot on its bar, to the right of the error bar."""
    widths = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
    bar_width = max(widths)  # axes.patches also has the legend's bars, whose width is 0
    bars = len(axes.collections)
    dots = {**variables, "legend": False}
    if "hue" in dots:
        dots["palette"] = [INK] * len(dots["hue_order"])
    else:
        dots["color"] = INK
    seaborn.stripplot(values, **dots, ax=axes, dodge=True, jitter=False, size=3, edgecolor="white", linewidth=0.3)
    for collection in axes.collections[bars:]:
        places = np.asanyarray(collection.get_offsets())
        places[:, 0] += bar_width / 4
        collection.set_offsets(places)


def _empty(results: Results, by: str, factor: str | None) -> tuple[Figure, Axes]:
    """Return empty axes that are wide enough for the names below them and the legend next to them."""
    names, is_slanted = _names(results, by)
    legend = [] if factor is None else [_short(level) for level in results.levels(factor)]
    longest_name = max(len(name) for name in names)
    level_width = max(0.75, 0.32 * len(legend))  # inches
    if not is_slanted:
        level_width = max(level_width, LETTER * (longest_name + 2))
    width = 1 + level_width * len(names)
    if factor is not None:
        width += 0.6 + LETTER * max(len(entry) for entry in [*legend, factor])
    figure = Figure(figsize=(min(14, max(4.2, width)), 3.6), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _names(results: Results, by: str) -> tuple[list[str], bool]:
    """Return the names below the axis, and True if they must be slanted to fit."""
    names = [_short(level) for level in results.levels(by)]
    longest = max(len(name) for name in names)
    return names, longest * len(names) > 80


def _finished(figure: Figure, axes: Axes, results: Results, by: str, factor: str | None, what: str = "") -> Figure:
    """Label the axes, and put the legend next to them."""
    names, is_slanted = _names(results, by)
    axes.set_xticks(range(len(names)), names, rotation=35 if is_slanted else 0, ha="right" if is_slanted else "center")
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xlabel(_short(by))
    label = _short(results.metric)
    if what:
        is_too_long = is_slanted or len(f"{label} ({what})") > HIGH
        between = "\n" if is_too_long else " "
        label = f"{label}{between}({what})"
    axes.set_ylabel(label)
    if factor is not None:
        handles, levels = axes.get_legend_handles_labels()
        own_legend = axes.get_legend()
        if own_legend:
            own_legend.remove()
        entries = [_short(level) for level in levels]
        figure.legend(handles, entries, title=_short(factor), loc="outside right upper", frameon=False)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as SVG and PNG, and return their paths. `stem` is the path without the extension."""
    written = []
    for kind, metadata in FORMATS.items():
        path = stem.with_name(f"{stem.name}.{kind}")
        with replacing(path) as part:
            figure.savefig(part, format=kind, dpi=DPI, metadata=metadata)
        written.append(path)
    return written


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 1]}…"


def _file_name(text: str) -> str:
    """Replace the characters that some file systems do not allow in a name."""
    return "".join(letter if letter.isalnum() or letter in "+-_." else "-" for letter in text)
