"""Ensembles: similarity matrices and captions of several runs become the predictions of a new run."""

import itertools

import numpy as np
import pytest
import yaml

from evaluation import predictions
from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from evaluation.findings import Faulty
from evaluation.metrics import captioning, retrieval
from evaluation.predictions import Similarity
from systems.__main__ import parser
from systems.ensembles import consensus, matrices, weights

SYSTEM = {
    "description": {"audio_modelling": "CRNN", "optimizer": "Adam", "learning_rate": 0.1, "ensemble": False},
    "complexity": {"total_parameters": 10, "trainable_parameters": 4},
}


@pytest.fixture
def data(clotho_like):
    """A data folder with three clips and fifteen queries in each split."""
    return read_dataset(clotho_like(), "validation", "evaluation", sound=False)


def make_run(folder, seed, data, splits=("validation", "evaluation"), **system):
    """Write a run folder with random similarities for some splits."""
    folder.mkdir(parents=True)
    config = {"system": "systems.atae", "seed": seed, "data": {"development": "1234", "validation": str(seed // 2)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "system.yaml").write_text(yaml.safe_dump({**SYSTEM, "description": SYSTEM["description"] | system}))
    rng = np.random.default_rng(seed)
    for name in splits:
        split = data.splits[name]
        scores = rng.normal(seed, 1 + seed, (len(split.queries), len(split.clips)))
        Similarity(split.queries, split.file_names, scores).save(folder / "predictions" / f"{name}.npz")
    return folder


def write_captions(folder, data, texts):
    """Write a run folder whose captions for the clips of the evaluation split are given."""
    make_run(folder, 0, data, splits=())
    names = data.splits["evaluation"].file_names
    predictions.write_captions(folder / "predictions" / "evaluation.csv", names, texts)
    return folder


def combine(*words):
    return command(parser(), ["ensemble", *map(str, words)])


# Retrieval ------------------------------------------------------------------------------------------------------------


def test_the_similarities_are_the_mean_of_those_of_the_runs(data, tmp_path, capsys):
    runs = [make_run(tmp_path / name, seed, data) for seed, name in enumerate("abc")]
    assert combine(*runs, "--run", tmp_path / "out") == 0
    assert "0.333" in capsys.readouterr().out
    for split in ("validation", "evaluation"):
        members = [Similarity.load(run / "predictions" / f"{split}.npz") for run in runs]
        mean = np.mean([member.scores for member in members], axis=0)
        made = Similarity.load(tmp_path / "out" / "predictions" / f"{split}.npz")
        assert (made.queries, made.file_names) == (members[0].queries, members[0].file_names)
        np.testing.assert_allclose(made.scores, mean, rtol=1e-5, atol=1e-5)


def test_weights_and_standardised_scores(data, tmp_path):
    runs = [make_run(tmp_path / name, seed, data) for seed, name in enumerate("ab")]
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump({str(runs[0]): 3, str(runs[1]): 1}))
    options = ["--weights", tmp_path / "weights.yaml", "--standardise"]
    assert combine(*runs, "--run", tmp_path / "out", *options) == 0
    scores = [Similarity.load(run / "predictions" / "evaluation.npz").scores for run in runs]
    first, second = ((score - score.mean()) / score.std() for score in scores)
    made = Similarity.load(tmp_path / "out" / "predictions" / "evaluation.npz").scores
    np.testing.assert_allclose(made, 0.75 * first + 0.25 * second, rtol=1e-4, atol=1e-5)


def test_equal_scores_become_zero():
    assert not matrices.standardised(np.full((2, 3), 5, np.float32)).any()


def test_the_order_of_queries_and_clips_does_not_matter(data, tmp_path):
    runs = [make_run(tmp_path / name, seed, data, splits=["evaluation"]) for seed, name in enumerate("ab")]
    assert combine(*runs, "--run", tmp_path / "out") == 0
    file = runs[1] / "predictions" / "evaluation.npz"
    whole = Similarity.load(file)
    Similarity(whole.queries[::-1], whole.file_names[::-1], whole.scores[::-1, ::-1]).save(file)
    assert combine(*runs, "--run", tmp_path / "again") == 0
    one, other = (Similarity.load(tmp_path / name / "predictions" / "evaluation.npz") for name in ("out", "again"))
    assert (one.file_names, one.scores.tolist()) == (other.file_names, other.scores.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_a_search_equals_brute_force_for_two_runs(seed, data):
    split = data.splits["validation"]
    rng = np.random.default_rng(seed)
    members = []
    for _ in range(2):
        scores = rng.normal(size=(len(split.queries), len(split.clips))).astype(np.float32)
        members.append(Similarity(split.queries, split.file_names, scores))

    def objective(tried):
        score = retrieval.evaluate(split, matrices.weighted_mean(members, tried), metrics=["mAP@10"])
        return score.metrics["mAP@10"].estimate.value

    brute_force = max(objective([1 - share, share]) for share in weights.SHARES)
    assert objective(weights.search(objective, 2)) == brute_force


def test_a_search_equals_brute_force_for_a_smooth_objective():
    """Coordinate ascent finds the highest point of a concave function on the grid, or one as near to the optimum."""
    best = np.array([0.2, 0.5, 0.3])

    def objective(tried):
        return -float(np.abs(np.array(tried) - best).sum())

    grid = [point for point in itertools.product(weights.SHARES, repeat=3) if abs(sum(point) - 1) < 1e-9]
    assert objective(weights.search(objective, 3)) >= max(map(objective, grid)) - 0.05


def test_fitted_weights_favour_the_better_run(data, tmp_path, capsys):
    good, bad = (make_run(tmp_path / name, seed, data) for seed, name in enumerate(["good", "bad"]))
    split = data.splits["validation"]
    scores = np.array([[float(name in split.truth[query]) for name in split.file_names] for query in split.queries])
    Similarity(split.queries, split.file_names, scores).save(good / "predictions" / "validation.npz")
    words = [good, bad, "--run", tmp_path / "out", "--weights", "search", "--data", data.folder]
    assert combine(*words) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[2][0].endswith("good")
    assert (rows[2][-1], rows[4]) == ("1.000", ["ensemble", "1.000"])
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["config"]
    assert config["runs"][0]["weight"] > config["runs"][1]["weight"]


# Captions -------------------------------------------------------------------------------------------------------------


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


# The run folder -------------------------------------------------------------------------------------------------------


def test_the_run_describes_all_its_members(data, tmp_path):
    audio = ["CRNN", "PaSST", "CRNN"]
    runs = [
        make_run(tmp_path / str(seed), seed, data, audio_modelling=name, learning_rate=0.1 * seed)
        for seed, name in enumerate(audio)
    ]
    assert combine(*runs, "--run", tmp_path / "out") == 0
    system = yaml.safe_load((tmp_path / "out" / "system.yaml").read_text())
    description = {"audio_modelling": "CRNN, PaSST", "optimizer": "Adam", "learning_rate": None, "ensemble": True}
    assert system["description"] == description
    assert system["complexity"] == {"total_parameters": 30, "trainable_parameters": 12}
    assert system["members"] == 3
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["data"] == {"development": "1234"}  # the validation splits of the runs differ
    assert [run["weight"] for run in config["config"]["runs"]] == pytest.approx([1 / 3] * 3)


def test_an_ensemble_cannot_predict_but_can_be_a_member(data, tmp_path, capsys):
    runs = [make_run(tmp_path / name, seed, data) for seed, name in enumerate("abc")]
    assert combine(*runs[:2], "--run", tmp_path / "ab") == 0
    assert combine(tmp_path / "ab", runs[2], "--run", tmp_path / "out") == 0
    assert command(parser(), ["predict", str(tmp_path / "out"), "--data", str(data.folder)]) == 2
    assert "is an ensemble of predictions, without a model" in capsys.readouterr().err


# Wrong requests -------------------------------------------------------------------------------------------------------


def test_wrong_requests(data, tmp_path, capsys):
    one, other = (make_run(tmp_path / name, seed, data, splits=["evaluation"]) for seed, name in enumerate("ab"))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").touch()
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump({str(one): -1, str(tmp_path / "bb"): 1}))
    out = ["--run", tmp_path / "out"]
    tries = {
        (one, *out): "an ensemble must have two runs or more; found one: give more run folders",
        (one, one, *out): "each run must be given once; found",
        (one, other, "--run", tmp_path / "used"): "must be a new or empty folder; found files",
        (one, tmp_path / "nothing", *out): "config.yaml: error: is missing; give the folder of a run",
        (one, other, *out, "--weights", tmp_path / "no.yaml"): "no.yaml: no such file; give a YAML file",
        (one, other, *out, "--weights", "search"): "--weights search must be given with --data",
        (
            one,
            other,
            *out,
            "--weights",
            "search",
            "--data",
            data.folder,
        ): "all runs must have predictions for validation",
    }
    for words, message in tries.items():
        assert combine(*words) == 2, words
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert combine(one, other, *out, "--weights", tmp_path / "weights.yaml") == 2
    error = capsys.readouterr().err
    assert "must be a number of 0 or more; found '-1': correct it" in error
    assert "must have a weight; found none: add it" in error
    assert "bb" in error


def test_runs_without_a_common_split(data, tmp_path, capsys):
    one = make_run(tmp_path / "a", 0, data, splits=["evaluation"])
    other = make_run(tmp_path / "b", 1, data, splits=["validation"])
    assert combine(one, other, "--run", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "all runs must have predictions for one same split" in error
    assert "a has 'evaluation.npz'" in error


def test_all_faulty_predictions_are_reported(data, tmp_path):
    runs = [make_run(tmp_path / name, seed, data, splits=["evaluation"]) for seed, name in enumerate("abcd")]
    files = [run / "predictions" / "evaluation.npz" for run in runs]
    files[1].write_bytes(b"not an NPZ")
    whole = Similarity.load(files[2])
    Similarity(whole.queries, [f"other {name}" for name in whole.file_names], whole.scores).save(files[2])
    with pytest.raises(Faulty) as caught:
        matrices.read_matrices(files, standardise=False)
    assert [finding.file for finding in caught.value.findings] == [str(files[1]), str(files[2])]
    assert "must have the same queries and clips as" in caught.value.findings[1].message
