"""The line that metrics read of a caption, and the remarks on it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.data.caption_text import CHARACTERS, WORDS, caption_line, caption_remarks
from evaluation.data.dataset import read_dataset


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog's bark, twice.", "A dog's bark, twice."),
        (" two\nlines\u2028and\x85a\ttab\x1c", "two lines and a tab"),
        ("a <b>dog</b> <unk>", "a <b>dog</b> <unk>"),
        ("a <b >dog</b c>", "a < b >dog< /b c>"),
        ("<unk> barks", "\u200b<unk> barks"),
        ("<a <b> c>", "< a <b> c>"),
        ("<me@home.org>", "< me@home.org>"),
        ("<!DOCTYPE x> <?xml?> <é> <5>", "< !DOCTYPE x> < ?xml?> < é> < 5>"),
        ("a < b and <_< and <<", "a < b and <_< and <<"),
        ("<\udc80A>", "< ?A>"),
        ("&lt;b&gt;", "&lt;b&gt;"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_line(text, expected):
    assert caption_line(text) == expected
    assert caption_line(caption_line(text)) == expected


def test_a_line_is_cut_between_words():
    assert caption_line("dog " * (WORDS + 1)) == " ".join(["dog"] * WORDS)
    assert caption_line("dogs " * WORDS) == " ".join(["dogs"] * WORDS)
    assert caption_line("eleven char " * 490) == ("eleven char " * 250).strip()
    assert caption_line("x" * 10**6) == "x" * CHARACTERS
    assert caption_line("x" * CHARACTERS) == caption_line("x" * CHARACTERS + " y") == "x" * CHARACTERS


@given(st.text("<>!?/ab =\"'|\n\ud800\x00-", max_size=30))
def test_no_tag_and_no_line_break_is_left(text):
    read = caption_line(text)
    assert read.encode().decode() == read
    assert not re.search("<[!?]|<[/ab](?![/ab-]*>)", read)
    assert not re.match("<[!?/ab]", read)
    assert len(read.splitlines()) <= 1


@pytest.mark.parametrize("name", ["clotho", "esc10", "esc50"])
def test_real_captions_are_as_they_stand_and_without_remark(shared, name):
    dataset = read_dataset(shared / name, sound=False)
    captions = [caption for split in dataset.splits.values() for clip in split.clips for caption in clip.captions]
    assert len(captions) > 1000
    for caption in captions:
        assert caption_line(caption) == " ".join(caption.split())
        assert not caption_remarks(caption), caption


@pytest.mark.parametrize(
    "token",
    ["<unk>", "<sos>", "<EOS>", "<pad>", "<s>", "</s>", "<bos>", "<mask>", "[SEP]", "[CLS]", "[PAD]", "<|endoftext|>"],
)
def test_special_tokens(token):
    message = f"should be plain words; found the special token {token!r}: remove such tokens when decoding"
    assert caption_remarks(f"a dog {token} barks {token}") == [("special token", message)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a <b>dog</b>", "'<b>'"),
        ("<a href='", '"<a href=\'"'),
        ("x <!--", "'<!--'"),
    ],
)
def test_markup(text, found):
    message = f"should be plain words; found the markup {found}: remove it"
    assert caption_remarks(text) == [("markup", message)]


@pytest.mark.parametrize(
    "text", ["a < b", "x > y", "a & b", "AT&T; yes", "3 <", "[1] and [a dog]", "…", "🐕", "", "a|b"]
)
def test_nothing_to_remark(text):
    assert caption_remarks(text) == []


def test_long_texts():
    ((kind, message),) = caption_remarks("dog " * 20_000)
    assert kind == "length"
    assert message == (
        "should have at most 500 words and 3000 characters; found 20000 words and 79999 characters: "
        "the rest is not read"
    )
    assert [kind for kind, _ in caption_remarks("<unk> <b> " * 2000)] == ["length", "special token", "markup"]
