"""Helpers for tests of trained runs: read a run folder, and interrupt a run."""

import contextlib
import csv
import os
import signal
import socket
import sys
import traceback

import pytest
import torch

from evaluation.cli import command
from systems.__main__ import parser


def weights(run, which="last"):
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]


def train_arguments(system, place, run, settings):
    """Return the arguments that train a system on the data in a folder, on the CPU."""
    asked = ["train", system, "--data", str(place / "data"), "--run", str(run), "--accelerator", "cpu"]
    asked += ["--cache", str(place / "cache")]
    return asked + [word for setting in settings for word in ("--set", setting)]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def rows(run):
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_runs_agree(one, other):
    """Check that two runs have the same weights and rows of epochs, up to rounding.

    A bias of keys does not affect attention. Its gradient is rounding, which Adam scales up, so it is not compared.
    """
    of_one, of_other = weights(one), weights(other)
    for name, value in of_one.items():
        if not name.endswith(("key_value.bias", "in_proj_bias")):
            torch.testing.assert_close(of_other[name], value, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    for row, of_other in zip(rows(one), rows(other), strict=True):
        values = [{name: float(value) for name, value in epoch.items()} for epoch in (row, of_other)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def assert_captions_do_not_depend_on_the_batch(model, audio, lengths):
    """Check that a sound has the same caption and log-probability in a batch as alone, without padding.

    The first of its alternative captions must be the same too.

    Args:
        model: The captioner.
        audio: The batch, (N, samples).
        lengths: (N,), the samples of each sound.
    """
    with torch.inference_mode():
        together, scores = model.caption_scored(audio, lengths)
        alternatives = model.caption_alternatives(audio, lengths, 2)
        for row, length in enumerate(lengths):
            (alone,), score = model.caption_scored(audio[row : row + 1, :length], lengths[row : row + 1])
            assert alone == together[row]
            torch.testing.assert_close(score[0], scores[row], rtol=1e-4, atol=1e-4)
            caption, log_probability = alternatives[row][0]
            assert caption == alone
            assert abs(log_probability - float(score[0])) < 1e-3


def kill(original, *args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after(original, *args, **kwargs):
    original(*args, **kwargs)
    kill(original)


def kill_half_way(original, checkpoint, file):
    file.write(b"half a checkpoint")
    file.flush()
    kill(original)


def terminate(original, *args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return original(*args, **kwargs)


def interrupt(original, *args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    return original(*args, **kwargs)


def lose_interrupt(original, *args, **kwargs):
    """Send Ctrl-C in a place that catches and loses it, as a finaliser does."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    return original(*args, **kwargs)


class Fork:
    """A process that is a fork of this one, so that all libraries are imported already. It is used as a `Popen` is.

    Args:
        work: The words of a command of `systems`, or a function. Its result is the exit status.
        environment: Environment variables of the process.
    """

    def __init__(self, work, **environment):
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            status = 99
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a process that a user starts
                os.environ.update(environment)
                status = work() or 0 if callable(work) else command(parser(), work)
            except Exception:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)

    def wait(self, options=0):
        """Wait for the process to end, and return its exit status."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def poll(self):
        """Return the exit status, or None if the process still runs."""
        return self.wait(os.WNOHANG)

    def send_signal(self, number):
        """Send a signal to the process if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def run_in_fork(work):
    """Run a command or function in a fork of this process, and return its exit status."""
    return Fork(work).wait()


def meeting_place():
    """Return the environment variables with the address at which the processes of a training meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def train_in_two_processes(words):
    """Run a training command in two processes that train together, as torchrun does, and return their exit statuses."""
    meeting = meeting_place()
    words = [*words, "--devices", "2", "--strategy", "ddp"]
    processes = [Fork(words, LOCAL_RANK=str(rank), **meeting) for rank in range(2)]
    return [process.wait() for process in processes]


def cut_off(work, owner, name, count=1, how=kill):
    """Run a command in another process, in which `how` replaces one call of a function; return its exit status.

    The process is a fork of this one, and the change to `owner` ends with it.

    Args:
        work: The words of a command of `systems`, or a function.
        owner: A module or class.
        name: The name of a function in it.
        count: The number of the call that is replaced, from 1.
        how: Takes the original function and its arguments.
    """
    return run_in_fork(with_replaced_call(work, owner, name, count, how))


def with_replaced_call(work, owner, name, count=1, how=kill):
    """Return a function that replaces one call of a function and then runs a command, as in `cut_off`."""
    original, calls = getattr(owner, name), []

    def counting(*args, **kwargs):
        calls.append(name)
        return how(original, *args, **kwargs) if len(calls) == count else original(*args, **kwargs)

    def changed():
        setattr(owner, name, counting)
        return work() if callable(work) else command(parser(), work)

    return changed
