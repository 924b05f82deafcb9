"""Queries about recordings are read strictly, in the published form."""

import pytest

from evaluation.data.recordings import AFTER, BACKWARDS, BEFORE, EARLY, EMPTY, LATE, read_recordings, time_faults
from evaluation.findings import BadRequest, Faulty
from tests.evaluation.json_lines import written

ROW = {"qid": "a_1", "query": "A dog barks", "duration": 60, "vid": "a", "relevant_windows": [[4, 10], [20.5, 30]]}


def test_the_published_form(tmp_path):
    recordings, notes = read_recordings(written(tmp_path, [ROW, {**ROW, "qid": 7, "fg_dB": 0.7}]))
    first, second = recordings.queries
    assert (first.windows, first.seconds, first.recording) == (((4.0, 10.0), (20.5, 30.0)), 60.0, "a")
    assert second.id == "7"
    assert notes == []
    assert repr(recordings) == "Recordings(2 queries about 1 recording)"


def test_windows_after_the_end_are_kept(tmp_path):
    rows = [{**ROW, "relevant_windows": [[50, 61]]}, {**ROW, "qid": "b_1", "relevant_windows": [[50, 4800]]}]
    recordings, findings = read_recordings(written(tmp_path, rows))
    assert recordings.queries[1].windows == ((50.0, 4800.0),)
    assert [finding.severity for finding in findings] == ["warning", "note"]
    assert "ends 4740 s after the recording, which is 60 s long; found [50, 4800]" in findings[0].message
    assert "1 window ends after the recording, by up to 1 s" in findings[1].message


BAD = [
    (
        {"relevant_windows": [[10, 4]]},
        ":1: relevant_windows[0]: error: must begin at 0 or later and end after its start",
    ),
    (
        {"relevant_windows": [[4, 4]]},
        ":1: relevant_windows[0]: error: must begin at 0 or later and end after its start",
    ),
    ({"relevant_windows": [[-1, 4]]}, ":1: relevant_windows[0]: error: must begin at 0 or later"),
    ({"relevant_windows": [[1, 2], [1, 2]]}, ":1: relevant_windows[1]: error: repeats [1, 2]"),
    ({"relevant_windows": [[1, 2, 3]]}, ":1: relevant_windows[0]: error: must be [start, end] in seconds; found [1, 2"),
    ({"relevant_windows": [["1", 2]]}, ':1: relevant_windows[0]: error: must be a number; found "1"'),
    ({"relevant_windows": []}, ":1: relevant_windows: error: must have one window or more"),
    ({"relevant_windows": {}}, ":1: relevant_windows: error: must be a list; found {}"),
    ({"duration": "60"}, ':1: duration: error: must be a number; found "60"'),
    ({"duration": 0}, ":1: duration: error: must be above 0 seconds; found 0"),
    ({"vid": "../a"}, ":1: vid: error: must be the name of a recording and not a path; found '../a'"),
    ({"query": " "}, ":1: query: error: must not be blank"),
    ({"qid": None}, ":1: qid: error: must be a text or a whole number; found null"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_line_is_refused(tmp_path, change, message):
    with pytest.raises(Faulty) as caught:
        read_recordings(written(tmp_path, [{**ROW, **change}]))
    assert message in str(caught.value)


TIMES = [
    ((4, 10), []),
    ((0, 61), []),  # within the slack
    ((9, 4), [BACKWARDS]),
    ((4, 4), [EMPTY]),
    ((-1, 4), [EARLY]),
    ((-1, 0), [BEFORE, EARLY]),
    ((50, 63), [LATE]),
    ((63, 70), [AFTER, LATE]),
    ((63, -1), [BACKWARDS, BEFORE, AFTER]),
]


@pytest.mark.parametrize(("times", "faults"), TIMES)
def test_rules_for_the_times_of_a_window(times, faults):
    assert time_faults(*times, seconds=60, slack=2) == faults


def test_lines_must_agree(tmp_path):
    blind = {key: value for key, value in ROW.items() if key != "relevant_windows"}
    path = written(tmp_path, [ROW, {**blind, "qid": "a_2"}, {**ROW, "qid": "a_3", "duration": 61}, ROW])
    with pytest.raises(Faulty) as caught:
        read_recordings(path)
    assert [(finding.line, finding.column) for finding in caught.value.findings] == [
        (2, "relevant_windows"),
        (3, "duration"),
        (4, "qid"),
    ]
    assert read_recordings(written(tmp_path, [blind]))[0].is_blind


def test_a_file_of_another_kind_gets_one_finding(tmp_path):
    with pytest.raises(Faulty, match="must have queries, which are objects") as caught:
        read_recordings(written(tmp_path, [{"id": "a"}, {"id": "a"}]))
    assert len(caught.value.findings) == 1


def test_nothing_to_read(tmp_path):
    with pytest.raises(BadRequest, match="no such file"):
        read_recordings(tmp_path / "none.jsonl")
    with pytest.raises(Faulty, match="has no queries"):
        read_recordings(written(tmp_path, []))
