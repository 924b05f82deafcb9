"""Predictions of moment retrieval are read strictly, with and without scores, and written as they are read."""

import json
import math

import numpy as np
import pytest

from evaluation.findings import BadRequest, Faulty
from evaluation.moment_formats import Moments, read_moments, survey_moments, write_moments
from tests.evaluation.json_lines import written


def row(windows, qid="a_1"):
    return {"qid": qid, "pred_relevant_windows": windows}


def test_both_forms(tmp_path):
    scored = read_moments(written(tmp_path, [{**row([[4, 10, 0.9], [5, 6.5, 0.1]]), "vid": "a"}, row([[1, 2, 3]], 7)]))
    assert (scored.ids, scored.recordings, scored.lines) == (("a_1", "7"), ("a", ""), (1, 2))
    assert [windows.tolist() for windows in scored.windows] == [[[4, 10], [5, 6.5]], [[1, 2]]]
    assert [scores.tolist() for scores in scored.scores] == [[0.9, 0.1], [3]]
    assert repr(scored) == "Moments(2 queries, with scores)"
    blind = read_moments(written(tmp_path, [row([[4, 10], [5, 6.5]])]))
    assert (blind.scores, blind.recordings) == ((), ())
    assert repr(blind) == "Moments(1 queries, best first)"


def test_a_json_list_is_read_like_lines(tmp_path):
    (tmp_path / "submission.json").write_text(json.dumps([row([[4, 10]])]))
    moments = read_moments(tmp_path / "submission.json")
    assert (moments.ids, moments.lines) == (("a_1",), ())
    (tmp_path / "submission.json").write_text(json.dumps([row([[4, 10]]), row([["4", 10]])]))
    with pytest.raises(Faulty, match=r"submission\.json: \[1\]\.pred_relevant_windows\[0\]: error: must be a number"):
        read_moments(tmp_path / "submission.json")


def test_what_is_written_is_read(tmp_path):
    for windows in (
        {"q1": [(0.5, 2.25, 0.5)], "q2": [(1, 3, 0.25), (4, 5, 0.125)]},
        {"q1": [(0.5, 2)], "q2": [(1, 2)]},
    ):
        moments = Moments.of(windows)
        names = {"q1": "r1", "q2": "r2"}
        write_moments(tmp_path / "submission.jsonl", moments, {"q1": "é", "q2": "b"}, names)
        again = read_moments(tmp_path / "submission.jsonl")
        assert (again.ids, again.recordings) == (("q1", "q2"), ("r1", "r2"))
        assert all(map(np.array_equal, again.windows, moments.windows))
        assert len(again.scores) == len(moments.scores)
        assert all(map(np.array_equal, again.scores, moments.scores))


BAD_WINDOWS = [
    ([row([])], ":1: pred_relevant_windows: error: must have one window or more"),
    (
        [row([[4, 10]]), row([[4, 10, 1]])],
        ":2: pred_relevant_windows: error: must have windows [start, end], as the fi",
    ),
    ([row([[4, 10], [4, 10, 0.9]])], ":1: pred_relevant_windows: error: must have windows of one form"),
    ([row([[4, 10, "0.9"]])], ':1: pred_relevant_windows[0]: error: must be a number; found "0.9"'),
    ([row([[4, True, 0.9]])], ":1: pred_relevant_windows[0]: error: must be a number; found true"),
    ([row([[4, 10, math.nan]])], ":1: pred_relevant_windows[0]: error: must be a finite number; found NaN"),
    ([row([[4, 10**400]])], ":1: pred_relevant_windows[0]: error: must be a finite number"),
    ([row([[4]])], ":1: pred_relevant_windows[0]: error: must be [start, end, score] or [start, end]"),
    ([row(4)], ":1: pred_relevant_windows: error: must be a list; found 4"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_WINDOWS)
def test_windows_of_another_form_are_refused(tmp_path, rows, message):
    with pytest.raises(Faulty) as caught:
        read_moments(written(tmp_path, rows))
    assert message in str(caught.value)


def test_what_can_be_read_of_a_faulty_file(tmp_path):
    rows = [row([[4, 10], [4, 10, 0.9]]), row([[9, 4], ["x", 1]], "a_2"), {"qid": "a_3"}, row([[1, 2]], "a_4")]
    moments, findings = survey_moments(written(tmp_path, rows))
    assert [(finding.line, finding.column) for finding in sorted(findings)] == [
        (1, "pred_relevant_windows"),
        (2, "pred_relevant_windows[1]"),
        (3, "pred_relevant_windows"),
    ]
    assert (moments.ids, moments.lines, moments.scores) == (("a_1", "a_2", "a_4"), (1, 2, 4), ())
    assert [windows.tolist() for windows in moments.windows] == [[[4, 10], [4, 10]], [[9, 4]], [[1, 2]]]


BAD_ROWS = [
    (['{"qid": "a_1"'], ":1: error: must be JSON"),
    (["[1]"], ":1: error: must be a JSON object"),
    ([{"pred_relevant_windows": [[1, 2]]}], ":1: qid: error: is missing; add it"),
    ([{"qid": 1.5, "pred_relevant_windows": [[1, 2]]}], ":1: qid: error: must be a text or a whole number; found 1.5"),
    (['{"qid": "a", "qid": "b", "pred_relevant_windows": [[1, 2]]}'], ":1: error: must not repeat a key; found 'qid'"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS)
def test_lines_of_another_form_are_refused(tmp_path, rows, message):
    with pytest.raises(Faulty) as caught:
        read_moments(written(tmp_path, rows))
    assert message in str(caught.value)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "output.csv").touch()
    with pytest.raises(BadRequest, match=r"must be JSON lines \(\.jsonl\) or JSON \(\.json\)"):
        read_moments(tmp_path / "output.csv")
    with pytest.raises(BadRequest, match="no such file"):
        read_moments(tmp_path / "submission.jsonl")
    with pytest.raises(Faulty, match=r"must have windows of queries, which are objects with the keys qid, pred_relev"):
        read_moments(written(tmp_path, [{"id": "a_1"}]))
