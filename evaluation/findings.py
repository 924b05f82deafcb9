"""Findings of a check, and how a command prints them.

A check collects all findings before it reports any. A function that cannot use its input raises `Faulty` with all
findings (exit status 1). A request that cannot be carried out raises `BadRequest` (exit status 2).
`evaluation.cli.command` prints both to standard error, so that no mistake of a user ends in a traceback. At most
`ALIKE` findings of one kind are printed; `limited` counts the others.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from evaluation.natural_sort import natural_key
from evaluation.text import plural, printable

ERROR, WARNING, NOTE = "error", "warning", "note"
ALIKE = 20  # number of findings of one kind that are printed


@dataclass(frozen=True)
class Finding:
    """A finding of a check; findings are sorted by file, line and column.

    Attributes:
        file: The file, as the user names it.
        line: Line in the file, from 1; 0 if the finding has no line.
        column: Name of the column or key; empty if the finding does not have one.
        message: The message. It usually states the requirement, what was found instead, and what to do.
        severity: `error` (the file cannot be used), `warning` (it can be used, but may be wrong) or `note` (for
            information).
        rest: Number of unlisted findings that this finding summarises; 0 for an ordinary finding. A summary is sorted
            to the end of its file.
    """

    file: str
    line: int = 0
    column: str = ""
    message: str = ""
    severity: str = ERROR
    rest: int = 0

    def __lt__(self, other: "Finding") -> bool:
        if self.file != other.file:
            return natural_key(self.file) < natural_key(other.file)
        ours, theirs = (self.rest > 0, self.line), (other.rest > 0, other.line)
        if ours != theirs:
            return ours < theirs
        return self._key_within_line() < other._key_within_line()

    def _key_within_line(self) -> tuple[object, ...]:
        return natural_key(self.column), natural_key(self.message), natural_key(self.severity)

    def __str__(self) -> str:
        """Format the finding as one line, as compilers do.

        >>> print(Finding("captions_development.csv", 12, "caption_3", "is blank; write a caption"))
        captions_development.csv:12: caption_3: error: is blank; write a caption
        """
        place = self.file
        if self.line:
            place += f":{self.line}"
        if self.column:
            place += f": {self.column}"
        return printable(f"{place}: {self.severity}: {self.message}")


class Faulty(Exception):
    """The input is not valid.

    Attributes:
        findings: All findings, sorted.
        status: Exit status of the command: 1, or 2 if the request itself is wrong.
    """

    def __init__(self, findings: Iterable[Finding], status: int = 1):
        self.findings, self.status = sorted(findings), status
        super().__init__("\n".join(str(finding) for finding in limited(self.findings)))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the exception with its findings, to raise it in another process."""
        return Faulty, (self.findings, self.status)


class BadRequest(Exception):
    """The request cannot be carried out.

    Either a path, key, name or value is wrong, or something that the request needs is missing or fails: a file, a
    package, Java, disk space or a download.
    """


QUOTED_OR_NUMBER = re.compile(r"""'[^']*'|"[^"]*"|\d+""")


def limited(findings: Iterable[Finding]) -> list[Finding]:
    """Keep the first `ALIKE` findings of each kind, in their order, and summarise the kind's other findings in one.

    Findings are of one kind if they have the same severity, the same message except for numbers and quoted text, and
    the same place. The place is the file, or the file's folder if the finding has no line and no column. Limiting twice
    gives the same findings as limiting once.
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
            kept.append(_summary(kinds[kind]))
    return kept


def _summary(findings: list[Finding]) -> Finding:
    """Return the finding that summarises the unlisted findings of a kind; `findings` are all findings of the kind."""
    first_unlisted, number = findings[ALIKE], len(findings) - ALIKE
    file = first_unlisted.file
    if any(finding.file != file for finding in findings):
        file = _place(first_unlisted)
    message = f"and {number} more of this kind: {first_unlisted.message}"
    return replace(first_unlisted, file=file, line=0, column="", message=message, rest=number)


def _kind(finding: Finding) -> tuple[str, ...]:
    return _place(finding), finding.severity, QUOTED_OR_NUMBER.sub("", finding.message)


def _place(finding: Finding) -> str:
    """Return the file of a finding that has a line or a column; for other findings, the file's folder."""
    folder, slash, _ = finding.file.rpartition("/")
    if finding.line or finding.column or not slash:
        return finding.file
    return folder + slash


def bounded(findings: Iterable[Finding], most: int, file: str) -> list[Finding]:
    """Return at most `most` findings, so that the check of any file takes bounded time and memory.

    If there are more findings, one finding that states this is added.

    Args:
        findings: The findings; a generator is run only as far as needed.
        most: Maximum number of findings.
        file: Name of the file in the added finding.
    """
    remaining = iter(findings)
    first_findings = list(islice(remaining, most))
    if next(remaining, None) is not None:
        message = f"there are more than {most} findings; correct these first"
        first_findings.append(Finding(file, message=message))
    return first_findings


def raise_errors(findings: Sequence[Finding]) -> None:
    """Raise an exception with all findings if at least one of them is an error.

    Raises:
        Faulty: There is an error.
    """
    if any(finding.severity == ERROR for finding in findings):
        raise Faulty(findings)


def count(findings: Iterable[Finding], severity: str = ERROR) -> int:
    """Return the number of findings of a severity, including the findings that a summary represents."""
    return sum(max(finding.rest, 1) for finding in findings if finding.severity == severity)


def counted(findings: Iterable[Finding]) -> str:
    """Return the number of findings of each severity as text, such as `1 error, 2 notes`, or "" for no findings."""
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
