"""Findings of a check, and how a command prints them.

A check collects every `Finding` before it reports any. A reader that cannot continue raises `Faulty` with all of them
(exit status 1). A request that cannot be carried out raises `BadRequest` (exit status 2). `command` prints both to
standard error, so that no mistake of a user ends in a traceback. At most `ALIKE` findings of one kind are printed, and
the rest are counted (`limited`).
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from evaluation.ordering import natural_key
from evaluation.text import plural, printable

ERROR, WARNING, NOTE = "error", "warning", "note"
ALIKE = 20  # findings of one kind that are printed


@dataclass(frozen=True)
class Finding:
    """One thing that a check found; sorted by file, line and column.

    Attributes:
        file: The file, as the user would name it.
        line: Line in the file, from 1; 0 where there is none.
        column: Name of the column or key; empty where there is none.
        message: What must hold, what was found, and what to do.
        severity: `error` (cannot be used), `warning` (can, but look) or `note` (for information).
        rest: Number of findings of one kind that it stands for, where these are not listed; 0 for a finding that
            stands for itself. Such a finding is sorted to the end of its file.
    """

    file: str
    line: int = 0
    column: str = ""
    message: str = ""
    severity: str = ERROR
    rest: int = 0

    def __lt__(self, other: "Finding") -> bool:
        for mine, others in zip(self._order, other._order, strict=True):
            if mine != others:
                if isinstance(mine, str):
                    return natural_key(mine) < natural_key(others)
                return mine < others
        return False

    @property
    def _order(self) -> tuple[str, bool, int, str, str, str]:
        return self.file, self.rest > 0, self.line, self.column, self.message, self.severity

    def __str__(self) -> str:
        """Give the line a user reads, in the form of a compiler's.

        >>> print(Finding("captions_development.csv", 12, "caption_3", "is blank; write a caption"))
        captions_development.csv:12: caption_3: error: is blank; write a caption
        """
        place = self.file + (f":{self.line}" if self.line else "") + (f": {self.column}" if self.column else "")
        return printable(f"{place}: {self.severity}: {self.message}")


class Faulty(Exception):
    """What was read does not hold.

    Attributes:
        findings: Every finding, sorted.
        status: The exit status of a command that ends with it: 1, or 2 where the request itself is wrong.
    """

    def __init__(self, findings: Iterable[Finding], status: int = 1):
        self.findings, self.status = sorted(findings), status
        super().__init__("\n".join(str(finding) for finding in limited(self.findings)))

    def __reduce__(self) -> tuple[object, ...]:
        """Let it be sent from another process, with its findings."""
        return Faulty, (self.findings, self.status)


class BadRequest(Exception):
    """The request cannot be carried out: a wrong path, key, name or value."""


QUOTED_OR_NUMBER = re.compile(r"""'[^']*'|"[^"]*"|\d+""")


def limited(findings: Iterable[Finding]) -> list[Finding]:
    """Keep the first `ALIKE` findings of each kind, in their order, and count the rest of the kind behind them.

    Findings are of one kind when they have the same severity, the same message but for numbers and quoted text, and the
    same place: one file, or for findings about whole files one folder. Limiting twice changes nothing.
    """
    findings = list(findings)
    kinds: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        if not finding.rest:
            kinds.setdefault(_kind(finding), []).append(finding)
    seen: Counter[tuple[str, ...]] = Counter()
    kept: list[Finding] = []
    for finding in findings:
        if finding.rest:
            kept.append(finding)
            continue
        kind = _kind(finding)
        seen[kind] += 1
        if seen[kind] <= ALIKE:
            kept.append(finding)
        elif seen[kind] == ALIKE + 1:
            kept.append(_others(kinds[kind]))
    return kept


def _others(kind: list[Finding]) -> Finding:
    """Make the finding that stands for those of a kind that are not listed."""
    first, number = kind[ALIKE], len(kind) - ALIKE
    files = {finding.file for finding in kind}
    file = first.file if len(files) == 1 else _place(first)
    message = f"and {number} more of this kind: {first.message}"
    return replace(first, file=file, line=0, column="", message=message, rest=number)


def _kind(finding: Finding) -> tuple[str, ...]:
    return _place(finding), finding.severity, QUOTED_OR_NUMBER.sub("", finding.message)


def _place(finding: Finding) -> str:
    """Return the file of a finding that has a line or a column in it, else the file's folder."""
    folder, slash, _ = finding.file.rpartition("/")
    if finding.line or finding.column or not slash:
        return finding.file
    return folder + slash


def bounded(findings: Iterable[Finding], most: int, file: str) -> list[Finding]:
    """Take at most `most` findings, so that the check of any file takes bounded time and memory.

    Args:
        findings: The findings, which are made as they are taken.
        most: How many to take.
        file: The file's name, for the finding that there are more.
    """
    findings = iter(findings)
    taken = list(islice(findings, most))
    if next(findings, None) is not None:
        message = f"there are more than {most} findings; correct these first"
        taken.append(Finding(file, message=message))
    return taken


def count(findings: Iterable[Finding], severity: str = ERROR) -> int:
    """Count the findings of a severity, also those that are not listed one by one."""
    return sum(max(finding.rest, 1) for finding in findings if finding.severity == severity)


def counted(findings: Iterable[Finding]) -> str:
    """Return how many findings of each severity there are, such as `1 error, 2 notes`; empty if there are none."""
    findings = list(findings)
    parts = []
    for severity in (ERROR, WARNING, NOTE):
        number = count(findings, severity)
        if number:
            parts.append(plural(number, severity))
    return ", ".join(parts)


def say(findings: Iterable[Finding]) -> None:
    """Print findings to standard error, one per line, at most `ALIKE` of a kind."""
    for finding in limited(findings):
        print(finding, file=sys.stderr)
