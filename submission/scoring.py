"""Packages checked and their systems scored, each package in a process of its own.

One bad package never stops the others: its process may take `SECONDS` and `MEMORY`, and whatever goes wrong in it is a
finding about that package.
"""

import math
import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from tqdm import tqdm

from evaluation import predictions
from evaluation.data.dataset import Split
from evaluation.findings import BadRequest, Faulty, Finding, counted
from evaluation.metrics import retrieval
from evaluation.scores import Score
from evaluation.text import cut, plural, printable
from submission import package
from submission.tasks import Task

SECONDS = 1800  # for one package
MEMORY = {"retrieval": 4 * 2**30, "captioning": 12 * 2**30}  # bytes; SPICE alone may take 8 GB
WORKERS = min(os.cpu_count() or 1, 8)
SHOWN = 300  # characters of a characteristic

_starting = threading.Lock()  # multiprocessing looks after all processes of a program whenever it starts one


@dataclass(frozen=True)
class ScoredSystem:
    """A system with its score.

    Attributes:
        label: Its label.
        team: Author and institute of the label.
        package: The name of the package that it came in.
        characteristics: The values of the task's characteristics in its metadata, in the task's order.
        score: Its score.
    """

    label: str
    team: str
    package: str
    characteristics: tuple[str, ...]
    score: Score

    def value(self, metric: str) -> float:
        """Return the value of a metric; NaN if the system has none."""
        measured = self.score.metrics.get(metric)
        if measured:
            return measured.estimate.value
        return math.nan


@dataclass(frozen=True)
class ScoredPackage:
    """The systems of a package that were scored, none if it has an error, and every finding."""

    name: str
    systems: tuple[ScoredSystem, ...]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """Return one line, such as `Wu.zip: 2 systems ranked, 1 warning`."""
        parts = [f"{plural(len(self.systems), 'system')} ranked"]
        if self.findings:
            parts.append(counted(self.findings))
        return f"{printable(self.name)}: {', '.join(parts)}"


# One package ----------------------------------------------------------------------------------------------------------


def score_package(task: Task, path: Path, splits: Mapping[str, Split], ranked: str, cache: Path) -> ScoredPackage:
    """Check a package and score its systems; whatever goes wrong is a finding.

    Args:
        task: The task.
        path: A folder or a zip.
        splits: By the task's sets, the split that each answers.
        ranked: The set that is scored.
        cache: Folder in which tokenised captions are kept.
    """
    findings: list[Finding] = []
    systems: list[ScoredSystem] = []
    try:
        with package.checked(task, path, splits) as (valid, noticed):
            findings += noticed
            for system in valid:
                systems.append(_score_system(task, path, system, splits[ranked], ranked, cache))
        for system in systems:
            findings += system.score.findings
    except Faulty as faulty:
        systems = []
        findings += faulty.findings
    except BadRequest as mistake:
        systems = []
        findings.append(Finding(str(path), message=str(mistake)))
    except OSError as failure:  # its file may lie in a temporary folder, whose name differs from run to run
        return _failed(path, f"could not be read: {failure.strerror}")
    except MemoryError:
        return _failed(path, f"takes more than {MEMORY[task.kind] / 2**30:.2g} GiB of memory to check")
    except Exception as error:  # whatever it is, it concerns this package alone
        return _failed(path, f"could not be checked ({type(error).__name__}: {error}); please report this")
    by_name = [replace(finding, file=finding.file.replace(str(path), path.name, 1)) for finding in findings]
    return ScoredPackage(path.name, tuple(systems), tuple(sorted(by_name)))


def _score_system(
    task: Task, path: Path, system: package.System, split: Split, ranked: str, cache: Path
) -> ScoredSystem:
    file = system.outputs[ranked]
    shown = f"{path}/{system.label}: {ranked}"
    interval = task.interval.value if task.interval else "jackknife"
    options = {"metrics": task.metrics.value, "file": shown, "interval": interval}
    if task.kind == "retrieval":
        score = retrieval.evaluate(split, predictions.read_retrieval_csv(file, shown), **options)
    else:
        from evaluation.metrics import captioning  # imports scipy

        score = captioning.evaluate(split, predictions.read_captions(file), cache=cache, **options)
    fields = task.label_fields(system.label)
    team = f"{fields['author']}_{fields['institute']}" if fields else system.label
    characteristics = tuple(_characteristic(system.metadata, key) for key in task.characteristics.value)
    return ScoredSystem(system.label, team, path.name, characteristics, score)


def _characteristic(metadata: object, key: str) -> str:
    """Return the value of a dotted key as text; empty if the metadata do not have it."""
    for part in key.split("."):
        metadata = metadata.get(part) if isinstance(metadata, Mapping) else None
    if metadata is None:
        return ""
    if isinstance(metadata, list | tuple):
        metadata = ", ".join(map(str, metadata))
    return cut(str(metadata), SHOWN)


def _failed(path: Path, why: str) -> ScoredPackage:
    return ScoredPackage(path.name, (), (Finding(path.name, message=why),))


# Many packages --------------------------------------------------------------------------------------------------------


def score_packages(
    task: Task, paths: Sequence[Path], splits: Mapping[str, Split], ranked: str, cache: Path
) -> list[ScoredPackage]:
    """Score packages, `WORKERS` at once, each in a new process.

    A package that takes longer than `SECONDS` or ends its process is reported; the others are scored all the same.

    Args:
        task: The task.
        paths: Folders and zips.
        splits: By the task's sets, the split that each answers.
        ranked: The set that is scored.
        cache: Folder in which tokenised captions are kept.

    Returns:
        The packages, in the order of `paths`.
    """
    context = get_context("forkserver")  # a plain fork would copy the locks of this process's threads
    context.set_forkserver_preload([__name__])
    facts = task.model_dump(exclude_unset=True)  # pickle does not know the classes that pydantic makes
    sent = {name: _picklable(split) for name, split in splits.items()}
    stop = threading.Event()
    # A process that is killed does not delete its temporary files.
    scratch = tempfile.TemporaryDirectory(prefix="dcase-", ignore_cleanup_errors=True)
    with scratch, ThreadPoolExecutor(WORKERS) as threads:
        score = partial(_score_in_process, context, stop, (scratch.name, facts, sent, ranked, cache))
        packages = threads.map(score, paths)
        try:
            return list(tqdm(packages, "packages", len(paths), unit="package", leave=False, disable=None))
        finally:
            stop.set()
            threads.shutdown(cancel_futures=True)


def _score_in_process(
    context: ForkServerContext, stop: threading.Event, arguments: tuple[object, ...], path: Path
) -> ScoredPackage:
    """Score a package in a new process, until it takes too long or everything is to stop."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, path, *arguments))
    with _starting:
        process.start()
    sender.close()  # otherwise the end of the process would not close the pipe
    deadline = time.monotonic() + SECONDS
    try:
        while not receiver.poll(0.2):
            if stop.is_set() or time.monotonic() > deadline:
                return _failed(path, f"takes longer than {SECONDS} s to check, and was given up")
        return receiver.recv()
    except (EOFError, OSError):
        with _starting:
            process.join()
        code = process.exitcode
        if code < 0:
            how = f"by signal {signal.Signals(-code).name}"
        else:
            how = f"with status {code}"
        return _failed(path, f"ended the process that checked it, {how}; look at it by itself")
    finally:
        receiver.close()
        with _starting:
            _end(process)


def _end(process: ForkServerProcess) -> None:
    """End a process, at first so that it can end the processes that it started."""
    process.join(0.5)
    for end in (process.terminate, process.kill):
        if process.is_alive():
            end()
            process.join(5)
    process.close()


def _work(
    sender: object,
    path: Path,
    scratch: str,
    facts: Mapping[str, object],
    splits: Mapping[str, Split],
    ranked: str,
    cache: Path,
) -> None:
    """Score a package, and send the result to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the starting process too, which ends this one
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tempfile.tempdir = scratch
    task = Task.model_validate(facts)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY[task.kind],) * 2)
    try:
        sender.send(score_package(task, path, splits, ranked, cache))
    except KeyboardInterrupt:
        os._exit(1)


def _picklable(split: Split) -> Split:
    """Return the same split with plain dictionaries, which can be sent to another process."""
    clips = tuple(replace(clip, metadata={}) for clip in split.clips)
    if split.relevance is None:
        return replace(split, clips=clips)
    relevance = {}
    for query, names in split.relevance.items():
        relevance[query] = dict(names) if isinstance(names, Mapping) else names
    return replace(split, clips=clips, relevance=relevance)
