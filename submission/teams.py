"""The file that a team fills in once: who hands in, the report, and what goes into every system's metadata."""

import difflib
import re
from collections.abc import Callable, Mapping, Set
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

FROM_RUN = ("system.description", "system.complexity")  # what a run's system.yaml says
KEYS = ("author", "institute", "report", "metadata", "systems")


@dataclass(frozen=True)
class Team:
    """What a team says once, for all its systems.

    Attributes:
        author: Last name of the corresponding author, as the labels have it.
        institute: Abbreviation of the institute, as the labels have it.
        report: The technical report.
        metadata: Goes into every system's metadata; what was left empty is not in it, what may be null and is
            written so is.
        systems: Goes into one system's, in the order of the runs, over `metadata`.
    """

    author: str
    institute: str
    report: Path
    metadata: dict[str, object]
    systems: list[dict[str, object]]


def text(task: Task) -> str:
    """The team's file to fill in: what is asked for, and in comments what a package finds out by itself."""
    top = task.whole
    example = task.label.value.format(author="Lastname", institute="Institute", index=1)
    scored = [name for name, key in top.keys.items() if has_metric(key)]
    intro = (
        f"The team's part of every submission to {task.name} ({task.title}): fill in what is empty. A line that starts "
        "with '#' is a comment; take the '#' out where you have something to say. What may be null can stay empty, "
        "which is as if it were not there, or be null, which says that it does not apply."
    )
    own = (
        f"Goes into the metadata of every system. A package fills in by itself: submission.label; "
        f"{' and '.join(FROM_RUN)}, from the run's system.yaml; {', '.join(scored)}, from the run's scores. What "
        "stands here wins over what the run says; what every system says for itself below can be taken out here."
    )
    each = (
        f"One entry for each run, in their order, {task.systems.value} at most; the same keys as in metadata, over "
        "which they win."
    )
    lines = [
        *comment(intro),
        "",
        *hinted("author:", f"last name of the corresponding author, without '_' or '/'; labels read {example}", ""),
        *hinted("institute:", "abbreviation of the institute, without '_' or '/'", ""),
        *hinted("report:", "the technical report, a PDF; its path from this file", ""),
        "",
        *comment(own),
        "metadata:",
    ]
    for name, key in top.keys.items():
        if name in scored:
            continue
        lines += hinted(f"  {written(name)}:", key.hint, "  ")
        for below, inner in key.keys.items():
            path = f"{name}.{below}"
            if path == "submission.label":
                continue
            if path in FROM_RUN:
                inner = inner.model_copy(update={"need": "optional"})
            lines += key_lines(below, inner, ABSENT, "    ", (name, below), template=True)
    lines += ["", *comment(each), "systems:"]
    names = [name for name in ("name", "abbreviation") if name in top.keys.get("submission", Key(need="optional")).keys]
    if names:
        lines += ["  # - submission:", *(f"  #     {name}:" for name in names)]
    return "\n".join(lines) + "\n"


def read(task: Task, path: Path) -> tuple[Team, list[Finding]]:
    """Read the team's file.

    Returns:
        What it says, and what to look at in it.

    Raises:
        BadRequest: There is no such file.
        Faulty: It does not hold; every finding has its line and key, also those of places still to be filled in.
    """
    file = str(path)
    document = documents.read(path, file)
    findings = list(document.findings)
    if document.values is None:
        raise Faulty(findings)
    values = document.values

    def find(at: KeyPath, message: str, severity: str = ERROR) -> None:
        findings.append(Finding(file, document.line(at), dotted(at), message, severity))

    for name in values:
        if name in task.metadata:
            find((name,), "belongs under metadata; move it there")
        elif name not in KEYS:
            find((name,), unknown_key(cut(name), KEYS))
    misspelt = [
        lookalike(KEYS)(name) or next(iter(difflib.get_close_matches(name[:SHOWN], KEYS, 1)), "")
        for name in values
        if name not in KEYS
    ]
    words = {}
    for name in KEYS[:3]:
        value = values.get(name)
        if isinstance(value, str) and value.strip():
            words[name] = value
        elif name not in misspelt or name in values:
            empty = value is None or isinstance(value, str)
            find((name,), "is to be filled in" if empty else f"must be text; found {shown(value)}: put it in quotes")
    _label_parts(task, words, find)
    report = path.parent / words.get("report", "")
    if "report" in words:
        _report(report, words["report"], find)

    metadata, systems = values.get("metadata"), values.get("systems")
    if not isinstance(metadata, dict | None):
        find(("metadata",), f"must be keys and values; found {shown(metadata)}")
    if not isinstance(systems, list | None):
        find(("systems",), "must be a list, each entry in a line that starts with '- '")
    blocks: list[tuple[KeyPath, object]] = [(("metadata",), metadata if isinstance(metadata, dict) else {})]
    entries = systems if isinstance(systems, list) else []
    if len(entries) > task.systems.value:
        find(("systems",), f"must not have more than {task.systems.value} entries; found {len(entries)}")
        entries = entries[: task.systems.value]
    blocks += [(("systems", place), {} if entry is None else entry) for place, entry in enumerate(entries)]
    for root, block in blocks:
        if isinstance(block, dict):
            findings += _block(task, document, root, block, file, words.get("author", ""))
        else:
            find(root, f"must be keys and values; found {shown(block)}")
    findings = bounded(sorted(findings), documents.LISTED, file)
    if any(finding.severity == ERROR for finding in findings):
        raise Faulty(findings)
    metadata, *systems = [_filled(task.whole, block, root, document.nulls) for root, block in blocks]
    return Team(words["author"], words["institute"], report, metadata, systems), findings


def _label_parts(task: Task, words: Mapping[str, str], find: Callable[..., None]) -> None:
    """Whether author and institute make a label."""
    fine = True
    for name in ("author", "institute"):
        word = words.get(name, "x")
        if re.search(r"[_/\\]", word) or not word.isprintable() or word != word.strip():
            fine = False
            find((name,), f"goes into labels, and must not hold '_', '/' or blanks at its ends; found {quoted(word)}")
        elif " " in word:
            message = f"goes into file names with its blank; found {quoted(word)}: write {word.replace(' ', '-')!r}"
            find((name,), message, WARNING)
    label = task.label.value.format(author=words.get("author", "x"), institute=words.get("institute", "x"), index=1)
    if fine and task.label_fields(label) is None:
        find(("author",), label_fault(task, label))


def _report(path: Path, named: str, find: Callable[..., None]) -> None:
    try:
        fault = reports.fault(path) if path.is_file() else None
        there = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        message = f"there is no file {quoted(named)}, looked up from this file's folder; give the report's PDF"
        find(("report",), message)
    elif fault:
        find(("report",), f"{quoted(named)} {fault}")


def _block(
    task: Task, document: Document, root: KeyPath, block: Mapping[str, object], file: str, author: str
) -> list[Finding]:
    """What is wrong with a block of the team's file as it stands; what is missing may come from the run."""
    checked = Block(task, document, file, root, _without_empty(task.whole, block))
    checked.check_values(whole=False)
    checked.check_authors()
    if value_at(checked.values, LABEL) is not ABSENT:
        checked.find(checked.origin(LABEL), "is made from author and institute; remove it here")
    if author:
        checked.check_author_of_label(author, AUTHORS)
    return checked.findings


def _without_empty(key: Key, values: Mapping[str, object]) -> dict[str, object]:
    """A block without the keys that hold others and have none, such as one whose lines are all comments."""
    kept = {}
    for name, value in values.items():
        below = key.keys.get(name)
        if below and below.keys and not below.many:
            if value is None:
                continue
            value = _without_empty(below, value) if isinstance(value, Mapping) else value
        kept[name] = value
    return kept


def _filled(key: Key, values: Mapping[str, object], path: KeyPath, nulls: Set[KeyPath]) -> dict[str, object]:
    """A block without what is empty, which is not to win over what a run says; a null that is written may."""
    kept = {}
    for name, value in values.items():
        here, below = (*path, name), key.keys.get(name, Key(need="optional"))  # an unknown one may be a warning only
        if isinstance(value, Mapping):
            value = _filled(below, value, here, nulls)
        if value not in (None, {}) or (here in nulls and below.need == "nullable" and not below.keys):
            kept[name] = value
    return kept
