"""Many runs of one system: every combination of a grid's levels, with several seeds, on one machine or many.

    python -m systems sweep FILE --data DIR --out SWEEP

What to run stands in a YAML file (`systems.sweeps.grid`), and what comes of it in a folder:

    results.csv    a row for each run: levels, seed, state, seconds, error, metrics (`evaluation report` reads it)
    runs/NAME      each run: a folder like any other, trained, predicted with and scored
    logs/NAME.log  what the run printed, with the traceback where it failed
    records/       how long each run took, and why it failed

Ray's workers make the runs. Each imports the libraries and reads the data once, and goes from run to run; what encoders
say of a sound is computed once and kept in the cache that all share. A run that is done is not made again; one that was
cut off goes on where it was. A run that fails is recorded, the others go on, and the next command tries it again. A
worker that dies is replaced, and its run goes on. The seeds' first runs of all settings come first, so that an early
look at the results sees every setting.
"""

import contextlib
import csv
import errno
import gc
import io
import json
import math
import os
import shutil
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel

from evaluation import predictions, scores
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION, Dataset, Split, read_dataset
from evaluation.files import replacing
from evaluation.findings import BadRequest, Faulty, printable, system_failure
from evaluation.metrics import captioning
from evaluation.statistics import factors
from systems import contract, runs
from systems.sweeps import grid
from systems.sweeps.grid import Planned
from systems.training import Run

DEATHS = 3  # of the workers that make a run, after which it counts as failed
FULL = 4 * 2**20  # bytes; a disk with less free is full, whatever a library's error says
ANSWER = 5.0  # s, within which a cluster must answer
BEST = 5  # settings that are shown
SHOWN = 10  # failures
ADVICE = "start ray there (ray start --head), or leave --address out to use this machine alone"
SHORT = 200  # letters of another library's message


# One run, where it is made -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What all runs of a sweep have in common.

    Attributes:
        system: Import name of the system.
        data: The data folder.
        split: The split that is predicted and scored.
        metric: What is compared.
        out: The sweep's folder.
        cache: Folder of the cache.
        here: The folder that paths in configs are relative to.
        gpus: GPUs of each run, or a share of one.
        cpus: Processors of each run.
    """

    system: str
    data: Path
    split: str
    metric: str
    out: Path
    cache: Path
    here: Path
    gpus: float = 0
    cpus: int = 1

    @property
    def flags(self) -> dict[str, object]:
        """Lightning's flags."""
        return {"accelerator": "auto" if self.gpus else "cpu", "devices": 1}

    def record(self, name: str) -> Path:
        """Where it is kept how long a run took and why it failed."""
        return self.out / "records" / f"{name}.json"


class Outcome(NamedTuple):
    """What became of a run."""

    values: Mapping[str, float]  # of the metrics; empty where it failed
    seconds: float
    error: str = ""
    full: str = ""  # the disk that was full

    def save(self, path: Path) -> None:
        """Write what the run's own folder does not say."""
        with replacing(path) as part:
            seconds = self.seconds if self.seconds == self.seconds else None
            part.write_text(json.dumps({"seconds": seconds, "error": self.error}), encoding="utf-8")


class Worker:
    """Makes runs, one after another: ray keeps it in a process of its own."""

    def __init__(self, job: Job):
        self.job = job

    @cached_property
    def ready(self) -> tuple[Dataset, Split]:
        """The data; the process is made ready for lightning and for the system."""
        # Lightning would take ray's workers for the tasks of one training.
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            del os.environ[name]
        os.chdir(self.job.here)
        torch.set_num_threads(self.job.cpus)
        return read_data(self.job.data, self.job.split)

    def make(self, run: Planned, config: BaseModel) -> Outcome:
        """Train, predict and score; whatever goes wrong is in the outcome."""
        began, job = time.monotonic(), self.job
        log, lock = job.out / "logs" / f"{run.name}.log", job.out / "records" / f"{run.name}.lock"
        try:
            for path in (log, lock):
                path.parent.mkdir(parents=True, exist_ok=True)
            # A worker of a sweep that was killed may not have noticed yet.
            with (
                FileLock(lock),
                log.open("a", 1, "utf-8", "backslashreplace") as said,  # by lines: a kill loses none
                contextlib.redirect_stdout(said),
                contextlib.redirect_stderr(said),
            ):
                try:
                    values = self._made(run, config)
                except Exception:
                    traceback.print_exc()
                    raise
            outcome = Outcome(values, time.monotonic() - began)
        except Exception as error:
            outcome = Outcome({}, time.monotonic() - began, _reason(error), _full(error, job.out, job.cache))
        gc.collect()  # a trainer and its model know each other
        if not outcome.full:
            outcome.save(job.record(run.name))
        return outcome

    def _made(self, run: Planned, config: BaseModel) -> Mapping[str, float]:
        dataset, split = self.ready
        folder = self.job.out / "runs" / run.name
        training = make_run(self.job, folder, config, dataset, run.seed)
        contract.train(contract.system(self.job.system), config, dataset, training)
        task = "captioning" if self.job.metric in captioning.METRICS else "retrieval"
        trusted = [self.job.system, *contract.texts(config)]  # by the sweep's file, which is the user's
        print(runs.predict(folder, split, self.job.cache, task, trusted))
        return _figures(runs.score(folder, split, self.job.metric, self.job.cache))


def read_data(folder: Path, name: str) -> tuple[Dataset, Split]:
    """Read what is trained on, and the split that is scored."""
    return read_dataset(folder, DEVELOPMENT, VALIDATION), read_dataset(folder, name)[name]


def make_run(job: Job, folder: Path, config: BaseModel, dataset: Dataset, seed: int) -> Run:
    """The run that a system trains into."""
    digests = {name: split.digest for name, split in dataset.splits.items()}
    return Run(folder, job.system, config, digests, seed, job.cache, job.flags)


def _figures(score: scores.Score) -> dict[str, float]:
    return {name: measured.estimate.value for name, measured in score.metrics.items()}


def _full(error: Exception, *folders: Path) -> str:
    """The folder whose disk is full, where that is why something failed."""

    def free(folder: Path) -> float:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
        return math.inf

    fullest = min(folders, key=free)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        if not error.filename:
            return str(fullest)
        return next((str(folder) for folder in folders if Path(error.filename).is_relative_to(folder)), "")
    return str(fullest) if free(fullest) < FULL else ""


def _reason(error: Exception) -> str:
    if isinstance(error, Faulty):
        rest = f" (and {len(error.findings) - 1} more)" if len(error.findings) > 1 else ""
        return printable(str(error.findings[0]) + rest)
    if isinstance(error, BadRequest):
        return printable(str(error))
    if isinstance(error, OSError):
        return system_failure(error)
    return printable(f"{type(error).__name__}: {error}")


# The results ---------------------------------------------------------------------------------------------------------


@dataclass
class Results:
    """What is known of every run; results.csv.

    Attributes:
        path: The file.
        runs: The runs, in the order of the rows.
        metric: What is compared.
        outcomes: Of the runs that ended, by name.
    """

    path: Path
    runs: Sequence[Planned]
    metric: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def failed(self) -> list[Planned]:
        """The runs that failed."""
        return [run for run in self.runs if self.state(run) == "failed"]

    def state(self, run: Planned) -> str:
        """`done`, `failed`, or `open`: not begun, or not ended."""
        if run.name not in self.outcomes:
            return "open"
        return "failed" if self.outcomes[run.name].error else "done"

    def save(self) -> None:
        """Write results.csv, whole or not at all; the metric that is compared stands before the others."""
        names = dict.fromkeys([self.metric, *(name for one in self.outcomes.values() for name in one.values)])
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        before, after = factors.AROUND[:1], factors.AROUND[1:]
        writer.writerow([*before, *self.runs[0].levels, *after, *names])
        for run in self.runs:
            outcome = self.outcomes.get(run.name, Outcome({}, math.nan))
            seconds = f"{outcome.seconds:.1f}" if outcome.seconds == outcome.seconds else ""
            figures = [outcome.values.get(name, "") for name in names]
            writer.writerow(
                [run.name, *run.levels.values(), run.seed, self.state(run), seconds, outcome.error, *figures]
            )
        with replacing(self.path) as part:
            part.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")

    def __str__(self) -> str:
        """The best settings, the runs that failed, and what to do next."""
        found = self.best()
        lines = [factors.settings_table(self.metric, tuple(self.runs[0].levels), found[:BEST])] if found else []
        if self.failed:
            lines.append(f"{len(self.failed)} of {len(self.runs)} runs failed; the same command tries them again:")
            lines += [f"  {run.name}: {self.outcomes[run.name].error}" for run in self.failed[:SHOWN]]
            lines += [f"  and {len(self.failed) - SHOWN} more"] if len(self.failed) > SHOWN else []
        return "\n".join([*lines, f"{self.path}: python -m evaluation report {self.path}"])

    def best(self) -> list[factors.Setting]:
        """The settings that were scored, the best first."""
        scored = [run for run in self.runs if self.state(run) == "done"]
        found = [
            factors.Result(tuple(run.levels.values()), run.seed, self.outcomes[run.name].values[self.metric])
            for run in scored
        ]
        return factors.ranked(factors.settings(found, self.metric), self.metric)


def known(
    job: Job, runs: Sequence[Planned], configs: Mapping[str, BaseModel], dataset: Dataset, split: Split
) -> Results:
    """What a sweep's folder says of its runs.

    Raises:
        BadRequest: The folder is not empty, and no sweep's.
        Faulty: A run there is another than is asked for; with every finding.
    """
    results = Results(job.out / "results.csv", runs, job.metric)
    # A full disk or a kill may have come between these and the first results.
    begun = [job.out / "lock", *job.out.glob(".results.csv.*.part")]
    if job.out.is_dir() and not results.path.exists() and {*job.out.iterdir()} - {*begun}:
        raise BadRequest(f"{job.out}: is not empty and no sweep (it has no results.csv); give a new folder")
    expected, findings = f"split:{split.name}#{split.fingerprint}", []
    for run in runs:
        folder, record = job.out / "runs" / run.name, job.record(run.name)
        seconds = math.nan
        if record.is_file():
            kept = json.loads(record.read_text(encoding="utf-8"))
            seconds = seconds if kept["seconds"] is None else kept["seconds"]
            if kept["error"]:
                results.outcomes[run.name] = Outcome({}, seconds, kept["error"])
        if not folder.is_dir():
            continue
        findings += make_run(job, folder, configs[run.name], dataset, run.seed).mismatches()
        scored = folder / "scores" / f"{split.name}.json"
        if scored.is_file():
            score = scores.read(scored)
            if expected in score.signature.split("|") and job.metric in score.metrics:
                results.outcomes[run.name] = Outcome(_figures(score), seconds)
    if findings:
        raise Faulty(findings)
    return results


# The driver ----------------------------------------------------------------------------------------------------------


def sweep(
    file: Path,
    folder: Path,
    out: Path,
    *,
    split: str = EVALUATION,
    cache: Path = Path(".cache"),
    address: str = "",
    cpus: int = 1,
    gpus: float | None = None,
    dry: bool = False,
) -> int:
    """Make all runs of a sweep that are not done.

    Args:
        file: The sweep's file.
        folder: The data folder.
        out: The sweep's folder.
        split: The split that is predicted and scored.
        cache: Folder of the cache.
        address: HOST:PORT of a cluster, `auto` for the one on this machine; empty starts ray on this machine alone.
        cpus: Processors of each run.
        gpus: GPUs of each run; None is one where there are any.
        dry: List the runs and time some steps instead.

    Returns:
        How many runs failed.

    Raises:
        BadRequest: What is asked for does not exist here, or another sweep is at work in the folder.
        Faulty: The file, the data or runs in the folder do not hold; with every finding.
        OSError: A disk is full.
    """
    if cpus < 1:
        raise BadRequest(f"--cpus must be 1 or more; found {cpus}")
    if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and gpus % 1 == 0)):
        raise BadRequest(f"--gpus must be a share of one, from 0 to 1, or a whole number; found {gpus:g}")
    plan = grid.read(file)
    wanted = grid.planned(plan, file)
    configs = grid.configured(plan, wanted, file)
    dataset, scored = read_data(folder, split)
    _must_measure(plan.metric, scored, cache)
    job = Job(
        plan.system, folder.resolve(), split, plan.metric, out.resolve(), cache.resolve(), Path.cwd(), gpus or 0, cpus
    )
    results = known(job, wanted, configs, dataset, scored)
    if dry:
        from systems.sweeps import timing

        here = [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}]
        job = replace(job, gpus=_gpus(here) if gpus is None else gpus)
        timing.show(job, results, configs, dataset, None if address else _slots(here, job))
        return 0
    ray = _reach(address)
    with _alone(job.out):
        results.save()
        with _cluster(ray, address):
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            job = replace(job, gpus=_gpus(nodes) if gpus is None else gpus)
            _drive(ray, job, results, configs, _slots(nodes, job))
    print(results)
    return len(results.failed)


def _gpus(nodes: Sequence[Mapping[str, float]]) -> int:
    """GPUs of a run where nobody says: one where there are any."""
    return int(any(node.get("GPU", 0) for node in nodes))


def _slots(nodes: Sequence[Mapping[str, float]], job: Job) -> int:
    """How many runs there is room for at once; each is on one node, and a share of a GPU is of one.

    Args:
        nodes: What each node has, by ray's names.
        job: What a run takes.

    Raises:
        BadRequest: There is room for none.
    """
    slots = 0
    for node in nodes:
        cards = int(node.get("GPU", 0))
        room = [int(node.get("CPU", 0)) // job.cpus]
        if job.gpus:
            room.append(cards // int(job.gpus) if job.gpus >= 1 else cards * int(1 / job.gpus))
        slots += min(room)
    if not slots:
        has = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
        asked = f"{job.cpus} processors and {job.gpus:g} GPUs"
        raise BadRequest(f"a run asks for {asked} of one machine, but there are {has}; ask for fewer")
    return slots


def _must_measure(metric: str, split: Split, cache: Path) -> None:
    """Make sure, before hours of training, that the metric can be computed: of a clip that says its own caption."""
    if metric in captioning.METRICS:
        few = Split(split.name, split.clips[:2])
        said = predictions.Captions(few.file_names, tuple(next(iter(clip.captions), "") for clip in few.clips))
        found = captioning.evaluate(few, said, metrics=[metric], cache=cache)
        if metric in found.unavailable:
            raise BadRequest(f"metric {metric} is not available: {found.unavailable[metric]}")
    elif not split.truth:
        raise BadRequest(f"the split {split.name} has no truth to score {metric} by")


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadRequest(f"{out}: another sweep is at work there; wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def _reach(address: str) -> Any:
    """Import ray, and make sure, before anything is written, that the cluster answers."""
    # `ray start` guards a cluster where it finds a token; ray looks for one to join with when it is told to, on import.
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if address and (token.is_file() or "RAY_AUTH_TOKEN" in os.environ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ModuleNotFoundError:
        raise BadRequest("sweeps need ray; install it by `make .venv/.cluster`") from None
    if address and address != "auto":
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isdecimal() or "//" in host:
            raise BadRequest(f"--address must be HOST:PORT or auto; found {address!r}")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
        except (OSError, OverflowError, UnicodeError) as error:  # the last of a name such as `..`
            reason = getattr(error, "strerror", None) or error
            raise BadRequest(f"no answer at {address} ({reason}); {ADVICE}") from None
    return ray


@contextlib.contextmanager
def _cluster(ray: Any, address: str) -> Iterator[None]:
    """Join a cluster, or start ray on this machine, unless that has been done."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a worker without a GPU must see none
    begun = not ray.is_initialized()
    if begun:
        alone = {} if address else {"include_dashboard": False}
        try:
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **alone)
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            where = f"no answer at {address}" if address else "ray does not start"
            raise BadRequest(f"{where} ({' '.join(str(error).split())[:SHORT]}); {ADVICE}") from None
    try:
        yield
    finally:
        if begun:
            ray.shutdown()


def _drive(ray: Any, job: Job, results: Results, configs: Mapping[str, BaseModel], slots: int) -> None:
    """Give runs to workers until all have ended.

    Raises:
        OSError: A disk is full.
        BadRequest: Workers die whatever they are given.
    """
    order = _order(results.runs)
    waiting = deque(sorted((r for r in results.runs if results.state(r) != "done"), key=lambda r: order[r.name]))
    remote = ray.remote(num_cpus=job.cpus, num_gpus=job.gpus)(Worker)
    idle, busy, deaths, in_a_row = [], {}, {}, 0
    live = Live(results, slots)
    while waiting or busy:
        while waiting and len(busy) < slots:
            worker, run = idle.pop() if idle else remote.remote(job), waiting.popleft()
            busy[worker.make.remote(run, configs[run.name])] = worker, run
        live.show([run for _, run in busy.values()])
        ended, _ = ray.wait(list(busy), timeout=1)
        for reference in ended:
            worker, run = busy.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayError as death:
                ray.kill(worker)
                deaths[run.name] = deaths.get(run.name, 0) + 1
                in_a_row += 1
                if in_a_row >= DEATHS * (slots + 1):
                    raise BadRequest(
                        f"workers die one after another ({_last(death)}); see {job.out / 'logs'}"
                    ) from None
                if deaths[run.name] < DEATHS:
                    waiting.appendleft(run)
                    continue
                outcome = Outcome({}, math.nan, f"its worker died {DEATHS} times: {_last(death)}")
                outcome.save(job.record(run.name))
            else:
                in_a_row = 0
                idle.append(worker)
            if outcome.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), outcome.full)
            results.outcomes[run.name] = outcome
            results.save()
            live.ended(run)
        while len(idle) > len(waiting):  # a worker that has found no room yet needs what these hold
            ray.kill(idle.pop())
    live.close()


def _order(runs: Sequence[Planned]) -> dict[str, tuple[int, ...]]:
    """In which order to make runs: seed by seed, and the first factor changing fastest.

    The first factor often is the encoder: workers that begin with different ones do not wait for one to embed.
    """
    levels = {factor: list(dict.fromkeys(run.levels[factor] for run in runs)) for factor in reversed(runs[0].levels)}
    seeds = list(dict.fromkeys(run.seed for run in runs))
    return {
        run.name: (seeds.index(run.seed), *(known.index(run.levels[factor]) for factor, known in levels.items()))
        for run in runs
    }


def _last(death: Exception) -> str:
    return printable(" ".join(str(death).split())[:SHORT])


class Live:
    """What a sweep shows while it goes: on a terminal a table that is drawn anew, elsewhere a line for each run.

    Args:
        results: What is known of the runs; those that failed before are tried again.
        slots: How many runs are made at once.
    """

    def __init__(self, results: Results, slots: int):
        self.results, self.slots = results, slots
        self.began, self.outcomes, self.drawn = time.monotonic(), [], 0
        self.before, runs = len(results.outcomes) - len(results.failed), len(results.runs)
        done = f", {self.before} of them done already" if self.before else ""
        print(f"{runs} runs{done}; {slots} at a time", flush=True)

    def ended(self, run: Planned) -> None:
        """A run has ended."""
        outcome = self.results.outcomes[run.name]
        self.outcomes.append(outcome)
        if outcome.error:
            self._print(f"{run.name}: failed: {outcome.error}")
        elif not sys.stdout.isatty():
            value = f"{self.results.metric} {scores.number(outcome.values[self.results.metric])}"
            self._print(f"{run.name}: {value} in {clock(outcome.seconds)}; {self.state()}")

    def state(self) -> str:
        """How far the sweep is, the best setting so far, and the time left."""
        results = self.results
        ended, failed = self.before + len(self.outcomes), sum(bool(one.error) for one in self.outcomes)
        text = f"{ended} of {len(results.runs)}" + (f", {failed} failed" if failed else "")
        took = [one.seconds for one in self.outcomes if not one.error]  # a run that fails may do so at once
        if took and ended < len(results.runs):
            text += f", about {clock(fmean(took) * math.ceil((len(results.runs) - ended) / self.slots))} left"
        return text

    def show(self, busy: Sequence[Planned]) -> None:
        """Draw the table; on a terminal only."""
        if not sys.stdout.isatty():
            return
        names = ", ".join(run.name for run in busy)
        lines = [f"{self.state()}; {clock(time.monotonic() - self.began)} gone", f"now: {names}"]
        if best := self.results.best()[:BEST]:
            lines += factors.settings_table(self.results.metric, tuple(self.results.runs[0].levels), best).splitlines()
        width, height = shutil.get_terminal_size()
        self._erase()
        lines = [line[: width - 1] for line in lines[: height - 1]]
        print(*lines, sep="\n", flush=True)
        self.drawn = len(lines)

    def close(self) -> None:
        """Take the table away; what has ended is printed elsewhere."""
        self._erase()

    def _print(self, line: str) -> None:
        self._erase()
        print(line, flush=True)

    def _erase(self) -> None:
        if self.drawn:
            print(f"\x1b[{self.drawn}F\x1b[J", end="")
        self.drawn = 0


def clock(seconds: float) -> str:
    """A time for people.

    >>> clock(7.25), clock(83), clock(90_000)
    ('7 s', '1 min 23 s', '25 h 0 min')
    """
    if seconds != seconds:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
