"""Data folders with questions about clips, or with queries about long recordings.

    layout = LAYOUTS["moments"]
    layout.sources(Path("data/recordings"))     # {'evaluation': Path('data/recordings/moments_evaluation.jsonl'), …}

For each split, a folder of questions has `questions_SPLIT.jsonl` or the folder `questions_SPLIT/`. The paths of the
clips are relative to this file or folder (`evaluation.data.questions`). A folder of recordings has
`moments_SPLIT.jsonl` and the recordings in `SPLIT/`; the file of a recording has its name and a suffix
(`evaluation.data.recordings`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evaluation.data.dataset import SPLITS
from evaluation.data.questions import Questions, survey_questions
from evaluation.data.recordings import Recordings, survey_recordings
from evaluation.findings import Finding


@dataclass(frozen=True)
class Layout:
    """The layout of a kind of data folder.

    Attributes:
        content: The noun for the content of such a folder, for messages.
        stem: Beginning of the names of its files, such as `questions` for `questions_evaluation.jsonl`.
        has_folders: True if a split may also be a folder of JSON files, such as `questions_evaluation/`.
        survey: Function that reads a file or folder of a split. It returns the content that can be read, and all
            findings.
        counted: The nouns for what `counts` counts.
        counts: Function that returns these counts of a content, for a table.
        seconds: Function that returns a dict from recordings to the lengths in seconds that the queries state.
        sounds: Function that returns a dict from the clips or recordings of a content to their audio files; a value is
            None if the file is not there. Its second argument is the folder of the split's recordings.
    """

    content: str
    stem: str
    has_folders: bool
    survey: Callable[[Path], tuple[Any, list[Finding]]]
    counted: tuple[str, ...]
    counts: Callable[[Any], list[int]]
    seconds: Callable[[Any], Mapping[str, float]]
    sounds: Callable[[Any, Path], Mapping[str, Path | None]]

    def source(self, folder: Path, split: str) -> Path | None:
        """Return the file or folder of a split, or None if the split is not there."""
        file = folder / f"{self.stem}_{split}.jsonl"
        if file.is_file():
            return file
        if self.has_folders and file.with_suffix("").is_dir():
            return file.with_suffix("")
        return None

    def sources(self, folder: Path) -> dict[str, Path]:
        """Return a dict from the splits in a folder to their files or folders."""
        found = {split: self.source(folder, split) for split in SPLITS}
        return {split: path for split, path in found.items() if path}


def layout_of(folder: Path) -> str:
    """Return the key in `LAYOUTS` of a folder's layout, or an empty text for other folders."""
    for kind, layout in LAYOUTS.items():
        if layout.sources(folder):
            return kind
    return ""


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
        "choice": Layout(
            "questions about clips",
            "questions",
            True,
            survey_questions,
            ("questions", "clips"),
            _counts_of_questions,
            lambda questions: {},
            _sounds_of_questions,
        ),
        "moments": Layout(
            "queries about recordings",
            "moments",
            False,
            survey_recordings,
            ("queries", "recordings", "windows"),
            _counts_of_recordings,
            _seconds_of_recordings,
            Recordings.paths,
        ),
    }
)
