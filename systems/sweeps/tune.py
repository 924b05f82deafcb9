"""The part of a sweep that makes the runs with Ray Tune.

Tune starts the runs, tries them again after failures, stops them early, and reuses worker processes. Each run is a
trial of Tune. The worker process of a trial (Ray's word is actor) trains, predicts and scores in a thread. It keeps the
imported libraries and the data in memory for later trials. If a worker dies, Tune replaces it, and the run resumes from
its own checkpoints.

With `stop_early: asha`, a run reports its monitored validation value after each epoch and waits for Tune's decision.
ASHA (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning") compares runs after 1, 4, 16, 64, …
epochs. A run continues if its value is in the best quarter among the runs that have reached this epoch so far. The
checkpoints of a stopped run are kept, so it can be resumed. A run that has finished training is not stopped.

To resume a sweep, the run folders and the sweep's records are read, and Tune's own files are not used. With
`Tuner.restore`, a resumed sweep would continue from Tune's last snapshot, and could only make the runs that were
planned at its beginning. Without it, a sweep can be resumed after a seed or level was added to the sweep file, or after
some of the sweep's results were deleted.
"""

import contextlib
import errno
import logging
import math
import os
import queue
import re
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from evaluation.findings import BadRequest
from evaluation.text import printable
from systems.logs import quiet
from systems.sweeps.grid import PlannedRun
from systems.sweeps.job import Job, Outcome, Worker
from systems.sweeps.results import LiveTable, Results
from systems.workers import MESSAGE_LENGTH, environment, start_ray

if TYPE_CHECKING:
    from systems.sweeps.search import Search

LOGGERS = ("ray", "ray.tune", "ray.air", "ray.train")  # switched off, because the live table shows what happens
DEATHS = 3  # a run fails after this number of workers have died while they were making it
MOST_EPOCHS = 4**8  # maximum number of epochs after which ASHA compares runs
FOLDER = ".tune"  # folder in the sweep's folder for Tune's own files; it is removed at the end
TUNE_FAILURE = r"Failure # \d+ \(occurred at [^)]*\)"  # the heading that Tune writes before each failure of a trial
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's new output would print tables even with verbosity 0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # Tune must not write the results as CSV, JSON and TensorBoard files
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report of a run is its outcome, which includes no epoch
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C must end the sweep at once
}


# In the worker -------------------------------------------------------------------------------------------------------


class TrialThread:
    """A thread that makes a run. With early stopping, it waits after each epoch for permission to continue."""

    def __init__(self, worker: Worker, run: PlannedRun):
        self.worker, self.run = worker, run
        self.reports: queue.Queue[dict | BaseException] = queue.Queue()
        self.answers: queue.Queue[bool] = queue.Queue()
        self.thread = threading.Thread(target=self._make, daemon=True)
        self.is_waiting = False

    def next_report(self) -> dict:
        """Start or continue the run, wait for its next report, and return it: the values of an epoch or the outcome.

        Raises:
            RuntimeError: The thread ended with an exception.
        """
        if self.is_waiting:
            self.is_waiting = False
            self.answers.put(True)
        else:
            self.thread.start()
        report = self.reports.get()
        if isinstance(report, BaseException):
            raise RuntimeError(f"{type(report).__name__}: {report}") from report
        return report

    def stop(self) -> None:
        """End the run if it is waiting for permission to continue."""
        if self.is_waiting:
            self.answers.put(False)
            self.thread.join()

    def _make(self) -> None:
        try:
            after_epoch = self._ask if self.worker.job.stop_early else None
            outcome = self.worker.make(self.run, after_epoch)
            self.reports.put({"outcome": outcome._asdict(), "done": True})
        except BaseException as error:  # also SystemExit; otherwise `next_report` would wait forever
            self.reports.put(error)

    def _ask(self, values: Sequence[float]) -> bool:
        self.is_waiting = True
        self.reports.put({"epoch": len(values), "value": values[-1], "course": list(values)})
        return self.answers.get()


class RunTrainable(tune.Trainable):
    """The object with which Tune makes runs, one after another in the same process."""

    def setup(self, config: dict) -> None:
        """Prepare the first run. The worker keeps libraries and data in memory for later runs."""
        self.worker = Worker(config["job"])
        self.training = TrialThread(self.worker, config["run"])

    def reset_config(self, new_config: dict) -> bool:
        """End the present run if it is waiting, and prepare the next run in this process."""
        self.training.stop()
        self.training = TrialThread(self.worker, new_config["run"])
        return True

    def step(self) -> dict:
        """Start or continue the run until its next report, and return the report."""
        return self.training.next_report()

    def cleanup(self) -> None:
        """End the present run if it is waiting for permission to continue."""
        self.training.stop()


# In the command ------------------------------------------------------------------------------------------------------


class Suggestions(Searcher):
    """The object that gives Tune the next run: first the planned runs in their order, then the runs of a search."""

    def __init__(self, job: Job, results: Results, waiting: Sequence[PlannedRun], search: "Search | None"):
        super().__init__()
        self.job, self.results, self.search = job, results, search
        self.waiting = deque(waiting)

    def suggest(self, trial_id: str) -> dict | str:
        """Return the run and the job for the next trial, or `FINISHED`.

        If the search samples new runs, they are added to the results.
        """
        if not self.waiting and self.search:
            runs = self.search.next_runs()
            self.waiting += runs
            self.results.runs += runs
        if not self.waiting:
            return Searcher.FINISHED
        return {"run": self.waiting.popleft(), "job": self.job}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Do nothing: `Recorder` adds the outcome to the search."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the run folders and the sweep's records show what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class Recorder(tune.Callback):
    """The callback of Tune that records the outcome of each trial and updates the live table.

    Attributes:
        fault: The exception that must end the sweep, if any. It is raised at the end of Tune's current step, because
            Tune suppresses exceptions within a step.
    """

    def __init__(self, job: Job, results: Results, search: "Search | None", table: LiveTable, slots: int):
        self.job, self.results, self.search, self.table, self.slots = job, results, search, table, slots
        self.deaths_in_a_row = 0
        self.fault: Exception | None = None

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Record a run that is done, has failed or was stopped early. If a disk was full, end the sweep instead."""
        self.deaths_in_a_row = 0
        result = trial.last_result
        if "outcome" in result:
            outcome = Outcome(**result["outcome"])
        else:
            outcome = Outcome({}, result["time_total_s"], course=tuple(result["course"]), stopped=True)
            outcome.save(self.job.record(trial.config["run"].name))
        if outcome.full_disk:
            self.fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), outcome.full_disk)
        else:
            self._record(trial, outcome)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Count the death of a worker. Tune tries its run again."""
        self._count_death(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Record a run as failed, because `DEATHS` workers died while they were making it."""
        self._count_death(trial)
        outcome = Outcome({}, math.nan, f"its worker died {DEATHS} times: {_last_error(trial)}")
        outcome.save(self.job.record(trial.config["run"].name))
        self._record(trial, outcome)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Draw the table, or raise the exception that must end the sweep."""
        if self.fault:
            raise self.fault
        self.table.draw([trial.config["run"] for trial in trials if trial.status == Trial.RUNNING])

    def _record(self, trial: Trial, outcome: Outcome) -> None:
        run = trial.config["run"]
        self.results.outcomes[run.name] = outcome
        self.results.save()
        if self.search:
            self.search.add(run, outcome)
        self.table.add(run)

    def _count_death(self, trial: Trial) -> None:
        self.deaths_in_a_row += 1
        if self.deaths_in_a_row >= DEATHS * (self.slots + 1):
            logs = self.job.out / "logs"
            self.fault = BadRequest(f"workers die one after another ({_last_error(trial)}); read the logs in {logs}")


def _last_error(trial: Trial) -> str:
    """Return the reason why the worker of a trial died, as one line of text."""
    last = re.split(TUNE_FAILURE, str(trial.get_error()))[-1]
    return printable(" ".join(last.split())[:MESSAGE_LENGTH])


def make_runs(job: Job, results: Results, waiting: Sequence[PlannedRun], search: "Search | None", slots: int) -> None:
    """Make runs until all have ended.

    Args:
        job: The options that all runs share.
        results: The results. The outcome of each run is added to them, and results.csv is written again.
        waiting: The planned runs, in the order in which to make them.
        search: The search that samples further runs, if any.
        slots: The number of runs to make at the same time.

    Raises:
        OSError: A disk is full.
        BadRequest: Many workers in a row die, in one or several runs.
    """
    table = LiveTable(results, slots)
    recorder = Recorder(job, results, search, table, slots)
    storage = job.out / FOLDER
    shutil.rmtree(storage, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(RunTrainable, {"cpu": job.cpus, "gpu": job.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=Suggestions(job, results, waiting, search),
            scheduler=_asha(results) if job.stop_early else None,
            num_samples=results.left,
            max_concurrent_trials=slots,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(storage),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # checkpoints are in the run folders
            failure_config=tune.FailureConfig(max_failures=DEATHS - 1),
            callbacks=[recorder],
            verbose=0,
        ),
    )
    try:
        with environment(ENVIRONMENT), quiet(logging.CRITICAL, *LOGGERS):
            tuner.fit()
    finally:
        table.erase()
        shutil.rmtree(storage, ignore_errors=True)


def _asha(results: Results) -> TrialScheduler:
    """Return the scheduler that stops runs early. It is given the courses of runs that have already ended."""
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric="value",
        mode="max",
        max_t=MOST_EPOCHS,
        grace_period=1,
        reduction_factor=4,
        stop_last_trials=False,
    )
    for name, outcome in results.outcomes.items():
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        for epoch, value in enumerate(outcome.course, 1):
            scheduler.on_trial_result(None, trial, {"epoch": epoch, "value": value})
    return scheduler


@contextlib.contextmanager
def cluster(address: str) -> Iterator[list[dict[str, float]]]:
    """Within the block, join a cluster or start Ray on this machine, unless Ray is initialised already.

    Args:
        address: HOST:PORT of a cluster, `auto` for the cluster that runs on this machine, or empty to start Ray on this
            machine.

    Yields:
        For each node, a dict from Ray's names of resources, such as `CPU`, to their numbers.

    Raises:
        BadRequest: The cluster does not answer, or Ray does not start.
    """
    is_ours = not ray.is_initialized()
    if is_ours:
        start_ray(address)
    try:
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        if is_ours:
            ray.shutdown()
