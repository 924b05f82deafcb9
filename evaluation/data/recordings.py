r"""Strict reading of queries about long recordings: the ground truth of audio moment retrieval.

    recordings, notes = read_recordings(Path("castella_val_release.jsonl"))
    recordings.queries[0].windows          # ((4.0, 109.0), (122.0, 154.0)): the seconds that answer the query

Files
-----
The file is JSON lines, as CASTELLA and Clotho-Moment are published for DCASE 2026 task 6. Each line has these keys;
other keys are not read:

- `qid`: the query's id, a text or a whole number. A number is the same id as the text of its digits.
- `query`: the query.
- `vid`: the name of the recording, without extension. (The name of the key comes from video moment retrieval.)
- `duration`: the length of the recording in seconds.
- `relevant_windows`: the windows that answer the query, each as `[start, end]` in seconds. A blind set does not have
  this key.

Conventions
-----------
- Times are in seconds from the start of the recording. A window must begin at 0 or later and end after its start.
- In CASTELLA, windows may end up to two seconds after `duration`, which is rounded down. Such windows are kept as they
  are, because the task's scorer does not read `duration`, and a note counts them. A window that ends more than
  `SLACK` seconds after its recording gets a warning.
- A recording is a name and not a path: it must not contain `/` or `\`.

Sources: line/lighthouse, `data/castella` and `data/clotho_moment`.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from evaluation import json_objects
from evaluation.data.cells import SOUND_SUFFIXES
from evaluation.files import no_file
from evaluation.findings import NOTE, WARNING, Finding, raise_errors
from evaluation.json_objects import Entry, FilledText, Identifier, IsList, Number
from evaluation.text import plural, quoted

EXAMPLE = '{"qid": "a_1", "query": "A dog barks", "duration": 60, "vid": "a", "relevant_windows": [[4, 10]]}'

SLACK = 2.0  # seconds that a window may end after the recording without a warning

Window = tuple[float, float]  # start and end in seconds

# The rules that the times of a window may break (`time_faults`).
BACKWARDS = "the end is before the start"
BEFORE = "the window is before the recording"
AFTER = "the window is after the recording"
EARLY = "the start is before the recording"
LATE = "the end is after the recording"
EMPTY = "the window has no length"


@dataclass(frozen=True)
class MomentQuery:
    """A query about a recording.

    Attributes:
        id: The query's id.
        text: The query.
        recording: The name of the recording.
        seconds: The length of the recording in seconds.
        windows: The windows that answer the query; empty in a blind set.
    """

    id: str
    text: str
    recording: str
    seconds: float
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class Recordings:
    """Queries about recordings, in the order of their file.

    Attributes:
        queries: The queries.
        source: The file; None for queries that were not read from a file.
    """

    queries: tuple[MomentQuery, ...]
    source: Path | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """Describe the queries on one line."""
        names = {query.recording for query in self.queries}
        return f"Recordings({len(self.queries)} queries about {plural(len(names), 'recording')})"

    @cached_property
    def by_id(self) -> Mapping[str, MomentQuery]:
        """A dict from ids to queries."""
        return {query.id: query for query in self.queries}

    def paths(self, folder: Path) -> dict[str, Path | None]:
        """Return a dict from the name of each recording to its file in a folder, or to None if it is not there."""
        files: dict[str, Path] = {}
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path.name.lower().endswith(SOUND_SUFFIXES) and path.is_file():
                    files[path.stem] = path
        return {query.recording: files.get(query.recording) for query in self.queries}

    @property
    def is_blind(self) -> bool:
        """True if the windows are not known."""
        return not any(query.windows for query in self.queries)

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change if an id, recording or window changes."""
        content = [(query.id, query.recording, query.windows) for query in self.queries]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:8]


class _Row(BaseModel):
    """A line of the file."""

    model_config = ConfigDict(defer_build=True)

    qid: Identifier
    query: FilledText
    vid: Identifier
    duration: Number
    relevant_windows: Annotated[list[Any], IsList] | None = None


def read_recordings(path: Path | str) -> tuple[Recordings, list[Finding]]:
    """Read queries about recordings.

    Returns:
        The queries, and warnings and notes.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not valid. The exception lists all findings.
    """
    recordings, findings = survey_recordings(Path(path))
    raise_errors(findings)
    return recordings, findings


def survey_recordings(path: Path) -> tuple[Recordings, list[Finding]]:
    """Return the queries that can be read, and all findings.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not JSON lines, or contains other objects.
    """
    if not path.is_file():
        raise no_file(path, "JSON lines with qid, query, vid, duration and relevant_windows")
    findings: list[Finding] = []
    entries = json_objects.parse_lines(json_objects.decode(path), str(path), EXAMPLE, findings)
    json_objects.require_keys(entries, ("qid", "query", "vid", "duration"), "queries")
    read: list[tuple[MomentQuery, Entry]] = []
    lines: dict[str, int] = {}  # the line of each id
    durations: dict[str, tuple[float, int]] = {}  # the duration of each recording, and the line that states it
    for row, entry in json_objects.valid_rows(_Row, entries, findings):
        windows = _windows(row, entry, findings)
        if row.qid in lines:
            findings.append(entry.finding("qid", f"{quoted(row.qid)} is already in line {lines[row.qid]}; change one"))
        lines.setdefault(row.qid, entry.line)
        findings += _recording_findings(row, entry, durations)
        read.append((MomentQuery(row.qid, row.query, row.vid, row.duration, windows), entry))
    findings += _blind_findings(entries, str(path))
    findings += _late_windows(read, str(path))
    return Recordings(tuple(query for query, _ in read), path), findings


def _windows(row: _Row, entry: Entry, findings: list[Finding]) -> tuple[Window, ...]:
    """Return the windows of a line, and add a finding for each wrong one."""
    windows = []
    for index, value in enumerate(row.relevant_windows or ()):
        key = f"relevant_windows[{index}]"
        try:
            start, end = window(value)
        except ValueError as wrong:
            findings.append(entry.finding(key, str(wrong)))
            continue
        if not {EARLY, BACKWARDS, EMPTY}.isdisjoint(time_faults(start, end)):
            message = f"must begin at 0 or later and end after its start; found {json_objects.shown(value)}"
            findings.append(entry.finding(key, f"{message}: correct the seconds"))
        elif (start, end) in windows:
            findings.append(entry.finding(key, f"repeats {json_objects.shown(value)}; give each window once"))
        else:
            windows.append((start, end))
    if row.relevant_windows is not None and not row.relevant_windows:
        findings.append(entry.finding("relevant_windows", "must have one window or more; add one, or remove the query"))
    return tuple(windows)


def window(value: object) -> Window:
    """Return a value of a file as a window.

    Raises:
        ValueError: The value is not a list of two finite numbers. The message says what was found.
    """
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"must be [start, end] in seconds; found {json_objects.shown(value)}")
    start, end = (json_objects.finite_number(number) for number in value)
    return start, end


def time_faults(start: float, end: float, seconds: float = math.inf, slack: float = 0.0) -> list[str]:
    """Return the rules that the times of a window break, the most serious one first.

    The caller decides which rules matter for it: the truth must be stricter than a prediction, which is scored as it
    is given.

    Args:
        start: The start in seconds.
        end: The end in seconds.
        seconds: The length of the recording (default: not known).
        slack: Seconds that the window may end after this length.

    >>> time_faults(-2, 70, 60), time_faults(4, 10, 60)
    (['the start is before the recording', 'the end is after the recording'], [])
    """
    last = seconds + slack
    rules = {
        BACKWARDS: end < start,
        BEFORE: end < 0 or (end == 0 and start < 0),
        AFTER: start > last,
        EARLY: start < 0,
        LATE: end > last,
        EMPTY: end == start,
    }
    return [rule for rule, is_broken in rules.items() if is_broken]


def _recording_findings(row: _Row, entry: Entry, durations: dict[str, tuple[float, int]]) -> list[Finding]:
    """Check the name and the duration of a line's recording; add the duration to `durations`."""
    findings = []
    if "/" in row.vid or "\\" in row.vid:
        message = f"must be the name of a recording and not a path; found {quoted(row.vid)}: remove the folder"
        findings.append(entry.finding("vid", message))
    if row.duration <= 0:
        findings.append(entry.finding("duration", f"must be above 0 seconds; found {row.duration:g}"))
    duration, line = durations.setdefault(row.vid, (row.duration, entry.line))
    if duration != row.duration:
        message = f"must be {duration:g}, as in line {line} for the same recording; found {row.duration:g}"
        findings.append(entry.finding("duration", f"{message}: correct one of them"))
    return findings


def _blind_findings(entries: list[Entry], file: str) -> list[Finding]:
    """Check that there are queries, and that either all lines or no line have windows."""
    if not entries:
        return [Finding(file, message=f"has no queries; give one on each line, such as {EXAMPLE}")]
    without = [entry for entry in entries if entry.content.get("relevant_windows") is None]
    if not without or len(without) == len(entries):
        return []
    return [entry.finding("relevant_windows", "is missing, but other lines have it; add it") for entry in without]


def _late_windows(read: list[tuple[MomentQuery, Entry]], file: str) -> list[Finding]:
    """Return findings about windows that end after their recording: warnings, and a note that counts the others."""
    findings = []
    late = []
    for query, entry in read:
        for index, (start, end) in enumerate(query.windows):
            excess = end - query.seconds
            if excess > SLACK:
                message = f"ends {excess:g} s after the recording, which is {query.seconds:g} s long"
                message += f"; found [{start:g}, {end:g}]: it is kept as given; check the seconds"
                warning = entry.finding(f"relevant_windows[{index}]", message)
                findings.append(replace(warning, severity=WARNING))
            elif excess > 0:
                late.append(excess)
    if late:
        number = f"{plural(len(late), 'window')} {'ends' if len(late) == 1 else 'end'}"
        message = f"{number} after the recording, by up to {max(late):g} s; windows are kept as given"
        findings.append(Finding(file, message=message, severity=NOTE))
    return findings
