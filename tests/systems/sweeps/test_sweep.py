"""Sweeps: the grid and what may be wrong with it, runs on ray's workers, and what becomes of them when killed."""

import csv
import errno
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from evaluation import predictions
from evaluation.data.dataset import Split, read_dataset
from evaluation.data.soundscapes import generate
from evaluation.findings import BadRequest, Faulty, command
from evaluation.metrics import captioning, retrieval
from systems import contract, runs, training
from systems.__main__ import parser
from systems.sweeps import grid, sweep, timing
from tests.systems.tiny import HEAR, text_model

ROOT = Path(__file__).parents[3]
# ATAE; where a file asks for it, an epoch's end kills the worker, kills another process, or finds the disk full.
FRAGILE = """
import errno, os, signal
from systems import atae, training
from systems.atae import Config, load_model

def train(config, dataset, run):
    whole = training.write_rows
    def write_rows(path, rows):
        for word in ("kill", "full"):
            mark = run.folder.parents[1] / f"{word} {run.folder.name}"
            if mark.exists():
                pid, _, others = mark.read_text().partition(",")
                mark.write_text(others) if others else mark.unlink()
                if word == "full":
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
                os.kill(int(pid or os.getpid()), signal.SIGKILL)
        whole(path, rows)
    training.write_rows = write_rows
    try:
        atae.train(config, dataset, run)
    finally:
        training.write_rows = whole
"""
# Behind `tiny_hear`: how many sounds it hears at a time.
HEARD = """
from pathlib import Path

unheard = get_timestamp_embeddings

def get_timestamp_embeddings(audio, model):
    with Path(__file__).with_name("heard").open("a") as file:
        print(len(audio), file=file)
    return unheard(audio, model)
"""
SAYS = """
import torch
from pydantic import BaseModel

class Config(BaseModel, extra="forbid"):
    words: str = "rain falls"

class Captioner(torch.nn.Module):
    sample_rate = 8000
    def caption(self, audio, lengths):
        return [self.words] * len(audio)

def train(config, dataset, run):
    run.start()
    run.best.parent.mkdir(exist_ok=True)
    torch.save(config.words, run.best)
    run.describe(Captioner(), {})

def load_model(checkpoint):
    model = Captioner()
    model.words = torch.load(checkpoint, weights_only=True)
    return model
"""
BOTH = SAYS.replace(
    "\ndef train",
    """
    def embed_audio(self, audio, lengths):
        return audio[:, :4]
    def embed_text(self, texts):
        return torch.ones(len(texts), 4)

def train""",
)
SPLITS = {"development": 10, "validation": 4, "evaluation": 11}
RUNS = [f"{size}_{loss}_{seed}" for size in (8, 16) for loss in ("nt-xent", "broken") for seed in (0, 1)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny models, data, and a sweep of eight runs, four of which fail."""
    folder = tmp_path_factory.mktemp("sweep")
    text_model(folder / "text")
    (folder / "modules").mkdir()
    (folder / "modules" / "tiny_hear.py").write_text(HEAR + HEARD)
    (folder / "modules" / "fragile.py").write_text(FRAGILE)
    (folder / "modules" / "says.py").write_text(SAYS)
    (folder / "modules" / "both.py").write_text(BOTH)
    generate.make_soundscapes(folder / "data", clips=SPLITS, progress=False)
    content = {
        "system": "fragile",
        "set": {"text_encoder": str(folder / "text"), "audio_encoder": "tiny_hear", "epochs": 3, "batch": 8},
        "grid": {"size": [8, 16], "way": {"nt_xent": {"loss": "nt_xent"}, "broken": {"audio_adapter": "identity"}}},
        "seeds": 2,
        "metric": "mAP@5",
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    content["grid"] = {"size": [8], "way": {"nt_xent": {"loss": "nt_xent"}}}
    (folder / "good.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture(autouse=True)
def modules(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place / "modules"))
    yield
    for name in ("tiny_hear", "fragile", "says", "both"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def cluster(place):
    """Ray, with a worker at a time, in what looks like a job of SLURM's."""
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(place / "modules")]))
        for key, value in job.items():
            patch.setenv(key, value)
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def arguments(place, out, *more, file="sweep.yaml"):
    return ["sweep", str(place / file), "--data", str(place / "data"), "--out", str(out), *more]


def rows(out):
    with (out / "results.csv").open() as file:
        return {row.pop("run"): row for row in csv.DictReader(file)}


def figures(out):
    return {name: {**row, "seconds": ""} for name, row in rows(out).items()}


@pytest.fixture(scope="module")
def undisturbed(place, cluster):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place / "modules"))
        assert command(parser(), arguments(place, place / "whole", "--cache", str(place / "cache"))) == 1
    (place / "modules" / "heard").rename(place / "heard by the sweep")
    return place / "whole"


def test_a_sweep_makes_ordinary_runs_and_records_those_that_fail(place, undisturbed, tmp_path):
    found = rows(undisturbed)
    assert list(found) == RUNS
    assert [row["state"] for row in found.values()] == ["done", "done", "failed", "failed"] * 2
    for name, row in found.items():
        assert name == f"{row['size']}_{row['way'].replace('_', '-')}_{row['seed']}"
        if row["state"] == "failed":
            assert row["error"].startswith("sounds and texts must get embeddings of one size; audio_adapter identity")
            assert (row["mAP@5"], row["mAP@10"]) == ("", "")
            assert "Traceback" in (undisturbed / "logs" / f"{name}.log").read_text()
        else:
            assert float(row["seconds"]) > 0
    # What the verbs make of the same config and seed, in a process that made no run before.
    run, name = tmp_path / "run", "16_nt-xent_1"
    asked = [
        "train",
        "fragile",
        "--data",
        str(place / "data"),
        "--run",
        str(run),
        "--seed",
        "1",
        "--accelerator",
        "cpu",
    ]
    asked += ["--cache", str(tmp_path / "cache"), "--set", "size=16", "--set", "loss=nt_xent"]
    for key, value in yaml.safe_load((place / "sweep.yaml").read_text())["set"].items():
        asked += ["--set", f"{key}={value}"]
    assert command(parser(), asked) == 0
    trust = ["--trust", "fragile", "--trust", "tiny_hear"]
    assert command(parser(), ["predict", str(run), "--data", str(place / "data"), *trust]) == 0
    there = undisturbed / "runs" / name
    one, other = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (run, there))
    assert all(torch.equal(one["state_dict"][key], value) for key, value in other["state_dict"].items())
    assert (run / "config.yaml").read_text() == (there / "config.yaml").read_text()
    split = read_dataset(place / "data", "evaluation")["evaluation"]
    prediction = predictions.read_retrieval(run / "predictions" / "evaluation.npz")
    score = retrieval.evaluate(split, prediction, metrics=["mAP@5", "R@1"])
    assert found[name]["mAP@5"] == str(score.metrics["mAP@5"].estimate.value)
    assert found[name]["R@1"] == str(score.metrics["R@1"].estimate.value)


def test_embeddings_are_computed_once_for_all_runs(place, undisturbed):
    (store,) = (place / "cache").glob("tiny_hear-*")
    with sqlite3.connect(store / "index.sqlite") as index:
        (count,) = index.execute("SELECT count(*) FROM features").fetchone()
    assert count == sum(SPLITS.values())
    assert (place / "heard by the sweep").read_text() == "1\n" * count
    frames = (store / "features.f32").stat().st_size // (4 * 12)
    with sqlite3.connect(store / "index.sqlite") as index:
        assert index.execute("SELECT sum(frames) FROM features").fetchone() == (frames,)


def test_what_is_done_is_not_made_again(place, undisturbed, tmp_path, capsys):
    out = shutil.copytree(undisturbed, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert command(parser(), arguments(place, out, "--cache", str(place / "cache"), file="good.yaml")) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert "2 runs, 2 of them done already" in capsys.readouterr().out
    there = rows(undisturbed)
    assert rows(out) == {name: there[name] for name in RUNS[:2]}
    # Another config under the same name is another run.
    other = out / "other.yaml"
    other.write_text((place / "good.yaml").read_text().replace("epochs: 3", "epochs: 4"))
    assert command(parser(), arguments(place, out, "--cache", str(place / "cache"), file=other)) == 1
    assert "config.epochs: error: the run has 3, asked for 4" in capsys.readouterr().err


def test_killed_workers_and_drivers_lose_nothing(place, undisturbed, cluster, tmp_path, capfd):
    out = tmp_path / "killed"
    out.mkdir()
    asked = arguments(place, out, "--cache", str(place / "cache"), file="good.yaml")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(place / "modules")])}
    (out / "results.csv").touch()  # so that the folder, which holds the files below, is taken for a sweep's
    driver = subprocess.Popen([sys.executable, "-m", "systems", *asked], cwd=ROOT, env=environment)
    (out / "kill 8_nt-xent_0").write_text(f",{driver.pid}")  # its worker, and when another goes on with it, the driver
    assert driver.wait(300) == -9
    assert rows(out)["8_nt-xent_0"]["state"] == "open"
    assert command(parser(), asked) == 0
    assert "going on after epoch 1" in (out / "logs" / "8_nt-xent_0.log").read_text()
    assert not list(out.glob("kill*"))
    there = figures(undisturbed)
    assert figures(out) == {name: there[name] for name in RUNS[:2]}
    for name in RUNS[:2]:
        there, here = (folder / "runs" / name / "metrics.csv" for folder in (undisturbed, out))
        assert there.read_bytes() == here.read_bytes()


def test_a_dry_run_lists_runs_and_hours(place, tmp_path, capsys):
    asked = ["--cache", str(place / "cache"), "--dry-run"]
    assert command(parser(), arguments(place, tmp_path / "out", *asked)) == 0
    said, warned = capsys.readouterr()
    assert said.count(" open") == 8
    assert "8 runs, 0 done; about " in said
    assert "4 steps timed with each level" in said
    assert "8_broken_0: warning: sounds and texts must get embeddings of one size" in warned
    assert not (tmp_path / "out").exists()


def test_a_dry_run_times_what_runs_are_made_on(place, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(timing, "show", lambda job, *rest: asked.append((job.gpus, rest[-1])))
    monkeypatch.setattr(sweep.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(sweep.os, "cpu_count", lambda: 8)
    for more in ("--address=", "--gpus=0.5", "--gpus=0", "--address=node:1"):
        assert command(parser(), arguments(place, tmp_path / "out", "--dry-run", more)) == 0
    assert asked == [(1, 2), (0.5, 4), (0, 8), (1, None)]


def test_steps_are_timed_of_whole_batches(place, tmp_path, monkeypatch):
    settings = {"text_encoder": str(place / "text"), "audio_encoder": "tiny_hear", "epochs": 10, "batch": 32}
    file = written(place, {"system": "systems.atae", "set": settings})
    plan = grid.read(file)
    run = grid.planned(plan, file)[0]
    configs = grid.configured(plan, [run], file)
    dataset = read_dataset(place / "data", "development", "validation")
    job = sweep.Job(plan.system, place / "data", "evaluation", plan.metric, tmp_path, place / "cache", ROOT)
    monkeypatch.setattr(timing, "CLIPS", 3)
    batches, fit, write_rows = [], timing.Run.fit, training.write_rows
    monkeypatch.setattr(training, "write_rows", lambda *given: (time.sleep(0.5), write_rows(*given)))

    def recorded(self, module, train, validation, collate, schedule):
        def collated(items):
            batches.append(len(items))
            return collate(items)

        fit(self, module, train, validation, collated, schedule)

    monkeypatch.setattr(timing.Run, "fit", recorded)
    assert timing.seconds(job, [run], configs, dataset)[run.name] > 10 * 0.5  # what is written after each epoch
    assert batches.count(32) == 2 * timing.STEPS


def test_captioners_are_scored_by_the_metrics_of_captions(place, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    here, cache = tmp_path / "out", place / "cache"
    job = sweep.Job("says", place / "data", "evaluation", "bleu_1", here, cache, Path.cwd())
    file = written(place, {"system": "says", "set": {}, "grid": {"words": ["rain falls", "a dog"]}, "metric": "bleu_1"})
    plan = grid.read(file)
    first, *_, last = grid.planned(plan, file)
    configs = grid.configured(plan, [first, last], file)
    worker = sweep.Worker(job)
    results = sweep.Results(here / "results.csv", [first, last], "bleu_1")
    for run in (first, last):
        results.outcomes[run.name] = worker.make(run, configs[run.name])
    results.save()
    split = read_dataset(place / "data", "evaluation")["evaluation"]
    found = rows(here)
    assert list(found) == ["rain-falls_0", "a-dog_1"]
    for run in (first, last):
        said = predictions.Captions(split.file_names, (run.levels["words"],) * len(split.clips))
        score = captioning.evaluate(split, said, metrics=["bleu_1", "cider_d"], cache=cache)
        for metric in ("bleu_1", "cider_d"):
            assert found[run.name][metric] == str(score.metrics[metric].estimate.value)
    assert (here / "runs" / "a-dog_1" / "scores" / "evaluation.json").is_file()
    # The metric of the other task, which no run can have.
    other = sweep.Worker(replace(job, metric="mAP@10", out=tmp_path / "other"))
    outcome = other.make(first, configs[first.name])
    assert outcome.values == {}
    lacks = "the model of says has no embed_audio, which retrieval needs; ask for what it does: captioning"
    assert outcome.error == lacks
    # A system that does both is compared by what the metric is of.
    both = sweep.Worker(replace(job, system="both", metric="mAP@5", out=tmp_path / "both"))
    outcome = both.make(first, contract.system("both").Config())
    assert outcome.error == ""
    assert "mAP@5" in outcome.values
    again = replace(job, metric="mAP@5", out=tmp_path / "both")
    with pytest.raises(BadRequest, match=r"evaluation\.csv: no such file, and bleu_1 is a metric of captioning"):
        runs.score(again.out / "runs" / first.name, split, "bleu_1", cache)
    # No steps to time.
    timing.show(job, sweep.Results(here / "results.csv", [first], "bleu_1"), configs, worker.ready[0], 1)
    assert "says does not train by Run.fit: there are no steps to time" in capsys.readouterr().out


def written(place, changes):
    content = yaml.safe_load((place / "sweep.yaml").read_text()) | changes
    file = place / "changed.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}, sort_keys=False))
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {}}, "grid: error: must have a factor or more; it is empty"),
        ({"grid": {"size": []}}, "size must have a level or more; it is empty"),
        ({"grid": {"size": [8, 8]}}, "the levels of size must differ; one stands there twice"),
        ({"grid": {"sizes": [8]}}, "sizes: error: unknown key 'sizes'; did you mean 'size'?"),
        ({"grid": {"size": [0]}}, "size: error: Input should be greater than or equal to 1; found 0"),
        ({"grid": {"w": {"a b": {"size": 8}, "a-b": {"size": 9}}}}, "two runs would have the name 'a-b': a b and a-b"),
        ({"grid": {"epochs": [1]}}, "grid.epochs: error: must be in one place, but epochs is in set too"),
        ({"grid": {"seed": [1]}}, "grid.seed: error: is a column of the results already"),
        ({"grid": {"size": ["x" * 300]}}, "names of levels must be short enough"),
        ({"seeds": 0}, "seeds: error: List should have at least 1 item"),
        ({"seeds": [1, 1]}, "seeds must be different numbers from 0"),
        ({"seeds": [-1]}, "seeds must be different numbers from 0"),
        ({"seeds": [1, 1.0]}, "seeds must be different numbers from 0"),
        ({"seeds": [0, True]}, "seeds must be different numbers from 0"),
        ({"grid": {"size": {1: {"size": 8}, "1": {"size": 9}}}}, "the levels of size must differ"),
        ({"grid": {"size": ["x" * 180, "é" * 120]}}, "é'… has 242 bytes"),
        ({"metric": None}, "metric: error: is missing; give it"),
        ({"metric": "mAP"}, "metric: error: unknown metric 'mAP'; there are"),
        ({"gird": {}}, "gird: error: unknown key 'gird'; did you mean 'grid'?"),
    ],
)
def test_files_that_do_not_hold(place, changes, message):
    file = written(place, changes)
    with pytest.raises(Faulty) as fault:
        plan = grid.read(file)
        grid.configured(plan, grid.planned(plan, file), file)
    assert message in str(fault.value)
    assert fault.value.status == 2


def test_levels_keep_their_sign_in_the_names_of_runs(place):
    file = written(place, {"grid": {"text_layer": [-1, 1, ".5", "<a>"]}, "seeds": 1})
    assert [run.name for run in grid.planned(grid.read(file), file)] == ["-1_0", "1_0", "5_0", "a_0"]


def test_keys_come_from_the_config_below(place, tmp_path):
    (tmp_path / "below.yaml").write_text("size: 5\nmargin: 2.5\ntext_encoder: none\n")
    file = written(place, {"config": str(tmp_path / "below.yaml")})
    plan = grid.read(file)
    runs = grid.planned(plan, file)
    configs = grid.configured(plan, runs, file)
    assert [run.name for run in runs] == RUNS
    assert {config.margin for config in configs.values()} == {2.5}
    assert [configs[name].size for name in RUNS] == [8] * 4 + [16] * 4
    assert configs[RUNS[2]].audio_adapter == "identity"
    (tmp_path / "below.yaml").write_text("sizes: 5\n")
    with pytest.raises(Faulty, match=r"below\.yaml: sizes: error: unknown key"):
        grid.configured(plan, runs, file)


def test_requests_that_cannot_be(place, tmp_path, monkeypatch, capsys):
    def refused(*more, out=tmp_path / "out", file="sweep.yaml"):
        assert command(parser(), arguments(place, out, "--cache", str(place / "cache"), *more, file=file)) == 2
        return capsys.readouterr().err

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert f"no answer at {address} (Connection refused); start ray there" in refused("--address", address)
    for wrong in ("node", ":6379", "node:²"):
        assert f"--address must be HOST:PORT or auto; found {wrong!r}" in refused("--address", wrong)
    assert "no answer at ..:6379" in refused("--address", "..:6379")
    for count in ("0", "-1"):
        assert f"--cpus must be 1 or more; found {count}" in refused("--cpus", count)
    for share in ("-1", "1.5", "nan", "inf"):
        assert f"--gpus must be a share of one, from 0 to 1, or a whole number; found {share}" in refused(
            f"--gpus={share}"
        )
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").touch()
    assert "is not empty and no sweep" in refused(out=full)
    # What a sweep leaves that found the disk full, or was killed, before it wrote its first results.
    (full / "notes.txt").rename(full / ".results.csv.1.part")
    (full / "lock").touch()
    assert "no answer" in refused("--address", address, out=full)
    assert "no such file" in refused(file="none.yaml")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.csv").touch()
    with sweep.FileLock(tmp_path / "out" / "lock"):
        assert "another sweep is at work there" in refused()
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "sweeps need ray; install it by `make .venv/.cluster`" in refused()


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
def test_a_run_is_on_one_machine_and_a_share_of_a_gpu_is_of_one(nodes, cpus, gpus, slots):
    job = sweep.Job("says", Path(), "evaluation", "bleu_1", Path(), Path(), Path(), gpus, cpus)
    nodes = [{"CPU": cores, "GPU": cards} if cards else {"CPU": cores} for cores, cards in nodes]
    assert sweep._slots(nodes, job) == slots
    with pytest.raises(BadRequest, match="of one machine, but there are"):
        sweep._slots(nodes, replace(job, cpus=9))


class Narrow:
    """What the driver asks of ray, on a cluster that has room for one worker."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self, outcomes):
        self.outcomes, self.workers = outcomes, []

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=self.start)

    def start(self, _):
        worker = SimpleNamespace()
        worker.make = SimpleNamespace(remote=lambda run, _: (id(worker), run.name))
        self.workers.append(worker)
        return worker

    def wait(self, references, timeout):
        ended = [reference for reference in references if reference[0] == id(self.workers[0])]
        assert ended, "a run waits for room that an idle worker keeps"
        return ended, []

    def get(self, reference):
        outcome = self.outcomes[reference[1]]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def kill(self, worker):
        self.workers.remove(worker)


def test_workers_without_work_make_room_and_failures_are_known_until_they_are_tried_again(place, tmp_path, capsys):
    job = sweep.Job("says", place / "data", "evaluation", "bleu_1", tmp_path, tmp_path, tmp_path)
    file = written(place, {"system": "says", "set": {}, "grid": {"words": ["rain", "dogs"]}, "metric": "bleu_1"})
    plan = grid.read(file)
    runs = grid.planned(plan, file)
    configs = grid.configured(plan, runs, file)
    dataset, split = sweep.read_data(job.data, job.split)
    sweep.Outcome({}, 0.01, "no luck").save(job.record(runs[0].name))
    sweep.Results(tmp_path / "results.csv", runs, "bleu_1").save()
    results = sweep.known(job, runs, configs, dataset, split)
    assert [results.state(run) for run in runs] == ["failed", "open", "open", "open"]
    results.save()
    assert rows(tmp_path)["rain_0"]["error"] == "no luck"
    ended = {run.name: sweep.Outcome({"bleu_1": 0.5}, 100) for run in runs} | {"dogs_1": sweep.Outcome({}, 0.1, "no")}
    ray = Narrow(ended)
    sweep._drive(ray, job, results, configs, slots=3)
    assert ray.workers == []
    assert results.outcomes == ended
    said = capsys.readouterr().out
    assert "4 runs; 3 at a time" in said
    assert "rain_0: bleu_1 0.500 in 1 min 40 s; 1 of 4, about 1 min 40 s left" in said


def test_a_run_that_kills_its_workers_fails_and_a_full_disk_ends_the_sweep(place, tmp_path):
    job = sweep.Job("fragile", place / "data", "evaluation", "mAP@5", tmp_path, place / "cache", ROOT)
    file = place / "sweep.yaml"
    plan = grid.read(file)
    runs = grid.planned(plan, file)
    configs = grid.configured(plan, runs, file)
    first, second = sorted(runs, key=lambda run: sweep._order(runs)[run.name])[:2]
    (tmp_path / f"full {second.name}").touch()
    full = sweep.Worker(job).make(second, configs[second.name])
    assert full.full == str(tmp_path)
    assert not job.record(second.name).exists()
    results = sweep.Results(tmp_path / "results.csv", runs, "mAP@5")
    ended = {first.name: RuntimeError("it died"), second.name: full}
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as fault:
        sweep._drive(Narrow(ended), job, results, configs, slots=1)
    assert (fault.value.errno, fault.value.filename) == (errno.ENOSPC, str(tmp_path))
    found = rows(tmp_path)
    assert found[first.name]["error"] == "its worker died 3 times: it died"
    assert {row["state"] for name, row in found.items() if name != first.name} == {"open"}


def test_the_disk_that_is_full_is_named(tmp_path, monkeypatch):
    out, cache = tmp_path / "out", tmp_path / "cache"
    left = {out: 10**12, cache: 10**3}
    monkeypatch.setattr(sweep.shutil, "disk_usage", lambda folder: SimpleNamespace(free=left[folder]))
    assert sweep._full(OSError(errno.ENOSPC, "full"), out, cache) == str(cache)
    assert sweep._full(OSError(errno.ENOSPC, "full", str(out / "last.ckpt")), out, cache) == str(out)
    assert sweep._full(OSError(errno.ENOSPC, "full", str(tmp_path)), out, cache) == ""
    assert sweep._full(ValueError("any"), out, cache) == str(cache)
    left[cache] = 10**12
    assert sweep._full(ValueError("any"), out, cache) == ""


def test_a_metric_that_cannot_be_computed_is_refused_before_the_work(place, tmp_path):
    split = read_dataset(place / "data", "evaluation")["evaluation"]
    blind = Split("test", split.clips, relevance={})
    with pytest.raises(BadRequest, match="no truth to score mAP@5 by"):
        sweep._must_measure("mAP@5", blind, tmp_path)


def test_the_order_sees_every_setting_first_and_changes_the_first_factor_fastest(place):
    plan = grid.read(place / "sweep.yaml")
    runs = grid.planned(plan, place / "sweep.yaml")
    order = sweep._order(runs)
    assert sorted(RUNS, key=order.get)[:5] == [
        "8_nt-xent_0",
        "16_nt-xent_0",
        "8_broken_0",
        "16_broken_0",
        "8_nt-xent_1",
    ]
