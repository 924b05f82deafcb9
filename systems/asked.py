"""Splits of questions about clips, and of queries about long recordings, together with their audio files.

    dataset = read_data(Path("data/recordings"), "validation")
    dataset["validation"].paths        # {'recording_0001': Path('data/recordings/validation/recording_0001.wav'), …}

Layout
------
For each split, a data folder has one of these, in the forms that `evaluation.data.questions` and
`evaluation.data.recordings` describe:

- `questions_SPLIT.jsonl` or a folder `questions_SPLIT/`; the paths of the clips are relative to this file or folder.
- `moments_SPLIT.jsonl`, and the recordings in `SPLIT/`; the file of a recording has its name and a suffix.

All other folders are read as folders of clips with captions (`evaluation.data.dataset`). If a folder has both, it
counts as a folder of clips with captions, unless the caller names the kind.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from evaluation.data.dataset import SPLITS, Dataset, read_dataset
from evaluation.data.layouts import LAYOUTS, main_layout_of
from evaluation.data.split_files import STEMS, split_file
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.kinds import KINDS
from evaluation.text import unknown_key

CLIPS = "clips"  # the other kinds are `CHOICE` and `MOMENTS`


@dataclass(frozen=True)
class AskedSplit:
    """A split of questions about clips, or of queries about recordings.

    Attributes:
        name: The name of the split.
        kind: `CHOICE` or `MOMENTS`.
        content: The questions or the queries.
        paths: A dict from the name of each clip or recording to its audio file. The name of a clip is its path in
            the questions.
    """

    name: str
    kind: str
    content: Any
    paths: Mapping[str, Path]

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that change if the content or the size of an audio file changes."""
        sizes = [path.stat().st_size for path in self.paths.values()]
        return hashlib.sha256(repr((self.content.fingerprint, sizes)).encode()).hexdigest()[:8]


def read_data(folder: Path, *splits: str, kind: str = "") -> Dataset:
    """Read splits of a data folder of any kind, and check that every clip or recording has an audio file.

    Args:
        folder: The data folder.
        splits: The names of the splits.
        kind: `CLIPS`, `CHOICE` or `MOMENTS` (default: `kind_of_folder`).

    Raises:
        BadRequest: There is no such folder, or it does not contain such a split.
        Faulty: The data are not valid, or audio files are missing. The exception lists all findings.
    """
    kind = kind or kind_of_folder(folder)
    if kind == CLIPS:
        return read_dataset(folder, *splits)
    read: dict[str, Any] = {}
    notes: list[Finding] = []
    missing: list[Finding] = []
    for split in splits:
        if split not in SPLITS:
            raise BadRequest(unknown_key(split, SPLITS, "split"))
        source = split_file(folder, kind, split)
        content, found = KINDS[kind].read_truth(source, split)
        notes += found
        paths = LAYOUTS[kind].sounds(content, folder / split)
        existing = {name: path for name, path in paths.items() if path}
        missing += _missing_sounds([name for name in paths if name not in existing], source)
        read[split] = AskedSplit(split, kind, content, existing)
    if missing:
        raise Faulty(missing)
    return Dataset(folder, read, tuple(notes))


def kind_of_folder(folder: Path) -> str:
    """Return the kind of a data folder: `CLIPS`, `CHOICE` or `MOMENTS`."""
    return main_layout_of(folder) or CLIPS


def require_kind(system: ModuleType, dataset: Dataset, *splits: str) -> None:
    """Make sure that a system can train on a data folder: the constant `DATA` of the system names its kind.

    Raises:
        BadRequest: The folder has data of another kind.
    """
    expected = getattr(system, "DATA", CLIPS)
    found = {getattr(dataset[split], "kind", CLIPS) for split in splits}
    for kind in found - {expected}:
        message = f"must have {_content(expected)}, on which {system.__name__} trains; found {_content(kind)}"
        raise BadRequest(f"{dataset.folder}: {message}: give another data folder, or train another system")


def _content(kind: str) -> str:
    """Return the noun for the content of a data folder, with the names of its files."""
    if kind == CLIPS:
        return "clips with captions (captions_SPLIT.csv)"
    return f"{LAYOUTS[kind].content} ({STEMS[kind]}_SPLIT.jsonl)"


def _missing_sounds(names: Sequence[str], source: Path) -> list[Finding]:
    findings = []
    for name in names:
        message = f"no audio file of {name!r}; add it, or remove what is asked about it"
        findings.append(Finding(str(source), message=message))
    return findings
