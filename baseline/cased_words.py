"""Words of captions, split as in the published baseline: case is kept, and words without a vector are replaced.

Source: xieh97/dcase2022-audio-retrieval@f6fad50, `utils/word_utils.py` and `scripts/word_embeddings.py`. The published
baseline uses the Google News vectors, which distinguish "Birds" from "birds". If a word does not have a vector, its
lemma is looked up, and then its stem. If these do not have a vector either, the word becomes `UNKNOWN`. The vector of
`UNKNOWN` is drawn at random. Google News does not have vectors for "a", "and", "of" and "to" in lower case. So every
eighth word of Clotho's captions becomes `UNKNOWN` with these vectors.

The published code uses trained models and dictionaries of NLTK that are not installed with NLTK itself. This module
does not use them, so it differs from the published code in four points:

- NLTK's named-entity recogniser marks some words as named entities. The published code replaces these words with
  `UNKNOWN`. This module treats them like all other words.
- The published code expands slang as well as contractions: "lets" to "let us", "cause" to "because", "shed" to "she
  would". This module does not expand slang. The words of 41 of the 29,645 captions of Clotho v2.1 differ for this
  reason. In 7 other captions, a repeated or missing space or full stop is split differently. For all other captions,
  the words equal those of NLTK 3.10's tokeniser and contractions 0.1.73.
- The published code takes the lemma from WordNet. This module applies WordNet's rules of detachment (`morphy(7WN)`) and
  takes the first result that has a vector. It does not use WordNet's list of exceptions, so "wolves" becomes "wolf",
  but "mice" does not become "mouse".
- The published code stems with Snowball's English stemmer (Porter 2). This module uses gensim's Porter stemmer. The two
  stems differ for 236 of Clotho's 5,471 words.

The last two points affect only words that do not have a vector.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from gensim.models import KeyedVectors
from gensim.parsing.porter import PorterStemmer

UNKNOWN = "<UNK>"  # the published code's spelling

# Patterns and their expansions, applied in this order. The last pattern drops possessives: it removes every "'s" that
# no earlier pattern has expanded.
CONTRACTIONS = (
    (r"\b(w)on't\b", r"\1ill not"),
    (r"\b(sha|ca)n't\b", lambda match: {"sha": "shall", "ca": "can"}[match[1].lower()] + " not"),
    (r"\b(let)'s\b", r"\1 us"),
    (r"\b(can)not\b", r"\1 not"),
    (r"n't\b", " not"),
    (r"'m\b", " am"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"'d\b", " would"),
    (r"\b(he|here|how|it|she|that|there|what|when|where|who|why)'s\b", r"\1 is"),
    (r"'s?(?!\w)", ""),
)

# WordNet's rules of detachment for nouns, verbs and adjectives: an ending and its replacement.
ENDINGS = (
    *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)
STEMMER = PorterStemmer()


def cased_words(text: str) -> list[str]:
    """Split a text into words and keep their case.

    Hyphens and dashes separate words, contractions are expanded, and possessives are dropped. `evaluation.metrics`
    lists the other functions that split text into words.

    >>> cased_words("A dog's bark -- then it's far-off thunder, 3.5 or 10,000 and/or more!")
    ['A', 'dog', 'bark', 'then', 'it', 'is', 'far', 'off', 'thunder', '3.5', 'or', '10,000', 'and/or', 'more']
    """
    text = text.replace("’", "'")
    for pattern, expansion in CONTRACTIONS:
        text = re.sub(pattern, expansion, text, flags=re.IGNORECASE)
    return re.findall(r"[^\W_]+(?:(?:[./&]|,(?=\d))[^\W_]+)*", text)


def known_words(text: str, vectors: KeyedVectors) -> list[str]:
    """Split a text into words, and replace each word with a form that has a vector.

    The word itself is looked up first, then its lemmas, then its stem. The first of these forms that has a vector
    replaces the word. If all these forms lack a vector, `UNKNOWN` replaces the word.

    Args:
        text: The text.
        vectors: The word vectors.

    Returns:
        One form for each word of the text, in order.
    """
    return [_form_with_vector(word, vectors) for word in cased_words(text)]


def _form_with_vector(word: str, vectors: KeyedVectors) -> str:
    for form in _forms(word):
        if form in vectors.key_to_index:
            return form
    return UNKNOWN


def _forms(word: str) -> Iterator[str]:
    """Yield the forms under which a word is looked up: the word, its lemmas, its stem."""
    yield word
    for ending, replacement in ENDINGS:
        if word.endswith(ending):
            yield word.removesuffix(ending) + replacement
    yield STEMMER.stem(word)


def unknown_vector(vectors: KeyedVectors, known: Iterable[str], seed: int) -> np.ndarray:
    """Draw the vector of `UNKNOWN` as the published `scripts/word_embeddings.py` does.

    Each of the vector's values is drawn from a normal distribution. Its mean and standard deviation are those of this
    value over the known words. The draw is repeated until the absolute dot product with the vector of at least one
    known word is 0.01 or less. If the word vectors are nearly parallel, the published code does not end. This function
    stops after a thousand draws and returns the last one.

    Args:
        vectors: The word vectors.
        known: Words that have a vector. The published code uses the words of all captions of the three splits. This kit
            uses the words of the captions that it trains on.
        seed: Seed of the random numbers. The published code does not set a seed.

    Returns:
        (size,) float32.
    """
    rows: Sequence[int] = [vectors.key_to_index[word] for word in sorted(set(known))]
    matrix = vectors.vectors[rows]  # (words, size)
    mean, deviation = matrix.mean(axis=0), matrix.std(axis=0)
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        drawn = mean + deviation * rng.standard_normal(len(mean))
        if (np.abs(matrix @ drawn) <= 0.01).any():
            break
    return drawn.astype(np.float32)
