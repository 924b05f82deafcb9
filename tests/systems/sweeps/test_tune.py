"""Runs that Ray Tune makes: ordinary runs, failures, kills, early stopping, and settings from Optuna."""

import csv
import errno
import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from evaluation import predictions
from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest
from evaluation.metrics import retrieval
from systems.__main__ import parser
from systems.sweeps.grid import PlannedRun
from systems.sweeps.job import Job, Outcome
from systems.sweeps.results import LiveTable, Results
from tests.systems.sweeps.conftest import RUNS, SPLITS

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `cluster` is not installed")

ROOT = Path(__file__).parents[3]
FIRST = RUNS[0]


@pytest.fixture(scope="module")
def cluster(place):
    """Ray, with one worker at a time, in an environment like that of a SLURM job."""
    import ray

    slurm = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(place / "modules")]))
        for key, value in slurm.items():
            patch.setenv(key, value)
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def sweep_words(place, out, file):
    return ["sweep", str(file), "--data", str(place / "data"), "--out", str(out), "--cache", str(place / "tune-cache")]


def rows(out):
    with (out / "results.csv").open() as file:
        return {row.pop("run"): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def killed(place, cluster):
    """The folder of a sweep whose first worker was killed, then the whole sweep, and which was then resumed."""
    out = place / "killed"
    out.mkdir()
    (out / "results.csv").touch()  # so that the folder, which holds the file below, counts as the folder of a sweep
    words = sweep_words(place, out, place / "sweep.yaml")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(place / "modules")])}
    embedded = place / "modules" / "embedded"
    embedded.unlink(missing_ok=True)
    driver = subprocess.Popen(
        [sys.executable, "-m", "systems", *words, "--address", cluster], cwd=ROOT, env=environment
    )
    # The end of an epoch kills the worker; when another worker resumes the run, it kills the sweep.
    (out / f"kill {FIRST}").write_text(f",{driver.pid}")
    assert driver.wait(300) == -9
    assert rows(out)[FIRST]["state"] == "open"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place / "modules"))
        assert command(parser(), words) == 1
    embedded.rename(place / "embedded by the sweep")
    return out


def test_a_sweep_records_runs_and_failures(killed):
    table = rows(killed)
    assert list(table) == RUNS
    assert [row["state"] for row in table.values()] == ["done", "done", "failed", "failed"]
    for name, row in table.items():
        assert name == f"{row['size']}_{row['way'].replace('_', '-')}_{row['seed']}"
        if row["state"] == "failed":
            assert row["error"].startswith("audio and texts must get embeddings of the same size; audio_adapter ident")
            assert (row["mAP@5"], row["mAP@10"]) == ("", "")
            assert "Traceback" in (killed / "logs" / f"{name}.log").read_text()
        else:
            assert float(row["seconds"]) > 0
    assert {path.name for path in killed.iterdir()} == {"lock", "logs", "records", "results.csv", "runs"}


@pytest.mark.slow
def test_killed_runs_end_with_the_same_weights(place, killed, tmp_path):
    """`systems train` gives the same weights for the same config and seed, in a process that made no run before."""
    assert "resuming after epoch 1" in (killed / "logs" / f"{FIRST}.log").read_text()
    run, there = tmp_path / "run", killed / "runs" / FIRST
    folders = ["--data", str(place / "data"), "--run", str(run), "--cache", str(tmp_path / "cache")]
    words = ["train", "fragile", *folders, "--seed", "0", "--accelerator", "cpu"]
    settings = yaml.safe_load((place / "sweep.yaml").read_text())["set"] | {"size": 8, "loss": "nt_xent"}
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    assert command(parser(), words) == 0
    trust = ["--trust", "fragile", "--trust", "tiny_hear"]
    assert command(parser(), ["predict", str(run), "--data", str(place / "data"), *trust]) == 0
    one, other = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (run, there))
    assert all(torch.equal(one["state_dict"][key], value) for key, value in other["state_dict"].items())
    assert (run / "config.yaml").read_text() == (there / "config.yaml").read_text()
    assert (run / "metrics.csv").read_bytes() == (there / "metrics.csv").read_bytes()
    split = read_dataset(place / "data", "evaluation")["evaluation"]
    prediction = predictions.read_retrieval(run / "predictions" / "evaluation.npz")
    score = retrieval.evaluate(split, prediction, metrics=["mAP@5", "R@1"])
    row = rows(killed)[FIRST]
    assert row["mAP@5"] == str(score.metrics["mAP@5"].estimate.value)
    assert row["R@1"] == str(score.metrics["R@1"].estimate.value)


def test_embeddings_are_computed_once_for_all_runs(place, killed):
    (store,) = (place / "tune-cache").glob("tiny_hear-*")
    with sqlite3.connect(store / "index.sqlite") as index:
        ((count, frames),) = index.execute("SELECT count(*), sum(frames) FROM features").fetchall()
    assert count == sum(SPLITS.values())
    assert (place / "embedded by the sweep").read_text() == "1\n" * count
    assert (store / "features.f32").stat().st_size == frames * 4 * 12


def test_runs_are_stopped_early_and_can_be_finished(place, cluster, write, tmp_path, monkeypatch, capsys):
    from systems.sweeps import tune

    ranges = {"gain": {"low": 0.5, "high": 2.0}}
    keys = {"system": "curve", "set": {"epochs": 3}, "search": "optuna", "ranges": ranges, "seeds": 1}
    keys |= {"grid": {"kind": ["a", "b"]}, "samples": 3, "stop_early": "asha"}
    out = tmp_path / "out"
    assert command(parser(), sweep_words(place, out, write(keys))) == 0
    assert "sample-001_0: stopped after epoch 1; 2 of 3" in capsys.readouterr().out
    table = rows(out)
    gains = [float(row["gain"]) for row in table.values()]
    states = []
    for number, gain in enumerate(gains):
        is_good = number == 0 or gain >= np.percentile(gains[:number], 75)
        states.append("done" if is_good else "stopped")
    assert [row["state"] for row in table.values()] == states == ["done", "stopped", "done"]
    assert table["sample-001_0"]["mAP@5"] == ""
    samples = json.loads((out / "records" / "samples.json").read_text())
    for (name, row), sample in zip(table.items(), samples, strict=True):
        config = yaml.safe_load((out / "runs" / name / "config.yaml").read_text())["config"]
        assert (config["gain"], config["kind"]) == (sample["gain"], sample["kind"])
        assert (row["gain"], row["kind"]) == (str(sample["gain"]), sample["kind"])
    stopped = out / "runs" / "sample-001_0"
    assert torch.load(stopped / "checkpoints" / "last.ckpt") == gains[1:2]
    assert not (stopped / "system.yaml").exists()
    # The same command leaves it stopped.
    assert command(parser(), sweep_words(place, out, write(keys))) == 0
    assert "3 runs; no run is left to make" in capsys.readouterr().out
    # Without stop_early it is made, and with more samples the search continues.
    made = []
    monkeypatch.setattr(tune, "make_runs", lambda *arguments: made.append(arguments))
    changed = write(keys | {"stop_early": None, "samples": 4})
    assert command(parser(), sweep_words(place, out, changed)) == 0
    ((job, results, waiting, search, slots),) = made
    assert (job.stop_early, results.total, slots) == (False, 4, 1)
    assert [run.name for run in waiting] == ["sample-001_0"]
    assert search.samples == samples
    assert [trial.params for trial in search.study.get_trials()] == [samples[0], samples[2]]


class Recorded:
    """A recorder of trials that are described here."""

    def __init__(self, tmp_path, slots=1):
        from systems.sweeps import tune

        self.run = PlannedRun("a_0", {"gain": "a"}, 0, {})
        job = Job("curve", {}, tmp_path, "evaluation", "mAP@5", tmp_path, tmp_path, tmp_path)
        self.results = Results(tmp_path / "results.csv", ("gain",), "mAP@5", 1, [self.run])
        self.recorder = tune.Recorder(job, self.results, None, LiveTable(self.results, slots), slots)

    def trial(self, **result):
        error = RuntimeError("Failure # 1 (occurred at 12:00)\nodd\n\nFailure # 2 (occurred at 12:01)\nit\n  died")
        return SimpleNamespace(config={"run": self.run}, last_result=result, get_error=lambda: error, status="")


def test_a_run_that_kills_its_workers_fails(tmp_path):
    recorded = Recorded(tmp_path)
    recorded.recorder.on_trial_recover(1, [], recorded.trial())
    assert recorded.results.outcomes == {}
    recorded.recorder.on_trial_error(2, [], recorded.trial())
    assert rows(tmp_path)["a_0"]["error"] == "its worker died 3 times: it died"


def test_workers_that_always_die_end_the_sweep(tmp_path):
    recorded = Recorded(tmp_path)
    for _ in range(5):
        recorded.recorder.on_trial_recover(1, [], recorded.trial())
        recorded.recorder.on_step_end(1, [])
    recorded.recorder.on_trial_recover(1, [], recorded.trial())
    with pytest.raises(BadRequest, match=r"workers die one after another \(it died\); read the logs in "):
        recorded.recorder.on_step_end(1, [])


def test_a_full_disk_ends_the_sweep(tmp_path):
    recorded = Recorded(tmp_path)
    outcome = Outcome({}, 1.0, "no space left", full_disk=str(tmp_path))
    recorded.recorder.on_trial_complete(1, [], recorded.trial(outcome=outcome._asdict()))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as fault:
        recorded.recorder.on_step_end(1, [])
    assert (fault.value.errno, fault.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert recorded.results.outcomes == {}
