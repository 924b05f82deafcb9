"""The command `dcase-systems sweep`: requests that it refuses, and its work before runs are made (`test_tune.py`)."""

import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.cli import command
from evaluation.data.dataset import Split, read_dataset
from evaluation.findings import BadRequest
from systems.__main__ import parser
from systems.sweeps import grid, sweep
from systems.sweeps import job as sweep_job
from systems.sweeps.job import Job


@pytest.fixture
def refused(place, tmp_path, capsys):
    """Give the command a request that is wrong, and return the message."""

    def refused(*options, out=tmp_path / "out", file=place / "sweep.yaml"):
        folders = ["--data", str(place / "data"), "--out", str(out), "--cache", str(place / "cache")]
        assert command(parser(), ["sweep", str(file), *folders, *options]) == 2
        return capsys.readouterr().err

    return refused


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--address=node", "--address must be HOST:PORT or auto; found 'node'"),
        ("--address=:6379", "--address must be HOST:PORT or auto; found ':6379'"),
        ("--address=node:²", "--address must be HOST:PORT or auto; found 'node:²'"),
        ("--address=..:6379", "no answer at ..:6379"),
        ("--cpus=0", "--cpus must be 1 or more; found 0"),
        ("--cpus=-1", "--cpus must be 1 or more; found -1"),
        ("--gpus=-1", "--gpus must be a share of a GPU from 0 to 1, or a whole number; found -1"),
        ("--gpus=1.5", "or a whole number; found 1.5"),
        ("--gpus=nan", "or a whole number; found nan"),
        ("--gpus=inf", "or a whole number; found inf"),
    ],
)
def test_options_that_are_refused(refused, monkeypatch, tmp_path, option, message):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert message in refused(option)
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_does_not_answer_is_refused(refused, monkeypatch, tmp_path):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert f"no answer at {address} (Connection refused); start Ray at that address" in refused("--address", address)
    assert not (tmp_path / "out").exists()


def test_folders_and_files_that_are_refused(refused, tmp_path, monkeypatch):
    assert "no such file" in refused(file=tmp_path / "none.yaml")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").touch()
    assert "must be the folder of a sweep or empty; found files" in refused(out=tmp_path / "notes")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.csv").touch()
    with sweep.FileLock(tmp_path / "out" / "lock"):
        assert "another sweep is running there" in refused()
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "sweeps need ray; install dcase-kit[cluster]" in refused()


def test_a_search_without_optuna_is_refused(refused, write, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "systems.sweeps.search", raising=False)
    monkeypatch.delattr("systems.sweeps.search", raising=False)
    file = write({"system": "curve", "set": {}, "grid": {"kind": ["a", "b"]}, "search": "optuna", "samples": 1})
    assert "search: optuna needs Optuna; install dcase-kit[cluster]" in refused(file=file)


def test_runs_without_a_common_monitor_cannot_be_stopped_early(refused, write):
    monitors = {"monitor": ["mAP@10", "loss"]}
    file = write({"system": "curve", "set": {}, "grid": monitors, "stop_early": "asha"})
    assert "all runs must have the same monitor, because its values are compared; found mAP@10, loss: set" in refused(
        file=file
    )


def test_a_sweep_that_is_done_needs_no_ray(place, write, tmp_path, monkeypatch, capsys):
    """If a run that is done has another config than the file asks for, the sweep is refused."""
    file = write({"system": "curve", "set": {}, "grid": {"gain": [1.0]}, "seeds": 1})
    plan = grid.read(file)
    out = tmp_path / "out"
    job = Job(plan.system, {}, place / "data", "evaluation", "mAP@5", out, place / "cache", Path.cwd())
    outcome = sweep_job.Worker(job).make(grid.plan_runs(plan, file)[0])
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    (out / "results.csv").touch()
    monkeypatch.setattr(sweep, "check_ray", lambda *_: None)
    monkeypatch.setitem(sys.modules, "ray", None)
    folders = ["--data", str(place / "data"), "--out", str(out), "--cache", str(place / "cache")]
    assert command(parser(), ["sweep", str(file), *folders]) == 0
    assert "1 runs; no run is left to make" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert f"1.0_0,1.0,0,done,{outcome.seconds:.1f},,{outcome.values['mAP@5']}" in (out / "results.csv").read_text()
    other = write({"system": "curve", "set": {"epochs": 4}, "grid": {"gain": [1.0]}, "seeds": 1})
    assert command(parser(), ["sweep", str(other), *folders]) == 1
    assert "config.epochs: error: the run has 5, but 4 is given" in capsys.readouterr().err
    shutil.rmtree(out / "runs")


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "slots"),
    [
        ([(3, 0), (3, 0)], 2, 0, 2),  # not six processors for three runs
        ([(8, 1), (8, 0)], 1, 0.25, 4),
        ([(8, 2)], 1, 0.4, 4),  # two of each GPU
        ([(8, 3), (8, 3)], 1, 2, 2),
        ([(2, 4)], 1, 0.5, 2),
    ],
)
def test_a_run_is_on_one_node_and_a_share_is_of_one_gpu(nodes, cpus, gpus, slots):
    job = Job("curve", {}, Path(), "evaluation", "bleu_1", Path(), Path(), Path(), gpus=gpus, cpus=cpus)
    resources = []
    for processors, cards in nodes:
        resources.append({"CPU": processors, "GPU": cards} if cards else {"CPU": processors})
    assert sweep.count_slots(resources, job) == slots
    with pytest.raises(BadRequest, match="on one machine; found machines with"):
        sweep.count_slots(resources, replace(job, cpus=9))


def test_a_metric_without_truth_is_refused_before_the_work(place, tmp_path):
    split = read_dataset(place / "data", "evaluation")["evaluation"]
    blind = Split("test", split.clips, relevance={})
    with pytest.raises(BadRequest, match="must have captions or relevance for mAP@5; found neither"):
        sweep._check_metric("mAP@5", blind, tmp_path)


def test_runs_are_ordered_by_seed_then_first_factor(write):
    ways = {"nt_xent": {"loss": "nt_xent"}, "broken": {"audio_adapter": "identity"}}
    file = write({"grid": {"size": [8, 16], "way": ways}})
    plan = grid.read(file)
    ordered = sweep._in_order(grid.plan_runs(plan, file), plan)
    first = ["8_nt-xent_0", "16_nt-xent_0", "8_broken_0", "16_broken_0", "8_nt-xent_1"]
    assert [run.name for run in ordered][:5] == first
