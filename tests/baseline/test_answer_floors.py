"""Floors of question answering and moment retrieval are written and scored."""

import json

import numpy as np
import pytest

from baseline.answer_floors import command, parser, random_windows, whole_recordings
from evaluation.data.recordings import MomentQuery, Recordings
from evaluation.metrics import moments
from evaluation.scores import Score

QUESTIONS = [
    {"id": "q1", "audio_path": "a.wav", "question_text": "What?", "multi_choice": ["rain", "wind"], "answer": "rain"},
    {"id": "q2", "audio_path": "b.wav", "question_text": "What?", "multi_choice": ["cat", "a dog"], "answer": "a dog"},
]
QUERY = {"qid": "m1", "query": "a dog", "duration": 10, "vid": "a", "relevant_windows": [[0, 6]]}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_choice(tmp_path, capsys):
    truth = written(tmp_path / "dev.jsonl", QUESTIONS)
    assert command(parser(), ["choice", "--truth", truth, "--out", str(tmp_path / "out")]) == 0
    rows = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert (rows["chance"], rows["first"], rows["longest"]) == ("0.500", "0.500", "1.000")
    assert (tmp_path / "out" / "first.csv").read_text() == "question,answer\nq1,rain\nq2,cat\n"
    assert Score.load(tmp_path / "out" / "random.json").metrics["accuracy"].chance == 0.5
    assert command(parser(), ["choice", "--truth", truth, "--out", str(tmp_path / "out")]) == 2


def test_moments(tmp_path, capsys):
    truth = written(tmp_path / "val.jsonl", [QUERY])
    assert command(parser(), ["moments", "--truth", truth, "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["whole", "1.000", "0.000", "0.300", "1.000", "0.000"]
    row = json.loads((tmp_path / "out" / "whole.jsonl").read_text())
    assert row == {"qid": "m1", "query": "a dog", "vid": "a", "pred_relevant_windows": [[0.0, 10.0]]}


@pytest.mark.parametrize("floor", [whole_recordings, random_windows])
def test_windows_lie_in_the_recording(floor):
    queries = [MomentQuery(f"q{number}", "a dog", f"r{number}", 7.5 + number, ((1.0, 2.0),)) for number in range(50)]
    truth = Recordings(tuple(queries))
    prediction = floor(truth)
    assert moments.validate(truth, prediction) == []
    assert all((np.diff(windows) > 0).all() for windows in prediction.windows)
