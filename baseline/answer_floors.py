"""Floors of question answering and of moment retrieval: predictions that do not use the audio.

    python -m baseline.answer_floors choice --truth data/questions --out runs/question-floors
    python -m baseline.answer_floors moments --truth data/recordings --out runs/recording-floors

A system should beat these floors:

- choice: a random option, the first option, and the longest option of each question. If the first or the longest option
  is right more often than chance, the questions reveal some answers.
- moments: one window that is the whole recording, and ten random windows of the recording.

The command writes the predictions and score files of the floors to a folder, and prints a table of their scores.
`dcase-evaluation compare` reads the score files.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from evaluation import report
from evaluation.choice_formats import Answers, write_answers
from evaluation.cli import command
from evaluation.data.dataset import EVALUATION
from evaluation.data.questions import Questions
from evaluation.data.recordings import Recordings
from evaluation.findings import BadRequest, say
from evaluation.kinds import KINDS
from evaluation.metrics.moments import MOST_WINDOWS
from evaluation.moment_formats import Moments, write_moments
from evaluation.scores import Score
from evaluation.text import table


def random_options(questions: Questions, seed: int = 0) -> Answers:
    """Return a random option of each question."""
    rng = np.random.default_rng(seed)
    drawn = [question.options[rng.integers(len(question.options))] for question in questions.questions]
    return Answers(tuple(questions.by_id), tuple(drawn))


def first_options(questions: Questions) -> Answers:
    """Return the first option of each question."""
    return Answers(tuple(questions.by_id), tuple(question.options[0] for question in questions.questions))


def longest_options(questions: Questions) -> Answers:
    """Return the longest option of each question; of options with the same length, the first one."""
    return Answers(tuple(questions.by_id), tuple(max(question.options, key=len) for question in questions.questions))


def whole_recordings(recordings: Recordings) -> Moments:
    """Return one window for each query: the whole recording."""
    windows = tuple(np.array([[0.0, query.seconds]]) for query in recordings.queries)
    return Moments(tuple(recordings.by_id), windows)


def random_windows(recordings: Recordings, seed: int = 0) -> Moments:
    """Return ten random windows for each query; the two ends of a window are independent times of the recording."""
    rng = np.random.default_rng(seed)
    windows = []
    for query in recordings.queries:
        times = rng.uniform(0, query.seconds, size=(MOST_WINDOWS, 2))
        windows.append(np.sort(times, axis=1).round(3))
    return Moments(tuple(recordings.by_id), tuple(windows))


CHOICE: Mapping[str, Callable[[Questions], Answers]] = MappingProxyType(
    {"random": random_options, "first": first_options, "longest": longest_options}
)
MOMENTS: Mapping[str, Callable[[Recordings], Moments]] = MappingProxyType(
    {"whole": whole_recordings, "random": random_windows}
)


def main(options: argparse.Namespace) -> None:
    """Write and score predictions that do not use the audio."""
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise BadRequest(f"{options.out}: must not exist or must be an empty folder; give another folder with --out")
    kind = KINDS[options.kind]
    truth, findings = kind.read_truth(options.truth, options.split)
    say(findings)
    scores = {}
    for name, write in _writers(options.kind, truth).items():
        path = options.out / f"{name}.{'csv' if options.kind == 'choice' else 'jsonl'}"
        write(path)
        scores[name] = kind.score_file(path, truth)
        scores[name].save(path.with_suffix(".json"))
    print(_table(scores))


def _writers(kind: str, truth: Questions | Recordings) -> dict[str, Callable[[Path], None]]:
    """Return a dict from the name of each floor to a function that writes its prediction to a file."""
    writers: dict[str, Callable[[Path], None]] = {}
    if isinstance(truth, Questions):
        for name, answer in CHOICE.items():
            writers[name] = partial(write_answers, answers=answer(truth))
        return writers
    texts = {query.id: query.text for query in truth.queries}
    recordings = {query.id: query.recording for query in truth.queries}
    for name, find in MOMENTS.items():
        writers[name] = partial(write_moments, moments=find(truth), queries=texts, recordings=recordings)
    return writers


def _table(scores: Mapping[str, Score]) -> str:
    """Return a table with a row for each floor and a column for each metric, below a row of chance if it is known."""
    first = next(iter(scores.values()))
    rows: list[list[str]] = []
    chances = [measured.chance for measured in first.metrics.values()]
    if any(chance is not None for chance in chances):
        rows.append(["chance", *(report.number(chance) for chance in chances)])
    for name, score in scores.items():
        rows.append([name, *(report.number(measured.estimate.value) for measured in score.metrics.values())])
    heads = ["floor", *first.metrics]
    return table(rows, heads, numbers=range(1, len(heads)))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser("python -m baseline.answer_floors", description=main.__doc__)
    top.add_argument("kind", choices=["choice", "moments"], help="kind of answers")
    text = "questions or queries with the ground truth, as for `dcase-evaluation score choice` and `score moments`"
    top.add_argument("--truth", type=Path, required=True, metavar="PATH", help=text)
    text = f"split, if --truth is a folder from `data make` (default: {EVALUATION})"
    top.add_argument("--split", default=EVALUATION, help=text)
    text = "output folder for predictions and scores; must not exist or must be empty"
    top.add_argument("--out", type=Path, required=True, metavar="DIR", help=text)
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
