"""The content of a page, and what each kind of answers must define to be shown.

The entry of a kind in `evaluation.kinds` names a module. The function `read_page` of this module takes a `Request`,
reads and scores the predictions, and returns an object of a subclass of `Content`, and warnings and notes. The subclass
names a script and a text. Everything else on the page is the same for all kinds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from evaluation.data.dataset import EVALUATION, Clip, Split
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics import catalogue
from evaluation.scores import Score
from evaluation.statistics.comparison import check_comparable, short_names
from evaluation.text import printable

if TYPE_CHECKING:
    from evaluation.inspection.charts import Chart, Table

TEMPLATES = Path(__file__).parent / "templates"

P = TypeVar("P")


@dataclass(frozen=True)
class Request:
    """A request for a page.

    Attributes:
        predictions: The prediction file of each system.
        truth: The data folder, or the file of the ground truth.
        split: The name of the split.
        metrics: Names of metrics or of sets (default: those of the kind).
        relevance: See `evaluation.data.relevance.chosen_relevance`.
        match: As in `caption_formats.read_captions`.
    """

    predictions: Sequence[Path]
    truth: Path
    split: str = EVALUATION
    metrics: Sequence[str] | None = None
    relevance: Path | None = None
    match: str = ""


@dataclass(frozen=True)
class System:
    """A system on a page.

    Attributes:
        name: The short name of the system.
        score: The score of the system.
    """

    name: str
    score: Score


class Content(ABC):
    """The content of a page: the clips, and the predictions of each system for each item.

    Attributes:
        task: The name of the task.
        answers: The noun for the answers, in the title of the page.
        noun: The plural noun for the items of the scores.
        clip_noun: The noun for the audio files.
        lists: The title of the lists below the charts.
        about_clips: The note below the lists of the hardest and easiest clips.
        templates: The path, without suffix, of the script (.js) and of the text about the page (.html.j2).
        systems: The systems. The first one is the one that the others are compared with.
        split_name: The name of the split.
    """

    task: ClassVar[str]
    answers: ClassVar[str]
    noun: ClassVar[str]
    clip_noun: ClassVar[str] = "clip"
    lists: ClassVar[str]
    about_clips: ClassVar[str] = ""
    templates: ClassVar[Path]
    systems: Sequence[System]

    @property
    @abstractmethod
    def split_name(self) -> str:
        """The name of the split."""

    @property
    @abstractmethod
    def clips(self) -> Sequence[Clip]:
        """The audio files, with their names."""

    @abstractmethod
    def charts(self, metric: str, values: Sequence[np.ndarray], seconds: np.ndarray) -> "list[Chart | None]":
        """Return the charts at the top of the page.

        Args:
            metric: The first metric.
            values: For each system, the (items,) values of this metric.
            seconds: The (clips,) durations of the clips; NaN if it is not known.
        """

    @abstractmethod
    def tables(self, metric: str, values: Sequence[np.ndarray]) -> "list[Table]":
        """Return the lists below the charts. The arguments are those of `charts`."""

    @abstractmethod
    def data(self) -> dict[str, Any]:
        """Return the part of the page's data that only the script of this kind reads."""

    def item_metrics(self, score: Score) -> list[str]:
        """Return the names of the metrics whose values for single items the page shows."""
        return [name for name, measured in score.metrics.items() if measured.values is not None]


class SplitContent(Content):
    """The content of a page about a split of clips with captions.

    Attributes:
        split: The split.
    """

    split: Split

    @property
    def split_name(self) -> str:
        """The name of the split."""
        return self.split.name

    @property
    def clips(self) -> Sequence[Clip]:
        """The clips of the split."""
        return self.split.clips

    def captions(self) -> list[list[str]]:
        """Return the captions of each clip, for the page's data."""
        return [[printable(caption) for caption in clip.captions] for clip in self.clips]


def check_content(content: Content) -> None:
    """Check that the scores of the systems have values for single items and can be compared.

    Raises:
        BadRequest: A score has no metric with a value for each item, or the scores cannot be compared.
    """
    for system in content.systems:
        if not content.item_metrics(system.score):
            found = ", ".join(system.score.metrics) or "none that is available"
            kind = system.score.items.kind
            raise BadRequest(f"--metrics must have a metric with a value for each of the {kind}; found {found}")
    check_comparable({system.name: system.score for system in content.systems})


def is_pseudo(metric: str) -> bool:
    """Return True if the metric is not a mean over items, so that the values of items are pseudo-values."""
    facts = catalogue.find(metric)
    return facts is not None and facts.statistic == "corpus"


def read_systems(
    paths: Sequence[Path], read: Callable[[Path], tuple[P, Score, Sequence[Finding]]]
) -> tuple[Mapping[str, tuple[P, Score]], list[Finding]]:
    """Read and score the prediction of each system.

    Args:
        paths: The files.
        read: Function that returns the prediction in a file, its score, and warnings and notes.

    Returns:
        A dict from the name of each system to its prediction and score, and all warnings and notes.

    Raises:
        BadRequest: A file is given twice, or `read` raises it.
        Faulty: A prediction is not valid. The exception lists all findings of all predictions.
    """
    given: dict[str, tuple[P, Score]] = {}
    findings: list[Finding] = []
    faults: list[Finding] = []
    for name, path in zip(system_names(paths), paths, strict=True):
        try:
            prediction, score, notes = read(path)
        except Faulty as faulty:
            faults += faulty.findings
            continue
        given[name] = prediction, score
        findings += [*notes, *score.findings]
    if faults:
        raise Faulty(faults)
    return given, findings


def system_names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each prediction: its run folder, or its file name without the extension.

    Raises:
        BadRequest: A file is given twice.
    """
    if len(set(paths)) < len(paths):
        raise BadRequest("each prediction must be given once; found a file twice")
    return short_names([str(path.with_suffix("")) for path in paths])
