"""A retriever that slides over recordings finds the windows of tones, and wrong requests are answered with advice."""

import shutil
import sys

import numpy as np
import pytest
import torch
import yaml

from evaluation.cli import command
from evaluation.findings import BadRequest, Faulty
from evaluation.kinds import KINDS
from evaluation.moment_formats import read_moments
from systems import moments, runs
from systems.__main__ import parser
from systems.asked import read_data
from systems.modules import trusting
from systems.moments.cutting import Cutting
from systems.other_runs import load_other_run
from tests.systems.asked_data import HIGH, make_questions, make_recordings
from tests.systems.made import NAME, make_module, make_run


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A folder with the run of a retriever and recordings; its module may be named."""
    top = tmp_path_factory.mktemp("moments")
    make_module(top)
    make_run(top / "retriever", "Retriever")
    make_recordings(top / "data")
    with pytest.MonkeyPatch.context() as patch, trusting([NAME]):
        patch.syspath_prepend(str(top))
        yield top
    sys.modules.pop(NAME, None)


@pytest.fixture
def config(top):
    return {"retriever": str(top / "retriever"), "window": 1.0, "hop": 0.5}


def test_a_run_is_fitted_predicts_and_is_scored(top, config, capsys):
    folder, data = top / "run", str(top / "data")
    settings = []
    for key, value in config.items():
        settings += ["--set", f"{key}={value}"]
    train = ["train", "systems.moments", "--data", data, "--run", str(folder), *settings]
    assert command(parser(), train) == 0
    assert "mAP 1.000 on 2 validation queries" in capsys.readouterr().out
    before = (folder / "checkpoints" / "best.ckpt").read_bytes()
    assert command(parser(), train) == 0  # the training has ended
    assert (folder / "checkpoints" / "best.ckpt").read_bytes() == before
    description = yaml.safe_load((folder / "system.yaml").read_text())["description"]
    assert description == {"input_sampling_rate": "8kHz", "metric_monitored": "validation mAP"}

    assert command(parser(), ["predict", str(folder), "--data", data, "--trust", NAME]) == 0
    file = folder / "predictions" / "evaluation.jsonl"
    assert f"{file}: 2 queries about 1 recording, 5 windows" in capsys.readouterr().out
    windows = read_moments(file).windows
    assert sorted(windows[0].tolist()) == HIGH
    truth, _ = KINDS["moments"].read_truth(top / "data", "evaluation")
    assert KINDS["moments"].score_file(file, truth).metrics["mAP"].estimate.value > 0.6


def test_windows_do_not_depend_on_other_windows_or_queries(top, config):
    other = load_other_run(config["retriever"], "retriever", "retrieval")
    model = moments.Finder(moments.Config(**config), other, Cutting())
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(8000 * 11 + 13, generator=generator)
    queries = ["a high tone", "a low tone"]
    curves = model.curves(audio, queries)
    alone = []
    for cell in range(23):
        centre = min((cell + 0.5) * 4000, len(audio))
        window = audio[max(0, round(centre - 4000)) : round(centre + 4000)]
        embedded = other.model.embed_audio(window[None], torch.tensor([len(window)]))
        alone.append((other.model.embed_text(queries) @ embedded.T)[:, 0].tolist())
    np.testing.assert_allclose(curves, np.array(alone).T, rtol=1e-5)
    np.testing.assert_allclose(model.curves(audio, queries[1:]), curves[1:])


def test_a_recording_of_one_sample_is_one_window(top, config):
    other = load_other_run(config["retriever"], "retriever", "retrieval")
    model = moments.Finder(moments.Config(**config), other, Cutting())
    (windows,) = model.moments(torch.zeros(1), ["a high tone"])
    assert windows[:, :2].tolist() == [[0, 1 / 8000]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"retriever": ""}, "retriever must be the folder of a trained run; found none: --set retriever=RUN"),
        ({"retriever": "nowhere"}, "nowhere/config.yaml: no such file; give the folder of a run"),
        (
            {"retriever": "captioner"},
            "retriever must be a run for retrieval; the model of made_tones has no method",
        ),
    ],
)
def test_without_a_retriever_nothing_is_written(top, config, changed, message, tmp_path):
    make_run(tmp_path / "captioner", "Captioner")
    if changed["retriever"] == "captioner":
        changed = {"retriever": str(tmp_path / "captioner")}
    dataset = read_data(top / "data", "development", "validation")
    with pytest.raises(BadRequest, match=message):
        runs.train("systems.moments", dataset, tmp_path / "run", {**config, **changed})
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_data_that_cannot_be_fitted_on_are_refused(top, config, tmp_path):
    blind = read_data(make_recordings(tmp_path / "blind", relevant_windows=None), "development", "validation")
    with pytest.raises(BadRequest, match=r"moments_validation.jsonl: must have queries with relevant_windows"):
        runs.train("systems.moments", blind, tmp_path / "run", config)
    empty = make_recordings(tmp_path / "empty")
    (empty / "validation" / "a long one.flac").write_bytes(b"")
    with pytest.raises(Faulty, match=r"a long one.flac: error: "):
        runs.train("systems.moments", read_data(empty, "development", "validation"), tmp_path / "other", config)
    questions = read_data(make_questions(tmp_path / "questions"), "development", "validation")
    with pytest.raises(BadRequest, match=r"must have queries about recordings .* found questions about clips"):
        runs.train("systems.moments", questions, tmp_path / "third", config)
    with pytest.raises(BadRequest, match=r"must have clips with captions .* found questions about clips"):
        runs.train("baseline.retriever", questions, tmp_path / "fourth")


def test_a_changed_retriever_is_refused(top, config, tmp_path):
    shutil.copytree(top / "retriever", tmp_path / "retriever")
    config["retriever"] = str(tmp_path / "retriever")
    dataset = read_data(top / "data", "development", "validation")
    run = runs.train("systems.moments", dataset, tmp_path / "run", config)
    torch.save({"kind": "Retriever", "gain": 2.0}, tmp_path / "retriever" / "checkpoints" / "best.ckpt")
    with pytest.raises(BadRequest, match=r"must have the checkpoint that .* was fitted with; found another one"):
        moments.load_model(run.best)
