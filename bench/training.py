"""Measures of training the baseline: how long it waits for data, features, samplers and the loss."""

import os
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile

from bench.measuring import CLIPS, CLOTHO, Function, Row, clotho, duration, race, times
from evaluation.data.audio import LogMel
from evaluation.data.dataset import Split, read_dataset
from evaluation.data.soundscapes import generate, grammar

if TYPE_CHECKING:
    from torch import Tensor

    from baseline.retriever import Item

SECONDS = (15, 30)  # as long as its clips are, evenly spread
STORE_STEPS = 12  # of the 120 in an epoch
SOUNDS = 96


class Steps(NamedTuple):
    """Seconds of every step waiting for its batch and training on it, and the process's peak memory in bytes."""

    waiting: list[float]
    training: list[float]
    memory: int


def store(alone: Function, folder: Path) -> list[Row]:
    """Share of training that waits for batches from a feature store of Clotho's size."""
    steps, size = alone(_store, folder)
    waiting, training = fmean(steps.waiting), fmean(steps.training)
    share = waiting / (waiting + training)
    what = f"waiting for 32 clips from a store of {size / 1e9:.1f} GB on disk / training on them"
    note = f"mean of {STORE_STEPS} steps of {-(-CLIPS['development'] // 32)}"
    return [Row(what, duration(waiting), duration(training), f"{share:.1%} of both", "< 5 %", share < 0.05, note)]


def _store(folder: Path) -> tuple[Steps, int]:
    from baseline.retriever import Config, Item
    from systems.caching.features import log_mels

    class Noise(LogMel):
        """Noise instead of features: a frame for every sample."""

        def __call__(self, sound: np.ndarray) -> np.ndarray:
            return noise[: len(sound)] + sound[0]

    frames = [seconds * LogMel.sample_rate // LogMel.hop for seconds in SECONDS]
    rng = np.random.default_rng(0)
    noise = rng.normal(-8, 4, (frames[1] + 1, LogMel.mels)).astype(np.float32)
    paths = []
    for number in range(sum(CLIPS.values())):  # every sound differs, or the store would hold one of them
        paths.append(folder / f"{number}.wav")
        length = rng.integers(frames[0], frames[1], endpoint=True)
        soundfile.write(paths[-1], np.full(length, number, np.int16), LogMel.sample_rate)
    features = log_mels(paths, Noise(), folder / "store")
    clips = read_dataset(clotho(folder), "development", sound=False)["development"].clips
    items = [Item(clip.file_name, mels, clip.captions) for clip, mels in zip(clips, features, strict=False)]
    size = forget(next((folder / "store").glob("*/features.f32")))
    return train(items, Config(), STORE_STEPS), size


def forget(path: Path) -> int:
    """Have the system read a file from disk again, where that can be asked for; return its size in bytes."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path.stat().st_size


def samplers(alone: Function, folder: Path) -> list[Row]:
    """An epoch on the default data, a clip encoded once with its captions, against once for each caption."""
    place = folder / "soundscapes"
    generate.make_soundscapes(place, clips={"development": generate.CLIPS["development"]}, progress=False)
    clips = generate.CLIPS["development"]
    steps = clips // 32
    runs: dict[str, list[Steps]] = {"clip": [], "caption": []}
    for sampler in ("clip", "caption") * 2:
        runs[sampler].append(alone(_sampler, place, folder, sampler, steps))
    best = {name: min(sum(run.waiting) + sum(run.training) for run in done) for name, done in runs.items()}
    memory = {name: max(run.memory for run in done) for name, done in runs.items()}
    captions = grammar.CAPTIONS
    epochs = best["clip"], best["caption"] * captions
    learnt = clips * captions / best["clip"], clips / best["caption"]
    note = f"{steps} steps; {steps} of {steps * captions}, times {captions}"
    what = f"training epoch of {clips} clips, {captions} captions each: sampler clip / caption"
    return [
        Row(what, *map(duration, epochs), times(epochs[1] / epochs[0]), note=note),
        Row("… clips encoded", *(f"{clips / seconds:.3g} /s" for seconds in best.values())),
        Row("… captions learnt from", *(f"{speed:.3g} /s" for speed in learnt)),
        Row("… peak memory of the process", *(f"{size / 2**20:.0f} MiB" for size in memory.values())),
    ]


def _sampler(place: Path, cache: Path, sampler: str, steps: int) -> Steps:
    from baseline.retriever import Config, Item, make_items

    split = read_dataset(place, "development")["development"]
    items = make_items(split, LogMel(), cache)
    if sampler == "caption":
        items = [Item(item.name, item.mels, (caption,)) for item in items for caption in item.captions]
    return train(items, Config(sampler=sampler), steps)


def train(items: "Sequence[Item]", config: object, steps: int) -> Steps:
    """Take the first steps of an epoch as `Run.fit` does, on the processor; they go through the items at random."""
    from functools import partial

    from gensim.models import KeyedVectors

    from baseline.retriever import Retriever, Training, make_batch
    from systems.parts import words
    from systems.training import Batches

    captions = {caption for item in items for caption in item.captions}
    vocabulary = sorted({word for caption in captions for word in words.words_without_hyphens(caption)})
    vectors = KeyedVectors(words.SIZE)
    vectors.add_vectors(vocabulary, np.random.default_rng(0).normal(size=(len(vocabulary), words.SIZE)))
    truth: dict[str, frozenset[str]] = {caption: frozenset() for caption in captions}
    for item in items:
        for caption in item.captions:
            truth[caption] |= {item.name}

    module = Training(Retriever(config, vectors), Split("validation", ()))
    optimizer = module.configure_optimizers()
    batches = Batches(items, [], partial(make_batch, truth=truth), config.batch, seed=0)
    batches.trainer = SimpleNamespace(world_size=1, global_rank=0)
    loader = iter(batches.train_dataloader())
    waiting, training = [], []
    for _ in range(steps):
        began = time.perf_counter()
        batch = next(loader)
        there = time.perf_counter()
        optimizer.zero_grad()
        module.loss(batch, module.model.encode(batch.mels, batch.lengths)).backward()
        optimizer.step()
        waiting.append(there - began)
        training.append(time.perf_counter() - there)
    unit = 1 if sys.platform == "darwin" else 1024
    return Steps(waiting, training, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


# Features ------------------------------------------------------------------------------------------------------------


def features(alone: Function, folder: Path) -> list[Row]:
    """Log-mel energies from file to cache, against the published loop over librosa."""
    real = sorted((CLOTHO / "evaluation").glob("*.wav"))
    rng = np.random.default_rng(0)
    paths = []
    for number in range(SOUNDS):
        if real:  # each several times, turned round: the cache knows a sound by its content
            sound, rate = soundfile.read(real[number % len(real)], dtype="int16")
            sound = np.roll(sound, number * rate // 10, axis=0)
        else:
            rate = LogMel.sample_rate
            sound = rng.normal(0, 0.1, int(rng.uniform(*SECONDS) * rate))
        paths.append(folder / f"sound {number}.wav")
        soundfile.write(paths[-1], sound, rate)
    source = f"{len(real)} of Clotho's, turned round" if real else "noise"
    ours, theirs, seconds = alone(_features, paths, folder)
    what = f"log-mel energies of {SOUNDS} clips of {seconds:.1f} s, from file to cache / loop over librosa"
    clips = (f"{SOUNDS / took:.3g} clips/s" for took in (ours, theirs))
    return [Row(what, *clips, times(theirs / ours), "≥ 3x", theirs / ours >= 3, source)]


def _features(paths: list[Path], folder: Path) -> tuple[float, float, float]:
    import librosa

    from systems.caching.features import log_mels

    settings = LogMel()
    caches: Iterator[Path] = (folder / f"cache {number}" for number in range(1000))

    def ours() -> list[np.ndarray]:
        return log_mels(paths, settings, next(caches))  # a new one: nothing is there yet

    def theirs() -> list[np.ndarray]:
        found = []
        for path in paths:
            sound, rate = librosa.load(path, sr=None, mono=True)
            mels = librosa.feature.melspectrogram(
                y=sound, sr=rate, n_fft=2048, win_length=1764, hop_length=882, n_mels=64, fmin=12, fmax=8000
            )
            found.append(np.log(mels + np.spacing(1)).T)
        return found

    for one, other in zip(ours(), theirs(), strict=True):
        assert np.allclose(one, other, rtol=1e-3, atol=1e-3)
    seconds = sum(soundfile.info(path).duration for path in paths) / len(paths)
    return *race(ours, theirs, rounds=5), seconds


# The loss ------------------------------------------------------------------------------------------------------------


def loss(alone: Function, folder: Path) -> list[Row]:
    """The triplet loss of all pairs at once, against a loop over pairs."""
    return [
        Row(f"triplet loss and gradient, {pairs} pairs / loop", duration(ours), duration(theirs), times(theirs / ours))
        for pairs, (ours, theirs) in alone(_loss).items()
    ]


def _loss() -> dict[int, list[float]]:
    import torch

    from systems.parts.losses import triplet

    def batch(clips: int, captions: int) -> "tuple[Tensor, Tensor, Tensor]":
        """Embeddings of clips and of their captions, and whose each caption is."""
        owners = torch.arange(clips).repeat_interleave(captions)
        return *(torch.randn(n, 300, requires_grad=True) for n in (clips, len(owners))), owners

    def ours(sounds: "Tensor", texts: "Tensor", owners: "Tensor") -> "Tensor":
        answers = torch.arange(len(sounds))[:, None] == owners
        return triplet(sounds @ texts.T, answers, torch.stack([owners, torch.arange(len(owners))], dim=1))

    def theirs(sounds: "Tensor", texts: "Tensor", owners: "Tensor") -> "Tensor":
        return looped_loss(sounds, texts, owners.tolist())

    # With two clips of a caption each, one impostor is possible: loss and gradients must be the same.
    two = batch(2, 1)
    values = [contender(*two) for contender in (ours, theirs)]
    gradients = [torch.autograd.grad(value, two[:2]) for value in values]
    for one, other in zip((values[0], *gradients[0]), (values[1], *gradients[1]), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)

    found = {}
    for captions in (1, 5):  # 32 pairs, as published; and 32 clips with all their captions
        pairs = batch(32, captions)
        found[32 * captions] = race(
            lambda p=pairs: ours(*p).backward(), lambda p=pairs: theirs(*p).backward(), rounds=50
        )
    return found


def looped_loss(sounds: "Tensor", texts: "Tensor", owners: Sequence[int], margin: float = 1.0) -> "Tensor":
    """The triplet loss as the published code goes about it: pair by pair, impostors drawn until they are some.

    Args:
        sounds: (clips, d) embeddings.
        texts: (captions, d) embeddings.
        owners: Whose each caption is.
        margin: How far an impostor must stay below.
    """
    loss = sounds.new_zeros(())
    for caption, clip in enumerate(owners):
        stranger = other = caption
        while owners[stranger] == clip:
            stranger = random.randrange(len(owners))  # noqa: S311
        while owners[other] == clip:
            other = random.randrange(len(owners))  # noqa: S311
        own = sounds[clip].dot(texts[caption])
        for impostor in (sounds[owners[stranger]].dot(texts[caption]), sounds[clip].dot(texts[other])):
            term = impostor - own + margin
            if term.item() > 0:
                loss = loss + term
    return loss / len(owners)


MEASURES = {"store": store, "features": features, "samplers": samplers, "loss": loss}
