"""Caption metrics that count words that a caption shares with its references: BLEU, ROUGE-L and CIDEr-D.

All functions take tokenised captions (tokens joined by blanks; `evaluation.metrics.ptb_tokenizer`) and one or more
references for each caption. An empty caption scores 0.

Conventions
-----------
- **BLEU is a corpus metric**, not a mean over captions: the counts of all captions are added up, then the formula is
  applied once. So one function returns the *statistics* of each caption, which are numbers that add up, and another
  applies the formula to their sum. Applied to one caption's statistics, the formula gives that caption's own score.
  METEOR (`evaluation.metrics.meteor`) works in the same way.
- **ROUGE-L and CIDEr-D are means over captions.** CIDEr-D gives more weight to n-grams that occur in the references of
  few clips, so a caption's score depends on the other clips. With a single clip every weight is log(1/1) = 0, and
  CIDEr-D is 0 for any caption. It needs at least two clips, and is not reliable with fewer than about 100.

Each metric equals that of aac-metrics 0.5.4, up to rounding, and so that of COCO's evaluation. This module also keeps
the intermediate sums, so that clips can be left out.

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

# COCO's evaluation adds these to numerators and denominators, so that an empty caption scores 0 instead of 0 / 0.
TINY, SMALL = 1e-15, 1e-9

CIDER_ORDERS = 4
CIDER_SIGMA = 6.0
BLOCK = 8_000_000  # maximum number of values in a (references, left-out clips) table: 64 MB
ROUGE_BETA = 1.2


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def bleu_statistics(captions: Captions, references: References) -> np.ndarray:
    """Return the counts that BLEU is computed from, for each caption.

    The number of matches of an n-gram is its count in the caption, but not more than its largest count in a reference.

    Returns:
        (captions, 10) numbers: the number of matching n-grams of each order from 1 to 4, the number of all n-grams of
        each order from 1 to 4, the caption's length, and the length of the reference with the closest length. If two
        references are equally close, it is the length of the shorter one.
    """
    rows = []
    for caption, texts in zip(captions, references, strict=True):
        words = caption.split()
        sources = [text.split() for text in texts]
        # The length of the reference with the closest length. If two are equally close, `min` chooses the shorter one.
        _, closest = min((abs(len(source) - len(words)), len(source)) for source in sources)
        matched = []
        for order in (1, 2, 3, 4):
            allowed: Counter[tuple[str, ...]] = Counter()
            for source in sources:
                allowed |= _ngrams(source, order)
            matched.append((_ngrams(words, order) & allowed).total())
        total = [max(0, len(words) - order) for order in range(4)]
        rows.append([*matched, *total, len(words), closest])
    return np.array(rows, dtype=np.float64)


def bleu(sums: np.ndarray, order: int) -> np.ndarray:
    """Return BLEU-n, where the order n is the largest length of its n-grams.

    Args:
        sums: (..., 10) sums of the rows that `bleu_statistics` returns.
        order: n, from 1 to 4.

    Returns:
        (...) values in [0, 1].
    """
    matched, total = sums[..., :order], sums[..., 4 : 4 + order]
    length, reference = sums[..., 8], sums[..., 9]
    precision = ((matched + TINY) / (total + SMALL)).prod(axis=-1) ** (1 / order)
    ratio = (length + TINY) / (reference + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide element by element. If a denominator is 0, the quotient is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(denominator)), where=denominator != 0)


def rouge_l(captions: Captions, references: References) -> np.ndarray:
    """Return the ROUGE-L of each caption, an array of shape (captions,) with values in [0, 1].

    ROUGE-L is the F score of the longest common subsequence of caption and reference, with beta 1.2. As in COCO's
    evaluation, the precision is the highest precision over the references, and the recall is the highest recall over
    the references.

    Empty references are ignored, and an empty caption scores 0, as in aac-metrics. COCO's evaluation instead gives 1 to
    an empty caption with an empty reference, because it counts each as one empty word.
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
    """Return the length of the longest common subsequence of two sequences of words.

    The bits of one number represent a row of the usual table (Hyyrö 2004, fig. 1).
    """
    positions: dict[str, int] = {}  # one bit for each position of a word
    for index, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << index
    all_bits = (1 << len(first)) - 1
    row = all_bits  # a zero bit marks a position where the subsequence grows
    for word in second:
        matched = row & positions.get(word, 0)
        row = (row + matched | row - matched) & all_bits
    return len(first) - row.bit_count()


@dataclass(frozen=True)
class _WeightsWithoutEach:
    """The squared weights of n-grams if each clip in turn is left out.

    Attributes:
        weight: (n-grams,) the squared weight of each n-gram if a clip is left out that does not have the n-gram.
        changing: The indices of the n-grams with a squared weight that changes if a clip that has them is left out.
        change: (changing, clips) the change of the squared weight if the clip is left out.
    """

    weight: np.ndarray
    changing: np.ndarray
    change: sparse.csr_array

    def sums(self, matrix: sparse.csr_array) -> np.ndarray:
        """Return the (rows, clips) weighted sums of each row of a (rows, n-grams) matrix, if each clip is left out."""
        return (matrix[:, self.changing] @ self.change).toarray() + (matrix @ self.weight)[:, None]


@dataclass(frozen=True)
class _Counts:
    """The counts of the n-grams of one order. c is the count in the caption, and r the count in the reference.

    Attributes:
        occurs: (clips, n-grams) 1 if the n-gram occurs in the clip's references, otherwise 0.
        shared: (references, n-grams) min(c, r) r.
        caption: (clips, n-grams) c².
        reference: (references, n-grams) r².
    """

    occurs: sparse.csr_array
    shared: sparse.csr_array
    caption: sparse.csr_array
    reference: sparse.csr_array


class CiderD:
    """CIDEr-D of the captions of a split.

    c is the number of occurrences of an n-gram in the caption, and r the number in a reference. N is the number of
    clips. The weight of an n-gram is w = log N - log max(1, number of clips with the n-gram in a reference). The
    similarity of order n to a reference is Σ min(c, r) r w² / (|c w| |r w|), multiplied by exp(-(difference of
    lengths)² / 72). CIDEr-D is 10 times the mean similarity over the orders 1 to 4 and over the references. As in
    COCO's evaluation, a caption's length is its number of word pairs.

    Args:
        captions: The tokenised caption of each clip.
        references: The tokenised references of each clip, one or more.
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

        references_of_clip = _ownership(self.owner, self.clips)
        self.orders: list[_Counts] = []
        for order in range(1, CIDER_ORDERS + 1):
            ids: dict[tuple[str, ...], int] = {}
            reference = _count_matrix(reference_words, order, ids)
            caption = _count_matrix(caption_words, order, ids)
            reference.resize(len(reference_words), len(ids))
            caption.resize(self.clips, len(ids))
            occurs = (references_of_clip @ reference).astype(bool).astype(np.float64)
            shared = caption[self.owner].minimum(reference) * reference
            self.orders.append(_Counts(occurs, shared, caption * caption, reference * reference))

    @cached_property
    def scores(self) -> np.ndarray:
        """CIDEr-D of each caption, (clips,) in [0, 10]."""
        total = np.zeros(len(self.owner))
        for counts in self.orders:
            weight = _squared_weights(counts.occurs)
            norm = np.sqrt(counts.caption @ weight)[self.owner] * np.sqrt(counts.reference @ weight)
            total += quotient(counts.shared @ weight, norm)
        return np.bincount(self.owner, total * self.penalty * self.share, minlength=self.clips)

    def left_out(self, factors: np.ndarray) -> np.ndarray:
        """Return the mean of factor times CIDEr-D when each clip in turn is left out.

        Without clip i there are N - 1 clips, and the n-grams of its references occur in one clip fewer. So each sum of
        the similarity is the sum with the weights for N - 1 clips, plus the changes of w² for the n-grams that clip i
        shares with the caption or reference. These sums are products of sparse matrices, so N separate scorings are not
        necessary. The weight of an n-gram that occurs in a single clip does not change, because max(1, 0) equals
        max(1, 1). This makes the products sparser.

        Args:
            factors: (clips,) the number that each caption's CIDEr-D is multiplied by.

        Returns:
            (clips,) the mean over the other clips, with the weights computed from the other clips.

        Raises:
            ValueError: There are fewer than two clips.
        """
        if self.clips < 2:
            raise ValueError(f"there must be two clips or more to leave one out; found {self.clips}")
        all_weights = []
        for counts in self.orders:
            clips = counts.occurs.sum(axis=0)
            weight = (np.log(self.clips - 1) - np.log(np.maximum(1, clips))) ** 2
            change = (np.log(self.clips - 1) - np.log(np.maximum(1, clips - 1))) ** 2 - weight
            # If all clips have an n-gram, all remaining clips have it too, so its weight is exactly 0.
            in_all_clips = clips == self.clips
            weight[in_all_clips] = 0
            change[in_all_clips] = 0
            changing = np.flatnonzero(change)
            changes = (counts.occurs[:, changing] * change[changing]).T.tocsr()
            all_weights.append(_WeightsWithoutEach(weight, changing, changes))

        sums = np.zeros(self.clips)
        step = max(1, BLOCK // len(self.owner))  # number of clips that are computed at once
        for start in range(0, self.clips, step):
            rows = np.flatnonzero((self.owner >= start) & (self.owner < start + step))
            clips = np.arange(start, min(start + step, self.clips))
            total = np.zeros((len(rows), self.clips))
            for counts, weights in zip(self.orders, all_weights, strict=True):
                caption_norm = np.sqrt(weights.sums(counts.caption[clips]))[self.owner[rows] - start]
                norm = caption_norm * np.sqrt(weights.sums(counts.reference[rows]))
                total += quotient(weights.sums(counts.shared[rows]), norm)
            total *= (self.penalty * self.share * factors[self.owner])[rows, None]
            total[np.arange(len(rows)), self.owner[rows]] = 0  # if a clip is left out, its own caption is left out too
            sums += total.sum(axis=0)
        return sums / (self.clips - 1)


class CiderDReferences:
    """The references of a split's clips, to score any number of captions of these clips with CIDEr-D.

    The weights of n-grams depend only on the references. So a caption's score is the same as in a `CiderD` of one
    caption for each clip, whatever other captions are scored.

    Args:
        references: The tokenised references of each clip, one or more.
    """

    def __init__(self, references: References):
        self.clips = len(references)
        counts = [len(texts) for texts in references]
        self.first = np.cumsum([0, *counts])  # index of each clip's first reference, and the number of references
        words = [text.split() for text in chain.from_iterable(references)]
        self.pairs = np.array([max(0, len(text) - 1) for text in words])
        references_of_clip = _ownership(np.repeat(np.arange(self.clips), counts), self.clips)
        self.ids: list[dict[tuple[str, ...], int]] = []  # the column of each n-gram, for each order
        self.counts: list[sparse.csr_array] = []  # (references, n-grams)
        self.weights: list[np.ndarray] = []  # (n-grams,) squared weights
        for order in range(1, CIDER_ORDERS + 1):
            ids: dict[tuple[str, ...], int] = {}
            matrix = _count_matrix(words, order, ids)
            self.ids.append(ids)
            self.counts.append(matrix)
            self.weights.append(_squared_weights((references_of_clip @ matrix).astype(bool).astype(np.float64)))

    def scores(self, captions: Captions, clips: Sequence[int]) -> np.ndarray:
        """Return the CIDEr-D of captions, (captions,) in [0, 10].

        Args:
            captions: The tokenised captions.
            clips: The index of each caption's clip. Several captions may have the same clip.
        """
        words = [caption.split() for caption in captions]
        numbers = [int(self.first[clip + 1] - self.first[clip]) for clip in clips]  # of references
        owner = np.repeat(np.arange(len(words)), numbers)  # the caption of each compared reference
        rows = [np.arange(self.first[clip], self.first[clip + 1]) for clip in clips]
        compared = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
        pairs = np.array([max(0, len(text) - 1) for text in words])
        penalty = np.exp(-((pairs[owner] - self.pairs[compared]) ** 2) / (2 * CIDER_SIGMA**2))
        total = np.zeros(len(owner))
        for order, (ids, counts, weights) in enumerate(zip(self.ids, self.counts, self.weights, strict=True), 1):
            columns = dict(ids)
            caption = _count_matrix(words, order, columns)
            caption.resize(len(words), len(columns))
            reference = counts[compared]
            reference.resize(len(compared), len(columns))
            unseen = np.full(len(columns) - len(ids), np.log(self.clips) ** 2)  # n-grams that no reference has
            weight = np.concatenate([weights, unseen])
            shared = caption[owner].minimum(reference) * reference
            norm = np.sqrt((caption * caption) @ weight)[owner] * np.sqrt((reference * reference) @ weight)
            total += quotient(shared @ weight, norm)
        share = 10 / CIDER_ORDERS / np.array(numbers)[owner]
        return np.bincount(owner, total * penalty * share, minlength=len(words))


def cider_d_between(runs: Sequence[Captions]) -> np.ndarray:
    """Return the CIDEr-D of each run's captions, with the captions of each other run as the only references.

    The weights of n-grams are computed from the captions of the run that is the reference, as in `CiderD`.

    Args:
        runs: The tokenised captions of each run, in the same order of clips.

    Returns:
        (runs, runs, clips) values in [0, 10]. The first index is the run of the captions, the second the run of the
        references. The values of a run with itself are 0.
    """
    clips = len(runs[0])
    words = [caption.split() for captions in runs for caption in captions]
    similarity = np.zeros((len(runs), len(runs), clips))
    for order in range(1, CIDER_ORDERS + 1):
        counts = _count_matrix(words, order, {})
        squares = counts * counts
        by_run = [counts[start : start + clips] for start in range(0, len(words), clips)]
        for reference, in_reference in enumerate(by_run):
            weight = _squared_weights(in_reference.astype(bool).astype(np.float64))
            norms = np.sqrt(squares @ weight).reshape(len(runs), clips)
            for candidate, in_candidate in enumerate(by_run):
                if candidate != reference:
                    shared = (in_candidate.minimum(in_reference) * in_reference) @ weight
                    similarity[candidate, reference] += quotient(shared, norms[candidate] * norms[reference])
    pairs = np.array([max(0, len(text) - 1) for text in words]).reshape(len(runs), clips)
    penalty = np.exp(-((pairs[:, None] - pairs) ** 2) / (2 * CIDER_SIGMA**2))
    return similarity * penalty * (10 / CIDER_ORDERS)


def _squared_weights(occurs: sparse.csr_array) -> np.ndarray:
    """Return the squared weight of each n-gram.

    Args:
        occurs: (clips, n-grams) 1 if the n-gram occurs in the clip's references, otherwise 0.
    """
    return (np.log(occurs.shape[0]) - np.log(np.maximum(1, occurs.sum(axis=0)))) ** 2


def _ownership(owner: np.ndarray, clips: int) -> sparse.csr_array:
    """Return a (clips, references) matrix of 1 for each clip and its references, from the clip of each reference."""
    references = len(owner)
    return sparse.csr_array((np.ones(references), (owner, np.arange(references))), (clips, references))


def _count_matrix(texts: Sequence[Sequence[str]], order: int, ids: dict[tuple[str, ...], int]) -> sparse.csr_array:
    """Return a matrix of shape (texts, n-grams) with the count of each n-gram in each text.

    Args:
        texts: The words of each text.
        order: The number of words in an n-gram.
        ids: The column of each n-gram. This function adds new n-grams to it.
    """
    starts = [0]
    columns: list[int] = []
    values: list[int] = []
    for words in texts:
        counts = _ngrams(words, order)
        columns += [ids.setdefault(ngram, len(ids)) for ngram in counts]
        values += counts.values()
        starts.append(len(columns))
    return sparse.csr_array((np.array(values, dtype=np.float64), columns, starts), (len(texts), len(ids)))
