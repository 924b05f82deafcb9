import os
import signal

import pytest

from evaluation import files
from evaluation.files import appearing, replacing
from evaluation.findings import BadRequest


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_a_device_or_a_folder_is_not_replaced(tmp_path, make):
    target = tmp_path / "target"
    make(target)
    kind = target.stat().st_mode
    with (
        pytest.raises(BadRequest, match="must be a file or not there; it is something else"),
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
