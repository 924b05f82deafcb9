"""The team file, which a team fills in once: its label, its report, and the metadata that it gives to every system."""

import difflib
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from evaluation.findings import (
    ERROR,
    SHOWN,
    WARNING,
    Faulty,
    Finding,
    bounded,
    cut,
    lookalike,
    quoted,
    unknown_key,
)
from submission import documents, reports
from submission.documents import Document, KeyPath, dotted, shown
from submission.metadata import AUTHORS, LABEL, Block, label_fault, value_at
from submission.metadata_text import ABSENT, comment, has_metric, hinted, key_lines, written
from submission.tasks import Key, Task

FROM_RUN = ("system.description", "system.complexity")  # a run's system.yaml has them
KEYS = ("author", "institute", "report", "metadata", "systems")


@dataclass(frozen=True)
class Team:
    """The content of a team file.

    Attributes:
        author: Last name of the corresponding author, as in the labels.
        institute: Abbreviation of the institute, as in the labels.
        report: The technical report.
        metadata: The metadata of every system, without keys that were left empty. A null that is written stays if the
            key may be null.
        systems: The metadata of single systems, in the order of the runs; they take precedence over `metadata`.
    """

    author: str
    institute: str
    report: Path
    metadata: dict[str, object]
    systems: list[dict[str, object]]


def text(task: Task) -> str:
    """Return a team file to fill in: what the task asks for, and in comments what a package fills in by itself."""
    top = task.whole
    scored = [name for name, key in top.keys.items() if has_metric(key)]
    example = task.label.value.format(author="Lastname", institute="Institute", index=1)
    lines = [
        *comment(
            f"The team's part of every submission to {task.name} ({task.title}): fill in what is empty. A line that "
            "starts with '#' is a comment; take the '#' out where you have something to say. What may be null can stay "
            "empty, which is as if it were not there, or be null, which says that it does not apply."
        ),
        "",
        *hinted("author:", f"last name of the corresponding author, without '_' or '/'; labels read {example}", ""),
        *hinted("institute:", "abbreviation of the institute, without '_' or '/'", ""),
        *hinted("report:", "the technical report, a PDF; its path from this file", ""),
        "",
        *comment(
            "Goes into the metadata of every system. A package fills in by itself: submission.label; "
            f"{' and '.join(FROM_RUN)}, from the run's system.yaml; {', '.join(scored)}, from the run's scores. What "
            "stands here wins over what the run says; what every system says for itself below can be taken out here."
        ),
        "metadata:",
    ]
    for name, key in top.keys.items():
        if name not in scored:
            lines += _block_text(name, key)
    entry = (
        f"One entry for each run, in their order, {task.systems.value} at most; the same keys as in metadata, over "
        "which they win."
    )
    lines += ["", *comment(entry), "systems:"]
    submission = top.keys.get("submission")
    names = [name for name in ("name", "abbreviation") if submission and name in submission.keys]
    if names:
        lines += ["  # - submission:", *(f"  #     {name}:" for name in names)]
    return "\n".join(lines) + "\n"


def _block_text(name: str, key: Key) -> list[str]:
    """Return the lines of one block of metadata to fill in."""
    lines = hinted(f"  {written(name)}:", key.hint, "  ")
    for below, inner in key.keys.items():
        if (name, below) == LABEL:
            continue
        if f"{name}.{below}" in FROM_RUN:
            inner = inner.model_copy(update={"need": "optional"})
        lines += key_lines(below, inner, ABSENT, "    ", (name, below), template=True)
    return lines


def read(task: Task, path: Path) -> tuple[Team, list[Finding]]:
    """Read a team file.

    Args:
        task: The task.
        path: The file.

    Returns:
        The team, and warnings.

    Raises:
        BadRequest: There is no such file.
        Faulty: It has an error, such as a place that is not filled in; every finding has its line and key.
    """
    document = documents.read(path)
    if document.values is None:
        raise Faulty(document.findings)
    reader = _Reader(task, document, path)
    team = reader.team()
    findings = bounded(sorted(reader.findings), documents.LISTED, str(path))
    if any(finding.severity == ERROR for finding in findings):
        raise Faulty(findings)
    return team, findings


class _Reader:
    """Checks the values of a team file, and takes a team from them.

    Attributes:
        findings: The findings so far.
    """

    def __init__(self, task: Task, document: Document, path: Path):
        self.task, self.document, self.path = task, document, path
        self.values: Mapping[str, object] = document.values or {}
        self.findings = list(document.findings)

    def find(self, at: KeyPath, message: str, severity: str = ERROR) -> None:
        """Add a finding about the value at a path."""
        line = self.document.line(at)
        self.findings.append(Finding(str(self.path), line, dotted(at), message, severity))

    def team(self) -> Team:
        """Return the team, which is of use only if there are no errors."""
        misspelt = self._check_keys()
        texts = {name: self._text(name, misspelt) for name in KEYS[:3]}
        author, institute, report = texts.values()
        self._check_label_parts(author, institute)
        if report:
            self._check_report(report)
        metadata = self._metadata()
        systems = self._systems()
        blocks = []
        for root, block in [(("metadata",), metadata), *systems]:
            if isinstance(block, Mapping):
                self._check_block(root, block, author)
                blocks.append(_without_empty_values(self.task.whole, block, root, self.document.nulls))
            else:
                self.find(root, f"must be keys and values; found {shown(block)}")
                blocks.append({})
        return Team(author, institute, self.path.parent / report, blocks[0], blocks[1:])

    def _check_keys(self) -> set[str]:
        """Find unknown keys, and return the known ones that were probably meant."""
        meant = set()
        for name in self.values:
            if name in self.task.metadata:
                self.find((name,), "belongs under metadata; move it there")
            elif name not in KEYS:
                self.find((name,), unknown_key(cut(name), KEYS))
            if name not in KEYS:
                alike = lookalike(KEYS)(name)
                close = difflib.get_close_matches(name[:SHOWN], KEYS, 1)
                meant.update([alike] if alike else close)
        return meant

    def _text(self, name: str, misspelt: Set[str]) -> str:
        """Return the text of a key that must be filled in; empty if it is not."""
        value = self.values.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if name in misspelt and name not in self.values:
            return ""
        if value is None or isinstance(value, str):
            self.find((name,), "must not be empty; fill it in")
        else:
            self.find((name,), f"must be text; found {shown(value)}: put it in quotes")
        return ""

    def _check_label_parts(self, author: str, institute: str) -> None:
        """Check that author and institute make a label."""
        valid = True
        for name, word in (("author", author), ("institute", institute)):
            if re.search(r"[_/\\]", word) or not (word.isprintable() and word == word.strip()):
                valid = False
                message = f"goes into labels, and must not hold '_', '/' or blanks at its ends; found {quoted(word)}"
                self.find((name,), message)
            elif " " in word:
                message = f"goes into file names with its blank; found {quoted(word)}: "
                self.find((name,), f"{message}write {word.replace(' ', '-')!r}", WARNING)
        label = self.task.label.value.format(author=author or "x", institute=institute or "x", index=1)
        if valid and self.task.label_fields(label) is None:
            self.find(("author",), label_fault(self.task, label))

    def _check_report(self, name: str) -> None:
        file = self.path.parent / name
        try:
            if file.is_file():
                fault = reports.fault(file)
                if fault:
                    self.find(("report",), f"{quoted(name)} {fault}")
                return
        except (OSError, ValueError):  # no file can have such a name
            pass
        message = f"there is no file {quoted(name)}, looked up from this file's folder; give the report's PDF"
        self.find(("report",), message)

    def _metadata(self) -> Mapping[str, object]:
        metadata = self.values.get("metadata")
        if not isinstance(metadata, dict | None):
            self.find(("metadata",), f"must be keys and values; found {shown(metadata)}")
            return {}
        return metadata or {}

    def _systems(self) -> list[tuple[KeyPath, object]]:
        """Return the entries of the systems with their paths."""
        systems = self.values.get("systems")
        if not isinstance(systems, list | None):
            self.find(("systems",), "must be a list, each entry in a line that starts with '- '")
            return []
        entries = systems or []
        most = self.task.systems.value
        if len(entries) > most:
            self.find(("systems",), f"must not have more than {most} entries; found {len(entries)}")
        located: list[tuple[KeyPath, object]] = []
        for place, entry in enumerate(entries[:most]):
            located.append((("systems", place), {} if entry is None else entry))
        return located

    def _check_block(self, root: KeyPath, values: Mapping[str, object], author: str) -> None:
        """Check a block of metadata; what is missing in it may come from the run."""
        values = _without_empty_mappings(self.task.whole, values)
        block = Block(self.task, self.document, str(self.path), root, values)
        block.check_values(whole=False)
        block.check_authors()
        if value_at(block.values, LABEL) is not ABSENT:
            block.find(block.origin(LABEL), "is made from author and institute; remove it here")
        if author:
            block.check_author_of_label(author, AUTHORS)
        self.findings += bounded(block.findings, documents.LISTED, str(self.path))


def _without_empty_mappings(key: Key, values: Mapping[str, object]) -> dict[str, object]:
    """Return a block without keys whose lines below are all comments."""
    kept = {}
    for name, value in values.items():
        below = key.keys.get(name)
        if below and below.keys and not below.many:
            if value is None:
                continue
            if isinstance(value, Mapping):
                value = _without_empty_mappings(below, value)
        kept[name] = value
    return kept


def _without_empty_values(
    key: Key, values: Mapping[str, object], path: KeyPath, nulls: Set[KeyPath]
) -> dict[str, object]:
    """Return a block without empty values, which must not replace those of a run.

    Args:
        key: The key of the block.
        values: The block.
        path: Its path in the file.
        nulls: The paths where null is written. It stays if the key may be null.
    """
    kept = {}
    for name, value in values.items():
        here = (*path, name)
        below = key.keys.get(name, Key(need="optional"))  # an unknown key may have a warning only
        if isinstance(value, Mapping):
            value = _without_empty_values(below, value, here, nulls)
        written_null = here in nulls and below.need == "nullable" and not below.keys
        if value not in (None, {}) or written_null:
            kept[name] = value
    return kept
