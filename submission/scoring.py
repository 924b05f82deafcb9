"""The check of packages and the scoring of their systems, each package in a separate process.

A bad package never stops the others. The process of a package can use at most `SECONDS` of time, and the memory that
the kind of task allows. Any failure in the process becomes a finding about the package.
"""

import math
import os
import re
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import cast

from tqdm import tqdm

from evaluation.findings import BadRequest, Faulty, Finding, counted
from evaluation.scores import Score
from evaluation.text import cut, plural, printable
from submission import package
from submission.kinds import KINDS
from submission.outputs.form import Asked
from submission.tasks import Task

SECONDS = 1800  # maximum time for one package
WORKERS = min(os.cpu_count() or 1, 8)  # number of packages that are scored at the same time
REPORTS = "reports"  # folder of the technical reports that are published with a leaderboard
ADDRESS = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")  # an email address
SHOWN = 300  # maximum number of characters of a metadata value

# Only one process may start at a time, because multiprocessing then accesses the list of all its processes.
_starting = threading.Lock()


@dataclass(frozen=True)
class ScoredSystem:
    """A system with its score.

    Attributes:
        label: Label of the system.
        team: Author and institute of the label.
        package: Name of the package that contains the system.
        metadata: Every value of the metadata file as text, at most `SHOWN` characters each, without email addresses. A
            key is the path of the value, such as `submission.authors.1.lastname`; the entries of a list are numbered
            from 1.
        score: Score of the system.
        is_baseline: True for a system of the organisers' baseline.
    """

    label: str
    team: str
    package: str
    metadata: Mapping[str, str]
    score: Score
    is_baseline: bool = False

    def texts(self, key: str) -> list[str]:
        """Return the text of a metadata key, or the texts of its entries if it is a list.

        The text of an entry with keys of its own, such as a data set, is its name. The list is empty if the metadata do
        not have the key.
        """
        pattern = re.compile(rf"{re.escape(key)}(\.\d+(\.name)?)?")
        return [text for path, text in self.metadata.items() if pattern.fullmatch(path)]

    def text(self, key: str) -> str:
        """Return the texts of a metadata key, joined by commas."""
        return ", ".join(self.texts(key))

    def value(self, metric: str) -> float:
        """Return the value of a metric, or NaN if the system does not have it."""
        measured = self.score.metrics.get(metric)
        if measured:
            return measured.estimate.value
        return math.nan


@dataclass(frozen=True)
class ScoredPackage:
    """A package with its scored systems and every finding.

    Attributes:
        name: Name of the package.
        systems: The systems. There are none if the check found an error that is not about the technical report.
        findings: Every finding.
        report: A copy of the technical report; None if it is missing, has an error or was not copied.
        lacks_report: True if the report is missing or has an error.
    """

    name: str
    systems: tuple[ScoredSystem, ...]
    findings: tuple[Finding, ...]
    report: Path | None = None
    lacks_report: bool = False

    def __str__(self) -> str:
        """Return a line such as `Wu.zip: 2 systems ranked, 1 warning`."""
        parts = [f"{plural(len(self.systems), 'system')} ranked"]
        if self.findings:
            parts.append(counted(self.findings))
        return f"{printable(self.name)}: {', '.join(parts)}"


# One package ----------------------------------------------------------------------------------------------------------


def score_package(
    task: Task,
    path: Path,
    splits: Mapping[str, Asked],
    ranked: str,
    cache: Path,
    reports: Path | None = None,
) -> ScoredPackage:
    """Check a package and score its systems. Any failure becomes a finding.

    Args:
        task: The task.
        path: A folder or a zip.
        splits: A dict from each of the task's sets to the split that its outputs are for.
        ranked: The set that is scored.
        cache: Folder for tokenised captions.
        reports: Folder to copy the technical report to (default: do not copy it).
    """
    findings: list[Finding] = []
    systems: list[ScoredSystem] = []
    report = None
    lacks_report = False
    try:
        with package.checked(task, path, splits) as content:
            findings += content.findings
            for system in content.systems:
                systems.append(_score_system(task, path, system, splits[ranked], ranked, cache))
            lacks_report = content.report is None
            if content.report and reports:
                report = reports / path.name
                shutil.copyfile(content.report, report)
        for scored in systems:
            findings += scored.score.findings
    except Faulty as faulty:
        systems = []
        findings += faulty.findings
    except BadRequest as mistake:
        systems = []
        findings.append(Finding(str(path), message=str(mistake)))
    except OSError as failure:  # the file name may be temporary and is not shown, so that all runs print the same
        return _failed(path, f"could not be read: {failure.strerror}")
    except MemoryError:
        limit = f"{KINDS[task.kind].memory / 2**30:.2g} GiB"
        return _failed(path, f"needed more than {limit} of memory, so its check was stopped; check it separately")
    except Exception as error:  # any other failure must not stop the other packages
        return _failed(path, f"could not be checked ({type(error).__name__}: {error}); please report this")
    by_name = [replace(finding, file=finding.file.replace(str(path), path.name, 1)) for finding in findings]
    return ScoredPackage(path.name, tuple(systems), tuple(sorted(by_name)), report, lacks_report)


def _score_system(
    task: Task, path: Path, system: package.System, split: Asked, ranked: str, cache: Path
) -> ScoredSystem:
    """Score the output of a system for the ranked set. The split contains the ground truth."""
    kind = KINDS[task.kind]
    metrics = task.metrics.value
    shown = f"{path}/{system.label}: {ranked}"
    interval = "jackknife"
    if task.interval:
        interval = task.interval.value
    prediction = system.predictions[ranked]
    if prediction is None:
        score = kind.score(system.outputs[ranked], split, metrics, interval, cache, shown)
    else:
        score = kind.score_prediction(prediction, split, metrics, interval, shown)
    team = system.label
    fields = task.label_fields(system.label)
    if fields:
        team = f"{fields['author']}_{fields['institute']}"
    return ScoredSystem(system.label, team, path.name, dict(_flat(system.metadata, "")), score)


def _flat(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every value of a metadata file that may be published.

    Keys without a value are left out. Email addresses are replaced, in every value.
    """
    children: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value, start=1)
    else:
        if isinstance(value, bool):
            yield path, "yes" if value else "no"
        elif value is not None:
            yield path, cut(ADDRESS.sub("(email address)", str(value)), SHOWN)
        return
    for key, below in children:
        if path:
            yield from _flat(below, f"{path}.{key}")
        else:
            yield from _flat(below, str(key))


def _failed(path: Path, message: str) -> ScoredPackage:
    """Return a package whose check failed, with the message as its only finding."""
    return ScoredPackage(path.name, (), (Finding(path.name, message=message),))


# Many packages --------------------------------------------------------------------------------------------------------


def score_packages(
    task: Task, paths: Sequence[Path], splits: Mapping[str, Asked], ranked: str, cache: Path, reports: Path
) -> list[ScoredPackage]:
    """Score packages, `WORKERS` at a time, each in a new process.

    If a package takes longer than `SECONDS`, or if its process ends early, it gets a finding. The others are scored.

    Args:
        task: The task.
        paths: Folders and zips.
        splits: A dict from each of the task's sets to the split that its outputs are for.
        ranked: The set that is scored.
        cache: Folder for tokenised captions.
        reports: Folder to copy the technical reports to.

    Returns:
        The packages, in the order of `paths`.
    """
    context = get_context("forkserver")  # a plain fork would copy the locks of this process's threads
    context.set_forkserver_preload([__name__])
    facts = task.model_dump(exclude_unset=True)  # pickle cannot handle the generic classes that pydantic makes
    sent = {name: KINDS[task.kind].picklable(split) for name, split in splits.items()}
    stop = threading.Event()
    # All processes put their temporary files here, because a killed process does not delete them.
    scratch = tempfile.TemporaryDirectory(prefix="dcase-", ignore_cleanup_errors=True)
    with scratch, ThreadPoolExecutor(WORKERS) as threads:
        score = partial(_score_in_process, context, stop, (scratch.name, facts, sent, ranked, cache, reports))
        packages = threads.map(score, paths)
        try:
            return list(tqdm(packages, "packages", len(paths), unit="package", leave=False, disable=None))
        finally:
            stop.set()
            threads.shutdown(cancel_futures=True)


def _score_in_process(
    context: ForkServerContext, stop: threading.Event, arguments: tuple[object, ...], path: Path
) -> ScoredPackage:
    """Score a package in a new process. The process is ended if it takes too long, or if `stop` is set."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, path, *arguments))
    with _starting:
        process.start()
    sender.close()  # otherwise the pipe would stay open after the process has ended
    deadline = time.monotonic() + SECONDS
    try:
        while not receiver.poll(0.2):
            if stop.is_set() or time.monotonic() > deadline:
                return _failed(path, f"needed more than {SECONDS} s, so its check was stopped; check it separately")
        return receiver.recv()
    except (EOFError, OSError):
        with _starting:
            process.join()
        code = cast(int, process.exitcode)  # it is None only before the process has ended
        if code < 0:
            how = f"by signal {signal.Signals(-code).name}"
        else:
            how = f"with status {code}"
        return _failed(path, f"ended the process that checked it, {how}; check it separately")
    finally:
        receiver.close()
        with _starting:
            _end(process)


def _end(process: ForkServerProcess) -> None:
    """End a process. SIGTERM lets it first end the processes that it started; SIGKILL is used if it does not end."""
    process.join(0.5)
    for end in (process.terminate, process.kill):
        if process.is_alive():
            end()
            process.join(5)
    process.close()


def _work(
    sender: Connection,
    path: Path,
    scratch: str,
    facts: Mapping[str, object],
    splits: Mapping[str, Asked],
    ranked: str,
    cache: Path,
    reports: Path,
) -> None:
    """Score a package, and send the result to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the starting process, which ends this one
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tempfile.tempdir = scratch
    task = Task.model_validate(facts)
    resource.setrlimit(resource.RLIMIT_DATA, (KINDS[task.kind].memory,) * 2)
    try:
        sender.send(score_package(task, path, splits, ranked, cache, reports))
    except KeyboardInterrupt:
        os._exit(1)
