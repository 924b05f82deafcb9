"""The interface of a kind of task: everything in which the tasks of one kind differ from those of another.

`evaluation.kinds` has the metrics of a kind, and the functions that read its ground truth and score a prediction. By
default, a `Kind` uses the entry of the same name there.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation import kinds
from evaluation.data.dataset import EVALUATION, Dataset
from evaluation.metrics.catalogue import Metric
from evaluation.scores import Score
from submission.outputs.form import Form


class Kind(ABC):
    """A kind of task. The methods take and return the splits and predictions of this kind.

    Attributes:
        name: Name in task files.
        forms: A dict from the name of each form of output files to the form.
        unit: The noun for what groups the items of a score: a clip or a recording.
        memory: Maximum memory in bytes for the check and the scores of a package.
        suffixes: Suffixes of a prediction in `predictions/SPLIT.*` of a run. The first one is the usual one.
        answers: The plural noun for what a system predicts, such as "captions".
        of_system: The name of a prediction in messages, such as "a captioner's captions".
        system: A noun for the system, such as "captioner".
        scored: The noun for what is scored, in advice.
        score_name: Name of a run's score on the evaluation split, without suffix.
        about: What systems of this kind do and what is submitted, in a few sentences for participants. `{submitted}`
            stands for the form's `submitted`.
        libraries: Packages from PyPI that scoring needs, besides those of all kinds.
    """

    name: str
    forms: Mapping[str, Form]
    unit: str = "clip"
    memory: int
    suffixes: tuple[str, ...]
    answers: str
    of_system: str
    system: str
    scored: str
    score_name: str = EVALUATION
    about: str
    libraries: tuple[str, ...] = ()

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """A dict from the name of each metric, without `@k`, to the facts about it."""
        return kinds.KINDS[self.name].metrics

    # Data

    @abstractmethod
    def read_data(self, folder: Path, name: str = "") -> Dataset:
        """Read the splits of a data folder.

        Args:
            folder: The data folder.
            name: The name of the only split to read (default: all splits).

        Raises:
            BadRequest: There is no such folder or split.
            Faulty: The data are not valid. The exception lists all findings.
        """

    @property
    def truth(self) -> str:
        """The noun for what a split's ground truth must have, for messages."""
        return kinds.KINDS[self.name].truth

    def content(self, split: Any) -> Any:
        """Return a split in the form that `evaluation.kinds` reads and scores."""
        return split

    def has_truth(self, split: Any) -> bool:
        """Return whether a split has a ground truth."""
        return kinds.KINDS[self.name].has_truth(self.content(split))

    def check_truth(self, split: Any) -> None:  # noqa: B027, captions have nothing to check
        """Check the ground truth of a split. Otherwise an error in it would be reported for every package.

        Raises:
            Faulty: The ground truth has an error.
        """

    @abstractmethod
    def sizes(self, split: Any) -> dict[str, int]:
        """Return the numbers of the split's clips, queries or questions, in the words of `tasks.PublishedResults`."""

    def picklable(self, split: Any) -> Any:
        """Return the same split in a form that pickle can handle."""
        return split

    @abstractmethod
    def write_data(self, split: Any, truth: bool, folder: Path) -> None:
        """Write a split into a data folder that `read_data` reads, without audio.

        Args:
            split: The split.
            truth: Whether to write the ground truth.
            folder: The data folder.

        Raises:
            BadRequest: The split cannot be written.
        """

    # Predictions and scores

    def holds(self, path: Path) -> bool:
        """Return whether a file with one of the `suffixes` is certainly a prediction of this kind."""
        return path.suffix == self.suffixes[0]

    @abstractmethod
    def read_prediction(self, path: Path, split: Any) -> Any:
        """Read the prediction of a run for a split.

        Raises:
            BadRequest: It is a file of another kind.
            Faulty: The file is not valid. The exception lists all findings.
        """

    def score(self, output: Path, split: Any, metrics: Sequence[str], interval: str, cache: Path, file: str) -> Score:
        """Score an output file that has passed its check.

        Args:
            output: The output file.
            split: The split, with its ground truth.
            metrics: The metrics.
            interval: The method of the intervals.
            cache: Folder for tokenised captions.
            file: The file's name in findings.
        """
        score_file = kinds.KINDS[self.name].score_file
        return score_file(output, self.content(split), metrics=metrics, interval=interval, cache=cache, file=file)

    def score_prediction(self, prediction: Any, split: Any, metrics: Sequence[str], interval: str, file: str) -> Score:
        """Score a prediction that the check of an output file has read. The other arguments are those of `score`.

        A kind defines this method if one of its forms defines `check_and_read`. Otherwise nothing calls it.
        """
        raise NotImplementedError

    def has_score(self, score: Score) -> bool:
        """Return whether a score is one of this kind."""
        return all(name.partition("@")[0] in self.metrics for name in score.metrics)

    def is_of_evaluation(self, score: Score, dataset: Dataset) -> bool:
        """Return whether a score of this kind may be one on the evaluation split of a data folder."""
        return f"|split:{EVALUATION}#" in score.signature
