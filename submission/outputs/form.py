"""The interface of a form of output files. `submission.kinds` lists the forms of each kind of task."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evaluation.findings import Finding

if TYPE_CHECKING:
    from submission.tasks import Task

LIMIT = 128 * 2**20  # maximum size of a file in bytes
MANY = 10  # a file that has more than ten times the expected number of lines is probably the wrong file


class Asked(Protocol):
    """What the systems of a task answer: the clips, queries or questions of a split."""

    @property
    def name(self) -> str:
        """The name of the split in the kit."""

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change if what is asked or its ground truth changes."""


@dataclass(frozen=True)
class FileSplit:
    """A split that is one file of questions about clips, or of queries about recordings.

    Attributes:
        name: The name of the split in the kit.
        content: The questions, or the recordings.
    """

    name: str
    content: Any

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change if the content changes."""
        return str(self.content.fingerprint)

    @property
    def source(self) -> Path | None:
        """The file or folder of the split, if it was read from one."""
        return self.content.source


class Form(ABC):
    """A form of output files: what the file contains, how it is written, and how it is checked.

    Attributes:
        suffix: Suffix of the file's name.
        facts: The optional facts of a task that tasks with this form have.
        submitted: What a team submits, in a clause such as "one caption for each clip". `{k}` stands for the task's k.
        own_prediction: Advice for a system that `dcase-systems predict` cannot run. `{split}` is the split's name.
    """

    suffix: str = ".csv"
    facts: tuple[str, ...] = ()
    submitted: str
    own_prediction: str

    @abstractmethod
    def check_facts(self, task: "Task") -> None:
        """Check that the facts of a task describe this form.

        Raises:
            ValueError: The facts describe another form. The message begins with the path of a fact.
        """

    @abstractmethod
    def write(self, task: "Task", prediction: Any, split: Any, path: Path, file: str) -> None:
        """Write a prediction. The arguments are those of `outputs.write`.

        Raises:
            BadRequest, Faulty: See `outputs.write`.
        """

    @abstractmethod
    def check(self, task: "Task", path: Path, split: Any, file: str) -> Iterator[Finding]:
        """Yield all findings about a file, in any order. The arguments are those of `outputs.validate`."""

    def check_and_read(self, task: "Task", path: Path, split: Any, file: str) -> tuple[Iterator[Finding], Any]:
        """Return the findings that `check` yields, and the prediction if the check reads it, otherwise None."""
        return self.check(task, path, split, file), None

    @abstractmethod
    def describe(self, task: "Task") -> str:
        """Describe the file in a few sentences, for participants."""
