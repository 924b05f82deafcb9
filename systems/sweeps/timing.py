"""The dry run of a sweep: list its runs, and estimate how long they take.

The estimate comes from the runs that are done, or else from a few steps that are timed.
"""

import contextlib
import io
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import lightning
import torch
from lightning.pytorch.profilers import SimpleProfiler
from pydantic import BaseModel
from torch.utils.data import ConcatDataset

from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset
from evaluation.findings import WARNING, BadRequest, Faulty, Finding, say
from evaluation.text import table
from systems import contract
from systems.sweeps.grid import PlannedRun
from systems.sweeps.job import Job, describe_run
from systems.sweeps.results import DONE, Results, duration
from systems.training import Collate, Run, Schedule

CLIPS, STEPS = 48, 4  # that are timed
LOADING = "[_TrainingEpochLoop].train_dataloader_next"  # the profiler's names
SAVING = "[Callback]Course.on_train_epoch_end"


@dataclass(frozen=True)
class TimedRun(Run):
    """A run of a few steps on a few clips, from which the time of all steps on all clips is estimated.

    Attributes:
        shares: For each split, how many times more clips it has.
        spent: Seconds that each `fit` took.
        estimates: Seconds that each `fit` would take on all clips.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    spent: list[float] = field(default_factory=list)
    estimates: list[float] = field(default_factory=list)

    def fit(
        self,
        module: lightning.LightningModule,
        train: Sequence,
        validation: Sequence,
        collate: Collate,
        plan: Schedule,
    ) -> None:
        """Take some steps of one epoch, and estimate how long all epochs take."""
        profiler, began = SimpleProfiler(), time.perf_counter()
        flags = {**self.flags, "profiler": profiler, "limit_train_batches": STEPS}
        items = math.ceil(len(train) * self.shares[DEVELOPMENT])
        batch = min(plan.batch, items)
        short = plan.model_copy(update={"epochs": 1, "batch": batch})
        enough = ConcatDataset([train] * math.ceil(STEPS * batch / len(train)))
        super(TimedRun, replace(self, flags=flags)).fit(module, enough, validation, collate, short)
        seconds = profiler.recorded_durations
        steps, loads = seconds["run_training_batch"], seconds[LOADING]
        (epoch,) = seconds["run_training_epoch"]
        step = fmean(steps[1:] or steps) + fmean(loads)  # the first step warms up
        validating = (epoch - sum(steps) - sum(loads)) * self.shares[VALIDATION]
        whole_epoch = math.ceil(items / batch) * step + validating + sum(seconds[SAVING])
        self.estimates.append(plan.epochs * whole_epoch)
        self.spent.append(time.perf_counter() - began)


def show(job: Job, results: Results, configs: Mapping[str, BaseModel], dataset: Dataset, slots: int | None) -> None:
    """Print a sweep's runs, and how long those take that are not done.

    Args:
        job: What the runs have in common.
        results: The runs and their state.
        configs: The config of each run.
        dataset: The splits to train on.
        slots: The number of runs at the same time; None if only the cluster knows.
    """
    runs = results.runs
    rows = [[run.name, *run.levels.values(), run.seed, results.state(run)] for run in runs]
    print(table(rows, ["run", *results.factors, "seed", "state"], numbers=[len(results.factors) + 1]))
    if len(runs) < results.total:
        print(f"and {results.total - len(runs)} runs of settings that are sampled later")
    left = results.left
    text = f"{results.total} runs, {results.total - left} done"
    if not left:
        print(text)
        return
    took = [results.outcomes[run.name].seconds for run in results.having(DONE)]
    took = [seconds for seconds in took if not math.isnan(seconds)]
    if took:
        mean, how = fmean(took), f"those that are done took {duration(fmean(took))} on average"
    else:
        times = estimate(job, runs, configs, dataset)
        if times is None:
            print(f"{text}; {job.system} does not train by Run.fit: there are no steps to time, and so no estimate")
            return
        mean = fmean(times.values())
        how = f"{STEPS} steps timed with each level, for all epochs; embedding and predicting add to it"
    total = mean * left
    together = f", {total / 3600 / slots:.2g} h of {slots}" if slots else ""
    print(f"{text}; about {total / 3600:.2g} h of one worker{together} ({how})")


def estimate(
    job: Job, runs: Sequence[PlannedRun], configs: Mapping[str, BaseModel], dataset: Dataset
) -> dict[str, float] | None:
    """Estimate how long each run trains at most; training may stop before its last epoch.

    The first setting is timed, and each setting that differs from it in one level. The differences are added up for
    the other settings. A setting that cannot be trained gives a warning; the first one must be one that can.

    Args:
        job: What the runs have in common.
        runs: The runs.
        configs: The config of each run.
        dataset: The splits to train on.

    Returns:
        Seconds by the run's name; None if the system does not train by `Run.fit`, so that no steps can be timed.
    """
    torch.set_num_threads(job.cpus)
    splits, shares = {}, {}
    for name in (DEVELOPMENT, VALIDATION):
        splits[name] = replace(dataset[name], clips=dataset[name].clips[:CLIPS], relevance=None)
        shares[name] = len(dataset[name].clips) / len(splits[name].clips)
    few = Dataset(dataset.folder, splits)
    first = runs[0]
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="timing.") as folder:
        base = _time(job, first, configs[first.name], few, shares, Path(folder))
        if base is None:
            return None
        added: dict[tuple[str, str], float] = {}
        for run in runs:
            differences = set(run.levels.items()) - set(first.levels.items())
            if len(differences) != 1 or differences <= set(added):
                continue
            (level,) = differences
            try:
                added[level] = _time(job, run, configs[run.name], few, shares, Path(folder)) - base
            except (BadRequest, Faulty) as reason:
                added[level] = 0.0
                message = f"{reason}; it will fail, as others may"
                findings.append(Finding(run.name, message=message, severity=WARNING))
    say(findings)
    seconds = {}
    for run in runs:
        more = [added.get(level, 0.0) for level in run.levels.items()]
        seconds[run.name] = max(0.0, base + sum(more))
    return seconds


def _time(
    job: Job, run: PlannedRun, config: BaseModel, few: Dataset, shares: Mapping[str, float], folder: Path
) -> float | None:
    """Return the seconds that a run would train, or None if there are no steps to time."""
    for attempt in ("embed", "train"):  # the second time, the embeddings are in the cache
        place = folder / run.name / attempt
        plain = describe_run(job, place, config, few, run.seed)
        fields = {name: getattr(plain, name) for name in Run.__dataclass_fields__}
        timed = TimedRun(**fields, shares=shares)
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            contract.train(contract.system(job.system), config, few, timed)
        around = time.perf_counter() - began - sum(timed.spent)
    if timed.estimates:
        return around + sum(timed.estimates)
    return None
