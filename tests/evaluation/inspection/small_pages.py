"""Small data folders with synthesised sounds, and predictions for them."""

import csv
import json
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
            _write_tone(folder / "evaluation" / name, number)
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


def write_questions(folder: Path, questions, rows) -> tuple[Path, list[Path]]:
    """Write a data folder of questions with a tone for each clip, and a prediction for each column of answers.

    Args:
        folder: The folder; the data are written into `data/`.
        questions: For each question, its text, options, type and part. The first option is right.
        rows: For each question, the index of the option that each system chooses.

    Returns:
        The data folder, and the predictions `0.csv`, `1.csv` and so on.
    """
    data = folder / "data"
    (data / "evaluation").mkdir(parents=True)
    lines = []
    for number, (text, options, kind, part) in enumerate(questions):
        name = f"evaluation/clip {number}.wav"
        _write_tone(data / name, number)
        line = {"id": f"q{number}", "audio_path": name, "question_text": text, "multi_choice": options}
        lines.append(line | {"answer": options[0], "question_type": kind, "source_dataset": part})
    _write_lines(data / "questions_evaluation.jsonl", lines)
    paths = []
    for system, chosen in enumerate(zip(*rows, strict=True)):
        paths.append(folder / f"{system}.csv")
        with paths[-1].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["question", "answer"])
            writer.writerows((line["id"], line["multi_choice"][each]) for line, each in zip(lines, chosen, strict=True))
    return data, paths


def write_recordings(folder: Path, queries, *predictions) -> tuple[Path, list[Path]]:
    """Write a data folder of queries about recordings of 20 seconds, and a prediction for each system.

    Args:
        folder: The folder; the data are written into `data/`.
        queries: For each query, its text, the name of its recording, and its right windows.
        predictions: For each system, the windows of each query.

    Returns:
        The data folder, and the predictions `0.jsonl`, `1.jsonl` and so on.
    """
    data = folder / "data"
    (data / "evaluation").mkdir(parents=True)
    lines = []
    for number, (text, name, windows) in enumerate(queries):
        _write_tone(data / "evaluation" / f"{name}.wav", number, 20)
        line = {"qid": f"m{number}", "query": text, "vid": name, "duration": 20, "relevant_windows": windows}
        lines.append(line)
    _write_lines(data / "moments_evaluation.jsonl", lines)
    paths = []
    for system, all_windows in enumerate(predictions):
        paths.append(folder / f"{system}.jsonl")
        rows = [
            {"qid": line["qid"], "pred_relevant_windows": each} for line, each in zip(lines, all_windows, strict=True)
        ]
        _write_lines(paths[-1], rows)
    return data, paths


def _write_lines(path: Path, lines) -> None:
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")


def _write_tone(path: Path, number: int, seconds: int = 1) -> None:
    """Write a tone whose frequency depends on a number."""
    tone = 0.5 * np.sin(2 * np.pi * 300 * (number + 1) * np.arange(seconds * RATE) / RATE)
    soundfile.write(path, tone, RATE)
