"""The results of a sweep: the states of runs, results.csv, and the printed tables."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.findings import BadRequest
from systems.sweeps import grid, results
from systems.sweeps.grid import PlannedRun
from systems.sweeps.job import Job, Outcome, read_data
from systems.sweeps.results import LiveTable, Results

RUNS = [PlannedRun(f"{words}_{seed}", {"words": words}, seed, {"words": words}) for words in "ab" for seed in (0, 1)]
DONE, STOPPED = Outcome({"bleu_1": 0.5}, 100), Outcome({}, 7, course=(0.1, 0.2), stopped=True)
ERROR = Outcome({}, 0.25, "no luck")


@pytest.fixture
def four(tmp_path):
    """Four runs, of which one is open."""
    outcomes = {"a_0": DONE, "a_1": STOPPED, "b_0": ERROR}
    return Results(tmp_path / "results.csv", ("words",), "bleu_1", 4, list(RUNS), outcomes)


def test_results_have_a_row_for_each_run(four):
    four.save()
    assert four.path.read_text() == (
        "run,words,seed,state,seconds,error,bleu_1\n"
        "a_0,a,0,done,100.0,,0.5\n"
        "a_1,a,1,stopped,7.0,,\n"
        "b_0,b,0,failed,0.2,no luck,\n"
        "b_1,b,1,open,,,\n"
    )
    assert four.left == 2  # the failed one is tried again


def test_values_are_written_with_all_digits(four):
    four.outcomes["a_0"] = Outcome({"cider_d": 0.1 + 0.2, "bleu_1": 1 / 3}, 1)
    four.save()
    with four.path.open() as file:
        row = next(csv.DictReader(file))
    assert list(row)[-2:] == ["bleu_1", "cider_d"]
    assert (row["bleu_1"], row["cider_d"]) == (str(1 / 3), str(0.1 + 0.2))


def test_ten_failed_runs_are_listed_and_the_others_counted(tmp_path):
    runs = [PlannedRun(f"a_{seed}", {"words": "a"}, seed, {}) for seed in range(13)]
    outcomes = {run.name: ERROR for run in runs}
    lines = str(Results(tmp_path / "results.csv", ("words",), "bleu_1", 13, runs, outcomes)).splitlines()
    assert lines[0] == "13 of 13 runs failed; the same command tries them again:"
    assert lines[1:-1] == [*(f"  a_{seed}: no luck" for seed in range(10)), "  and 3 more"]


def test_the_summary_tells_of_stopped_and_failed_runs(four):
    text = str(four)
    assert re.search(r"^a +0\.5000 +– +1 +0\.5000$", text, re.MULTILINE)
    assert "1 of 4 runs were stopped early; leave stop_early out of the sweep file" in text
    assert "1 of 4 runs failed; the same command tries them again:\n  b_0: no luck" in text


def test_a_line_for_each_run_where_there_is_no_terminal(four, capsys):
    table = LiveTable(four, 2)
    four.outcomes["b_0"] = DONE
    table.add(RUNS[2])
    four.outcomes["b_1"] = STOPPED
    table.add(RUNS[3])
    table.draw([])
    assert capsys.readouterr().out.splitlines() == [
        "4 runs, 2 of them already done; 2 at a time",
        "b_0: bleu_1 0.500 in 1 min 40 s; 3 of 4, about 1 min 40 s left",
        "b_1: stopped after epoch 2; 4 of 4",
    ]


def test_a_table_on_a_terminal(four, capsys, monkeypatch):
    monkeypatch.setattr(results.sys.stdout, "isatty", lambda: True, raising=False)
    table = LiveTable(four, 2)
    table.draw(RUNS[3:])
    table.draw(RUNS[3:])  # too soon: not drawn again
    four.outcomes["b_0"] = ERROR
    table.add(RUNS[2])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["2 of 4; 0 s elapsed", "running: b_1"]
    assert lines[-1].endswith("\x1b[Jb_0: failed: no luck")
    assert len(lines) == 7


def test_states_are_read_from_the_folder(place, write, tmp_path):
    file = write({"system": "captioner_system", "set": {}, "grid": {"words": ["a", "b"]}, "metric": "bleu_1"})
    plan = grid.read(file)
    runs = grid.plan_runs(plan, file)
    configs = grid.configure(plan, runs, file)
    job = Job(plan.system, {}, place / "data", "evaluation", "bleu_1", tmp_path, tmp_path, Path(), stop_early=True)
    dataset, split = read_data(job.data, job.split)
    ERROR.save(job.record("a_0"))
    STOPPED.save(job.record("a_1"))
    for stop_early, state in ((True, "stopped"), (False, "open")):
        there = Results(tmp_path / "results.csv", plan.factors, "bleu_1", 4, runs)
        results.read_outcomes(there, replace(job, stop_early=stop_early), configs, dataset, split)
        assert [there.state(run) for run in runs] == ["failed", state, "open", "open"]
        assert there.outcomes["a_0"] == ERROR


def test_only_an_empty_folder_or_a_sweep_is_written_to(tmp_path):
    results.check_folder(tmp_path / "new")
    # A sweep leaves these if the disk was full or it was killed before it wrote its first results.
    (tmp_path / ".results.csv.1.part").touch()
    (tmp_path / "lock").touch()
    results.check_folder(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadRequest, match="must be the folder of a sweep or empty; found files"):
        results.check_folder(tmp_path)
    (tmp_path / "results.csv").touch()
    results.check_folder(tmp_path)
