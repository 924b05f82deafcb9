"""Figures show the means and the runs, name all levels, and have the same bytes each time."""

import itertools
import statistics
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context

from evaluation.statistics import factors, figures
from evaluation.statistics.factors import Results

LEVELS = {"encoder": ["yamnet", "coala"], "adapter": ["mlp", "mha", "none"], "words & $more": ["a_1$b$", "<c>"]}
STEPS = ("contrastive", "all pairs", "text-audio", "+ tune text", "+ pretrain", "+ tune audio")


@pytest.fixture
def results():
    """Twelve settings with three seeds."""
    rng = np.random.default_rng(0)
    rows = [[*levels, seed, rng.uniform(0.3, 0.5)] for *levels, seed in itertools.product(*LEVELS.values(), range(3))]
    return Results("results.csv", "mAP@10", tuple(LEVELS), pd.DataFrame(rows, columns=[*LEVELS, "seed", "mAP@10"]))


def ablation(steps=STEPS, seeds=5):
    """A sweep of one factor."""
    rng = np.random.default_rng(0)
    rows = [[step, seed, rng.uniform(0.3, 0.5)] for step in steps for seed in range(seeds)]
    return Results("results.csv", "mAP@10", ("step",), pd.DataFrame(rows, columns=["step", "seed", "mAP@10"]))


@pytest.fixture
def incomplete():
    """A sweep in which some settings have no run, and one setting has a single run."""
    rows = [["x", "k", 0, 0.5], ["x", "k", 1, 0.7], ["y", "k", 0, 0.6], ["y", "k", 1, 0.8], ["y", "l", 0, 0.4]]
    rows += [["z", "l", 0, 0.3], ["z", "l", 1, 0.2]]
    return Results("results.csv", "mAP@10", ("a", "b"), pd.DataFrame(rows, columns=["a", "b", "seed", "mAP@10"]))


def bar_heights(axes):
    """Return the heights of the bars in the order of the axis, without seaborn's empty bars for the legend."""
    bars = [bar for bar in axes.patches if bar.get_width()]
    return [bar.get_height() for bar in sorted(bars, key=lambda bar: bar.get_x())]


def error_bars(axes):
    """Return half the length of each error bar, in the order of the axis."""
    lengths = {}
    for line in axes.lines:
        if len(line.get_xdata()):
            heights = line.get_ydata()
            lengths[np.nanmean(line.get_xdata())] = (np.nanmax(heights) - np.nanmin(heights)) / 2
    return [lengths[place] for place in sorted(lengths) if np.isfinite(lengths[place])]


def dots(axes):
    """Return the sorted values of the dots on each bar, in the order of the axis."""
    by_place = {}
    for collection in axes.collections:
        for place, value in collection.get_offsets():
            by_place.setdefault(round(float(place), 6), []).append(value)
    return [sorted(by_place[place]) for place in sorted(by_place)]


def test_legends_have_every_level(incomplete):
    for drawn in (figures.bars(incomplete, "a", "b"), figures.boxes(incomplete, "a", "b")):
        (legend,) = drawn.legends
        assert [text.get_text() for text in legend.get_texts()] == ["k", "l"]
        assert drawn.axes[0].get_legend() is None


def test_bars_of_one_factor_are_means_of_runs_with_their_sd():
    """A figure like Figure 2 of Weck et al. 2022."""
    results = ablation()
    axes = figures.bars(results, "step").axes[0]
    values = [results.runs.loc[results.runs["step"] == step, "mAP@10"].tolist() for step in STEPS]
    assert bar_heights(axes) == pytest.approx([statistics.mean(some) for some in values])
    assert error_bars(axes) == pytest.approx([statistics.stdev(some) for some in values])
    assert dots(axes) == [sorted(some) for some in values]
    assert axes.get_ylabel() == "mAP@10 (mean and SD of runs)"


def test_bars_are_means_of_settings_with_their_sd(results):
    axes = figures.bars(results, "encoder").axes[0]
    wanted = factors.level_means(results, "encoder")
    assert bar_heights(axes) == pytest.approx(wanted["mean"].tolist())
    assert error_bars(axes) == pytest.approx(wanted["sd"].tolist())
    assert not dots(axes)
    assert axes.get_ylabel() == "mAP@10 (mean and SD of settings)"


def test_dots_are_on_the_bars_of_their_level(incomplete):
    axes = figures.bars(incomplete, "a", "b").axes[0]
    assert bar_heights(axes) == pytest.approx([0.6, 0.7, 0.4, 0.25])
    assert dots(axes) == [[0.5, 0.7], [0.6, 0.8], [0.2, 0.3]]  # a single run gets no dot
    places = sorted(
        {round(float(place), 6) for collection in axes.collections for place, _ in collection.get_offsets()}
    )
    bars = sorted((bar for bar in axes.patches if bar.get_width()), key=lambda bar: bar.get_x())
    for place, bar in zip(places, [bars[0], bars[1], bars[3]], strict=True):
        assert bar.get_x() + bar.get_width() / 2 < place < bar.get_x() + bar.get_width()


def test_boxes_show_the_medians(results):
    axes = figures.boxes(results, "encoder", "adapter").axes[0]
    medians = sorted(line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 1.5)
    wanted = results.runs.groupby(["encoder", "adapter"])["mAP@10"].median()
    assert medians == pytest.approx(sorted(wanted))


def test_names_are_written_as_they_are(results):
    axes = figures.bars(results, "words & $more").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a_1$b$", "<c>"]
    assert axes.get_xlabel() == "words & $more"


def test_long_names_are_cut_and_slanted():
    axes = figures.bars(ablation([f"{letter} a step with a long name of its own" for letter in "abc"]), "step").axes[0]
    labels = axes.get_xticklabels()
    assert labels[0].get_text() == "a a step with a long name o…"
    assert {label.get_rotation() for label in labels} == {35}
    assert axes.get_ylabel() == "mAP@10\n(mean and SD of runs)"


def test_same_results_give_the_same_bytes(results, tmp_path):
    with rc_context(figures.STYLE):
        for name in ("one", "other"):
            figures.save(figures.boxes(results, "encoder", "adapter"), tmp_path / f"boxes-{name}")
            figures.save(figures.bars(ablation(), "step"), tmp_path / f"bars-{name}")
    for name in ("boxes", "bars"):
        for kind in ("svg", "png"):
            assert (tmp_path / f"{name}-one.{kind}").read_bytes() == (tmp_path / f"{name}-other.{kind}").read_bytes()


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_draw_writes_every_figure(incomplete, tmp_path):
    runs = incomplete.runs.rename(columns={"b": "words & $more"})
    written = figures.draw(Results("results.csv", "mAP@10", ("a", "words & $more"), runs), "a", tmp_path)
    wanted = ["bars-a", "bars-words----more", "boxes-a-words----more", "bars-a-words----more"]
    assert {path.name for path in written} == {f"{name}.{kind}" for name in wanted for kind in ("svg", "png")}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    ET.fromstring((tmp_path / "boxes-a-words----more.svg").read_bytes())  # noqa: S314


def test_levels_beyond_the_colours_are_not_drawn_by_colour(tmp_path):
    rows = [[level, number, 0, 0.5] for level in "xy" for number in map(str, range(8))]
    runs = pd.DataFrame(rows, columns=["a", "b", "seed", "mAP@10"])
    written = figures.draw(Results("results.csv", "mAP@10", ("a", "b"), runs), "a", tmp_path)
    assert [path.name for path in written] == ["bars-a.svg", "bars-a.png", "bars-b.svg", "bars-b.png"]
