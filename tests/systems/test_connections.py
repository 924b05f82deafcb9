"""Training on two machines, one of which is lost. Each machine is a process with a rank of its own."""

import re
import shutil
import signal
import time
from datetime import timedelta

import pytest
import torch.distributed

from evaluation.cli import command
from systems.__main__ import parser
from systems.connections import must_stay_connected
from systems.parts import words
from systems.training import EpochControl
from tests.brief import make_brief_soundscapes
from tests.systems.runs import Fork, kill, meeting_place, rows, same, train_arguments, weights, with_replaced_call

SETTINGS = ("epochs=3", "batch=2", "words_epochs=1")
STEPS = 2  # training steps of each machine in an epoch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    make_brief_soundscapes(folder / "data", seconds=0.4, development=4 * STEPS, validation=4, evaluation=4)
    return folder


def arguments(place, run):
    return [*train_arguments("baseline.retriever", place, run, SETTINGS), "--num-nodes", "2"]


def start(*works):
    """Start the work of each machine, as the guide says, and return the processes."""
    meeting = meeting_place()
    return [Fork(work, NODE_RANK=str(rank), **meeting) for rank, work in enumerate(works)]


def lost(work, how=kill):
    """Return the work of a machine that is lost in the middle of the second epoch."""
    return with_replaced_call(work, EpochControl, "on_train_batch_start", STEPS + 2, how)


@pytest.fixture(scope="module")
def interrupted(place):
    """A run folder whose training lost the second machine in the middle of the second epoch."""
    training = arguments(place, place / "interrupted")
    assert [process.wait() for process in start(training, lost(training))] == [2, -signal.SIGKILL]
    return place / "interrupted"


def test_a_training_that_lost_a_machine_resumes(place, interrupted, tmp_path):
    assert len(rows(interrupted)) == 1
    assert not [*interrupted.rglob("*.part")]
    assert not (interrupted / "system.yaml").exists()
    shutil.copytree(interrupted, tmp_path / "resumed")
    for run in (tmp_path / "resumed", tmp_path / "whole"):
        training = arguments(place, run)
        assert [process.wait() for process in start(training, training)] == [0, 0]
    assert same(weights(tmp_path / "resumed"), weights(tmp_path / "whole"))
    assert rows(tmp_path / "resumed") == rows(tmp_path / "whole")


def test_word_vectors_may_appear_during_the_start(place, tmp_path, monkeypatch):
    """Another process of the training may write the file while this one trains the same vectors."""
    first, second = tmp_path / "first", tmp_path / "second"
    settings = ("epochs=1", "words_epochs=1")
    assert command(parser(), train_arguments("baseline.retriever", place, first, settings)) == 0
    train_vectors = words.train_vectors

    def train_slowly(*arguments, **others):
        for name in ("config.yaml", "words.bin"):
            shutil.copy(first / name, second / name)
        return train_vectors(*arguments, **others)

    monkeypatch.setattr(words, "train_vectors", train_slowly)
    assert command(parser(), train_arguments("baseline.retriever", place, second, settings)) == 0
    assert same(weights(first), weights(second))


def test_machines_with_folders_of_their_own_do_not_resume(place, interrupted, tmp_path, capfd):
    shutil.copytree(interrupted, tmp_path / "first")
    commands = [arguments(place, tmp_path / name) for name in ("first", "second")]
    assert [process.wait() for process in start(*commands)] == [2, 2]
    printed = capfd.readouterr().err
    for name in ("first", "second"):
        assert (
            f"error: {tmp_path}/{name}: must be a folder that all machines of the training share; found last.ckpt "
            "after different numbers of epochs (1, 0): give a folder on a shared file system to each of the commands"
        ) in printed
    assert len(rows(tmp_path / "first")) == 1


def test_a_machine_that_does_not_answer_is_waited_for(place, tmp_path, monkeypatch, capfd):
    connect = torch.distributed.init_process_group

    def connect_for_ten_seconds(*arguments, timeout, **others):
        assert timeout == timedelta(minutes=30), "the guide says so"
        connect(*arguments, timeout=timedelta(seconds=10), **others)

    def hang(*arguments):
        time.sleep(600)

    monkeypatch.setattr(torch.distributed, "init_process_group", connect_for_ten_seconds)
    training = arguments(place, tmp_path / "run")
    first, second = start(training, lost(training, hang))
    status = first.wait()
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert status == 2
    *_, message = capfd.readouterr().err.splitlines()
    must, found, advice = message.split("; ")
    assert must == f"error: {tmp_path}/run: must be trained by processes that stay connected"
    assert re.match("found: (Timed out waiting 10000ms for|Application timeout) ", found)
    assert advice == "look at the output of the other processes, and run the same commands again to resume"
    assert len(rows(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer"),
            "Connection closed by peer",
        ),
        (RuntimeError("Application timeout caused pair closure"), "Application timeout caused pair closure"),
        (
            torch.distributed.DistStoreError("Timed out after 9 seconds waiting. 1/2 joined.\nException raised from"),
            "Timed out after 9 seconds waiting. 1/2 joined",
        ),
    ],
)
def test_the_message_contains_the_reason(tmp_path, error, reason):
    with pytest.raises(ConnectionError, match=f"must be .*; found: {reason}; look at "), must_stay_connected(tmp_path):
        raise error


def test_other_errors_are_not_changed(tmp_path):
    with pytest.raises(RuntimeError, match="out of memory"), must_stay_connected(tmp_path):
        raise RuntimeError("out of memory")
