"""The human topline is the mean over references that are scored against the others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.data.dataset import Clip, Split
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import captioning, word_overlap
from evaluation.metrics.topline import human_topline
from evaluation.predictions import Captions
from evaluation.statistics import comparison

REFERENCES = (
    ("A dog barks.", "A dog is barking loudly.", "Barking of a dog."),
    ("Rain falls on a roof.", "It rains on a roof.", "Rain on a tin roof."),
    ("A man speaks, and a crowd cheers.", "Somebody talks to people.", "People cheer while a man talks."),
    ("Water runs.", "A tap is running.", "Water runs from a tap.", "A fourth caption."),
)
NAMES = ("d.wav", " a.wav", "c.wav", "b.wav")  # not in alphabetical order
SPLIT = Split("evaluation", tuple(Clip(name, texts, Path(name)) for name, texts in zip(NAMES, REFERENCES, strict=True)))
METRICS = ("cider_d", "bleu_2", "rouge_l", "vocab")
TOKENS = captioning.TOKENIZED  # the captions are scored as they are, which takes no Java


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folds(cache):
    """The scores of each reference against the others, scored like the prediction of a system."""
    scores = []
    for number in range(3):
        clips = []
        for clip in SPLIT.clips:
            others = tuple(text for index, text in enumerate(clip.captions) if index != number)
            clips.append(replace(clip, captions=others))
        prediction = Captions(NAMES, tuple(clip.captions[number] for clip in SPLIT.clips))
        scores.append(captioning.evaluate(prediction, Split("evaluation", tuple(clips)), metrics=METRICS, cache=cache))
    return scores


def test_it_is_the_mean_over_the_references(cache, folds):
    score = human_topline(SPLIT, metrics=METRICS, cache=cache)
    assert score.items.names == NAMES
    for name in METRICS:
        expected = np.mean([fold.metrics[name].estimate.value for fold in folds])
        assert score.metrics[name].estimate.value == pytest.approx(expected, abs=1e-12)
    for name in METRICS[:3]:
        expected = np.mean([fold.metrics[name].values for fold in folds], axis=0)
        assert score.metrics[name].values == pytest.approx(expected, abs=1e-12)
        assert score.metrics[name].estimate.std_error == pytest.approx(expected.std(ddof=1) / 2, abs=1e-12)
    assert score.metrics["vocab"].values is None


def test_bleu_is_a_mean_of_corpus_scores_by_hand(cache):
    tokenized = human_topline(SPLIT, metrics=["bleu_1"], tokenized=TOKENS, cache=cache)
    values = []
    for number in range(3):
        captions = [texts[number] for texts in REFERENCES]
        others = [[text for index, text in enumerate(texts) if index != number] for texts in REFERENCES]
        values.append(word_overlap.bleu(word_overlap.bleu_statistics(captions, others).sum(axis=0), 1))
    assert tokenized.metrics["bleu_1"].estimate.value == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize("interval", ["jackknife-t", "bootstrap", "bootstrap-bca"])
def test_all_intervals(cache, interval):
    score = human_topline(SPLIT, metrics=["bleu_2", "rouge_l"], tokenized=TOKENS, interval=interval, cache=cache)
    for measured in score.metrics.values():
        assert measured.estimate.low < measured.estimate.value < measured.estimate.high
        assert measured.estimate.interval.startswith(f"{interval}-95")
    assert f"|interval:{interval}-95" in score.signature


def test_weights_that_are_computed_again(cache):
    fixed = human_topline(SPLIT, metrics=["cider_d"], tokenized=TOKENS, idf="fixed", cache=cache)
    exact = human_topline(SPLIT, metrics=["cider_d"], tokenized=TOKENS, idf="exact", cache=cache)
    one, other = fixed.metrics["cider_d"].estimate, exact.metrics["cider_d"].estimate
    assert one.value == pytest.approx(other.value)
    assert one.std_error != pytest.approx(other.std_error)


def test_it_is_not_compared_with_a_system(cache):
    human = human_topline(SPLIT, metrics=["rouge_l"], tokenized=TOKENS, cache=cache)
    assert f"split:evaluation#{SPLIT.fingerprint}|clips:4|references:2-3|" in human.signature
    assert human.signature.endswith("|topline:mean-over-3-references-as-predictions")
    prediction = Captions(NAMES, ("A dog.",) * 4)
    system = captioning.evaluate(prediction, SPLIT, metrics=["rouge_l"], tokenized=TOKENS, cache=cache)
    with pytest.raises(Faulty, match="references: error: must be '2-3' as in human; found '3-4'"):
        comparison.compare({"human": human, "system": system})


def test_what_is_refused(cache):
    single = Split("evaluation", (*SPLIT.clips[1:], replace(SPLIT.clips[0], captions=("A dog.",))))
    with pytest.raises(BadRequest, match="every clip of the split evaluation must have two captions or more for the"):
        human_topline(single, cache=cache)
    with pytest.raises(BadRequest, match="--tokenized must be both for it; found references"):
        human_topline(SPLIT, tokenized=["references"], cache=cache)
    with pytest.raises(BadRequest, match="unknown metric 'cider'"):
        human_topline(SPLIT, metrics=["cider"], cache=cache)
