"""Helpers for tests of trained runs: read a run folder, and interrupt a run."""

import contextlib
import csv
import os
import signal
import sys

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


def run_in_fork(work):
    """Run a command in another process, and return its exit status.

    The process is a fork of this one: all libraries are imported already.

    Args:
        work: The words of a command of `systems`, or a function.
    """
    child = os.fork()
    if not child:
        status = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a process that a user starts
            status = work() or 0 if callable(work) else command(parser(), work)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


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
    original, calls = getattr(owner, name), []

    def counting(*args, **kwargs):
        calls.append(name)
        return how(original, *args, **kwargs) if len(calls) == count else original(*args, **kwargs)

    def changed():
        setattr(owner, name, counting)
        return work() if callable(work) else command(parser(), work)

    return run_in_fork(changed)
