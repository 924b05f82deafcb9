"""Weighted means of similarity matrices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.findings import Faulty, Finding
from evaluation.predictions import Similarity


def read_matrices(files: Sequence[Path], standardise: bool) -> list[Similarity]:
    """Read the similarity matrices of several runs for the same split.

    Args:
        files: The prediction of each run.
        standardise: If true, shift and scale the scores of each matrix to mean 0 and standard deviation 1.

    Returns:
        The matrices, with float32 scores. Queries and clips have the order of the first matrix.

    Raises:
        Faulty: A file is damaged, contains other queries or clips than the first file, or contains scores that are not
            finite. The exception lists all findings.
    """
    matrices: list[Similarity] = []
    findings = []
    for file in files:
        try:
            matrix = Similarity.load(file)
        except Faulty as faulty:
            findings += faulty.findings
            continue
        if matrices and not _has_names_of(matrices[0], matrix):
            message = (
                f"must have the same queries and clips as {files[0]}; found others: predict both with the same data"
            )
            findings.append(Finding(str(file), message=message))
            continue
        if matrices:
            matrix = _in_order_of(matrices[0], matrix)
        scores = matrix.scores.astype(np.float32)
        if not np.isfinite(scores).all():
            message = "scores must be finite; found NaN or infinity: correct the system, and predict again"
            findings.append(Finding(str(file), message=message))
            continue
        if standardise:
            scores = standardised(scores)
        matrices.append(Similarity(matrix.queries, matrix.file_names, scores))
    if findings:
        raise Faulty(findings)
    return matrices


def _has_names_of(first: Similarity, matrix: Similarity) -> bool:
    """Return True if two matrices have the same queries and clips, in any order."""
    same_queries = sorted(first.queries) == sorted(matrix.queries)
    return same_queries and sorted(first.file_names) == sorted(matrix.file_names)


def _in_order_of(first: Similarity, matrix: Similarity) -> Similarity:
    """Return a matrix with the queries and clips in the order of the first matrix."""
    if (first.queries, first.file_names) == (matrix.queries, matrix.file_names):
        return matrix
    row_of = {query: row for row, query in enumerate(matrix.queries)}
    column_of = {name: column for column, name in enumerate(matrix.file_names)}
    rows = [row_of[query] for query in first.queries]
    columns = [column_of[name] for name in first.file_names]
    return Similarity(first.queries, first.file_names, matrix.scores[np.ix_(rows, columns)])


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return scores with mean 0 and standard deviation 1. If all scores are equal, return zeros."""
    deviation = scores.std(dtype=np.float64)
    centred = scores - scores.mean(dtype=np.float64)
    if deviation == 0:
        return np.zeros_like(scores)
    return (centred / deviation).astype(scores.dtype)


def weighted_mean(matrices: Sequence[Similarity], weights: Sequence[float]) -> Similarity:
    """Return the weighted mean of matrices with the same queries and clips.

    Args:
        matrices: The matrices, with float32 scores of shape (queries, clips).
        weights: The weight of each matrix. The sum is 1.
    """
    first = matrices[0]
    total = np.zeros_like(first.scores)
    for matrix, weight in zip(matrices, weights, strict=True):
        if weight:
            total += np.float32(weight) * matrix.scores
    return Similarity(first.queries, first.file_names, total)
