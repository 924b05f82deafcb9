"""Questions about clips are read strictly, in the published forms."""

import json

import pytest

from evaluation.data.questions import read_questions
from evaluation.findings import BadRequest, Faulty
from tests.evaluation.json_lines import written

ROW = {
    "id": "dev_1",
    "audio_path": "dev_audios/a.wav",
    "question_text": "What is it?",
    "multi_choice": ["Rain", "Wind"],
    "answer": "Rain",
}


def test_json_lines_of_2026(tmp_path):
    rows = [ROW, {**ROW, "id": 2, "question_type": "order", "source_dataset": "MMAR", "other": 1}]
    questions, notes = read_questions(written(tmp_path, rows))
    first, second = questions.questions
    assert (first.id, first.options, first.answer, first.audio) == (
        "dev_1",
        ("Rain", "Wind"),
        "Rain",
        ROW["audio_path"],
    )
    assert (second.id, second.type, second.part) == ("2", "order", "MMAR")
    assert notes == []
    assert repr(questions) == "Questions(2 questions about 1 clip)"
    turned = written(tmp_path, [{**ROW, "multi_choice": ["Wind", "Rain"]}, rows[1]])
    assert read_questions(turned)[0].fingerprint == questions.fingerprint


def test_folder_of_2025(tmp_path):
    content = {
        "question": "What is it?",
        "choice": ["A. Rain", "B. Wind"],
        "answer": "A. Rain",
        "audio_url": "data/a.wav",
        "question_type": "species",
    }
    for part, name in (("BQA", "q2"), ("BQA", "q1"), ("TSQA", "q3")):
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / f"{name}.json").write_text(json.dumps(content))
    questions, _ = read_questions(tmp_path)
    assert [(question.id, question.part) for question in questions.questions] == [
        ("q1", "BQA"),
        ("q2", "BQA"),
        ("q3", "TSQA"),
    ]
    assert questions.questions[0].audio == "BQA/a.wav"
    assert questions.questions[0].type == "species"
    (tmp_path / "TSQA" / "q1.json").write_text(json.dumps({**content, "answer": "A"}))
    with pytest.raises(Faulty) as caught:
        read_questions(tmp_path)
    assert "q1.json: error: the id 'q1' is already in " in str(caught.value)
    assert "q1.json: answer: error: must be the text of an option, verbatim; found 'A'" in str(caught.value)


BAD = [
    ({"answer": "rain"}, ":1: answer: error: must be the text of an option, verbatim; found 'rain'"),
    ({"multi_choice": ["Rain"]}, ":1: multi_choice: error: must be two options or more; found 1"),
    ({"multi_choice": ["Rain", "Rain"]}, ":1: multi_choice: error: must be different; found 'Rain' 2 times"),
    ({"multi_choice": ["Rain", " "]}, ":1: multi_choice: error: must not be blank"),
    ({"multi_choice": ["Rain", 3]}, ":1: multi_choice[1]: error: must be a text; found 3"),
    ({"multi_choice": "Rain"}, ':1: multi_choice: error: must be a list; found "Rain"'),
    ({"question_text": ""}, ":1: question_text: error: must not be blank"),
    ({"id": True}, ":1: id: error: must be a text or a whole number; found true"),
    ({"audio_path": "/etc/a.wav"}, ":1: audio_path: error: must be a path in the folder of the questions; found '/etc"),
    ({"audio_path": "../a.wav"}, ":1: audio_path: error: must be a path in the folder of the questions"),
    ({"audio_path": "a/../../b.wav"}, ":1: audio_path: error: must be a path in the folder of the questions"),
    ({"audio_path": "C:\\a.wav"}, ":1: audio_path: error: must be a path in the folder of the questions"),
    ({"audio_path": "..\\a.wav"}, ":1: audio_path: error: must be a path in the folder of the questions"),
    ({"audio_path": "a\0.wav"}, ":1: audio_path: error: must be a path in the folder of the questions"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_question_is_refused(tmp_path, change, message):
    with pytest.raises(Faulty) as caught:
        read_questions(written(tmp_path, [{**ROW, **change}]))
    assert message in str(caught.value)


def test_repeated_ids_and_missing_answers_are_reported_together(tmp_path):
    blind = {key: value for key, value in ROW.items() if key != "answer"}
    path = written(tmp_path, [ROW, {**blind, "id": "dev_2"}, ROW])
    with pytest.raises(Faulty) as caught:
        read_questions(path)
    assert [(finding.line, finding.column) for finding in caught.value.findings] == [(2, "answer"), (3, "")]
    assert read_questions(written(tmp_path, [blind]))[0].is_blind


def test_a_file_of_another_kind_gets_one_finding(tmp_path):
    with pytest.raises(Faulty, match="must have questions, which are objects") as caught:
        read_questions(written(tmp_path, [{"qid": "a"}, {"qid": "a"}]))
    assert len(caught.value.findings) == 1


def test_nothing_to_read(tmp_path):
    with pytest.raises(BadRequest, match="no such file"):
        read_questions(tmp_path / "dev.jsonl")
    with pytest.raises(Faulty, match="has no questions"):
        read_questions(tmp_path)
    (tmp_path / "a.json").write_text("[")
    with pytest.raises(Faulty, match=r"a\.json:1: error: must be JSON"):
        read_questions(tmp_path)
