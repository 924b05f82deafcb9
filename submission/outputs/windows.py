"""The output of audio moment retrieval: JSON lines with the best windows of each query.

There are two forms. In the development form, a window is `[start, end, score]`. In the blind form, which teams submit,
it is `[start, end]`, and the windows of a query are best first. All windows of a file must have the same form.

Source: ta0ta0-star/DCASE-AMR, `src/create_submission.py` and `src/standalone_eval/README.md`.
"""

import codecs
import difflib
import io
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation import json_objects
from evaluation.data import recordings
from evaluation.data.recordings import MomentQuery
from evaluation.findings import ERROR, WARNING, Faulty, Finding
from evaluation.json_objects import finite_number, shown
from evaluation.metrics import moments
from evaluation.moment_formats import Moments
from evaluation.text import cut, quoted
from submission.outputs import keys
from submission.outputs.form import FileSplit, Form
from submission.outputs.tables import check_lines, read_bytes

if TYPE_CHECKING:
    from submission.tasks import Task

LONGEST_LINE = 2**20  # maximum number of bytes of a line; ten windows of a long query need a thousandth of it
LINES = 1_000_000  # maximum number of lines
# For each rule of `recordings.time_faults`, the message and its severity. `{:g}` is the length of the recording.
_TIME_FAULTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        recordings.BACKWARDS: ("must end after its start; exchange the two times", ERROR),
        recordings.BEFORE: ("must be inside the recording, which begins at 0 s", ERROR),
        recordings.AFTER: ("must be inside the recording, which is {:g} s long", ERROR),
        recordings.EARLY: ("begins before the recording; begin at 0 s", WARNING),
        recordings.LATE: ("ends after the recording, which is {:g} s long", WARNING),
        recordings.EMPTY: ("has no length, so it counts as wrong", WARNING),
    }
)


class WindowLines(Form):
    """JSON lines with the best windows of each query."""

    suffix = ".jsonl"
    facts = ("k", "scores")
    submitted = "up to {k} windows of the recording for each query, best first"
    own_prediction = (
        "write {split}.jsonl, with qid and pred_relevant_windows ([start, end] in seconds, best first) in each line"
    )

    def check_facts(self, task: "Task") -> None:
        """Check that the task has four different keys."""
        names = task.columns.value
        if len(set(names)) != 4 or len(names) != 4 or any("{" in name for name in names):
            message = "columns.value must have four keys for the form windows: of the id, the query, the recording and "
            raise ValueError(f"{message}the windows")

    def write(self, task: "Task", prediction: Moments, split: FileSplit, path: Path, file: str) -> None:
        """Write the first k windows of each query. The arguments are those of `outputs.write`.

        If the prediction has scores, the windows are sorted by falling scores; equal scores keep their order.
        """
        moments.validate(split.content, prediction, file)
        row_of = {name: row for row, name in enumerate(prediction.ids)}
        names = task.columns.value
        with path.open("w", encoding="utf-8", newline="") as out:
            for query in split.content.queries:
                windows = _best_windows(prediction, row_of[query.id], most_windows(task), has_scores(task))
                values = (query.id, query.text, query.recording, windows)
                content = dict(zip(names, values, strict=True))
                out.write(json.dumps(content, ensure_ascii=False) + task.line_end.value)

    def check(self, task: "Task", path: Path, split: Any, file: str) -> Iterator[Finding]:
        """Yield all findings about a file, in any order."""
        expected: Mapping[str, MomentQuery] = {}
        if not isinstance(split, str):
            expected = split.content.by_id
        try:
            raw = _read(path, len(expected), file)
        except Faulty as faulty:
            yield from faulty.findings
            return
        if raw.startswith(codecs.BOM_UTF8):
            yield Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING)
        reader = _Reader(task, expected, file)
        for number, line in enumerate(io.BytesIO(raw.removeprefix(codecs.BOM_UTF8)), start=1):
            if line.strip():
                yield from reader.check_line(number, line)
        yield from reader.check_forms()
        name = task.columns.value[0]
        if isinstance(split, str):
            yield from keys.check_count(task, split, path.name, len(reader.lines), keys.MOMENT, file, name)
        elif not reader.is_unreadable:  # otherwise the queries of lines that cannot be read would be missing
            yield from keys.compare(
                reader.lines, expected, keys.MOMENT, split, file, lambda key: (reader.lines.get(key, 0), name)
            )

    def describe(self, task: "Task") -> str:
        """Describe the keys."""
        name, query, recording, windows = task.columns.value
        form = "`[start, end]` in seconds, best first"
        if has_scores(task):
            form = "`[start, end, score]` in seconds, best first"
        return (
            "The **output** is a file of JSON lines in UTF-8, with one line for each query. The keys are "
            f"`{name}` (the query's id), `{query}` (its text), `{recording}` (the name of the recording) and "
            f"`{windows}`: 1 to {most_windows(task)} windows {form}."
        )


def most_windows(task: "Task") -> int:
    """Return the maximum number of windows of a query. Every task with this form has it."""
    assert task.k is not None  # noqa: S101, the schema of tasks has checked it
    return task.k.value


def has_scores(task: "Task") -> bool:
    """Return whether each window has a third number, its score. Every task with this form states this."""
    assert task.scores is not None  # noqa: S101, the schema of tasks has checked it
    return task.scores.value


def _best_windows(prediction: Moments, row: int, k: int, with_scores: bool) -> list[list[float]]:
    """Return the windows of a query, best first, with their scores if the task asks for them.

    Without scores in the prediction, the scores are falling whole numbers.
    """
    windows = prediction.windows[row][:k]
    if prediction.scores:
        scores = prediction.scores[row][:k]
    else:
        scores = -np.arange(len(windows), dtype=float)
    order = np.argsort(-scores, kind="stable")
    best: list[list[float]] = windows[order].tolist()
    if with_scores:
        return [[*times, score] for times, score in zip(best, scores[order].tolist(), strict=True)]
    return best


def _read(path: Path, expected: int, file: str) -> bytes:
    """Return the content of a file.

    Raises:
        Faulty: The file is too large, has far too many lines, or is not text.
    """
    raw = read_bytes(path, file)
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Faulty([Finding(file, message="must be UTF-8; this is UTF-16: save it as UTF-8")])
    lines = raw.count(b"\n")
    if lines > LINES:
        raise Faulty([Finding(file, message=f"must not have more than {LINES} lines; it does: is it an output file?")])
    check_lines(lines, expected, keys.MOMENT, file)
    if not lines and raw.strip().count(b"\r"):
        message = "lines must end in LF or CRLF; found CR without LF: save the file with other line ends"
        raise Faulty([Finding(file, 1, message=message)])
    return raw


@dataclass
class _Reader:
    """The check of the lines of a file, one after the other.

    Attributes:
        task: The task.
        expected: A dict from ids to the queries of the split; empty if the data are not available.
        file: The file's name in findings.
        lines: A dict from each id so far to its line.
        is_unreadable: True if a line so far has no id that can be read.
        wrong_forms: The places of windows with the wrong number of elements: line, key and the window.
        right_forms: The number of windows with the right number of elements.
    """

    task: "Task"
    expected: Mapping[str, MomentQuery]
    file: str
    lines: dict[str, int] = field(default_factory=dict)
    is_unreadable: bool = False
    wrong_forms: list[tuple[int, str, object]] = field(default_factory=list)
    right_forms: int = 0

    def check_line(self, number: int, line: bytes) -> Iterator[Finding]:
        """Yield the findings about a line, except for those of `check_forms`."""
        content, findings = self._parsed(number, line)
        yield from findings
        if content is None:
            self.is_unreadable = True
            return
        values, findings = self._values(number, content)
        yield from findings
        name_key, query_key, recording_key, windows_key = self.task.columns.value
        name, fault = _id(values.get(name_key))
        if name_key in values and fault:
            yield Finding(self.file, number, name_key, fault)
        query = None
        if not name:
            self.is_unreadable = True
        else:
            yield from keys.add_key(self.lines, name, number, keys.MOMENT, self.file, name_key)
            query = self.expected.get(name)
        if query:
            for key, right in ((query_key, query.text), (recording_key, query.recording)):
                if key in values and values[key] != right:
                    message = f"must be {quoted(right)}, as in the data; found {cut(shown(values[key]))}"
                    yield Finding(self.file, number, key, f"{message}: is this the prediction of another query?")
        if windows_key in values:
            yield from self._check_windows(number, windows_key, values[windows_key], query)

    def _parsed(self, number: int, line: bytes) -> tuple[dict[str, Any] | None, list[Finding]]:
        """Return the object of a line, or None and the findings if the line is not a JSON object."""
        if len(line) > LONGEST_LINE:
            message = f"must not be longer than {LONGEST_LINE} bytes; found {len(line)}: is it an output file?"
            return None, [Finding(self.file, number, message=message)]
        try:
            content = json_objects.parse(line.decode("utf-8"), self.file, number)
        except UnicodeDecodeError:
            return None, [Finding(self.file, number, message="must be UTF-8; it is not: save the file as UTF-8")]
        except Faulty as faulty:
            return None, faulty.findings
        if not isinstance(content, dict):
            message = f"must be a JSON object with {' and '.join(self.task.columns.value)}; found {shown(content)}"
            return None, [Finding(self.file, number, message=message)]
        return content, []

    def _values(self, number: int, content: Mapping[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
        """Return the values of the known keys, including misspelt ones, and findings about the keys."""
        names = self.task.columns.value
        values = {key: content[key] for key in names if key in content}
        findings = []
        missing = [key for key in names if key not in content]
        for key in content:
            if key in names:
                continue
            close = difflib.get_close_matches(key[:100].casefold(), missing, 1, 0.8)
            if close:
                missing.remove(close[0])
                values[close[0]] = content[key]
                findings.append(Finding(self.file, number, cut(key), f"must be named {close[0]}; rename it"))
            else:
                message = f"is not a key of {self.task.name}; remove it"
                findings.append(Finding(self.file, number, cut(key), message, WARNING))
        for key in missing:
            findings.append(Finding(self.file, number, key, "is missing; add it"))
        return values, findings

    def _check_windows(self, number: int, key: str, value: object, query: MomentQuery | None) -> Iterator[Finding]:
        """Yield the findings about the windows of a line."""
        most = most_windows(self.task)
        if not isinstance(value, list) or not value:
            message = f"must be a list of 1 to {most} windows, best first; found {shown(value)}"
            yield Finding(self.file, number, key, message)
            return
        if all(isinstance(each, int | float) for each in value):
            message = f"must be a list of windows, each {self._form}; found {shown(value)}: put the window into a list"
            yield Finding(self.file, number, key, message)
            return
        if len(value) > most:
            message = f"must have {most} windows at most; found {len(value)}: keep the best {most}"
            yield Finding(self.file, number, key, message)
        seen: list[tuple[float, ...]] = []
        for index, window in enumerate(value[:most]):
            place = f"{key}[{index}]"
            size, other_size = (3, 2) if has_scores(self.task) else (2, 3)
            if isinstance(window, list) and len(window) == other_size:
                self.wrong_forms.append((number, place, window))
                continue
            if not isinstance(window, list) or len(window) != size:
                yield Finding(self.file, number, place, f"must be {self._form}; found {shown(window)}")
                continue
            self.right_forms += 1
            try:
                numbers = tuple(finite_number(each) for each in window)
            except ValueError as wrong:
                yield Finding(self.file, number, place, f"every number {wrong}")
                continue
            fault, severity = _time_fault(numbers[0], numbers[1], query)
            if fault:
                yield Finding(self.file, number, place, f"{fault}; found {shown(window)}", severity)
            elif numbers[:2] in seen:
                message = f"repeats {shown(window)}, and each truth window counts only once; remove it"
                yield Finding(self.file, number, place, message, WARNING)
            seen.append(numbers[:2])
        yield from self._check_order(number, key, value[:most])

    def _check_order(self, number: int, key: str, windows: Sequence[object]) -> Iterator[Finding]:
        """Yield a finding if the task asks for scores and they are not falling."""
        if not has_scores(self.task):
            return
        scores = [window[2] for window in windows if isinstance(window, list) and len(window) == 3]
        if any(isinstance(score, bool) or not isinstance(score, int | float) for score in scores):
            return
        if any(later > earlier for earlier, later in itertools.pairwise(scores)):
            yield Finding(self.file, number, key, "must be sorted by falling scores; sort the windows")

    @property
    def _form(self) -> str:
        if has_scores(self.task):
            return "[start, end, score], with times in seconds"
        return "[start, end] in seconds"

    def check_forms(self) -> Iterator[Finding]:
        """Yield findings about windows of the other form: a single one if all windows have it."""
        if not self.wrong_forms:
            return
        advice = "give the development form, with a score in each window"
        if not has_scores(self.task):
            advice = "this is the development form: remove the scores, and keep the windows best first"
        number, place, window = self.wrong_forms[0]
        if not self.right_forms:
            message = f"all windows of a {self.task.name} output must be {self._form}; found {shown(window)}; {advice}"
            yield Finding(self.file, number, place, message)
            return
        for number, place, window in self.wrong_forms:
            message = f"must be {self._form}, as other windows of the file; found {shown(window)}"
            yield Finding(self.file, number, place, f"{message}: use one form in the whole file")


def _id(value: object) -> tuple[str, str]:
    """Return the id that a value stands for, or "" and a message if it is not an id."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), ""
    if not isinstance(value, str):
        return "", f"must be a text or a whole number; found {shown(value)}"
    if not value.strip():
        return "", "must not be blank; write the query's id"
    return value, ""


def _time_fault(start: float, end: float, query: MomentQuery | None) -> tuple[str, str]:
    """Return the message about the times of a window, without what was found, and its severity.

    The message is empty if the times are possible. A window that is partly outside the recording gets a warning,
    because the task's scorer scores it as it is. A recording may be up to `recordings.SLACK` seconds longer than the
    data state, because its length is rounded down.
    """
    seconds = query.seconds if query else math.inf
    faults = recordings.time_faults(start, end, seconds, recordings.SLACK)
    if not faults:
        return "", ERROR
    message, severity = _TIME_FAULTS[faults[0]]
    return message.format(seconds), severity
