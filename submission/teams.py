"""The team file, which a team fills in once.

It contains the author and the institute for the labels, the path of the report, and the metadata of the systems.
"""

import difflib
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from evaluation.findings import ERROR, WARNING, Faulty, Finding, bounded, raise_errors
from evaluation.text import SHOWN, cut, lookalike, quoted, unknown_key
from submission import documents, reports
from submission.documents import Document, KeyPath, dotted, shown
from submission.metadata import AUTHORS, LABEL, Block, label_fault, value_at
from submission.metadata_text import ABSENT, comment, has_metric, hinted, key_lines, written
from submission.tasks import Key, Task

FROM_RUN = ("system.description", "system.complexity")  # keys of the metadata whose values are in a run's system.yaml
KEYS = ("author", "institute", "report", "metadata", "systems")


@dataclass(frozen=True)
class Team:
    """The content of a team file.

    Attributes:
        author: Last name of the corresponding author, for the labels.
        institute: Abbreviation of the institute, for the labels.
        report: Path of the technical report.
        metadata: Metadata of all systems. Keys that the team left empty are not included. An explicit null is included
            if the key may be null.
        systems: Metadata of single systems, in the order of the runs. These values replace those in `metadata`.
    """

    author: str
    institute: str
    report: Path
    metadata: dict[str, object]
    systems: list[dict[str, object]]


def text(task: Task) -> str:
    """Return the content of a team file to fill in. It has the keys that the task asks for, and explains them."""
    top = task.whole
    scored = [name for name, key in top.keys.items() if has_metric(key)]
    example = task.label.value.format(author="Lastname", institute="Institute", index=1)
    lines = [
        *comment(
            f"Team file for submissions to {task.name} ({task.title}). Fill in the empty values. A line that starts "
            "with '#' is a comment; to give its key a value, remove the '#'. A key that may be null can stay empty: it "
            "is then ignored. Write null if the key does not apply."
        ),
        "",
        *hinted("author:", f"last name of the corresponding author, without '_' or '/'; a label is {example}", ""),
        *hinted("institute:", "abbreviation of the institute, without '_' or '/'", ""),
        *hinted("report:", "path of the technical report (a PDF), relative to this file", ""),
        "",
        *comment(
            "Metadata of all systems. `package` fills in these keys: submission.label; "
            f"{' and '.join(FROM_RUN)}, from the run's system.yaml; {', '.join(scored)}, from the run's scores. Values "
            "in this file replace those of the run. If all entries of `systems` have a key, you can remove it here."
        ),
        "metadata:",
    ]
    for name, key in top.keys.items():
        if name not in scored:
            lines += _block_text(name, key)
    entries = (
        f"Metadata of single systems: one entry for each run, in the order of the runs, {task.systems.value} at most. "
        "The keys are the same as in metadata; the values here replace those there."
    )
    lines += ["", *comment(entries), "systems:"]
    submission = top.keys.get("submission")
    names = [name for name in ("name", "abbreviation") if submission and name in submission.keys]
    if names:
        lines += ["  # - submission:", *(f"  #     {name}:" for name in names)]
    return "\n".join(lines) + "\n"


def _block_text(name: str, key: Key) -> list[str]:
    """Return the template lines of one block of metadata."""
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
        Faulty: The file has an error, such as an empty key. The exception lists all findings with their lines and keys.
    """
    document = documents.read(path)
    if document.values is None:
        raise Faulty(document.findings)
    reader = _Reader(task, document, path)
    team = reader.team()
    findings = bounded(sorted(reader.findings), documents.LISTED, str(path))
    raise_errors(findings)
    return team, findings


class _Reader:
    """Reader of a team file. It checks the values and makes a `Team` from them.

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
        """Return the team. It can be used only if `findings` has no errors."""
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
        """Add findings about unknown keys, and return the known keys that were probably meant."""
        meant = set()
        for name in self.values:
            if name in KEYS:
                continue
            if name in self.task.metadata:
                self.find((name,), "belongs under metadata; move it there")
            else:
                self.find((name,), unknown_key(cut(name), KEYS))
            same_but_case = lookalike(KEYS)(name)
            if same_but_case:
                meant.add(same_but_case)
            else:
                meant.update(difflib.get_close_matches(name[:SHOWN], KEYS, 1))
        return meant

    def _text(self, name: str, misspelt: Set[str]) -> str:
        """Return the text of a required key. If the key has no text, add a finding and return an empty text.

        A key that is probably misspelt has a finding already.
        """
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
        """Check that author and institute can be parts of a label."""
        valid = True
        for name, word in (("author", author), ("institute", institute)):
            if re.search(r"[_/\\]", word) or not (word.isprintable() and word == word.strip()):
                valid = False
                message = "must not contain '_' or '/', or start or end with a blank, because it is part of the labels"
                self.find((name,), f"{message}; found {quoted(word)}")
            elif " " in word:
                message = f"should not contain blanks, because it is part of file names; found {quoted(word)}"
                self.find((name,), f"{message}: write {word.replace(' ', '-')!r}", WARNING)
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
        except (OSError, ValueError):  # such a name is impossible for a file
            pass
        message = f"must be the path of a PDF, relative to the folder of this file; found no file {quoted(name)}"
        self.find(("report",), message)

    def _metadata(self) -> Mapping[str, object]:
        metadata = self.values.get("metadata")
        if not isinstance(metadata, dict | None):
            self.find(("metadata",), f"must be keys and values; found {shown(metadata)}")
            return {}
        return metadata or {}

    def _systems(self) -> list[tuple[KeyPath, object]]:
        """Return the path and the value of each entry of `systems`, up to the maximum number of systems."""
        systems = self.values.get("systems")
        if not isinstance(systems, list | None):
            message = f"must be a list; found {shown(systems)}: write each entry in a line that starts with '- '"
            self.find(("systems",), message)
            return []
        entries = systems or []
        most = self.task.systems.value
        if len(entries) > most:
            self.find(("systems",), f"must not have more than {most} entries; found {len(entries)}")
        located: list[tuple[KeyPath, object]] = []
        for place, entry in enumerate(entries[:most]):
            if entry is None:
                entry = {}
            located.append((("systems", place), entry))
        return located

    def _check_block(self, root: KeyPath, values: Mapping[str, object], author: str) -> None:
        """Check a block of metadata. Missing keys are allowed, because the run may have their values."""
        values = _without_empty_mappings(self.task.whole, values)
        block = Block(self.task, self.document, str(self.path), root, values)
        block.check_values(whole=False)
        block.check_authors()
        if value_at(block.values, LABEL) is not ABSENT:
            block.find(block.origin(LABEL), "must not be given, because author and institute make it; remove it")
        if author:
            block.check_author_of_label(author, AUTHORS)
        self.findings += bounded(block.findings, documents.LISTED, str(self.path))


def _without_empty_mappings(key: Key, values: Mapping[str, object]) -> dict[str, object]:
    """Return a block without the keys that must have keys below them but have no value.

    A team file has such a key if all lines below the key are comments.
    """
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
    """Return a block without its empty values. Otherwise an empty value would replace the value from a run.

    Args:
        key: The key of the block.
        values: The block.
        path: The path of the block in the file.
        nulls: The paths of the values that are written as null. Such a value is kept if its key may be null.
    """
    kept = {}
    for name, value in values.items():
        here = (*path, name)
        below = key.keys.get(name, Key(need="optional"))  # an unknown key is kept: it may have only a warning
        if isinstance(value, Mapping):
            value = _without_empty_values(below, value, here, nulls)
        explicit_null = here in nulls and below.need == "nullable" and not below.keys
        if value not in (None, {}) or explicit_null:
            kept[name] = value
    return kept
