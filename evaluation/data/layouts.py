"""Data folders with questions about clips, or with queries about long recordings.

    LAYOUTS[layout_of(Path("data/recordings"))].content     # 'queries about recordings'

`evaluation.data.split_files` says which file belongs to a split. The paths of clips are relative to the file or folder
of their questions (`evaluation.data.questions`). The recordings of a split are in `SPLIT/`; the file of a recording has
its name and a suffix (`evaluation.data.recordings`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evaluation.data.questions import Questions, survey_questions
from evaluation.data.recordings import Recordings, survey_recordings
from evaluation.data.split_files import CHOICE, MOMENTS, split_files
from evaluation.findings import Finding


@dataclass(frozen=True)
class Layout:
    """The layout of a kind of data folder.

    Attributes:
        content: The noun for the content of such a folder, for messages.
        survey: Function that reads a file or folder of a split. It returns the content that can be read, and all
            findings.
        counted: The nouns for what `counts` counts.
        counts: Function that returns these counts of a content, for a table.
        seconds: Function that returns a dict from recordings to the lengths in seconds that the queries state.
        sounds: Function that returns a dict from the clips or recordings of a content to their audio files; a value is
            None if the file is not there. Its second argument is the folder of the split's recordings.
    """

    content: str
    survey: Callable[[Path], tuple[Any, list[Finding]]]
    counted: tuple[str, ...]
    counts: Callable[[Any], list[int]]
    seconds: Callable[[Any], Mapping[str, float]]
    sounds: Callable[[Any, Path], Mapping[str, Path | None]]


def layout_of(folder: Path) -> str:
    """Return the key in `LAYOUTS` of a folder's layout, or an empty text for other folders."""
    for kind in LAYOUTS:
        if split_files(folder, kind):
            return kind
    return ""


def main_layout_of(folder: Path) -> str:
    """Return the same as `layout_of`, but an empty text for a folder that also has clips with captions."""
    if any(folder.glob("*captions*.csv")):
        return ""
    return layout_of(folder)


def _counts_of_questions(questions: Questions) -> list[int]:
    return [len(questions.questions), len(questions.paths)]


def _sounds_of_questions(questions: Questions, folder: Path) -> dict[str, Path | None]:
    return {clip: path if path.is_file() else None for clip, path in questions.paths.items()}


def _counts_of_recordings(recordings: Recordings) -> list[int]:
    windows = sum(len(query.windows) for query in recordings.queries)
    return [len(recordings.queries), len(_seconds_of_recordings(recordings)), windows]


def _seconds_of_recordings(recordings: Recordings) -> dict[str, float]:
    return {query.recording: query.seconds for query in recordings.queries}


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        CHOICE: Layout(
            "questions about clips",
            survey_questions,
            ("questions", "clips"),
            _counts_of_questions,
            lambda questions: {},
            _sounds_of_questions,
        ),
        MOMENTS: Layout(
            "queries about recordings",
            survey_recordings,
            ("queries", "recordings", "windows"),
            _counts_of_recordings,
            _seconds_of_recordings,
            Recordings.paths,
        ),
    }
)
