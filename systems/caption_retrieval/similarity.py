"""Which captions say nearly the same: BERTScore between all pairs of them, and only what is similar is kept.

    found = similar(captions, texts.load_text_encoder("roberta-large", 17), Path(".cache"))
    found.of(3)                                            # numbers of the captions that are similar to captions[3]

Conventions
-----------
- BERTScore is the F1 of bert-score 0.3.13, without weights by rarity and without its baseline: each token takes the
  most similar of the other caption's tokens, special tokens are found but do not count (Zhang et al. 2020, section 3).
  It is the same both ways.
- A byte-pair tokeniser such as RoBERTa's gets a blank before the first word, which it would otherwise take for a part
  of a word. bert-score 0.3.13 asks for the same with `add_prefix_space=True`, but from transformers 5 on this argument
  has no effect, so that bert-score itself gives slightly different scores there.
- A score is normalised to [0, 1]: 1 is a caption with itself, 0 the least similar pair of all (Koizumi et al. 2020,
  section 3.2). Similar is what lies above the threshold. The captions are distinct; one is not its own neighbour.

How n^2 pairs are done
----------------------
Captions are sorted by length and taken in blocks of 1024 x 1024, each pair once. A block is a matrix product of tokens
and two maxima; what lies above the threshold is written to the cache, so that a computation that was killed goes on
with the next block. The threshold follows from the least score of all, which is known last: a block keeps what lies
above the threshold as it looks then, and a little more, and is done again should a smaller score, found later, have
lowered the threshold further. The outcome is the same in whatever order, and on however many workers, blocks are done.

Token embeddings are kept in half precision, and multiplied in it where there is a GPU; means and scores are single.
That moves a score by less than .002.

A prefilter compares sentence embeddings first, one product a pair, and leaves out pairs below a cosine. The least score
and the share of the similar pairs that pass, the recall, are then those of 256 captions with all others.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, combinations_with_replacement
from pathlib import Path

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
from systems.parts.sequences import chunks
from systems.workers import pool

ARITHMETIC = 1  # counts up when the same weights give other scores, so that no cache mixes the two
THRESHOLD = 0.7
SIDE = 1024  # captions of a block
TILE = {"cpu": 64, "cuda": 512}  # of which so many are multiplied at once
SPARE = 0.05  # of the range of scores, that the least may yet fall before a block is done again
SAMPLE = 256  # captions that a prefilter is measured on
PASSES = 0.5  # the cosine above which a prefilter lets a pair pass


@dataclass(frozen=True)
class Similar:
    """What is similar to each of n captions.

    Attributes:
        starts: (n + 1,) int64, where the neighbours of each begin.
        neighbours: Numbers of captions, ascending for each.
        least: The least score, which is normalised to 0.
        recall: Share of the similar pairs that passed the prefilter, as measured; None where there was none.
    """

    starts: np.ndarray
    neighbours: np.ndarray
    least: float
    recall: float | None = None

    def of(self, number: int) -> np.ndarray:
        """The numbers of the captions that are similar to one."""
        return self.neighbours[self.starts[number] : self.starts[number + 1]]

    @property
    def pairs(self) -> int:
        """How many pairs are similar."""
        return len(self.neighbours) // 2


@dataclass(frozen=True)
class Prefilter:
    """A sentence encoder, and the cosine of its embeddings above which a pair is looked at."""

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
    """Find the similar pairs of distinct captions, or go on where an earlier call was cut off.

    Args:
        captions: The captions.
        encode: Gives the tokens of each; wherever it is.
        cache: Folder of the cache; several processes may share it.
        threshold: Normalised scores above it are similar, 0 to 1.
        least: What is normalised to 0, where other captions say; else the least score of all.
        prefilter: Which pairs to look at; all without.
        workers: How many of ray's workers to spread the blocks over; 0 is none.

    Raises:
        Faulty: A caption has no token; with all that have none.
        BadRequest: Workers are asked for and ray is not installed.
    """
    filtered = prefilter and (prefilter.encode.identity, prefilter.above)
    identity = repr((ARITHMETIC, encode.identity, SIDE, list(captions), threshold, least, filtered))
    folder = cache / f"similar-{digest(identity.encode())[:12]}"
    done = folder / "similar.npz"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "lock"):
        if not done.is_file():
            device = default_device()
            tokens = Tokens.of(captions, encode.to(device), cache)
            sentences = None
            if prefilter:
                rows = texts.embed(captions, prefilter.encode.to(device), cache)
                sentences = np.concatenate([row[:1] for row in rows])
                sentences = sentences / np.linalg.norm(sentences, axis=1, keepdims=True)
            blocks = Blocks(tokens, sentences, prefilter.above if prefilter else 0)
            _write(done, _search(blocks, folder, threshold, least, workers))
            for path in (*folder.glob("block-*.npz"), *folder.glob(".block-*.part")):
                path.unlink()
    return _read(done)


def nearest(
    asked: Sequence[Sequence[str]], captions: Sequence[str], encode: texts.Transformer, cache: Path, k: int
) -> np.ndarray:
    """Find the captions with the highest BERTScore against what each asks for.

    Args:
        asked: Several texts each; a caption has the highest of its scores against them.
        captions: The captions, k at least.
        encode: Gives the tokens.
        cache: Folder of the cache.
        k: How many.

    Returns:
        (asked, k) int64 numbers of captions, the highest first; of equal ones the first.
    """
    encode.to(default_device())
    every = list(dict.fromkeys(chain.from_iterable(asked)))
    rows, columns = Tokens.of(every, encode, cache), Tokens.of(captions, encode, cache)
    numbers = {text: number for number, text in enumerate(every)}
    own = np.array([numbers[text] for text in chain.from_iterable(asked)])
    begins = np.cumsum([0, *map(len, asked)])[:-1]
    tops, lefts = blocks_by_length(rows), blocks_by_length(columns)
    found, best = np.empty((len(asked), 0), np.int64), np.empty((len(asked), 0), np.float32)
    for left in tqdm(lefts, "best captions by BERTScore", leave=False, disable=None, unit="block"):
        block, scores = columns.some(left), np.empty((len(every), len(left)), np.float32)
        for top in tops:
            scores[top] = f1(rows.some(top), block).cpu().numpy()
        best = np.concatenate([best, np.maximum.reduceat(scores[own], begins)], axis=1)
        found = np.concatenate([found, np.broadcast_to(left, (len(asked), len(left)))], axis=1)
        first = np.lexsort((found, -best))[:, :k]
        found = np.take_along_axis(found, first, axis=1)
        best = np.take_along_axis(best, first, axis=1)
    return found


def blocks_by_length(tokens: "Tokens") -> list[np.ndarray]:
    """Return the numbers of the captions in blocks of `SIDE`, short captions first, so that little is padded."""
    order = np.argsort(tokens.lengths, kind="stable")
    return chunks(order, SIDE)


# Scores --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenBlock:
    """Token embeddings of some captions side by side.

    Attributes:
        values: (N, longest, size) of length 1. Behind a caption's end its last token stands again, which changes no
            maximum.
        weights: (N, longest) what each counts; those of a caption add up to 1.
    """

    values: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Tokens:
    """Token embeddings of captions, in half precision, one after another.

    Attributes:
        values: (tokens, size) float16, of length 1.
        counts: (tokens,) bool, which are no special tokens.
        starts: (captions + 1,) where those of each begin.
    """

    values: np.ndarray
    counts: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, captions: Sequence[str], encode: texts.Transformer, cache: Path) -> "Tokens":
        """Compute them, or read them from the cache.

        Raises:
            Faulty: A caption has no token; with all that have none.
        """
        tokenizer = encode.tokenizer
        # Byte-pair tokenisers take a word at the beginning for part of one, unless a blank stands before it.
        blank = " " if getattr(tokenizer, "add_prefix_space", None) is False else ""
        captions = [blank + caption.strip() for caption in captions]
        special = {tokenizer.sep_token_id, tokenizer.cls_token_id}
        known = []
        if captions:
            known = tokenizer(captions, truncation=True, max_length=encode.longest)["input_ids"]
        counts = []
        for row in known:
            counts.append([number not in special for number in row])
        empty = [caption for caption, row in zip(captions, counts, strict=True) if not any(row)]
        if empty:
            message = "a caption must have a word, which can be compared with others; found {!r}: write one"
            raise Faulty([Finding("captions", message=message.format(caption.strip())) for caption in empty])
        rows = texts.embed(captions, encode, cache)
        starts = np.cumsum([0, *map(len, rows)])
        values = np.empty((starts[-1], encode.size), np.float16)
        for row, start in zip(rows, starts, strict=False):
            values[start : start + len(row)] = row / np.linalg.norm(row, axis=1, keepdims=True)
        return cls(values, np.concatenate([np.array(row, bool) for row in counts]), starts)

    @property
    def lengths(self) -> np.ndarray:
        """(captions,) tokens of each."""
        return np.diff(self.starts)

    def some(self, numbers: np.ndarray) -> TokenBlock:
        """Lay captions side by side, on the GPU in half precision if there is one, else in single."""
        lengths = self.lengths[numbers]
        places = np.arange(lengths.max())
        index = self.starts[numbers][:, None] + np.minimum(places, lengths[:, None] - 1)
        weights = (self.counts[index] & (places < lengths[:, None])).astype(np.float32)
        weights /= weights.sum(1, keepdims=True)
        values, weights = torch.from_numpy(self.values[index]), torch.from_numpy(weights)
        if torch.cuda.is_available():
            return TokenBlock(values.cuda(), weights.cuda())
        return TokenBlock(values.float(), weights)


def f1(rows: TokenBlock, columns: TokenBlock) -> Tensor:
    """BERTScore's F1 of rows and columns, (rows, columns) float32; 0 where precision and recall add up to no more.

    Tiles keep what is multiplied small enough for the processor's cache.
    """
    tile = TILE[rows.values.device.type]
    found = torch.empty(len(rows.values), len(columns.values), device=rows.values.device)
    for top in range(0, len(rows.values), tile):
        for left in range(0, len(columns.values), tile):
            one = TokenBlock(rows.values[top : top + tile], rows.weights[top : top + tile])
            other = TokenBlock(columns.values[left : left + tile], columns.weights[left : left + tile])
            found[top : top + tile, left : left + tile] = _f1(one, other)
    return found


def _f1(rows: TokenBlock, columns: TokenBlock) -> Tensor:
    products = rows.values.flatten(0, 1) @ columns.values.flatten(0, 1).T
    products = products.view(*rows.values.shape[:2], *columns.values.shape[:2])  # (rows, L, columns, K)
    precision = (products.amax(3).float() * rows.weights[:, :, None]).sum(1)
    recall = (products.amax(1).float() * columns.weights).sum(2)
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total, 0)


# Blocks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a block holds: numbers of captions and scores of the pairs above `floor`, and the least score of all."""

    rows: np.ndarray
    columns: np.ndarray
    scores: np.ndarray
    least: float
    floor: float


class Blocks:
    """The pairs of captions by blocks.

    Args:
        tokens: Of the captions.
        sentences: (captions, size) embeddings of length 1 of a prefilter; None: all pairs.
        passes: The cosine above which a pair passes it.
    """

    def __init__(self, tokens: Tokens, sentences: np.ndarray | None = None, passes: float = 0):
        self.tokens, self.sentences, self.passes = tokens, sentences, passes
        self.order = np.argsort(tokens.lengths, kind="stable").astype(np.int32)  # alike in length: little is padded

    @property
    def names(self) -> list[tuple[int, int]]:
        """Every block, by the numbers of its rows and columns."""
        return list(combinations_with_replacement(range(-(-len(self.order) // SIDE)), 2))

    def find(self, name: tuple[int, int], threshold: float, least: float, settled: bool) -> Found:
        """Score a block's pairs.

        Args:
            name: Out of `names`.
            threshold: Of the normalised score.
            least: The least score, as far as it is known.
            settled: Whether that is the least, and no pair of this block is to change it.
        """
        rows, columns = (self.order[number * SIDE : (number + 1) * SIDE] for number in name)
        if self.sentences is None:
            scores = f1(self.tokens.some(rows), self.tokens.some(columns)).cpu().numpy()
            looked = np.ones(scores.shape, bool)
        else:
            looked = self.sentences[rows] @ self.sentences[columns].T > self.passes
            scores = np.zeros(looked.shape, np.float32)
            for row in np.flatnonzero(looked.any(1)):
                some = np.flatnonzero(looked[row])
                scores[row, some] = f1(self.tokens.some(rows[[row]]), self.tokens.some(columns[some]))[0].cpu().numpy()
        if name[0] == name[1]:  # each pair once, and none of a caption with itself
            looked &= np.triu(np.ones(scores.shape, bool), 1)
        if not settled:
            least = min(least, float(scores[looked].min(initial=1)))
        spare = 0 if settled else SPARE * (1 - least)
        floor = raised(threshold, least - spare)
        place = np.nonzero(looked & (scores > floor))
        return Found(rows[place[0]], columns[place[1]], scores[place], least, floor)

    def sample(self, threshold: float, least: float | None) -> tuple[float, float | None]:
        """Measure a prefilter on some captions with all others: the least score, and the share of similar that pass."""
        count = len(self.order)
        chosen = np.random.default_rng(0).permutation(count)[:SAMPLE]
        scores = np.empty((len(chosen), count), np.float32)
        mine = self.tokens.some(chosen)
        for start in range(0, count, SIDE):
            numbers = self.order[start : start + SIDE]
            scores[:, numbers] = f1(mine, self.tokens.some(numbers)).cpu().numpy()
        others = np.arange(count) != chosen[:, None]
        least = float(scores[others].min(initial=1)) if least is None else least
        alike = others & (scores > raised(threshold, least))
        passing = alike & (self.sentences[chosen] @ self.sentences.T > self.passes)
        return least, float(passing.sum() / alike.sum()) if alike.any() else None


def raised(threshold: float, least: float) -> float:
    """The score whose normalised value is the threshold.

    >>> raised(0.7, 0.5)
    0.85
    """
    return least + threshold * (1 - least)


def _search(blocks: Blocks, folder: Path, threshold: float, least: float | None, workers: int) -> Similar:
    """Do all blocks that are not in the folder, and put them together."""
    recall = None
    if blocks.sentences is not None:
        least, recall = blocks.sample(threshold, least)
    settled = least is not None
    floors: dict[tuple[int, int], float] = {}
    low = 1.0 if least is None else least
    for name in blocks.names:
        path = _path(folder, name)
        if path.is_file():
            with np.load(path, allow_pickle=False) as file:
                floors[name] = float(file["floor"])
                low = low if settled else min(low, float(file["least"]))
    started = None
    while missing := [name for name in blocks.names if floors.get(name, 2.0) > raised(threshold, low)]:
        if workers:
            started = started or pool(_Worker, min(workers, len(missing)), blocks)
            ask = lambda worker, name: worker.find.remote(name, threshold, low, settled)  # noqa: B023, E731
            results = started.map(ask, missing)
        else:
            results = (blocks.find(name, threshold, low, settled) for name in missing)
        bar = tqdm(results, "similar captions", len(missing), unit="block", leave=False, disable=None)
        with closing(bar):
            for name, found in zip(missing, bar, strict=True):
                _write(_path(folder, name), found)
                floors[name] = found.floor
                low = low if settled else min(low, found.least)
    parts = []
    for name in blocks.names:
        with np.load(_path(folder, name), allow_pickle=False) as file:
            kept = file["scores"] > raised(threshold, low)
            parts.append(np.stack([file["rows"][kept], file["columns"][kept]]))
    pairs = np.concatenate(parts, axis=1) if parts else np.empty((2, 0), np.int64)
    count = len(blocks.order)
    rows, neighbours = np.concatenate([pairs, pairs[::-1]], axis=1)
    order = np.lexsort((neighbours, rows))
    starts = np.concatenate([[0], np.bincount(rows, minlength=count).cumsum()])
    share = f"{len(pairs[0]) / max(1, count * (count - 1) // 2):.3%}"
    if recall is None:
        passed = ""
    else:
        passed = f"; the prefilter lets {recall:.1%} of the similar pairs of a sample pass"
    tqdm.write(f"{count} captions: {len(pairs[0])} pairs ({share}) are similar{passed}")
    return Similar(starts, neighbours[order].astype(np.int32), low, recall)


class _Worker:
    """Keeps the tokens from block to block."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks

    def find(self, *asked: object) -> Found:
        return self.blocks.find(*asked)


def _path(folder: Path, name: tuple[int, int]) -> Path:
    return folder / f"block-{name[0]}-{name[1]}.npz"


def _write(path: Path, found: Found | Similar) -> None:
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **{key: value for key, value in vars(found).items() if value is not None})


def _read(path: Path) -> Similar:
    with np.load(path, allow_pickle=False) as file:
        recall = float(file["recall"]) if "recall" in file else None
        return Similar(file["starts"], file["neighbours"], float(file["least"]), recall)
