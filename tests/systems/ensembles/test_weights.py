"""The weights of the runs, given or fitted on the validation split."""

import itertools

import numpy as np
import pytest
import yaml

from evaluation.metrics import retrieval
from evaluation.predictions import Similarity
from systems.ensembles import matrices, weights
from tests.systems.ensembles.made import combine, make_run


def test_weights_and_standardised_scores(data, tmp_path):
    runs = [make_run(tmp_path / name, seed, data) for seed, name in enumerate("ab")]
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump({str(runs[0]): 3, str(runs[1]): 1}))
    options = ["--weights", tmp_path / "weights.yaml", "--standardise"]
    assert combine(*runs, "--run", tmp_path / "out", *options) == 0
    scores = [Similarity.load(run / "predictions" / "evaluation.npz").scores for run in runs]
    first, second = ((score - score.mean()) / score.std() for score in scores)
    made = Similarity.load(tmp_path / "out" / "predictions" / "evaluation.npz").scores
    np.testing.assert_allclose(made, 0.75 * first + 0.25 * second, rtol=1e-4, atol=1e-5)


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
