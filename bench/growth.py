"""Measure how the duration of the main jobs grows with their size.

Each job runs at five sizes, each of which is twice the one before. The exponent p of a job is the slope of the line
that is fitted to the logarithms of the durations over the logarithms of the sizes: the duration grows like size ** p.
A job that grows linearly has p = 1. Fixed costs, such as imports, lower p at small sizes, so p is fitted to the three
largest sizes.
"""

import contextlib
import gc
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import yaml

from bench import submissions
from bench.encoders import load_encoder, write_noise
from bench.measuring import Function, Measure, Row, duration
from evaluation.data.dataset import Clip, Split
from evaluation.data.soundscapes import generate
from evaluation.predictions import Captions, Similarity

DOUBLINGS = 4
FITTED = 3  # number of the largest sizes that the exponent is fitted to
LIMIT = 1.1  # target of the exponent
WIDTH = 512  # number of values of an embedding in `search`
SIDE = 200  # number of queries and of clips of a system in `leaderboard`
CLIPS = 1000  # number of clips of a similarity matrix
WORDS = 500  # number of different words in random captions

Job = Callable[[], object]


def growth(alone: Function, folder: Path) -> Iterator[Row]:
    """Measure each job at five sizes."""
    for name, (prepare, smallest, unit) in JOBS.items():
        work = folder / f"growth of {name}"
        work.mkdir()
        sizes = [smallest * 2**power for power in range(DOUBLINGS + 1)]
        seconds = alone(_durations, prepare, sizes, work)
        power = exponent(sizes[-FITTED:], seconds[-FITTED:])
        measured = ", ".join(duration(value) for value in seconds)
        what = f"growth of {name}: {sizes[0]} to {sizes[-1]} {unit}"
        target = f"size^p, p ≤ {LIMIT}"
        yield Row(what, f"size^{power:.2f}", target=target, met=power <= LIMIT, note=measured)


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Fit p of duration = c * size ** p by least squares of the logarithms.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 12)
    2.0
    """
    slope, _ = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(slope)


def _durations(prepare: Callable[[int, Path], Job], sizes: list[int], work: Path) -> list[float]:
    """Measure a job at each size, after a run at the smallest size that does not count.

    Returns:
        The duration of the job at each size in seconds: the shortest of two runs, each on new input.
    """
    prepare(sizes[0], work / "first")()
    seconds = []
    for size in sizes:
        rounds = []
        for number in range(2):
            job = prepare(size, work / f"{size}.{number}")
            gc.collect()  # otherwise the job could include the collection of the objects that `prepare` created
            began = time.perf_counter()
            job()
            rounds.append(time.perf_counter() - began)
        seconds.append(min(rounds))
    return seconds


# Each of the next functions prepares the input of a job of a given size, and returns the job. -------------------------


def _score_retrieval(queries: int, work: Path) -> Job:
    from evaluation.metrics import retrieval

    split, prediction = _retrieval(queries)
    return lambda: retrieval.evaluate(split, prediction)


def _score_captions(clips: int, work: Path) -> Job:
    from evaluation.metrics import captioning

    rng = np.random.default_rng(clips)
    captions = [tuple(_sentences(rng, 5)) for _ in range(clips)]
    split = Split("evaluation", tuple(Clip(f"{n}.wav", texts, Path(f"{n}.wav")) for n, texts in enumerate(captions)))
    prediction = Captions(split.file_names, tuple(_sentences(rng, clips)))
    metrics = (*captioning.BLEU, "rouge_l", "cider_d")
    return lambda: captioning.evaluate(prediction, split, metrics=metrics, cache=work)


def _page(queries: int, work: Path) -> Job:
    from evaluation.inspection import retrieval, writing

    split, prediction = _retrieval(queries)
    work.mkdir()
    sounds = write_noise(work, 1)
    clips = tuple(Clip(clip.file_name, clip.captions, sounds[0]) for clip in split.clips)
    split = Split(split.name, clips, split.relevance)
    prediction.save(work / "similarity.npz")

    def write() -> None:
        content, findings = retrieval.read_queries([work / "similarity.npz"], split, split.truth, None)
        writing.write_page(content, [work / "similarity.npz"], findings, work / "page")

    return write


def _leaderboard(packages: int, work: Path) -> Job:
    from submission import leaderboard, tasks

    task = tasks.read("dcase2025-6")
    split = submissions.split_of_sentences(SIDE)
    rng = np.random.default_rng(0)
    for number in range(packages):
        submissions.package(task, split, work / "packages", f"Team{number}", rng)
    return lambda: leaderboard.run(task, work / "packages", dict.fromkeys(task.sets, split), work / "board")


def _embeddings(clips: int, work: Path) -> Job:
    from systems.caching.embeddings import embed

    work.mkdir()
    sounds, encoder = write_noise(work, clips), load_encoder("coala")
    return lambda: embed(sounds, encoder, work / "cache")


def _search(clips: int, work: Path) -> Job:
    from evaluation.metrics import retrieval

    rng = np.random.default_rng(0)
    query_vectors = rng.standard_normal((100, WIDTH), np.float32)
    clip_vectors = rng.standard_normal((clips, WIDTH), np.float32)
    return lambda: retrieval.top_k(query_vectors, clip_vectors, 16)


def _sweep(runs: int, work: Path) -> Job:
    from systems.sweeps import sweep

    work.mkdir()
    clips = {"development": 20, "validation": 10, "evaluation": 10}
    generate.make_soundscapes(work / "data", clips=clips, progress=False)
    plan = {
        "system": "systems.examples.spectra",
        "set": {"steps": 50},
        "grid": {"learning_rate": [0.01]},
        "seeds": runs,
    }
    file = work / "sweep.yaml"
    file.write_text(yaml.safe_dump(plan | {"metric": "mAP@10"}), encoding="utf-8")

    def make_runs() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            sweep.sweep(file, work / "data", work / "out", cache=work / "cache")

    return make_runs


# Inputs ---------------------------------------------------------------------------------------------------------------


def _retrieval(queries: int) -> tuple[Split, Similarity]:
    """Return a split with `CLIPS` clips and this number of queries, and random similarities."""
    captions_of_clip = np.array_split(np.arange(queries), CLIPS)
    clips = []
    for number, captions in enumerate(captions_of_clip):
        texts = tuple(f"Sound {caption} is heard." for caption in captions)
        clips.append(Clip(f"clip {number}.wav", texts, Path(f"clip {number}.wav")))
    split = Split("evaluation", tuple(clips))
    scores = np.random.default_rng(0).random((queries, CLIPS), np.float32)
    return split, Similarity(split.queries, split.file_names, scores)


def _sentences(rng: np.random.Generator, number: int) -> Iterator[str]:
    """Yield random sentences of ten words."""
    for words in rng.zipf(1.3, (number, 10)).clip(max=WORDS):
        yield " ".join(f"word{word}" for word in words)


# The function that prepares each job, its smallest size, and the unit of its size.
JOBS: dict[str, tuple[Callable[[int, Path], Job], int, str]] = {
    "score retrieval": (_score_retrieval, 1000, f"queries x {CLIPS} clips"),
    "score captions": (_score_captions, 500, "clips"),
    "inspect": (_page, 1000, f"queries x {CLIPS} clips"),
    "leaderboard": (_leaderboard, 1, f"packages of 4 systems of {SIDE} x {SIDE}"),
    "embeddings": (_embeddings, 5, "clips of 5 s"),
    "search": (_search, 25_000, f"clips of {WIDTH} values, 100 queries"),
    "sweep": (_sweep, 1, "runs"),
}

MEASURES: dict[str, Measure] = {"growth": growth}
