"""Files and folders that appear whole or not at all, and those that are not there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from evaluation.findings import BadRequest


def no_file(path: Path, wanted: str) -> BadRequest:
    """Say that a prediction is not there, or is a folder; of a run's folder, which predictions it holds.

    Args:
        path: What was given.
        wanted: What to give, in words.
    """
    if not path.is_dir():
        return BadRequest(f"{path}: no such file; give {wanted}")
    held = sorted(str(file) for file in path.glob("predictions/*") if file.suffix in (".npz", ".csv"))
    return BadRequest(f"{path}: is a folder; give {' or '.join(held) or wanted}")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to, and rename it to `target` when the block ends well.

    When the block fails, what it wrote is removed and `target` is what it was. Parent folders are made.

    Raises:
        BadRequest: `target` is a folder, a device or a pipe, which a file must not take the place of.
    """
    target = Path(target)  # a string is a path to most people
    if target.exists() and not target.is_file():
        raise BadRequest(f"{target}: must be a file or not there; it is something else: give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to fill, and rename it to `target` when the block ends well.

    `target` must not be there, or be empty. When the block fails, what it wrote is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    part.chmod(0o755)
    try:
        yield part
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
