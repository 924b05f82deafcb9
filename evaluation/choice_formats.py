"""Reading and writing answers to multiple-choice questions.

    answers = read_answers(Path("output.csv"))
    score = metrics.choice.evaluate(questions, answers)

Files
-----
- CSV with the columns `question` and `answer`, separated by commas or tabs: the id of a question and the text of an
  option, verbatim. This is the output of DCASE 2025 task 5. We did not find the output format of 2026 task 5; a
  participant's code (WeitengHu/DCASE2026-Task5) writes the same columns, with ids.
- JSON lines, or a JSON list of the same objects, with the keys `question` or `id`, and `answer`.

Other columns and keys are not read. This module checks the form of a file. `evaluation.metrics.choice` checks that the
answers fit the questions.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from evaluation import json_objects
from evaluation.data import tables
from evaluation.files import no_file, replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.json_objects import Identifier, Text
from evaluation.predictions import COLUMNS_SHOWN, width_findings
from evaluation.text import first_items, quoted
from evaluation.values import describe, require_dict, texts

COLUMNS = ("question", "answer")
CSV_FILES = (".csv", ".tsv")
EXAMPLE = '{"question": "q1", "answer": "rain"}'


@dataclass(frozen=True)
class Answers:
    """An answer to each question.

    Attributes:
        ids: The ids of the questions, in the order of the file.
        answers: The answer to each question.
        lines: The line number of each answer in its file. Empty for answers that were not read from lines.
    """

    ids: tuple[str, ...]
    answers: tuple[str, ...]
    lines: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """Describe the answers on one line."""
        return f"Answers({len(self.ids)} questions)"

    @classmethod
    def of(cls, answers: object) -> "Answers":
        """Make answers from a dict from ids to answers.

        Raises:
            ValueError: The value is not a dict, or an id or an answer is not a text.
        """
        by_id = require_dict(answers, "the answers", "from ids to answers, or Answers")
        for name, answer in by_id.items():
            if not isinstance(answer, str):
                raise ValueError(f"the answer of {name!r} must be a text; found {describe(answer)}")
        return cls(texts(list(by_id), "ids"), texts(list(by_id.values()), "answers"))


class _Row(BaseModel):
    """An object of a JSON file."""

    model_config = ConfigDict(defer_build=True)

    question: Identifier = Field(validation_alias=AliasChoices("question", "id"))
    answer: Text


def read_answers(path: Path | str) -> Answers:
    """Read answers to questions.

    Raises:
        BadRequest: There is no such file, or it is a file of another kind.
        Faulty: The file is not valid. The exception lists all findings.
    """
    answers, findings = survey_answers(Path(path))
    if findings:
        raise Faulty(findings)
    return answers


def survey_answers(path: Path) -> tuple[Answers, list[Finding]]:
    """Return the answers that can be read, and all findings.

    Raises:
        BadRequest: As `read_answers`.
        Faulty: The file is not a table with the columns, or not JSON, or contains other objects.
    """
    if not path.is_file():
        raise no_file(path, f"a CSV with the columns {' and '.join(COLUMNS)}, or JSON lines with these keys")
    suffix = path.suffix.lower()
    if suffix in json_objects.JSON_FILES:
        return _read_json(path)
    if suffix not in CSV_FILES:
        raise BadRequest(f"{path}: must be .csv, .tsv, .json or .jsonl; give the file of a question answering system")
    return _read_csv(path)


def _read_json(path: Path) -> tuple[Answers, list[Finding]]:
    findings: list[Finding] = []
    entries = json_objects.read_objects(path, EXAMPLE, findings)
    json_objects.require_keys(entries, COLUMNS, "answers")
    rows = json_objects.valid_rows(_Row, entries, findings)
    answers = Answers(
        tuple(row.question for row, _ in rows),
        tuple(row.answer for row, _ in rows),
        tuple(entry.line for _, entry in rows if entry.line),
    )
    return answers, findings


def _read_csv(path: Path) -> tuple[Answers, list[Finding]]:
    file = str(path)
    findings: list[Finding] = []
    separator = tables.separator(path, file)
    records, _ = tables.read_table(path, file, findings, separator)
    if findings and not records:  # the header could not be read
        raise Faulty(findings)
    header = records[0][1] if records else []
    for column in COLUMNS:
        if header.count(column) != 1:
            columns = first_items([quoted(name) for name in header], COLUMNS_SHOWN) or "no line"
            message = f"the header must have one column {column!r}; found {columns}"
            findings.append(Finding(file, 1, message=message))
    if findings:
        raise Faulty(findings)
    rows = [(line, cells) for line, cells in records[1:] if len(cells) == len(header)]
    question, answer = (header.index(column) for column in COLUMNS)
    answers = Answers(
        tuple(cells[question] for _, cells in rows),
        tuple(cells[answer] for _, cells in rows),
        tuple(line for line, _ in rows),
    )
    return answers, list(width_findings(records[1:], len(header), separator, file))


def write_answers(path: Path, answers: Answers) -> None:
    """Write answers as CSV, completely or not at all."""
    with replacing(path) as part:
        tables.write_table(part, [COLUMNS, *zip(answers.ids, answers.answers, strict=True)])
