"""Running a command: exit statuses, and output streams that are closed early."""

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.cli import command, system_failure
from evaluation.findings import BadRequest, Faulty, Finding


def many(number: int, message: str = "found {0!r}", file: str = "a.csv", line: int = 1, **more) -> list[Finding]:
    return [Finding(file.format(n), n * line, message=message.format(str(n)), **more) for n in range(1, number + 1)]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (FULL, "No space left on device; free some space and run the same command again"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a\n.csv"),
            r"a\n.csv: Permission denied; check permissions",
        ),
        (OSError(errno.EISDIR, "Is a directory", ".a.1.part", None, "a"), "a: Is a directory"),
        (OSError("something else"), "something else"),
    ],
)
def test_system_failure(failure, text):
    assert system_failure(failure) == text


def parser(outcome: object) -> argparse.ArgumentParser:
    def run(options: argparse.Namespace) -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    return parser


@pytest.mark.parametrize(
    ("outcome", "status", "err"),
    [
        (None, 0, ""),
        (1, 1, ""),
        (Faulty([Finding("b", 2, message="two"), Finding("a", message="one")]), 1, "a: error: one\nb:2: error: two\n"),
        (BadRequest("no\nsuch"), 2, "error: no\\nsuch\n"),
        (FULL, 2, "error: No space left on device; free some space and run the same command again\n"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again\n"),
    ],
)
def test_command(capsys, outcome, status, err):
    assert command(parser(outcome), []) == status
    assert capsys.readouterr() == ("", err)


def test_a_command_prints_twenty_findings_of_a_kind(capsys):
    assert command(parser(Faulty(many(5225))), []) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "a.csv: error: and 5205 more of this kind: found '21'"


READERS = ["| head -1", "2>&1 >/dev/null | head -1", "2>&1 | head -1", "| true", ">&- 2>&-", ">/dev/null 2>&-"]


LEAVING = """
import argparse, sys
from pathlib import Path
from evaluation.cli import command
from evaluation.findings import BadRequest, Faulty, Finding
outcomes = {"done": 0, "does not hold": 1, "faulty": Faulty([Finding("a", message="one")]), "wrong": BadRequest("no")}
def work(options):
    for number in range(20_000):
        print("a line", number)
        print("a line", number, file=sys.stderr)
    Path("written").touch()
    outcome = outcomes[options.outcome]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
parser = argparse.ArgumentParser()
parser.add_argument("outcome")
parser.set_defaults(run=work)
sys.exit(command(parser))
"""


@pytest.fixture
def leaving(tmp_path):
    """Run the command above with a shell redirection; return its exit status and the output of the shell line."""
    (tmp_path / "leaving.py").write_text(LEAVING)

    def run(outcome: str, redirection: str) -> tuple[int, str]:
        line = f'"$0" leaving.py "$1" {redirection}; exit "${{PIPESTATUS[0]}}"'
        done = subprocess.run(
            ["bash", "-c", line, sys.executable, outcome],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    ("outcome", "status", "reader"),
    [
        *(("does not hold", 1, reader) for reader in READERS),
        *(("done", 0, reader) for reader in READERS[:2]),
        *(("faulty", 1, reader) for reader in READERS[:2]),
        *(("wrong", 2, reader) for reader in READERS[:2]),
    ],
)
def test_a_reader_that_leaves_changes_no_work_and_no_status(tmp_path, leaving, outcome, status, reader):
    found, printed = leaving(outcome, reader)
    assert found == status
    assert (tmp_path / "written").exists()
    assert "Traceback" not in printed
    assert "Exception" not in printed


def test_help_whose_reader_leaves(leaving):
    assert leaving("--help", "| true") == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_told_of_once(leaving):
    status, printed = leaving("done", ">/dev/full 2>/dev/null")
    assert (status, printed) == (2, "")
    _, printed = leaving("done", "2>&1 >/dev/full | tail -1")
    assert printed == "error: No space left on device; free some space and run the same command again\n"
