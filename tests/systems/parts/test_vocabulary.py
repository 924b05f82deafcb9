"""Vocabularies: numbers of words, reading and writing."""

import json

import pytest

from evaluation.findings import BadRequest, Faulty
from systems.parts import vocabulary
from systems.parts.vocabulary import END, PADDING, START, UNKNOWN, Vocabulary

CAPTIONS = ["A dog barks; then, a far-off bell.", "The dog's bell RINGS!", "Ein Hund bellt (ÄÖ) 3 times…", "a bell"]


def test_the_same_text_gives_the_same_numbers_after_a_reload(tmp_path):
    known = vocabulary.from_captions(CAPTIONS)
    known.write(tmp_path / "vocabulary.json")
    again = vocabulary.read(tmp_path / "vocabulary.json")
    assert again.words == known.words
    assert again.digest == known.digest
    for caption in [*CAPTIONS, "an unheard-of dog"]:
        assert again.encode(caption) == known.encode(caption)
    # Frequent words come first, equally frequent words in alphabetical order, whatever the order of the captions.
    assert known.words[4:6] == ("a", "bell")
    assert vocabulary.from_captions(reversed(CAPTIONS)).words == known.words


def test_punctuation_and_case():
    known = vocabulary.from_captions(CAPTIONS)
    assert known.decode(known.encode(CAPTIONS[0])) == "a dog barks then a far-off bell"
    assert known.decode(known.encode("THE DOG’S bell rings")) == "the dog's bell rings"
    assert known.encode("--- ... !") == []


def test_special_words_have_their_places_and_no_text_has_them():
    known = vocabulary.from_captions(["<end> <start> end"])
    assert known.words == (*vocabulary.SPECIAL, "end", "start")
    assert known.encode("<end> whale") == [4, UNKNOWN]
    assert known.decode([START, 5, 4, END, 5, PADDING]) == "start end"


def test_no_word_at_all():
    for captions in ([], ["...", ""]):
        with pytest.raises(BadRequest, match="the development captions must have words"):
            vocabulary.from_captions(captions)


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe", b'{"a": 1}', b'["a", "b"]', json.dumps([*vocabulary.SPECIAL, "a", "a"]).encode(), b"[1]"],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content)
    with pytest.raises(Faulty, match="must be a JSON list of distinct words"):
        vocabulary.read(path)
    with pytest.raises(BadRequest, match="no such file"):
        vocabulary.read(tmp_path / "nowhere.json")


def test_the_digest_tells_vocabularies_apart():
    assert Vocabulary(["a", "b"]).digest != Vocabulary(["b", "a"]).digest
