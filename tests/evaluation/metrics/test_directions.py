"""Audio-to-text retrieval: the clip is the query, its texts are relevant, and all conventions hold."""

import csv
from pathlib import Path

import numpy as np
import pytest

from evaluation.data.dataset import Clip, Split
from evaluation.embeddings import Embeddings
from evaluation.findings import NOTE, BadRequest, Faulty
from evaluation.metrics.retrieval import AUDIO_TO_TEXT, DEFAULT_METRICS, best_clips, evaluate, ranks, reversed_truth
from evaluation.predictions import Ranking, Similarity, read_retrieval

CLIPS = tuple(f"{letter}.wav" for letter in "abcdefgh")
CAPTIONS = {clip: tuple(f"{clip}, caption {number}." for number in range(5)) for clip in CLIPS}


def split_of(captions=CAPTIONS, relevance=None) -> Split:
    return Split("evaluation", tuple(Clip(name, texts, Path(name)) for name, texts in captions.items()), relevance)


SPLIT = split_of()
TEXTS = SPLIT.all_captions


def vectors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return unit embeddings of the clips and of their captions, which are near them."""
    rng = np.random.default_rng(seed)
    clips = rng.standard_normal((8, 16))
    texts = np.repeat(clips, 5, axis=0) + 2 * rng.standard_normal((40, 16))
    return tuple(part / np.linalg.norm(part, axis=1, keepdims=True) for part in (clips, texts))


def matrix(seed: int = 0) -> Similarity:
    clips, texts = vectors(seed)
    return Similarity(TEXTS, CLIPS, texts @ clips.T)


def clap(similarity: np.ndarray) -> dict[str, float]:
    """Return the metrics of LAION-CLAP's evaluation: `similarity` is (clips, captions), five captions for each clip."""
    firsts, precisions = [], []
    for clip, scores in enumerate(similarity):
        order = np.argsort(-scores).tolist()
        places = sorted(order.index(caption) for caption in range(5 * clip, 5 * clip + 5))
        firsts.append(places[0])
        in_ten = [(number + 1) / (place + 1) for number, place in enumerate(places) if place < 10]
        precisions.append(sum(in_ten) / 5)
    firsts = np.array(firsts)
    return {"mAP@10": np.mean(precisions), **{f"success@{k}": np.mean(firsts < k) for k in (1, 5, 10)}}


@pytest.mark.parametrize("seed", range(5))
def test_the_recall_of_clap_is_success(seed):
    clips, texts = vectors(seed)
    score = evaluate(SPLIT, matrix(seed), direction=AUDIO_TO_TEXT)
    for name, value in clap(clips @ texts.T).items():
        assert score.metrics[name].estimate.value == pytest.approx(value, abs=1e-12)
    assert tuple(score.metrics) == DEFAULT_METRICS[AUDIO_TO_TEXT]
    assert [finding.message for finding in score.findings] == [
        "R@k is the share of a clip's relevant texts among the first k; papers on CLAP call success@k R@k"
    ]


def test_recall_is_the_share_of_the_captions():
    scores = np.zeros((40, 8))
    scores[[0, 1, 5], 0] = [3, 1, 2]  # of a.wav's captions, one is first and one is third
    score = evaluate(
        SPLIT, Similarity(TEXTS, CLIPS, scores), metrics=["R@1", "R@3", "success@1"], direction=AUDIO_TO_TEXT
    )
    assert [score.metrics[name].values[0] for name in ("R@1", "R@3", "success@1")] == [1 / 5, 2 / 5, 1]


def test_every_form_of_prediction_scores_alike(tmp_path):
    clips, texts = vectors()
    both = Embeddings(TEXTS, CLIPS, texts, clips)
    lists = best_clips(matrix().reversed(), 40)
    best_clips(both.reversed(), 40).save(tmp_path / "best.csv", ("file_name", "caption"))
    expected = evaluate(SPLIT, matrix(), direction=AUDIO_TO_TEXT)
    for prediction in (both, lists, read_retrieval(tmp_path / "best.csv")):
        score = evaluate(SPLIT, prediction, direction=AUDIO_TO_TEXT)
        assert score.metrics == expected.metrics
        for name in score.metrics:
            assert score.metrics[name].values.tolist() == expected.metrics[name].values.tolist()
    with (tmp_path / "best.csv").open(newline="") as file:
        assert next(csv.reader(file))[:3] == ["file_name", "caption_1", "caption_2"]


def test_items_are_the_clips_and_each_is_a_group():
    score = evaluate(SPLIT, matrix(), direction=AUDIO_TO_TEXT)
    assert (score.items.kind, score.items.names, score.items.groups) == ("clips", CLIPS, tuple(range(8)))
    assert all(measured.by_clip is None for measured in score.metrics.values())
    parts = score.signature.split("|")
    assert {"queries:8", "texts:40", "relevant:5-5", "direction:audio-to-text"} <= {*parts}
    other = evaluate(SPLIT, matrix()).signature.split("|")
    assert {"queries:40", "clips:8", "relevant:1-1"} <= {*other}


def test_clips_that_share_a_caption_are_one_group():
    captions = {**CAPTIONS, "b.wav": ("a.wav, caption 0.", "b"), "d.wav": ("b", "d")}
    split = split_of(captions)
    texts = tuple(split.captions)
    score = evaluate(split, Similarity(texts, CLIPS, np.zeros((len(texts), 8))), direction=AUDIO_TO_TEXT)
    groups = dict(zip(score.items.names, score.items.groups, strict=True))
    assert groups["a.wav"] == groups["b.wav"] == groups["d.wav"]  # a chain of shared captions connects them
    assert len({*groups.values()}) == 6
    assert score.metrics["mAP@10"].by_clip is not None


def test_the_truth_is_reversed_with_its_grades():
    truth = {"x": {"a.wav": 2.0, "b.wav": 0.5}, "y": frozenset(["b.wav"]), "z": {"c.wav": 0.0, "a.wav": 1.0}}
    assert reversed_truth(truth) == {"a.wav": {"x": 2.0, "z": 1.0}, "b.wav": {"x": 0.5, "y": 1.0}}
    scores = np.array([[3, 1, 0], [2, 2, 0], [1, 3, 0]])
    places, grades = ranks(reversed_truth(truth), Similarity(("x", "y", "z"), CLIPS[:3], scores).reversed())
    assert places.tolist() == [[1, 3], [2, 3]]
    assert grades.tolist() == [[2, 1], [1, 0.5]]


def test_ties_rank_the_relevant_texts_last():
    score = evaluate(SPLIT, Similarity(TEXTS, CLIPS, np.ones((40, 8))), metrics=["MRR"], direction=AUDIO_TO_TEXT)
    assert score.metrics["MRR"].values.tolist() == [1 / 36] * 8


def test_chance_is_that_of_random_rankings():
    score = evaluate(SPLIT, matrix(), metrics=["R@4", "success@1"], direction=AUDIO_TO_TEXT)
    assert score.metrics["R@4"].chance == pytest.approx(4 / 40)
    assert score.metrics["success@1"].chance == pytest.approx(5 / 40)


def test_texts_outside_the_truth_are_left_out():
    some = {text: SPLIT.captions[text] for text in TEXTS[:15]}
    score = evaluate(SPLIT, matrix(), relevance=some, direction=AUDIO_TO_TEXT)
    few = Similarity(TEXTS[:15], CLIPS, matrix().scores[:15])
    assert score.metrics == evaluate(SPLIT, few, relevance=some, direction=AUDIO_TO_TEXT).metrics
    clips, texts = vectors()
    assert (
        score.metrics
        == evaluate(SPLIT, Embeddings(TEXTS, CLIPS, texts, clips), relevance=some, direction=AUDIO_TO_TEXT).metrics
    )
    assert score.items.names == CLIPS[:3]
    assert "skipped queries that are not in the truth: 25" in [finding.message for finding in score.findings]


def lists(names=CLIPS, texts=TEXTS) -> Ranking:
    return Ranking(tuple(names), tuple(tuple(texts) for _ in names), tuple(range(2, 2 + len(names))))


BAD = {
    "clip without scores": (
        Similarity(TEXTS, CLIPS[1:], np.ones((40, 7))),
        "error: must have all clips that are queries; 1 of 8 are missing, for example 'a.wav'; add them",
    ),
    "text without scores": (
        Similarity(TEXTS[1:], CLIPS, np.ones((39, 8))),
        "error: query 'a.wav, caption 0.' is missing",
    ),
    "list that is missing": (lists(CLIPS[1:]), "error: query 'a.wav' is missing"),
    "list of another direction": (
        Ranking(TEXTS, (CLIPS,) * 40),
        "error: answers none of the 8 queries; is this the prediction of another split or data set?",
    ),
    "clip in lists": (lists(texts=CLIPS), "error: names none of the split's 40 texts; found 'a.wav'"),
    "clip twice": (lists([*CLIPS, "a.wav"]), "10: error: query 'a.wav' appears twice; give each query once"),
}


@pytest.mark.parametrize("case", BAD)
def test_predictions_that_are_refused(case):
    prediction, message = BAD[case]
    with pytest.raises(Faulty) as faulty:
        evaluate(SPLIT, prediction, direction=AUDIO_TO_TEXT, file="p")
    assert str(faulty.value).splitlines()[0].removeprefix("p:").strip().startswith(message)


def test_unknown_and_repeated_texts_never_help():
    good = ("a.wav, caption 0.", "a.wav, caption 1.")
    prediction = Ranking(
        CLIPS, (("x", good[0], good[0], good[1]), *(("x",) * 1 for _ in CLIPS[1:])), tuple(range(2, 10))
    )
    score = evaluate(SPLIT, prediction, metrics=["R@3", "success@2", "MRR"], direction=AUDIO_TO_TEXT)
    assert [score.metrics[name].values[0] for name in ("R@3", "success@2", "MRR")] == [1 / 5, 1, 1 / 2]
    messages = [finding.message for finding in score.findings]
    assert "no text 'x' in this split; it counts as wrong" in messages
    assert "given more than once: 'a.wav, caption 0.'; only the first counts" in messages
    assert sum("texts that are not in a list count as not found" in message for message in messages) == 1
    assert any(finding.severity == NOTE for finding in score.findings)


def test_unknown_direction():
    with pytest.raises(
        BadRequest, match=r"unknown direction 'audio'; did you mean 'audio-to-text'\? there are: text-to"
    ):
        evaluate(SPLIT, matrix(), direction="audio")
