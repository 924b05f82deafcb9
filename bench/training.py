"""Measures of training the baseline: waiting for batches, samplers, features and the loss."""

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

from bench.measuring import CLIPS, CLOTHO, Function, Measure, Row, clotho, duration, race, times
from evaluation.data.audio import LogMel
from evaluation.data.dataset import Split, read_dataset
from evaluation.data.soundscapes import generate, grammar

if TYPE_CHECKING:
    from gensim.models import KeyedVectors
    from torch import Tensor

    from baseline.retriever import Config, Item

SECONDS = (15, 30)  # the shortest and the longest clip, as in Clotho; lengths are drawn uniformly
STORE_STEPS = 12  # number of training steps that are measured; an epoch has 120
SOUNDS = 96  # number of clips for which features are computed


class Steps(NamedTuple):
    """Measurements of some training steps.

    Attributes:
        waiting: The time in seconds that each step waits for its batch.
        training: The time in seconds that each step trains on its batch.
        memory: The peak memory of the process in bytes.
    """

    waiting: list[float]
    training: list[float]
    memory: int


def store(alone: Function, folder: Path) -> list[Row]:
    """Measure the share of training time spent waiting for batches from a feature store of Clotho's size."""
    steps, size = alone(_store, folder)
    waiting, training = fmean(steps.waiting), fmean(steps.training)
    share = waiting / (waiting + training)
    what = f"waiting for 32 clips from a store of {size / 1e9:.1f} GB on disk / training on them"
    steps_in_epoch = -(-CLIPS["development"] // 32)
    note = f"mean of the first {STORE_STEPS} of {steps_in_epoch} steps"
    return [Row(what, duration(waiting), duration(training), f"{share:.1%} of both", "< 5 %", share < 0.05, note)]


def _store(folder: Path) -> tuple[Steps, int]:
    from baseline.retriever import Config, Item
    from systems.caching.features import log_mels

    class Noise(LogMel):
        """Noise instead of features, with one frame for each sample."""

        def __call__(self, sound: np.ndarray) -> np.ndarray:
            return noise[: len(sound)] + sound[0]

    frames = [seconds * LogMel.sample_rate // LogMel.hop for seconds in SECONDS]
    rng = np.random.default_rng(0)
    noise = rng.normal(-8, 4, (frames[1] + 1, LogMel.mels)).astype(np.float32)
    paths = []
    for number in range(sum(CLIPS.values())):  # all clips differ, because the store keeps equal clips only once
        paths.append(folder / f"{number}.wav")
        length = rng.integers(frames[0], frames[1], endpoint=True)
        soundfile.write(paths[-1], np.full(length, number, np.int16), LogMel.sample_rate)
    features = log_mels(paths, Noise(), folder / "store")
    clips = read_dataset(clotho(folder), "development", sound=False)["development"].clips
    items = [Item(clip.file_name, mels, clip.captions) for clip, mels in zip(clips, features, strict=False)]
    size = forget(next((folder / "store").glob("*/features.f32")))
    return train(items, Config(), STORE_STEPS), size


def forget(path: Path) -> int:
    """Drop a file from the system's page cache, if the system allows this, and return its size in bytes."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path.stat().st_size


def samplers(alone: Function, folder: Path) -> list[Row]:
    """Measure a training epoch on the default data with `sampler: clip` and with `sampler: caption`.

    With `clip`, each clip is encoded once. With `caption`, it is encoded once for each of its captions.
    """
    data = folder / "soundscapes"
    clips = generate.CLIPS["development"]
    generate.make_soundscapes(data, clips={"development": clips}, progress=False)
    steps = clips // 32
    best = {"clip": np.inf, "caption": np.inf}  # seconds
    memory = {"clip": 0, "caption": 0}
    for sampler in ("clip", "caption") * 2:
        run = alone(_sampler, data, folder, sampler, steps)
        best[sampler] = min(best[sampler], sum(run.waiting) + sum(run.training))
        memory[sampler] = max(memory[sampler], run.memory)
    captions = grammar.CAPTIONS
    clip_epoch, caption_epoch = best["clip"], best["caption"] * captions
    encoded = {sampler: f"{clips / seconds:.3g} /s" for sampler, seconds in best.items()}
    trained = {"clip": clips * captions / best["clip"], "caption": clips / best["caption"]}
    peak = {sampler: f"{size / 2**20:.0f} MiB" for sampler, size in memory.items()}
    note = f"clip: measured over all {steps} steps; caption: over {steps} of {steps * captions} steps, times {captions}"
    what = f"training epoch of {clips} clips, {captions} captions each: sampler clip / caption"
    return [
        Row(what, duration(clip_epoch), duration(caption_epoch), times(caption_epoch / clip_epoch), note=note),
        Row("… clips encoded", encoded["clip"], encoded["caption"]),
        Row("… captions trained on", f"{trained['clip']:.3g} /s", f"{trained['caption']:.3g} /s"),
        Row("… peak memory of the process", peak["clip"], peak["caption"]),
    ]


def _sampler(data: Path, cache: Path, sampler: str, steps: int) -> Steps:
    from baseline.retriever import Config, Item, make_items

    split = read_dataset(data, "development")["development"]
    items = make_items(split, LogMel(), cache)
    if sampler == "caption":
        items = [Item(item.name, item.mels, (caption,)) for item in items for caption in item.captions]
    return train(items, Config(sampler=sampler), steps)


def train(items: "Sequence[Item]", config: "Config", steps: int) -> Steps:
    """Make the first training steps of an epoch as `Run.fit` does, on the CPU, with the items in random order."""
    from functools import partial

    from baseline.retriever import Retriever, Training, make_batch
    from systems.parts import words
    from systems.training import Batches

    captions = {caption for item in items for caption in item.captions}
    vocabulary = sorted({word for caption in captions for word in words.words_without_hyphens(caption)})
    vectors = _random_vectors(vocabulary)
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
        ready = time.perf_counter()
        optimizer.zero_grad()
        module.loss(batch, module.model.encode(batch.mels, batch.lengths)).backward()
        optimizer.step()
        waiting.append(ready - began)
        training.append(time.perf_counter() - ready)
    unit = 1 if sys.platform == "darwin" else 1024
    return Steps(waiting, training, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _random_vectors(vocabulary: Sequence[str]) -> "KeyedVectors":
    """Return random word vectors."""
    from gensim.models import KeyedVectors

    from systems.parts import words

    vectors = KeyedVectors(words.SIZE)
    vectors.add_vectors(vocabulary, np.random.default_rng(0).normal(size=(len(vocabulary), words.SIZE)))
    return vectors


# An epoch ------------------------------------------------------------------------------------------------------------


def fit(alone: Function, folder: Path) -> list[Row]:
    """Measure a training epoch of the baseline retriever, compared with the passes of its encoder alone."""
    data = folder / "data of an epoch"
    clips = {split: generate.CLIPS[split] for split in ("development", "validation")}
    generate.make_soundscapes(data, clips=clips, progress=False)
    bare = alone(_bare_passes, data, folder)
    ours = alone(_epochs, data, folder)
    what = f"training epoch of {clips['development']} clips with validation on {clips['validation']}"
    note = "other: forward and backward passes and optimiser steps on the same batches; best of 3 epochs"
    row = f"{what} / bare passes of the encoder"
    return [Row(row, duration(ours), duration(bare), f"{ours / bare:.2f}x", "≤ 1.15x", ours / bare <= 1.15, note)]


def _epochs(data: Path, folder: Path) -> float:
    """Train for four epochs, and return the duration of the fastest one but the first."""
    from baseline import retriever
    from systems import contract
    from systems.training import Run

    ends: list[float] = []

    class TimedRun(Run):
        """A run that notes when each epoch ends."""

        def continues(self, values: Sequence[float]) -> bool:
            ends.append(time.perf_counter())
            return True

    dataset = read_dataset(data)
    config = retriever.Config(epochs=4, words_epochs=1)
    digests = {name: split.digest for name, split in dataset.splits.items()}
    contract.train(retriever, config, dataset, TimedRun(folder / "run", "baseline.retriever", config, digests))
    return min(np.diff(ends).tolist())


def _bare_passes(data: Path, folder: Path) -> float:
    """Return the time of the encoder's passes over the batches of the fastest of three epochs."""
    import torch

    from baseline.retriever import Config, Retriever, make_batch, make_items

    split = read_dataset(data, "development")["development"]
    items = make_items(split, LogMel(), folder / "cache of an epoch")
    batches = []
    for start in range(0, len(items), Config().batch):
        batches.append(make_batch(items[start : start + Config().batch], truth=dict(split.captions)))
    model = Retriever(Config(), _random_vectors(["word"]))
    optimizer = torch.optim.Adam(model.parameters())

    def epoch() -> None:
        for batch in batches:
            optimizer.zero_grad()
            model.encode(batch.mels, batch.lengths).sum().backward()
            optimizer.step()

    return race(epoch, rounds=3)[0]


# Features ------------------------------------------------------------------------------------------------------------


def features(alone: Function, folder: Path) -> list[Row]:
    """Measure log-mel energies from file to cache, compared with the published loop over librosa."""
    real = sorted((CLOTHO / "evaluation").glob("*.wav"))
    rng = np.random.default_rng(0)
    paths = []
    for number in range(SOUNDS):
        if real:  # a clip is used several times, rotated differently: the cache identifies audio by its content
            sound, rate = soundfile.read(real[number % len(real)], dtype="int16")
            sound = np.roll(sound, number * rate // 10, axis=0)
        else:
            rate = LogMel.sample_rate
            sound = rng.normal(0, 0.1, int(rng.uniform(*SECONDS) * rate))
        paths.append(folder / f"sound {number}.wav")
        soundfile.write(paths[-1], sound, rate)
    source = f"{len(real)} clips of Clotho, rotated" if real else "noise"
    ours, theirs, seconds = alone(_features, paths, folder)
    what = f"log-mel energies of {SOUNDS} clips of {seconds:.1f} s, from file to cache / loop over librosa"
    our_speed, their_speed = (f"{SOUNDS / elapsed:.3g} clips/s" for elapsed in (ours, theirs))
    return [Row(what, our_speed, their_speed, times(theirs / ours), "≥ 3x", theirs / ours >= 3, source)]


def _features(paths: list[Path], folder: Path) -> tuple[float, float, float]:
    import librosa

    from systems.caching.features import log_mels

    settings = LogMel()
    caches: Iterator[Path] = (folder / f"cache {number}" for number in range(1000))

    def ours() -> list[np.ndarray]:
        return log_mels(paths, settings, next(caches))  # an empty cache each time

    def theirs() -> list[np.ndarray]:
        features = []
        for path in paths:
            sound, rate = librosa.load(path, sr=None, mono=True)
            mels = librosa.feature.melspectrogram(
                y=sound, sr=rate, n_fft=2048, win_length=1764, hop_length=882, n_mels=64, fmin=12, fmax=8000
            )
            features.append(np.log(mels + np.spacing(1)).T)
        return features

    for first, second in zip(ours(), theirs(), strict=True):
        assert np.allclose(first, second, rtol=1e-3, atol=1e-3)
    seconds = sum(soundfile.info(path).duration for path in paths) / len(paths)
    return *race(ours, theirs, rounds=5), seconds


# The loss ------------------------------------------------------------------------------------------------------------


def loss(alone: Function, folder: Path) -> Iterator[Row]:
    """Measure the triplet loss of all pairs at once, compared with a loop over pairs, and with the least work.

    The least work is the matrix product of the embeddings, and one gather for pairs and one for impostors, forward and
    backward. It does not draw impostors.
    """
    for pairs, (ours, looped, least) in alone(_loss).items():
        what = f"triplet loss and gradient, {pairs} pairs"
        yield Row(f"{what} / loop", duration(ours), duration(looped), times(looped / ours))
        yield Row(
            f"{what} / matrix product and two gathers",
            duration(ours),
            duration(least),
            times(ours / least),
            note="the other value is a lower limit",
        )


class Pairs(NamedTuple):
    """What the loss of a batch needs, from the parts of a training step before it.

    Attributes:
        sounds: (clips, 300) embeddings.
        texts: (captions, 300) embeddings.
        owners: The clip of each caption.
        answers: (clips, captions) bool, as in `baseline.retriever.Batch`.
        pairs: (pairs, 2) indices, as in `baseline.retriever.Batch`.
    """

    sounds: "Tensor"
    texts: "Tensor"
    owners: list[int]
    answers: "Tensor"
    pairs: "Tensor"


def _loss() -> dict[int, list[float]]:
    import torch

    from systems.parts.losses import triplet

    def batch(clips: int, captions: int) -> Pairs:
        sounds = torch.randn(clips, 300, requires_grad=True)
        texts = torch.randn(clips * captions, 300, requires_grad=True)
        owners = torch.arange(clips).repeat_interleave(captions)
        answers = torch.arange(clips)[:, None] == owners
        pairs = torch.stack([owners, torch.arange(len(owners))], dim=1)
        return Pairs(sounds, texts, owners.tolist(), answers, pairs)

    def ours(batch: Pairs) -> "Tensor":
        return triplet(batch.sounds @ batch.texts.T, batch.answers, batch.pairs)

    def looped(batch: Pairs) -> "Tensor":
        return looped_loss(batch.sounds, batch.texts, batch.owners)

    def least(batch: Pairs) -> None:
        scores = batch.sounds @ batch.texts.T
        clips, captions = batch.pairs.unbind(1)
        of_pairs = scores[clips, captions]
        of_impostors = scores[clips.flip(0), captions]
        torch.autograd.backward([of_pairs, of_impostors], [gradients[: len(clips)], gradients[: len(clips)]])

    gradients = torch.ones(32 * 5)

    # With two clips and one caption each, only one impostor is possible, so losses and gradients must be equal.
    two = batch(2, 1)
    values = [ours(two), looped(two)]
    gradients_of_two = [torch.autograd.grad(value, two[:2]) for value in values]
    for first, second in zip((values[0], *gradients_of_two[0]), (values[1], *gradients_of_two[1]), strict=True):
        assert torch.allclose(first, second, rtol=1e-5, atol=1e-5)

    def seconds(captions: int) -> list[float]:
        pairs = batch(32, captions)
        return race(lambda: ours(pairs).backward(), lambda: looped(pairs).backward(), lambda: least(pairs), rounds=200)

    # 32 pairs, as published, and 32 clips with all their captions.
    return {32 * captions: seconds(captions) for captions in (1, 5)}


def looped_loss(sounds: "Tensor", texts: "Tensor", owners: Sequence[int], margin: float = 1.0) -> "Tensor":
    """Compute the triplet loss pair by pair, as the published code does.

    For each pair, an item is drawn again and again until it is an impostor.

    Args:
        sounds: (clips, d) embeddings.
        texts: (captions, d) embeddings.
        owners: The clip of each caption.
        margin: The margin by which the score of a pair must exceed those of its impostors.
    """
    loss = sounds.new_zeros(())
    for caption, clip in enumerate(owners):
        clip_impostor = caption_impostor = caption
        while owners[clip_impostor] == clip:
            clip_impostor = random.randrange(len(owners))  # noqa: S311
        while owners[caption_impostor] == clip:
            caption_impostor = random.randrange(len(owners))  # noqa: S311
        own = sounds[clip].dot(texts[caption])
        with_other_clip = sounds[owners[clip_impostor]].dot(texts[caption])
        with_other_caption = sounds[clip].dot(texts[caption_impostor])
        for impostor in (with_other_clip, with_other_caption):
            term = impostor - own + margin
            if term.item() > 0:
                loss = loss + term
    return loss / len(owners)


MEASURES: dict[str, Measure] = {
    "store": store,
    "features": features,
    "samplers": samplers,
    "fit": fit,
    "loss": loss,
}
