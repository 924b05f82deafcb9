"""The run folder of an ensemble, and wrong requests."""

import yaml

from evaluation.cli import command
from systems.__main__ import parser
from tests.systems.ensembles.made import combine, make_run


def test_an_ensemble_cannot_predict_but_can_be_a_member(data, tmp_path, capsys):
    runs = [make_run(tmp_path / name, seed, data) for seed, name in enumerate("abc")]
    assert combine(*runs[:2], "--run", tmp_path / "ab") == 0
    assert combine(tmp_path / "ab", runs[2], "--run", tmp_path / "out") == 0
    assert command(parser(), ["predict", str(tmp_path / "out"), "--data", str(data.folder)]) == 2
    assert "is an ensemble of predictions, without a model" in capsys.readouterr().err


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
        (one, tmp_path / "nothing", *out): "config.yaml: error: is missing; give a run folder",
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
