"""Packages: what is handed in, made from run folders, and checked whole before it is.

A package is a folder or a zip: for each system a folder with its outputs and its metadata, and one report for all. How
they are named and where they lie is in the task's facts.
"""

import difflib
import hashlib
import re
import shlex
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from evaluation import predictions, scores
from evaluation.data import tables
from evaluation.data.dataset import EVALUATION, Dataset, Split
from evaluation.files import replacing
from evaluation.findings import ERROR, NOTE, SHOWN, WARNING, BadRequest, Faulty, Finding, cut, quoted
from evaluation.ordering import natural
from submission import archive, documents, metadata, outputs, reports
from submission.documents import Document
from submission.tasks import Key, Task
from submission.teams import Team

NULL = "nullable"
METADATA = "metadata"  # the part of a system beside its outputs, which go by their sets
KINDS = (r".*\.csv", r".*\.ya?ml")  # of outputs, and of metadata
LINKS = re.compile(r"freesound\.org/(?:people/[^/\s]+/sounds|s)/(\d+)")
OF_RUN = ("config.yaml", "system.yaml", "predictions")  # what a run folder has one of at least
COUNTS = (".csv", ".yaml", ".yml", ".pdf", ".zip")  # files that may be taken for a part of a submission


@dataclass(frozen=True)
class System:
    """One system of a package.

    Attributes:
        label: Its label.
        metadata: What its metadata file says.
        outputs: Its output files by the set that they answer.
    """

    label: str
    metadata: Mapping[str, object]
    outputs: Mapping[str, Path]


# Checking -------------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A file of a package: what findings call it, and where it can be read."""

    shown: str
    path: Path


@contextmanager
def checked(
    task: Task, path: Path, splits: Mapping[str, Split | str], name: str = ""
) -> Iterator[tuple[list[System], list[Finding]]]:
    """Open a package, safely whatever it holds, and check all of it.

    Args:
        task: What is asked for.
        path: A folder or a zip, which is left as it is.
        splits: By the task's sets, whose queries are answered with whose clips; where only a name is given, or nothing,
            outputs are checked by themselves.
        name: What findings call the package; its path by default.

    Yields:
        The systems, none when the package has an error; their files can be read inside the block only. And every
        finding.

    Raises:
        BadRequest: There is nothing of this name, or something that is neither; or the folder is a single system's.
    """
    if task.names(path.resolve().name) and path.is_dir():
        raise BadRequest(f"{path}: is the folder of one system; give the package, which is above it")
    with archive.opened(path) as opened:
        found = [
            replace(finding, file=finding.file.replace(str(path), name or str(path), 1)) for finding in opened.findings
        ]
        unread = {finding.file for finding in found if finding.severity == ERROR}
        systems: list[System] = []
        findings: list[Finding] = []
        if (name or str(path)) not in unread:  # of a package that cannot be read, nothing is known to be missing
            systems, findings = check(task, opened.files, splits, name or str(path), unread)
        findings += found
        broken = any(finding.severity == ERROR for finding in findings)
        yield [] if broken else systems, sorted(set(findings))


def check(
    task: Task, files: Mapping[str, Path], splits: Mapping[str, Split | str], name: str, unread: Set[str]
) -> tuple[list[System], list[Finding]]:
    """Check a package that lies open: what is there, how it is named, and what it says.

    Args:
        task: What is asked for.
        files: Where each file can be read, by its path in the package.
        splits: As of `checked`.
        name: The package's name in findings.
        unread: Files, as findings call them, that are there and cannot be read, which has been said.

    Returns:
        The systems whose files are all there, and every finding.
    """
    findings = metadata.of_others(task, _metadata_of(files), name)
    entries = _rooted(task, {inner: Entry(f"{name}/{inner}", path) for inner, path in files.items()}, name, findings)
    folders, others = _folders(task, entries)
    most = task.systems.value
    if not folders and not unread:
        findings.append(Finding(name, message=f"must hold {task.package.folder.value}/ for each system; found none"))
    if len(folders) > most:
        message = f"must not hold more than {most} systems; found {len(folders)}: {', '.join(folders)}"
        findings.append(Finding(name, message=f"{message}; only the first {most} are looked at"))
    systems: list[System] = []
    teams: dict[str, dict[str, str]] = {}  # the fields of each system's label by where it lies
    for folder, inside in list(folders.items())[:most]:
        place = str(PurePosixPath(next(iter(inside.values())).shown).parent)
        parts, left = _parts(task, folder, inside)
        others |= {f"{folder}/{name}": entry for name, entry in left.items()}
        document = documents.Document(None)
        if METADATA in parts:
            document = documents.read(parts[METADATA].path, parts[METADATA].shown)
            findings += metadata.check(task, document, parts[METADATA].shown)
        values = document.values
        names = _meant(task, folder, parts, values)
        findings += _named(task, folder, place, names, parts, document, unread)
        if names:
            teams[place] = names
        for split in task.sets:
            if split in parts:
                findings += outputs.validate(task, parts[split].path, splits.get(split, split), parts[split].shown)
        if names and values and parts.keys() == {METADATA, *task.sets}:
            systems.append(System(names["label"], values, {split: parts[split].path for split in task.sets}))
    findings += _one_team(teams)
    findings += _report(task, _most(teams), others, name, unread)
    findings += _alike(systems, name)
    return systems, findings


def _metadata_of(files: Mapping[str, Path]) -> list[Path]:
    """Files that may be metadata, wherever they lie."""
    return [path for inner, path in files.items() if re.fullmatch(KINDS[1], inner, re.IGNORECASE)]


def _rooted(task: Task, entries: dict[str, Entry], name: str, findings: list[Finding]) -> dict[str, Entry]:
    """Give the files by the paths that they should have: from the task's folder on."""
    top = PurePosixPath(task.package.folder.value).parts[0]
    first = sorted({PurePosixPath(inner).parts[0] for inner in entries}, key=natural)
    if top in first or not first:
        return entries
    inside = {}
    if len(first) == 1:
        inside = {"/".join(PurePosixPath(inner).parts[1:]): entry for inner, entry in entries.items() if "/" in inner}
    if any(PurePosixPath(inner).parts[0] == top for inner in inside):
        message = f"everything lies in {first[0]}/, which is accepted; {top}/ is to lie at the top"
        findings.append(Finding(name, message=message, severity=NOTE))
        return inside
    if alike := [folder for folder in first if folder.casefold() == top.casefold()]:
        findings.append(Finding(f"{name}/{alike[0]}", message=f"must be named {top}; rename it"))
        return {re.sub(rf"^{re.escape(alike[0])}/", f"{top}/", inner): entry for inner, entry in entries.items()}
    if Path(name).resolve().name != top:  # else it is this folder that was given
        found = ", ".join(first[:3]) + (", …" if len(first) > 3 else "")
        findings.append(Finding(name, message=f"must begin with {top}/; found {found}: put all into a folder {top}"))
    return {f"{top}/{inner}": entry for inner, entry in entries.items()}


def _folders(task: Task, entries: Mapping[str, Entry]) -> tuple[dict[str, dict[str, Entry]], dict[str, Entry]]:
    """The files of each system's folder by their names, and all others by their paths."""
    *above, _ = PurePosixPath(task.package.folder.value).parts
    folders: dict[str, dict[str, Entry]] = {}
    others = {}
    for inner in sorted(entries, key=natural):
        *folder, name = PurePosixPath(inner).parts
        if folder[:-1] == above and name.lower().endswith(COUNTS):
            folders.setdefault(folder[-1], {})[name] = entries[inner]
        else:
            others[inner] = entries[inner]
    return folders, others


def _parts(task: Task, folder: str, inside: Mapping[str, Entry]) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Which file of a system's folder is which part, also where it is misnamed; and the files that are none."""
    patterns, names = _patterns(task), task.names(folder)
    left = dict(inside)
    parts = {}
    if names:
        wanted = {part: pattern.format(**names) for part, pattern in patterns.items()}
        parts = {part: left.pop(name) for part, name in wanted.items() if name in left}
    for loose in (
        lambda part: re.sub(r"\\\{\w+\\\}", ".*", re.escape(patterns[part])),
        lambda part: KINDS[part == METADATA],
    ):
        for part in [part for part in patterns if part not in parts]:
            alike = [name for name in left if re.fullmatch(loose(part), name, re.IGNORECASE)]
            rivals = [other for other in patterns if other not in parts and loose(other) == loose(part)]
            if len(alike) == len(rivals) == 1:
                parts[part] = left.pop(alike[0])
    return parts, left


def _patterns(task: Task) -> dict[str, str]:
    return {split: output.file.value for split, output in task.sets.items()} | {METADATA: task.package.metadata.value}


def _meant(
    task: Task, folder: str, parts: Mapping[str, Entry], values: Mapping[str, object] | None
) -> dict[str, str] | None:
    """The fields of a system's label by what most of its folder, its files and its metadata say."""
    labels: list[str | None] = [folder]
    for part, pattern in _patterns(task).items():
        labels.append(task.label_of(pattern, PurePosixPath(parts[part].shown).name) if part in parts else None)
    claims = Counter(label for label in [*labels, _said(values)] if label and task.names(label))
    return task.names(claims.most_common(1)[0][0]) if claims else _mended(task, folder)


def _mended(task: Task, label: str) -> dict[str, str] | None:
    """The fields of a label whose fixed parts are wrong."""
    parts = label.split("_")
    made = task.label.value.format(author=parts[0], institute=parts[min(1, len(parts) - 1)], index=parts[-1])
    return task.names(made) if len(parts) == len(made.split("_")) else None


def _said(values: object) -> str | None:
    """The label in a metadata file."""
    own = values.get("submission") if isinstance(values, dict) else None
    label = own.get("label") if isinstance(own, dict) else None
    return label if isinstance(label, str) else None


def _named(
    task: Task,
    folder: str,
    place: str,
    names: Mapping[str, str] | None,
    parts: Mapping[str, Entry],
    document: Document,
    unread: Set[str],
) -> Iterator[Finding]:
    """Find what is not named by the system's label, and which parts are missing."""
    if names is None or folder != names["label"]:
        fault = f"must be {names['label']}" if names and task.names(folder) else metadata.label_fault(task, folder)
        yield Finding(place, message=f"the folder's name is the system's label; it {fault}")
    for part, pattern in _patterns(task).items():
        wanted = pattern.format(**names) if names else pattern
        if part not in parts and f"{place}/{wanted}" not in unread:
            yield Finding(place, message=f"there is no {wanted}; add it")
        elif part in parts and names and PurePosixPath(parts[part].shown).name != wanted:
            yield Finding(parts[part].shown, message=f"must be named {wanted}{_composed(wanted, parts[part].shown)}")
    said = _said(document.values)
    if names and said and said != names["label"] and task.names(said):  # of another kind `metadata` has said so
        message = f"must be {names['label']}, as the files are named; found {said}"
        line = document.line(("submission", "label"))
        yield Finding(parts[METADATA].shown, line, "submission.label", message)


def _composed(wanted: str, found: str) -> str:
    """What to do about a name; where it looks as it should, in what it differs all the same."""
    alike = unicodedata.normalize("NFC", found).endswith(unicodedata.normalize("NFC", wanted))
    return ", letters and accents in one (Unicode's NFC), which macOS parts; rename it" if alike else "; rename it"


def _one_team(teams: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Find systems of another author or institute than most."""
    team = _most(teams)
    for place, names in teams.items():
        asked, found = (f"{each['author']}_{each['institute']}" for each in (team, names))
        if found != asked:
            message = f"must be of {asked}, as the others; found {found}: one package is of one team"
            yield Finding(place, message=message)


def _most(teams: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | None:
    """The fields of a label of the team that most systems are of."""
    counts = Counter((names["author"], names["institute"]) for names in teams.values())
    return max(teams.values(), key=lambda names: counts[names["author"], names["institute"]], default=None)


def _report(
    task: Task, names: Mapping[str, str] | None, others: Mapping[str, Entry], name: str, unread: Set[str]
) -> Iterator[Finding]:
    """Check that the report is there, and a PDF; nothing else is to lie outside the systems' folders."""
    wanted = task.package.report.value.format(**names) if names else task.package.report.value
    pdfs = [inner for inner in others if inner.lower().endswith(".pdf")]
    found = None
    if wanted in others:
        found = wanted
    elif len(pdfs) == 1:
        found = pdfs[0]
    if found is None and f"{name}/{wanted}" not in unread:
        yield Finding(name, message=f"there is no report {wanted}; add it")
    if found is not None:
        if found != wanted and names:
            yield Finding(others[found].shown, message=f"must be {wanted}; move it there")
        if fault := reports.fault(others[found].path):
            yield Finding(others[found].shown, message=fault)
    yield from (_stray(entry) for inner, entry in others.items() if inner != found)


def _stray(entry: Entry) -> Finding:
    """A file that belongs nowhere; one that may be taken for a part of the submission must go."""
    severity = ERROR if entry.shown.lower().endswith(COUNTS) else WARNING
    return Finding(entry.shown, message="is no part of a submission; take it out", severity=severity)


def _alike(systems: Sequence[System], name: str) -> Iterator[Finding]:
    """Find systems whose outputs are those of another, all of them: one is handed in for nothing."""
    first: dict[tuple[bytes, ...], str] = {}
    for system in systems:
        digests = tuple(hashlib.sha256(path.read_bytes()).digest() for path in system.outputs.values())
        if first.setdefault(digests, system.label) != system.label:
            message = f"{system.label} answers as {first[digests]} does, byte for byte; is it the right run?"
            yield Finding(name, message=message, severity=WARNING)


def training_sounds(task: Task, training: Iterable[Path], excluded: Path) -> list[Finding]:
    """Find sounds of training data that the task excludes.

    They are warnings: the organisers of 2024 did not refuse such systems, they marked them, and three sounds of
    Clotho's own development split stand in the list of 2025.

    Args:
        task: What is asked for.
        training: Lists of sounds: a CSV with the column `sound_id`, as Clotho's metadata, or any text with links to
            Freesound or an id a line.
        excluded: The task's list (`submission tasks NAME` says where it is published).

    Raises:
        BadRequest: The task excludes none, there is no such file, or one holds no ids.
        Faulty: A list cannot be read to its end.
    """
    if not task.excluded_ids:
        raise BadRequest(f"{task.name} excludes no sounds, as far as is known; leave --excluded away")
    for path in (excluded, *training):
        if not path.is_file():
            raise BadRequest(f"{path}: no such file; give a list of Freesound ids")
    forbidden = _ids(excluded, task.excluded_ids.column.value)
    findings = []
    for path in training:
        for sound, line in _ids(path, "sound_id").items():
            if sound in forbidden:
                message = f"Freesound's {sound} must not be trained on ({excluded}); leave it out and train again"
                findings.append(Finding(str(path), line, message=message, severity=WARNING))
    return findings


def _ids(path: Path, column: str | int) -> dict[str, int]:
    """Freesound ids of a list, with the line each stands in first. Words such as Clotho's `Not found` are no ids."""
    text = path.read_bytes().decode("utf-8-sig", "replace")  # Clotho's metadata are Latin-1
    header = text.partition("\n")[0]
    names = [name.strip().casefold() for name in re.split(r"[,;\t]", header.strip())]
    ids: dict[str, int] = {}
    if isinstance(column, int) or column in names:
        separator = max(",;\t", key=header.count)
        faults: list[Finding] = []
        rows, whole = tables.parse(text, str(path), faults, separator)
        if not whole:
            raise Faulty(faults)
        index = column - 1 if isinstance(column, int) else names.index(column)
        cells = ((line, [cells[index]]) for line, cells in rows[1:] if len(cells) > index)
    else:
        cells = ((line, [row, *LINKS.findall(row)]) for line, row in enumerate(text.splitlines(), start=1))
    for line, found in cells:
        for cell in found:
            if match := re.fullmatch(r"\s*0*(\d{1,18})(\.0)?\s*", cell):
                ids.setdefault(match[1], line)
    if not ids:
        where = f"the column {column}" if column in names or isinstance(column, int) else "links and lines"
        raise BadRequest(f"{path}: holds no Freesound ids in {where}; give a CSV with the column sound_id, or a list")
    return ids


# Making ---------------------------------------------------------------------------------------------------------------


def make(
    task: Task, runs: Sequence[Path], team: Team, dataset: Dataset, target: Path, answered: str = ""
) -> list[Finding]:
    """Make a package from runs, whole or not at all; the same runs, team and data give the same bytes.

    Args:
        task: What is asked for.
        runs: A run folder for each system.
        team: Who hands in.
        dataset: The data folder; the sets that are answered are read from it, and described in the metadata.
        target: The zip.
        answered: A split that is answered in place of each of the task's sets, for a rehearsal where these are not to
            be had.

    Returns:
        What is worth a look, and no error.

    Raises:
        BadRequest: There are more runs than systems may be handed in, one is given twice or is no run, or `target` is
            something that is not to be replaced, such as a package of another task.
        Faulty: A prediction is missing, or `checked` finds an error in the package; with every finding.
    """
    if not 1 <= len(runs) <= task.systems.value:
        raise BadRequest(f"{task.name} takes 1 to {task.systems.value} systems; {len(runs)} runs were given")
    if len({run.resolve() for run in runs}) < len(runs):
        raise BadRequest("a run was given twice; give each system once")
    if lost := [run for run in runs if not run.is_dir()]:
        raise BadRequest(f"{lost[0]}: no such run folder; train one: python -m systems train …")
    if strange := [run for run in runs if not any((run / name).exists() for name in OF_RUN)]:
        message = "is no run folder, and has no predictions/; give what `systems train --run` names"
        raise BadRequest(f"{strange[0]}: {message}, or a folder with predictions of your own")
    _replaceable(task, target)
    if lacking := [name for name in task.sets if not answered and name not in dataset.splits]:
        message = f"{dataset.folder}: has no {' and no '.join(lacking)}, which {task.name} asks for"
        raise BadRequest(f"{message}; for a rehearsal give --split evaluation")
    splits = {name: dataset[answered or name] for name in task.sets}
    findings: list[Finding] = []
    if len(team.systems) > len(runs):
        message = f"the team file's systems has {len(team.systems)} entries for {len(runs)} runs; the last are not used"
        findings.append(Finding(str(target), message=message, severity=WARNING))
    sources: dict[str, Path] = {}  # what a metadata file is made from, by its name in findings
    with tempfile.TemporaryDirectory(prefix="dcase-") as scratch:
        files: dict[str, Path] = {}
        for index, run in enumerate(runs, start=1):
            label = task.label.value.format(author=team.author, institute=team.institute, index=index)
            names = task.names(label)
            folder = task.package.folder.value.format(**names)
            for split, output in task.sets.items():
                inner = f"{folder}/{output.file.value.format(**names)}"
                files[inner] = Path(scratch) / str(len(files))
                findings += _answer(task, run, splits[split], dataset.folder, files[inner], f"{target}/{inner}")
            described, unsaid, found = describe(task, run, dataset)
            said = metadata.merged(team.metadata, *team.systems[index - 1 : index])
            unsaid = [path for path in unsaid if metadata.value_at(said, tuple(path.split("."))) is metadata.ABSENT]
            if unsaid:
                message = f"does not say {', '.join(unsaid)}, which is null then; say it there or in the team file"
                found.append(Finding(str(run / "system.yaml"), message=message, severity=NOTE))
            findings += found
            values = metadata.merged(described, said, {"submission": {"label": label}})
            inner = f"{folder}/{task.package.metadata.value.format(**names)}"
            files[inner] = Path(scratch) / str(len(files))
            sources[f"{target}/{inner}"] = run / "system.yaml"
            try:
                files[inner].write_text(metadata.text(task, values), encoding="utf-8")
            except ValueError as fault:
                findings.append(Finding(str(run / "system.yaml"), message=f"{fault}{MEND}"))
        files[task.package.report.value.format(**names)] = team.report
        made = Path(scratch) / "package.zip"
        if not any(finding.severity == ERROR for finding in findings):
            archive.pack(files, made)
            with checked(task, made, splits, str(target)) as (_, found):
                findings += [_of_source(finding, sources) for finding in found]
        if any(finding.severity == ERROR for finding in findings):
            raise Faulty({finding for finding in findings if finding.severity != NOTE})
        with replacing(target) as part:
            shutil.copyfile(made, part)
    return sorted(set(findings))


MEND = "; mend it there or in the team file"


def _of_source(finding: Finding, sources: Mapping[str, Path]) -> Finding:
    """Of a metadata file that was made, name what it was made from: that is what can be mended."""
    if finding.file not in sources:
        return finding
    return replace(finding, file=str(sources[finding.file]), line=0, message=finding.message + MEND)


def _replaceable(task: Task, target: Path) -> None:
    """Make sure that a package takes the place of one that was made here for the same task, or of nothing."""
    if target.suffix.lower() != ".zip":
        raise BadRequest(f"{target}: must end in .zip; give another name")
    if not target.is_file():
        return
    top = PurePosixPath(task.package.folder.value).parts[0]
    with archive.opened(target) as there:
        errors = [finding for finding in there.findings if finding.severity == ERROR]
        inside = all(name.startswith(f"{top}/") for name in there.files)
        written_for = metadata.tasks_of(_metadata_of(there.files))
    others = [name for name in written_for if name != task.name]
    if others:  # the file names of two years are the same
        message = f"is there already, a package of {' and '.join(others)}; give {task.name}'s another name by --out"
    elif errors:
        message = f"is there already, and no package of {task.name} that can be read; give another name by --out"
    elif not inside or not written_for:
        message = f"is there already, and no package of {task.name}; give another name"
    else:
        return
    raise BadRequest(f"{target}: {message}")


def _answer(task: Task, run: Path, split: Split, folder: Path, path: Path, shown: str) -> list[Finding]:
    """Write what a run answers for a split; findings about the file that is written call it `shown`."""
    matrix, table = (run / "predictions" / f"{split.name}{suffix}" for suffix in (".npz", ".csv"))
    try:
        if task.kind == "captioning":
            if not table.is_file():
                return [_no_prediction(task, run, split, folder, table, matrix)]
            source = table
            prediction = predictions.read_captions(table)
        else:
            source = matrix if matrix.is_file() else table
            if not source.is_file() or _holds_captions(source):
                return [_no_prediction(task, run, split, folder, matrix, table)]
            prediction = predictions.read_retrieval(source, (len(split.queries), len(split.clips)))
        outputs.write(task, prediction, split, path, str(source))
    except Faulty as faulty:
        return [replace(finding, file=shown) if finding.file == str(path) else finding for finding in faulty.findings]
    return []


def _holds_captions(path: Path) -> bool:
    """Say whether a prediction is a captioner's."""
    if path.suffix != ".csv":
        return False
    with path.open("rb") as file:
        header = file.readline(SHOWN)
    return b"file_name" in header and b"caption_predicted" in header


def _no_prediction(task: Task, run: Path, split: Split, folder: Path, wanted: Path, other: Path) -> Finding:
    """Say that a run has no prediction for a task; `other` is where the one for tasks of the other kind lies."""
    words = ["python", "-m", "systems", "predict", str(run), "--data", str(folder), "--split", split.name]
    command = shlex.join(words)
    if other.is_file():
        kinds = [("a captioner", "captions"), ("a retriever", "similarities")]
        (maker, what), (whose, found) = kinds if task.kind == "captioning" else kinds[::-1]
        message = f"is not there: {task.name} takes {what}, and {other.name} holds {whose}'s {found}"
        advice = f"give {maker}'s run, or, where the system is both: {command} --as {task.kind}"
        return Finding(str(wanted), message=f"{message}; {advice}")
    own = {
        "captions": "a CSV of file_name and caption_predicted",
        "top-k": f"predictions.Similarity(…).save, or {other.name}, a CSV of each query and its best clips",
        "matrix": "predictions.Similarity(…).save",
    }[task.form.value]
    message = f"is not there, and {task.name} wants it; make it: {command}; or, of a system of your own, by {own}"
    return Finding(str(wanted), message=message)


def describe(task: Task, run: Path, dataset: Dataset) -> tuple[dict[str, object], list[str], list[Finding]]:
    """What a run and the data say of a system, by the keys of the task's metadata.

    `system.yaml` has what stands below `system`, `scores/evaluation.json` fills the results, of a run that does both
    tasks `scores/evaluation-retrieval.json` those of retrieval, and the data folder the lists of data sets. Where the
    task wants a key that nobody says and null is allowed, it is null.

    Returns:
        The metadata, the paths of keys that nobody says, and every finding.
    """
    file, kept = run / "system.yaml", run / "scores" / f"{EVALUATION}.json"
    apart = kept.with_stem(f"{EVALUATION}-retrieval")  # beside the captions' score
    if task.kind == "retrieval" and apart.is_file():
        kept = apart
    trained_on = _digests(run / "config.yaml")
    findings: list[Finding] = []
    measured: dict[str, float] = {}
    system: dict[str, object] = {}
    if file.is_file():
        document = documents.read(file)
        findings += [finding for finding in document.findings if finding.severity == ERROR]
        system = document.values or {}
    else:
        message = "is not there (`systems train` writes it in the end): what the system is, the team file alone says"
        findings.append(Finding(str(file), message=message, severity=NOTE))
    if kept.is_file():
        try:
            score = scores.read(kept)
            findings += scores.check(score, str(kept))
            kind = "retrieval" if score.items.kind == "queries" else "captioning"
            if kind == task.kind:
                measured = {name: metric.estimate.value for name, metric in score.metrics.items()}
            else:
                advice = f"rename it {apart.name}, and score the captions into {kept.name}"
                if kind == "captioning":
                    advice = f"score the retrieval into {apart.name} beside it"
                message = f"is a score of {kind}, where {task.name} is {task.kind}: the metadata say no results"
                findings.append(Finding(str(kept), message=f"{message}; {advice}", severity=WARNING))
            if f"|split:{EVALUATION}#" not in score.signature:
                message = f"must be a score on {EVALUATION}, which the results are of; found {cut(score.signature)}"
                findings.append(Finding(str(kept), column="signature", message=f"{message}: score that split"))
        except Faulty as faulty:
            findings += faulty.findings
    else:
        command = f"python -m evaluation score … --json {shlex.quote(str(kept))}"
        message = f"is not there: the metadata say no results; make it: {command}"
        findings.append(Finding(str(kept), message=message, severity=NOTE))
    unsaid: list[str] = []

    def fill(key: Key, said: object, path: str) -> object:
        if key.split:
            split = dataset.splits.get(key.split)
            if split and split.digest and trained_on.get(key.split, split.digest) != split.digest:
                message = (
                    f"was trained on another {key.split} split than {dataset.folder} has; describe it in the team file"
                )
                findings.append(Finding(str(run / "config.yaml"), column=path, message=message, severity=WARNING))
                return None
            return [_described(key, dataset.folder, split)] if split else None
        if key.keys and not key.many:
            below = said if isinstance(said, dict) else {}
            if said is not None and not isinstance(said, dict):
                message = f"must be keys and values ({', '.join(key.keys)}); found {quoted(str(said))}{MEND}"
                findings.append(Finding(str(file), column=path.removeprefix("system."), message=message))
            for name in below:  # others may stand there that the task does not ask for
                absent = [known for known in key.keys if known not in below]
                if name not in key.keys and (meant := difflib.get_close_matches(str(name), absent, 1, 0.8)):
                    message = f"is no key of {task.name}, and left out; did you mean {meant[0]!r}?"
                    findings.append(Finding(str(file), column=cut(str(name)), message=message, severity=WARNING))
            filled = {
                name: fill(part, below.get(name), f"{path}.{name}".lstrip(".")) for name, part in key.keys.items()
            }
            return {name: value for name, value in filled.items() if value is not None or key.keys[name].need == NULL}
        if key.metric:
            return round(measured[key.metric], 6) if key.metric in measured else None
        if key.need == NULL and metadata.value_at({"system": system}, tuple(path.split("."))) is metadata.ABSENT:
            unsaid.append(path)
        return said

    return fill(task.whole, {"system": system}, ""), unsaid, findings


def _digests(config: Path) -> dict[str, str]:
    """Which data a run was trained on, by the names of their splits; nothing where it does not say."""
    values = documents.read(config).values if config.is_file() else None
    found = values.get("data") if values else None
    return found if isinstance(found, dict) else {}


def _described(key: Key, folder: Path, split: Split) -> dict[str, object]:
    """A split as a list of data sets describes it; with null for what cannot be known here."""
    clips, captions = split.clips, split.captions
    pairs = sum(len(clip.captions) for clip in clips)
    known = {
        "name": f"{folder.resolve().name} {split.name}",
        "has_audio": True,
        "has_images": False,
        "has_video": False,
        "has_captions": pairs > 0,
        "nb_captions_per_audio": _whole(pairs / max(len(clips), 1)),
        "nb_clips_per_caption": _whole(sum(map(len, captions.values())) / max(len(captions), 1)),
        "total_audio_length": None if split.seconds is None else round(split.seconds),
        "total_captions": pairs,
    }
    return {name: known.get(name) for name in key.keys}


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 2)
