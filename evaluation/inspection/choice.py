"""The content of a page about question answering: the options of each question, and the answer of each system."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.choice_formats import Answers, read_answers
from evaluation.data.dataset import Clip
from evaluation.data.questions import Question, Questions
from evaluation.findings import Finding
from evaluation.inspection.charts import LISTED, Chart, Table, mean_chart
from evaluation.inspection.content import TEMPLATES, Content, Request, System, check_content, is_pseudo, read_systems
from evaluation.kinds import KINDS
from evaluation.metrics import choice
from evaluation.report import NOTHING
from evaluation.scores import Score
from evaluation.text import cut, printable


@dataclass(frozen=True)
class Answered(System):
    """The answers and the score of a question answering system. The items of the score are the questions.

    Attributes:
        chosen: For each question, the index of the option that the system chose.
    """

    chosen: Sequence[int]


@dataclass(frozen=True)
class Quiz(Content):
    """The content of a page about question answering.

    Attributes:
        questions: The questions, with the right answers.
        systems: The answers and the score of each system.
    """

    task = "Audio question answering"
    answers = "answers"
    noun = "questions"
    lists = "Positions of the chosen options, and answers that are often wrong"
    templates = TEMPLATES / "choice"

    questions: Questions
    systems: Sequence[Answered]

    @property
    def split_name(self) -> str:
        """The name of the file or folder of the questions, without `questions_` and suffix."""
        return self.questions.source.stem.removeprefix("questions_") if self.questions.source else ""

    @property
    def clips(self) -> Sequence[Clip]:
        """The clips, each once."""
        return [Clip(name, (), path) for name, path in self.questions.paths.items()]

    @property
    def right(self) -> list[int]:
        """For each question, the index of the right option."""
        return [_option(question, question.answer or "") for question in self.questions.questions]

    @property
    def clip_of_question(self) -> list[int]:
        """For each question, the index of its clip."""
        index = {name: number for number, name in enumerate(self.questions.paths)}
        return [index[question.audio] for question in self.questions.questions]

    def item_metrics(self, score: Score) -> list[str]:
        """Return the accuracy. Pseudo-values of the means over types and parts do not say anything about a question."""
        return [name for name in super().item_metrics(score) if not is_pseudo(name)]

    def charts(self, metric: str, values: Sequence[np.ndarray], seconds: np.ndarray) -> list[Chart | None]:
        """Return charts of what the accuracy depends on."""
        questions = self.questions.questions
        options = np.array([len(question.options) for question in questions], dtype=float)
        words = np.array([len(question.text.split()) for question in questions], dtype=float)
        durations = seconds[self.clip_of_question]
        return [
            mean_chart(metric, "number of options", "options", options, values),
            mean_chart(metric, "length of the question", "words", words, values),
            mean_chart(metric, "duration", "seconds", durations, values),
        ]

    def tables(self, metric: str, values: Sequence[np.ndarray]) -> list[Table]:
        """Return the positions of the chosen options, and for each system the answers that are often wrong."""
        return [self._positions(), *(self._confusions(system) for system in self.systems)]

    def _positions(self) -> Table:
        """Return a table with the share of questions whose right or chosen option has each position.

        A system that prefers a position does not read all options in the same way.
        """
        count = max(len(question.options) for question in self.questions.questions)
        rows = []
        for name, indices in [("right options", self.right), *((each.name, each.chosen) for each in self.systems)]:
            shares = np.bincount(indices, minlength=count) / len(indices)
            rows.append([name, *(f"{share:.1%}" for share in shares)])
        heads = ["position", *(str(place + 1) for place in range(count))]
        note = "A system that prefers a position differs from the first row."
        return Table("Positions of the options", heads, rows, note)

    def _confusions(self, system: Answered) -> Table:
        """Return a table of the pairs of a right answer and a wrong one that a system gives most often."""
        pairs: Counter[tuple[str, str]] = Counter()
        for question, right, chosen in zip(self.questions.questions, self.right, system.chosen, strict=True):
            if chosen != right:
                pairs[question.options[right], question.options[chosen]] += 1
        rows = []
        for (expected, answer), number in pairs.most_common(LISTED):
            rows.append([cut(expected), cut(answer), f"{number:,}"])
        note = f"{pairs.total():,} of {len(system.chosen):,} answers are wrong."
        return Table(f"Wrong answers of {system.name}", ["right answer", "answer", "questions"], rows, note)

    def data(self) -> dict[str, Any]:
        """Return the questions with their options, and the option that each system chose."""
        questions = self.questions.questions
        return {
            "questions": [printable(question.text) for question in questions],
            "options": [[printable(option) for option in question.options] for question in questions],
            "right": self.right,
            "types": [printable(question.type) or NOTHING for question in questions],
            "parts": [printable(question.part) or NOTHING for question in questions],
            "ids": [printable(question.id) for question in questions],
            "clipOf": self.clip_of_question,
            "chosen": [system.chosen for system in self.systems],
        }


def _option(question: Question, answer: str) -> int:
    return question.options.index(answer)


def collect_answers(questions: Questions, given: Mapping[str, tuple[Answers, Score]]) -> Quiz:
    """Find the option that each system chose for each question.

    Args:
        questions: The questions.
        given: A dict from the name of each system to its answers, which `choice.validate` accepts, and its score.
    """
    systems = []
    for name, (prediction, score) in given.items():
        answers = dict(zip(prediction.ids, prediction.answers, strict=True))
        chosen = [_option(question, answers[question.id]) for question in questions.questions]
        systems.append(Answered(name, score, chosen))
    return Quiz(questions, systems)


def read_page(request: Request) -> tuple[Quiz, list[Finding]]:
    """Read the questions and the answers that a request names, and score the answers.

    Returns:
        The content of the page, and warnings and notes.

    Raises:
        BadRequest: A file is given twice or does not exist; or the right answers are not known; or a metric is unknown
            or has no values for single questions.
        Faulty: The questions or the answers are not valid. The exception lists all findings.
    """
    questions, notes = KINDS["choice"].read_truth(request.truth, request.split)

    def read(path: Path) -> tuple[Answers, Score, Sequence[Finding]]:
        answers = read_answers(path)
        return answers, choice.evaluate(questions, answers, metrics=request.metrics, file=str(path)), ()

    given, findings = read_systems(request.predictions, read)
    content = collect_answers(questions, given)
    check_content(content)
    return content, [*notes, *findings]
