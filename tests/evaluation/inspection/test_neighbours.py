import numpy as np
import pytest

from evaluation.inspection.neighbours import BLOCK, CaptionSimilarity

CAPTIONS = [["A dog barks.", "Rain falls."], [], ["The rain is falling on a roof."]]
QUERIES = ["Rain falls.", "Zither"]


def closest(captions, queries, clips):
    similarity, caption = CaptionSimilarity(captions, QUERIES).closest(np.array(queries), np.array(clips))
    return similarity.tolist(), caption.tolist()


def test_the_closest_caption_of_each_clip():
    similarity, caption = closest(CAPTIONS, [0, 0, 0, 1], [0, 1, 2, 0])
    assert similarity == pytest.approx([1, 0, similarity[2], 0])
    assert 0.2 < similarity[2] < 0.8
    assert caption == [1, 0, 0, 0]


def test_the_result_does_not_depend_on_blocks(monkeypatch):
    whole = closest(CAPTIONS, [0, 1, 0, 1], [2, 2, 0, 1])
    monkeypatch.setattr("evaluation.inspection.neighbours.BLOCK", 2)
    assert closest(CAPTIONS, [0, 1, 0, 1], [2, 2, 0, 1]) == whole
    assert BLOCK > 2


@pytest.mark.parametrize("captions", [[[], []], [["the", "of"], ["?"]]])
def test_captions_without_words_are_not_similar(captions):
    assert closest(captions, [0, 1], [1, 0]) == ([0, 0], [0, 0])


def test_no_pairs():
    assert closest(CAPTIONS, np.zeros(0, int), np.zeros(0, int)) == ([], [])
