import argparse
import errno
import os

import pytest

from evaluation.files import appearing, replacing
from evaluation.findings import (
    NOTE,
    BadRequest,
    Faulty,
    Finding,
    command,
    lookalike,
    printable,
    system_failure,
    table,
    unknown_key,
)


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
    rest = Finding("a", message="and so 7 more", rest=True)
    findings = [rest, Finding("b"), Finding("a", 10), Finding("a", 9, "z"), Finding("a", 9, "c")]
    assert Faulty(findings).findings == [findings[4], findings[3], findings[2], rest, findings[1]]


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
