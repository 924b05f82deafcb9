"""Metadata files that the kit writes are valid, and are read back unchanged."""

import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submission import documents, metadata, metadata_text, tasks
from tests.submission.test_metadata import AUTHORS, TASKS, VALID, A, B, said

ODD = (
    "yes",
    "No",
    "1e-5",
    "1.0",
    "null",
    "~",
    "y",
    "a: b",
    "a #b",
    "- a",
    " a",
    "a ",
    "'",
    '"',
    "\\",
    "a\nb",
    "2023-01-01",
)
ODD += (
    "!!null",
    "*a",
    "&a",
    "@",
    "`",
    "%",
    "[",
    "{",
    "|",
    ">",
    "?",
    "=",
    "<<",
    "a:",
    "\t",
    "\x85",
    "\u2028",
    "\ufeff",
    "0x1f",
)
TEXTS = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text("ab:#-' \n\"", max_size=8),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def values_of(key: tasks.Key) -> st.SearchStrategy:
    """Return a strategy for all values of a key. Optional keys may be absent."""
    if key.keys:
        needed = {
            name: values_of(below) for name, below in key.keys.items() if below.need != "optional" or below.metric
        }
        scored = {name for name, below in key.keys.items() if any(leaf.metric for leaf in below.keys.values())}
        optional = {name: values_of(below) for name, below in key.keys.items() if name not in needed}
        needed |= {name: optional.pop(name) for name in scored & optional.keys()}
        one = st.fixed_dictionaries(needed, optional=optional)
        return st.lists(one, min_size=1, max_size=2) if key.many else one
    leaf = {"text": TEXTS, "number": FLOATS | st.integers(), "integer": st.integers(0), "yes-no": st.booleans()}[
        key.type
    ]
    return leaf if key.need == "required" else leaf | st.none() if key.need == "nullable" or key.metric else leaf


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([A, B, "dcase2025-6"]), st.data())
def test_what_is_written_reads_back_equal(tmp_path, name, data):
    top = tasks.Key(need="required", keys={key: fact.value for key, fact in TASKS[name].metadata.items()})
    values = data.draw(values_of(top))
    written = metadata_text.text(TASKS[name], values)
    path = tmp_path / "m.yaml"
    path.write_bytes(written.encode())
    document = documents.read(path)
    assert document.findings == []
    assert document.values == values == yaml.safe_load(written)
    assert list(document.values["system"]["description"]) == list(top.keys["system"].keys["description"].keys)
    assert metadata_text.text(TASKS[name], dict(reversed(values.items()))) == written
    for kind in (bool, int, float, str):  # 1 == True == 1.0
        kept = [[type(leaf) is kind for leaf in leaves(v)] for v in (values, yaml.load(written, yaml.CSafeLoader))]
        assert sum(kept[0]) == sum(kept[1])


def leaves(value: object) -> list[object]:
    if isinstance(value, dict | list):
        return [leaf for inner in (value.values() if isinstance(value, dict) else value) for leaf in leaves(inner)]
    return [value]


@pytest.mark.parametrize("name", TASKS)
def test_a_file_without_values_says_what_to_fill_in(name, tmp_path):
    text = metadata_text.text(TASKS[name], {})
    assert max(map(len, text.splitlines())) <= 120
    found = said(name, text, tmp_path)
    assert all(": error: must not be empty; fill it in" in line or AUTHORS in line for line in found)
    assert len(found) == 11 + ("training_datasets" in text)


def test_valid_values_are_written_valid(tmp_path):
    for name, content in VALID.items():
        values = yaml.safe_load(content)
        text = metadata_text.text(TASKS[name], values)
        assert said(name, text, tmp_path) == []
        assert yaml.safe_load(text) == values
        assert "learning_rate: 1.0e-05  # such as" in text
        assert "    gradient_norm: !!null  # norm" in text
        assert "\n    - lastname: Gontier\n" in text
        assert "        # department:  # Optional\n" in text
    assert metadata.check(TASKS[B], documents.Document(values), "m.yaml") == []
    values["submission"]["abbreviation"] = "y"  # PyYAML reads it as text, other readers as true
    assert '  abbreviation: "y"' in metadata_text.text(TASKS[B], values)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"submision": {}}, "unknown key 'submision'; did you mean 'submission'"),
        ({"submission": {"labl": "x"}}, "submission: unknown key 'labl'; did you mean 'label'"),
        ({"submission": {"authors": [{"mail": "x"}]}}, "submission.authors.1: unknown key 'mail'"),
        ({"submission": {"authors": "me"}}, "submission.authors: must be a list; found 'me'"),
        ({"submission": "x"}, "submission: must be keys and values; found 'x'"),
        ({"submission": {"name": ["a"]}}, "submission.name: must be a single value; found a list"),
        ({"submission": {"name": "\ud800"}}, "submission.name: must not contain half a character"),
    ],
)
def test_what_cannot_be_written(block, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        metadata_text.text(TASKS[A], block)
