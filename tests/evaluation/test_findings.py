import argparse
import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.files import appearing, replacing
from evaluation.cli import command, system_failure
from evaluation.findings import ALIKE, ERROR, NOTE, WARNING, BadRequest, Faulty, Finding, bounded, count, limited
from evaluation.text import lookalike, printable, table, unknown_key


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (Finding("a.csv", message="is bad"), "a.csv: error: is bad"),
        (Finding("a.csv", 3, "caption_1", "is bad"), "a.csv:3: caption_1: error: is bad"),
        (Finding("a.csv", column="key", message="is odd", severity=NOTE), "a.csv: key: note: is odd"),
        (
            Finding("two\nlines\udce9.csv", 1, "\x1b[31m", "bell \x07"),
            r"two\nlines\udce9.csv:1: \x1b[31m: error: bell \x07",
        ),
    ],
)
def test_a_finding_is_one_line(finding, line):
    assert str(finding) == line


def test_findings_are_told_in_the_order_of_the_file():
    rest = Finding("a", message="and 7 more of this kind", rest=7)
    findings = [rest, Finding("b"), Finding("a", 10), Finding("a", 9, "z"), Finding("a", 9, "c")]
    assert Faulty(findings).findings == [findings[4], findings[3], findings[2], rest, findings[1]]


def many(number: int, message: str = "found {0!r}", file: str = "a.csv", line: int = 1, **more) -> list[Finding]:
    return [Finding(file.format(n), n * line, message=message.format(str(n)), **more) for n in range(1, number + 1)]


def test_twenty_of_a_kind_are_listed_and_the_rest_counted():
    findings = many(25)
    kept = limited(findings)
    assert kept[:ALIKE] == findings[:ALIKE]
    (rest,) = kept[ALIKE:]
    assert str(rest) == "a.csv: error: and 5 more of this kind: found '21'"
    assert rest.rest == 5
    assert limited(kept) == kept
    assert count(findings) == count(kept) == 25
    assert str(Faulty(findings)).splitlines() == list(map(str, kept))
    assert len(Faulty(findings).findings) == 25


def test_findings_come_from_another_process():
    faulty = pickle.loads(pickle.dumps(Faulty(many(3), status=2)))
    assert (faulty.findings, faulty.status) == (many(3), 2)
    assert str(faulty).count("\n") == 2


def test_twenty_of_a_kind_are_no_more_than_twenty():
    findings = many(20)
    assert limited(findings) == findings


def test_kinds_are_told_apart_by_severity_message_and_place():
    groups = [
        many(25),
        many(25, severity=WARNING),
        many(25, "is empty, {0!r}"),
        many(25, file="b.csv"),
        many(25, file="clips/{}.wav", line=0),
        many(25, file="clips/{}.wav", line=0, severity=NOTE),
        many(25, file="other/{}.wav", line=0),
        many(25, 'also "{0}" is one kind'),
        many(3, "is rare"),
    ]
    kept = limited(finding for each in zip(*(group for group in groups[:-1]), strict=True) for finding in each)
    assert len(kept) == 8 * 21
    assert [str(finding).split(": and")[0] for finding in kept if finding.rest] == [
        *("a.csv: error", "a.csv: warning", "a.csv: error", "b.csv: error"),
        *("clips/: error", "clips/: note", "other/: error", "a.csv: error"),
    ]
    everything = [finding for group in groups for finding in group]
    shown = limited(everything)
    assert [finding for finding in shown if "rare" in finding.message] == groups[-1]
    for severity in (ERROR, WARNING, NOTE):
        expected = sum(finding.severity == severity for finding in everything)
        assert count(shown, severity) == count(everything, severity) == expected


def test_bounded_findings():
    def endless():
        while True:
            yield Finding("a", message="bad")

    assert bounded(endless(), 3, "a.csv") == [
        *[Finding("a", message="bad")] * 3,
        Finding("a.csv", message="there are more than 3 findings; correct these first"),
    ]
    assert bounded(many(3), 3, "a.csv") == many(3)


@pytest.mark.parametrize("text", ["plain – text, 日本語 🐕", "a\u2028b\x85c\u202ed", "\ud800\udfff", "\0\r\n\t\x1b"])
def test_printable_is_printable(text):
    safe = printable(text)
    assert safe.isprintable()
    assert printable(safe) == safe
    assert (safe == text) == text.isprintable()
    safe.encode("utf-8")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (" dog.wav ", "dog.wav"),
        ("DOG.WAV", "dog.wav"),
        ("rain & storm.wav", "rain &amp; storm.wav"),
        ("rain &AMP; storm.wav", "rain &amp; storm.wav"),
        ("cafe\u0301.wav", "caf\u00e9.wav"),
        ("dog", None),
        ("do g.wav", None),
        ("", None),
    ],
)
def test_lookalike(name, found):
    assert lookalike(["dog.wav", "rain &amp; storm.wav", "caf\u00e9.wav"])(name) == found


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "did you mean 'epochs'? "),
        ("Epochs ", "did you mean 'epochs'? "),
        ("learn", "did you mean 'learning_rate'? "),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_unknown_key(key, hint):
    known = ["batch", "epochs", "learning_rate"]
    assert unknown_key(key, known) == f"unknown key {key!r}; {hint}there are: batch, epochs, learning_rate"


def test_an_unknown_key_is_escaped_once():
    assert unknown_key("a\n\\", ["b"], "split") == r"unknown split 'a\n\\'; there are: b"


def test_a_table_is_text():
    assert table([["a", 1], ["b", "10.50"]], ["x", "y"], numbers=[1]).splitlines()[2:] == ["a        1", "b    10.50"]
    assert table([], ["x", "y"], numbers=[1]).split() == ["x", "y", "---", "---"]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (FULL, "No space left on device; free some space and give the same command again"),
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
        (FULL, 2, "error: No space left on device; free some space and give the same command again\n"),
        (KeyboardInterrupt(), 130, "interrupted; give the same command again\n"),
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


# A command that prints more than a pipe holds, then writes a file, and ends in one way or another.
LEAVING = """
import argparse, sys
from pathlib import Path
from evaluation.findings import BadRequest, Faulty, Finding, command
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
READERS = ["| head -1", "2>&1 >/dev/null | head -1", "2>&1 | head -1", "| true", ">&- 2>&-", ">/dev/null 2>&-"]


@pytest.fixture
def leaving(tmp_path):
    """Run the command above with some shell redirection; return its status and what the others printed."""
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
    assert printed == "error: No space left on device; free some space and give the same command again\n"


# ------------------------------------------------------------------------------------------------ files


def test_replacing(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with replacing(target) as part:
        part.write_text("one")
        assert part.parent == target.parent
        assert not target.exists()
    with replacing(target) as part:
        part.write_text("two")
        assert target.read_text() == "one"
    assert {path.name: path.read_text() for path in target.parent.iterdir()} == {"a.txt": "two"}


@pytest.mark.parametrize("failure", [FULL, KeyboardInterrupt(), ValueError()])
@pytest.mark.parametrize("written", [False, True])
def test_replacing_that_fails_leaves_what_was_there(tmp_path, failure, written):
    target = tmp_path / "a.txt"
    target.write_text("one")
    with pytest.raises(type(failure)), replacing(target) as part:
        if written:
            part.write_text("half")
        raise failure
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "one"}


@pytest.mark.parametrize("there", [False, True])
def test_appearing(tmp_path, there):
    target = tmp_path / "new" / "data"
    if there:
        target.mkdir(parents=True)
    with appearing(target) as part:
        (part / "a.txt").write_text("one")
        assert part.parent == target.parent
        assert not (target / "a.txt").exists()
    assert [path.name for path in target.parent.iterdir()] == ["data"]
    assert (target / "a.txt").read_text() == "one"
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("failure", [FULL, KeyboardInterrupt()])
def test_appearing_that_fails_leaves_nothing(tmp_path, failure):
    with pytest.raises(type(failure)), appearing(tmp_path / "data") as part:
        (part / "sub").mkdir()
        (part / "sub" / "a.txt").write_text("half")
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_appearing_takes_no_ones_place(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").touch()
    with pytest.raises(OSError, match="not empty"), appearing(tmp_path / "data") as part:
        (part / "a.txt").touch()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["data", "data/mine.txt"]
