"""The words of a caption as the published baseline's code finds them: case kept, unknown words replaced.

Source: xieh97/dcase2022-audio-retrieval@f6fad50, `utils/word_utils.py` and `scripts/word_embeddings.py`. The words are
those of the Google News vectors, which tell "Birds" from "birds". A word that has no vector is tried as its lemma and
then as its stem. One that still has none becomes `UNKNOWN`, a word with a vector drawn at random. Google News lacks
"a", "and", "of" and "to" in lower case: with it, that is every eighth word of Clotho's captions.

The code uses trained models and dictionaries of NLTK that do not come with it. Without them, four things differ:

- Words that NLTK's named-entity recogniser marks become `UNKNOWN` there; here they are words like any other.
- The code expands slang as well as contractions: "lets" to "let us", "cause" to "because", "shed" to "she would". That
  changes 41 of the 29,645 captions of Clotho v2.1; in 7 others a repeated or missing space or full stop is split
  otherwise. The words of the rest are those of NLTK 3.10's tokeniser and contractions 0.1.73.
- A lemma is WordNet's there. Here it is the first word with a vector that WordNet's rules of detachment give
  (`morphy(7WN)`), without its list of exceptions: "wolves" becomes "wolf", but "mice" stays.
- The stem is Snowball's English (Porter 2) there, gensim's Porter here: 236 of Clotho's 5,471 words differ in it.

The last two concern only words without a vector.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from gensim.models import KeyedVectors
from gensim.parsing.porter import PorterStemmer

UNKNOWN = "<UNK>"  # as the code spells it

# In this order; the first four are whole words. What is left of "'s" is a possessive, which is dropped.
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

# WordNet's rules of detachment for nouns, verbs and adjectives.
ENDINGS = (
    *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)
STEMMER = PorterStemmer()


def cased_words(text: str) -> list[str]:
    """Split a text into words whose case stays; dashes separate words, contractions are expanded.

    `evaluation.metrics` lists the other functions that split text into words.

    >>> cased_words("A dog's bark -- then it's far-off thunder, 3.5 or 10,000 and/or more!")
    ['A', 'dog', 'bark', 'then', 'it', 'is', 'far', 'off', 'thunder', '3.5', 'or', '10,000', 'and/or', 'more']
    """
    text = text.replace("’", "'")
    for pattern, expansion in CONTRACTIONS:
        text = re.sub(pattern, expansion, text, flags=re.IGNORECASE)
    return re.findall(r"[^\W_]+(?:(?:[./&]|,(?=\d))[^\W_]+)*", text)


def known_words(text: str, vectors: KeyedVectors) -> list[str]:
    """Return the words of a text, each as `vectors` have it, or `UNKNOWN`."""
    return [_known(token, vectors) for token in cased_words(text)]


def _known(token: str, vectors: KeyedVectors) -> str:
    for form in _forms(token):
        if form in vectors.key_to_index:
            return form
    return UNKNOWN


def _forms(token: str) -> Iterator[str]:
    """Give the forms under which a word is looked up, in turn: itself, its lemmas, its stem."""
    yield token
    for ending, replacement in ENDINGS:
        if token.endswith(ending):
            yield token.removesuffix(ending) + replacement
    yield STEMMER.stem(token)


def unknown_vector(vectors: KeyedVectors, known: Iterable[str], seed: int) -> np.ndarray:
    """Draw the vector of `UNKNOWN`, (size,) float32, as `scripts/word_embeddings.py` does.

    Each value is drawn from a normal distribution with the mean and standard deviation of that value over the known
    words. A draw is repeated until its dot product with at least one of them is .01 or less. With vectors that are
    nearly parallel the code would repeat it without end; here, the thousandth draw is taken.

    Args:
        vectors: The word vectors.
        known: Words that have one. The code takes those of all captions of the three splits; the kit takes those of the
            captions that it trains on.
        seed: The seed; the code has none.
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
