"""One run of a sweep, in the process that makes it: train, predict, score, and record the outcome."""

import contextlib
import errno
import gc
import json
import math
import os
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock
from pydantic import BaseModel

from evaluation import scores
from evaluation.cli import system_failure
from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset, Split, read_dataset
from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import captioning
from evaluation.text import first_items, printable
from systems import contract, runs
from systems.sweeps.grid import PlannedRun
from systems.training import Run

FULL_DISK = 4 * 2**20  # bytes; a disk with less free space counts as full, because libraries hide the system's error

# Called after each epoch with the monitored value of every epoch so far (higher is better).
# Returns whether to continue.
AfterEpoch = Callable[[Sequence[float]], bool]


@dataclass(frozen=True)
class Job:
    """What all runs of a sweep have in common.

    Attributes:
        system: Import name of the system.
        base: The config that the runs change.
        data: The data folder.
        split: The split that is predicted and scored.
        metric: The metric that is compared.
        out: The sweep's folder.
        cache: Folder of the cache.
        here: The folder to which paths in configs are relative.
        stop_early: True if runs wait after each epoch for permission to continue.
        gpus: GPUs of each run, or a share of one.
        cpus: Processors of each run.
    """

    system: str
    base: Mapping[str, object]
    data: Path
    split: str
    metric: str
    out: Path
    cache: Path
    here: Path
    stop_early: bool = False
    gpus: float = 0
    cpus: int = 1

    @property
    def flags(self) -> dict[str, object]:
        """Lightning's settings for a run."""
        accelerator = "auto" if self.gpus else "cpu"
        return {"accelerator": accelerator, "devices": 1}

    def run_folder(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.out / "runs" / name

    def record(self, name: str) -> Path:
        """Return the file with the parts of a run's outcome that its own folder does not hold."""
        return self.out / "records" / f"{name}.json"


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        values: The value of each metric; empty unless the run is done.
        seconds: The time that it took; NaN if that is not known.
        error: The reason why it failed; empty if it did not fail.
        full_disk: The folder whose disk was full, if that is the reason.
        course: With early stopping, the monitored value after each epoch (higher is better).
        stopped: True if it was stopped early.
    """

    values: Mapping[str, float]
    seconds: float
    error: str = ""
    full_disk: str = ""
    course: tuple[float, ...] = ()
    stopped: bool = False

    def save(self, path: Path) -> None:
        """Write the parts of the outcome that the run's own folder does not hold."""
        seconds = None
        if not math.isnan(self.seconds):
            seconds = self.seconds
        content = {
            "seconds": seconds,
            "error": self.error,
            "course": list(self.course),
            "stopped": self.stopped,
        }
        with replacing(path) as part:
            part.write_text(json.dumps(content), encoding="utf-8")


def read_outcome(path: Path) -> Outcome:
    """Read an outcome that `Outcome.save` wrote; it has no metric values."""
    content = json.loads(path.read_text(encoding="utf-8"))
    seconds = content["seconds"]
    if seconds is None:
        seconds = math.nan
    course = tuple(content.get("course", ()))
    return Outcome({}, seconds, content["error"], course=course, stopped=content.get("stopped", False))


@dataclass(frozen=True)
class SweepRun(Run):
    """A run that asks after each epoch whether to continue.

    Attributes:
        after_epoch: The function that decides.
        asks_in: The folder of the run that asks. Earlier stages of a training have other folders and do not ask.
    """

    after_epoch: AfterEpoch | None = None
    asks_in: Path = field(default_factory=Path)

    def continues(self, values: Sequence[float]) -> bool:
        """Return whether to train another epoch."""
        if self.after_epoch is None or self.folder != self.asks_in:
            return True
        return self.after_epoch(values)


def describe_run(
    job: Job, folder: Path, config: BaseModel, dataset: Dataset, seed: int, after_epoch: AfterEpoch | None = None
) -> SweepRun:
    """Describe the training of a run, for the system to train it.

    Args:
        job: What the sweep's runs have in common.
        folder: The run folder.
        config: The run's config.
        dataset: The data to train on.
        seed: The seed.
        after_epoch: Decides after each epoch whether to continue (default: always continue).
    """
    digests = {name: split.digest for name, split in dataset.splits.items()}
    return SweepRun(folder, job.system, config, digests, seed, job.cache, job.flags, after_epoch, folder)


def read_data(folder: Path, name: str) -> tuple[Dataset, Split]:
    """Read the splits to train on, and the split to score.

    Args:
        folder: The data folder.
        name: The split to score.
    """
    return read_dataset(folder, DEVELOPMENT, VALIDATION), read_dataset(folder, name)[name]


class Worker:
    """A maker of runs, one after another, which keeps the data in memory between them."""

    def __init__(self, job: Job):
        self.job = job

    @cached_property
    def data(self) -> tuple[Dataset, Split]:
        """The splits to train on, and the split to score."""
        return read_data(self.job.data, self.job.split)

    def make(self, run: PlannedRun, after_epoch: AfterEpoch | None = None) -> Outcome:
        """Train a run, predict with it and score the prediction.

        Args:
            run: The run.
            after_epoch: Decides after each epoch whether to continue (default: always continue).

        Returns:
            The outcome, which includes any error. It is also saved, unless a disk was full.

        Raises:
            KeyboardInterrupt: `after_epoch` ended the training.
        """
        began = time.monotonic()
        course: list[float] = []

        recorded = None
        if after_epoch:
            recorded = partial(_record_course, course, after_epoch)
        try:
            values = self._make_logged(run, recorded)
            outcome = Outcome(values, time.monotonic() - began, course=tuple(course))
        except Exception as error:
            full_disk = _full_disk(error, self.job.out, self.job.cache)
            outcome = Outcome({}, time.monotonic() - began, _reason(error), full_disk)
        finally:
            gc.collect()  # a trainer and its model refer to each other
        if not outcome.full_disk:
            outcome.save(self.job.record(run.name))
        return outcome

    def _make_logged(self, run: PlannedRun, after_epoch: AfterEpoch | None) -> Mapping[str, float]:
        """Make a run, and write everything that is printed into its log."""
        log_file = self.job.out / "logs" / f"{run.name}.log"
        lock = self.job.out / "records" / f"{run.name}.lock"
        for path in (log_file, lock):
            path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # A worker of a sweep that was killed may still be making the run.
            stack.enter_context(FileLock(lock))
            # Line buffering, so that no line is lost if the process is killed.
            log = stack.enter_context(log_file.open("a", 1, "utf-8", "backslashreplace"))
            stack.enter_context(contextlib.redirect_stdout(log))
            stack.enter_context(contextlib.redirect_stderr(log))
            try:
                return self._make(run, after_epoch)
            except Exception:
                traceback.print_exc()
                raise

    def _make(self, run: PlannedRun, after_epoch: AfterEpoch | None) -> Mapping[str, float]:
        job = self.job
        self._prepare_process()
        dataset, split = self.data
        system = contract.system(job.system)
        config = contract.validate(system.Config, {**job.base, **run.values}, lambda key: "the sweep file")
        folder = job.run_folder(run.name)
        contract.train(system, config, dataset, describe_run(job, folder, config, dataset, run.seed, after_epoch))
        task = "captioning" if job.metric in captioning.METRICS else "retrieval"
        trusted = [job.system, *contract.text_values(config)]  # the user wrote the sweep file that names them
        print(runs.predict(folder, split, job.cache, task, trusted))
        return metric_values(runs.score(folder, split, job.metric, job.cache))

    def _prepare_process(self) -> None:
        """Set the environment, the folder and the threads of the process; Tune changes the folder for each run."""
        # With SLURM's variables, Lightning would treat Ray's workers as the tasks of one training.
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            del os.environ[name]
        os.chdir(self.job.here)
        torch.set_num_threads(self.job.cpus)


def metric_values(score: scores.Score) -> dict[str, float]:
    """Return the value of each metric of a score."""
    return {name: measured.estimate.value for name, measured in score.metrics.items()}


def _full_disk(error: Exception, *folders: Path) -> str:
    """Return the folder whose disk is full if that is the reason for an error; otherwise an empty text."""

    def free(folder: Path) -> float:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
        return math.inf

    fullest = min(folders, key=free)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        if not error.filename:
            return str(fullest)
        for folder in folders:
            if Path(error.filename).is_relative_to(folder):
                return str(folder)
        return ""
    if free(fullest) < FULL_DISK:
        return str(fullest)
    return ""


def _reason(error: Exception) -> str:
    """Return the reason why a run failed, in one line."""
    if isinstance(error, Faulty):
        return printable(first_items([str(finding) for finding in error.findings], limit=1))
    if isinstance(error, BadRequest):
        return printable(str(error))
    if isinstance(error, OSError):
        return system_failure(error)
    return printable(f"{type(error).__name__}: {error}")


def _record_course(course: list[float], after_epoch: AfterEpoch, values: Sequence[float]) -> bool:
    """Keep the monitored values of all epochs, and return whether to continue."""
    course[:] = values
    return after_epoch(values)
