"""Windows from curves equal those of plain loops, and the fit_cutting finds the settings that a curve was made with."""

import numpy as np
import pytest

from systems.moments.cutting import Cutting, QueryCurve, cut, fit_cutting


def plain_cut(curve, hop, seconds, cutting):
    """Cut a curve with loops over its cells."""
    half = cutting.smoothing // 2
    smooth = []
    for cell in range(len(curve)):
        around = [curve[other] for other in range(cell - half, cell + half + 1) if 0 <= other < len(curve)]
        smooth.append(sum(around) / len(around))
    threshold = min(smooth) + cutting.level * (max(smooth) - min(smooth))
    runs = []
    for cell, value in enumerate(smooth):
        if value < threshold:
            continue
        if (runs and (cell - runs[-1][1]) * hop <= cutting.gap) or (runs and runs[-1][1] == cell):
            runs[-1][1] = cell + 1
        else:
            runs.append([cell, cell + 1])
    windows = []
    for start, end in runs:
        windows.append((start * hop, min(end * hop, seconds), sum(smooth[start:end]) / (end - start)))
    return sorted(windows, key=lambda window: -window[2])[:10]


@pytest.mark.parametrize("cells", [1, 2, 7, 60])
def test_windows_equal_those_of_plain_loops(cells):
    rng = np.random.default_rng(cells)
    for smoothing, level, gap in [(1, 0.5, 0.0), (3, 0.3, 1.0), (5, 0.8, 2.0), (5, 0.9, 0.0)]:
        curve, cutting = rng.standard_normal(cells), Cutting(smoothing, level, gap)
        seconds = cells * 0.5 - 0.2
        np.testing.assert_allclose(cut(curve, 0.5, seconds, cutting), plain_cut(curve, 0.5, seconds, cutting))


@pytest.mark.parametrize("curve", [np.zeros(9), np.full(9, 0.1), np.array([3.0])])
def test_a_flat_curve_gives_the_whole_recording(curve):
    (window,) = cut(curve, 1.0, len(curve) - 0.5, Cutting())
    assert window[:2].tolist() == [0, len(curve) - 0.5]


def test_at_most_ten_windows_are_given_and_the_best_ones_are():
    curve = np.zeros(60)
    curve[::4] = np.arange(15) + 100
    windows = cut(curve, 1.0, 60, Cutting(1, 0.5, 0.0))
    assert windows[:, 2].tolist() == list(range(114, 104, -1))
    assert windows[0].tolist() == [56, 57, 114]


def test_the_search_finds_the_gap_and_the_level():
    curve = np.array([0, 3.9, 9, 9, 4, 9, 9, 0, 0, 6, 6, 0.0])  # 3.9 is too low, and 4 is a gap
    tried = fit_cutting([QueryCurve(curve, 12, np.array([[2.0, 7.0]]))], 1.0)
    cutting, scores = tried[0]
    assert scores["mAP"] == 1
    assert cutting == Cutting(1, 0.45, 1.0)
    assert len(tried) == 3 * 13 * 4
