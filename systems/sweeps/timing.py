"""The dry run of a sweep, which lists the runs and estimates how long they take.

The estimate uses the mean time of the runs that are done. If no run is done, a few training steps are timed.
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
from systems.parts.extra import WithExtra
from systems.sweeps.grid import PlannedRun
from systems.sweeps.job import Job, describe_run
from systems.sweeps.results import DONE, Results, duration
from systems.training import Collate, Run, Schedule

CLIPS, STEPS = 48, 4  # maximum number of clips of each split, and number of training steps, that are used for timing
# The names of two actions in the profiler's results.
LOADING = "[_TrainingEpochLoop].train_dataloader_next"
SAVING = "[Callback]Course.on_train_epoch_end"


@dataclass(frozen=True)
class TimedRun(Run):
    """A run of a few training steps on a few clips, from which the time of the complete training is estimated.

    Attributes:
        shares: A dict from the name of each split to the number of all its clips, divided by the number of clips that
            are used for timing.
        spent: For each call of `fit`, the seconds that the call took.
        estimates: For each call of `fit`, the estimated seconds of the complete training: on all clips, for all epochs.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    spent: list[float] = field(default_factory=list)
    estimates: list[float] = field(default_factory=list)

    def fit(
        self,
        module: lightning.LightningModule,
        train: Sequence | WithExtra,
        validation: Sequence,
        collate: Collate,
        schedule: Schedule,
    ) -> None:
        """Make a few training steps, and estimate how long all epochs would take."""
        profiler, began = SimpleProfiler(), time.perf_counter()
        flags = {**self.flags, "profiler": profiler, "limit_train_batches": STEPS}
        items = math.ceil(len(train) * self.shares[DEVELOPMENT])
        batch = min(schedule.batch, items)
        short = schedule.model_copy(update={"epochs": 1, "batch": batch})
        every_item = train.items if isinstance(train, WithExtra) else train
        enough = ConcatDataset([every_item] * math.ceil(STEPS * batch / len(every_item)))
        super(TimedRun, replace(self, flags=flags)).fit(module, enough, validation, collate, short)
        seconds = profiler.recorded_durations
        steps, loads = seconds["run_training_batch"], seconds[LOADING]
        (epoch,) = seconds["run_training_epoch"]
        step = fmean(steps[1:] or steps) + fmean(loads)  # the first step is slower, so it is left out
        validating = (epoch - sum(steps) - sum(loads)) * self.shares[VALIDATION]
        whole_epoch = math.ceil(items / batch) * step + validating + sum(seconds[SAVING])
        self.estimates.append(schedule.epochs * whole_epoch)
        self.spent.append(time.perf_counter() - began)


def show(job: Job, results: Results, configs: Mapping[str, BaseModel], dataset: Dataset, slots: int | None) -> None:
    """Print a sweep's runs, and an estimate of the time that is needed for the runs that are not done.

    Args:
        job: The settings that the runs share.
        results: The runs and their states.
        configs: A dict from the name of each run to its config.
        dataset: The development and validation splits.
        slots: The number of runs that are made at the same time; None if it depends on a cluster.
    """
    runs = results.runs
    rows = [[run.name, *run.levels.values(), run.seed, results.state(run)] for run in runs]
    print(table(rows, ["run", *results.factors, "seed", "state"], numbers=[len(results.factors) + 1]))
    if len(runs) < results.total:
        print(f"and {results.total - len(runs)} runs whose settings Optuna will choose later")
    left = results.left
    text = f"{results.total} runs, {results.total - left} done"
    if not left:
        print(text)
        return
    seconds_of_done = [results.outcomes[run.name].seconds for run in results.having(DONE)]
    seconds_of_done = [seconds for seconds in seconds_of_done if not math.isnan(seconds)]
    if seconds_of_done:
        mean = fmean(seconds_of_done)
        how = f"the runs that are done took {duration(mean)} on average"
    else:
        seconds_of_runs = estimate(job, runs, configs, dataset)
        if seconds_of_runs is None:
            print(f"{text}; no estimate, because {job.system} does not train with Run.fit, whose steps could be timed")
            return
        mean = fmean(seconds_of_runs.values())
        how = f"estimated for all epochs from {STEPS} timed steps with each level; excludes embedding and predicting"
    hours = mean * left / 3600
    text += f"; about {hours:.2g} h on one worker"
    if slots:
        text += f", {hours / slots:.2g} h on {slots}"
    print(f"{text} ({how})")


def estimate(
    job: Job, runs: Sequence[PlannedRun], configs: Mapping[str, BaseModel], dataset: Dataset
) -> dict[str, float] | None:
    """Estimate the maximum training time of each run. The real time is shorter if training stops before its last epoch.

    First, a run with the first setting is timed. Then each other level is timed, in a run that differs from the first
    setting only in this level. The difference of the two times is the additional time of the level. The estimate for a
    run is the time of the first setting plus the additional times of the run's levels. If a level cannot be timed
    because its run cannot be trained, a warning is printed, and the additional time is 0.

    Args:
        job: The settings that the runs share.
        runs: The runs.
        configs: A dict from the name of each run to its config.
        dataset: The development and validation splits.

    Returns:
        A dict from the name of each run to its time in seconds; None if the system does not train with `Run.fit`, so
        that its steps cannot be timed.

    Raises:
        BadRequest: The first setting cannot be trained.
        Faulty: The first setting cannot be trained. The exception lists all findings.
    """
    torch.set_num_threads(job.cpus)
    splits, shares = {}, {}
    for name in (DEVELOPMENT, VALIDATION):
        # Clips with extra captions come first, because a config that draws extra captions needs some.
        clips = sorted(dataset[name].clips, key=lambda clip: -len({extra.source for extra in clip.extra}))
        splits[name] = replace(dataset[name], clips=tuple(clips[:CLIPS]), relevance=None)
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
                with_level = _time(job, run, configs[run.name], few, shares, Path(folder))
                if with_level is None:  # no steps can be timed: assume the same time as for the first setting
                    with_level = base
                added[level] = with_level - base
            except (BadRequest, Faulty) as reason:
                added[level] = 0.0
                message = f"{reason}; this run will fail, and other runs may fail too"
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
    """Return the estimated training time of a run in seconds, or None if it does not train with `Run.fit`.

    Args:
        job: The settings that the runs share.
        run: The run.
        config: The run's config.
        few: The data to use for timing.
        shares: As for `TimedRun`.
        folder: An empty folder for the run folders.
    """
    for attempt in ("embed", "train"):  # in the second attempt, which counts, the embeddings are in the cache already
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
