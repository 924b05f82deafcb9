"""JSON objects are read with the line or place of each, and values of a wrong type are findings."""

import pytest
from pydantic import BaseModel

from evaluation.findings import Faulty
from evaluation.json_objects import Entry, FilledText, Identifier, Number, read_objects, valid_rows

EXAMPLE = '{"id": "a"}'


class Row(BaseModel):
    """A row with a value of each type."""

    id: Identifier
    text: FilledText
    number: Number = 0.0


def test_lines_and_places(tmp_path):
    (tmp_path / "a.jsonl").write_text('\ufeff{"id": 1}\n\n{"id": 2}\r\n', encoding="utf-8")
    findings = []
    assert [entry.line for entry in read_objects(tmp_path / "a.jsonl", EXAMPLE, findings)] == [1, 3]
    (tmp_path / "a.json").write_text('[{"id": 1}, {"id": 2}]')
    entries = read_objects(tmp_path / "a.json", EXAMPLE, findings)
    assert [entry.place for entry in entries] == ["[0]", "[1]"]
    assert findings == []
    assert str(entries[1].finding("id", "is wrong")) == f"{tmp_path / 'a.json'}: [1].id: error: is wrong"


BAD_FILES = [
    ("a.jsonl", b"\xff\n", "must be UTF-8"),
    ("a.jsonl", b'{"id": 1}\n{"id":\n[]\n', "a.jsonl:2: error: must be JSON; Expecting value in column 7"),
    ("a.jsonl", b'{"id": 1}\n{"id":\n[]\n', "a.jsonl:3: error: must be a JSON object, such as"),
    ("a.jsonl", b'{"id": 1, "id": 2}', "a.jsonl:1: error: must not repeat a key; found 'id' twice"),
    ("a.jsonl", b'{"id": "a', "a.jsonl:1: error: must be JSON; Unterminated string starting in column 8: write the"),
    ("a.jsonl", b"# Title\n\nText\n", "found no line that is an object: give another file"),
    ("a.json", b'{"id": 1}', "error: must be a list of objects, such as"),
    ("a.json", b'[{"id": 1}, 2]', "[1]: error: must be an object, such as"),
    ("a.json", b"[" * 100_000, "is too long to read"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    findings = []
    with pytest.raises(Faulty) as caught:
        read_objects(tmp_path / name, EXAMPLE, findings)
        raise Faulty(findings)
    assert message in str(caught.value)


def test_lines_that_are_objects_are_read_beside_others(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id":\n{"id": 3}\n')
    findings = []
    assert [entry.line for entry in read_objects(tmp_path / "a.jsonl", EXAMPLE, findings)] == [1, 3]
    assert [finding.line for finding in findings] == [2]


BAD_VALUES = [
    ({"text": "a"}, "id: error: is missing; add it"),
    ({"id": True, "text": "a"}, "id: error: must be a text or a whole number; found true"),
    ({"id": " ", "text": "a"}, "id: error: must not be blank; fill it in"),
    ({"id": 1, "text": 2}, "text: error: must be a text; found 2"),
    ({"id": 1, "text": "\ud800"}, "text: error: must be valid Unicode; found '\\ud800', which has half a surrogate"),
    ({"id": 1, "text": "a", "number": "1"}, 'number: error: must be a number; found "1"'),
    ({"id": 1, "text": "a", "number": float("inf")}, "number: error: must be a finite number; found Infinity"),
]


@pytest.mark.parametrize(("content", "message"), BAD_VALUES)
def test_a_wrong_value_is_a_finding(content, message):
    findings = []
    assert valid_rows(Row, [Entry(content, "a.jsonl", 4)], findings) == []
    assert str(findings[0]).startswith(f"a.jsonl:4: {message}")


def test_a_right_row():
    entry = Entry({"id": 7, "text": "a", "number": 1}, "a.jsonl", 4)
    [(row, source)] = valid_rows(Row, [entry], [])
    assert (row.id, row.text, row.number) == ("7", "a", 1.0)
    assert source is entry


def test_a_key_that_all_objects_lack_is_one_finding():
    entries = [Entry({"id": number, "txt": "a"}, "a.jsonl", number) for number in range(1, 31)]
    findings = []
    assert valid_rows(Row, entries, findings) == []
    (finding,) = findings
    assert str(finding) == (
        "a.jsonl:1: text: error: is missing; add it to every object, or correct its name; found 'id', 'txt'"
    )
    findings = []
    assert len(valid_rows(Row, [*entries[1:], Entry({"id": 1, "text": "a"}, "a.jsonl", 1)], findings)) == 1
    assert [finding.message for finding in findings] == ["is missing; add it"] * 29
