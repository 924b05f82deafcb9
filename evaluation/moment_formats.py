"""Reading and writing predictions of audio moment retrieval: the best windows of each query.

    moments = read_moments(Path("submission.jsonl"))
    score = metrics.moments.evaluate(recordings, moments)

Files
-----
JSON lines, or a JSON list of the same objects. Each object has the keys `qid` and `pred_relevant_windows`; `vid` is
compared with the ground truth if it is given, and other keys are not read. A window has one of two forms:

- development form, `submission.jsonl` of DCASE 2026 task 6: `[start, end, score]`. A higher score is better.
- blind form, `private_submission.jsonl`: `[start, end]`, best first.

All windows of a file must have the same form. This module checks the form of a file. `evaluation.metrics.moments`
checks that a prediction fits the ground truth.

Sources: ta0ta0-star/DCASE-AMR, `src/create_submission.py` and `src/standalone_eval/README.md`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluation import json_objects
from evaluation.files import no_file, replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.json_objects import Entry, Identifier, IsList
from evaluation.values import numbers, require_dict, texts

EXAMPLE = '{"qid": "a_1", "vid": "a", "pred_relevant_windows": [[4.0, 10.0, 0.9]]}'


@dataclass(frozen=True)
class Moments:
    """The best windows of each query.

    Attributes:
        ids: The ids of the queries, in the order of the file.
        windows: For each query, an array of shape (n, 2) with the start and end of its n windows in seconds, in the
            order of the file.
        scores: For each query, the (n,) scores of its windows. Empty if the file has no scores; the windows are then
            best first.
        recordings: For each query, the name of its recording, or "" if the file does not state it; empty if no query
            has one.
        lines: The line number of each query in its file; empty for a prediction that was not read from lines.
    """

    ids: tuple[str, ...]
    windows: tuple[np.ndarray, ...]
    scores: tuple[np.ndarray, ...] = ()
    recordings: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """Describe the prediction on one line."""
        form = "with scores" if self.scores else "best first"
        return f"Moments({len(self.ids)} queries, {form})"

    @classmethod
    def of(cls, windows: object) -> "Moments":
        """Make a prediction from a dict from ids to windows, each (start, end) or (start, end, score).

        Args:
            windows: The dict. The windows of a query are a list of lists, an array or a tensor.

        Raises:
            ValueError: The value is not a dict, a window has another form, or only some windows have scores.
        """
        arrays = []
        by_id = require_dict(windows, "the windows", "from ids to windows, or Moments")
        for name, given in by_id.items():
            array = numbers(given, f"the windows of {name!r}")
            arrays.append(array.reshape(0, 2) if not array.size else array)
        widths = {array.shape[1] if array.ndim == 2 else 0 for array in arrays if array.size}
        if not widths <= {2} and not widths <= {3}:
            raise ValueError("windows must all be (start, end), or all be (start, end, score)")
        scores: tuple[np.ndarray, ...] = ()
        if widths == {3}:
            scores = tuple(array[:, 2] if array.size else np.zeros(0) for array in arrays)
        return cls(texts(list(by_id), "ids"), tuple(array[:, :2] for array in arrays), scores)


class _Row(BaseModel):
    """An object of the file."""

    model_config = ConfigDict(defer_build=True)

    qid: Identifier
    vid: Identifier = ""
    pred_relevant_windows: Annotated[list[Any], IsList]


def read_moments(path: Path | str) -> Moments:
    """Read a prediction of a moment retrieval system.

    Raises:
        BadRequest: There is no such file, or its name does not end in .jsonl, .ndjson or .json.
        Faulty: The file is not valid. The exception lists all findings.
    """
    moments, findings = survey_moments(Path(path))
    if findings:
        raise Faulty(findings)
    return moments


def survey_moments(path: Path) -> tuple[Moments, list[Finding]]:
    """Return the queries and windows that can be read, and all findings.

    If there are findings, the scores are left out.

    Raises:
        BadRequest: As `read_moments`.
        Faulty: The file is neither JSON lines nor a JSON list, or contains other objects.
    """
    if not path.is_file():
        raise no_file(path, "JSON lines with qid and pred_relevant_windows")
    if path.suffix.lower() not in json_objects.JSON_FILES:
        raise BadRequest(f"{path}: must be JSON lines (.jsonl) or JSON (.json); give such a file, or rename it")
    findings: list[Finding] = []
    entries = json_objects.read_objects(path, EXAMPLE, findings)
    json_objects.require_keys(entries, ("qid", "pred_relevant_windows"), "windows of queries")
    rows = json_objects.valid_rows(_Row, entries, findings)
    windows: list[list[list[float]]] = []
    expected = 0  # number of elements of the windows of the first query whose windows all have one form
    for row, entry in rows:
        of_query = _windows(row, entry, findings)
        widths = {len(values) for values in of_query}
        if len(widths) == 1:
            expected = expected or len(of_query[0])
        findings += _form_findings(widths, expected, entry)
        windows.append(of_query)
    scores: tuple[np.ndarray, ...] = ()
    if expected == 3 and not findings:
        scores = tuple(np.array([score for _, _, score in of_query]) for of_query in windows)
    moments = Moments(
        tuple(row.qid for row, _ in rows),
        tuple(np.array([values[:2] for values in of_query]).reshape(-1, 2) for of_query in windows),
        scores,
        tuple(row.vid for row, _ in rows) if any(row.vid for row, _ in rows) else (),
        tuple(entry.line for _, entry in rows if entry.line),
    )
    return moments, findings


def _windows(row: _Row, entry: Entry, findings: list[Finding]) -> list[list[float]]:
    """Return the windows of an object that can be read, and add a finding for each other one."""
    key = "pred_relevant_windows"
    windows: list[list[float]] = []
    for index, value in enumerate(row.pred_relevant_windows):
        try:
            windows.append(_window(value))
        except ValueError as wrong:
            findings.append(entry.finding(f"{key}[{index}]", str(wrong)))
    if not row.pred_relevant_windows:
        message = "must have one window or more, because the task's scorer refuses a query without windows"
        findings.append(entry.finding(key, f"{message}; add the best one"))
    return windows


def _window(value: object) -> list[float]:
    if not isinstance(value, list) or len(value) not in (2, 3):
        found = json_objects.shown(value)
        raise ValueError(f"must be [start, end, score] or [start, end] in seconds; found {found}")
    return [json_objects.finite_number(number) for number in value]


def _form_findings(widths: set[int], expected: int, entry: Entry) -> list[Finding]:
    """Check that all windows of an object have the number of elements that the file's windows have.

    Args:
        widths: The different numbers of elements of the object's windows.
        expected: The number that the file's windows have.
        entry: The object.
    """
    key, forms = "pred_relevant_windows", {2: "[start, end]", 3: "[start, end, score]"}
    if len(widths) > 1:
        message = "must have windows of one form, [start, end, score] or [start, end]; found both: give all a score"
        return [entry.finding(key, message)]
    if widths <= {expected}:
        return []
    message = f"must have windows {forms[expected]}, as the first query; found {forms[max(widths)]}"
    return [entry.finding(key, f"{message}: use one form in the whole file")]


def write_moments(path: Path, moments: Moments, queries: Mapping[str, str], recordings: Mapping[str, str]) -> None:
    """Write a prediction as JSON lines, completely or not at all.

    Args:
        path: The file.
        moments: The prediction. Windows without scores are written in the blind form.
        queries: A dict from ids to the texts of queries.
        recordings: A dict from ids to the names of recordings.
    """
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for index, name in enumerate(moments.ids):
            windows = moments.windows[index]
            if moments.scores:
                windows = np.column_stack([windows, moments.scores[index]])
            content = {
                "qid": name,
                "query": queries[name],
                "vid": recordings[name],
                "pred_relevant_windows": windows.tolist(),
            }
            file.write(json.dumps(content, ensure_ascii=False) + "\n")
