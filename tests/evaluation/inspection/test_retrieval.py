import numpy as np
import pytest

from evaluation.findings import BadRequest
from evaluation.inspection.content import check_content
from evaluation.inspection.retrieval import RIGHT, UNANNOTATED, WRONG, collect_queries
from evaluation.metrics import retrieval
from evaluation.predictions import Ranking, Similarity
from tests.evaluation.inspection.small_pages import NAMES, split_of, write_data


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return split_of(write_data(tmp_path_factory.mktemp("data") / "data", sound=False))


def collect(split, prediction, k=10):
    score = retrieval.evaluate(split, prediction)
    return collect_queries(split, split.truth, {"one": (prediction, score)}, k).systems[0]


def test_ranks_are_those_of_the_metrics(split):
    """Scores with many ties, and clips in another order than the split's."""
    names = NAMES[::-1]
    scores = np.random.default_rng(0).integers(0, 3, (len(split.queries), len(names)))
    prediction = Similarity(split.queries, names, scores)
    answers = collect(split, prediction, k=2)
    expected = retrieval.ranks(split.truth, prediction)[0][:, 0]
    assert answers.first_ranks().tolist() == expected.tolist()
    for hits, rank in zip(answers.hits, expected, strict=True):
        assert [hit.mark == RIGHT for hit in hits] == [rank == 1, rank == 2]
        assert all(split.file_names[hit.clip] == hit.name for hit in hits)


def test_a_wrong_clip_with_a_close_caption_is_marked(split):
    lists = dict.fromkeys(split.queries, NAMES)
    answers = collect(split, Ranking(tuple(lists), tuple(lists.values())))
    hits = answers.hits[split.queries.index("A small dog barks twice.")]
    assert [hit.mark for hit in hits] == [RIGHT, WRONG, WRONG, UNANNOTATED]
    assert hits[3].caption == 0
    assert hits[3].similarity > 0.5
    assert hits[0].score is None


def test_repeated_and_unknown_clips_of_a_list_are_wrong(split):
    ranked = ("no.wav", "dog.wav", "dog.wav")
    answers = collect(split, Ranking(split.queries, (ranked,) * len(split.queries)))
    assert [(hit.clip, hit.mark) for hit in answers.hits[0]] == [(None, WRONG), (0, RIGHT), (0, WRONG)]
    assert answers.ranks[0] == [2]
    assert answers.ranks[2] == [None]
    assert answers.first_ranks()[2] == np.inf


def test_a_metric_with_a_value_for_each_item_is_needed(split):
    prediction = Similarity(split.queries, NAMES, np.zeros((len(split.queries), len(NAMES))))
    score = retrieval.evaluate(split, prediction, metrics=["medR", "R@1"])
    content = collect_queries(split, split.truth, {"one": (prediction, score)})
    assert content.item_metrics(score) == ["R@1"]
    score = retrieval.evaluate(split, prediction, metrics=["medR"])
    with pytest.raises(BadRequest, match="value for each of the queries; found medR"):
        check_content(collect_queries(split, split.truth, {"one": (prediction, score)}))
