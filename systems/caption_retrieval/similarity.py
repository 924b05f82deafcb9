"""A search for the pairs of similar captions. It computes the BERTScore of all pairs, and keeps only similar pairs.

    pairs = similar(captions, texts.load_text_encoder("roberta-large", 17), cache_folder())
    pairs.of(3)                                            # indices of the captions that are similar to captions[3]

Conventions
-----------
- BERTScore is the F1 of bert-score 0.3.13, without IDF weights and without its baseline. Each token is matched with the
  most similar token of the other caption. Words can be matched with special tokens, but the scores of special tokens do
  not count in the mean (Zhang et al. 2020, section 3). The score is symmetric.
- With a byte-pair tokeniser such as RoBERTa's, a space is put before the first word. Without this space, the tokeniser
  treats the first word as a part of a word. bert-score 0.3.13 also requests this space, by `add_prefix_space=True`.
  Since transformers 5, this argument has no effect, so bert-score itself gives slightly different scores.
- Scores are normalised (Koizumi et al. 2020, section 3.2). The score of a caption with itself becomes 1, and the
  minimum score of all pairs becomes 0. A pair is similar if its normalised score is above the threshold. The captions
  are distinct, and a caption is not its own neighbour.

How n^2 pairs are computed
--------------------------
Captions are sorted by length and scored in blocks of 1024 x 1024, each pair once. Each block takes one matrix product
of token embeddings and two maxima. The pairs above the threshold are written to the cache, so an interrupted
computation resumes with the next block. The threshold of unnormalised scores depends on the minimum score of all pairs,
which is known only at the end. A block is therefore computed with the minimum score known so far, and pairs a little
below the resulting threshold are kept too. If later blocks lower the threshold even below these pairs, the block is
computed again. The result does not depend on the order of the blocks or on the number of workers.

Token embeddings are stored in half precision. On a GPU, they are also multiplied in half precision. Means and scores
are in single precision. Half precision changes a score by less than .002.

A prefilter first compares sentence embeddings, with one product for each pair, and excludes pairs whose cosine is too
low. The recall of a prefilter is the share of the similar pairs that pass it. With a prefilter, the recall and (unless
it is given) the minimum score are estimated from the pairs of 256 captions with all others.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, combinations_with_replacement
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.files import replacing
from evaluation.findings import Faulty, Finding
from systems.caching.store import exclusive
from systems.parts import texts
from systems.parts.devices import default_device
from systems.parts.digests import digest
from systems.workers import Workers

ARITHMETIC = 1  # increase this when the same weights give other scores, so that caches of the two are not mixed
THRESHOLD = 0.7
SIDE = 1024  # number of captions on each side of a block
TILE = {"cpu": 64, "cuda": 512}  # number of captions on each side of a tile, the part of a block computed at once
SPARE = 0.05  # share of the range of scores by which the minimum score may fall before a block is computed again
SAMPLE = 256  # number of captions for which a prefilter is measured
PASSES = 0.5  # the cosine above which a pair passes a prefilter


@dataclass(frozen=True)
class Similar:
    """The similar pairs of n captions.

    Attributes:
        starts: (n + 1,) int64, the index in `neighbours` at which the neighbours of each caption begin.
        neighbours: Indices of the captions that are similar to each caption, in ascending order.
        least: The score that is normalised to 0.
        recall: The estimated share of the similar pairs that pass the prefilter; None if there is no prefilter, or if
            no pair of the sample is similar.
    """

    starts: np.ndarray
    neighbours: np.ndarray
    least: float
    recall: float | None = None

    def of(self, number: int) -> np.ndarray:
        """Return the indices of the captions that are similar to a caption."""
        return self.neighbours[self.starts[number] : self.starts[number + 1]]

    @property
    def pairs(self) -> int:
        """The number of similar pairs."""
        return len(self.neighbours) // 2


@dataclass(frozen=True)
class Prefilter:
    """A sentence encoder, and the cosine of its embeddings above which a pair is scored."""

    encode: texts.Encoder
    above: float = PASSES


def similar(
    captions: Sequence[str],
    encode: texts.Transformer,
    cache: Path,
    *,
    threshold: float = THRESHOLD,
    least: float | None = None,
    prefilter: Prefilter | None = None,
    workers: int = 0,
) -> Similar:
    """Find the similar pairs of distinct captions, or resume an earlier, interrupted call.

    Args:
        captions: The captions.
        encode: The model whose token embeddings are compared, on any device.
        cache: Folder of the cache; several processes may share it.
        threshold: A number from 0 to 1. Pairs with a higher normalised score are similar.
        least: The score that is normalised to 0 (default: the minimum score of all pairs).
        prefilter: The prefilter that chooses the pairs to score (default: all pairs are scored).
        workers: Number of Ray workers that compute the blocks (default: 0, compute them in this process).

    Raises:
        Faulty: A caption has no token. The exception lists all such captions.
        BadRequest: Workers are requested, but Ray is not installed or does not start, or the cluster that RAY_ADDRESS
            names does not answer.
    """
    filtered = prefilter and (prefilter.encode.identity, prefilter.above)
    identity = repr((ARITHMETIC, encode.identity, SIDE, list(captions), threshold, least, filtered))
    folder = cache / f"similar-{digest(identity.encode())[:12]}"
    result_file = folder / "similar.npz"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "lock"):
        if not result_file.is_file():
            device = default_device()
            tokens = Tokens.of(captions, encode.to(device), cache)
            sentences = None
            if prefilter:
                rows = texts.embed(captions, prefilter.encode.to(device), cache)
                sentences = np.concatenate([row[:1] for row in rows])
                sentences = sentences / np.linalg.norm(sentences, axis=1, keepdims=True)
            passes = 0.0
            if prefilter:
                passes = prefilter.above
            blocks = Blocks(tokens, sentences, passes)
            _write(result_file, _search(blocks, folder, threshold, least, workers))
            for path in (*folder.glob("block-*.npz"), *folder.glob(".block-*.part")):
                path.unlink()
    return _read(result_file)


def nearest(
    asked: Sequence[Sequence[str]], captions: Sequence[str], encode: texts.Transformer, cache: Path, k: int
) -> np.ndarray:
    """For each of several groups of texts, find the captions with the highest BERTScores against the group.

    Args:
        asked: N groups of texts. The score of a caption against a group is its highest score against a text of the
            group.
        captions: The captions. There must be at least k.
        encode: The model whose token embeddings are compared.
        cache: Folder of the cache.
        k: The number of captions to find for each group.

    Returns:
        (N, k) int64 indices of captions, highest score first. Captions with equal scores keep their order.
    """
    encode.to(default_device())
    distinct_texts = list(dict.fromkeys(chain.from_iterable(asked)))
    rows, columns = Tokens.of(distinct_texts, encode, cache), Tokens.of(captions, encode, cache)
    numbers = {text: number for number, text in enumerate(distinct_texts)}
    row_of_text = np.array([numbers[text] for text in chain.from_iterable(asked)])  # of all groups, one after another
    group_starts = np.cumsum([0, *map(len, asked)])[:-1]
    row_blocks, column_blocks = blocks_by_length(rows), blocks_by_length(columns)
    best = np.empty((len(asked), 0), np.int64)  # indices of the best captions so far
    best_scores = np.empty((len(asked), 0), np.float32)
    for some_columns in tqdm(column_blocks, "best captions by BERTScore", leave=False, disable=None, unit="block"):
        block = columns.some(some_columns)
        scores = np.empty((len(distinct_texts), len(some_columns)), np.float32)
        for some_rows in row_blocks:
            scores[some_rows] = f1(rows.some(some_rows), block).cpu().numpy()
        group_scores = np.maximum.reduceat(scores[row_of_text], group_starts)
        best_scores = np.concatenate([best_scores, group_scores], axis=1)
        best = np.concatenate([best, np.broadcast_to(some_columns, (len(asked), len(some_columns)))], axis=1)
        order = np.lexsort((best, -best_scores))[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        best_scores = np.take_along_axis(best_scores, order, axis=1)
    return best


def blocks_by_length(tokens: "Tokens") -> list[np.ndarray]:
    """Return the indices of the captions in blocks of `SIDE`, short captions first, which keeps padding short."""
    order = np.argsort(tokens.lengths, kind="stable")
    return [order[start : start + SIDE] for start in range(0, len(order), SIDE)]


# Scores --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenBlock:
    """Token embeddings of N captions, padded to equal length.

    Attributes:
        values: (N, longest, size) embeddings of length 1. Padding repeats the last token of a caption, so the highest
            similarity of another token to the caption's tokens stays the same.
        weights: (N, longest) weight of each token in the mean; the weights of a caption add up to 1.
    """

    values: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Tokens:
    """Token embeddings of captions, in half precision, one caption after another.

    Attributes:
        values: (tokens, size) float16 embeddings of length 1.
        counts: (tokens,) bool, false for special tokens.
        starts: (captions + 1,) index at which the tokens of each caption begin.
    """

    values: np.ndarray
    counts: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, captions: Sequence[str], encode: texts.Transformer, cache: Path) -> "Tokens":
        """Compute the token embeddings of captions, or read them from the cache.

        Raises:
            Faulty: A caption has no token. The exception lists all such captions.
        """
        tokenizer = encode.tokenizer
        # Byte-pair tokenisers treat the first word as a part of a word unless a space comes before it.
        prefix = ""
        if getattr(tokenizer, "add_prefix_space", None) is False:
            prefix = " "
        captions = [prefix + caption.strip() for caption in captions]
        special = {tokenizer.sep_token_id, tokenizer.cls_token_id}
        token_numbers = []
        if captions:
            token_numbers = tokenizer(captions, truncation=True, max_length=encode.longest)["input_ids"]
        counts = []
        for row in token_numbers:
            counts.append([number not in special for number in row])
        empty = [caption for caption, row in zip(captions, counts, strict=True) if not any(row)]
        if empty:
            message = "a caption must have a word that can be compared with other captions; found {!r}: write a caption"
            raise Faulty([Finding("captions", message=message.format(caption.strip())) for caption in empty])
        rows = texts.embed(captions, encode, cache)
        starts = np.cumsum([0, *map(len, rows)])
        values = np.empty((starts[-1], encode.size), np.float16)
        for row, start in zip(rows, starts, strict=False):
            values[start : start + len(row)] = row / np.linalg.norm(row, axis=1, keepdims=True)
        return cls(values, np.concatenate([np.array(row, bool) for row in counts]), starts)

    @property
    def lengths(self) -> np.ndarray:
        """(captions,) the number of tokens of each caption."""
        return np.diff(self.starts)

    def some(self, numbers: np.ndarray) -> TokenBlock:
        """Return the block of the captions with these indices, in half precision on a GPU, else in single precision."""
        lengths = self.lengths[numbers]
        positions = np.arange(lengths.max())
        index = self.starts[numbers][:, None] + np.minimum(positions, lengths[:, None] - 1)
        weights = (self.counts[index] & (positions < lengths[:, None])).astype(np.float32)
        weights /= weights.sum(1, keepdims=True)
        values, weights = torch.from_numpy(self.values[index]), torch.from_numpy(weights)
        if torch.cuda.is_available():
            return TokenBlock(values.cuda(), weights.cuda())
        return TokenBlock(values.float(), weights)


def f1(rows: TokenBlock, columns: TokenBlock) -> Tensor:
    """Return BERTScore's F1 of each row caption with each column caption, a float32 array of shape (rows, columns).

    F1 is 0 if the sum of precision and recall is 0 or less. It is computed in tiles that are small enough for the
    processor's cache.
    """
    tile = TILE[rows.values.device.type]
    scores = torch.empty(len(rows.values), len(columns.values), device=rows.values.device)
    for top in range(0, len(rows.values), tile):
        for left in range(0, len(columns.values), tile):
            some_rows = TokenBlock(rows.values[top : top + tile], rows.weights[top : top + tile])
            some_columns = TokenBlock(columns.values[left : left + tile], columns.weights[left : left + tile])
            scores[top : top + tile, left : left + tile] = _f1(some_rows, some_columns)
    return scores


def _f1(rows: TokenBlock, columns: TokenBlock) -> Tensor:
    products = rows.values.flatten(0, 1) @ columns.values.flatten(0, 1).T
    products = products.view(*rows.values.shape[:2], *columns.values.shape[:2])  # (rows, tokens, columns, tokens)
    precision = (products.amax(3).float() * rows.weights[:, :, None]).sum(1)
    recall = (products.amax(1).float() * columns.weights).sum(2)
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total, 0)


# Blocks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The result of a block: caption indices and scores of its pairs above `floor`, and the minimum score so far."""

    rows: np.ndarray
    columns: np.ndarray
    scores: np.ndarray
    least: float
    floor: float


class Blocks:
    """The pairs of captions, in blocks.

    Args:
        tokens: Token embeddings of the captions.
        sentences: (captions, size) a prefilter's embeddings, of length 1; None to score all pairs.
        passes: The cosine above which a pair passes the prefilter.
    """

    def __init__(self, tokens: Tokens, sentences: np.ndarray | None = None, passes: float = 0):
        self.tokens, self.sentences, self.passes = tokens, sentences, passes
        # The captions of a block have similar lengths, which keeps padding short.
        self.order = np.argsort(tokens.lengths, kind="stable").astype(np.int32)

    @property
    def names(self) -> list[tuple[int, int]]:
        """The names of all blocks.

        The captions are divided into groups of `SIDE` captions of similar length. The block (i, j), with i <= j, has
        the captions of group i as rows and those of group j as columns.
        """
        return list(combinations_with_replacement(range(-(-len(self.order) // SIDE)), 2))

    def find(self, name: tuple[int, int], threshold: float, least: float, settled: bool) -> Found:
        """Score a block's pairs.

        Args:
            name: A block of `names`.
            threshold: Threshold of the normalised score.
            least: The minimum score known so far.
            settled: True if `least` is final, so that smaller scores of this block do not change it.
        """
        rows, columns = (self.order[number * SIDE : (number + 1) * SIDE] for number in name)
        if self.sentences is None:
            scores = f1(self.tokens.some(rows), self.tokens.some(columns)).cpu().numpy()
            scored = np.ones(scores.shape, bool)
        else:
            scored = self.sentences[rows] @ self.sentences[columns].T > self.passes
            scores = np.zeros(scored.shape, np.float32)
            for row in np.flatnonzero(scored.any(1)):
                passing = np.flatnonzero(scored[row])
                row_scores = f1(self.tokens.some(rows[[row]]), self.tokens.some(columns[passing]))[0]
                scores[row, passing] = row_scores.cpu().numpy()
        if name[0] == name[1]:  # a block on the diagonal: keep each pair once, and no caption with itself
            scored &= np.triu(np.ones(scores.shape, bool), 1)
        spare = 0.0
        if not settled:
            least = min(least, float(scores[scored].min(initial=1)))
            spare = SPARE * (1 - least)
        floor = raised(threshold, least - spare)
        above = np.nonzero(scored & (scores > floor))
        return Found(rows[above[0]], columns[above[1]], scores[above], least, floor)

    def sample(self, threshold: float, least: float | None) -> tuple[float, float | None]:
        """Estimate the recall of the prefilter, from the pairs of `SAMPLE` captions with all others.

        Args:
            threshold: Threshold of the normalised score.
            least: The score that is normalised to 0. If None, the minimum score of the sample's pairs is used.

        Returns:
            The score that is normalised to 0, and the share of the sample's similar pairs that pass the prefilter. The
            share is None if no pair of the sample is similar.
        """
        count = len(self.order)
        chosen = np.random.default_rng(0).permutation(count)[:SAMPLE]
        scores = np.empty((len(chosen), count), np.float32)
        chosen_tokens = self.tokens.some(chosen)
        for start in range(0, count, SIDE):
            numbers = self.order[start : start + SIDE]
            scores[:, numbers] = f1(chosen_tokens, self.tokens.some(numbers)).cpu().numpy()
        others = np.arange(count) != chosen[:, None]
        if least is None:
            least = float(scores[others].min(initial=1))
        alike = others & (scores > raised(threshold, least))
        if not alike.any():
            return least, None
        sentences = cast(np.ndarray, self.sentences)  # the prefilter that is measured
        passing = alike & (sentences[chosen] @ sentences.T > self.passes)
        return least, float(passing.sum() / alike.sum())


def raised(threshold: float, least: float) -> float:
    """Return the score whose normalised value is the threshold.

    >>> raised(0.7, 0.5)
    0.85
    """
    return least + threshold * (1 - least)


def _search(blocks: Blocks, folder: Path, threshold: float, least: float | None, workers: int) -> Similar:
    """Compute all blocks that are missing or have too high a floor, and join the similar pairs of all blocks."""
    recall = None
    if blocks.sentences is not None:
        least, recall = blocks.sample(threshold, least)
    settled = least is not None
    floors: dict[tuple[int, int], float] = {}  # floor of each block that is computed
    low = 1.0
    if least is not None:
        low = least
    for name in blocks.names:
        path = _path(folder, name)
        if path.is_file():
            with np.load(path, allow_pickle=False) as file:
                floors[name] = float(file["floor"])
                if not settled:
                    low = min(low, float(file["least"]))
    pool = None
    while missing := [name for name in blocks.names if floors.get(name, 2.0) > raised(threshold, low)]:
        if workers:
            pool = pool or Workers(_Worker, min(workers, len(missing)), blocks)
            results = pool.map("find", ((name, threshold, low, settled) for name in missing))
        else:
            results = (blocks.find(name, threshold, low, settled) for name in missing)
        bar = tqdm(results, "similar captions", len(missing), unit="block", leave=False, disable=None)
        with closing(bar):
            for name, result in zip(missing, bar, strict=True):
                _write(_path(folder, name), result)
                floors[name] = result.floor
                if not settled:
                    low = min(low, result.least)
    parts = [np.empty((2, 0), np.int32)]
    for name in blocks.names:
        with np.load(_path(folder, name), allow_pickle=False) as file:
            kept = file["scores"] > raised(threshold, low)
            parts.append(np.stack([file["rows"][kept], file["columns"][kept]]))
    pairs = np.concatenate(parts, axis=1)
    count = len(blocks.order)
    rows, neighbours = np.concatenate([pairs, pairs[::-1]], axis=1)
    order = np.lexsort((neighbours, rows))
    starts = np.concatenate([[0], np.bincount(rows, minlength=count).cumsum()])
    share = len(pairs[0]) / max(1, count * (count - 1) // 2)
    message = f"{count} captions: {len(pairs[0])} pairs ({share:.3%}) are similar"
    if recall is not None:
        message += f"; {recall:.1%} of the similar pairs of a sample pass the prefilter"
    tqdm.write(message)
    return Similar(starts, neighbours[order].astype(np.int32), low, recall)


class _Worker:
    """A Ray worker. It keeps the token embeddings from block to block."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks

    def find(self, name: tuple[int, int], threshold: float, least: float, settled: bool) -> Found:
        return self.blocks.find(name, threshold, least, settled)


def _path(folder: Path, name: tuple[int, int]) -> Path:
    return folder / f"block-{name[0]}-{name[1]}.npz"


def _write(path: Path, result: Found | Similar) -> None:
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **{key: value for key, value in vars(result).items() if value is not None})


def _read(path: Path) -> Similar:
    with np.load(path, allow_pickle=False) as file:
        recall = None
        if "recall" in file:
            recall = float(file["recall"])
        return Similar(file["starts"], file["neighbours"], float(file["least"]), recall)
