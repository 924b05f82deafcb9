"""Packages: made from run folders, and checked whole before they are submitted.

A package is a folder or a zip: for each system a folder with its outputs and its metadata, and one report for all. The
task's facts say how they are named and where they are.
"""

import hashlib
import re
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from evaluation import predictions
from evaluation.data.dataset import Dataset, Split
from evaluation.files import replacing
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Faulty, Finding
from evaluation.ordering import natural_key
from submission import archive, documents, metadata, metadata_text, outputs, reports, run_folders
from submission.documents import Document
from submission.run_folders import CORRECT
from submission.tasks import Task
from submission.teams import Team

METADATA = "metadata"  # the name of a system's metadata among its parts; its outputs are named by their sets
OUTPUT_FILES, METADATA_FILES = r".*\.csv", r".*\.ya?ml"
COUNTS = (".csv", ".yaml", ".yml", ".pdf", ".zip")  # files that may be taken for a part of a submission


@dataclass(frozen=True)
class System:
    """One system of a package.

    Attributes:
        label: Its label.
        metadata: The values of its metadata file.
        outputs: Its output files by the set that they answer.
    """

    label: str
    metadata: Mapping[str, object]
    outputs: Mapping[str, Path]


class Entry(NamedTuple):
    """A file of a package: its name in findings, and the path where it can be read."""

    shown: str
    path: Path


# Checking -------------------------------------------------------------------------------------------------------------


@contextmanager
def checked(
    task: Task, path: Path, splits: Mapping[str, Split | str], name: str = ""
) -> Iterator[tuple[list[System], list[Finding]]]:
    """Open a package, safely whatever it holds, and check all of it.

    Args:
        task: The task.
        path: A folder or a zip, which is not changed.
        splits: By the task's sets, the split with the queries and clips that are answered. An output whose set has only
            a name here, or nothing, is checked by itself.
        name: The name of the package in findings (default: its path).

    Yields:
        The systems, none if the package has an error, and every finding. The systems' files can be read only inside
        the `with` block.

    Raises:
        BadRequest: There is no such folder or zip, or it is the folder of a single system.
    """
    if task.label_fields(path.resolve().name) and path.is_dir():
        raise BadRequest(f"{path}: is the folder of one system; give the package, which is above it")
    name = name or str(path)
    with archive.opened(path) as opened:
        findings = [replace(each, file=each.file.replace(str(path), name, 1)) for each in opened.findings]
        unread = {finding.file for finding in findings if finding.severity == ERROR}
        systems: list[System] = []
        if name not in unread:  # nothing can be said about the parts of a package that cannot be read
            systems, more = check(task, opened.files, splits, name, unread)
            findings += more
        if _has_error(findings):
            systems = []
        yield systems, sorted(set(findings))


def _has_error(findings: Iterable[Finding]) -> bool:
    return any(finding.severity == ERROR for finding in findings)


def check(
    task: Task, files: Mapping[str, Path], splits: Mapping[str, Split | str], name: str, unread: Set[str]
) -> tuple[list[System], list[Finding]]:
    """Check the files of a package: which are there, their names, and their content.

    Args:
        task: The task.
        files: By its path in the package, where each file can be read.
        splits: As of `checked`.
        name: The name of the package in findings.
        unread: The names in findings of files that cannot be read, about which there are findings already.

    Returns:
        The systems whose files are all there, and every finding.
    """
    findings = metadata.of_others(task, _metadata_files(files), name)
    entries = {inner: Entry(f"{name}/{inner}", path) for inner, path in files.items()}
    entries = _from_task_folder(task, entries, name, findings)
    folders, others = _system_folders(task, entries)
    most = task.systems.value
    if not folders and not unread:
        findings.append(Finding(name, message=f"must hold {task.package.folder.value}/ for each system; found none"))
    if len(folders) > most:
        message = f"must not hold more than {most} systems; found {len(folders)}: {', '.join(folders)}"
        findings.append(Finding(name, message=f"{message}; only the first {most} are looked at"))
    systems: list[System] = []
    label_fields: dict[str, dict[str, str]] = {}  # of each system, by its folder
    for folder, inside in list(folders.items())[:most]:
        place = str(PurePosixPath(next(iter(inside.values())).shown).parent)
        parts, left = _parts(task, folder, inside)
        others |= {f"{folder}/{file}": entry for file, entry in left.items()}
        document = Document(None)
        if METADATA in parts:
            document = documents.read(parts[METADATA].path, parts[METADATA].shown)
            findings += metadata.check(task, document, parts[METADATA].shown)
        fields = _label_fields(task, folder, parts, document.values)
        findings += _check_names(task, folder, place, fields, parts, document, unread)
        if fields:
            label_fields[place] = fields
        for split in task.sets:
            if split in parts:
                findings += outputs.validate(task, parts[split].path, splits.get(split, split), parts[split].shown)
        if fields and document.values and parts.keys() == {METADATA, *task.sets}:
            files_by_set = {split: parts[split].path for split in task.sets}
            systems.append(System(fields["label"], document.values, files_by_set))
    team = _team_of_most(label_fields)
    findings += _check_one_team(label_fields, team)
    findings += _check_report(task, team, others, name, unread)
    findings += _check_alike(systems, name)
    return systems, findings


def _metadata_files(files: Mapping[str, Path]) -> list[Path]:
    """Return the files that may be metadata, wherever they are in the package."""
    return [path for inner, path in files.items() if re.fullmatch(METADATA_FILES, inner, re.IGNORECASE)]


def _from_task_folder(task: Task, entries: dict[str, Entry], name: str, findings: list[Finding]) -> dict[str, Entry]:
    """Return the files by the paths that they should have, which begin with the task's folder."""
    top = PurePosixPath(task.package.folder.value).parts[0]
    first = sorted({PurePosixPath(inner).parts[0] for inner in entries}, key=natural_key)
    if top in first or not first:
        return entries
    if len(first) == 1:
        inside = {"/".join(PurePosixPath(inner).parts[1:]): entry for inner, entry in entries.items() if "/" in inner}
        if any(PurePosixPath(inner).parts[0] == top for inner in inside):
            message = f"everything lies in {first[0]}/, which is accepted; {top}/ is to lie at the top"
            findings.append(Finding(name, message=message, severity=NOTE))
            return inside
    alike = [folder for folder in first if folder.casefold() == top.casefold()]
    if alike:
        findings.append(Finding(f"{name}/{alike[0]}", message=f"must be named {top}; rename it"))
        return {re.sub(rf"^{re.escape(alike[0])}/", f"{top}/", inner): entry for inner, entry in entries.items()}
    if Path(name).resolve().name != top:  # otherwise the user gave the task's folder itself
        shown = ", ".join(first[:3])
        if len(first) > 3:
            shown += ", …"
        findings.append(Finding(name, message=f"must begin with {top}/; found {shown}: put all into a folder {top}"))
    return {f"{top}/{inner}": entry for inner, entry in entries.items()}


def _system_folders(task: Task, entries: Mapping[str, Entry]) -> tuple[dict[str, dict[str, Entry]], dict[str, Entry]]:
    """Return the files of each system's folder by their names, and all other files by their paths."""
    above = PurePosixPath(task.package.folder.value).parent
    folders: dict[str, dict[str, Entry]] = {}
    others = {}
    for inner in sorted(entries, key=natural_key):
        path = PurePosixPath(inner)
        if path.parent.parent == above and path.name.lower().endswith(COUNTS):
            folders.setdefault(path.parent.name, {})[path.name] = entries[inner]
        else:
            others[inner] = entries[inner]
    return folders, others


def _part_patterns(task: Task) -> dict[str, str]:
    """Return the pattern of each part's file name: outputs by their sets, and metadata."""
    patterns = {split: output.file.value for split, output in task.sets.items()}
    patterns[METADATA] = task.package.metadata.value
    return patterns


def _parts(task: Task, folder: str, inside: Mapping[str, Entry]) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Return the parts of a system, also misnamed ones, and the files of its folder that are no part.

    A file is a part if its name is right; then if its name is right apart from the label; then if it is the only file
    of the part's kind. The last two count only if no other file and no other part is possible.
    """
    patterns = _part_patterns(task)
    left = dict(inside)
    parts = {}
    names = task.label_fields(folder)
    if names:
        for part, pattern in patterns.items():
            file = pattern.format(**names)
            if file in left:
                parts[part] = left.pop(file)
    any_label = {part: re.sub(r"\\\{\w+\\\}", ".*", re.escape(pattern)) for part, pattern in patterns.items()}
    any_name = {**dict.fromkeys(task.sets, OUTPUT_FILES), METADATA: METADATA_FILES}
    for loose in (any_label, any_name):
        for part in patterns:
            if part in parts:
                continue
            alike = [file for file in left if re.fullmatch(loose[part], file, re.IGNORECASE)]
            rivals = [other for other in patterns if other not in parts and loose[other] == loose[part]]
            if len(alike) == 1 and len(rivals) == 1:
                parts[part] = left.pop(alike[0])
    return parts, left


def _label_fields(
    task: Task, folder: str, parts: Mapping[str, Entry], values: Mapping[str, object] | None
) -> dict[str, str] | None:
    """Return the fields of a system's label, by what most of its folder, its files and its metadata say."""
    labels: list[str | None] = [folder]
    for part, pattern in _part_patterns(task).items():
        if part in parts:
            labels.append(task.label_of(pattern, PurePosixPath(parts[part].shown).name))
    labels.append(_label_in(values))
    valid = Counter(label for label in labels if label and task.label_fields(label))
    if valid:
        return task.label_fields(valid.most_common(1)[0][0])
    return _corrected_fields(task, folder)


def _corrected_fields(task: Task, label: str) -> dict[str, str] | None:
    """Return the fields of a label whose fixed parts are wrong."""
    parts = label.split("_")
    institute = parts[1] if len(parts) > 1 else parts[0]
    corrected = task.label.value.format(author=parts[0], institute=institute, index=parts[-1])
    if len(parts) != len(corrected.split("_")):
        return None
    return task.label_fields(corrected)


def _label_in(values: object) -> str | None:
    """Return the label in a metadata file."""
    label = metadata.value_at(values, metadata.LABEL)
    if isinstance(label, str):
        return label
    return None


def _check_names(
    task: Task,
    folder: str,
    place: str,
    fields: Mapping[str, str] | None,
    parts: Mapping[str, Entry],
    document: Document,
    unread: Set[str],
) -> Iterator[Finding]:
    """Find what is not named by the system's label, and which parts are missing.

    Args:
        task: The task.
        folder: The name of the system's folder.
        place: The folder's name in findings.
        fields: The fields of the system's label; None if they are not known.
        parts: The system's parts.
        document: The metadata.
        unread: As of `check`.
    """
    if fields is None or folder != fields["label"]:
        fault = metadata.label_fault(task, folder)
        if fields and task.label_fields(folder):
            fault = f"must be {fields['label']}"
        yield Finding(place, message=f"the folder's name is the system's label; it {fault}")
    for part, pattern in _part_patterns(task).items():
        wanted = pattern.format(**fields) if fields else pattern
        if part not in parts:
            if f"{place}/{wanted}" not in unread:
                yield Finding(place, message=f"there is no {wanted}; add it")
        elif fields and PurePosixPath(parts[part].shown).name != wanted:
            yield Finding(
                parts[part].shown, message=f"must be named {wanted}{_how_to_rename(wanted, parts[part].shown)}"
            )
    label = _label_in(document.values)
    # `metadata.check` finds labels that break the rule.
    if fields and label and label != fields["label"] and task.label_fields(label):
        message = f"must be {fields['label']}, as the files are named; found {label}"
        yield Finding(parts[METADATA].shown, document.line(metadata.LABEL), "submission.label", message)


def _how_to_rename(wanted: str, shown: str) -> str:
    """Return what to do about a wrong name, and how it differs if it looks right."""
    if unicodedata.normalize("NFC", shown).endswith(unicodedata.normalize("NFC", wanted)):
        return ", letters and accents in one (Unicode's NFC), which macOS parts; rename it"
    return "; rename it"


def _team_of_most(label_fields: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | None:
    """Return the label fields of a system of the team that most systems belong to; None if there are no systems."""
    counts = Counter(_team(fields) for fields in label_fields.values())
    return max(label_fields.values(), key=lambda fields: counts[_team(fields)], default=None)


def _team(fields: Mapping[str, str]) -> str:
    return f"{fields['author']}_{fields['institute']}"


def _check_one_team(label_fields: Mapping[str, Mapping[str, str]], team: Mapping[str, str] | None) -> Iterator[Finding]:
    """Find systems of another author or institute than most."""
    for place, fields in label_fields.items():
        if _team(fields) != _team(team):
            message = f"must be of {_team(team)}, as the others; found {_team(fields)}: one package is of one team"
            yield Finding(place, message=message)


def _check_report(
    task: Task, team: Mapping[str, str] | None, others: Mapping[str, Entry], name: str, unread: Set[str]
) -> Iterator[Finding]:
    """Check that the report is there and a PDF, and that nothing else is outside the systems' folders."""
    wanted = task.package.report.value
    if team:
        wanted = wanted.format(**team)
    pdfs = [inner for inner in others if inner.lower().endswith(".pdf")]
    report = None
    if wanted in others:
        report = wanted
    elif len(pdfs) == 1:
        report = pdfs[0]
    if report is None and f"{name}/{wanted}" not in unread:
        yield Finding(name, message=f"there is no report {wanted}; add it")
    if report is not None:
        if report != wanted and team:
            yield Finding(others[report].shown, message=f"must be {wanted}; move it there")
        fault = reports.fault(others[report].path)
        if fault:
            yield Finding(others[report].shown, message=fault)
    for inner, entry in others.items():
        if inner != report:
            severity = ERROR if inner.lower().endswith(COUNTS) else WARNING
            yield Finding(entry.shown, message="is no part of a submission; take it out", severity=severity)


def _check_alike(systems: Sequence[System], name: str) -> Iterator[Finding]:
    """Find systems all of whose outputs are those of another system."""
    first: dict[tuple[bytes, ...], str] = {}
    for system in systems:
        digests = tuple(hashlib.sha256(path.read_bytes()).digest() for path in system.outputs.values())
        other = first.setdefault(digests, system.label)
        if other != system.label:
            message = f"{system.label} answers as {other} does, byte for byte; is it the right run?"
            yield Finding(name, message=message, severity=WARNING)


# Making ---------------------------------------------------------------------------------------------------------------


def make(
    task: Task, runs: Sequence[Path], team: Team, dataset: Dataset, target: Path, answered: str = ""
) -> list[Finding]:
    """Make a package from runs, whole or not at all; the same runs, team and data give the same bytes.

    Args:
        task: The task.
        runs: A run folder for each system; `run_folders` says what it must hold.
        team: The team, from its file.
        dataset: The data folder: the sets that are answered are read from it, and described in the metadata.
        target: The zip.
        answered: A split that is answered in place of each of the task's sets, for a rehearsal before these are
            published.

    Returns:
        Warnings and notes.

    Raises:
        BadRequest: There are more runs than a team may submit, one is given twice or is no run; the data folder does
            not have the task's sets; or `target` must not be replaced, such as a package of another task.
        Faulty: A prediction is missing, or `checked` finds an error in the package; with every finding.
    """
    if not 1 <= len(runs) <= task.systems.value:
        raise BadRequest(f"{task.name} takes 1 to {task.systems.value} systems; {len(runs)} runs were given")
    if len({run.resolve() for run in runs}) < len(runs):
        raise BadRequest("a run was given twice; give each system once")
    split_names = {name: answered or name for name in task.sets}
    predictions: list[dict[str, Path]] = []
    findings: list[Finding] = []
    for run in runs:
        files, missing = run_folders.find_predictions(task, run, split_names, dataset.folder)
        predictions.append(files)
        findings += missing
    _check_target(task, target)
    splits = _answered_splits(task, dataset, answered)
    if len(team.systems) > len(runs):
        message = f"the team file's systems has {len(team.systems)} entries for {len(runs)} runs; the last are not used"
        findings.append(Finding(str(target), message=message, severity=WARNING))
    with tempfile.TemporaryDirectory(prefix="dcase-") as scratch:
        maker = _Maker(task, team, dataset, splits, target, Path(scratch))
        for run, files in zip(runs, predictions, strict=True):
            maker.add(run, files)
        findings += maker.findings
        package = Path(scratch) / "package.zip"
        if not _has_error(findings):
            archive.pack(maker.files, package)
            with checked(task, package, splits, str(target)) as (_, more):
                findings += map(maker.about_source, more)
        if _has_error(findings):
            raise Faulty({finding for finding in findings if finding.severity != NOTE})
        with replacing(target) as part:
            shutil.copyfile(package, part)
    return sorted(set(findings))


def _answered_splits(task: Task, dataset: Dataset, answered: str) -> dict[str, Split]:
    """Return the split that is answered for each of the task's sets."""
    if answered:
        return dict.fromkeys(task.sets, dataset[answered])
    lacking = [name for name in task.sets if name not in dataset.splits]
    if lacking:
        message = f"{dataset.folder}: has no {' and no '.join(lacking)}, which {task.name} asks for"
        raise BadRequest(f"{message}; for a rehearsal give --split evaluation")
    return {name: dataset[name] for name in task.sets}


def _check_target(task: Task, target: Path) -> None:
    """Make sure that a package replaces only one that was made here for the same task."""
    if target.suffix.lower() != ".zip":
        raise BadRequest(f"{target}: must end in .zip; give another name")
    if not target.is_file():
        return
    top = PurePosixPath(task.package.folder.value).parts[0]
    with archive.opened(target) as there:
        readable = not _has_error(there.findings)
        inside = all(name.startswith(f"{top}/") for name in there.files)
        written_for = metadata.tasks_of(_metadata_files(there.files))
    others = [name for name in written_for if name != task.name]
    if others:  # file names are the same in several years
        message = f"is there already, a package of {' and '.join(others)}; give {task.name}'s another name by --out"
    elif not readable:
        message = f"is there already, and no package of {task.name} that can be read; give another name by --out"
    elif not inside or not written_for:
        message = f"is there already, and no package of {task.name}; give another name"
    else:
        return
    raise BadRequest(f"{target}: {message}")


class _Maker:
    """Writes the files of a package, one system after the other.

    Attributes:
        files: The files by their paths in the package.
        findings: The findings so far.
    """

    def __init__(
        self, task: Task, team: Team, dataset: Dataset, splits: Mapping[str, Split], target: Path, scratch: Path
    ):
        self.task, self.team, self.dataset, self.splits = task, team, dataset, splits
        self.target, self.scratch = target, scratch
        self.files: dict[str, Path] = {}
        self.findings: list[Finding] = []
        self._sources: dict[str, Path] = {}  # by the name in findings of a metadata file, what it is made from
        self._systems = 0

    def add(self, run: Path, predictions: Mapping[str, Path]) -> None:
        """Write the outputs and the metadata of the next system."""
        self._systems += 1
        team = self.team
        label = self.task.label.value.format(author=team.author, institute=team.institute, index=self._systems)
        names = self.task.label_fields(label)
        folder = self.task.package.folder.value.format(**names)
        for name, prediction in predictions.items():
            inner = f"{folder}/{self.task.sets[name].file.value.format(**names)}"
            self._write_output(prediction, self.splits[name], inner)
        self._write_metadata(run, label, f"{folder}/{self.task.package.metadata.value.format(**names)}")
        self.files[self.task.package.report.value.format(**names)] = team.report

    def about_source(self, finding: Finding) -> Finding:
        """Return a finding about a metadata file as one about `system.yaml`, which the user can correct."""
        if finding.file not in self._sources:
            return finding
        return replace(finding, file=str(self._sources[finding.file]), line=0, message=finding.message + CORRECT)

    def _new_file(self, inner: str) -> Path:
        self.files[inner] = self.scratch / str(len(self.files))
        return self.files[inner]

    def _write_output(self, source: Path, split: Split, inner: str) -> None:
        """Write an output file from a prediction."""
        file = self._new_file(inner)
        try:
            if self.task.kind == "captioning":
                prediction = predictions.read_captions(source)
            else:
                prediction = predictions.read_retrieval(source, (len(split.queries), len(split.clips)))
            outputs.write(self.task, prediction, split, file, str(source))
        except Faulty as faulty:
            for finding in faulty.findings:
                if finding.file == str(file):
                    finding = replace(finding, file=f"{self.target}/{inner}")
                self.findings.append(finding)

    def _write_metadata(self, run: Path, label: str, inner: str) -> None:
        """Write a metadata file from a run folder, the data and the team file."""
        system_file = run / "system.yaml"
        self._sources[f"{self.target}/{inner}"] = system_file
        described, without_value, findings = run_folders.describe(self.task, run, self.dataset)
        own = self.team.systems[self._systems - 1 : self._systems]
        from_team = metadata.merged(self.team.metadata, *own)
        unsaid = []
        for path in without_value:
            if metadata.value_at(from_team, tuple(path.split("."))) is metadata_text.ABSENT:
                unsaid.append(path)
        if unsaid:
            message = f"does not say {', '.join(unsaid)}, which is null then; say it there or in the team file"
            findings.append(Finding(str(system_file), message=message, severity=NOTE))
        values = metadata.merged(described, from_team, {"submission": {"label": label}})
        try:
            self._new_file(inner).write_text(metadata_text.text(self.task, values), encoding="utf-8")
        except ValueError as fault:
            findings.append(Finding(str(system_file), message=f"{fault}{CORRECT}"))
        self.findings += findings
