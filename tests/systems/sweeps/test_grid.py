"""The sweep file: the runs that it describes, and messages about files that are not valid."""

import pytest

from evaluation.findings import Faulty
from systems.sweeps import grid

SEARCH = {"search": "optuna", "samples": 3, "grid": None}
GAIN = {"margin": {"low": 0.1, "high": 1}}
NO_RANGES = "search: error: must come with `ranges` or `grid`; found neither: give at least"
TWICE = "the levels of size must differ; found {'size': [8, 8]}"
SAME_NAME = "runs must have different names; found 'a-b' for a b and a-b: rename their levels"


def configure(file):
    plan = grid.read(file)
    runs = grid.extremes(plan) if plan.search else grid.plan_runs(plan, file)
    return grid.configure(plan, runs, file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {}}, "grid: error: must have at least one factor; found none"),
        ({"grid": None}, "grid: error: must have at least one factor; found none"),
        ({"grid": {"size": []}}, "size must have at least one level; found {'size': []}"),
        ({"grid": {"size": [8, 8]}}, TWICE),
        ({"grid": {"sizes": [8]}}, "sizes: error: unknown key 'sizes'; did you mean 'size'?"),
        ({"grid": {"size": [0]}}, "size: error: Input should be greater than or equal to 1; found 0"),
        ({"grid": {"w": {"a b": {"size": 8}, "a-b": {"size": 9}}}}, SAME_NAME),
        ({"grid": {"epochs": [1]}}, "grid.epochs: error: must be in one place, but epochs is in set too"),
        ({"grid": {"seed": [1]}}, "grid.seed: error: must not be the name of a column of results"),
        ({"grid": {"size": ["x" * 300]}}, "names of runs must have at most 200 bytes"),
        ({"seeds": 0}, "seeds: error: List should have at least 1 item"),
        ({"seeds": [1, 1]}, "seeds must be different whole numbers of at least 0"),
        ({"seeds": [-1]}, "seeds must be different whole numbers of at least 0"),
        ({"seeds": [1, 1.0]}, "seeds must be different whole numbers of at least 0"),
        ({"seeds": [0, True]}, "seeds must be different whole numbers of at least 0"),
        ({"grid": {"size": {1: {"size": 8}, "1": {"size": 9}}}}, "the levels of size must differ"),
        ({"grid": {"size": ["x" * 180, "é" * 120]}}, "é'… with 242 bytes"),
        ({"metric": None}, "metric: error: is missing; give it"),
        ({"metric": "mAP"}, "metric: error: unknown metric 'mAP'; there are"),
        ({"gird": {}}, "gird: error: unknown key 'gird'; did you mean 'grid'?"),
        ({"search": "random"}, "search: error: Input should be 'optuna'; found 'random'"),
        ({"stop_early": "yes"}, "stop_early: error: Input should be 'asha'; found 'yes'"),
        ({"ranges": GAIN}, "ranges: error: must come with a search; add `search: optuna`, or leave it out"),
        ({"samples": 2}, "samples: error: must come with a search; add `search: optuna`, or leave it out"),
        (SEARCH, NO_RANGES),
        (SEARCH | {"ranges": GAIN, "samples": None}, "samples: error: is missing; give the number of settings to try"),
        (SEARCH | {"ranges": {"margin": {"low": 1, "high": 1}}}, "low must be below high"),
        (SEARCH | {"ranges": {"margin": {"low": 0, "high": 1, "log": True}}}, "low must be above 0 if log is true"),
        (SEARCH | {"ranges": {"margin": {"lo": 0}}}, "ranges.margin.lo: error: unknown key 'lo'; did you mean"),
        (SEARCH | {"ranges": {"marge": GAIN["margin"]}}, "marge: error: unknown key 'marge'"),
        (SEARCH | {"ranges": {"size": {"low": 0, "high": 9}}}, "size: error: Input should be greater than or equal"),
        (SEARCH | {"ranges": {"epochs": {"low": 1, "high": 9}}}, "must be in one place, but epochs is in set too"),
        (SEARCH | {"ranges": {"seed": {"low": 1, "high": 9}}}, "ranges.seed: error: must not be the name of a column"),
        (SEARCH | {"ranges": GAIN, "grid": {"margin": {"a": {"size": 8}}}}, "grid has a factor margin too"),
    ],
)
def test_messages_about_invalid_files(write, changes, message):
    with pytest.raises(Faulty) as fault:
        configure(write(changes))
    assert message in str(fault.value)
    assert fault.value.status == 2


def test_levels_keep_their_sign_in_the_names_of_runs(write):
    file = write({"grid": {"text_layer": [-1, 1, ".5", "<a>"]}, "seeds": 1})
    assert [run.name for run in grid.plan_runs(grid.read(file), file)] == ["-1_0", "1_0", "5_0", "a_0"]


def test_keys_come_from_the_config_file(write, tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("size: 5\nmargin: 2.5\ntext_encoder: none\n")
    file = write({"config": str(base), "grid": {"size": [8, 16]}})
    plan = grid.read(file)
    runs = grid.plan_runs(plan, file)
    configs = grid.configure(plan, runs, file)
    assert [run.name for run in runs] == ["8_0", "8_1", "16_0", "16_1"]
    assert [config.size for config in configs.values()] == [8, 8, 16, 16]
    assert {config.margin for config in configs.values()} == {2.5}
    base.write_text("sizes: 5\n")
    with pytest.raises(Faulty, match=r"base\.yaml: sizes: error: unknown key"):
        grid.configure(plan, runs, file)


def test_a_sample_has_a_run_for_each_seed_and_numbers_as_levels(write):
    ranges = {"margin": {"low": "1e-5", "high": 1, "log": True}, "size": {"low": 4, "high": 8}}
    ways = {"way": {"nt_xent": {"loss": "nt_xent"}}}
    plan = grid.read(write(SEARCH | {"ranges": ranges, "grid": ways}))
    assert [limits.is_whole for limits in plan.ranges.values()] == [False, True]
    first, second = grid.plan_sample(plan, 7, {"way": "nt_xent", "margin": 0.25, "size": 5})
    assert (first.name, second.name) == ("sample-007_0", "sample-007_1")
    assert first.levels == {"way": "nt_xent", "margin": "0.25", "size": "5"}
    assert first.values == {**plan.set, "loss": "nt_xent", "margin": 0.25, "size": 5}
