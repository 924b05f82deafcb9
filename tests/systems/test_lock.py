"""One training at a time in a run folder, even after a process was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.findings import BadRequest
from systems.lock import HOLDER, LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from systems.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that trains in the folder."""
    asked = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_training_is_refused_and_the_first_is_named(other, tmp_path):
    with pytest.raises(BadRequest) as refusal, locked(tmp_path / "run"):
        pass
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}/run: must be trained by one process at a time; process {other.pid} on ")
    assert message.endswith("is training there; wait until it ends, or give another run folder")
    assert (tmp_path / "run" / HOLDER).exists()


def test_a_killed_process_leaves_no_lock(other, tmp_path):
    (tmp_path / "run" / "config.yaml").touch()
    other.send_signal(signal.SIGKILL)
    other.wait()
    with locked(tmp_path / "run"):
        assert f"process {os.getpid()} on " in (tmp_path / "run" / HOLDER).read_text()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LOCK, "config.yaml"}


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_other_processes_of_one_training_do_not_wait(other, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with locked(tmp_path / "run"):
        pass


def test_a_folder_that_is_no_run_is_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "new" / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    with locked(tmp_path / "notes"):
        pass
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]
