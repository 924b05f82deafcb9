"""Caption metrics that count the words that a caption shares with its references: BLEU, ROUGE-L and CIDEr-D.

All take tokenised captions (tokens joined by blanks; `evaluation.metrics.ptb_tokenizer`) and any number of references
for each. An empty caption scores 0.

Conventions
-----------
- **BLEU is of the corpus**, not a mean over captions: the counts of all captions are added up, then the formula is
  applied once. So there are *statistics* of each caption, (n, d) numbers that add up, and a formula of their sum. The
  formula of one caption's statistics is that caption's own score. METEOR (`evaluation.metrics.meteor`) is alike.
- **ROUGE-L and CIDEr-D are means over captions.** But CIDEr-D weighs n-grams by how few clips' references hold them, so
  that a caption's score depends on the other clips. With a single clip every weight is log(1/1) = 0, and so is CIDEr-D,
  whatever the caption says: it means something from two clips on, and little below some hundred.

Each equals aac-metrics 0.5.4, which equals COCO's evaluation, to rounding; here the parts are kept that leaving clips
out needs, and words become numbers once instead of once per metric.

Sources: Papineni et al. 2002 (BLEU); Lin 2004, equations 2 to 4 (ROUGE-L); Vedantam et al. 2015, section 4 and its
CIDEr-D (CIDEr-D).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from scipy import sparse

Captions = Sequence[str]
References = Sequence[Sequence[str]]

# COCO's evaluation adds these to numerators and denominators, so that an empty caption scores 0 and not 0 / 0.
TINY, SMALL = 1e-15, 1e-9

CIDER_ORDERS = 4
CIDER_SIGMA = 6.0
BLOCK = 8_000_000  # numbers in a table of references by clips left out: 64 MB
ROUGE_BETA = 1.2


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def bleu_statistics(captions: Captions, references: References) -> np.ndarray:
    """Return what BLEU counts, (captions, 10): n-grams that match and n-grams there are, of orders 1 to 4 each,
    the caption's length, and the length of the reference that comes closest to it (the shorter of two).

    An n-gram matches as often as it stands in the caption, but no more often than in the reference that has most.
    """
    rows = []
    for caption, texts in zip(captions, references, strict=True):
        words, sources = caption.split(), [text.split() for text in texts]
        closest = min((abs(len(source) - len(words)), len(source)) for source in sources)[1]
        matched = []
        for order in (1, 2, 3, 4):
            allowed: Counter[tuple[str, ...]] = Counter()
            for source in sources:
                allowed |= _ngrams(source, order)
            matched.append((_ngrams(words, order) & allowed).total())
        rows.append([*matched, *(max(0, len(words) - order) for order in range(4)), len(words), closest])
    return np.array(rows, dtype=np.float64)


def bleu(sums: np.ndarray, order: int) -> np.ndarray:
    """Return BLEU of an order from 1 to 4, in [0, 1], from (..., 10) sums of `bleu_statistics`."""
    matched, there, length, reference = sums[..., :order], sums[..., 4 : 4 + order], sums[..., 8], sums[..., 9]
    precision = ((matched + TINY) / (there + SMALL)).prod(axis=-1) ** (1 / order)
    ratio = (length + TINY) / (reference + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return a quotient that is 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(denominator)), where=denominator != 0)


def rouge_l(captions: Captions, references: References) -> np.ndarray:
    """Return ROUGE-L of each caption, (captions,) in [0, 1]: F of the longest common subsequence, recall weighing 1.2.

    As in COCO's evaluation, precision and recall are each of the reference where it is best.

    An empty caption scores 0 here, as in aac-metrics, even if one of its references is empty too. COCO's evaluation
    gives 1 to an empty caption with an empty reference, because it takes each for one empty word. Here an empty
    reference is ignored.
    """
    scores = np.zeros(len(captions))
    for index, (caption, texts) in enumerate(zip(captions, references, strict=True)):
        words = caption.split()
        sources = [text.split() for text in texts if text.strip()]
        if not words or not sources:
            continue
        common = [_common_subsequence(words, source) for source in sources]
        precision = max(common) / len(words)
        recall = max(length / len(source) for length, source in zip(common, sources, strict=True))
        if precision:
            scores[index] = (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)
    return scores


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence; a table row is the bits of a number (Hyyrö 2004, fig. 1)."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    whole = (1 << len(first)) - 1
    row = whole  # a zero bit: the subsequence grows here
    for word in second:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & whole
    return len(first) - row.bit_count()


@dataclass(frozen=True)
class _WeightsWithoutEach:
    """The squared weights of n-grams without each clip in turn.

    Attributes:
        weight: (n-grams,) under one clip fewer, as if the clip that is left out had no n-gram.
        kept: The n-grams whose weight changes when a clip that has them is left out.
        change: (kept, clips) by how much.
    """

    weight: np.ndarray
    kept: np.ndarray
    change: sparse.csr_array

    def sums(self, matrix: sparse.csr_array) -> np.ndarray:
        """Return the weighted sum of each row of a (rows, n-grams) matrix without each clip, (rows, clips)."""
        return (matrix[:, self.kept] @ self.change).toarray() + (matrix @ self.weight)[:, None]


class CiderD:
    """CIDEr-D of captions among their clips.

    Of order n, with c and r how often an n-gram stands in caption and reference and its weight
    w = log N - log max(1, clips whose references hold it) among N clips, the similarity to a reference is
    Σ min(c, r) r w² / (|c w| |r w|) times exp(-(difference of lengths)² / 72); CIDEr-D is 10 times its mean over the
    orders 1 to 4 and the references. As in COCO's evaluation a caption's length is its number of word pairs.

    Args:
        captions: Tokenised captions, one for each clip.
        references: Tokenised references of each clip, one or more.
    """

    def __init__(self, captions: Captions, references: References):
        self.clips = len(captions)
        counts = np.array([len(texts) for texts in references])
        self.owner = np.repeat(np.arange(self.clips), counts)  # the clip of each reference
        self.share = 1 / counts[self.owner] / CIDER_ORDERS * 10
        caption_words = [caption.split() for caption in captions]
        reference_words = [text.split() for text in chain.from_iterable(references)]
        pairs = np.array([max(0, len(words) - 1) for words in caption_words])
        reference_pairs = np.array([max(0, len(words) - 1) for words in reference_words])
        self.penalty = np.exp(-((pairs[self.owner] - reference_pairs) ** 2) / (2 * CIDER_SIGMA**2))

        # Of each order: which references' clip holds an n-gram, and the factors of w² in the three sums.
        self.orders: list[tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array, sparse.csr_array]] = []
        for order in range(1, CIDER_ORDERS + 1):
            ids: dict[tuple[str, ...], int] = {}
            theirs = _count_matrix(reference_words, order, ids)
            ours = _count_matrix(caption_words, order, ids)
            theirs.resize(len(reference_words), len(ids))
            ours.resize(self.clips, len(ids))
            belongs = sparse.csr_array(
                (np.ones(len(self.owner)), (self.owner, np.arange(len(self.owner)))), (self.clips, len(self.owner))
            )
            holds = (belongs @ theirs).astype(bool).astype(np.float64)
            self.orders.append((holds, ours[self.owner].minimum(theirs) * theirs, ours * ours, theirs * theirs))

    @cached_property
    def scores(self) -> np.ndarray:
        """CIDEr-D of each caption, (clips,) in [0, 10]."""
        total = np.zeros(len(self.owner))
        for holds, shared, ours, theirs in self.orders:
            weight = (np.log(self.clips) - np.log(np.maximum(1, holds.sum(axis=0)))) ** 2
            norm = np.sqrt(ours @ weight)[self.owner] * np.sqrt(theirs @ weight)
            total += quotient(shared @ weight, norm)
        return np.bincount(self.owner, total * self.penalty * self.share, minlength=self.clips)

    def left_out(self, factors: np.ndarray) -> np.ndarray:
        """Return the mean of factor times CIDEr-D without each clip in turn, (clips,), its n-grams no longer counted.

        Without clip i there are N - 1 clips, and the n-grams of its references are held by one clip fewer. So the sums
        of the similarity are those under N - 1 clips, plus for the n-grams that clip i shares with the caption or
        reference the change of w²: products of sparse matrices instead of N scorings. An n-gram that one clip
        alone holds does not change (its weight is that of none), which makes the products sparser still.

        Args:
            factors: (clips,) what each caption's CIDEr-D is multiplied by.

        Raises:
            ValueError: There is a single clip.
        """
        if self.clips < 2:
            raise ValueError("of a single clip nothing is left when it is left out")
        all_weights = []
        for holds, *_ in self.orders:
            clips = holds.sum(axis=0)
            weight = (np.log(self.clips - 1) - np.log(np.maximum(1, clips))) ** 2
            change = (np.log(self.clips - 1) - np.log(np.maximum(1, clips - 1))) ** 2 - weight
            # Whoever is left out, all others still hold what all held: its weight is 0, and not a rounding below it.
            weight[clips == self.clips] = change[clips == self.clips] = 0
            kept = np.flatnonzero(change)
            all_weights.append(_WeightsWithoutEach(weight, kept, (holds[:, kept] * change[kept]).T.tocsr()))

        left = np.zeros(self.clips)
        step = max(1, BLOCK // len(self.owner))  # clips at a time
        for start in range(0, self.clips, step):
            rows = np.flatnonzero((self.owner >= start) & (self.owner < start + step))
            clips = np.arange(start, min(start + step, self.clips))
            total = np.zeros((len(rows), self.clips))
            for (_, shared, ours, theirs), weights in zip(self.orders, all_weights, strict=True):
                own_norm = np.sqrt(weights.sums(ours[clips]))[self.owner[rows] - start]
                norm = own_norm * np.sqrt(weights.sums(theirs[rows]))
                total += quotient(weights.sums(shared[rows]), norm)
            total *= (self.penalty * self.share * factors[self.owner])[rows, None]
            total[np.arange(len(rows)), self.owner[rows]] = 0  # a clip's own caption goes with it
            left += total.sum(axis=0)
        return left / (self.clips - 1)


def _count_matrix(texts: Sequence[Sequence[str]], order: int, ids: dict[tuple[str, ...], int]) -> sparse.csr_array:
    """Count each n-gram in each text, (texts, n-grams); `ids` gives n-grams their columns, and grows."""
    starts, columns, values = [0], [], []
    for words in texts:
        counts = _ngrams(words, order)
        columns += [ids.setdefault(ngram, len(ids)) for ngram in counts]
        values += counts.values()
        starts.append(len(columns))
    return sparse.csr_array((np.array(values, dtype=np.float64), columns, starts), (len(texts), len(ids)))
