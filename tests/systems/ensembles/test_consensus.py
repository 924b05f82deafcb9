"""The caption that agrees best with those of the other runs."""

import numpy as np

from evaluation import predictions
from evaluation.metrics import captioning
from systems.ensembles import consensus
from tests.systems.ensembles.made import combine, write_captions


def test_the_chosen_caption_agrees_best_with_the_others():
    """The choice equals a plain loop over clips, candidates and other candidates."""
    rng = np.random.default_rng(0)
    similar, runs, clips = rng.uniform(size=(4, 4, 30)), 4, 30
    given = [0.1, 0.2, 0.3, 0.4]
    expected = []
    for clip in range(clips):
        agreement = []
        for run in range(runs):
            others = [other for other in range(runs) if other != run]
            agreement.append(sum(given[other] * similar[run, other, clip] for other in others))
        expected.append(agreement.index(max(agreement)))
    assert consensus.choose(similar, given).tolist() == expected


def test_pairs_of_captions_have_the_cider_d_that_scoring_gives(data, tmp_path):
    split = data.splits["evaluation"]
    one = ["a dog barks in the rain", "birds sing", "an engine starts"]
    other = ["a dog barks loudly in the rain", "birds are singing", "a car starts its engine"]
    names = sorted(split.file_names)
    similar = consensus.cider_similarities([one, other], tmp_path)
    references = {name: [text] for name, text in zip(names, other, strict=True)}
    score = captioning.evaluate(dict(zip(names, one, strict=True)), references, metrics=["cider_d"], cache=tmp_path)
    np.testing.assert_allclose(similar[0, 1], score.metrics["cider_d"].values, atol=1e-12)
    assert not similar[0, 0].any()


def test_bert_score_compares_each_pair_of_candidates_once(monkeypatch, tmp_path):
    compared = []

    def score(captions, references):
        compared.extend(zip(captions, references, strict=True))
        return np.array([len(caption) + len(text) for caption, (text,) in zip(captions, references, strict=True)])

    monkeypatch.setattr(consensus.bert_score, "bert_score", score)
    similar = consensus.bert_similarities([["a", "b"], ["aa", "b"], ["aa", "bbb"]], tmp_path)
    assert compared == [("a", ["aa"]), ("b", ["b"]), ("b", ["bbb"]), ("aa", ["aa"])]
    assert similar[:, :, 0].tolist() == [[0, 3, 3], [3, 0, 4], [3, 4, 0]]
    assert similar[:, :, 1].tolist() == [[0, 2, 4], [2, 0, 4], [4, 4, 0]]


def test_captions_on_which_most_runs_agree_are_chosen(data, tmp_path):
    rain, birds, noise = "rain falls on a roof", "birds sing in a tree", "a machine hums"
    runs = [
        write_captions(tmp_path / "a", data, [noise, birds, "rain falls on the roof"]),
        write_captions(tmp_path / "b", data, [rain, "birds sing in the tree", rain]),
        write_captions(tmp_path / "c", data, ["rain falls on the roof", noise, noise]),
    ]
    assert combine(*runs, "--run", tmp_path / "out", "--cache", tmp_path / "cache") == 0
    chosen = predictions.read_captions(tmp_path / "out" / "predictions" / "evaluation.csv")
    assert chosen.captions[0].startswith("rain")
    assert chosen.captions[1].startswith("birds")
    assert chosen.captions[2].startswith("rain")


def test_a_consensus_needs_three_runs(data, tmp_path, capsys):
    runs = [write_captions(tmp_path / name, data, ["a", "b", "c"]) for name in "ab"]
    assert combine(*runs, "--run", tmp_path / "out") == 2
    assert "a consensus of captions must have 3 runs or more; found 2: add runs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
