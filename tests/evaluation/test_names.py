"""Explanations of names that differ from those of the data."""

import unicodedata

import pytest

from evaluation.findings import BadRequest
from evaluation.names import (
    FEW,
    RULES,
    closest,
    explain,
    find_clips,
    format_rules,
    hint,
    match,
    parse_rules,
    unicode_form,
)

CLIPS = (
    *(" leading.wav", "comma, name.wav", "cours d&#39;eau.wav", "dots.in.stem.wav", "Capital.wav"),
    *("café.wav", "été.wav", "a_b-c.wav", "7.wav", "8.wav", "9.flac"),
)
QUERIES = ("A dog barks.", "Rain falls, then stops.", "Café noise.", 'A man says "hi".', "Wind & rain", "It's on/off.")


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


CHANGES = {
    "extension": (
        CLIPS,
        lambda name: name.replace(".wav", ".mp3").replace(".flac", ".mp3"),
        ("extension",),
        "their extension: .mp3 where the data have .wav",
    ),
    "no extension": (
        CLIPS,
        lambda name: name.rpartition(".")[0],
        ("extension",),
        "their extension: none where the data have .wav",
    ),
    "folder": (
        CLIPS,
        lambda name: f"/data/evaluation/{name}",
        ("path",),
        "the folder before the name: '/data/evaluation/ leading.wav' where the data have ' leading.wav'",
    ),
    "folder of Windows, and no extension": (
        CLIPS,
        lambda name: "C:\\data\\" + name.rpartition(".")[0],
        ("path", "extension"),
        r"the folder before the name and their extension: 'C:\\data\\ leading' where the data have ' leading.wav'",
    ),
    "unescaped, as another reader does": (
        [f"d&#39;eau {number}.wav" for number in range(9)],
        lambda name: name.replace("&#39;", "'"),
        ("entities",),
        "HTML entities: \"d'eau 0.wav\" where the data have 'd&#39;eau 0.wav'",
    ),
    "Unicode form": (
        [f"é{number}.wav" for number in range(9)],
        decomposed,
        ("unicode",),
        "their Unicode form: NFD where the data have NFC",
    ),
    "blanks": (
        [f" x  {number}.wav" for number in range(9)],
        lambda name: " ".join(name.split()),
        ("blanks",),
        "blanks: 'x 0.wav' where the data have ' x  0.wav'",
    ),
    "blanks as underscores": (
        [f"dog no {number}.wav" for number in range(9)],
        lambda name: name.replace(" ", "_"),
        ("punctuation",),
        "punctuation: 'dog_no_0.wav' where the data have 'dog no 0.wav'",
    ),
    "everything at once": (
        [f"É, {number}&amp;.wav" for number in range(9)],
        lambda name: "x/" + decomposed(name).lower().replace("&amp;.wav", "").replace(",", ""),
        tuple(RULES),
        "HTML entities and their Unicode form and the folder before the name and their extension and blanks and upper "
        "and lower case and punctuation: 'x/e\u0301 0' where the data have 'É, 0&amp;.wav'",
    ),
}


@pytest.mark.parametrize(("expected", "change", "rules", "difference"), CHANGES.values(), ids=CHANGES)
def test_one_explanation_for_all_names(expected, change, rules, difference):
    given = [change(name) for name in expected]
    found = explain(given, expected)
    assert found.rules == rules
    assert found.pairs == dict(zip(given, expected, strict=True))
    assert list(found.pairs) == given
    assert found.message(len(given), "names", "captions_test.csv") == (
        f"all {len(given)} names differ from the data's only in {difference}; write the names as in captions_test.csv"
    )


def test_queries_in_lower_case_and_without_punctuation():
    given = ["a dog barks", "rain falls then stops", "café noise", "a man says hi", "wind rain", "its onoff"]
    found = explain(given, QUERIES, texts=True)
    assert found.rules == ("case", "punctuation")
    assert found.pairs == dict(zip(given, QUERIES, strict=True))
    assert found.message(10, "queries").startswith(
        "6 of 10 queries differ from the data's only in upper and lower case and punctuation: 'a dog barks' where"
    )


def test_nearly_all_names_are_enough():
    expected = [f"{number}.wav" for number in range(100)]
    given = [f"{number}.mp3" for number in range(100)]
    found = explain([*given[:95], *(f"other {number}" for number in range(5))], expected)
    assert list(found.pairs) == given[:95]
    assert explain([*given[:80], *(f"other {number}" for number in range(20))], expected) is None


def test_few_names_are_reported_one_by_one():
    expected = [f"{number}.wav" for number in range(FEW)]
    given = [f"{number}.mp3" for number in range(FEW)]
    assert explain(given, expected)
    assert explain(given[1:], expected) is None


def test_names_of_other_things_are_not_explained():
    expected = [f"{number}.wav" for number in range(9)]
    assert explain([f"{number}.wav" for number in range(9, 18)], expected) is None
    assert explain([f"dog {number}.wav" for number in range(9)], expected) is None
    assert explain(["...", "?", "!", ",", ";", ":"], ["-", "_", "(", ")", "[", "]"]) is None
    assert explain([], expected) is None


def test_what_is_ambiguous_is_not_matched():
    assert match(["dog", "CAT", "Bird"], ["Dog", "DOG", "cat", "bird"], ["case"]) == {"CAT": "cat", "Bird": "bird"}
    assert match(["dog", "DOG", "CAT"], ["Dog", "cat"], ["case"]) == {"CAT": "cat"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("leading.wav", " leading.wav"),
        ("7.mp3", "7.wav"),
        ("x/9", "9.flac"),
        ("CAPITAL", "Capital.wav"),
        ("cours d'eau.wav", "cours d&#39;eau.wav"),
        (decomposed("café.wav"), "café.wav"),
        ("dots.in.stem", "dots.in.stem.wav"),
        ("dots.in", None),
        ("comma name.wav", "comma, name.wav"),
        ("a b c.wav", "a_b-c.wav"),
        ("10.wav", None),
        ("", None),
    ],
)
def test_the_closest_name(name, found):
    assert closest(CLIPS)(name) == found


def test_queries_have_no_folders_and_no_extensions():
    look_up = closest(["A switch is on/off", "This is a .wav"], texts=True)
    assert look_up("off") is None
    assert look_up("This is a ") is None


def test_names_that_look_the_same_are_told_apart():
    one, other = "café.wav", decomposed("café.wav")
    assert (unicode_form(one), unicode_form(other), unicode_form(one + other)) == ("NFC", "NFD", "neither NFC nor NFD")
    assert hint(other, one) == (
        "; there is 'café.wav' in Unicode form NFC, where this is in NFD, and names are compared verbatim"
    )
    assert hint("Café.wav", one, "queries") == "; there is 'café.wav', and queries are compared verbatim"
    assert hint("x", None) == ""


@pytest.mark.parametrize("change", CHANGES)
def test_the_rules_of_an_explanation_find_every_clip(change):
    expected, change_name, rules, _ = CHANGES[change]
    given = [change_name(name) for name in expected]
    assert find_clips(given, expected, rules) == {name: [clip] for name, clip in zip(given, expected, strict=True)}


def test_clips_that_a_name_means():
    clips = ["a.wav", "A.wav", "b.wav", "b.mp3", "..."]
    found = find_clips(["a.wav", "x/a.wav", "b", "B.wav", "!", "c.wav"], clips, parse_rules("stem,case,punctuation"))
    assert found == {
        "a.wav": ["a.wav"],
        "x/a.wav": ["a.wav", "A.wav"],
        "b": ["b.wav", "b.mp3"],
        "B.wav": ["b.wav", "b.mp3"],
        "!": [],
        "c.wav": [],
    }


def test_rules_as_text():
    assert parse_rules("stem") == parse_rules("extension,path") == ("path", "extension")
    assert parse_rules("case,unicode") == ("unicode", "case")
    for rules in (("path", "extension"), ("case",), tuple(RULES)):
        assert parse_rules(format_rules(rules)) == rules
    for text in ("stm", "stem,", "order,case"):
        with pytest.raises(BadRequest, match="--match: unknown rule for names"):
            parse_rules(text)
