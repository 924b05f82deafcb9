"""Windows from the similarity of a query and a recording over time.

A *curve* is (cells,) similarities: cell i is the part of the recording from i x hop to (i + 1) x hop seconds, and the
last cell ends with the recording.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product, starmap

import numpy as np

from evaluation.metrics.moments import MOST_WINDOWS, average_precision, recall_at_one

SMOOTHING = (1, 3, 5)  # the settings that `fit_cutting` tries
LEVELS = tuple(round(0.3 + 0.05 * step, 2) for step in range(13))  # 0.3, 0.35, …, 0.9
GAPS = (0.0, 1.0, 2.0, 4.0)
FLAT = 1e-12  # relative difference of two cells that are equal up to rounding


@dataclass(frozen=True)
class Cutting:
    """The settings that turn a curve into windows.

    Attributes:
        smoothing: Number of cells, an odd number. Each cell is replaced by the mean over this many cells, with the cell
            in the middle.
        level: Threshold as a share of the range of the smoothed curve: 0 is its minimum, and 1 is its maximum.
        gap: Two windows with at most this number of seconds between them are merged.
    """

    smoothing: int = 3
    level: float = 0.6
    gap: float = 1.0


def smoothed(curve: np.ndarray, cells: int) -> np.ndarray:
    """Return the mean over each cell and its neighbours; cells at the ends have fewer neighbours.

    >>> smoothed(np.array([0.0, 3.0, 6.0]), 3)
    array([1.5, 3. , 4.5])
    """
    ones = np.ones(cells)
    middle = slice(cells // 2, cells // 2 + len(curve))
    sums = np.convolve(curve, ones)[middle]
    counts = np.convolve(np.ones(len(curve)), ones)[middle]
    return sums / counts


def cut(curve: np.ndarray, hop: float, seconds: float, cutting: Cutting) -> np.ndarray:
    """Return the windows of a recording in which a curve is high.

    A window consists of consecutive cells of the smoothed curve that are not below the threshold. Windows with a short
    gap between them are merged. The score of a window is the mean of its cells. If all cells are equal, the window is
    the whole recording.

    Args:
        curve: (cells,) similarities.
        hop: The length of a cell in seconds.
        seconds: The length of the recording.
        cutting: The settings.

    Returns:
        (n, 3) start, end and score of the n best windows, where n is 1 to `MOST_WINDOWS`, best first. Windows do not
        overlap.
    """
    curve = smoothed(curve, cutting.smoothing)
    low, high = curve.min(), curve.max()
    is_high = curve >= low + cutting.level * (high - low)
    is_high |= np.isclose(curve, high, rtol=FLAT, atol=0)  # rounding may put the threshold above the maximum
    edges = np.flatnonzero(np.diff(is_high.astype(int), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]  # window i has the cells from starts[i] to ends[i] - 1
    is_apart = (starts[1:] - ends[:-1]) * hop > cutting.gap
    starts = starts[np.concatenate([[True], is_apart])]
    ends = ends[np.concatenate([is_apart, [True]])]
    means = [curve[start:end].mean() for start, end in zip(starts, ends, strict=True)]
    windows = np.column_stack([starts * hop, np.minimum(ends * hop, seconds), means])
    best_first = np.argsort(-windows[:, 2], kind="stable")
    return windows[best_first[:MOST_WINDOWS]]


@dataclass(frozen=True)
class QueryCurve:
    """A query with its curve and the windows that answer it.

    Attributes:
        curve: (cells,) similarities.
        seconds: The length of the recording.
        truth: (m, 2) windows that answer the query.
    """

    curve: np.ndarray
    seconds: float
    truth: np.ndarray


def fit_cutting(queries: Sequence[QueryCurve], hop: float) -> list[tuple[Cutting, dict[str, float]]]:
    """Fit the settings: try all of them on queries with known windows.

    Returns:
        All settings, each with a dict of mAP and R1@0.7. The settings with the highest mAP come first. Of settings with
        the same mAP, the first in the order of the lists above comes first.
    """
    tried = []
    for cutting in starmap(Cutting, product(SMOOTHING, LEVELS, GAPS)):
        precisions, recalls = [], []
        for query in queries:
            windows = cut(query.curve, hop, query.seconds, cutting)
            precisions.append(average_precision(windows[:, :2], windows[:, 2], query.truth).mean())
            recalls.append(recall_at_one(windows[0, :2], query.truth, [0.7])[0])
        scores = {"mAP": float(np.mean(precisions)), "R1@0.7": float(np.mean(recalls))}
        tried.append((cutting, scores))
    return sorted(tried, key=lambda pair: -pair[1]["mAP"])
