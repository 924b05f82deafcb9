"""The choice among candidates, compared with plain loops."""

import numpy as np
import pytest

from evaluation.data.dataset import Clip, Split
from evaluation.findings import BadRequest
from evaluation.metrics import captioning
from systems.ensembles import consensus
from systems.reranking import choice
from systems.reranking.candidates import Candidates

RNG = np.random.default_rng(0)
NUMBERS = [4, 1, 3, 5, 2, 4, 3, 6]  # of candidates of each clip


def values():
    return [RNG.normal(size=number) for number in NUMBERS]


def test_the_fitted_weight_is_the_best_of_all_that_are_tried():
    for _ in range(20):
        words, similar, measured = values(), values(), values()
        means = {}
        for weight in np.linspace(0, 1, 11):
            total = 0.0
            for of_words, of_sounds, of_metric in zip(words, similar, measured, strict=True):
                ranks = [(1 - weight) * one + weight * other for one, other in zip(of_words, of_sounds, strict=True)]
                total += of_metric[ranks.index(max(ranks))]
            means[weight] = total / len(NUMBERS)
        found = choice.fit_weight(words, similar, measured)
        chosen = choice.choose(words, similar, found)
        value = np.mean([of_clip[index] for of_clip, index in zip(measured, chosen, strict=True)])
        assert value == pytest.approx(max(means.values()))


def test_comparable_values_have_the_mean_0_and_one_scale():
    found = choice.comparable([np.array([1.0, 3.0]), np.array([10.0]), np.array([4.0, 4.0, 4.0])])
    scale = np.sqrt(2 / 6)
    np.testing.assert_allclose(np.concatenate(found), [-1 / scale, 1 / scale, 0, 0, 0, 0])
    assert not np.concatenate(choice.comparable([np.ones(2), np.ones(3)])).any()


def test_log_probabilities_are_divided_by_words_and_end():
    candidates = Candidates.of(["a.wav"], [[("a dog barks", -2.0), ("rain", -1.0)]])
    np.testing.assert_allclose(choice.word_log_probabilities(candidates)[0], [-0.5, -0.5])


def test_candidates_have_the_cider_d_that_scoring_gives(tmp_path):
    references = [("A dog barks.", "a dog"), ("Rain falls.",), ("Birds sing, it rains.", "birds")]
    split = Split("validation", tuple(Clip(f"{row}.wav", texts, None) for row, texts in enumerate(references)))
    texts = [["a dog barks", "a dog", "rain", "a dog"], ["rain falls"], ["birds sing", "rain"]]
    candidates = Candidates.of(split.file_names, [[(text, -1.0) for text in of_clip] for of_clip in texts])
    found = choice.metric_values(candidates, split, "cider_d", tmp_path)
    for chosen in ([0, 0, 0], [1, 0, 1], [2, 0, 1], [3, 0, 1]):
        captions, _ = candidates.chosen(chosen)
        prediction = dict(zip(split.file_names, captions, strict=True))
        score = captioning.evaluate(prediction, split, metrics=["cider_d"], cache=tmp_path)
        expected = [of_clip[index] for of_clip, index in zip(found, chosen, strict=True)]
        np.testing.assert_allclose(score.metrics["cider_d"].values, expected, atol=1e-12)


def test_the_candidate_that_agrees_best_is_chosen(tmp_path, monkeypatch):
    def shared_words(candidates, cache):
        sets = [[set(text.split()) for text in captions] for captions in candidates]
        return np.array([[[len(a & b) for a, b in zip(one, other, strict=True)] for other in sets] for one in sets])

    monkeypatch.setitem(consensus.MEASURES, "cider_d", shared_words)
    scored = [[("a dog", -1), ("a dog barks", -2), ("dog barks", -3)], [("rain", -1), ("birds", -2), ("birds", -2)]]
    candidates = Candidates.of(["a.wav", "b.wav"], scored)
    assert choice.agreeing(candidates, "cider_d", tmp_path) == [1, 1]
    with pytest.raises(BadRequest, match="all clips must have the same number of candidates; found 2 to 3"):
        choice.agreeing(Candidates.of(["a.wav", "b.wav"], [scored[0], scored[1][:2]]), "cider_d", tmp_path)
