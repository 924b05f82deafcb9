"""The leaderboard: the packages of a folder checked, their systems scored, ranked and compared with their neighbours.

Conventions
-----------
- **One bad package never stops the rest.** Each is opened, checked and scored in a process of its own, which may take
  `SECONDS` and `MEMORY`; what it takes down is that package alone. A package with an error has no system on the board.
  A label that two packages hold is nobody's: neither system is ranked until one is taken out.
- **Rank**, from 1, by the task's first metric; systems that are alike in it share a rank, and the next rank
  is as much further. Where no system has that metric here, the task's next one ranks, and the board says so first.
  A system that lacks the metric which others have stands last, without a rank.
- **Intervals** are the task's, 95 %; the jackknife where the facts name none. Each item counts for itself, as in the
  years' own tables; intervals by clip, where items share clips, are in the JSON.
- **Neighbours**: the paired randomisation test of `evaluation.statistics.comparison` between each system and the next
  one down, in the metric that ranks, with the jackknife interval of the difference and Holm's correction over the
  neighbours of the table.
- **Published** figures of the organisers' baseline are shown if they were measured on the split that is scored: its
  name, number of clips and number of queries are those of the task's facts. They were not computed here, and have no
  rank.
- **The same packages give the same bytes**, in every form.

Forms
-----
`leaderboard.txt` for people; `leaderboard.html`, one page that asks nothing of a network and runs nothing;
`leaderboard.json` at full precision; `findings.txt`, by package; and `leaderboard.csv` in long form: a row for each
figure, and its first column says of what.

| table | system | what | against | value … interval | p, p_holm |
|---|---|---|---|---|---|
| teams, systems | the system, with its rank and team | the metric | | the metric, its interval | |
| neighbours of teams, … of systems | the upper one | the metric | the lower one | the difference, its interval | yes |
| published | the baseline | the metric | | the metric | |
| characteristics | the system | the metadata's key | | what it says | |
"""

import itertools
import math
import os
import resource
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from multiprocessing import connection, get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from evaluation import predictions
from evaluation.data.dataset import Split
from evaluation.files import replacing
from evaluation.findings import NOTE, BadRequest, Faulty, Finding, say
from evaluation.metrics import retrieval
from evaluation.metrics.catalogue import lower_is_better
from evaluation.ordering import natural
from evaluation.statistics import comparison
from evaluation.statistics.comparison import Difference
from evaluation.statistics.intervals import grouped, jackknife
from submission import page
from submission.board import SEED, Entry, Leaderboard, Package, Table
from submission.tasks import Task

SECONDS = 1800  # for one package
MEMORY = {"retrieval": 4 * 2**30, "captioning": 12 * 2**30}  # bytes; SPICE alone may take 8 GB
WORKERS = min(os.cpu_count() or 1, 8)
SHOWN = 300  # characters of what a metadata file says
FILES = ("leaderboard.json", "leaderboard.txt", "leaderboard.csv", "leaderboard.html", "findings.txt")


# All of it ------------------------------------------------------------------------------------------------------------


def run(task: Task, folder: Path, splits: Mapping[str, Split], out: Path, cache: Path = Path(".cache")) -> Leaderboard:
    """Check and score every package in a folder, and write the board.

    A package is a zip or a folder in it. Hidden files are ignored. Other files are ignored with a note, and so is what
    macOS, Windows or an interrupted command leaves there.

    Args:
        task: What was asked for.
        folder: Where the packages are.
        splits: By the task's sets, the split that each is answered for. The first set whose split has a truth ranks.
        out: The folder to write, `FILES`: new, empty, or a board that was written before.
        cache: Folder for what scoring captions keeps.

    Raises:
        BadRequest: There is no such folder, no package in it, or no truth; or `out` holds something else.
        Faulty: The truth does not hold.
    """
    if not folder.is_dir():
        raise BadRequest(f"{folder}: no such folder; give one that holds packages (zips or folders)")
    _check_out(out)
    ranked = next((name for name in task.sets if name in splits and _has_truth(task, splits[name])), None)
    if ranked is None:
        wanted = "captions of every clip" if task.kind == "captioning" else "captions or relevance"
        given = ", ".join(split.name for split in splits.values()) or "none of them"
        raise BadRequest(f"{task.name} asks for {', '.join(task.sets)}; one must have {wanted}: found {given} without")
    split = splits[ranked]
    if task.kind == "retrieval":  # a truth that does not hold is no package's fault
        nothing = np.zeros((len(split.truth), len(split.clips)), dtype=np.float32)
        retrieval.evaluate(split, predictions.Similarity(tuple(split.truth), split.file_names, nothing), file="truth")
    paths: list[Path] = []
    findings: list[Finding] = []
    for path in sorted(folder.absolute().iterdir(), key=lambda path: natural(path.name)):
        if path.resolve() == out.resolve():
            continue
        if leftover := _leftover(path.name):
            findings.append(Finding(path.name, message=leftover, severity=NOTE))
        elif path.name.startswith("."):
            continue
        elif path.is_dir() or path.suffix.lower() == ".zip":
            paths.append(path)
        else:
            findings.append(Finding(path.name, message="is no package, and passed over", severity=NOTE))
    # With `systems train`'s file, its other folders would be taken for packages.
    if (folder / "config.yaml").is_file() and not any(path.is_file() for path in paths):
        raise BadRequest(f"{folder}: is a run folder; its packages are in {folder / 'submission'}")
    if not any(map(_holds_something, paths)):
        raise BadRequest(f"{folder}: holds no package; give a folder of zips, or of unpacked ones")
    board = rank(task, _examined(task, paths, splits, ranked, cache.absolute()), split, ranked, findings)
    save(board, out)
    return board


def _holds_something(path: Path) -> bool:
    """Whether something may be a package: a zip, or a folder with a file of a kind that packages have."""
    from submission import archive, package

    inside = [path] if path.is_file() else islice(path.rglob("*"), archive.ENTRIES)
    return any(file.name.lower().endswith(package.COUNTS) for file in inside)


def _has_truth(task: Task, split: Split) -> bool:
    if task.kind == "captioning":
        return all(clip.captions for clip in split.clips)
    return bool(split.truth)


def _leftover(name: str) -> str | None:
    """Say why a file or folder is none of the user's; None where it may be one."""
    from submission import archive

    kind = archive.junk_kind(name)
    if kind:
        return f"is ignored: {archive.JUNK[kind]} adds it"
    if name.startswith(".") and name.endswith(".part"):
        return "is ignored: an interrupted command left it; delete it"
    return None


def _check_out(out: Path) -> None:
    """Make sure that the board takes the place of another one or of nothing; print notes of what is ignored there."""
    if out.exists() and not out.is_dir():
        raise BadRequest(f"{out}: must be a folder or not there; give another name")
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    leftovers = {name: why for name in sorted(found, key=natural) if (why := _leftover(name))}
    found -= leftovers.keys()
    strange = found.difference(FILES) if FILES[0] in found else found  # which is written first
    if strange:
        raise BadRequest(f"{out}: holds {min(strange)!r}, and is no leaderboard of before; give another folder")
    say(Finding(str(out / name), message=why, severity=NOTE) for name, why in leftovers.items())


def save(board: Leaderboard, folder: Path) -> None:
    """Write every form, each whole or not at all."""
    texts = (board.json(), f"{board}\n", board.csv(), page.html(board), board.findings_text())
    for name, text in zip(FILES, texts, strict=True):
        with replacing(folder / name) as part:
            # Half a surrogate pair, which no UTF-8 has, may stand in a name.
            part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


# Checking and scoring -------------------------------------------------------------------------------------------------


def examine(task: Task, path: Path, splits: Mapping[str, Split], ranked: str, cache: Path) -> Package:
    """Check a package and score its systems; whatever goes wrong is a finding.

    Args:
        task: What was asked for.
        path: A folder or a zip.
        splits: By the task's sets, the split that it answers.
        ranked: The set that is scored.
        cache: Folder for what scoring captions keeps.
    """
    from submission import package  # takes a sound library along, which no reader of a board needs

    findings: list[Finding] = []
    entries: tuple[Entry, ...] = ()
    try:
        with package.checked(task, path, splits) as (systems, found):
            findings += found
            entries = tuple(_scored(task, path, system, splits[ranked], ranked, cache) for system in systems)
        findings += [finding for entry in entries for finding in entry.score.findings]
    except Faulty as faulty:
        entries, findings = (), findings + faulty.findings
    except BadRequest as mistake:
        entries = ()
        findings.append(Finding(str(path), message=str(mistake)))
    except OSError as failure:  # without the name of a file in a folder that is another one each time
        return _lost(path.name, f"could not be read: {failure.strerror}")
    except MemoryError:
        return _lost(path.name, f"takes more than {MEMORY[task.kind] / 2**30:.2g} GiB of memory to check")
    except Exception as error:  # whatever it is, it is of this package alone
        return _lost(path.name, f"could not be checked ({type(error).__name__}: {error}); please report this")
    named = (replace(finding, file=finding.file.replace(str(path), path.name, 1)) for finding in findings)
    return Package(path.name, entries, tuple(sorted(named)))


def _scored(task: Task, path: Path, system: object, split: Split, ranked: str, cache: Path) -> Entry:
    file, shown = system.outputs[ranked], f"{path}/{system.label}: {ranked}"
    options = {"metrics": task.metrics.value, "file": shown}
    options["interval"] = task.interval.value if task.interval else "jackknife"
    if task.kind == "retrieval":
        score = retrieval.evaluate(split, predictions.read_retrieval_csv(file, shown), **options)
    else:
        from evaluation.metrics import captioning  # takes scipy along

        score = captioning.evaluate(split, predictions.read_captions(file), cache=cache, **options)
    fields = task.names(system.label)
    team = f"{fields['author']}_{fields['institute']}" if fields else system.label
    said = tuple(_said(system.metadata, key) for key in task.characteristics.value)
    return Entry(system.label, team, path.name, said, score)


def _said(metadata: object, key: str) -> str:
    for part in key.split("."):
        metadata = metadata.get(part) if isinstance(metadata, Mapping) else None
    if isinstance(metadata, list | tuple):
        metadata = ", ".join(map(str, metadata))
    text = "" if metadata is None else str(metadata)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _lost(name: str, why: str) -> Package:
    return Package(name, (), (Finding(name, message=why),))


def _examined(
    task: Task, paths: Sequence[Path], splits: Mapping[str, Split], ranked: str, cache: Path
) -> list[Package]:
    """Examine every package, each in a new process, as many at once as there are `WORKERS`."""
    context = get_context("forkserver")  # a plain fork would take this process's threads for its own
    context.set_forkserver_preload([__name__, "submission.package"])
    facts = task.model_dump(exclude_unset=True)  # its classes are made by pydantic, and pickle knows none of them
    sent = {name: _portable(split) for name, split in splits.items()}
    waiting, done = deque(paths), {}
    running: dict[connection.Connection, tuple[object, Path, float]] = {}
    # Of a process that is killed nobody else clears up.
    scratch = tempfile.TemporaryDirectory(prefix="dcase-", ignore_cleanup_errors=True)
    bar = tqdm(total=len(paths), desc="packages", unit="package", leave=False, disable=None)
    try:
        while waiting or running:
            while waiting and len(running) < WORKERS:
                path = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                arguments = (theirs, scratch.name, facts, path, sent, ranked, cache)
                process = context.Process(target=_work, args=arguments, daemon=False)
                process.start()
                theirs.close()  # or its end would not be seen
                running[ours] = process, path, time.monotonic() + SECONDS
            left = min(limit for _, _, limit in running.values()) - time.monotonic()
            ready = connection.wait(running, timeout=max(0, left))
            overdue = [end for end, (_, _, limit) in running.items() if limit <= time.monotonic()]
            for end in dict.fromkeys([*ready, *overdue]):
                process, path, _ = running[end]
                if end in ready:
                    done[path] = _received(end, process, path)
                else:
                    done[path] = _lost(path.name, f"takes longer than {SECONDS} s to check, and was given up")
                _end(process)
                end.close()
                del running[end]
                bar.update()
    finally:
        for process, _, _ in running.values():
            _end(process)
        bar.close()
        scratch.cleanup()
    return [done[path] for path in paths]


def _received(end: connection.Connection, process: object, path: Path) -> Package:
    try:
        return end.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return _lost(path.name, f"ended the process that checked it, {how}; look at it by itself")


def _end(process: object) -> None:
    """End a process, first in a way that lets it end what it started."""
    process.join(0.5)
    for end in (process.terminate, process.kill):
        if process.is_alive():
            end()
            process.join(5)
    process.close()


def _work(
    end: connection.Connection,
    scratch: str,
    facts: Mapping[str, object],
    path: Path,
    splits: Mapping[str, Split],
    ranked: str,
    cache: Path,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this is interrupted too, and ends it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tempfile.tempdir = scratch
    task = Task.model_validate(facts)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY[task.kind],) * 2)
    try:
        end.send(examine(task, path, splits, ranked, cache))
    except KeyboardInterrupt:
        os._exit(1)


def _portable(split: Split) -> Split:
    """The same split of dictionaries that may change, which unlike its own can be sent to another process."""
    relevance = split.relevance and {
        query: dict(names) if isinstance(names, Mapping) else names for query, names in split.relevance.items()
    }
    return replace(split, clips=tuple(replace(clip, metadata={}) for clip in split.clips), relevance=relevance)


# Ranking --------------------------------------------------------------------------------------------------------------


def rank(
    task: Task, packages: Iterable[Package], split: Split, ranked: str, findings: Iterable[Finding] = ()
) -> Leaderboard:
    """Rank the systems of packages.

    Args:
        task: What was asked for.
        packages: As `examine` gives them.
        split: What was answered, with its truth.
        ranked: The set that it stands for.
        findings: What else is to be said.
    """
    packages = _unambiguous(packages)
    entries = [entry for package in packages for entry in package.systems]
    asked = task.metrics.value
    metric = next((name for name in asked if any(math.isfinite(entry.value(name)) for entry in entries)), asked[0])
    rows = _rows(entries, metric)
    best = _rows({entry.team: entry for _, entry in reversed(rows)}.values(), metric)
    return Leaderboard(
        task,
        ranked,
        split.name,
        metric,
        Table("teams", "Best system of each team", best, _neighbours(best, metric)),
        Table("systems", "All systems", rows, _neighbours(rows, metric)),
        tuple(fact.value for fact in task.baselines if fact.value.measured_on(split)),
        tuple(packages),
        tuple(findings),
    )


def _unambiguous(packages: Iterable[Package]) -> list[Package]:
    packages = list(packages)
    holders: dict[str, list[str]] = {}
    for package in packages:
        for entry in package.systems:
            holders.setdefault(entry.label, []).append(package.name)
    shared = {label: names for label, names in holders.items() if len(names) > 1}
    out = []
    for package in packages:
        kept = tuple(entry for entry in package.systems if entry.label not in shared)
        message = "stands in {} too, and is ranked in none of them; keep one"
        twice = [
            Finding(f"{package.name}/{label}", message=message.format(", ".join(n for n in names if n != package.name)))
            for label, names in shared.items()
            if package.name in names
        ]
        out.append(replace(package, systems=kept, findings=tuple(sorted([*package.findings, *twice]))))
    return out


def _rows(entries: Iterable[Entry], metric: str) -> tuple[tuple[int | None, Entry], ...]:
    sign = 1 if lower_is_better(metric) else -1

    def key(entry: Entry) -> float:
        value = entry.value(metric)
        return sign * round(value, 12) if math.isfinite(value) else math.inf  # sums in another order are no difference

    order = sorted(entries, key=lambda entry: (key(entry), natural(entry.label)))
    keys = [key(entry) for entry in order]
    return tuple((keys.index(k) + 1 if math.isfinite(k) else None, entry) for k, entry in zip(keys, order, strict=True))


def _neighbours(rows: Sequence[tuple[int | None, Entry]], metric: str) -> tuple[Difference, ...]:
    there = [entry for rank, entry in rows if rank and entry.score.metrics[metric].values is not None]
    pairs = list(itertools.pairwise(there))
    if not pairs:
        return ()
    comparison.validate({entry.label: entry.score for entry in there})
    values = np.stack([entry.score.metrics[metric].values for entry in there], axis=1)
    shown = np.array([one.value(metric) - other.value(metric) for one, other in pairs])
    differences = values[:, :-1] - values[:, 1:]
    differences += shown - differences.mean(
        axis=0
    )  # pseudo-values have the metric's bias; the test is of what is shown
    groups = there[0].score.items.groups
    p = comparison.randomisation(grouped(differences, groups)[0], SEED)
    return tuple(
        Difference(metric, one.label, other.label, one.value(metric), estimate, float(own), float(corrected))
        for (one, other), estimate, own, corrected in zip(
            pairs,
            (jackknife(d, value=float(x), groups=groups) for d, x in zip(differences.T, shown, strict=True)),
            p,
            comparison.holm(p),
            strict=True,
        )
    )
