"""Run a command: parse its line, print findings, and return the exit status."""

import argparse
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from evaluation.findings import BadRequest, Faulty, say
from evaluation.text import printable


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
        if out is None:  # the shell's `>&-` closed it
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
