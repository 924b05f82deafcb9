"""Text for people: printable, short, with suggestions for misspelt names."""

import pytest

from evaluation.text import first_items, lookalike, printable, table, unknown_key


@pytest.mark.parametrize("text", ["plain – text, 日本語 🐕", "a\u2028b\x85c\u202ed", "\ud800\udfff", "\0\r\n\t\x1b"])
def test_printable_is_printable(text):
    safe = printable(text)
    assert safe.isprintable()
    assert printable(safe) == safe
    assert (safe == text) == text.isprintable()
    safe.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (" dog.wav ", "dog.wav"),
        ("DOG.WAV", "dog.wav"),
        ("rain & storm.wav", "rain &amp; storm.wav"),
        ("rain &AMP; storm.wav", "rain &amp; storm.wav"),
        ("cafe\u0301.wav", "caf\u00e9.wav"),
        ("dog", None),
        ("do g.wav", None),
        ("", None),
    ],
)
def test_lookalike(name, found):
    assert lookalike(["dog.wav", "rain &amp; storm.wav", "caf\u00e9.wav"])(name) == found


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "did you mean 'epochs'? "),
        ("Epochs ", "did you mean 'epochs'? "),
        ("learn", "did you mean 'learning_rate'? "),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_unknown_key(key, hint):
    known = ["batch", "epochs", "learning_rate"]
    assert unknown_key(key, known) == f"unknown key {key!r}; {hint}there are: batch, epochs, learning_rate"


def test_an_unknown_key_is_escaped_once():
    assert unknown_key("a\n\\", ["b"], "split") == r"unknown split 'a\n\\'; there are: b"


@pytest.mark.parametrize(
    ("items", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b, and 1 more")],
)
def test_first_items(items, text):
    assert first_items(items, limit=2) == text


def test_first_items_on_lines_of_their_own():
    assert first_items(("a", "b", "c", "d"), limit=1, separator="\n  ") == "a\n  and 3 more"


def test_a_table_is_text():
    assert table([["a", 1], ["b", "10.50"]], ["x", "y"], numbers=[1]).splitlines()[2:] == ["a        1", "b    10.50"]
    assert table([], ["x", "y"], numbers=[1]).split() == ["x", "y", "---", "---"]
