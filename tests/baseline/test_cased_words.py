"""Captions are split into words as by the published baseline's code."""

import numpy as np
import pytest
from gensim.models import KeyedVectors

from baseline.cased_words import cased_words, known_words, unknown_vector

# The tokens that NLTK's word_tokenize gives after contractions.fix has run and dashes have become spaces. Punctuation
# and possessives are removed.
SPLIT = {
    "Rain falls; a far-off bell -- it rings.": "Rain falls a far off bell it rings",
    "The dog's owner can't hear it.": "The dog owner can not hear it",
    "It's raining and they're talking": "It is raining and they are talking",
    "She'd say that won't stop, I'm sure": "She would say that will not stop I am sure",
    "Let's go, we've heard the dogs' barking": "Let us go we have heard the dogs barking",
    "A car/truck passes at 3.5 km, 10,000 people cheer,then leave!": (
        "A car/truck passes at 3.5 km 10,000 people cheer then leave"
    ),
    "": "",
    " .,; -- ": "",
}


@pytest.mark.parametrize("text", SPLIT)
def test_texts_are_split(text):
    assert cased_words(text) == SPLIT[text].split()
    assert cased_words(text.replace("'", "’")) == SPLIT[text].split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Birds sing", "Birds sing"),  # both words have a vector
        ("birds sing", "bird sing"),  # a lemma
        ("wolves barked", "wolf bark"),
        ("churches men", "church man"),
        ("echoing noisily", "echo noisili"),  # a lemma; a stem
        ("BIRDS of mice", "bird <UNK> <UNK>"),  # a stem is in lower case, like NLTK's
    ],
)
def test_words_are_looked_up_by_case_then_lemma_then_stem(text, expected):
    vectors = KeyedVectors(2)
    words = ["Birds", "bird", "sing", "wolf", "bark", "church", "man", "echo", "noisili"]
    vectors.add_vectors(words, np.ones((len(words), 2), np.float32))
    assert known_words(text, vectors) == expected.split()


def test_the_unknown_word_is_drawn_around_the_known_ones():
    vectors = KeyedVectors(40)
    rng = np.random.default_rng(1)
    matrix = rng.normal(0, np.linspace(0.1, 2, 40), (300, 40)).astype(np.float32) + np.linspace(-0.2, 0.2, 40)
    vectors.add_vectors([str(row) for row in range(300)], matrix.astype(np.float32))
    known = [str(row) for row in range(200)] * 2
    drawn = np.array([unknown_vector(vectors, known, seed) for seed in range(300)])
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean(0), matrix[:200].mean(0), atol=0.4)
    np.testing.assert_allclose(drawn.std(0), matrix[:200].std(0), rtol=0.25)
    assert (np.abs(drawn @ matrix[:200].T).min(axis=1) <= 0.0101).all()  # nearly orthogonal to at least one word
    assert np.array_equal(drawn[7], unknown_vector(vectors, reversed(known), 7))


def test_parallel_words_do_not_draw_for_ever():
    vectors = KeyedVectors(3)
    vectors.add_vectors(["a", "b"], np.array([[5, 5, 5], [5, 5, 5.01]], np.float32))
    assert np.isfinite(unknown_vector(vectors, ["a", "b"], 0)).all()
