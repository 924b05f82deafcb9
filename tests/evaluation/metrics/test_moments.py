"""Moment retrieval: scores equal a slow oracle, and predictions that break a rule are reported with their lines."""

import numpy as np
import pytest

from evaluation.data.recordings import MomentQuery, Recordings
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import moments
from evaluation.metrics.moments import THRESHOLDS, evaluate, validate
from evaluation.moment_formats import read_moments
from evaluation.scores import Score, check
from evaluation.statistics import comparison
from evaluation.statistics.intervals import jackknife
from tests.evaluation.json_lines import written


def overlap_ratio(window, truth):
    """Return the IoU of two windows, in the scorer's order of operations: rounding decides at a threshold."""
    overlap = max(0.0, min(window[1], truth[1]) - max(window[0], truth[0]))
    return overlap / ((window[1] - window[0]) + (truth[1] - truth[0]) - overlap)


def oracle_precision(windows, truth, threshold):
    """Return average precision, from the definition of Pascal VOC 2011: the area under the interpolated curve."""
    ranked = sorted(windows[:10], key=lambda window: -window[2])
    matched = set()
    points = [(0.0, 0.0)]  # recall and precision after each window
    for count, window in enumerate(ranked, start=1):
        ratios = sorted(((overlap_ratio(window, answer), index) for index, answer in enumerate(truth)), reverse=True)
        for ratio, index in ratios:
            if ratio >= threshold and index not in matched:
                matched.add(index)
                break
        points.append((len(matched) / len(truth), len(matched) / count))
    area = 0.0
    for index in range(1, len(points)):
        height = max(precision for _, precision in points[index:])
        area += (points[index][0] - points[index - 1][0]) * height
    return area


def oracle_recall(windows, truth, threshold):
    """Return R1: 1 if the first window has the IoU with the best truth window, over the distance that they span."""
    first = windows[0]
    best = max(truth, key=lambda answer: overlap_ratio(first, answer))
    overlap = max(0.0, min(first[1], best[1]) - max(first[0], best[0]))
    span = max(first[1], best[1]) - min(first[0], best[0])
    return float(overlap / span >= threshold)


def random_task(queries, rng):
    """Return truth and predictions with windows of whole and of tenths of seconds, so that IoUs lie at thresholds."""
    truth, predictions = {}, {}
    for number in range(queries):
        unit = (1.0, 0.1)[number % 2]
        answers = set()
        while len(answers) < 1 + number % 4:
            start, length = rng.integers(0, 40), rng.integers(1, 20)
            answers.add((round(start * unit, 1), round((start + length) * unit, 1)))
        answers = sorted(answers)
        windows = []
        for _ in range(rng.integers(1, 13)):
            start, end = answers[rng.integers(len(answers))]
            shift = rng.integers(-4, 5, 2) * unit
            start, end = max(0.0, round(start + shift[0], 1)), round(end + shift[1], 1)
            windows.append((start, max(start, end), round(float(rng.random()), 1)))
        truth[f"q{number}"], predictions[f"q{number}"] = answers, windows
    return truth, predictions


def test_scores_equal_the_oracle():
    truth, predictions = random_task(1000, np.random.default_rng(1))
    names = [f"R1@{threshold:g}" for threshold in THRESHOLDS] + [f"mAP@{threshold:g}" for threshold in THRESHOLDS]
    score = evaluate(truth, predictions, metrics=[*names, "mAP"])
    means = []
    for threshold in THRESHOLDS:
        recalls = [oracle_recall(predictions[query], truth[query], threshold) for query in truth]
        precisions = [oracle_precision(predictions[query], truth[query], threshold) for query in truth]
        np.testing.assert_allclose(score.items.values[f"R1@{threshold:g}"], recalls, rtol=0, atol=1e-12)
        np.testing.assert_allclose(score.items.values[f"mAP@{threshold:g}"], precisions, rtol=0, atol=1e-12)
        means.append(np.mean(precisions))
    assert score.metrics["mAP"].estimate.value == pytest.approx(np.mean(means), abs=1e-12)


def test_windows_without_scores_count_as_best_first():
    truth, predictions = random_task(50, np.random.default_rng(2))
    scored, best_first = {}, {}
    for query, windows in predictions.items():
        scored[query] = [(start, end, -float(place)) for place, (start, end, _) in enumerate(windows)]
        best_first[query] = [(start, end) for start, end, _ in windows]
    first, second = evaluate(truth, scored), evaluate(truth, best_first)
    assert first.metrics == second.metrics
    assert first.signature == second.signature


def test_only_ten_windows_count_and_repeating_one_does_not_help():
    truth = {"q": [(0, 10), (20, 30)]}
    wrong = [(40 + place, 41 + place) for place in range(10)]
    late = evaluate(truth, {"q": [*wrong, (0, 10)]}, metrics=["mAP@0.5"])
    assert late.metrics["mAP@0.5"].estimate.value == 0
    assert "are 11; only the first 10 count" in str(late.findings[0])
    repeated = evaluate(truth, {"q": [(0, 10)] * 10}, metrics=["mAP@0.5"])
    once = evaluate(truth, {"q": [(0, 10)]}, metrics=["mAP@0.5"])
    assert repeated.metrics["mAP@0.5"] == once.metrics["mAP@0.5"]
    assert "are repeated: '[0, 10]'; each truth window counts" in str(repeated.findings[0])


def test_a_further_window_does_not_lower_the_score():
    truth, predictions = random_task(100, np.random.default_rng(3))
    for query, windows in predictions.items():
        answer = np.array(truth[query])
        given = np.array(windows[:10])[:, :2]
        order = -np.arange(len(given) + 1.0)
        before = moments.average_precision(given, order[:-1], answer)
        after = moments.average_precision(np.vstack([given, answer[:1]]), order, answer)
        assert (after >= before).all()
        assert (after <= 1).all()


def recordings():
    """Return three queries about two recordings of 60 s."""
    return Recordings(
        (
            MomentQuery("a_1", "a dog", "a", 60, ((4.0, 10.0),)),
            MomentQuery("a_2", "rain", "a", 60, ((20.0, 30.0), (40.0, 50.0))),
            MomentQuery("b_1", "a bell", "b", 60, ((0.0, 5.0),)),
        )
    )


GOOD = {"a_1": [[4, 10, 0.9]], "a_2": [[20, 30, 0.9]], "b_1": [[30, 35, 0.9]]}


def rows_of(predictions):
    return [{"qid": query, "pred_relevant_windows": windows} for query, windows in predictions.items()]


def test_intervals_by_clip_leave_out_all_queries_of_a_recording():
    score = evaluate(recordings(), GOOD)
    measured = score.metrics["R1@0.5"]
    assert score.items.groups == (0, 0, 1)
    assert measured.by_clip == jackknife([1, 1, 0], groups=[0, 0, 1])
    assert check(score, "score.json") == []


def test_saved_scores_are_compared(tmp_path):
    evaluate(recordings(), GOOD).save(tmp_path / "one.json")
    evaluate(recordings(), {query: [[4, 10]] for query in GOOD}).save(tmp_path / "other.json")
    compared = comparison.compare(comparison.read_scores([tmp_path / "one.json", tmp_path / "other.json"]))
    assert Score.load(tmp_path / "one.json").items.kind == "queries"
    assert [difference.metric for difference in compared.differences] == [*moments.DEFAULT_METRICS]


BAD_VALUES = [
    (
        {**GOOD, "a_1": [[10, 4, 0.9]]},
        ":1: error: the windows of 'a_1' must end after their start; found '[10, 4]'",
    ),
    ({**GOOD, "a_3": [[4, 10, 0.9]]}, ":4: error: must be an id of the truth; found 'a_3'"),
    ({"a_1": GOOD["a_1"], "b_1": GOOD["b_1"]}, "error: has no answer for the id 'a_2'; add one"),
    ({"x": [[4, 10]], "y": [[4, 10]]}, "answers none of the 3 ids of the truth, for example 'a_1'; found 'x'"),
    ({"A_1": [[4, 10]], "a_2": [[4, 10]], "b_1": [[4, 10]]}, "there is 'a_1', and ids are compared verbatim"),
    ({}, "error: has no answers; give one for each of the 3 ids"),
]


@pytest.mark.parametrize(("predictions", "message"), BAD_VALUES)
def test_a_prediction_that_breaks_a_rule_is_refused(tmp_path, predictions, message):
    path = written(tmp_path, rows_of(predictions))
    with pytest.raises(Faulty) as caught:
        validate(recordings(), read_moments(path), str(path))
    assert message in str(caught.value)
    assert "submission.jsonl" in str(caught.value)


def test_two_answers_and_another_recording_are_refused_together(tmp_path):
    rows = rows_of(GOOD)
    rows[2]["vid"] = "c"
    path = written(tmp_path, [*rows, rows[0]])
    with pytest.raises(Faulty) as caught:
        evaluate(recordings(), read_moments(path), file="submission.jsonl")
    assert [str(finding) for finding in caught.value.findings] == [
        "submission.jsonl:3: error: the recording of 'b_1' must be 'b'; found 'c': is this the prediction of another "
        "data set?",
        "submission.jsonl:4: error: id 'a_1' has two answers (first in line 1); give each id one",
    ]


WARNINGS = [
    ([[4, 70, 0.9]], "windows of 'a_1' are outside the recording: '[4, 70]'; it is 60 s long"),
    ([[-1, 7, 0.9]], "windows of 'a_1' are outside the recording: '[-1, 7]'; it is 60 s long"),
    ([[4, 4, 0.9]], "windows of 'a_1' are without length: '[4, 4]'; they count as wrong"),
    ([[4, 5, 0.1], [4, 10, 0.9]], "the first window of 'a_1' does not have the highest score"),
]


@pytest.mark.parametrize(("windows", "message"), WARNINGS)
def test_unusual_windows_get_a_warning(windows, message):
    score = evaluate(recordings(), {**GOOD, "a_1": windows})
    assert message in str(score.findings[0])
    assert score.findings[0].severity == "warning"


def test_requests_are_checked():
    with pytest.raises(BadRequest, match=r"unknown metric 'R1'; there are mAP, R1@t and mAP@t"):
        evaluate(recordings(), GOOD, metrics=["R1"])
    blind = Recordings((MomentQuery("a_1", "a dog", "a", 60, ()),))
    with pytest.raises(BadRequest, match="it is a blind set"):
        evaluate(blind, {"a_1": [[1, 2]]})
    with pytest.raises(BadRequest, match=r"the truth of 'q' must be one or more windows"):
        evaluate({"q": [(3, 2)]}, {"q": [(1, 2)]})
    with pytest.raises(BadRequest, match="the truth of 'q' must be numbers"):
        evaluate({"q": [("a", "b")]}, {"q": [(1, 2)]})
    for windows in ([(1, 2), (1, 2, 3)], [("a", "b")], None):
        with pytest.raises(Faulty, match=r"prediction: error: the windows of 'q' must be"):
            evaluate({"q": [(1, 2)]}, {"q": windows})
    with pytest.raises(Faulty, match=r"windows must all be \(start, end\), or all be"):
        evaluate({"q": [(1, 2)], "r": [(1, 2)]}, {"q": [(1, 2)], "r": [(1, 2, 3)]})
    with pytest.raises(Faulty, match=r"the windows of 'q' must be one or more; found none"):
        evaluate({"q": [(1, 2)]}, {"q": []})
    assert moments.resolve_metrics(["dcase2026"]).metrics[0] == "R1@0.7"


def test_findings_of_a_kind_are_limited(tmp_path):
    queries = [MomentQuery(f"q{number}", "a dog", "a", 60, ((1.0, 2.0),)) for number in range(50)]
    path = written(tmp_path, [{"qid": f"q{number}", "pred_relevant_windows": [[2, 1]]} for number in range(50)])
    with pytest.raises(Faulty) as caught:
        evaluate(Recordings(tuple(queries)), read_moments(path))
    assert len(caught.value.findings) == 50
    assert "and 30 more of this kind" in str(caught.value)
