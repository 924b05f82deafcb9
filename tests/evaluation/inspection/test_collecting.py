import numpy as np
import pytest

from evaluation.findings import BadRequest
from evaluation.inspection import collecting
from evaluation.inspection.collecting import RIGHT, UNANNOTATED, WRONG
from evaluation.metrics import retrieval
from evaluation.predictions import Ranking, Similarity, read_captions
from tests.evaluation.inspection.small_pages import NAMES, split_of, write_data, write_predictions


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return split_of(write_data(tmp_path_factory.mktemp("data") / "data", sound=False))


def collect(split, prediction, k=10):
    score = retrieval.evaluate(split, prediction)
    return collecting.collect_queries(split, split.truth, {"one": (prediction, score)}, k).systems[0]


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


def test_captions_are_in_the_order_of_the_split(split, tmp_path):
    path = write_predictions(tmp_path / "p.csv", split.source.parent, "A cat.")
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], *lines[:0:-1]]), encoding="utf-8")
    content = collecting.collect_descriptions(split, {"one": (path, read_captions(path), None)})
    assert content.systems[0].captions[0] == "A cat."
    assert content.systems[0].log_probabilities == [-1.5, -2.5, -3.5, -4.5]


def test_captions_without_log_probabilities(split, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("file_name,caption_predicted\n" + "".join(f"{name},Rain.\n" for name in NAMES), encoding="utf-8")
    content = collecting.collect_descriptions(split, {"one": (path, read_captions(path), None)})
    assert content.systems[0].log_probabilities is None


def test_a_metric_with_a_value_for_each_item_is_needed(split):
    prediction = Similarity(split.queries, NAMES, np.zeros((len(split.queries), len(NAMES))))
    assert collecting.item_metrics(retrieval.evaluate(split, prediction, metrics=["medR", "R@1"])) == ["R@1"]
    with pytest.raises(BadRequest, match="value for each of the queries; found medR"):
        collecting.item_metrics(retrieval.evaluate(split, prediction, metrics=["medR"]))
