"""Weighted means of similarity matrices."""

import numpy as np
import pytest

from evaluation.findings import Faulty
from evaluation.predictions import Similarity
from systems.ensembles import matrices
from tests.systems.ensembles.made import combine, make_run


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
