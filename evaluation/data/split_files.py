"""The files of the splits in a data folder of questions about clips, or of queries about long recordings.

    split_file(Path("data/recordings"), "moments", "evaluation")    # data/recordings/moments_evaluation.jsonl

The file of a split is `questions_SPLIT.jsonl` or `moments_SPLIT.jsonl`. A split of questions may also be a folder
`questions_SPLIT/` with JSON files, as in DCASE 2025 task 5.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from evaluation.data.dataset import SPLITS
from evaluation.findings import BadRequest

CHOICE, MOMENTS = "choice", "moments"  # the kinds of such data folders, as in `evaluation.kinds`
STEMS: Mapping[str, str] = MappingProxyType({CHOICE: "questions", MOMENTS: "moments"})  # beginnings of file names


def split_files(folder: Path, kind: str) -> dict[str, Path]:
    """Return a dict from each split in a data folder to its file or folder, in the order of `SPLITS`.

    Args:
        folder: The data folder. The result is empty if there is no such folder.
        kind: `CHOICE` or `MOMENTS`.
    """
    files = {}
    for split in SPLITS:
        file = folder / f"{STEMS[kind]}_{split}.jsonl"
        if file.is_file():
            files[split] = file
        elif kind == CHOICE and file.with_suffix("").is_dir():
            files[split] = file.with_suffix("")
    return files


def split_file(folder: Path, kind: str, split: str) -> Path:
    """Return the file or folder of a split.

    Args:
        folder: The data folder.
        kind: `CHOICE` or `MOMENTS`.
        split: The name of the split.

    Raises:
        BadRequest: The split has no such file or folder.
    """
    files = split_files(folder, kind)
    if split in files:
        return files[split]
    existing = ", ".join(files) or "none"
    file = folder / f"{STEMS[kind]}_{split}.jsonl"
    raise BadRequest(f"{file}: no such file; the splits in this folder: {existing}")
