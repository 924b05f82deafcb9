"""How long a sweep will take, before it is begun: from runs that are done, else from steps that are timed."""

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
from evaluation.findings import WARNING, BadRequest, Faulty, Finding, say, table
from systems import contract
from systems.sweeps.grid import Planned
from systems.sweeps.sweep import Job, Results, clock, make_run
from systems.training import Collate, Run, Schedule

CLIPS, STEPS = 48, 4  # that are timed


@dataclass(frozen=True)
class Timing(Run):
    """A run of a few steps on a few clips, which says how long all would take on all.

    Attributes:
        shares: Of each split, how many times more clips there are.
        spent: Seconds that each `fit` took.
        estimates: Seconds that each would take.
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
        """Take some steps of one epoch, and estimate what all epochs take."""
        profiler, began = SimpleProfiler(), time.perf_counter()
        flags = {**self.flags, "profiler": profiler, "limit_train_batches": STEPS}
        items = math.ceil(len(train) * self.shares[DEVELOPMENT])
        batch = min(plan.batch, items)
        short = plan.model_copy(update={"epochs": 1, "batch": batch})
        enough = ConcatDataset([train] * math.ceil(STEPS * batch / len(train)))
        super(Timing, replace(self, flags=flags)).fit(module, enough, validation, collate, short)
        steps, loads = profiler.recorded_durations["run_training_batch"], "[_TrainingEpochLoop].train_dataloader_next"
        loading, (epoch,) = profiler.recorded_durations[loads], profiler.recorded_durations["run_training_epoch"]
        step = fmean(steps[1:] or steps) + fmean(loading)  # the first one warms up
        validation_seconds = epoch - sum(steps) - sum(loading)
        saving = sum(profiler.recorded_durations["[Callback]Course.on_train_epoch_end"])
        epoch = math.ceil(items / batch) * step + validation_seconds * self.shares[VALIDATION] + saving
        self.estimates.append(plan.epochs * epoch)
        self.spent.append(time.perf_counter() - began)


def show(job: Job, results: Results, configs: Mapping[str, BaseModel], dataset: Dataset, slots: int | None) -> None:
    """List a sweep's runs, and estimate how long those take that are not done, of which `slots` go on at once."""
    runs = results.runs
    rows = [[run.name, *run.levels.values(), run.seed, results.state(run)] for run in runs]
    print(table(rows, ["run", *runs[0].levels, "seed", "state"], numbers=[len(runs[0].levels) + 1]))
    left = [run for run in runs if results.state(run) != "done"]
    text = f"{len(runs)} runs, {len(runs) - len(left)} done"
    done = (outcome for outcome in results.outcomes.values() if not outcome.error)
    took = [outcome.seconds for outcome in done if outcome.seconds == outcome.seconds]
    if not left:
        print(text)
        return
    if took:
        total, how = fmean(took) * len(left), f"those that are done took {clock(fmean(took))} on average"
    else:
        found = seconds(job, runs, configs, dataset)
        if found is None:
            print(f"{text}; {job.system} does not train by Run.fit: there are no steps to time, and so no estimate")
            return
        total = sum(found[run.name] for run in left)
        how = f"{STEPS} steps timed with each level, for all epochs; what embedding and predicting take comes on top"
    together = f", {total / 3600 / slots:.2g} h of {slots}" if slots else ""  # what a cluster has, only it knows
    print(f"{text}; about {total / 3600:.2g} h of one worker{together} ({how})")


def seconds(
    job: Job, runs: Sequence[Planned], configs: Mapping[str, BaseModel], dataset: Dataset
) -> dict[str, float] | None:
    """Seconds that training each run takes, by its name: at most, as training may stop early.

    The first setting is timed, and each that differs from it in one level; what levels add is taken to add up. Of a
    setting that cannot be trained it is said why; the first must be one that can.

    Returns:
        None where the system takes no steps that could be timed.
    """
    torch.set_num_threads(job.cpus)
    few = Dataset(
        dataset.folder,
        {
            DEVELOPMENT: replace(dataset[DEVELOPMENT], clips=dataset[DEVELOPMENT].clips[:CLIPS], relevance=None),
            VALIDATION: replace(dataset[VALIDATION], clips=dataset[VALIDATION].clips[:CLIPS], relevance=None),
        },
    )
    findings: list[Finding] = []
    shares = {name: len(dataset[name].clips) / len(split.clips) for name, split in few.splits.items()}
    with tempfile.TemporaryDirectory(prefix="timing.") as folder:

        def timed(run: Planned) -> float | None:
            for attempt in ("embed", "train"):  # the second time the embeddings are there
                place = Path(folder) / run.name / attempt
                timing = Timing(**vars(make_run(job, place, configs[run.name], few, run.seed)), shares=shares)
                began = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):
                    contract.train(contract.system(job.system), configs[run.name], few, timing)
                around = time.perf_counter() - began - sum(timing.spent)
            return around + sum(timing.estimates) if timing.estimates else None

        first = runs[0]
        base = timed(first)
        if base is None:
            return None
        adds: dict[tuple[str, str], float] = {}
        for run in runs:
            differs = [item for item in run.levels.items() if item not in first.levels.items()]
            if len(differs) == 1 and differs[0] not in adds:
                try:
                    adds[differs[0]] = timed(run) - base
                except (BadRequest, Faulty) as reason:
                    adds[differs[0]] = 0.0
                    findings.append(
                        Finding(run.name, message=f"{reason}; it will fail, as others may", severity=WARNING)
                    )
    say(findings)
    return {run.name: max(0.0, base + sum(adds.get(item, 0.0) for item in run.levels.items())) for run in runs}
