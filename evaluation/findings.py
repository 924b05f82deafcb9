"""What a check has to say, and how a command says it.

A check collects every `Finding` before it speaks. A reader that cannot go on raises `Faulty` with all of them (exit
status 1); a request that cannot be carried out at all raises `BadRequest` (exit status 2). `command` turns both into
lines on standard error, so that no mistake of a user ends in a traceback.
"""

import argparse
import difflib
import errno
import html
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tabulate import tabulate

from evaluation.ordering import natural

ERROR, WARNING, NOTE = "error", "warning", "note"
LISTED = 100  # of one kind
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
        rest: Whether it stands for more of a kind that are not told; it is the last of its file.
    """

    file: str
    line: int = 0
    column: str = ""
    message: str = ""
    severity: str = ERROR
    rest: bool = False

    def __lt__(self, other: "Finding") -> bool:
        for mine, others in zip(self._order, other._order, strict=True):
            if mine != others:
                if isinstance(mine, str):
                    return natural(mine) < natural(others)
                return mine < others
        return False

    @property
    def _order(self) -> tuple[str, bool, int, str, str, str]:
        return self.file, self.rest, self.line, self.column, self.message, self.severity

    def __str__(self) -> str:
        """Give the line a user reads, in the form of a compiler's.

        >>> print(Finding("captions_development.csv", 12, "caption_3", "is blank; write a caption"))
        captions_development.csv:12: caption_3: error: is blank; write a caption
        """
        place = self.file + (f":{self.line}" if self.line else "") + (f": {self.column}" if self.column else "")
        return printable(f"{place}: {self.severity}: {self.message}")


class Faulty(Exception):
    """What was read does not hold; carries every finding, and the exit status: 2 where they are of the request."""

    def __init__(self, findings: Iterable[Finding], status: int = 1):
        self.findings, self.status = sorted(findings), status
        super().__init__("\n".join(str(finding) for finding in self.findings))


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


def shortened(findings: list[Finding], what: str) -> list[Finding]:
    """Of many findings of one kind the first, and how many more there are."""
    if len(findings) <= LISTED:
        return findings
    message = f"and so {len(findings) - LISTED} more {what}"
    return [*findings[:LISTED], replace(findings[0], line=0, column="", message=message, rest=True)]


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
    """Print findings to standard error, one per line."""
    for finding in findings:
        print(finding, file=sys.stderr)


def command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Parse a command line, run the chosen verb's `run` function, and return the exit status.

    0: done. 1: what was checked does not hold. 2: the request itself was wrong.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a dash is no reason to fail on an ASCII terminal
    options = parser.parse_args(arguments)
    verb: Callable[[argparse.Namespace], int | None] = options.run
    try:
        status = verb(options) or 0
        sys.stdout.flush()  # here, where a closed pipe is caught
        return status
    except Faulty as faulty:
        say(faulty.findings)
        return faulty.status
    except BadRequest as mistake:
        print(f"error: {printable(str(mistake))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
