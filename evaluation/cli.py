"""The function that runs a command: it parses the arguments, prints the findings and returns the exit status."""

import argparse
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from evaluation import extras
from evaluation.findings import BadRequest, Faulty, say
from evaluation.text import printable


class _LastingStream:
    """A text stream that drops its output when nobody reads it any more.

    The command then completes its work, and its exit status does not change.
    """

    def __init__(self, stream: TextIO, dropped: type[OSError]):
        """Wrap a stream.

        Args:
            stream: The stream.
            dropped: The type of error that means that nobody reads the stream. After any error, further output is
                dropped. An error of this type is not raised; any other error is.
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
        os.dup2(nothing, self._stream.fileno())  # also drops buffered output and that of child processes
        os.close(nothing)
        if not isinstance(failure, self._dropped):
            raise failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _lasting_streams() -> Iterator[None]:
    """Allow standard output and standard error to be closed by their readers, even before the command starts."""
    original = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        out, err = original
        if out is None:  # closed by the shell's `>&-`
            out = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        if err is None:
            err = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")  # an ASCII terminal cannot print "–"
        sys.stdout = _LastingStream(out, BrokenPipeError)
        sys.stderr = _LastingStream(err, OSError)  # its errors cannot be reported anywhere
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = original


def complete(action: argparse.Action, names: Callable[[], Iterable[str]]) -> None:
    """Let the shell complete the values of an option.

    Args:
        action: The option, as `add_argument` returns it.
        names: A function that returns the possible values. It is called only for a completion.
    """
    action.completer = lambda **_: list(names())  # type: ignore[attr-defined]  # argcomplete reads this attribute


def command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, call the `run` function of the chosen command, and return the exit status.

    If the shell asks for the completions of a word, the process prints them and ends. The status does not change if
    standard output or standard error is closed early.

    Args:
        parser: The parser. Each of its commands sets the option `run`, a function of the parsed options.
        arguments: The arguments (default: those of this process).

    Returns:
        The exit status. 0: the command succeeded. 1: something that the command checked is not valid. 2: the request
        was wrong. 130: the command was interrupted.
    """
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete  # imported only here: commands must start quickly

        argcomplete.autocomplete(parser)
    with _lasting_streams():
        options = parser.parse_args(arguments)
        try:
            status = options.run(options) or 0
            sys.stdout.flush()  # a full disk raises its error here, where it is caught
            return status
        except Faulty as faulty:
            say(faulty.findings)
            return faulty.status
        except BadRequest as mistake:
            print(f"error: {printable(str(mistake))}", file=sys.stderr)
            return 2
        except ModuleNotFoundError as error:
            lacking = extras.not_installed(error)
            if lacking is None:
                raise
            print(f"error: {lacking}", file=sys.stderr)
            return 2
        except OSError as failure:
            print(f"error: {system_failure(failure)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; run the same command again", file=sys.stderr)
            return 130


def system_failure(failure: OSError) -> str:
    """Describe an error of the operating system: the path, the reason, and in some cases what to do."""
    path = failure.filename2 or failure.filename  # for a rename the target: the source is a temporary file
    place = f"{path}: " if path else ""
    advice = {errno.ENOSPC: "; free some space and run the same command again", errno.EACCES: "; check permissions"}
    return printable(f"{place}{failure.strerror or failure}{advice.get(failure.errno or 0, '')}")
