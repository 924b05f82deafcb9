"""Measures of the `submission` package: checking one output file, and the leaderboard of forty systems."""

import io
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from pypdf import PdfWriter

from bench.measuring import Function, Measure, Row, duration, race, times
from evaluation.data.dataset import Clip, Split
from evaluation.predictions import Similarity
from submission import leaderboard as boards
from submission import outputs, scoring, tasks
from submission.tasks import Key, Task

SIZE = 1000  # number of queries, and number of clips
PACKAGES = 10
# An output of the first task has the ten best clips of each query. One of the second task has the scores of all clips.
TASKS = ("dcase2022-6b", "dcase2025-6")


def verdict(alone: Function, folder: Path) -> list[Row]:
    """Measure `dcase-submission validate` for one output file of the official size.

    The time is that of the whole command, including the start of Python. The command is compared with a script that
    reads the file with pandas and checks its shape.
    """
    task, split = tasks.read(TASKS[0]), split_of_sentences(SIZE)
    scores = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    path = folder / "output.csv"
    outputs.write(task, Similarity(split.queries, split.file_names, scores), split, path)

    def run(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True)  # noqa: S603

    assert task.k is not None  # the task's outputs have the ten best clips
    script = f"import pandas; assert pandas.read_csv({str(path)!r}).shape == ({SIZE}, {task.k.value + 1})"
    ours, theirs = race(
        lambda: run("-m", "submission", "validate", str(path), "--task", task.name),
        lambda: run("-c", script),
        rounds=5,
    )
    what = f"submission validate, {SIZE} rows, including the start of Python / a script with pandas"
    return [Row(what, duration(ours), duration(theirs), times(theirs / ours), "< 1 s", ours < 1)]


def leaderboard(alone: Function, folder: Path) -> list[Row]:
    """Measure the leaderboard of forty systems with 1000 queries and 1000 clips, in ten zips.

    The time includes checking, scoring, ranking and writing the leaderboard. It is compared with a script that only
    reads the output files in the zips with pandas, in as many processes. No leaderboard can be much faster than that.
    """
    rows = []
    for name in TASKS:
        ours, floor, systems = alone(_board, folder / name, name)
        what = f"leaderboard of {systems} systems of {SIZE} x {SIZE}, {name} / only reading them with pandas"
        note = f"measured once; {scoring.WORKERS} processes"
        rows.append(Row(what, duration(ours), duration(floor), times(floor / ours), "< 10 s", ours < 10, note))
    return rows


def _board(folder: Path, name: str) -> tuple[float, float, int]:
    """Return the seconds of the leaderboard, those of reading the outputs with pandas, and the number of systems."""
    task = tasks.read(name)
    split = split_of_sentences(SIZE)
    rng = np.random.default_rng(0)
    packages = []
    for team in range(PACKAGES):
        packages.append(package(task, split, folder / "packages", f"Team{team}", rng))
    began = time.perf_counter()
    board = boards.run(task, folder / "packages", dict.fromkeys(task.sets, split), folder / "board")
    seconds = time.perf_counter() - began
    if board.errors:
        raise RuntimeError(f"the packages must be valid; found:\n{board.findings_text()}")
    return seconds, _seconds_of_pandas(packages), len(board.systems.rows)


READ_WITH_PANDAS = """
import sys, zipfile
import pandas
for package in sys.argv[1:]:
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            if name.endswith(".csv"):
                pandas.read_csv(archive.open(name))
"""


def _seconds_of_pandas(packages: Sequence[Path]) -> float:
    """Return the seconds that `scoring.WORKERS` processes need to read all CSV files in packages with pandas.

    They include the start of Python and the import of pandas.
    """
    began = time.perf_counter()
    processes = []
    for number in range(scoring.WORKERS):
        share = map(str, packages[number :: scoring.WORKERS])
        processes.append(subprocess.Popen([sys.executable, "-c", READ_WITH_PANDAS, *share]))  # noqa: S603
    for process in processes:
        if process.wait() != 0:
            raise RuntimeError("pandas could not read the packages")
    return time.perf_counter() - began


def split_of_sentences(size: int) -> Split:
    """Return a split of this number of clips, which have one caption each and no audio files."""
    clips = []
    for number in range(size):
        name = f"clip {number:04}.wav"
        clips.append(Clip(name, (f"Sound {number} is heard.",), Path(name)))
    return Split("retrieval", tuple(clips))


def package(task: Task, split: Split, folder: Path, author: str, rng: np.random.Generator) -> Path:
    """Write a package with the largest number of systems that a team may submit.

    The scores are random, but the correct clip of each query gets a slightly higher score.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / task.package.file.value.format(author=author, institute="KIT")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for index in range(1, task.systems.value + 1):
            names = _names(task, author, index)
            inner = task.package.folder.value.format(**names)
            scores = rng.normal(size=(len(split.queries), len(split.clips))).astype(np.float32)
            scores += np.float32(rng.uniform(1, 3)) * np.eye(len(scores), dtype=np.float32)
            output_file = folder.parent / "output.csv"
            outputs.write(task, Similarity(split.queries, split.file_names, scores), split, output_file)
            for output in task.sets.values():
                out.write(output_file, f"{inner}/{output.file.value.format(**names)}")
            metadata = {block: _example(fact.value, names) for block, fact in task.metadata.items()}
            out.writestr(f"{inner}/{task.package.metadata.value.format(**names)}", yaml.safe_dump(metadata))
        out.writestr(task.package.report.value.format(**names), _report())
    return path


def _names(task: Task, author: str, index: int) -> dict[str, str]:
    """Return the values of the fields in the patterns of a system's file names."""
    names = task.label_fields(task.label.value.format(author=author, institute="KIT", index=index))
    assert names is not None  # a label of the task's own pattern
    return names


def _report() -> bytes:
    """Return a PDF with one empty page."""
    writer, content = PdfWriter(), io.BytesIO()
    writer.add_blank_page(width=595, height=842)
    writer.write(content)
    return content.getvalue()


def _example(key: Key, names: dict[str, str], name: str = "") -> object:
    """Return an example value of a metadata key, including all keys below it."""
    if key.keys:
        inner = {name: _example(inner_key, names, name) for name, inner_key in key.keys.items()}
        if "corresponding" in key.keys:
            inner["corresponding"] = True
        return [inner] if key.many else inner
    by_name = {"label": names["label"], "lastname": names["author"], "email": "someone@example.org", "url": None}
    by_type = {"text": "example", "number": 0.5, "integer": 7, "yes-no": True}
    return by_name.get(name, by_type[key.type])


MEASURES: dict[str, Measure] = {"verdict": verdict, "leaderboard": leaderboard}
