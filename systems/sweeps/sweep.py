"""The command `dcase-systems sweep`, which makes many runs of one system on one machine or on a cluster.

    dcase-systems sweep FILE --data DIR --out SWEEP

The sweep file (`systems.sweeps.grid`) describes the runs. The sweep's folder contains:

    results.csv    a row for each run: levels, seed, state, seconds, error, metrics (`dcase-evaluation report` reads it)
    runs/NAME      the run folder of each run, with its prediction and its score
    logs/NAME.log  the output of each run, with the traceback if it failed
    records/       the time that each run took, the reason if it failed, whether it was stopped early, and the settings
                   of a search

Run the command again to resume: it skips runs that are done, resumes interrupted runs, and tries failed runs again.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel

from evaluation import predictions
from evaluation.data.dataset import EVALUATION, Split
from evaluation.files import cache_folder
from evaluation.findings import BadRequest
from evaluation.metrics import captioning
from systems.sweeps import grid
from systems.sweeps.grid import Plan, PlannedRun
from systems.sweeps.job import Job, read_data
from systems.sweeps.results import DONE, FAILED, OPEN, STOPPED, Results, check_folder, read_outcomes
from systems.workers import check_ray

if TYPE_CHECKING:
    from systems.sweeps.search import Search

INSTALL = "install dcase-kit[cluster]"


def sweep(
    file: Path,
    folder: Path,
    out: Path,
    *,
    split: str = EVALUATION,
    cache: Path | None = None,
    address: str = "",
    cpus: int = 1,
    gpus: float | None = None,
    dry: bool = False,
) -> int:
    """Make all runs of a sweep that are not done, write results.csv, and print a summary.

    Args:
        file: The sweep file.
        folder: The data folder.
        out: The sweep's folder.
        split: The name of the split to predict and score.
        cache: Folder of the cache (default: `files.cache_folder`).
        address: HOST:PORT of a cluster, or `auto` for the cluster that runs on this machine (default: start Ray on this
            machine).
        cpus: Number of processors of each run.
        gpus: Number of GPUs of each run, or the share of one GPU (default: one GPU if there are any).
        dry: If True, only list the runs and estimate their time.

    Returns:
        The number of runs that failed.

    Raises:
        BadRequest: The request cannot be carried out on this machine, the folder contains other files, another sweep
            is running in the folder, or workers die one after another.
        Faulty: The sweep file, the data or runs in the folder are not valid. The exception lists all findings of the
            first check that fails.
        OSError: A disk is full.
    """
    _check_resources(cpus, gpus)
    cache = cache or cache_folder()
    plan = grid.read(file)
    if plan.search:
        runs = grid.extremes(plan)
    else:
        runs = grid.plan_runs(plan, file)
    configs = grid.configure(plan, runs, file)
    if plan.stop_early:
        _check_monitors(configs)
    dataset, scored = read_data(folder, split)
    _check_metric(plan.metric, scored, cache)
    job = Job(
        plan.system,
        grid.read_base(plan),
        folder.resolve(),
        split,
        plan.metric,
        out.resolve(),
        cache.resolve(),
        Path.cwd(),
        stop_early=plan.stop_early is not None,
        gpus=gpus or 0,
        cpus=cpus,
    )
    check_folder(job.out)
    search, total = None, len(runs)
    if plan.search:
        search, total = _open_search(plan, job), plan.samples * len(plan.seeds)
        runs = search.planned_runs(draw=dry)
        configs = grid.configure(plan, runs, file)
    results = Results(job.out / "results.csv", plan.factors, plan.metric, total, runs)
    read_outcomes(results, job, configs, dataset, scored)
    if dry:
        from systems.sweeps import timing

        here = [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}]
        if gpus is None:
            job = replace(job, gpus=default_gpus(here))
        slots = None
        if not address:
            slots = count_slots(here, job)
        timing.show(job, results, configs, dataset, slots)
        return 0
    check_ray(address, f"sweeps need ray; {INSTALL}")
    with _only_sweep(job.out):
        results.save()
        if results.left:
            _make_runs(plan, job, results, search, address, gpus)
        else:
            print(f"{total} runs; no run is left to make")
    print(results)
    return len(results.having(FAILED))


def _open_search(plan: Plan, job: Job) -> "Search":
    """Open the search of a sweep. Optuna is imported only in this function.

    Raises:
        BadRequest: Optuna is not installed, or the stored settings are from a sweep with other factors.
    """
    try:
        from systems.sweeps.search import Search
    except ModuleNotFoundError as missing:
        if missing.name != "optuna":
            raise
        raise BadRequest(f"search: optuna needs Optuna; {INSTALL}") from None
    return Search(plan, job.out / "records" / "samples.json")


def _make_runs(
    plan: Plan, job: Job, results: Results, search: "Search | None", address: str, gpus: float | None
) -> None:
    """Make the runs that are not done. Ray Tune is imported only in this function, because that takes seconds."""
    from systems.sweeps import tune

    if search:
        for run in results.having(DONE, STOPPED):
            search.add(run, results.outcomes[run.name])
    with tune.cluster(address) as nodes:
        if gpus is None:
            job = replace(job, gpus=default_gpus(nodes))
        waiting = _in_order(results.having(OPEN, FAILED), plan)
        tune.make_runs(job, results, waiting, search, count_slots(nodes, job))


def _check_resources(cpus: int, gpus: float | None) -> None:
    """Check the numbers of processors and GPUs that the user gives for each run.

    Raises:
        BadRequest: A number is not valid.
    """
    if cpus < 1:
        raise BadRequest(f"--cpus must be 1 or more; found {cpus}")
    if gpus is None:
        return
    is_share = 0 <= gpus <= 1
    is_whole = gpus > 1 and gpus % 1 == 0
    if not is_share and not is_whole:
        raise BadRequest(f"--gpus must be a share of a GPU from 0 to 1, or a whole number; found {gpus:g}")


def _check_monitors(configs: Mapping[str, BaseModel]) -> None:
    """Make sure that early stopping can compare the runs: their configs must have the same `monitor`.

    Raises:
        BadRequest: Two configs have different monitors.
    """
    monitors = dict.fromkeys(str(getattr(config, "monitor", None)) for config in configs.values())
    if len(monitors) > 1:
        message = "with stop_early, all runs must have the same monitor, because its values are compared"
        raise BadRequest(f"{message}; found {', '.join(monitors)}: set one monitor, or leave stop_early out")


def _check_metric(metric: str, split: Split, cache: Path) -> None:
    """Make sure that the metric can be computed, so that this does not fail only after hours of training.

    To check a metric of captioning, it is computed on two clips, with a reference caption of each as the prediction.

    Raises:
        BadRequest: The metric is not available on this machine, or the split has no captions and no relevance.
    """
    if metric in captioning.METRICS:
        few = Split(split.name, split.clips[:2])
        captions = tuple(next(iter(clip.captions), "") for clip in few.clips)
        score = captioning.evaluate(predictions.Captions(few.file_names, captions), few, metrics=[metric], cache=cache)
        if metric in score.unavailable:
            raise BadRequest(f"metric {metric} is not available: {score.unavailable[metric]}")
    elif not split.truth:
        message = f"the split {split.name} must have captions or relevance for {metric}; found neither"
        raise BadRequest(f"{message}: give another split with --split")


def default_gpus(nodes: Sequence[Mapping[str, float]]) -> int:
    """Return the default number of GPUs of a run: 1 if any node has a GPU, otherwise 0."""
    return int(any(node.get("GPU", 0) for node in nodes))


def count_slots(nodes: Sequence[Mapping[str, float]], job: Job) -> int:
    """Return the number of runs that can be made at the same time.

    All processors and GPUs of a run must be on one node. If a run needs a share of a GPU, it must fit on a single GPU.

    Args:
        nodes: For each node, a dict from Ray's names of resources (`CPU`, `GPU`) to their numbers.
        job: The settings of the runs, with the numbers of processors and GPUs of each run.

    Raises:
        BadRequest: No run fits.
    """
    slots = 0
    for node in nodes:
        gpus = int(node.get("GPU", 0))
        fit = int(node.get("CPU", 0)) // job.cpus
        if job.gpus >= 1:
            fit = min(fit, gpus // int(job.gpus))
        elif job.gpus:
            fit = min(fit, gpus * int(1 / job.gpus))
        slots += fit
    if not slots:
        available = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
        needed = f"{job.cpus} processors and {job.gpus:g} GPUs"
        found = f"found machines with {available}"
        raise BadRequest(f"a run needs {needed} on one machine; {found}: lower --cpus or --gpus")
    return slots


def _in_order(runs: Sequence[PlannedRun], plan: Plan) -> list[PlannedRun]:
    """Sort runs by their seeds first, so that the first results include every setting.

    Among the runs with the same seed, the first factor changes fastest. It is often the encoder, and workers that start
    with different encoders need not wait until another worker has computed the embeddings. The runs of a search are not
    sorted.
    """
    if plan.search:
        return list(runs)

    def place(run: PlannedRun) -> list[int]:
        places = [plan.seeds.index(run.seed)]
        for factor in reversed(plan.grid):
            levels = list(plan.grid[factor])
            places.append(levels.index(run.levels[factor]))
        return places

    return sorted(runs, key=place)


@contextlib.contextmanager
def _only_sweep(out: Path) -> Iterator[None]:
    """Within the block, allow no other sweep in the folder. The folder is created if it does not exist.

    Raises:
        BadRequest: Another sweep is running in the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadRequest(f"{out}: another sweep is running there; wait until it ends, or stop it") from None
    try:
        yield
    finally:
        lock.release()
