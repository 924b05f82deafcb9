"""Embeddings of queries and clips, and their similarities in blocks.

A dual encoder gives an embedding for each text and each clip. The similarity of a text and a clip is the cosine of the
angle between their embeddings, or the inner product (dot). `Embeddings` keeps the two arrays of embeddings and computes
similarities block by block, so the matrix of all similarities is never in memory.

Exact sums
----------
Floating-point sums depend on the order of the additions, and BLAS chooses this order by the shape of a block. Two equal
clips could then get different similarities, and ranks would depend on the size of the blocks. Here they do not: the
coordinates are rounded to whole multiples of 2^-`BITS` of the length of the embedding, and are multiplied as whole
numbers in float64. All products and sums are below 2^53, so each of them is exact in any order. Rounding changes a
cosine by about 2^-`BITS` (0.000000015), which is less than the rounding errors of float32 products. Ranks can therefore
differ from those of a float32 matrix only where two similarities are equal in six digits.

- **cosine**: each embedding is divided by its length first.
- **dot**: each query is multiplied by a power of two, and all clips by one common power of two, so that no embedding is
  longer than 1. This does not change the order of clips.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from evaluation.findings import WARNING, Finding

SIMILARITIES = ("cosine", "dot")
BITS = 26  # a product of two coordinates has 52 bits, and float64 is exact up to 53 bits
ROWS = 4096  # number of embeddings to read at once
OUTLIER = 1000  # a clip that is this many times as long as the median clip makes the resolution of `dot` too low
MEMORY = 2**28  # bytes of the embeddings of queries that are in memory at once


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of queries and clips, which give a similarity for every query and clip.

    Attributes:
        queries: The texts of the queries.
        file_names: The file names of the clips.
        query_vectors: (queries, d) array of the queries' embeddings, of any type of real numbers.
        clip_vectors: (clips, d) array of the clips' embeddings. It may be on disk (`np.load` with `mmap_mode="r"`).
        similarity: One of `SIMILARITIES`.

    Raises:
        ValueError: The arrays do not have a row for each name, or differ in their numbers of columns, or there is no
            such similarity.
    """

    queries: tuple[str, ...]
    file_names: tuple[str, ...]
    query_vectors: np.ndarray
    clip_vectors: np.ndarray
    similarity: str = "cosine"

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"the similarity must be {' or '.join(SIMILARITIES)}; found {self.similarity!r}")
        for what, names, vectors in (
            ("query_vectors", self.queries, self.query_vectors),
            ("clip_vectors", self.file_names, self.clip_vectors),
        ):
            shape = np.shape(vectors)
            if len(shape) != 2 or shape[0] != len(names):
                raise ValueError(f"{what} must have the shape (n, d) with n = {len(names)}; found {shape}")
        widths = self.query_vectors.shape[1], self.clip_vectors.shape[1]
        if widths[0] != widths[1]:
            raise ValueError(f"the embeddings of queries and clips must have the same width; found {widths}")

    def reversed(self) -> "Embeddings":
        """Return the embeddings with the clips as queries, and the texts as the clips to rank."""
        return Embeddings(self.file_names, self.queries, self.clip_vectors, self.query_vectors, self.similarity)

    def with_queries(self, rows: np.ndarray) -> "Embeddings":
        """Return the embeddings of some queries, given their row numbers, with all clips."""
        queries = tuple(self.queries[row] for row in rows)
        return replace(self, queries=queries, query_vectors=self.query_vectors[rows])

    @cached_property
    def _lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """The lengths of the embeddings of queries and of clips; NaN for an embedding that is not finite."""
        return lengths(self.query_vectors), lengths(self.clip_vectors)

    def findings(self, file: str) -> list[Finding]:
        """Return an error for each kind of embedding that has no similarity, and warnings.

        Args:
            file: The prediction's name in findings.
        """
        findings = []
        query_lengths, clip_lengths = self._lengths
        for noun, names, size in (("texts", self.queries, query_lengths), ("clips", self.file_names, clip_lengths)):
            share = f"of {len(names)} {noun}"
            wrong = np.flatnonzero(np.isnan(size))
            if len(wrong):
                example = names[wrong[0]]
                message = f"embeddings must be finite; {len(wrong)} {share} have NaN or infinity, or are too large"
                findings.append(Finding(file, message=f"{message}, for example {example!r}; check the model"))
            zero = np.flatnonzero(size == 0)
            if len(zero) and self.similarity == "cosine":
                message = f"embeddings must not be zero, because zero has no cosine; {len(zero)} {share} are zero"
                advice = "check the model, or choose the similarity dot"
                findings.append(Finding(file, message=f"{message}, for example {names[zero[0]]!r}; {advice}"))
        if self.similarity == "dot" and len(clip_lengths) and not findings:
            longest, median = float(clip_lengths.max()), float(np.median(clip_lengths))
            if longest > OUTLIER * median > 0:
                name = self.file_names[int(clip_lengths.argmax())]
                message = f"the embedding of {name!r} is {longest / median:.0f} times as long as the median clip's"
                message += f"; similarities are rounded to 2^-{BITS} of the longest: check the model"
                findings.append(Finding(file, message=message, severity=WARNING))
        return findings

    @cached_property
    def whole_queries(self) -> "WholeNumbers":
        """The queries' embeddings as whole numbers."""
        return WholeNumbers(self.query_vectors, self._scales(self._lengths[0]))

    @cached_property
    def whole_clips(self) -> "WholeNumbers":
        """The clips' embeddings as whole numbers."""
        size = self._lengths[1]
        if self.similarity == "dot":
            size = np.broadcast_to(size.max(initial=0.0), size.shape)
        return WholeNumbers(self.clip_vectors, self._scales(size))

    def _scales(self, size: np.ndarray) -> np.ndarray:
        """Return the factor of each embedding, given the lengths that become 1 (cosine) or at most 1 (dot)."""
        size = np.where(size > 0, size, 1.0)
        if self.similarity == "dot":
            _, exponents = np.frexp(size)  # size is below 2^exponent
            return np.ldexp(1.0, -exponents)
        return 1 / size

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the similarities of n pairs of a query and a clip, given their (n,) row and column numbers.

        A similarity is a multiple of 2^-52 of the scale above, and is returned as a whole number. It equals the
        number in `blocks` exactly.
        """
        values = np.empty(len(rows))
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            products = self.whole_queries[rows[part]] * self.whole_clips[columns[part]]
            values[part] = products.sum(axis=1)
        return values

    def blocks(self, rows: np.ndarray, tile: tuple[int, int]) -> Iterator[tuple[slice, int, np.ndarray]]:
        """Yield the similarities of some queries with all clips, as whole numbers, in blocks.

        Args:
            rows: (q,) row numbers of the queries.
            tile: The maximum number of queries and of clips of a block.

        Yields:
            The block's queries, as a slice of `rows`; the number of the block's first clip; and its similarities, an
            array of shape (queries, clips). For each query, the blocks' clips are in ascending order.
        """
        for first, queries in self.query_parts(rows):
            for start in range(0, len(self.file_names), tile[1]):
                clips = self.whole_clips[start : start + tile[1]]
                for row in range(0, len(queries), tile[0]):
                    scores = queries[row : row + tile[0]] @ clips.T
                    yield slice(first + row, first + row + len(scores)), start, scores

    def query_parts(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the embeddings of some queries as whole numbers, in parts of at most `MEMORY` bytes.

        Each part is a pair: the index of its first query in `rows`, and an array of shape (queries, d).
        """
        size = max(1, MEMORY // (8 * max(1, self.query_vectors.shape[1])))
        for first in range(0, len(rows), size):
            yield first, self.whole_queries[rows[first : first + size]]


class WholeNumbers:
    """Embeddings as whole numbers below 2^`BITS`, which are computed from the original array when rows are read."""

    def __init__(self, vectors: np.ndarray, scales: np.ndarray):
        """Store the (n, d) embeddings and the (n,) factors that make their lengths at most 1."""
        self.vectors, self.scales = vectors, scales
        self.shape, self.ndim, self.dtype = np.shape(vectors), 2, np.dtype(np.float64)

    def __len__(self) -> int:
        """Return the number of embeddings."""
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the rows of a slice or with given numbers, an array of shape (rows, d) of float64 whole numbers."""
        part = np.asarray(self.vectors[rows], dtype=np.float64)
        whole = np.rint(part * self.scales[rows, None] * 2.0**BITS)
        _release(self.vectors)
        return whole


def lengths(vectors: np.ndarray) -> np.ndarray:
    """Return the (n,) lengths of (n, d) embeddings, which may be on disk; NaN for embeddings that are not finite."""
    size = np.empty(len(vectors))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(vectors), ROWS):
            part = np.asarray(vectors[start : start + ROWS], dtype=np.float64)
            size[start : start + ROWS] = np.sqrt((part * part).sum(axis=1))
            _release(vectors)
    return np.where(np.isfinite(size), size, np.nan)


def _release(vectors: np.ndarray) -> None:
    """Give the memory of the parts of a file that were read back to the system, for an array that is on disk."""
    mapping = getattr(vectors, "_mmap", None)
    if mapping is not None and getattr(vectors, "mode", "") == "r" and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def repeated_rows(names: Sequence[str], vectors: np.ndarray) -> tuple[list[int], list[tuple[int, int]]]:
    """Find names that are given more than once.

    Args:
        names: The name of each row.
        vectors: The embeddings, an array with a row for each name.

    Returns:
        The numbers of the first row of each name. And the pairs of a name's first row and a later row whose embedding
        differs from it by more than a thousandth of its length.
    """
    first: dict[str, int] = {}
    different = []
    for row, name in enumerate(names):
        original = first.setdefault(name, row)
        if original == row:
            continue
        one, other = (np.asarray(vectors[index], dtype=np.float64) for index in (original, row))
        if not np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(one):
            different.append((original, row))
    return list(first.values()), different
