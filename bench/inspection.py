"""Measuring time and size of a page that `dcase-evaluation inspect` writes for Clotho's evaluation split."""

import os
import time
from pathlib import Path

import numpy as np
import soundfile

from bench.measuring import CLIPS, Function, Measure, Row, clotho, duration
from evaluation.data.dataset import EVALUATION, Clip, Split, read_dataset
from evaluation.inspection import retrieval, writing
from evaluation.predictions import Similarity

SOUNDS = 20  # number of different audio files; several clips share each of them
RATE = 44100  # Hz
SECONDS = 22
LARGEST = 25  # target for the size of the page in MB


def inspect(alone: Function, folder: Path) -> list[Row]:
    """Measure the page of a retriever with random scores, first with new spectrograms, and then with cached ones."""
    first, second, size, queries = alone(_pages, clotho(folder), folder)
    megabytes = size / 1e6
    what = f"inspect, {queries} queries x {CLIPS[EVALUATION]} clips"
    note = "measured once; includes reading and scoring the prediction"
    return [
        Row(f"{what}, with new spectrograms of {SECONDS} s", duration(first), note=note),
        Row(f"{what}, with cached spectrograms", duration(second), target="< 60 s", met=second < 60, note=note),
        Row("size of this page", f"{megabytes:.1f} MB", target=f"< {LARGEST} MB", met=megabytes < LARGEST),
    ]


def _pages(data: Path, folder: Path) -> tuple[float, float, int, int]:
    """Write a page twice. Return both durations in seconds, the page's size in bytes, and the number of queries."""
    os.environ["DCASE_KIT_CACHE"] = str(folder / "cache")  # the user's cache must not change
    split = _with_sounds(read_dataset(data, EVALUATION, sound=False)[EVALUATION], folder / "sounds")
    queries = tuple(split.truth)
    scores = np.random.default_rng(0).normal(size=(len(queries), len(split.clips))).astype(np.float32)
    path = folder / "similarity.npz"
    Similarity(queries, split.file_names, scores).save(path)
    durations = []
    for out in (folder / "first", folder / "second"):
        began = time.perf_counter()
        content, findings = retrieval.read_queries([path], split, split.truth, None)
        written, _ = writing.write_page(content, [path], findings, out)
        durations.append(time.perf_counter() - began)
    return durations[0], durations[1], written.size, len(queries)


def _with_sounds(split: Split, folder: Path) -> Split:
    """Write a few audio files of noise, and return the split with a link to one of them for each clip."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    sources = []
    for number in range(SOUNDS):
        sources.append(folder / f"noise {number}.wav")
        soundfile.write(sources[-1], rng.uniform(-0.5, 0.5, SECONDS * RATE), RATE)
    clips = []
    for number, clip in enumerate(split.clips):
        path = folder / f"clip {number}.wav"
        path.hardlink_to(sources[number % SOUNDS])
        clips.append(Clip(clip.file_name, clip.captions, path))
    return Split(split.name, tuple(clips), split.relevance, source=split.source)


MEASURES: dict[str, Measure] = {"inspect": inspect}
