"""Fixtures: a team file, and run folders with predictions for a task's sets."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evaluation.data.dataset import Dataset
from submission import tasks
from submission.tasks import Task
from tests.submission import made


@pytest.fixture
def team_file(tmp_path: Path) -> Path:
    """A complete team file with its report."""
    (tmp_path / "report.pdf").write_bytes(made.PDF)
    (tmp_path / "team.yaml").write_text(yaml.safe_dump(made.TEAM), encoding="utf-8")
    return tmp_path / "team.yaml"


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], tuple[Task, list[Path], Dataset]]:
    """A task, two run folders with predictions for its sets, and a data set with sets of 12 clips."""

    def make(name: str) -> tuple[Task, list[Path], Dataset]:
        task = tasks.read(name)
        splits = {"development": made.described(), **{set_: made.asked(task, set_, 12, 6) for set_ in task.sets}}
        runs = [tmp_path / "first", tmp_path / "second"]
        for seed, run in enumerate(runs):
            for set_ in task.sets:
                made.answer(task, run, splits[set_], seed)
        return task, runs, Dataset(tmp_path / "clotho", splits)

    return make
