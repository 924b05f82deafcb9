"""The part of a sweep that makes a single run in a worker process.

A run is trained, predicts, and is scored. Then its outcome is recorded.
"""

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

# A disk with less free space, in bytes, counts as full. The error does not show this, because some libraries replace
# the system's error by their own.
FULL_DISK = 4 * 2**20

# A function that is called after each epoch with the monitored value of every epoch so far, negated if lower is better.
# It returns whether to continue.
AfterEpoch = Callable[[Sequence[float]], bool]


@dataclass(frozen=True)
class Job:
    """The settings that all runs of a sweep share.

    Attributes:
        system: Import name of the system.
        base: The values of config keys that the runs start from. Each run changes some of them.
        data: The data folder.
        split: The name of the split to predict and score.
        metric: The metric that the sweep compares.
        out: The sweep's folder.
        cache: Folder of the cache.
        here: The working folder of the command. Relative paths in configs start from it.
        stop_early: True if runs wait after each epoch for permission to continue.
        gpus: Number of GPUs of each run, or the share of one GPU.
        cpus: Number of processors of each run.
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
        """Return the path of the file with those parts of a run's outcome that are not in the run folder."""
        return self.out / "records" / f"{name}.json"


class Outcome(NamedTuple):
    """The outcome of a run that is done, has failed, or was stopped early.

    Attributes:
        values: A dict from each metric to its value; empty unless the run is done.
        seconds: The time in seconds that the run took; NaN if it is not known.
        error: The reason why the run failed; empty if it did not fail.
        full_disk: The folder whose disk was full; empty if the run did not fail for this reason.
        course: The monitored value after each epoch, negated if lower is better; empty without early stopping.
        stopped: True if the run was stopped early.
    """

    values: Mapping[str, float]
    seconds: float
    error: str = ""
    full_disk: str = ""
    course: tuple[float, ...] = ()
    stopped: bool = False

    def save(self, path: Path) -> None:
        """Write those parts of the outcome that are not in the run folder."""
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
    """Read an outcome that `Outcome.save` wrote. Its `values` are empty, because they are in the run's score file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    seconds = content["seconds"]
    if seconds is None:
        seconds = math.nan
    course = tuple(content.get("course", ()))
    return Outcome({}, seconds, content["error"], course=course, stopped=content.get("stopped", False))


@dataclass(frozen=True)
class SweepRun(Run):
    """A training run that asks after each epoch whether to continue.

    Attributes:
        after_epoch: The function that decides (default: always continue).
        asks_in: A run folder. Only the training in this folder asks. Earlier stages of a training may have folders of
            their own, and these stages do not ask.
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
    """Return the `Run` object with which a system trains a run of a sweep.

    Args:
        job: The settings that the sweep's runs share.
        folder: The run folder.
        config: The run's config.
        dataset: The data to train on.
        seed: The seed.
        after_epoch: The function that decides after each epoch whether to continue (default: always continue).
    """
    digests = {name: split.digest for name, split in dataset.splits.items()}
    return SweepRun(
        folder, job.system, config, digests, seed, job.cache, job.flags, after_epoch=after_epoch, asks_in=folder
    )


def read_data(folder: Path, name: str) -> tuple[Dataset, Split]:
    """Read the development and validation splits, and the split to score.

    Args:
        folder: The data folder.
        name: The name of the split to score.

    Raises:
        BadRequest: As for `read_dataset`.
        Faulty: As for `read_dataset`.
    """
    return read_dataset(folder, DEVELOPMENT, VALIDATION), read_dataset(folder, name)[name]


class Worker:
    """An object that makes runs one after another, and keeps the data in memory between them."""

    def __init__(self, job: Job):
        self.job = job

    @cached_property
    def data(self) -> tuple[Dataset, Split]:
        """The development and validation splits, and the split to score."""
        return read_data(self.job.data, self.job.split)

    def make(self, run: PlannedRun, after_epoch: AfterEpoch | None = None) -> Outcome:
        """Train a run, predict with it and score the prediction.

        Args:
            run: The run.
            after_epoch: The function that decides after each epoch whether to continue (default: always continue).

        Returns:
            The outcome. If the run fails, the outcome contains the error. It is also saved, unless a disk was full.

        Raises:
            KeyboardInterrupt: `after_epoch` ended the training, or the process was interrupted.
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
            gc.collect()  # frees the trainer and the model, which refer to each other
        if not outcome.full_disk:
            outcome.save(self.job.record(run.name))
        return outcome

    def _make_logged(self, run: PlannedRun, after_epoch: AfterEpoch | None) -> Mapping[str, float]:
        """Make a run. Append all output, also the traceback of an exception, to the run's log."""
        log_file = self.job.out / "logs" / f"{run.name}.log"
        lock = self.job.out / "records" / f"{run.name}.lock"
        for path in (log_file, lock):
            path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            # If an earlier sweep was killed, one of its workers may still be making this run.
            stack.enter_context(FileLock(lock))
            # 1 means line buffering, so that no complete line is lost if the process is killed.
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
        trusted = [job.system, *contract.text_values(config)]  # the user wrote the sweep file that names these modules
        print(runs.predict(folder, split, job.cache, task, trusted))
        return metric_values(runs.score(folder, split, job.metric, job.cache))

    def _prepare_process(self) -> None:
        """Set the environment, the working folder and the number of threads of the process.

        This is repeated for each run, because Tune changes the working folder for each run.
        """
        # If SLURM's variables were set, Lightning would treat Ray's workers as the processes of one training.
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            del os.environ[name]
        os.chdir(self.job.here)
        torch.set_num_threads(self.job.cpus)


def metric_values(score: scores.Score) -> dict[str, float]:
    """Return a dict from each metric of a score to its value."""
    return {name: measured.estimate.value for name, measured in score.metrics.items()}


def _full_disk(error: Exception, *folders: Path) -> str:
    """Return the folder whose disk is full, or an empty text if a full disk is not the reason for an error.

    Args:
        error: The error.
        *folders: The folders whose disks are checked.
    """

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
    """Return the reason why a run failed, as one line of text."""
    if isinstance(error, Faulty):
        return printable(first_items([str(finding) for finding in error.findings], limit=1))
    if isinstance(error, BadRequest):
        return printable(str(error))
    if isinstance(error, OSError):
        return system_failure(error)
    return printable(f"{type(error).__name__}: {error}")


def _record_course(course: list[float], after_epoch: AfterEpoch, values: Sequence[float]) -> bool:
    """Store the monitored values of all epochs in `course`, and return the decision of `after_epoch`."""
    course[:] = values
    return after_epoch(values)
