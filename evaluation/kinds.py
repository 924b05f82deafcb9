"""The table of the kinds of answers that systems give, with the functions that read, score and show each kind.

    kind = KINDS["moments"]
    truth, notes = kind.read_truth(Path("castella_val_release.jsonl"), "evaluation")
    score = kind.score_file(Path("submission.jsonl"), truth, metrics=["R1@0.7"])

Code that scores or shows several kinds reads this table and does not compare names. To add a kind, add its metrics to
`metrics.catalogue`, its functions as below, and an entry to `KINDS`. `inspection.content` says what the page of a kind
needs. A kind with data folders of its own also needs entries in `data.split_files` and `data.layouts`, and a kind with
submissions one in `submission.kinds`.

The functions import the modules that they need when they are called, because commands must start quickly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.json_objects import JSON_FILES
from evaluation.metrics import catalogue
from evaluation.scores import Score

HEAD = 2**20  # number of bytes that are read to recognise a prediction
PAGE_OPTIONS = frozenset({"relevance", "match"})  # options of `inspect` that only some kinds have


@dataclass(frozen=True)
class ScoreOptions:
    """The options of a score. An option that a kind does not have is ignored.

    Attributes:
        metrics: Names of metrics or of sets; None for the kind's own.
        interval: One of `intervals.METHODS`; None for the kind's own.
        cache: The cache folder of captioning; None for `files.cache_folder`.
        file: The name of the prediction in findings about what it contains.
    """

    metrics: Sequence[str] | None
    interval: str | None
    cache: Path | None
    file: str


@dataclass(frozen=True)
class Kind:
    """A kind of answer.

    Attributes:
        system: The noun for a system that gives such answers, with its article.
        metrics: The facts about its metrics (`metrics.catalogue`).
        read_truth: Function that reads the ground truth. Its arguments are a path and a split; the split is used if the
            path is a data folder. It returns the ground truth, and warnings and notes.
        score: Function that reads and scores a prediction, as `score_file` does.
        truth: The noun for what the ground truth must have, for messages.
        has_truth: Function that returns True if a ground truth has this. A blind set does not have it.
        holds: Function that returns True if a file is certainly a prediction of this kind, judged by its beginning.
        page: Import name of the module that shows predictions (`inspection.content`). It is a name because the modules
            of pages do not belong to the code that the results of a system depend on (`systems.source`).
        page_options: The `PAGE_OPTIONS` that this module uses.
    """

    system: str
    metrics: Mapping[str, catalogue.Metric]
    read_truth: Callable[[Path, str], tuple[Any, list[Finding]]]
    score: Callable[[Path, Any, ScoreOptions], Score]
    truth: str
    has_truth: Callable[[Any], bool]
    holds: Callable[[Path], bool]
    page: str
    page_options: tuple[str, ...] = ()

    def score_file(
        self,
        path: Path,
        truth: Any,
        *,
        metrics: Sequence[str] | None = None,
        interval: str | None = None,
        cache: Path | None = None,
        file: str = "",
    ) -> Score:
        """Read a prediction and score it.

        Args:
            path: The file of the prediction.
            truth: The ground truth, as `read_truth` returns it.
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
        return self.score(path, truth, ScoreOptions(metrics, interval, cache, file or str(path)))


def _read_split(path: Path, split: str) -> tuple[Any, list[Finding]]:
    from evaluation.data.dataset import read_dataset

    return read_dataset(path, split, sound=False)[split], []


def _score_retrieval(path: Path, truth: Any, options: ScoreOptions) -> Score:
    from evaluation import predictions
    from evaluation.metrics import retrieval

    prediction = predictions.read_retrieval_csv(path, options.file)
    interval = options.interval or "jackknife"
    return retrieval.evaluate(truth, prediction, metrics=options.metrics, interval=interval, file=options.file)


def _score_captions(path: Path, truth: Any, options: ScoreOptions) -> Score:
    from evaluation import predictions
    from evaluation.metrics import captioning  # imports scipy

    captions = predictions.read_captions(path)
    chosen = captioning.BASIC if options.metrics is None else options.metrics
    return captioning.evaluate(
        captions, truth, metrics=chosen, interval=options.interval, cache=options.cache, file=options.file
    )


def _read_questions(path: Path, split: str) -> tuple[Any, list[Finding]]:
    from evaluation.data.questions import read_questions

    return read_questions(_source(path, "choice", split))


def _score_choice(path: Path, truth: Any, options: ScoreOptions) -> Score:
    from evaluation.choice_formats import survey_answers
    from evaluation.metrics import choice

    answers, form = survey_answers(path)
    if form:
        choice.validate(truth, answers, options.file, form)
    interval = options.interval or "jackknife"
    return choice.evaluate(truth, answers, metrics=options.metrics, interval=interval, file=options.file)


def _read_recordings(path: Path, split: str) -> tuple[Any, list[Finding]]:
    from evaluation.data.recordings import read_recordings

    return read_recordings(_source(path, "moments", split))


def _score_moments(path: Path, truth: Any, options: ScoreOptions) -> Score:
    from evaluation.metrics import moments
    from evaluation.moment_formats import survey_moments

    prediction, form = survey_moments(path)
    if form:
        moments.validate(truth, prediction, options.file, form)
    chosen = moments.DEFAULT_METRICS if options.metrics is None else options.metrics
    interval = options.interval or "jackknife"
    return moments.evaluate(truth, prediction, metrics=chosen, interval=interval, file=options.file)


def _source(path: Path, kind: str, split: str) -> Path:
    """Return the file or folder of a split if the path is a data folder, otherwise the path itself.

    Raises:
        BadRequest: The data folder does not have this split, or its data are of another kind.
    """
    from evaluation.data.layouts import LAYOUTS, layout_of
    from evaluation.data.split_files import split_file, split_files

    if split_files(path, kind):
        return split_file(path, kind, split)
    other = layout_of(path)
    if other:
        message = f"must have {LAYOUTS[kind].content}; found {LAYOUTS[other].content}"
        advice = f"give another folder, or predictions of {KINDS[other].system} (`score {other}`)"
        raise BadRequest(f"{path}: {message}: {advice}")
    return path


def _holds_ranking(path: Path) -> bool:
    """Return True for the suffixes that only predictions of retrieval systems have."""
    return path.suffix.lower() in (".npz", ".npy", ".h5", ".hdf5", ".run")


def _holds_captions(path: Path) -> bool:
    if path.suffix.lower() in JSON_FILES:
        return not _holds_answers(path) and not _holds_windows(path)
    from evaluation import caption_formats

    columns = _header(path)
    has_name = any(not columns.isdisjoint(names) for names in caption_formats.NAMES)
    return has_name and not columns.isdisjoint(caption_formats.CAPTIONS)


def _holds_answers(path: Path) -> bool:
    if path.suffix.lower() in JSON_FILES:
        start = _start(path)
        return b'"answer"' in start and (b'"question"' in start or b'"id"' in start)
    return {"question", "answer"} <= _header(path)


def _holds_windows(path: Path) -> bool:
    return path.suffix.lower() in JSON_FILES and b'"pred_relevant_windows"' in _start(path)


def _start(path: Path) -> bytes:
    """Return the beginning of a file, or nothing if there is no such file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD)


def _header(path: Path) -> set[str]:
    """Return the columns of a table, or nothing if the path is not a table or its header cannot be read."""
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return set()
    import csv
    import io

    from evaluation.data import tables

    text = _start(path).decode("utf-8-sig", "replace")
    try:
        return set(next(csv.reader(io.StringIO(text, newline=""), delimiter=tables.separator(path, str(path))), []))
    except (csv.Error, Faulty):
        return set()


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "retrieval": Kind(
            "a retrieval system",
            catalogue.RETRIEVAL,
            _read_split,
            _score_retrieval,
            "captions or relevance",
            lambda split: bool(split.truth),
            _holds_ranking,
            "evaluation.inspection.retrieval",
            ("relevance",),
        ),
        "captioning": Kind(
            "a captioning system",
            catalogue.CAPTIONING,
            _read_split,
            _score_captions,
            "captions of every clip",
            lambda split: all(clip.captions for clip in split.clips),
            _holds_captions,
            "evaluation.inspection.captioning",
            ("match",),
        ),
        "choice": Kind(
            "a question answering system",
            catalogue.CHOICE,
            _read_questions,
            _score_choice,
            "the answer to every question",
            lambda questions: not questions.is_blind,
            _holds_answers,
            "evaluation.inspection.choice",
        ),
        "moments": Kind(
            "a moment retrieval system",
            catalogue.MOMENTS,
            _read_recordings,
            _score_moments,
            "the windows of every query",
            lambda recordings: not recordings.is_blind,
            _holds_windows,
            "evaluation.inspection.moments",
        ),
    }
)


def kind_of_predictions(paths: Sequence[Path]) -> str:
    """Return the kind of the predictions in files. Files that no kind recognises count as those of a retrieval system.

    Raises:
        BadRequest: The files contain predictions of different kinds.
    """
    kinds = [_kind_of_file(path) for path in paths]
    for path, kind in zip(paths, kinds, strict=True):
        if kind != kinds[0]:
            message = f"must be the prediction of {KINDS[kinds[0]].system}, as {paths[0]}"
            raise BadRequest(f"{path}: {message}; found that of {KINDS[kind].system}; give predictions of one kind")
    return kinds[0]


def _kind_of_file(path: Path) -> str:
    for name, kind in KINDS.items():
        if kind.holds(path):
            return name
    return next(iter(KINDS))
