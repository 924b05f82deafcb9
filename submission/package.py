"""The making of packages from run folders, and the check of packages before they are submitted.

A package is a folder or a zip. It contains one report, and one folder for each system, with its outputs and its
metadata. The task's facts define the names of these files and folders.
"""

import filecmp
import re
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from evaluation.data.dataset import Dataset
from evaluation.files import replacing
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Faulty, Finding
from evaluation.natural_sort import natural_key
from submission import archive, documents, metadata, metadata_text, outputs, reports, run_folders
from submission.documents import Document
from submission.kinds import KINDS
from submission.outputs.form import Asked
from submission.run_folders import CORRECT
from submission.tasks import Task
from submission.teams import Team

METADATA = "metadata"  # key of the metadata file in a system's parts; the key of an output is its set
METADATA_FILES = r".*\.ya?ml"


@dataclass(frozen=True)
class System:
    """One system of a package.

    Attributes:
        label: Label of the system.
        metadata: Values of the system's metadata file.
        outputs: A dict from each of the task's sets to the system's output file.
        predictions: A dict from each set to the prediction in the output file, or to None if the check has not read the
            whole prediction.
    """

    label: str
    metadata: Mapping[str, object]
    outputs: Mapping[str, Path]
    predictions: Mapping[str, Any]


@dataclass(frozen=True)
class Checked:
    """A package that was checked.

    Attributes:
        systems: The systems that have all their files. It is empty if the package has an error that is not about the
            technical report.
        findings: Every finding, sorted.
        report: The technical report; None if it is missing or has an error.
    """

    systems: list[System]
    findings: list[Finding]
    report: Path | None


class Entry(NamedTuple):
    """A file of a package.

    Attributes:
        shown: Name of the file in findings.
        path: Path where the file can be read.
    """

    shown: str
    path: Path


# Checking -------------------------------------------------------------------------------------------------------------


@contextmanager
def checked(task: Task, path: Path, splits: Mapping[str, Asked | str], name: str = "") -> Iterator[Checked]:
    """Open a package and check all of it. Hostile content does no harm.

    Args:
        task: The task.
        path: A folder or a zip. It is not changed.
        splits: A dict from each of the task's sets to the split that its outputs are for. If the split is only a name,
            or a set is missing, the outputs are not compared with the data.
        name: The name of the package in findings (default: its path).

    Yields:
        The systems, every finding, and the report. Their files can be read only inside the `with` block.

    Raises:
        BadRequest: There is no such folder or zip, or the folder is the folder of a single system.
    """
    if task.label_fields(path.resolve().name) and path.is_dir():
        raise BadRequest(f"{path}: must be a package; found the folder of one system: give the folder above it")
    name = name or str(path)
    with archive.opened(path) as opened:
        findings = [replace(each, file=each.file.replace(str(path), name, 1)) for each in opened.findings]
        unread = {finding.file for finding in findings if finding.severity == ERROR}
        if name in unread:  # otherwise all parts of an unreadable package would be reported as missing
            yield Checked([], sorted(set(findings)), None)
            return
        content = check(task, opened.files, splits, name, unread)
        yield replace(content, findings=sorted({*findings, *content.findings}))


def part_suffixes(task: Task) -> tuple[str, ...]:
    """Return the suffixes of files that may be part of a submission."""
    return (task.output_form.suffix, ".yaml", ".yml", ".pdf", ".zip")


def _has_error(findings: Iterable[Finding]) -> bool:
    return any(finding.severity == ERROR for finding in findings)


def check(
    task: Task, files: Mapping[str, Path], splits: Mapping[str, Asked | str], name: str, unread: Set[str]
) -> Checked:
    """Check the files of a package: whether they are complete, their names, and their content.

    Args:
        task: The task.
        files: A dict from the path of each file in the package to a path where the file can be read.
        splits: See `checked`.
        name: The name of the package in findings.
        unread: The names in findings of files that could not be read. They have findings already.

    Returns:
        The systems, the findings about these files, and the report.
    """
    findings = metadata.of_others(task, _metadata_files(files), name)
    entries = {inner: Entry(f"{name}/{inner}", path) for inner, path in files.items()}
    entries = _from_task_folder(task, entries, name, findings)
    folders, others = _system_folders(task, entries)
    most = task.systems.value
    if not folders and not unread:
        message = f"must contain a folder {task.package.folder.value}/ for each system; found none: add them"
        findings.append(Finding(name, message=message))
    if len(folders) > most:
        message = f"must not contain more than {most} systems; found {len(folders)} ({', '.join(folders)})"
        findings.append(Finding(name, message=f"{message}: remove some; only the first {most} were checked"))
    systems: list[System] = []
    label_fields: dict[str, Mapping[str, str]] = {}  # for the folder of each system, as named in findings
    for folder, inside in list(folders.items())[:most]:
        checked_folder = _check_folder(task, folder, inside, splits, unread)
        findings += checked_folder.findings
        others |= checked_folder.others
        if checked_folder.fields:
            label_fields[checked_folder.place] = checked_folder.fields
        if checked_folder.system:
            systems.append(checked_folder.system)
    team = _team_of_most(label_fields)
    if team:
        findings += _check_one_team(label_fields, team)
    report = _find_report(task, others, team, name, unread)
    findings += _check_others(task, others, report.inner)
    findings += _check_alike(systems, name)
    unread_parts = {file for file in unread if not file.lower().endswith(".pdf")}  # no part of a system is a PDF
    if unread_parts or _has_error(findings):
        systems = []
    return Checked(systems, [*findings, *report.findings], report.file)


@dataclass(frozen=True)
class _CheckedFolder:
    """The folder of one system that was checked.

    Attributes:
        place: The folder's name in findings.
        fields: The fields of the system's label; None if they are not known.
        system: The system; None if one of its files is missing or has no values.
        others: The files that are no part of the system: a dict from their paths in the package to the files.
        findings: The findings about the system's files.
    """

    place: str
    fields: Mapping[str, str] | None
    system: System | None
    others: Mapping[str, Entry]
    findings: list[Finding]


def _check_folder(
    task: Task, folder: str, inside: Mapping[str, Entry], splits: Mapping[str, Asked | str], unread: Set[str]
) -> _CheckedFolder:
    """Check the folder of one system: the names of its files, its metadata and its outputs.

    Args:
        task: The task.
        folder: The name of the folder.
        inside: A dict from the name of each file in the folder to the file.
        splits: See `checked`.
        unread: See `check`.
    """
    place = str(PurePosixPath(next(iter(inside.values())).shown).parent)
    parts, other_files = _parts(task, folder, inside)
    others = {f"{folder}/{file}": entry for file, entry in other_files.items()}
    findings: list[Finding] = []
    document = Document(None)
    if METADATA in parts:
        document = documents.read(parts[METADATA].path, parts[METADATA].shown)
        findings += metadata.check(task, document, parts[METADATA].shown)
    fields = _label_fields(task, folder, parts, document.values)
    findings += _check_names(task, folder, place, fields, parts, document, unread)
    predictions: dict[str, Any] = {}
    for split in task.sets:
        if split in parts:
            path, shown = parts[split].path, parts[split].shown
            found, predictions[split] = outputs.validate_and_read(task, path, splits.get(split, split), shown)
            findings += found
    system = None
    if fields and document.values and parts.keys() == {METADATA, *task.sets}:
        files_by_set = {split: parts[split].path for split in task.sets}
        system = System(fields["label"], document.values, files_by_set, predictions)
    return _CheckedFolder(place, fields, system, others, findings)


class _Report(NamedTuple):
    """The technical report of a package.

    Attributes:
        inner: Its path in the package; None if it is missing.
        file: The path where it can be read; None if it is missing or has an error.
        findings: The findings about it.
    """

    inner: str | None
    file: Path | None
    findings: list[Finding]


def _find_report(
    task: Task, others: Mapping[str, Entry], team: Mapping[str, str] | None, name: str, unread: Set[str]
) -> _Report:
    """Find and check the technical report of a package.

    Args:
        task: The task.
        others: The files that are not part of a system: a dict from their paths in the package to the files.
        team: The label fields of a system of the team; None if they are not known.
        name: The name of the package in findings.
        unread: See `check`.
    """
    expected = task.package.report.value
    if team:
        expected = expected.format(**team)
    inner = _report_in(others, expected)
    if inner is None:
        if f"{name}/{expected}" in unread:
            return _Report(None, None, [])
        return _Report(None, None, [Finding(name, message=f"the report {expected} is missing; add it")])
    findings = list(_check_report(others[inner], inner, expected, team is not None))
    file = None if _has_error(findings) else others[inner].path
    return _Report(inner, file, findings)


def _metadata_files(files: Mapping[str, Path]) -> list[Path]:
    """Return the files in a package, in any folder, that may be metadata files."""
    return [path for inner, path in files.items() if re.fullmatch(METADATA_FILES, inner, re.IGNORECASE)]


def _from_task_folder(task: Task, entries: dict[str, Entry], name: str, findings: list[Finding]) -> dict[str, Entry]:
    """Return the files with paths that begin with the task's folder.

    A finding is added if no path in the package begins with it, unless the package is the task's folder itself.

    Args:
        task: The task.
        entries: A dict from the path of each file in the package to the file.
        name: The name of the package in findings.
        findings: The list to which findings are added.
    """
    top = PurePosixPath(task.package.folder.value).parts[0]
    first_parts = sorted({PurePosixPath(inner).parts[0] for inner in entries}, key=natural_key)
    if top in first_parts or not first_parts:
        return entries
    if len(first_parts) == 1:
        inside = {"/".join(PurePosixPath(inner).parts[1:]): entry for inner, entry in entries.items() if "/" in inner}
        if any(PurePosixPath(inner).parts[0] == top for inner in inside):
            message = f"must contain {top}/ at the top; found it inside {first_parts[0]}/, which is accepted"
            findings.append(Finding(name, message=message, severity=NOTE))
            return inside
    same_but_case = [folder for folder in first_parts if folder.casefold() == top.casefold()]
    if same_but_case:
        misnamed = same_but_case[0]
        findings.append(Finding(f"{name}/{misnamed}", message=f"must be named {top}; rename it"))
        return {re.sub(rf"^{re.escape(misnamed)}/", f"{top}/", inner): entry for inner, entry in entries.items()}
    if Path(name).resolve().name != top:  # otherwise the user gave the task's folder itself
        shown = ", ".join(first_parts[:3])
        if len(first_parts) > 3:
            shown += ", …"
        message = f"must contain all files in a folder {top}/; found {shown}: move them into {top}/"
        findings.append(Finding(name, message=message))
    return {f"{top}/{inner}": entry for inner, entry in entries.items()}


def _system_folders(task: Task, entries: Mapping[str, Entry]) -> tuple[dict[str, dict[str, Entry]], dict[str, Entry]]:
    """Return two dicts: the files in the folder of each system, and all other files.

    The first dict has the name of a folder and then the name of a file as keys; the second has paths in the package.
    """
    parent = PurePosixPath(task.package.folder.value).parent
    folders: dict[str, dict[str, Entry]] = {}
    others = {}
    for inner in sorted(entries, key=natural_key):
        path = PurePosixPath(inner)
        if path.parent.parent == parent and path.name.lower().endswith(part_suffixes(task)):
            folders.setdefault(path.parent.name, {})[path.name] = entries[inner]
        else:
            others[inner] = entries[inner]
    return folders, others


def _part_patterns(task: Task) -> dict[str, str]:
    """Return a dict from each part of a system (its sets, and `METADATA`) to the pattern of the part's file name."""
    patterns = {split: output.file.value for split, output in task.sets.items()}
    patterns[METADATA] = task.package.metadata.value
    return patterns


def _parts(task: Task, folder: str, inside: Mapping[str, Entry]) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Return the parts of a system, including misnamed ones, and the other files in the system's folder.

    Parts are looked up in three rounds: by their exact names; by their names with any label; by their suffixes alone.
    In the last two rounds, a file is accepted only if a single file fits the part, and if no other missing part is
    looked up by the same pattern.
    """
    patterns = _part_patterns(task)
    remaining = dict(inside)
    parts = {}
    fields = task.label_fields(folder)
    if fields:
        for part, pattern in patterns.items():
            file = pattern.format(**fields)
            if file in remaining:
                parts[part] = remaining.pop(file)
    any_label = {part: re.sub(r"\\\{\w+\\\}", ".*", re.escape(pattern)) for part, pattern in patterns.items()}
    output_files = rf".*{re.escape(task.output_form.suffix)}"
    any_name = {**dict.fromkeys(task.sets, output_files), METADATA: METADATA_FILES}
    for expressions in (any_label, any_name):
        for part in patterns:
            if part in parts:
                continue
            expression = expressions[part]
            candidates = [file for file in remaining if re.fullmatch(expression, file, re.IGNORECASE)]
            same_rule = [other for other in patterns if other not in parts and expressions[other] == expression]
            if len(candidates) == 1 and len(same_rule) == 1:
                parts[part] = remaining.pop(candidates[0])
    return parts, remaining


def _label_fields(
    task: Task, folder: str, parts: Mapping[str, Entry], values: Mapping[str, object] | None
) -> dict[str, str] | None:
    """Return the fields of a system's label.

    The label is the most frequent valid label in the names of the system's folder and files and in its metadata. If no
    label is valid, the name of the folder is corrected (`_corrected_fields`), which may give None.
    """
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
    """Return the fields of a label whose fixed parts are wrong, or None if other parts are wrong too."""
    parts = label.split("_")
    if len(parts) > 1:
        institute = parts[1]
    else:
        institute = parts[0]
    corrected = task.label.value.format(author=parts[0], institute=institute, index=parts[-1])
    if len(parts) != len(corrected.split("_")):
        return None
    return task.label_fields(corrected)


def _label_in(values: object) -> str | None:
    """Return the label in the values of a metadata file, or None if they have no label."""
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
    """Yield findings about names that do not agree with the system's label, and about missing parts.

    Args:
        task: The task.
        folder: The name of the system's folder.
        place: The folder's name in findings.
        fields: The fields of the system's label; None if they are not known.
        parts: The system's parts.
        document: The metadata.
        unread: See `check`.
    """
    if fields is None or folder != fields["label"]:
        fault = metadata.label_fault(task, folder)
        if fields and task.label_fields(folder):
            fault = f"must be {fields['label']}; rename it"
        yield Finding(place, message=f"the folder's name is the system's label; it {fault}")
    for part, pattern in _part_patterns(task).items():
        expected = pattern
        if fields:
            expected = pattern.format(**fields)
        if part not in parts:
            if f"{place}/{expected}" not in unread:
                yield Finding(place, message=f"{expected} is missing; add it")
            continue
        shown = parts[part].shown
        if fields and PurePosixPath(shown).name != expected:
            yield Finding(shown, message=f"must be named {expected}{_how_to_rename(expected, shown)}")
    label = _label_in(document.values)
    # `metadata.check` finds labels that break the rule.
    if fields and label and label != fields["label"] and task.label_fields(label):
        message = f"must be {fields['label']}, the label in the names of the files; found {label}"
        yield Finding(parts[METADATA].shown, document.line(metadata.LABEL), "submission.label", message)


def _how_to_rename(expected: str, shown: str) -> str:
    """Return the end of the message about a wrong name. It explains a difference that is not visible."""
    if unicodedata.normalize("NFC", shown).endswith(unicodedata.normalize("NFC", expected)):
        return " with composed accents (Unicode's NFC); found separate accents, as macOS writes them: rename it"
    return "; rename it"


def _team_of_most(label_fields: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | None:
    """Return the label fields of a system of the most frequent team, or None if there are no systems."""
    counts = Counter(_team(fields) for fields in label_fields.values())
    return max(label_fields.values(), key=lambda fields: counts[_team(fields)], default=None)


def _team(fields: Mapping[str, str]) -> str:
    """Return the name of a team, from the label fields of one of its systems."""
    return f"{fields['author']}_{fields['institute']}"


def _check_one_team(label_fields: Mapping[str, Mapping[str, str]], team: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each system whose author or institute differs from that of most systems.

    Args:
        label_fields: A dict from the folder of each system, as named in findings, to the fields of its label.
        team: The label fields of a system of the most frequent team.
    """
    for place, fields in label_fields.items():
        if _team(fields) != _team(team):
            message = f"must belong to {_team(team)}, as the other systems do; found {_team(fields)}: "
            message += "rename it, or move it to that team's package"
            yield Finding(place, message=message)


def _report_in(others: Mapping[str, Entry], expected: str) -> str | None:
    """Return the path in the package of the technical report: the expected path, or else the path of the only PDF.

    The result is None if there is neither.

    Args:
        others: The files that are not part of a system: a dict from their paths in the package to the files.
        expected: The path that the report must have in the package.
    """
    if expected in others:
        return expected
    pdfs = [inner for inner in others if inner.lower().endswith(".pdf")]
    if len(pdfs) == 1:
        return pdfs[0]
    return None


def _check_report(report: Entry, inner: str, expected: str, team_is_known: bool) -> Iterator[Finding]:
    """Check that the report has the right path and is a PDF.

    Args:
        report: The report.
        inner: Its path in the package.
        expected: The path that it must have in the package.
        team_is_known: False if the fields of the team are missing in `expected`, which is then a pattern.
    """
    if team_is_known and inner != expected:
        yield Finding(report.shown, message=f"must be {expected}; move it there")
    fault = reports.fault(report.path)
    if fault:
        yield Finding(report.shown, message=fault)


def _check_others(task: Task, others: Mapping[str, Entry], report: str | None) -> Iterator[Finding]:
    """Yield a finding for each file that is neither part of a system nor the report."""
    for inner, entry in others.items():
        if inner == report:
            continue
        if inner.lower().endswith(part_suffixes(task)):
            severity = ERROR
        else:
            severity = WARNING
        yield Finding(entry.shown, message="is not part of a submission; remove it", severity=severity)


def _check_alike(systems: Sequence[System], name: str) -> Iterator[Finding]:
    """Yield a warning for each system whose outputs are all the same as those of an earlier system."""
    for number, system in enumerate(systems):
        for earlier in systems[:number]:
            if _has_same_outputs(system, earlier):
                if earlier.label != system.label:
                    message = f"{system.label} has the same outputs as {earlier.label}, byte for byte"
                    yield Finding(name, message=f"{message}; is it the right run?", severity=WARNING)
                break


def _has_same_outputs(system: System, other: System) -> bool:
    """Return whether all outputs of two systems are equal. Files of different sizes are not read."""
    return all(filecmp.cmp(path, other.outputs[split], shallow=False) for split, path in system.outputs.items())


# Making ---------------------------------------------------------------------------------------------------------------


def make(
    task: Task, runs: Sequence[Path], team: Team, dataset: Dataset, target: Path, answered: str = ""
) -> list[Finding]:
    """Make a package from run folders. If anything fails, no package is written.

    The same runs, team and data always give the same bytes.

    Args:
        task: The task.
        runs: A run folder for each system; see `submission.run_folders` for its files.
        team: The team, from its file.
        dataset: The data folder. It contains the splits that the outputs are for. The metadata describe its splits.
        target: The zip to write.
        answered: For a rehearsal: the split that all outputs are for, in place of the task's sets (default: the task's
            sets).

    Returns:
        Warnings and notes.

    Raises:
        BadRequest: There are more runs than a team may submit; a run is given twice, or is not a run folder; the data
            folder does not have the task's sets; `target` does not end in .zip; or `target` must not be replaced, for
            example because it is a package of another task.
        Faulty: A prediction is missing or not valid, or `checked` finds an error in the package. The exception lists
            all errors and warnings.
    """
    most = task.systems.value
    if not 1 <= len(runs) <= most:
        raise BadRequest(f"{task.name} accepts 1 to {most} systems; found {len(runs)} runs: give {most} at most")
    if len({run.resolve() for run in runs}) < len(runs):
        raise BadRequest("every run must be a different folder; found one twice: give each run once")
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
        message = f"systems in the team file has {len(team.systems)} entries, but there are only {len(runs)} runs; the "
        findings.append(Finding(str(target), message=f"{message}last entries are not used", severity=WARNING))
    with tempfile.TemporaryDirectory(prefix="dcase-") as scratch:
        maker = _Maker(task, team, dataset, splits, target, Path(scratch))
        for run, files in zip(runs, predictions, strict=True):
            maker.add(run, files)
        findings += maker.findings
        package = Path(scratch) / "package.zip"
        if not _has_error(findings):
            archive.pack(maker.files, package)
            with checked(task, package, splits, str(target)) as content:
                findings += map(maker.about_source, content.findings)
        if _has_error(findings):
            raise Faulty({finding for finding in findings if finding.severity != NOTE})
        with replacing(target) as part:
            shutil.copyfile(package, part)
    return sorted(set(findings))


def _answered_splits(task: Task, dataset: Dataset, answered: str) -> dict[str, Asked]:
    """Return a dict from each of the task's sets to the split that its outputs are for.

    Raises:
        BadRequest: The data folder does not have the split, or does not have all of the task's sets.
    """
    if answered:
        return dict.fromkeys(task.sets, dataset[answered])
    missing = [name for name in task.sets if name not in dataset.splits]
    if missing:
        message = f"must have the sets of {task.name}; these are missing: {', '.join(missing)}"
        raise BadRequest(f"{dataset.folder}: {message}; for a rehearsal, give --split evaluation")
    return {name: dataset[name] for name in task.sets}


def _check_target(task: Task, target: Path) -> None:
    """Check that the target does not exist yet, or is a package of the same task that this kit made.

    Raises:
        BadRequest: The target must not be replaced, or its name does not end in .zip.
    """
    if target.suffix.lower() != ".zip":
        raise BadRequest(f"{target}: the package's name must end in .zip; give another name with --out")
    if not target.is_file():
        return
    top = PurePosixPath(task.package.folder.value).parts[0]
    with archive.opened(target) as existing:
        readable = not _has_error(existing.findings)
        inside = all(name.startswith(f"{top}/") for name in existing.files)
        written_for = metadata.tasks_of(_metadata_files(existing.files))
    others = [name for name in written_for if name != task.name]
    if others:  # packages of several years may have the same file names
        found = f"is a package of {' and '.join(others)}"
    elif not readable:
        found = f"is not a readable package of {task.name}"
    elif not inside or not written_for:
        found = f"is not a package of {task.name}"
    else:
        return
    raise BadRequest(f"{target}: already exists, and {found}; give another name with --out")


class _Maker:
    """Writer of the files of a package, one system after the other.

    Attributes:
        files: A dict from the path of each file in the package to the written file.
        findings: The findings so far.
    """

    def __init__(
        self, task: Task, team: Team, dataset: Dataset, splits: Mapping[str, Asked], target: Path, scratch: Path
    ):
        self.task, self.team, self.dataset, self.splits = task, team, dataset, splits
        self.target, self.scratch = target, scratch
        self.files: dict[str, Path] = {}
        self.findings: list[Finding] = []
        self._sources: dict[str, Path] = {}  # from each metadata file, as named in findings, to its system.yaml
        self._systems = 0

    def add(self, run: Path, predictions: Mapping[str, Path]) -> None:
        """Write the outputs and the metadata of the next system."""
        self._systems += 1
        team = self.team
        fields = {"author": team.author, "institute": team.institute, "index": str(self._systems)}
        fields["label"] = self.task.label.value.format(**fields)
        folder = self.task.package.folder.value.format(**fields)
        for name, prediction in predictions.items():
            inner = f"{folder}/{self.task.sets[name].file.value.format(**fields)}"
            self._write_output(prediction, self.splits[name], inner)
        metadata_file = f"{folder}/{self.task.package.metadata.value.format(**fields)}"
        self._write_metadata(run, fields["label"], metadata_file)
        self.files[self.task.package.report.value.format(**fields)] = team.report

    def about_source(self, finding: Finding) -> Finding:
        """Return a finding about a metadata file as one about the run's `system.yaml`, which the user can correct.

        Other findings are returned unchanged.
        """
        if finding.file not in self._sources:
            return finding
        return replace(finding, file=str(self._sources[finding.file]), line=0, message=finding.message + CORRECT)

    def _new_file(self, inner: str) -> Path:
        """Add a file to the package, and return the path to write it to."""
        self.files[inner] = self.scratch / str(len(self.files))
        return self.files[inner]

    def _write_output(self, source: Path, split: Asked, inner: str) -> None:
        """Write an output file from a prediction. Errors in the prediction are added to the findings."""
        file = self._new_file(inner)
        try:
            prediction = KINDS[self.task.kind].read_prediction(source, split)
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
        missing = []
        for path in without_value:
            if metadata.value_at(from_team, tuple(path.split("."))) is metadata_text.ABSENT:
                missing.append(path)
        if missing:
            message = f"has no value for {', '.join(missing)}; the metadata say null: add it there or in the team file"
            findings.append(Finding(str(system_file), message=message, severity=NOTE))
        values = metadata.merged(described, from_team, {"submission": {"label": label}})
        try:
            self._new_file(inner).write_text(metadata_text.text(self.task, values), encoding="utf-8")
        except ValueError as fault:
            findings.append(Finding(str(system_file), message=f"{fault}{CORRECT}"))
        self.findings += findings
