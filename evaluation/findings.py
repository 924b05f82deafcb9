"""Findings of a check, and how a command prints them.

A check collects every `Finding` before it reports any. A reader that cannot continue raises `Faulty` with all of them
(exit status 1). A request that cannot be carried out raises `BadRequest` (exit status 2). `command` prints both to
standard error, so that no mistake of a user ends in a traceback. At most `ALIKE` findings of one kind are printed, and
the rest are counted (`limited`).
"""

import argparse
import contextlib
import difflib
import errno
import html
import io
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from tabulate import tabulate

from evaluation.ordering import natural

ERROR, WARNING, NOTE = "error", "warning", "note"
ALIKE = 20  # findings of one kind that are printed
SHOWN = 200  # characters of a text that may be of any length


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
                    return natural(mine) < natural(others)
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


def printable(text: str) -> str:
    r"""Text that is safe to print on one line: control characters and broken surrogates as escapes.

    >>> printable("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def cut(text: str, length: int = SHOWN) -> str:
    """The beginning of a text that may be of any length."""
    return text if len(text) <= length else text[:length] + "…"


def quoted(text: str) -> str:
    """The same in quotes, with what cannot be seen as escapes."""
    return repr(cut(text))


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


def lookalike(names: Iterable[str]) -> Callable[[str], str | None]:
    """Return a look-up of the name that a person would take for another.

    Blanks at the ends, letter case, HTML entities and the Unicode form may differ.

    >>> lookalike([" Dog.wav", "cat.wav"])("dog.WAV")
    ' Dog.wav'
    """

    def plain(text: str) -> str:
        return unicodedata.normalize("NFC", html.unescape(text)).casefold().strip()

    known = {plain(name): name for name in names}
    return lambda name: known.get(plain(name))


def unknown_key(key: str, known: Sequence[str], what: str = "key") -> str:
    """Say that a key is not known, which one may have been meant, and which there are.

    >>> unknown_key("epoch", ["epochs", "batch"])
    "unknown key 'epoch'; did you mean 'epochs'? there are: epochs, batch"
    """
    begun = [name for name in known if key and name.startswith(key)]
    guess = lookalike(known)(key) or next(iter([*begun, *difflib.get_close_matches(key, known, n=1)]), None)
    hint = f"did you mean {guess!r}? " if guess else ""
    return f"unknown {what} {key!r}; {hint}there are: {', '.join(known)}"


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], numbers: Sequence[int] = ()) -> str:
    """Lay rows out as text; the columns in `numbers` are set flush right."""
    align = ["right" if column in numbers else "left" for column in range(len(headers))]
    return tabulate(rows, headers=headers, colalign=align if rows else None, disable_numparse=True, tablefmt="simple")


def say(findings: Iterable[Finding]) -> None:
    """Print findings to standard error, one per line, at most `ALIKE` of a kind."""
    for finding in limited(findings):
        print(finding, file=sys.stderr)


class _LastingStream:
    """A text stream that drops its output once nobody reads it any more.

    The work of a command then continues to its end, and the exit status is that of the work.
    """

    def __init__(self, stream: TextIO, dropped: type[OSError]):
        """Wrap a stream.

        Args:
            stream: The stream.
            dropped: The failure after which output is dropped; any other is raised, once.
        """
        self._stream, self._dropped = stream, dropped

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as failure:
            self._drop(failure)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as failure:
            self._drop(failure)

    def _drop(self, failure: OSError) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())  # for what is still buffered, and for child processes
        os.close(nothing)
        if not isinstance(failure, self._dropped):
            raise failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _lasting_streams() -> Iterator[None]:
    """Let the readers of standard output and standard error close them at any time, or from the start."""
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        out, err = before
        if out is None:  # as the shell's `>&-` makes it
            out = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        if err is None:
            err = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")  # as standard error does: an ASCII terminal has no dash
        sys.stdout = _LastingStream(out, BrokenPipeError)
        sys.stderr = _LastingStream(err, OSError)  # there is no other place to report a failure
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Parse a command line, run the chosen verb's `run` function, and return the exit status.

    0: done. 1: what was checked does not hold. 2: the request itself was wrong. A reader that closes standard output or
    standard error early changes none of that.
    """
    with _lasting_streams():
        options = parser.parse_args(arguments)
        try:
            status = options.run(options) or 0
            sys.stdout.flush()  # here, where the error of a full disk is caught
            return status
        except Faulty as faulty:
            say(faulty.findings)
            return faulty.status
        except BadRequest as mistake:
            print(f"error: {printable(str(mistake))}", file=sys.stderr)
            return 2
        except OSError as failure:
            print(f"error: {system_failure(failure)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; give the same command again", file=sys.stderr)
            return 130


def system_failure(failure: OSError) -> str:
    """Say what the operating system refused, and of what."""
    path = failure.filename2 or failure.filename  # of a renaming the target; the source is a temporary name
    place = f"{path}: " if path else ""
    advice = {errno.ENOSPC: "; free some space and give the same command again", errno.EACCES: "; check permissions"}
    return printable(f"{place}{failure.strerror or failure}{advice.get(failure.errno or 0, '')}")
