"""Small data folders with synthesised sounds, and predictions for them."""

import csv
from pathlib import Path

import numpy as np
import soundfile

from evaluation.data.dataset import read_dataset
from evaluation.predictions import Similarity, write_captions

RATE = 8000
CAPTIONS = (
    ("A dog barks.", "A small dog barks twice."),
    ("Rain falls on a roof.", "Heavy rain falls."),
    ("A bell rings.", "A church bell rings slowly."),
    ("A dog barks loudly twice.", "An animal is heard."),
)
NAMES = ("dog.wav", "rain & wind #1.wav", "bell.wav", "other dog.wav")


def write_data(folder: Path, names=NAMES, captions=CAPTIONS, sound=True) -> Path:
    """Write a data folder whose evaluation split has a tone for each clip."""
    (folder / "evaluation").mkdir(parents=True)
    with (folder / "captions_evaluation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", *(f"caption_{number + 1}" for number in range(len(captions[0])))])
        for name, texts in zip(names, captions, strict=True):
            writer.writerow([name, *texts])
    for number, name in enumerate(names):
        if sound:
            tone = 0.5 * np.sin(2 * np.pi * 300 * (number + 1) * np.arange(RATE) / RATE)
            soundfile.write(folder / "evaluation" / name, tone, RATE)
    return folder


def split_of(data: Path):
    """Return the evaluation split of a data folder."""
    return read_dataset(data, "evaluation", sound=False)["evaluation"]


def write_similarity(path: Path, data: Path, own: float = 1.0, seed: int = 0) -> Path:
    """Write random similarities, in which the right clip of each query gets a higher score.

    Args:
        path: The file.
        data: The data folder.
        own: The number that is added to the score of the right clip.
        seed: Seed of the scores.
    """
    split = split_of(data)
    scores = np.random.default_rng(seed).uniform(size=(len(split.queries), len(split.clips)))
    for row, query in enumerate(split.queries):
        for name in split.truth[query]:
            scores[row, split.file_names.index(name)] += own
    path.parent.mkdir(parents=True, exist_ok=True)
    Similarity(split.queries, split.file_names, scores).save(path)
    return path


def write_predictions(path: Path, data: Path, first: str) -> Path:
    """Write captions with log-probabilities: a text for the first clip, and the first reference of the others."""
    split = split_of(data)
    captions = [first, *(f"{clip.captions[0]} Again." for clip in split.clips[1:])]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_captions(path, split.file_names, captions, [-1.5 - number for number in range(len(captions))])
    return path
