import errno
import os
import signal

import pytest

from evaluation import files
from evaluation.files import appearing, cache_folder, replacing
from evaluation.findings import BadRequest


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_a_device_or_a_folder_is_not_replaced(tmp_path, make):
    target = tmp_path / "target"
    make(target)
    kind = target.stat().st_mode
    with (
        pytest.raises(BadRequest, match="must be a file or not exist; it is neither"),
        replacing(target) as part,
    ):
        part.write_text("x")
    assert target.stat().st_mode == kind
    assert list(tmp_path.iterdir()) == [target]


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    target = tmp_path / "new" / "target"
    with replacing(target) as part:
        part.write_text("one")
    with pytest.raises(ZeroDivisionError), replacing(target) as part:
        part.write_text("two")
        _ = 1 / 0
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


def in_child(work):
    """Run a function in a fork of this process and wait until it ends, with whatever signal."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("manager", [replacing, appearing])
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path, manager):
    target = tmp_path / "data [1].x"

    def killed():
        with manager(target) as part:
            (part / "sound.wav" if part.is_dir() else part).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(killed) == -signal.SIGKILL
    assert in_child(killed) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part")
    with manager(target) as part:
        assert not left.exists()
        (part / "sound.wav" if part.is_dir() else part).write_bytes(b"whole")
    assert list(tmp_path.iterdir()) == [target]


def test_what_may_be_in_use_is_kept(tmp_path):
    target, machine = tmp_path / "scores.json", files._machine()
    kept = [
        tmp_path / f".scores.json.1-{machine}.part",  # a living process
        tmp_path / ".scores.json.4194304-00000000.part",  # another machine's: its processes cannot be seen from here
        tmp_path / f".scores.json.99999999999999999999-{machine}.part",  # no process number
        tmp_path / f".other.json.4194304-{machine}.part",  # another target
        tmp_path / ".scores.json.part",  # a download that can be resumed
    ]
    for path in kept:
        path.write_text("x")
    dead = tmp_path / f".scores.json.4194304-{machine}.part"  # a number above the largest one of Linux
    dead.write_text("x")
    with replacing(target) as part, replacing(tmp_path / "other.json") as other:
        part.write_text("1")
        other.write_text("2")
    kept.remove(tmp_path / f".other.json.4194304-{machine}.part")  # whose target has been written now
    assert sorted(tmp_path.iterdir()) == sorted([*kept, target, tmp_path / "other.json"])


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "home/.cache/dcase-kit"),
        ({"XDG_CACHE_HOME": "FOLDER/xdg"}, "xdg/dcase-kit"),
        ({"XDG_CACHE_HOME": "FOLDER/xdg", "DCASE_KIT_CACHE": "FOLDER/own"}, "own"),
        ({"XDG_CACHE_HOME": "", "DCASE_KIT_CACHE": ""}, "home/.cache/dcase-kit"),
        ({"DCASE_KIT_CACHE": "~/own"}, "home/own"),
        ({"DCASE_KIT_CACHE": "relative"}, "here/relative"),
    ],
)
def test_the_cache_folder(variables, expected, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "DCASE_KIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("FOLDER", str(tmp_path)))
    assert cache_folder() == tmp_path / expected
    assert not cache_folder().exists()


@pytest.mark.parametrize("name", ["file/x", "file/x/y"])
def test_a_file_is_not_a_folder_to_write_in(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(BadRequest, match="file: must be a folder; it is a file: give another name"):
        replacing(tmp_path / name).__enter__()
