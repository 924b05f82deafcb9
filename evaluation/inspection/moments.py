"""The content of a page about moment retrieval: the right windows of each query, and the windows of each system."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.data.dataset import Clip
from evaluation.data.recordings import MomentQuery, Recordings
from evaluation.findings import Finding
from evaluation.inspection.charts import Chart, Table, hardest_and_easiest, histogram, item_title, mean_chart
from evaluation.inspection.content import TEMPLATES, Content, Request, System, check_content, read_systems
from evaluation.kinds import KINDS
from evaluation.metrics import moments
from evaluation.metrics.moments import MOST_WINDOWS
from evaluation.moment_formats import Moments, read_moments
from evaluation.report import number
from evaluation.scores import Score
from evaluation.text import printable

METRICS = ("mAP", "R1@0.5", "R1@0.7", "mAP@0.5", "mAP@0.75")  # as for `score`, but mAP sorts the page
RECALLS = (0.5, 0.7)  # minimum IoU for which a query shows whether its first window is right
DIGITS = 3  # number of digits of times, scores and IoU in the data


@dataclass(frozen=True)
class Window:
    """A window that a system predicts.

    Attributes:
        start: The start in seconds.
        end: The end in seconds.
        score: The score; None if the prediction has no scores.
        iou: The largest IoU with a right window.
    """

    start: float
    end: float
    score: float | None
    iou: float


@dataclass(frozen=True)
class Localised(System):
    """The windows and the score of a moment retrieval system. The items of the score are the queries.

    Attributes:
        windows: For each query, the windows that count, best first.
        first: For each query, the index of the window that R1 uses, which is the first one in the file.
    """

    windows: Sequence[Sequence[Window]]
    first: Sequence[int]

    @property
    def first_iou(self) -> np.ndarray:
        """The (queries,) IoU of the windows that R1 uses."""
        return np.array([windows[first].iou for windows, first in zip(self.windows, self.first, strict=True)])


@dataclass(frozen=True)
class Timelines(Content):
    """The content of a page about moment retrieval.

    Attributes:
        recordings: The queries, with their right windows.
        paths: A dict from the name of each recording to its audio file, which may not exist.
        systems: The windows and the score of each system.
    """

    task = "Audio moment retrieval"
    answers = "moments"
    noun = "queries"
    clip_noun = "recording"
    lists = "Hardest and easiest recordings, and lengths of windows"
    about_clips = "The mean is over the queries about the recording."
    templates = TEMPLATES / "moments"

    recordings: Recordings
    paths: Mapping[str, Path]
    systems: Sequence[Localised]

    @property
    def split_name(self) -> str:
        """The name of the file of the queries, without `moments_` and suffix."""
        return self.recordings.source.stem.removeprefix("moments_") if self.recordings.source else ""

    @property
    def clips(self) -> Sequence[Clip]:
        """The recordings."""
        return [Clip(name, (), path) for name, path in self.paths.items()]

    @property
    def clip_of_query(self) -> list[int]:
        """For each query, the index of its recording."""
        index = {name: place for place, name in enumerate(self.paths)}
        return [index[query.recording] for query in self.recordings.queries]

    def charts(self, metric: str, values: Sequence[np.ndarray], seconds: np.ndarray) -> list[Chart | None]:
        """Return charts of a metric, of the IoU of the first window, and of what the metric depends on."""
        queries = self.recordings.queries
        counts = np.array([len(query.windows) for query in queries], dtype=float)
        lengths = np.array([np.mean([end - start for start, end in query.windows]) for query in queries])
        durations = np.array([query.seconds for query in queries], dtype=float)
        title = item_title(metric)
        ious = [system.first_iou for system in self.systems]
        return [
            histogram(f"{title} over queries", title, metric, values),
            histogram("IoU of the first window over queries", "IoU", "R1", ious),
            mean_chart(metric, "number of right windows", "right windows", counts, values),
            mean_chart(metric, "mean length of the right windows", "seconds", lengths, values),
            mean_chart(metric, "duration of the recording", "seconds", durations, values),
        ]

    def tables(self, metric: str, values: Sequence[np.ndarray]) -> list[Table]:
        """Return the hardest and the easiest recordings, and the lengths of the windows."""
        return [*hardest_and_easiest(self, metric, values, [[clip] for clip in self.clip_of_query]), self._lengths()]

    def _lengths(self) -> Table:
        """Return a table with quartiles of the lengths of right windows and of the windows that R1 uses."""
        right = [end - start for query in self.recordings.queries for start, end in query.windows]
        rows = [["right windows", *_quartiles(right)]]
        for system in self.systems:
            firsts = [windows[first] for windows, first in zip(system.windows, system.first, strict=True)]
            rows.append([system.name, *_quartiles([window.end - window.start for window in firsts])])
        heads = ["windows of", "lower quartile", "median", "upper quartile"]
        note = "Of each system, only the first window of each query counts."
        return Table("Lengths of windows in seconds", heads, rows, note)

    def data(self) -> dict[str, Any]:
        """Return the queries with their right windows, and the windows of each system."""
        queries = self.recordings.queries
        systems = []
        for system in self.systems:
            windows = [[_window_data(window) for window in row] for row in system.windows]
            recalled = [[bool(iou >= threshold) for threshold in RECALLS] for iou in system.first_iou]
            systems.append({"windows": windows, "first": system.first, "recalled": recalled})
        return {
            "queries": [printable(query.text) for query in queries],
            "ids": [printable(query.id) for query in queries],
            "durations": [query.seconds for query in queries],
            "right": [query.windows for query in queries],
            "clipOf": self.clip_of_query,
            "recalls": RECALLS,
            "answers": systems,
        }


def _quartiles(lengths: Sequence[float]) -> list[str]:
    return [number(float(value), 1) for value in np.percentile(lengths, [25, 50, 75])]


def _window_data(window: Window) -> list[float | None]:
    """Return a window as the list [start, end, score, IoU]."""
    score = None if window.score is None else float(f"{window.score:.{DIGITS}g}")
    return [round(window.start, DIGITS), round(window.end, DIGITS), score, round(window.iou, DIGITS)]


def collect_windows(
    recordings: Recordings, paths: Mapping[str, Path], given: Mapping[str, tuple[Moments, Score]]
) -> Timelines:
    """Collect the windows of every query, best first.

    Args:
        recordings: The queries.
        paths: A dict from the name of each recording to its audio file.
        given: A dict from the name of each system to its prediction, which `moments.validate` accepts, and its score.
    """
    systems = []
    for name, (prediction, score) in given.items():
        place = {query: index for index, query in enumerate(prediction.ids)}
        windows, first = [], []
        for query in recordings.queries:
            scores = prediction.scores[place[query.id]] if prediction.scores else None
            listed, index = _windows(query, prediction.windows[place[query.id]], scores)
            windows.append(listed)
            first.append(index)
        systems.append(Localised(name, score, windows, first))
    return Timelines(recordings, paths, systems)


def _windows(query: MomentQuery, windows: np.ndarray, scores: np.ndarray | None) -> tuple[list[Window], int]:
    """Return the windows of a query that count, best first, and the index of the first one in the file."""
    windows = windows[:MOST_WINDOWS]
    order = np.arange(len(windows))
    if scores is not None:
        order = np.argsort(-scores[:MOST_WINDOWS], kind="stable")
    truth = np.array(query.windows)
    listed = []
    for index in order.tolist():
        start, end = windows[index].tolist()
        value = None if scores is None else float(scores[index])
        listed.append(Window(start, end, value, moments.best_iou(windows[index], truth)))
    return listed, order.tolist().index(0)


def read_page(request: Request) -> tuple[Timelines, list[Finding]]:
    """Read the queries and the windows that a request names, and score the windows.

    The recordings are in the folder that has the name of the split, next to the file of the queries.

    Returns:
        The content of the page, and warnings and notes.

    Raises:
        BadRequest: A file is given twice or does not exist; or the right windows are not known; or a metric is unknown.
        Faulty: The queries or the windows are not valid. The exception lists all findings.
    """
    recordings, notes = KINDS["moments"].read_truth(request.truth, request.split)

    def read(path: Path) -> tuple[Moments, Score, Sequence[Finding]]:
        prediction = read_moments(path)
        score = moments.evaluate(recordings, prediction, metrics=request.metrics or METRICS, file=str(path))
        return prediction, score, ()

    given, findings = read_systems(request.predictions, read)
    folder = recordings.source.parent / request.split
    paths = {name: path or folder / name for name, path in recordings.paths(folder).items()}
    content = collect_windows(recordings, paths, given)
    check_content(content)
    return content, [*notes, *findings]
