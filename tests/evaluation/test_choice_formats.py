"""Answers to questions are read strictly, from CSV and JSON."""

import json

import pytest

from evaluation.choice_formats import read_answers, survey_answers, write_answers
from evaluation.findings import BadRequest, Faulty


def test_json_and_csv_give_the_same_answers(tmp_path):
    rows = [{"question": "q1", "answer": "Rain"}, {"id": "q2", "answer": "A cat"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    lines = read_answers(tmp_path / "a.jsonl")
    write_answers(tmp_path / "a.csv", lines)
    for name in ("a.json", "a.csv"):
        answers = read_answers(tmp_path / name)
        assert (answers.ids, answers.answers) == (lines.ids, lines.answers)
    assert repr(lines) == "Answers(2 questions)"


BAD_JSON = [
    ('{"question": "q1"}', ":1: answer: error: is missing; add it"),
    ('{"answer": "Rain"}', ":1: question: error: is missing; add it"),
    ('{"question": "q1", "answer": ["Rain"]}', ':1: answer: error: must be a text; found ["Rain"]'),
    ('{"question": "q1", "answer": 1}', ":1: answer: error: must be a text; found 1"),
    ('"q1"', ":1: error: must be a JSON object, such as"),
    ('{"qid": "q1"}', ":1: error: must have answers, which are objects with the keys question, answer; found 'qid'"),
]


@pytest.mark.parametrize(("text", "message"), BAD_JSON)
def test_lines_of_another_form_are_refused(tmp_path, text, message):
    path = tmp_path / "output.jsonl"
    path.write_text(text)
    with pytest.raises(Faulty) as caught:
        read_answers(path)
    assert message in str(caught.value)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "similarity.npz").touch()
    with pytest.raises(BadRequest, match=r"must be \.csv, \.tsv, \.json or \.jsonl"):
        read_answers(tmp_path / "similarity.npz")
    with pytest.raises(BadRequest, match="no such file"):
        read_answers(tmp_path / "output.csv")


BAD_CSV = [
    ("id,answer\nq1,Rain\n", ":1: error: the header must have one column 'question'; found 'id', 'answer'"),
    ("question,answer\nq1,Rain,Wind\n", ":2: error: must have 2 cells, as the header; found 3"),
    ("", ":1: error: the header must have one column 'question'; found no line"),
    ('question,answer\nq1,"Rain\n', "error: is not valid CSV"),
    ("question;answer\nq1;Rain\n", ":1: error: columns must be separated by commas or tabs; found semicolons"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CSV)
def test_a_csv_of_another_form_is_refused(tmp_path, text, message):
    path = tmp_path / "output.csv"
    path.write_text(text)
    with pytest.raises(Faulty) as caught:
        read_answers(path)
    assert message in str(caught.value)


def test_what_can_be_read_of_a_faulty_file(tmp_path):
    (tmp_path / "output.csv").write_text("question,answer\nq1,Rain,Wind\nq2,Rain\n")
    (tmp_path / "output.jsonl").write_text('{"question": "q1", "answer": 1}\n{"question": "q2", "answer": "Rain"}\n')
    for name, line in (("output.csv", 3), ("output.jsonl", 2)):
        answers, findings = survey_answers(tmp_path / name)
        assert (answers.ids, answers.answers, answers.lines) == (("q2",), ("Rain",), (line,))
        assert [finding.line for finding in findings] == [line - 1]


def test_tabs_byte_order_mark_and_other_columns(tmp_path):
    path = tmp_path / "output.csv"
    path.write_bytes("\ufeffanswer\tscore\tquestion\r\nIt rains, a lot\t1\tq1\r\n".encode())
    answers = read_answers(path)
    assert (answers.ids, answers.answers, answers.lines) == (("q1",), ("It rains, a lot",), (2,))
