"""The similarity of queries and captions, which helps to find relevant clips that the truth does not contain.

A clip may be relevant for a query although the truth does not say so. If one of its captions is similar to the query,
the page marks the clip as *possibly unannotated*.

The similarity is the cosine of TF-IDF vectors of words, without English stop words. It lies between 0 and 1. A clip is
marked if the similarity is at least `THRESHOLD`. The mark is only a hint: DCASE 2025 annotated the relevant clips of
1,037 captions of Clotho's evaluation split. Of all pairs of such a caption and another clip than its own, 0.2 % are
annotated as relevant. Of the pairs that the page would mark, 10 % are.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np

THRESHOLD = 0.5
BLOCK = 50_000  # number of pairs of a query and a caption that are compared in one step


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
        """For each pair of a query and a clip, find the clip's caption that is most similar to the query.

        Args:
            queries: (pairs,) index of the query of each pair.
            clips: (pairs,) index of the clip of each pair.

        Returns:
            (pairs,) similarities, and (pairs,) indices of the captions among the captions of their clip. For a clip
            without captions, the similarity is 0.
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
