"""Strict reading of multiple-choice questions about clips: the ground truth of audio question answering.

    questions, notes = read_questions(Path("dev.jsonl"))
    questions.questions[0].options        # ('Rain', 'A door closing', 'Music', 'Applause')

Files
-----
- JSON lines, as DCASE 2026 task 5 publishes them (`dev.jsonl`). Each line has the keys `id`, `audio_path`,
  `question_text`, `multi_choice` (the options) and `answer` (the text of an option). In a blind set, `answer` is null
  or missing. The optional key `question_type` names the type of the question, and `source_dataset` its part of the
  data set. (The training set has these two keys; we could not confirm that the development set has them.)
- A folder of JSON files, as DCASE 2025 task 5 publishes them. Each file has one object with the keys `question`,
  `choice` (the options), `answer`, `audio_url` and `question_type`, and the file's name without `.json` is the id. If
  the folder has subfolders (the subsets BQA, TSQA and CQA), the name of the first one is the part. We could not confirm
  the names of the subfolders, because access to the data set is restricted.

Other keys are not read.

Conventions
-----------
- **The answer is the text of an option, verbatim**, and not its letter or its index. So the order of the options does
  not affect a score. The options of a question are different texts.
- **Audio is a path relative to the file or folder.** It must not be absolute and must not contain `..`, so that no path
  leaves its folder. In the 2025 form, only the last part of `audio_url` is used, below the part of the data set:
  participants' code looks for this name in the folder of audio files.

Sources: WeitengHu/DCASE2026-Task5, README; HuffmanJoey/dcase25_t5_EchoTwin-QA, `evaluate.py`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from evaluation import json_objects
from evaluation.files import no_file
from evaluation.findings import Faulty, Finding, raise_errors
from evaluation.json_objects import Entry, FilledText, Identifier, IsList, Text
from evaluation.text import plural, quoted

EXAMPLE = '{"id": "q1", "audio_path": "a.wav", "question_text": "What is it?", "multi_choice": ["rain", "wind"], …}'


@dataclass(frozen=True)
class Question:
    """A question about a clip.

    Attributes:
        id: The question's id.
        text: The question.
        options: The texts of the options.
        answer: The text of the right option; None in a blind set.
        audio: The clip's path, relative to the file or folder of the questions.
        type: The type of the question; empty if it is not known.
        part: The part of the data set; empty if it is not known.
    """

    id: str
    text: str
    options: tuple[str, ...]
    answer: str | None
    audio: str
    type: str = ""
    part: str = ""


@dataclass(frozen=True)
class Questions:
    """Questions about clips, in the order of their files.

    Attributes:
        questions: The questions.
        source: The file or folder; None for questions that were not read from files.
    """

    questions: tuple[Question, ...]
    source: Path | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """Describe the questions on one line."""
        clips = {question.audio for question in self.questions}
        return f"Questions({plural(len(self.questions), 'question')} about {plural(len(clips), 'clip')})"

    @cached_property
    def by_id(self) -> Mapping[str, Question]:
        """A dict from ids to questions."""
        return {question.id: question for question in self.questions}

    @property
    def paths(self) -> Mapping[str, Path]:
        """A dict from the clip of each question, as in `Question.audio`, to the path of its audio file.

        The file may not exist. Without a source, the paths are relative to the working folder.
        """
        folder = self.source or Path()
        if folder.is_file():
            folder = folder.parent
        return {question.audio: folder / question.audio for question in self.questions}

    @property
    def chances(self) -> tuple[float, ...]:
        """The probability, for each question, that a random option is right."""
        return tuple(1 / len(question.options) for question in self.questions)

    @property
    def is_blind(self) -> bool:
        """True if the answers are not known."""
        return all(question.answer is None for question in self.questions)

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change if an id, clip, option, answer, type or part changes.

        The order of the options does not affect them.
        """
        content = []
        for question in self.questions:
            options = sorted(question.options)
            content.append((question.id, question.audio, options, question.answer, question.type, question.part))
        return hashlib.sha256(repr(content).encode()).hexdigest()[:8]


class _Row(BaseModel):
    """A line of the 2026 form."""

    model_config = ConfigDict(defer_build=True)

    id: Identifier
    audio_path: FilledText
    question_text: FilledText
    multi_choice: Annotated[list[Text], IsList]
    answer: Text | None = None
    question_type: Text | None = None
    source_dataset: Text | None = None


class _File(BaseModel):
    """A file of the 2025 form."""

    model_config = ConfigDict(defer_build=True)

    audio_url: FilledText
    question: FilledText
    choice: Annotated[list[Text], IsList]
    answer: Text | None = None
    question_type: Text | None = None


def read_questions(path: Path | str) -> tuple[Questions, list[Finding]]:
    """Read questions about clips.

    Args:
        path: A file of JSON lines, or a folder of JSON files.

    Returns:
        The questions, and warnings and notes.

    Raises:
        BadRequest: There is no such file or folder.
        Faulty: The questions are not valid. The exception lists all findings.
    """
    questions, findings = survey_questions(Path(path))
    raise_errors(findings)
    return questions, findings


def survey_questions(path: Path) -> tuple[Questions, list[Finding]]:
    """Return the questions that can be read, and all findings. The arguments are those of `read_questions`.

    Raises:
        BadRequest: There is no such file or folder, or no line has a key that every question needs.
        Faulty: The file is not JSON lines.
    """
    findings: list[Finding] = []
    if path.is_dir():
        read = _read_folder(path, findings)
    elif path.is_file():
        read = _read_lines(path, findings)
    else:
        raise no_file(path, "JSON lines with id, audio_path, question_text, multi_choice and answer, or a folder")
    if not read and not findings:
        findings.append(Finding(str(path), message=f"has no questions; give one on each line, such as {EXAMPLE}"))
    findings += _findings(read)
    safe = [question for question, _ in read if _stays_in_folder(question.audio)]
    return Questions(tuple(safe), path), findings


Read = tuple[Question, Entry]  # a question, and the object that it was read from


def _read_lines(path: Path, findings: list[Finding]) -> list[Read]:
    entries = json_objects.parse_lines(json_objects.decode(path), str(path), EXAMPLE, findings)
    json_objects.require_keys(entries, ("id", "audio_path", "question_text", "multi_choice"), "questions")
    read = []
    for row, entry in json_objects.valid_rows(_Row, entries, findings):
        question = Question(
            row.id,
            row.question_text,
            tuple(row.multi_choice),
            row.answer,
            row.audio_path,
            row.question_type or "",
            row.source_dataset or "",
        )
        read.append((question, entry))
    return read


def _read_folder(folder: Path, findings: list[Finding]) -> list[Read]:
    entries = []
    for path in sorted(folder.rglob("*.json")):
        file = str(path)
        try:
            content = json_objects.parse(json_objects.decode(path), file)
        except Faulty as faulty:
            findings += faulty.findings
            continue
        if not isinstance(content, dict):
            message = "must have one JSON object with question, choice, answer, audio_url and question_type"
            findings.append(Finding(file, message=f"{message}; found {json_objects.shown(content)}"))
            continue
        entries.append(Entry(content, file))
    read = []
    for row, entry in json_objects.valid_rows(_File, entries, findings):
        path = Path(entry.file)
        subfolders = path.relative_to(folder).parts[:-1]
        part = subfolders[0] if subfolders else ""
        audio = "/".join([*subfolders[:1], row.audio_url.rsplit("/", maxsplit=1)[-1]])
        options = tuple(row.choice)
        question = Question(path.stem, row.question, options, row.answer, audio, row.question_type or "", part)
        read.append((question, entry))
    return read


def _findings(read: Sequence[Read]) -> list[Finding]:
    """Return the findings about single questions, repeated ids and missing answers."""
    findings = []
    first: dict[str, Entry] = {}
    for question, entry in read:
        keys = _KEYS if entry.line else _KEYS_OF_2025
        if question.id in first:
            place = f"line {first[question.id].line}" if entry.line else first[question.id].file
            message = f"the id {quoted(question.id)} is already in {place}; give each question an id of its own"
            findings.append(entry.finding("", message))
        first.setdefault(question.id, entry)
        findings += [entry.finding(keys[key], message) for key, message in _faults(question)]
    without = [entry for question, entry in read if question.answer is None]
    if without and len(without) < len(read):
        findings += [entry.finding("answer", "is missing, but other questions have it; add it") for entry in without]
    return findings


_KEYS = {"options": "multi_choice", "answer": "answer", "audio": "audio_path"}
_KEYS_OF_2025 = {"options": "choice", "answer": "answer", "audio": "audio_url"}


def _faults(question: Question) -> list[tuple[str, str]]:
    """Return what is wrong with a question: the attribute, and the message."""
    faults = []
    options = question.options
    if len(options) < 2:
        faults.append(("options", f"must be two options or more; found {len(options)}"))
    if any(not option.strip() for option in options):
        faults.append(("options", "must not be blank; fill in each option, or remove it"))
    repeated = dict.fromkeys(option for option in options if options.count(option) > 1)
    for option in repeated:
        faults.append(("options", f"must be different; found {quoted(option)} {options.count(option)} times"))
    if question.answer is not None and question.answer not in options:
        shown = ", ".join(map(quoted, options))
        message = f"must be the text of an option, verbatim; found {quoted(question.answer)}; the options are: {shown}"
        faults.append(("answer", message))
    if not _stays_in_folder(question.audio):
        message = f"must be a path in the folder of the questions; found {quoted(question.audio)}"
        faults.append(("audio", f"{message}: remove the parts before the folder"))
    return faults


def _stays_in_folder(path: str) -> bool:
    """Return False for an absolute path, a path with `..`, and a path that has such a meaning on Windows only."""
    if "\0" in path:
        return False
    for form in (PurePosixPath(path), PureWindowsPath(path)):
        if form.is_absolute() or form.drive or form.root or ".." in form.parts or not form.parts:
            return False
    return True
