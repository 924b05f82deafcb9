"""Optuna's settings: they depend on the seed and the results, and a search that was killed is resumed."""

import json

import pytest
from optuna.trial import TrialState

from evaluation.findings import BadRequest
from systems.sweeps import grid
from systems.sweeps.job import Outcome
from systems.sweeps.search import Search

RANGES = {"margin": {"low": 0.01, "high": 1, "log": True}, "size": {"low": 4, "high": 4096}}


@pytest.fixture
def plan(write):
    ways = {"way": {"nt_xent": {"loss": "nt_xent"}, "broken": {"audio_adapter": "identity"}}}
    return grid.read(write({"search": "optuna", "samples": 14, "ranges": RANGES, "grid": ways}))


def value(run):
    return 1 - abs(float(run.levels["margin"]) - 0.1) + run.seed / 100


def finish(search, runs):
    for run in runs:
        search.add(run, Outcome({"mAP@5": value(run)}, 1))


def finished(plan, file):
    search = Search(plan, file)
    runs = search.next_runs()
    while runs:
        finish(search, runs)
        runs = search.next_runs()
    return search


def test_a_killed_search_samples_the_same_settings(plan, tmp_path):
    search = finished(plan, tmp_path / "whole" / "samples.json")
    assert len(search.samples) == 14
    assert [run.name for run in search.planned_runs()[:3]] == ["sample-000_0", "sample-000_1", "sample-001_0"]
    for sample in search.samples:
        assert 0.01 <= sample["margin"] <= 1
        assert sample["margin"] == float(f"{sample['margin']:.4g}")
        assert isinstance(sample["size"], int)
    # Killed twice: early, and after the twelfth setting, of which one seed has ended.
    file = tmp_path / "killed" / "samples.json"
    for ended in (3, 12):
        killed = Search(plan, file)
        for number in range(len(killed.samples)):
            finish(killed, grid.plan_sample(plan, number, killed.samples[number]))
        while len(killed.samples) < ended:
            finish(killed, killed.next_runs())
    assert resumed(plan, file).samples == search.samples


def resumed(plan, file):
    search = Search(plan, file)
    finish(search, search.planned_runs())
    runs = search.next_runs()
    while runs:
        finish(search, runs)
        runs = search.next_runs()
    return search


def test_optuna_is_told_the_mean_over_the_seeds(plan, tmp_path):
    search = Search(plan, tmp_path / "samples.json")
    first, second = search.next_runs()
    search.add(first, Outcome({"mAP@5": 0.25}, 1))
    assert [trial.state for trial in search.study.trials] == [TrialState.FAIL]  # of the draw, which `add` enters again
    search.add(second, Outcome({"mAP@5": 0.75}, 1))
    assert search.study.best_value == 0.5
    assert search.study.best_params == search.samples[0]
    first, second = search.next_runs()
    search.add(first, Outcome({}, 1, course=(0.1, 0.2), stopped=True))
    search.add(second, Outcome({}, 1, error="no luck"))
    assert search.study.trials[-1].state == TrialState.PRUNED
    assert search.study.trials[-1].intermediate_values == {1: 0.1, 2: 0.2}
    for run in search.next_runs():
        search.add(run, Outcome({}, 1, error="no luck"))
    assert search.study.trials[-1].state == TrialState.FAIL


def test_a_search_ends_when_no_setting_is_left(write, tmp_path):
    plan = grid.read(write({"search": "optuna", "samples": 9, "grid": {"size": [8, 16]}, "seeds": 1}))
    search = Search(plan, tmp_path / "samples.json")
    assert sorted(run.name for run in [*search.next_runs(), *search.next_runs()]) == ["sample-000_0", "sample-001_0"]
    assert search.next_runs() == []
    assert {sample["size"] for sample in search.samples} == {"8", "16"}


def test_settings_of_other_factors_are_refused(plan, tmp_path):
    (tmp_path / "samples.json").write_text(json.dumps([{"margin": 0.5}]))
    message = "samples.json: must contain settings of the factors way, margin, size; found a setting of margin: give"
    with pytest.raises(BadRequest, match=message):
        Search(plan, tmp_path / "samples.json")


def test_results_outside_changed_ranges_are_left_out(plan, tmp_path):
    (tmp_path / "samples.json").write_text(json.dumps([{"margin": 5.0, "size": 8, "way": "nt_xent"}]))
    search = Search(plan, tmp_path / "samples.json")
    finish(search, search.planned_runs())
    assert search.study.trials == []
