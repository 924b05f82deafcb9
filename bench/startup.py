"""Measures of starting commands: a wrong request, and a training up to its first step."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.measuring import Function, Measure, Row, duration
from evaluation.data.soundscapes import generate

CLIPS = {"development": 32, "validation": 8, "evaluation": 8}
ROUNDS = 3
# Runs a command of systems, and ends the process when the first training step begins.
UP_TO_FIRST_STEP = """
import os, sys
from baseline import retriever
from systems.__main__ import main
retriever.Training.training_step = lambda *arguments: os._exit(0)
sys.exit(main())
"""
REQUEST, TRAINING = 1, 8  # targets in seconds


def startup(alone: Function, folder: Path) -> Iterator[Row]:
    """Measure the processor time of commands that mostly import libraries, compared with the import of torch."""
    work = folder / "startup"
    data = work / "data"
    generate.make_soundscapes(data, clips=CLIPS, progress=False)
    torch = min(processor_time("-c", "import torch") for _ in range(ROUNDS))
    note = f"processor time; best of {ROUNDS}"

    train = ["-m", "systems", "train", "baseline.retriever", "--data", str(data), "--cache", str(work / "cache")]
    wrong = [*train, "--run", str(work / "wrong"), "--set", "margin=-1"]
    ours = min(processor_time(*wrong, status=2) for _ in range(ROUNDS))
    what = "refuse a wrong value in a config / import torch"
    yield Row(what, duration(ours), duration(torch), "", f"≤ {REQUEST} s", ours <= REQUEST, note)

    durations = []
    for number in range(ROUNDS + 1):
        arguments = [*train[2:], "--run", str(work / f"run {number}")]
        durations.append(processor_time("-c", UP_TO_FIRST_STEP, *arguments))
    ours = min(durations[1:])  # the first one fills the cache
    what = "train the baseline retriever until its first step begins, with cached features / import torch"
    note += "; includes training of word vectors"
    yield Row(what, duration(ours), duration(torch), "", f"≤ {TRAINING} s", ours <= TRAINING, note)


def processor_time(*arguments: str, status: int = 0) -> float:
    """Run Python with arguments, and return the processor time in seconds.

    Args:
        *arguments: The arguments of the Python interpreter.
        status: The exit status that is expected.

    Raises:
        RuntimeError: The exit status is another one. The message is what the process printed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != status:
        raise RuntimeError(done.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


MEASURES: dict[str, Measure] = {"startup": startup}
