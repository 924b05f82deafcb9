"""What is measured: each measure gives rows of the table.

A measure is called with `alone`, which calls a function in a new process, and a folder to write to. What torch or
librosa do is imported in those processes only, so that the one that starts them stays small.
"""

import csv
import importlib.util
import os
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile

from evaluation import predictions
from evaluation.data.audio import LogMel
from evaluation.data.dataset import Split, read_dataset
from evaluation.data.soundscapes import generate, grammar
from evaluation.metrics import retrieval
from evaluation.statistics.intervals import jackknife

if TYPE_CHECKING:
    from torch import Tensor

    from baseline.retriever import Item

CLOTHO = Path(__file__).parents[2] / "shared" / "data" / "clotho"
CLIPS = {"development": 3839, "validation": 1045, "evaluation": 1045}  # of Clotho v2.1
SECONDS = (15, 30)  # as long as its clips are, evenly spread
STORE_STEPS = 12  # of the 120 in an epoch
SOUNDS = 96

Function = Callable[..., object]


class Row(NamedTuple):
    """A row of the table."""

    what: str
    ours: str
    theirs: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""


def race(*contenders: Callable[[], object], rounds: int) -> list[float]:
    """Time contenders in turns, A, B, A, B …, after a round that does not count; return the best seconds of each."""
    best = [np.inf] * len(contenders)
    for number in range(rounds + 1):
        for index, contender in enumerate(contenders):
            began = time.perf_counter()
            contender()
            if number:
                best[index] = min(best[index], time.perf_counter() - began)
    return best


def duration(seconds: float) -> str:
    """Say it in three digits.

    >>> duration(0.0123), duration(4.5678), duration(13_700)
    ('12.3 ms', '4.57 s', '3.81 h')
    """
    for unit, size in (("h", 3600.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def times(ratio: float) -> str:
    """Say a ratio: digits that mean something.

    >>> times(4.56), times(123.4)
    ('4.6x', '123x')
    """
    return f"{ratio:.1f}x" if ratio < 10 else f"{ratio:.0f}x"


# Training: how long it waits for data, and what a sampler costs ------------------------------------------------------


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


# Scoring and reading -------------------------------------------------------------------------------------------------


def intervals(alone: Function, folder: Path) -> list[Row]:
    """The jackknife in closed form, against astropy's."""
    n = 5 * CLIPS["evaluation"]
    ours, theirs = alone(_intervals, n)
    return [Row(f"jackknife, n = {n} / astropy", duration(ours), duration(theirs), times(theirs / ours))]


def _intervals(n: int) -> list[float]:
    from astropy.stats import jackknife_stats

    values = np.random.default_rng(0).random(n)
    ours, (value, _, error, ends) = jackknife(values), jackknife_stats(values, np.mean, 0.95)
    assert np.allclose([ours.value, ours.std_error, ours.low, ours.high], [value, error, *ends])
    return race(lambda: jackknife(values), lambda: jackknife_stats(values, np.mean, 0.95), rounds=3)


def scoring(alone: Function, folder: Path) -> list[Row]:
    """Four metrics of a similarity matrix of Clotho's evaluation split, ours with intervals, against what others do.

    All start from the matrix and the truth, so that bringing them into the form a library takes counts.
    """
    place, rows = clotho(folder), []
    for library in ("ranx", "pytrec_eval", "torchmetrics"):
        (queries, clips), ours, theirs, metrics = alone(_scoring, place, library)
        what = f"scoring {queries} queries x {clips} clips, with intervals / {library}"
        note = f"its metrics alone {duration(metrics)}" + (", given the 10 best only" if library == "ranx" else "")
        rows.append(
            Row(what, duration(ours), duration(theirs), times(theirs / ours), "≥ 10x", theirs / ours >= 10, note)
        )
    return rows


def _scoring(place: Path, library: str) -> tuple[tuple[int, int], float, float, float]:
    split = read_dataset(place, "evaluation", sound=False)["evaluation"]
    scores = np.random.default_rng(0).random((len(split.queries), len(split.clips)), np.float32)
    warnings.simplefilter("ignore")  # ranx and numba have much to say
    convert, metrics = {"ranx": _ranx, "pytrec_eval": _pytrec_eval, "torchmetrics": _torchmetrics}[library](
        split, scores
    )

    def ours() -> list[float]:
        score = retrieval.evaluate(split, predictions.Similarity(split.queries, split.file_names, scores))
        return [score.metrics[name].estimate.value for name in ("mAP@10", "R@1", "R@5", "R@10")]

    converted = convert()
    assert np.allclose(ours(), metrics(*converted), rtol=0, atol=1e-6)  # torchmetrics has single precision
    return scores.shape, *race(ours, lambda: metrics(*convert()), lambda: metrics(*converted), rounds=2)


def _ranx(split: Split, scores: np.ndarray) -> tuple[Function, Function]:
    import ranx

    def convert() -> tuple[ranx.Qrels, ranx.Run]:
        best = np.argpartition(-scores, 10, axis=1)[:, :10]  # all of them take it minutes
        rows = zip(split.queries, best.tolist(), np.take_along_axis(scores, best, axis=1).tolist(), strict=True)
        names = split.file_names
        run = {query: dict(zip([names[clip] for clip in best], row, strict=True)) for query, best, row in rows}
        return ranx.Qrels({query: dict.fromkeys(names, 1) for query, names in split.truth.items()}), ranx.Run(run)

    def metrics(qrels: ranx.Qrels, run: ranx.Run) -> list[float]:
        return list(ranx.evaluate(qrels, run, ["map@10", "recall@1", "recall@5", "recall@10"]).values())

    return convert, metrics


def _pytrec_eval(split: Split, scores: np.ndarray) -> tuple[Function, Function]:
    from pytrec_eval import RelevanceEvaluator

    def convert() -> tuple[RelevanceEvaluator, dict[str, dict[str, float]]]:
        truth = {query: dict.fromkeys(names, 1) for query, names in split.truth.items()}
        rows = zip(split.queries, scores.tolist(), strict=True)
        run = {query: dict(zip(split.file_names, row, strict=True)) for query, row in rows}
        return RelevanceEvaluator(truth, {"map_cut.10", "recall.1,5,10"}), run

    def metrics(evaluator: RelevanceEvaluator, run: dict[str, dict[str, float]]) -> list[float]:
        found = evaluator.evaluate(run).values()
        return [fmean(query[name] for query in found) for name in ("map_cut_10", "recall_1", "recall_5", "recall_10")]

    return convert, metrics


def _torchmetrics(split: Split, scores: np.ndarray) -> tuple[Function, Function]:
    import torch
    from torchmetrics.retrieval import RetrievalMAP, RetrievalRecall

    def convert() -> "tuple[Tensor, Tensor, Tensor]":
        columns = {name: column for column, name in enumerate(split.file_names)}
        target = np.zeros(scores.shape, dtype=bool)
        for row, query in enumerate(split.queries):
            target[row, [columns[name] for name in split.truth[query]]] = True
        indexes = torch.arange(len(scores)).repeat_interleave(scores.shape[1])
        return torch.from_numpy(scores).flatten(), torch.from_numpy(target).flatten(), indexes

    def metrics(scores: "Tensor", target: "Tensor", indexes: "Tensor") -> list[float]:
        asked = [RetrievalMAP(top_k=10), *(RetrievalRecall(top_k=k) for k in (1, 5, 10))]
        return [float(metric(scores, target, indexes=indexes)) for metric in asked]

    return convert, metrics


def search(alone: Function, folder: Path) -> list[Row]:
    """The best of more clips than a matrix has room for, against faiss."""
    queries, clips, size, k = 1000, 100_000, 512, 16
    ours, theirs, asking = alone(_search, queries, clips, size, k)
    what = f"the {k} best of {clips} clips for {queries} queries, {size} floats each / faiss, IndexFlatIP"
    return [
        Row(what, duration(ours), duration(theirs), times(theirs / ours), note=f"its search alone {duration(asking)}")
    ]


def _search(queries: int, clips: int, size: int, k: int) -> list[float]:
    import faiss

    rng = np.random.default_rng(0)
    asked, known = (rng.standard_normal((number, size), np.float32) for number in (queries, clips))

    def indexed() -> faiss.IndexFlatIP:
        index = faiss.IndexFlatIP(size)
        index.add(known)
        return index

    index = indexed()
    assert np.allclose(retrieval.top_k(asked, known, k)[1], index.search(asked, k)[0], rtol=0, atol=1e-3)
    return race(
        lambda: retrieval.top_k(asked, known, k),
        lambda: indexed().search(asked, k),
        lambda: index.search(asked, k),
        rounds=3,
    )


def reading(alone: Function, folder: Path) -> list[Row]:
    """Clotho's caption files, checked, against pandas where it is installed."""
    place = clotho(folder)
    ours, *theirs = alone(_reading, place)
    against = [duration(theirs[0]), times(theirs[0] / ours)] if theirs else ["", ""]
    what = "reading and checking Clotho's three caption files" + (" / pandas.read_csv" if theirs else "")
    return [Row(what, duration(ours), *against, "< 1 s", ours < 1, "" if place == CLOTHO else "made up")]


def _reading(place: Path) -> list[float]:
    contenders = [lambda: read_dataset(place, *CLIPS, sound=False)]
    if importlib.util.find_spec("pandas"):
        import pandas

        contenders.append(lambda: [pandas.read_csv(path) for path in place.glob("clotho_captions_*.csv")])
    return race(*contenders, rounds=5)


def clotho(folder: Path) -> Path:
    """Where Clotho's caption files lie; without them, made-up ones of the same size are written to the folder."""
    if all((CLOTHO / f"clotho_captions_{split}.csv").is_file() for split in CLIPS):
        return CLOTHO
    place = folder / "clotho"
    place.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for split, clips in CLIPS.items():
        with (place / f"clotho_captions_{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", *(f"caption_{number}" for number in range(1, 6))])
            for clip in range(clips):
                said = [" ".join(f"word{word}" for word in rng.zipf(1.3, 11).clip(max=5000)) for _ in range(5)]
                writer.writerow([f"{split} {clip}.wav", *said])
    return place


MEASURES: dict[str, Callable[[Function, Path], list[Row]]] = {
    "store": store,
    "features": features,
    "samplers": samplers,
    "loss": loss,
    "intervals": intervals,
    "reading": reading,
    "scoring": scoring,
    "search": search,
}
