"""Metrics of audio moment retrieval: they measure how well windows match the moments that answer a query.

    score = evaluate(read_recordings("castella_val_release.jsonl")[0], read_moments("submission.jsonl"))

The task is DCASE 2026 task 6. The metrics are those of its scorer, line/lighthouse's `standalone_eval`, which is the
scorer of QVHighlights (Lei et al. 2021) and computes average precision as ActivityNet and Pascal VOC 2011 do.

Conventions
-----------
- A *window* is (start, end) in seconds. The *truth* of a query is one or more windows.
- **IoU** (intersection over union) of two windows is the length of their overlap over the length that they cover
  together. It is 0 if they do not overlap.
- **Order.** R1 uses the first window in the order of the file. Average precision uses the windows in the order of
  falling scores; windows with equal scores keep the order of the file. Windows without scores are best first. The
  scorer does the same, so a file whose first window does not have the highest score gets a warning.
- **At most ten windows** of a query count, the first ten in the order of the file. A warning names queries with more.
- **Matching.** For a threshold, each window in turn is matched with the truth window of the largest IoU that is not
  matched yet, if this IoU is at least the threshold. A window without such a match counts as wrong. So a repeated
  window cannot match the same truth window again, but it can match another one. Of truth windows with the same IoU, the
  last one is tried first.
- **Windows outside the recording** are scored as they are given, because the truth of CASTELLA has such windows too. A
  warning names them. The check of an output file (`submission.outputs.windows`) is stricter. A window of length 0
  counts as wrong, as in the scorer, and the baseline writes some. A window whose end is before its start is an error:
  the scorer would compute an IoU from its negative length.
- **Each query must appear exactly once**, with one window or more. An unknown, missing or repeated id is an error. The
  scorer requires the same ids. For average precision, the scorer counts both entries of a repeated id, and for mAP it
  leaves out queries without windows.

This module differs from the published scorer in three points. The scorer's numbers are percentages with two decimals;
these are in [0, 1] at full precision. The scorer reads `w[2]`, so it fails for the blind form `[start, end]`. This
module scores the blind form as if the windows had falling scores. The scorer leaves out truth windows longer than 1500
s. The recordings of the task are at most 300 s long, and `read_recordings` warns of windows that end more than two
seconds after their recording.

Metrics
-------
- `recall_at_one`: R1@t, the share of queries whose first window has an IoU of at least t with a truth window.
- `average_precision`: AP@t of a query; its mean over queries is mAP@t. It is the area under the curve of precision
  over recall, where the precision at a recall is the largest precision at this recall or above.
- mAP: the mean of mAP@t over t = 0.5, 0.55, …, 0.95.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.data.recordings import BACKWARDS, EARLY, EMPTY, LATE, MomentQuery, Recordings, time_faults
from evaluation.findings import WARNING, BadRequest, Faulty, Finding, raise_errors
from evaluation.metrics.answered import check_ids
from evaluation.metrics.sets import MetricSet, listed, named_metrics
from evaluation.moment_formats import Moments
from evaluation.scores import VERSION, Items, Score, interval_method, measure
from evaluation.values import numbers, require_dict

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # of mAP: 0.5, 0.55, …, 0.95
DEFAULT_METRICS = ("R1@0.5", "R1@0.7", "mAP", "mAP@0.5", "mAP@0.75")
MOST_WINDOWS = 10  # number of windows of a query that count

_METRIC = re.compile(r"(R1|mAP)@(0\.(?:[1-9]|\d[1-9])|1)")


def iou(windows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the IoU of each window with each truth window.

    Args:
        windows: (n, 2) starts and ends in seconds.
        truth: (m, 2) starts and ends in seconds; each end is after its start.

    Returns:
        (n, m) values in [0, 1].

    >>> iou(np.array([[0.0, 10.0]]), np.array([[5.0, 10.0], [20.0, 30.0]]))
    array([[0.5, 0. ]])
    """
    overlap = _overlap(windows, truth)
    lengths = windows[:, 1] - windows[:, 0]
    covered = lengths[:, None] + (truth[:, 1] - truth[:, 0])[None] - overlap
    return overlap / covered


def _overlap(windows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    start = np.maximum(windows[:, None, 0], truth[None, :, 0])
    end = np.minimum(windows[:, None, 1], truth[None, :, 1])
    return np.maximum(end - start, 0)


def best_iou(window: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest IoU of a window, (2,), with any of m truth windows, (m, 2).

    As in the scorer, the IoU is the overlap over the distance from the first start to the last end. This equals `iou`
    up to rounding. Rounding matters if the IoU is equal to a threshold such as 0.7.
    """
    best = truth[np.argmax(iou(window[None], truth)[0])]
    overlap = max(min(window[1], best[1]) - max(window[0], best[0]), 0)
    return float(overlap / (max(window[1], best[1]) - min(window[0], best[0])))


def recall_at_one(window: np.ndarray, truth: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Return R1 of one query at t thresholds, (t,): 1 if its first window is right, otherwise 0.

    Args:
        window: (2,) start and end of the first window in seconds.
        truth: (m, 2) the windows that answer the query.
        thresholds: The minimum IoU.
    """
    return (best_iou(window, truth) >= np.asarray(thresholds)).astype(float)


def average_precision(
    windows: np.ndarray, scores: np.ndarray, truth: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> np.ndarray:
    """Return the average precision of one query at t thresholds, (t,) in [0, 1].

    Args:
        windows: (n, 2) windows in seconds; n is 1 or more.
        scores: (n,) scores of the windows; higher is better.
        truth: (m, 2) the windows that answer the query.
        thresholds: The minimum IoU of a window and a truth window that match.

    >>> average_precision(np.array([[0, 9], [20, 30]]), np.array([0.9, 0.8]), np.array([[20, 30]]), [0.5])
    array([0.5])
    """
    order = np.argsort(-scores, kind="stable")
    right = _matched(iou(windows[order], truth), np.asarray(thresholds))
    precision = np.cumsum(right, axis=1) / np.arange(1, len(windows) + 1)
    best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (right * best_from_here).sum(axis=1) / len(truth)


def _matched(overlaps: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return (t, n) booleans: True if a window has a match at a threshold; `overlaps` has the (n, m) IoUs."""
    right = np.zeros((len(thresholds), len(overlaps)), dtype=bool)
    is_free = np.ones((len(thresholds), overlaps.shape[1]), dtype=bool)
    for place, row in enumerate(overlaps):
        for index in np.argsort(row, kind="stable")[::-1]:
            # At each threshold, a window that has a match already does not take another one.
            matches = is_free[:, index] & (row[index] >= thresholds) & ~right[:, place]
            right[:, place] |= matches
            is_free[:, index] &= ~matches
    return right


def validate(
    truth: Recordings, prediction: Moments, file: str = "prediction", form: Sequence[Finding] = ()
) -> list[Finding]:
    """Check a prediction against the ground truth.

    Args:
        truth: The ground truth.
        prediction: The prediction.
        file: The name of the prediction in findings.
        form: Findings about windows that cannot be read and that `prediction` lacks, to report all findings together.

    Returns:
        Warnings, sorted.

    Raises:
        Faulty: An id is missing, unknown or repeated; a query has no windows; a window ends before its start; a time
            or score is not finite; or a query states another recording than the truth. The exception lists all
            findings.
    """
    findings = [*form, *check_ids(truth.by_id, prediction.ids, prediction.lines, file, is_whole=not form)]
    for index, name in enumerate(prediction.ids):
        query = truth.by_id.get(name)
        is_reported = bool(form) and not len(prediction.windows[index])
        if query is not None and not is_reported:
            line = prediction.lines[index] if prediction.lines else 0
            findings += _query_findings(query, prediction, index, file, line)
    raise_errors(findings)
    return sorted(findings)


def _query_findings(query: MomentQuery, prediction: Moments, index: int, file: str, line: int) -> list[Finding]:
    """Check the windows of a query, which is at an index of the prediction."""
    windows = prediction.windows[index]
    about = f"of {query.id!r}"
    if not len(windows):
        return [Finding(file, line, message=f"the windows {about} must be one or more; found none: add the best one")]
    scores = prediction.scores[index] if prediction.scores else np.zeros(len(windows))
    if not np.isfinite(windows).all() or not np.isfinite(scores).all():
        message = f"the windows {about} must have finite times and scores; found NaN or infinity: check the model"
        return [Finding(file, line, message=message)]
    findings = []
    if prediction.recordings and prediction.recordings[index] not in ("", query.recording):
        message = f"the recording {about} must be {query.recording!r}; found {prediction.recordings[index]!r}"
        findings.append(Finding(file, line, message=f"{message}: is this the prediction of another data set?"))
    last = max([query.seconds, *(end for _, end in query.windows)])
    faults = [time_faults(start, end, last) for start, end in windows.tolist()]

    def that_break(*rules: str) -> np.ndarray:
        return windows[[not broken.isdisjoint(rules) for broken in map(set, faults)]]

    backwards = that_break(BACKWARDS)
    if len(backwards):
        message = f"the windows {about} must end after their start; found {_shown(backwards)}: exchange the two times"
        findings.append(Finding(file, line, message=message))
    unique, counts = np.unique(windows, axis=0, return_counts=True)
    unusual = {  # from the start and the end of a message to the windows that it is about
        ("outside the recording", f"; it is {last:g} s long, and they are scored as they are"): that_break(EARLY, LATE),
        ("without length", "; they count as wrong"): that_break(EMPTY),
        ("repeated", "; each truth window counts only once"): unique[counts > 1],
    }
    warnings = []
    for (what, consequence), concerned in unusual.items():
        if len(concerned):
            warnings.append(f"windows {about} are {what}: {_shown(concerned)}{consequence}")
    if len(windows) > MOST_WINDOWS:
        warnings.append(f"the windows {about} are {len(windows)}; only the first {MOST_WINDOWS} count")
    if scores[0] < scores[:MOST_WINDOWS].max():
        warnings.append(f"the first window {about} does not have the highest score; R1 uses it all the same")
    return findings + [Finding(file, line, message=message, severity=WARNING) for message in warnings]


def _shown(windows: np.ndarray) -> str:
    """Return the first window in quotes, which `findings.limited` ignores, and the number of windows."""
    start, end = windows[0].tolist()
    first = f"'[{start:g}, {end:g}]'"
    if len(windows) > 1:
        return f"{len(windows)} such windows, for example {first}"
    return first


def resolve_metrics(names: Sequence[str]) -> MetricSet:
    """Return the metrics that a request names, each once.

    Args:
        names: Names of metrics and of sets.

    Raises:
        BadRequest: There is no such metric or set.
        Faulty: See `sets.year_sets`.
    """
    return named_metrics(names, "moments", _is_metric, _unknown_metric)


def _is_metric(name: str) -> bool:
    return name == "mAP" or _METRIC.fullmatch(name) is not None


def _unknown_metric(name: str, sets: Sequence[str]) -> str:
    known = "mAP, R1@t and mAP@t, where t is a minimum IoU from 0.01 to 1, without a zero at its end (0.5, 0.75, 1)"
    return f"unknown metric {name!r}; there are {known}, and {listed(sets)}"


def evaluate(
    truth: Recordings | Mapping[str, Sequence[Sequence[float]]],
    prediction: Moments | Mapping[str, Sequence[Sequence[float]]],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    interval: str = "jackknife",
    file: str = "prediction",
) -> Score:
    """Score a moment retrieval system.

    Args:
        truth: The ground truth, or a dict from ids of queries to their windows, each (start, end) in seconds. With a
            dict, each query counts as a recording of its own, whose length is not known.
        prediction: The prediction, or a dict from ids to windows, each (start, end) best first, or (start, end, score).
        metrics: Names of metrics, such as `R1@0.5` and `mAP`, or of sets, such as `dcase2026`.
        interval: One of `intervals.METHODS`.
        file: The name of the prediction in findings.

    Returns:
        The score. Its items are the queries in the order of the truth. The interval by recording
        (`by_clip`) leaves out all queries about a recording together.

    Raises:
        BadRequest: There is no such metric or interval method, or the windows of the truth are not known.
        Faulty: As `validate`, or the prediction does not have one of these forms.

    >>> truth = {"a dog": [(2, 8)], "rain": [(0, 5), (20, 30)]}
    >>> best = {"a dog": [(2, 7)], "rain": [(10, 12), (21, 30)]}
    >>> evaluate(truth, best, metrics=["R1@0.5", "mAP@0.5"]).table()["value"].tolist()
    [0.5, 0.625]
    """
    names = resolve_metrics(metrics).metrics
    if not isinstance(truth, Recordings):
        truth = _recordings(truth)
    if truth.is_blind:
        source = truth.source or "the truth"
        raise BadRequest(f"{source} has no relevant_windows, so it is a blind set; give a file with the ground truth")
    if not isinstance(prediction, Moments):
        try:
            prediction = Moments.of(prediction)
        except ValueError as wrong:
            raise Faulty([Finding(file, message=str(wrong))]) from None
    findings = validate(truth, prediction, file)
    recordings: dict[str, int] = {}
    groups = tuple(recordings.setdefault(query.recording, len(recordings)) for query in truth.queries)
    items = Items("queries", tuple(truth.by_id), groups)
    measured = {}
    for name, values in _values(truth, prediction, names).items():
        measured[name] = measure(values, items, interval)
    return Score(measured, items, _signature(truth, interval), findings=tuple(findings))


def _recordings(truth: object) -> Recordings:
    """Return the truth of a dict.

    Raises:
        BadRequest: The truth is not a dict, a query has no windows, or a window is not two times, of which the second
            is larger.
    """
    try:
        by_id = require_dict(truth, "the windows of the truth", "from ids to windows, or Recordings")
    except ValueError as wrong:
        raise BadRequest(str(wrong)) from None
    queries = []
    for name, windows in by_id.items():
        try:
            pairs = numbers(windows, f"the truth of {name!r}")
        except ValueError as wrong:
            raise BadRequest(str(wrong)) from None
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or not (pairs[:, 0] < pairs[:, 1]).all():
            message = f"the truth of {name!r} must be one or more windows (start, end) that end after their start"
            raise BadRequest(f"{message}; found {windows!r}")
        queries.append(MomentQuery(name, name, name, np.inf, tuple(map(tuple, pairs.tolist()))))
    return Recordings(tuple(queries))


def _values(truth: Recordings, prediction: Moments, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the (queries,) values of each metric, in the order of the truth's queries."""
    wanted = [_METRIC.fullmatch(name) for name in names]
    recall_thresholds = [float(match[2]) for match in wanted if match and match[1] == "R1"]
    precision_thresholds = [*THRESHOLDS, *(float(match[2]) for match in wanted if match and match[1] == "mAP")]
    row_of = {name: row for row, name in enumerate(prediction.ids)}
    recalls, precisions = [], []
    for query in truth.queries:
        row = row_of[query.id]
        windows = prediction.windows[row][:MOST_WINDOWS]
        if prediction.scores:
            scores = prediction.scores[row][:MOST_WINDOWS]
        else:
            scores = -np.arange(len(windows), dtype=float)
        answer = np.array(query.windows)
        recalls.append(recall_at_one(windows[0], answer, recall_thresholds))
        precisions.append(average_precision(windows, scores, answer, precision_thresholds))
    recall, precision = np.array(recalls), np.array(precisions)
    values = {}
    for name in names:
        kind, _, threshold = name.partition("@")
        if kind == "R1":
            values[name] = recall[:, recall_thresholds.index(float(threshold))]
        elif threshold:
            values[name] = precision[:, precision_thresholds.index(float(threshold))]
        else:
            values[name] = precision[:, : len(THRESHOLDS)].mean(axis=1)
    return values


def _signature(truth: Recordings, interval: str) -> str:
    """Return a text that names the data, rules and versions that the scores depend on."""
    return "|".join(
        [
            f"dcase-kit:{VERSION}",
            f"truth:moments#{truth.fingerprint}",
            f"queries:{len(truth.queries)}",
            f"windows:first-{MOST_WINDOWS}",
            "r1:first-in-file",
            "ap:scores-interpolated",
            "equal-iou:last",
            "repeated,empty:wrong",
            "outside:as-given",
            "missing,unknown,duplicate:error",
            f"interval:{interval_method(interval)}",
            f"numpy:{np.__version__}",
        ]
    )
