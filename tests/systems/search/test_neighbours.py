"""The index of faiss finds nearly all of the best clips, and is built again if its file is damaged."""

import sys
from unittest import mock

import numpy as np
import pytest

from evaluation.findings import BadRequest
from evaluation.metrics.retrieval import top_k
from systems.search.neighbours import Neighbours

SIZE = 16


@pytest.fixture
def embeddings():
    values = np.random.default_rng(0).normal(size=(2000, SIZE)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_most_of_the_best_clips_are_found(embeddings, tmp_path):
    pytest.importorskip("faiss")
    queries = embeddings[:50] + np.float32(0.1)
    indices, scores = Neighbours(embeddings, tmp_path).search(queries, 10)
    exact, _ = top_k(queries, embeddings, 10)
    shared = [len(set(one) & set(other)) for one, other in zip(indices.tolist(), exact.tolist(), strict=True)]
    assert np.mean(shared) > 9
    assert (np.diff(scores, axis=1) <= 0).all()


def test_the_index_is_built_once_unless_it_is_damaged(embeddings, tmp_path):
    faiss = pytest.importorskip("faiss")
    Neighbours(embeddings, tmp_path)
    (file,) = tmp_path.glob("*.faiss")
    whole = file.read_bytes()
    for content, is_built in [
        (whole, False),
        (whole[:-100], True),
        (whole[:900] + b"x" + whole[901:], True),
        (b"", True),
    ]:
        file.write_bytes(content)
        with mock.patch.object(faiss, "IndexHNSWFlat", side_effect=faiss.IndexHNSWFlat) as build:
            indices, _ = Neighbours(embeddings, tmp_path).search(embeddings[:1], 3)
        assert build.called == is_built
        assert indices[0, 0] == 0
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_without_faiss_there_is_one_clear_line(embeddings, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BadRequest, match="faiss must be installed for --index faiss; install faiss-cpu, or leave out"):
        Neighbours(embeddings, tmp_path)
