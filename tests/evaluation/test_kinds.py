"""The table of kinds has what the code that reads it needs, and the commands of the new kinds score files."""

import json

import pytest

from evaluation.__main__ import command, parser
from evaluation.findings import BadRequest
from evaluation.kinds import KINDS, kind_of_predictions
from evaluation.metrics import catalogue
from evaluation.scores import Score

QUESTION = {"id": "q1", "audio_path": "a.wav", "question_text": "What?", "multi_choice": ["A", "B"], "answer": "A"}
QUERY = {"qid": "m1", "query": "a dog", "duration": 60, "vid": "a", "relevant_windows": [[4, 10]]}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the ground truth and the prediction of a question and a query."""
    (tmp_path / "questions_evaluation.jsonl").write_text(json.dumps(QUESTION))
    (tmp_path / "moments_evaluation.jsonl").write_text(json.dumps(QUERY))
    (tmp_path / "choice.csv").write_text("question,answer\nq1,A\n")
    (tmp_path / "moments.jsonl").write_text('{"qid": "m1", "pred_relevant_windows": [[4, 10]]}')
    return tmp_path


def test_every_kind_has_metrics_that_the_catalogue_finds():
    for kind in KINDS.values():
        assert kind.metrics
        for name in kind.metrics:
            assert catalogue.find(name).statistic == kind.metrics[name].statistic


@pytest.mark.parametrize(
    ("kind", "truth", "prediction", "metric"),
    [
        ("choice", "questions_evaluation.jsonl", "choice.csv", "accuracy"),
        ("moments", "moments_evaluation.jsonl", "moments.jsonl", "R1@0.5"),
    ],
)
def test_the_command_scores_a_file(folder, capsys, kind, truth, prediction, metric):
    tables = []
    for path in (folder, folder / truth):
        arguments = ["--truth", str(path), "--prediction", str(folder / prediction), "--json", str(folder / "s.json")]
        assert command(parser(), ["score", kind, *arguments]) == 0
        assert Score.load(folder / "s.json").metrics[metric].estimate.value == 1
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert tables[0].startswith("metric")


def test_intervals_are_by_clip_or_by_recording(folder, capsys):
    questions, queries = [QUESTION, {**QUESTION, "id": "q2"}], [QUERY, {**QUERY, "qid": "m2"}]
    (folder / "questions_evaluation.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (folder / "choice.csv").write_text("question,answer\nq1,A\nq2,A\n")
    (folder / "moments_evaluation.jsonl").write_text("\n".join(map(json.dumps, queries)))
    windows = [{"qid": query["qid"], "pred_relevant_windows": [[4, 10]]} for query in queries]
    (folder / "moments.jsonl").write_text("\n".join(map(json.dumps, windows)))
    for kind, file, group in (("choice", "choice.csv", "by clip"), ("moments", "moments.jsonl", "by recording")):
        assert command(parser(), ["score", kind, "--truth", str(folder), "--prediction", str(folder / file)]) == 0
        assert group in capsys.readouterr().out.splitlines()[0]


def test_wrong_requests(folder, capsys):
    truth, prediction = ["--truth", str(folder)], ["--prediction", str(folder / "choice.csv")]
    output = ["--json", str(folder / "choice.csv")]
    assert command(parser(), ["score", "choice", *truth, *prediction, *output]) == 2
    assert "--json" in capsys.readouterr().err
    assert command(parser(), ["score", "choice", *truth, *prediction, "--metrics", "macro_types"]) == 1
    assert "error: macro_types is not available: the questions have no types" in capsys.readouterr().err
    assert command(parser(), ["score", "choice", *truth, *prediction, "--metrics", "macro"]) == 2
    assert "unknown metric 'macro'; there are: accuracy, dcase2025, dcase2026\n" in capsys.readouterr().err
    windows = ["--prediction", str(folder / "moments.jsonl"), "--metrics", "R1@1.5"]
    assert command(parser(), ["score", "moments", *truth, *windows]) == 2
    assert "a minimum IoU from 0.01 to 1, without a zero at its end (0.5, 0.75, 1), and the set dcase2026\n" in (
        capsys.readouterr().err
    )
    assert command(parser(), ["score", "choice", *truth, *prediction, "--split", "test"]) == 2
    assert "questions_test.jsonl: no such file; the splits in this folder: evaluation" in capsys.readouterr().err
    (folder / "choice.csv").write_text("question,answer\nq1,a\n")
    assert command(parser(), ["score", "choice", *truth, *prediction]) == 1
    assert "choice.csv:2: error: the answer to 'q1' must be an option" in capsys.readouterr().err


def test_findings_about_form_and_content_come_together(folder, capsys):
    """A line that cannot be read does not hide faults of other lines, and its id does not count as missing."""
    questions = [QUESTION, {**QUESTION, "id": "q2"}, {**QUESTION, "id": "q3"}]
    (folder / "questions_evaluation.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (folder / "choice.csv").write_text("question,answer\nq1,A,B\nq2,C\nq4,A\n")
    queries = [QUERY, {**QUERY, "qid": "m2"}, {**QUERY, "qid": "m3"}]
    (folder / "moments_evaluation.jsonl").write_text("\n".join(map(json.dumps, queries)))
    windows = {"m1": [[4]], "m2": [[9, 4]], "m4": [[4, 10]]}
    lines = [json.dumps({"qid": name, "pred_relevant_windows": given}) for name, given in windows.items()]
    (folder / "moments.jsonl").write_text("\n".join(lines))
    expected = {
        "choice.csv": [
            "2: error: must have 2 cells",
            "3: error: the answer to 'q2' must be",
            "4: error: must be an id",
        ],
        "moments.jsonl": [
            "1: pred_relevant_windows[0]: error: must be [start, end, score] or [start, end]",
            "2: error: the windows of 'm2' must end after their start",
            "3: error: must be an id of the truth; found 'm4'",
        ],
    }
    for name, messages in expected.items():
        file = folder / name
        assert command(parser(), ["score", file.stem, "--truth", str(folder), "--prediction", str(file)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == len(messages)
        for line, message in zip(lines, messages, strict=True):
            assert line.startswith(f"{file}:{message}")


def test_a_folder_of_the_other_kind_is_refused(folder, capsys):
    (folder / "questions_evaluation.jsonl").rename(folder / "questions.jsonl")
    words = ["--truth", str(folder), "--prediction", str(folder / "choice.csv")]
    assert command(parser(), ["score", "choice", *words]) == 2
    message = "must have questions about clips; found queries about recordings: give another folder, or predictions of "
    assert f"{message}a moment retrieval system (`score moments`)" in capsys.readouterr().err


def test_kinds_of_predictions(folder):
    texts = {
        "lists.csv": "caption,file_name_1,file_name_2\nRain,a.wav,b.wav\n",
        "captions.csv": "file_name,caption_predicted\na.wav,Rain\n",
        "others.tsv": "fname\tcands\na.wav\tRain\n",
        "choice.jsonl": '{"id": "q1", "answer": "A"}',
        "semicolons.csv": "file_name;caption_predicted\na.wav;Rain\n",
        "long.csv": "question" * 40_000,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    kinds = {
        "retrieval": ["a.npz", "lists.csv", "a.run", "nowhere.csv", "semicolons.csv", "long.csv"],
        "captioning": ["captions.csv", "others.tsv", "a.json"],
        "choice": ["choice.csv", "choice.jsonl"],
        "moments": ["moments.jsonl"],
    }
    assert list(kinds) == list(KINDS)
    for kind, names in kinds.items():
        assert kind_of_predictions([folder / name for name in names]) == kind
    with pytest.raises(
        BadRequest, match=r"must be the prediction of a retrieval system, as .*found that of a captioning"
    ):
        kind_of_predictions([folder / "a.npz", folder / "others.tsv"])
    with pytest.raises(BadRequest, match=r"of a moment retrieval system, as .*found that of a question answering"):
        kind_of_predictions([folder / "moments.jsonl", folder / "choice.csv"])
