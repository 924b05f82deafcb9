"""One run of a sweep: how a worker makes it, the metric that scores it, and how it fails."""

import errno
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from evaluation import predictions
from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest
from evaluation.metrics import captioning
from systems import runs
from systems.sweeps import job as jobs
from systems.sweeps.grid import PlannedRun
from systems.sweeps.job import Job, Outcome, Worker

RUN = PlannedRun("rain_0", {"words": "rain"}, 0, {"words": "rain falls"})


@pytest.fixture
def job(place, tmp_path):
    out, cache = tmp_path / "out", place / "cache"
    return Job("captioner_system", {}, place / "data", "evaluation", "bleu_1", out, cache, Path.cwd())


@pytest.mark.slow
def test_captioners_are_scored_by_captioning_metrics(job, monkeypatch):
    monkeypatch.setattr(captioning, "BASIC", ("bleu_1", "cider_d"))  # METEOR starts Java
    outcome = Worker(job).make(RUN)
    split = read_dataset(job.data, "evaluation")["evaluation"]
    prediction = predictions.Captions(split.file_names, ("rain falls",) * len(split.clips))
    score = captioning.evaluate(prediction, split, metrics=["bleu_1", "cider_d"], cache=job.cache)
    for metric in ("bleu_1", "cider_d"):
        assert outcome.values[metric] == score.metrics[metric].estimate.value
    assert (job.run_folder(RUN.name) / "scores" / "evaluation.json").is_file()
    assert jobs.read_outcome(job.record(RUN.name)) == outcome._replace(values={})


def test_a_metric_that_the_system_cannot_have_is_an_error(job):
    outcome = Worker(replace(job, metric="mAP@10")).make(RUN)
    lacks = "the model of captioner_system has no method embed_audio, which retrieval needs; it can do captioning"
    assert (outcome.values, outcome.error) == ({}, lacks)
    assert jobs.read_outcome(job.record(RUN.name)).error == lacks
    assert "Traceback" in (job.out / "logs" / "rain_0.log").read_text()


def test_a_system_of_both_tasks_is_scored_by_the_metrics_task(job):
    both = replace(job, system="both_system", metric="mAP@5")
    outcome = Worker(both).make(RUN)
    assert outcome.error == ""
    assert "mAP@5" in outcome.values
    split = read_dataset(job.data, "evaluation")["evaluation"]
    with pytest.raises(BadRequest, match=r"evaluation\.csv: no such file, and bleu_1 is a metric of captioning"):
        runs.score(both.run_folder(RUN.name), split, "bleu_1", job.cache)


def test_a_run_that_was_stopped_early_resumes(job):
    curve = replace(job, system="curve", metric="mAP@5", stop_early=True)
    run = PlannedRun("a_0", {}, 0, {"gain": 2.0, "epochs": 4})
    asked = []

    def stop_after_two(values):
        asked.append(list(values))
        return len(values) < 2

    with pytest.raises(KeyboardInterrupt):
        Worker(curve).make(run, stop_after_two)
    assert asked == [[2.0], [2.0, 4.0]]
    assert not job.record("a_0").exists()
    outcome = Worker(curve).make(run, lambda values: True)
    assert outcome.error == ""
    assert outcome.course == (2.0, 4.0, 6.0)
    assert "after epoch 2" in (job.out / "logs" / "a_0.log").read_text()


def test_earlier_stages_of_a_run_do_not_ask(tmp_path):
    asks = []
    run = jobs.SweepRun(tmp_path, "curve", None, {}, after_epoch=asks.append, asks_in=tmp_path)
    assert replace(run, folder=tmp_path / "stage-1").continues([0.5])
    assert asks == []
    run.continues([0.5])
    assert asks == [[0.5]]


def test_a_full_disk_is_reported_and_not_recorded(place, job):
    job.out.mkdir()
    (job.out / "full rain_0").touch()
    values = {"text_encoder": str(place / "text"), "audio_encoder": "tiny_hear", "epochs": 1, "loss": "nt_xent"}
    outcome = Worker(replace(job, system="fragile", metric="mAP@5", base=values)).make(RUN._replace(values={}))
    assert outcome.full_disk == str(job.out)
    assert not job.record(RUN.name).exists()


def test_the_full_disk_is_named(tmp_path, monkeypatch):
    out, cache = tmp_path / "out", tmp_path / "cache"
    left = {out: 10**12, cache: 10**3}
    monkeypatch.setattr(jobs.shutil, "disk_usage", lambda folder: SimpleNamespace(free=left[folder]))
    assert jobs._full_disk(OSError(errno.ENOSPC, "full"), out, cache) == str(cache)
    assert jobs._full_disk(OSError(errno.ENOSPC, "full", str(out / "last.ckpt")), out, cache) == str(out)
    assert jobs._full_disk(OSError(errno.ENOSPC, "full", str(tmp_path)), out, cache) == ""
    assert jobs._full_disk(ValueError("any"), out, cache) == str(cache)
    left[cache] = 10**12
    assert jobs._full_disk(ValueError("any"), out, cache) == ""


def test_records_of_earlier_versions_can_be_read(tmp_path):
    file = tmp_path / "a_0.json"
    file.write_text('{"seconds": null, "error": "no luck"}')
    outcome = jobs.read_outcome(file)
    assert math.isnan(outcome.seconds)
    assert outcome._replace(seconds=0) == Outcome({}, 0, "no luck")
