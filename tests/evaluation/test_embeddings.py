"""Embeddings: similarities do not depend on blocks, and ranks are those of the matrix."""

import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.data.dataset import Clip, Split
from evaluation.embeddings import BITS, Embeddings, lengths, repeated_rows
from evaluation.findings import ERROR, WARNING, Faulty
from evaluation.metrics import retrieval
from evaluation.metrics.retrieval import AUDIO_TO_TEXT, best_clips, evaluate, ranks
from evaluation.predictions import Similarity

TILES = [(1, 1), (2, 3), (3, 7), (1024, 4096)]


def names(count: int, letter: str) -> tuple[str, ...]:
    return tuple(f"{letter}{index}" for index in range(count))


def embeddings(queries, clips, similarity="cosine") -> Embeddings:
    queries, clips = np.asarray(queries), np.asarray(clips)
    return Embeddings(names(len(queries), "q"), names(len(clips), "c"), queries, clips, similarity)


def problem(seed: int, similarity: str = "cosine", d: int = 24) -> tuple[dict, Embeddings]:
    """Return a truth with one to four clips for a query, and embeddings in which some clips are equal."""
    rng = np.random.default_rng(seed)
    clips = rng.standard_normal((30, d)).astype(np.float32)
    clips[10:14] = clips[3]
    clips[20] = 2 * clips[21]  # the same direction
    both = embeddings(rng.standard_normal((12, d)).astype(np.float32), clips, similarity)
    truth = {}
    for query in both.queries:
        relevant = rng.choice(both.file_names, rng.integers(1, 5), replace=False)
        truth[query] = dict(zip(relevant.tolist(), rng.integers(1, 4, len(relevant)).tolist(), strict=True))
    return truth, both


def exact(both: Embeddings) -> Similarity:
    """Return the matrix of exact similarities, in whole numbers that Python multiplies."""
    queries, clips = (part[np.arange(len(part))].tolist() for part in (both.whole_queries, both.whole_clips))
    scores = [[sum(int(a) * int(b) for a, b in zip(q, c, strict=True)) for c in clips] for q in queries]
    assert all(abs(score) < 2**53 for row in scores for score in row)
    return Similarity(both.queries, both.file_names, np.array(scores, dtype=np.float64))


# ------------------------------------------------------------------------------------------------ similarities


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("tile", TILES)
def test_ranks_are_those_of_the_exact_matrix(tile, similarity, monkeypatch):
    monkeypatch.setattr(retrieval, "TILE", tile)
    monkeypatch.setattr("evaluation.embeddings.MEMORY", 8 * 24 * 5)  # five queries at once
    monkeypatch.setattr("evaluation.embeddings.ROWS", 7)
    for seed in range(4):
        truth, both = problem(seed, similarity)
        matrix = exact(both)
        for found, expected in zip(ranks(truth, both), ranks(truth, matrix), strict=True):
            assert found.tolist() == expected.tolist()
        assert best_clips(both, 7) == matrix.top(7)
        answers = retrieval.reversed_truth(truth)
        for found, expected in zip(
            ranks(answers, both.reversed()), ranks(answers, exact(both.reversed())), strict=True
        ):
            assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("d", [1, 3, 64, 513, 1024])
def test_blocks_of_any_size_have_the_same_bits(d):
    rng = np.random.default_rng(d)
    both = embeddings(rng.standard_normal((33, d)).astype(np.float32), rng.standard_normal((70, d)).astype(np.float32))
    rows = np.arange(33)
    whole = both.whole_queries[rows] @ both.whole_clips[:].T
    for tile in TILES:
        scores = np.empty_like(whole)
        for queries, start, block in both.blocks(rows, tile):
            scores[queries, start : start + block.shape[1]] = block
        assert scores.tobytes() == whole.tobytes()
    row, column = (index.ravel() for index in np.indices(whole.shape))
    assert both.pairs(row, column).tobytes() == whole.tobytes()
    reverse = both.reversed()
    assert (reverse.whole_queries[:] @ reverse.whole_clips[:].T).T.tobytes() == whole.tobytes()


@pytest.mark.parametrize("d", [2, 128, 1024])
def test_similarities_are_cosines(d):
    rng = np.random.default_rng(0)
    q, c = rng.standard_normal((20, d)).astype(np.float32), 1e-20 * rng.standard_normal((50, d)).astype(np.float32)
    both = embeddings(q, c)
    cosine = (q / lengths(q)[:, None]) @ (c / lengths(c)[:, None]).T
    found = both.whole_queries[:] @ both.whole_clips[:].T / 2.0 ** (2 * BITS)
    np.testing.assert_allclose(found, cosine, rtol=0, atol=2.0 ** (1 - BITS))


def test_dot_products_keep_their_order():
    rng = np.random.default_rng(1)
    q = rng.standard_normal((20, 64)) * rng.lognormal(0, 3, (20, 1))
    c = rng.standard_normal((50, 64)) * rng.lognormal(0, 1, (50, 1))
    found = best_clips(embeddings(q, c, "dot"), 50)
    assert found == Similarity(names(20, "q"), names(50, "c"), q @ c.T).top(50)


def test_whole_numbers_are_below_the_limit():
    """The sum of the absolute products is the largest number that any order of additions reaches."""
    rng = np.random.default_rng(2)
    for similarity in ("cosine", "dot"):
        for vectors in (np.ones((3, 4096)), np.eye(5), rng.standard_normal((9, 300)) * 1e30, np.full((2, 7), 2.0**-20)):
            both = embeddings(vectors, vectors[::-1], similarity)
            assert (np.abs(both.whole_queries[:]) @ np.abs(both.whole_clips[:]).T).max() < 2**53


@settings(max_examples=60, deadline=None, database=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=1, max_size=12))
def test_small_whole_dot_products_are_exact(vectors):
    """Products of such numbers have ties, which ranks must see as ties."""
    both = embeddings(np.float32([[1, 2, -1], [0, 1, 3], [0, 0, 0]]), np.float32(vectors), "dot")
    expected = np.array([[1, 2, -1], [0, 1, 3], [0, 0, 0]], dtype=float) @ np.array(vectors, dtype=float).T
    truth = {query: {"c0"} for query in both.queries}
    matrix = Similarity(both.queries, both.file_names, expected)
    assert ranks(truth, both)[0].tolist() == ranks(truth, matrix)[0].tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int32])
def test_any_type_of_numbers(dtype):
    q, c = np.array([[1, 2]], dtype), np.array([[2, 4], [1, 0], [0, 1]], dtype)
    assert best_clips(embeddings(q, c), 3).file_names == (("c0", "c2", "c1"),)


# ------------------------------------------------------------------------------------------------ conventions


def test_ties_rank_the_relevant_clip_last():
    both = embeddings(np.ones((2, 4)), np.ones((9, 4)))
    truth = {"q0": {"c0"}, "q1": {"c3": 1.0, "c4": 2.0}}
    places, grades = ranks(truth, both)
    assert places.tolist() == [[9, np.inf], [8, 9]]
    assert grades.tolist() == [[1, 0], [1, 2]]


def test_unknown_and_missing_clips_and_extra_queries():
    both = embeddings(np.eye(3), np.eye(3))
    split = Split("evaluation", tuple(Clip(name, (), Path(name)) for name in ("c0", "c1", "x.wav")), {"q0": {"c1"}})
    score = evaluate(split, both, metrics=["MRR"])
    assert score.metrics["MRR"].estimate.value == 1 / 3  # the unknown clip c2 keeps its rank; equal scores are before
    assert [finding.message for finding in score.findings] == [
        "no clip 'c2' in this split; it counts as wrong",
        "no row for 1 of the split's 3 clips; they count as not found",
        "skipped queries that are not in the truth: 2",
    ]


BAD = np.array([[1.0, 0], [np.nan, 0], [0, 1]])


@pytest.mark.parametrize(
    ("queries", "clips", "similarity", "message"),
    [
        (BAD, np.ones((3, 2)), "cosine", "embeddings must be finite; 1 of 3 texts have NaN or infinity, or are too"),
        (np.ones((3, 2)), BAD, "dot", "embeddings must be finite; 1 of 3 clips have NaN or infinity, or are too large"),
        (np.ones((3, 2)), np.full((3, 2), 1e300), "dot", "embeddings must be finite; 3 of 3 clips have NaN"),
        (
            np.ones((3, 2)),
            np.eye(3)[:, :2],
            "cosine",
            "embeddings must not be zero, because zero has no cosine; 1 of 3",
        ),
    ],
)
def test_embeddings_without_a_similarity(queries, clips, similarity, message):
    split = Split("evaluation", tuple(Clip(name, (), Path(name)) for name in names(3, "c")), {"q0": {"c1"}})
    with pytest.raises(Faulty) as faulty:
        evaluate(split, embeddings(queries, clips, similarity), file="clap")
    (finding,) = [finding for finding in faulty.value.findings if finding.severity == ERROR]
    assert str(finding).startswith(f"clap: error: {message}")
    assert finding.message.count("for example '") == 1


def test_a_zero_embedding_has_dot_products():
    split = Split("evaluation", tuple(Clip(name, (), Path(name)) for name in names(3, "c")), {"q0": {"c1"}})
    score = evaluate(split, embeddings(np.ones((1, 2)), np.eye(3)[:, :2], "dot"), metrics=["MRR"])
    assert score.metrics["MRR"].estimate.value == 0.5


def test_a_clip_far_longer_than_the_others_is_a_warning():
    clips = np.ones((9, 2))
    clips[4] *= 5000
    split = Split("evaluation", tuple(Clip(name, (), Path(name)) for name in names(9, "c")), {"q0": {"c1"}})
    score = evaluate(split, embeddings(np.ones((1, 2)), clips, "dot"))
    (warning,) = [finding for finding in score.findings if finding.severity == WARNING]
    assert warning.message.startswith("the embedding of 'c4' is 5000 times as long as the median clip's; similarities")
    assert not evaluate(split, embeddings(np.ones((1, 2)), clips)).findings


@pytest.mark.parametrize(
    ("queries", "clips", "similarity", "message"),
    [
        ((2, 3), (4, 5), "cosine", r"must have the same width; found \(3, 5\)"),
        ((2, 3, 1), (4, 3), "cosine", r"query_vectors must have the shape \(n, d\) with n = 2; found \(2, 3, 1\)"),
        ((3, 3), (4, 3), "cosine", r"query_vectors must have the shape \(n, d\) with n = 2; found \(3, 3\)"),
        ((2, 3), (5, 3), "dot", r"clip_vectors must have the shape \(n, d\) with n = 4; found \(5, 3\)"),
        ((2, 3), (4, 3), "cos", "the similarity must be cosine or dot; found 'cos'"),
    ],
)
def test_arrays_that_do_not_fit(queries, clips, similarity, message):
    with pytest.raises(ValueError, match=message):
        Embeddings(names(2, "q"), names(4, "c"), np.ones(queries), np.ones(clips), similarity)


def test_repeated_rows():
    vectors = np.array([[1.0, 0], [0, 1], [1.00001, 0], [0, 1.1], [2, 2]])
    assert repeated_rows("abaac", vectors) == ([0, 1, 4], [(0, 3)])


# ------------------------------------------------------------------------------------------------ scores


def test_the_signature_names_similarity_and_direction():
    truth, both = problem(0)
    split = Split("evaluation", tuple(Clip(name, (), Path(name)) for name in both.file_names), truth)
    parts = evaluate(split, both).signature.split("|")
    assert "similarity:cosine-26-bits" in parts
    assert not any(part.startswith("direction") for part in parts)
    matrix = evaluate(split, exact(both))
    assert [part for part in parts if not part.startswith("similarity")] == matrix.signature.split("|")
    assert matrix.metrics == evaluate(split, both).metrics
    assert "direction:audio-to-text" in evaluate(split, both, direction=AUDIO_TO_TEXT).signature.split("|")


def test_ranks_are_those_of_torchmetrics():
    import torch
    from torchmetrics.functional import retrieval as measures

    rng = np.random.default_rng(5)
    both = embeddings(rng.standard_normal((20, 16)), rng.standard_normal((40, 16)))
    truth = {query: {f"c{index}"} for query, index in zip(both.queries, rng.integers(40, size=20), strict=True)}
    split = Split("evaluation", tuple(Clip(name, (), Path(name)) for name in both.file_names), truth)
    score = evaluate(split, both, metrics=["mAP@10", "R@5", "success@5", "MRR"])
    q, c = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (both.query_vectors, both.clip_vectors))
    for row, (query, scores) in enumerate(zip(both.queries, 1 + q @ c.T, strict=True)):  # it needs scores above 0
        target = torch.tensor([name in truth[query] for name in both.file_names])
        scores = torch.tensor(scores)
        expected = {
            "mAP@10": measures.retrieval_average_precision(scores, target, top_k=10),
            "R@5": measures.retrieval_recall(scores, target, top_k=5),
            "success@5": measures.retrieval_hit_rate(scores, target, top_k=5),
            "MRR": measures.retrieval_reciprocal_rank(scores, target),
        }
        for name, value in expected.items():
            assert score.metrics[name].values[row] == pytest.approx(float(value), abs=1e-6)


def test_many_clips_on_disk_take_little_memory(tmp_path):
    """All similarities would take 480 MB, and the embeddings 51 MB."""
    rng = np.random.default_rng(0)
    clips = np.lib.format.open_memmap(tmp_path / "clips.npy", "w+", np.float32, (200_000, 64))
    for start in range(0, len(clips), 20_000):
        clips[start : start + 20_000] = rng.standard_normal((20_000, 64), np.float32)
    clips.flush()
    q = np.array(clips[:300]) + rng.standard_normal((300, 64), np.float32)
    both = Embeddings(names(300, "q"), names(200_000, "c"), q, np.load(tmp_path / "clips.npy", mmap_mode="r"))
    truth = {f"q{index}": {f"c{index}"} for index in range(300)}
    tracemalloc.start()
    places, _ = ranks(truth, both)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120e6
    q, c = (part / lengths(part)[:, None] for part in (q, both.clip_vectors))
    for index in range(0, 300, 50):
        scores = c @ q[index]
        assert places[index, 0] == (scores >= scores[index]).sum()


def test_the_lengths_are_rounded_once():
    assert lengths(np.float32([[3, 4]])).tolist() == [5]
    assert Fraction(lengths(np.float32([[1e-30, 0]]))[0]) == Fraction(float(np.float32(1e-30)))
