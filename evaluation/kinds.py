"""The table of the kinds of answers that systems give, with the functions that read and score each kind.

    kind = KINDS["moments"]
    truth, notes = kind.read_truth(Path("castella_val_release.jsonl"), "evaluation")
    score = kind.score_file(Path("submission.jsonl"), truth, metrics=["R1@0.7"])

Code that handles several kinds reads this table and does not compare names. To add a kind, add its metrics to
`metrics.catalogue`, its functions as below, and an entry to `KINDS`.

The functions import the modules that they need when they are called, because commands must start quickly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from evaluation.findings import Finding
from evaluation.metrics import catalogue
from evaluation.scores import Score


class ScoreFile(Protocol):
    """A function that reads a prediction and scores it.

    Args:
        path: The file of the prediction.
        truth: The ground truth, as the kind's `read_truth` returns it.
        metrics: Names of metrics or of sets (default: the kind's own).
        interval: One of `intervals.METHODS` (default: the kind's own).
        cache: The cache folder; only captioning uses it (default: `files.cache_folder`).
        file: The name of the prediction in findings about what it contains (default: its path).

    Returns:
        The score, with warnings and notes.

    Raises:
        BadRequest: There is no such file, metric or interval method, or the truth is not known.
        Faulty: The prediction is not valid. The exception lists all findings.
    """

    def __call__(
        self,
        path: Path,
        truth: Any,
        *,
        metrics: Sequence[str] | None = None,
        interval: str | None = None,
        cache: Path | None = None,
        file: str = "",
    ) -> Score: ...


@dataclass(frozen=True)
class Kind:
    """A kind of answer.

    Attributes:
        system: The noun for a system that gives such answers, with its article.
        metrics: The facts about its metrics (`metrics.catalogue`).
        read_truth: Function that reads the ground truth. Its arguments are a path and a split; the split is used if the
            path is a data folder. It returns the ground truth, and warnings and notes.
        score_file: Function that reads and scores a prediction.
        truth: The noun for what the ground truth must have, for messages.
        has_truth: Function that returns True if a ground truth has this. A blind set does not have it.
    """

    system: str
    metrics: Mapping[str, catalogue.Metric]
    read_truth: Callable[[Path, str], tuple[Any, list[Finding]]]
    score_file: ScoreFile
    truth: str
    has_truth: Callable[[Any], bool]


def _read_split(path: Path, split: str) -> tuple[Any, list[Finding]]:
    from evaluation.data.dataset import read_dataset

    return read_dataset(path, split, sound=False)[split], []


def _score_retrieval(
    path: Path,
    truth: Any,
    *,
    metrics: Sequence[str] | None = None,
    interval: str | None = None,
    cache: Path | None = None,
    file: str = "",
) -> Score:
    from evaluation import predictions
    from evaluation.metrics import retrieval

    name = file or str(path)
    prediction = predictions.read_retrieval_csv(path, name)
    return retrieval.evaluate(truth, prediction, metrics=metrics, interval=interval or "jackknife", file=name)


def _score_captions(
    path: Path,
    truth: Any,
    *,
    metrics: Sequence[str] | None = None,
    interval: str | None = None,
    cache: Path | None = None,
    file: str = "",
) -> Score:
    from evaluation import predictions
    from evaluation.metrics import captioning  # imports scipy

    captions = predictions.read_captions(path)
    chosen = captioning.BASIC if metrics is None else metrics
    return captioning.evaluate(captions, truth, metrics=chosen, interval=interval, cache=cache, file=file or str(path))


def _read_questions(path: Path, split: str) -> tuple[Any, list[Finding]]:
    from evaluation.data.questions import read_questions

    return read_questions(_file_of_split(path, "choice", split))


def _score_choice(
    path: Path,
    truth: Any,
    *,
    metrics: Sequence[str] | None = None,
    interval: str | None = None,
    cache: Path | None = None,
    file: str = "",
) -> Score:
    from evaluation.choice_formats import read_answers
    from evaluation.metrics import choice

    answers = read_answers(path)
    return choice.evaluate(truth, answers, metrics=metrics, interval=interval or "jackknife", file=file or str(path))


def _read_recordings(path: Path, split: str) -> tuple[Any, list[Finding]]:
    from evaluation.data.recordings import read_recordings

    return read_recordings(_file_of_split(path, "moments", split))


def _score_moments(
    path: Path,
    truth: Any,
    *,
    metrics: Sequence[str] | None = None,
    interval: str | None = None,
    cache: Path | None = None,
    file: str = "",
) -> Score:
    from evaluation.metrics import moments
    from evaluation.moment_formats import read_moments

    prediction = read_moments(path)
    chosen = moments.DEFAULT_METRICS if metrics is None else metrics
    return moments.evaluate(truth, prediction, metrics=chosen, interval=interval or "jackknife", file=file or str(path))


def _file_of_split(path: Path, kind: str, split: str) -> Path:
    """Return the file of a split if the path is a data folder of a kind, otherwise the path itself.

    Raises:
        BadRequest: The folder has files of splits, but none of this split.
    """
    from evaluation.data.split_files import split_file, split_files

    if split_files(path, kind):
        return split_file(path, kind, split)
    return path


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "retrieval": Kind(
            "a retrieval system",
            catalogue.RETRIEVAL,
            _read_split,
            _score_retrieval,
            "captions or relevance",
            lambda split: bool(split.truth),
        ),
        "captioning": Kind(
            "a captioning system",
            catalogue.CAPTIONING,
            _read_split,
            _score_captions,
            "captions of every clip",
            lambda split: all(clip.captions for clip in split.clips),
        ),
        "choice": Kind(
            "a question answering system",
            catalogue.CHOICE,
            _read_questions,
            _score_choice,
            "the answer to every question",
            lambda questions: not questions.is_blind,
        ),
        "moments": Kind(
            "a moment retrieval system",
            catalogue.MOMENTS,
            _read_recordings,
            _score_moments,
            "the windows of every query",
            lambda recordings: not recordings.is_blind,
        ),
    }
)
