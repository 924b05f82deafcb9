"""The output of audio question answering: a table with the text of an option for each question."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from evaluation.choice_formats import Answers
from evaluation.findings import Finding
from evaluation.metrics import choice
from evaluation.names import closest
from evaluation.text import quoted
from submission.outputs import keys
from submission.outputs.form import FileSplit
from submission.outputs.tables import Records, Table

if TYPE_CHECKING:
    from submission.tasks import Task

_LETTERED = re.compile(r"[(\[]?([A-Za-z])[)\].:]\s*(.*)", re.DOTALL)  # such as "B. rain" and "(b) rain"
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")


class ChoiceTable(Table):
    """A table with the text of an option for each question."""

    term = keys.QUESTION
    content = "the question and its answer"
    submitted = "the text of one of the options for each question"
    own_prediction = "write {split}.csv, a CSV with the columns question (the id) and answer (the text of an option)"

    def expected(self, split: FileSplit) -> Sequence[str]:
        """Return the ids of the questions."""
        return list(split.content.by_id)

    def rows(
        self, task: "Task", prediction: Answers, split: FileSplit, file: str
    ) -> tuple[list[str], Iterable[Sequence[str]]]:
        """Return the header, and the questions in the order of the split with their answers."""
        choice.validate(split.content, prediction, file)
        answers = dict(zip(prediction.ids, prediction.answers, strict=True))
        return task.header(), [(name, answers[name]) for name in split.content.by_id]

    def check_rows(
        self,
        task: "Task",
        header: list[str],
        records: Records,
        split: FileSplit | str,
        file: str,
        lines: dict[str, int],
    ) -> Iterator[Finding]:
        """Yield findings about rows whose question is repeated or whose answer is not an option."""
        _, column = task.header()
        for line, cells in records:
            yield from self.check_width(task, cells, 2, file, line)
            yield from self.add_key(lines, cells[0], line, task, file)
            if len(cells) != 2:
                continue
            question = None
            if not isinstance(split, str):
                question = split.content.by_id.get(cells[0])
            if not cells[1].strip():
                yield Finding(file, line, column, "must not be empty; write the text of an option")
            elif question and cells[1] not in question.options:
                must = f"must be an option of {quoted(question.id)}"
                guess = meant_option(cells[1], question.options)
                message = choice.not_an_option(must, cells[1], question.options, guess)
                yield Finding(file, line, column, message)

    def describe(self, task: "Task") -> str:
        """Describe the columns."""
        question, answer = task.header()
        return (
            f"The **output** is a CSV file in UTF-8. It has the columns `{question}` and `{answer}`, and one row for "
            "each question: its id, and the text of one of its options, exactly as in the data set. "
            f"{self.layout_text(task)}"
        )


def meant_option(answer: str, options: Sequence[str]) -> str | None:
    """Return the option that an answer probably means, or None if that is not clear.

    The answer may differ from the option in case, blanks or punctuation, or by a few letters. It may be the option's
    letter, or have a letter that the option does not have, or lack the option's letter.

    >>> meant_option("B", ["rain", "wind"]), meant_option("(b) Wind", ["rain", "wind"])
    ('wind', 'wind')
    >>> meant_option("Wind", ["A. rain", "B. wind"]), meant_option("snow", ["rain", "wind"])
    ('B. wind', None)
    """
    same = closest(options, texts=True)(answer)
    if same is not None:
        return same
    letter = _LETTER.fullmatch(answer.strip())
    if letter:
        return _option_of_letter(letter[1].upper(), options)
    texts = {_without_letter(option): option for option in options}
    if len(texts) < len(options):
        return None
    text = _without_letter(answer)
    meant = closest(texts, texts=True)(text) or keys.misspelt(text, texts)
    if meant is None:
        return None
    return texts[meant]


def _option_of_letter(letter: str, options: Sequence[str]) -> str | None:
    """Return the option with a letter: its own letter if the options have letters, otherwise that of its place."""
    for option in options:
        match = _LETTERED.fullmatch(option)
        if match and match[1].upper() == letter:
            return option
    place = ord(letter) - ord("A")
    if place < len(options):
        return options[place]
    return None


def _without_letter(text: str) -> str:
    """Return an option without a letter at its beginning."""
    match = _LETTERED.fullmatch(text.strip())
    if match and match[2]:
        return match[2]
    return text
