"""The runs that an ensemble combines, and their joined description."""

import pytest
import yaml

from tests.systems.ensembles.made import combine, make_run


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


def test_runs_without_a_common_split(data, tmp_path, capsys):
    one = make_run(tmp_path / "a", 0, data, splits=["evaluation"])
    other = make_run(tmp_path / "b", 1, data, splits=["validation"])
    assert combine(one, other, "--run", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "all runs must have predictions for the same split" in error
    assert "a has 'evaluation.npz'" in error
