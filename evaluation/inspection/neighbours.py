"""The similarity of queries and captions, which shows wrong clips that may be right.

A clip that a query does not name may still answer it. If one of its captions is close to the query, the page marks the
clip as *possibly unannotated*.

The similarity is the cosine of TF-IDF vectors of words, without English stop words, from 0 to 1. With the threshold of
0.5, the mark is a hint only: among the pairs of Clotho's evaluation split that DCASE 2025 annotated for several clips,
10 % of the marked pairs are annotated as relevant, and 0.2 % of all pairs are.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

THRESHOLD = 0.5
BLOCK = 50_000  # number of pairs of a query and a caption that are compared at once


class CaptionSimilarity:
    """The similarity of queries and the captions of clips."""

    def __init__(self, captions: Sequence[Sequence[str]], queries: Sequence[str]):
        """Compute the vectors of all captions and queries.

        Args:
            captions: The captions of each clip.
            queries: The queries.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer  # takes seconds to import

        self._counts = np.array([len(texts) for texts in captions], dtype=int)
        self._starts = np.cumsum(self._counts) - self._counts
        vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, dtype=np.float32)
        try:
            self._captions = vectorizer.fit_transform(chain.from_iterable(captions))
        except ValueError:  # no caption has a word
            self._counts[:] = 0
            return
        self._queries = vectorizer.transform(queries)

    def closest(self, queries: np.ndarray, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the caption of a clip that is closest to a query, for n pairs of a query and a clip.

        Args:
            queries: (n,) indices of queries.
            clips: (n,) indices of clips.

        Returns:
            (n,) similarities and (n,) indices of the captions within their clips. A clip without captions has the
            similarity 0.
        """
        counts = self._counts[clips]
        similarity = np.zeros((len(clips), counts.max(initial=1)), dtype=np.float32)
        pair = np.repeat(np.arange(len(clips)), counts)
        place = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        for start in range(0, len(pair), BLOCK):
            block = slice(start, start + BLOCK)
            rows = self._queries[queries[pair[block]]]
            columns = self._captions[self._starts[clips[pair[block]]] + place[block]]
            similarity[pair[block], place[block]] = rows.multiply(columns).sum(axis=1).A1
        best = similarity.argmax(axis=1)
        return similarity[np.arange(len(clips)), best], best
