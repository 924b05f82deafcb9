"""The dry run: the list of runs, and the estimated hours."""

import time

import pytest

from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from systems import training
from systems.__main__ import parser
from systems.sweeps import grid, sweep, timing
from systems.sweeps.job import Job, Outcome
from systems.sweeps.results import Results


@pytest.fixture
def dry_run(place, tmp_path):
    def dry_run(file, *options):
        out = tmp_path / "out"
        folders = ["--data", str(place / "data"), "--out", str(out), "--cache", str(place / "cache")]
        assert command(parser(), ["sweep", str(file), *folders, "--dry-run", *options]) == 0
        assert not out.exists()

    return dry_run


def test_a_dry_run_lists_runs_and_hours(place, dry_run, capsys):
    dry_run(place / "sweep.yaml")
    printed, warned = capsys.readouterr()
    assert printed.count(" open") == 4
    assert "4 runs, 0 done; about " in printed
    assert "estimated for all epochs from 4 timed steps with each level" in printed
    assert "8_broken_0: warning: audio and texts must get embeddings of the same size" in warned


def test_a_dry_run_of_a_search_lists_its_first_setting(write, dry_run, capsys):
    ranges = {"gain": {"low": 0.5, "high": 2}}
    changes = {"system": "curve", "set": {}, "grid": None, "search": "optuna", "ranges": ranges, "samples": 3}
    dry_run(write(changes))
    printed = capsys.readouterr().out
    assert "sample-000_1" in printed
    assert "and 4 runs whose settings Optuna will choose later" in printed
    assert "6 runs, 0 done; no estimate, because curve does not train with Run.fit" in printed


def test_a_dry_run_uses_the_devices_of_the_runs(place, dry_run, monkeypatch):
    asked = []
    monkeypatch.setattr(timing, "show", lambda job, *rest: asked.append((job.gpus, rest[-1])))
    monkeypatch.setattr(sweep.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(sweep.os, "cpu_count", lambda: 8)
    for options in ("--address=", "--gpus=0.5", "--gpus=0", "--address=node:1"):
        dry_run(place / "sweep.yaml", options)
    assert asked == [(1, 2), (0.5, 4), (0, 8), (1, None)]


def test_runs_that_are_done_tell_how_long_the_others_take(tmp_path, capsys):
    runs = [grid.PlannedRun(f"a_{seed}", {"words": "a"}, seed, {}) for seed in range(3)]
    done = Outcome({"bleu_1": 0.5}, 3600)
    timing.show(None, Results(tmp_path, ("words",), "bleu_1", 3, runs, {"a_0": done}), {}, None, 2)
    printed = capsys.readouterr().out
    estimate = "about 2 h on one worker, 1 h on 2 (the runs that are done took 1 h 0 min on average)"
    assert f"3 runs, 1 done; {estimate}" in printed


def test_steps_of_whole_batches_are_timed(place, write, tmp_path, monkeypatch):
    settings = {"text_encoder": str(place / "text"), "audio_encoder": "tiny_hear", "epochs": 10, "batch": 32}
    file = write({"system": "systems.atae", "set": settings})
    plan = grid.read(file)
    run = grid.plan_runs(plan, file)[0]
    configs = grid.configure(plan, [run], file)
    dataset = read_dataset(place / "data", "development", "validation")
    job = Job(plan.system, {}, place / "data", "evaluation", plan.metric, tmp_path, place / "cache", tmp_path)
    monkeypatch.setattr(timing, "CLIPS", 3)
    batches, fit, write_rows = [], timing.Run.fit, training.write_rows
    monkeypatch.setattr(training, "write_rows", lambda *given: (time.sleep(0.5), write_rows(*given)))

    def recorded(self, module, train, validation, collate, schedule):
        def collated(items):
            batches.append(len(items))
            return collate(items)

        fit(self, module, train, validation, collated, schedule)

    monkeypatch.setattr(timing.Run, "fit", recorded)
    assert timing.estimate(job, [run], configs, dataset)[run.name] > 10 * 0.5  # what is written after each epoch
    assert batches.count(32) == 2 * timing.STEPS
