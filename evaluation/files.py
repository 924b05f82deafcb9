"""Files and folders that appear whole or not at all, and those that are not there."""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
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

    When the block fails, what it wrote is removed and `target` is what it was. Parent folders are made. Unfinished
    files that killed processes left for the same target are removed first.

    Raises:
        BadRequest: `target` is a folder, a device or a pipe, which a file must not take the place of.
    """
    target = Path(target)  # a string is a path to most people
    if target.exists() and not target.is_file():
        raise BadRequest(f"{target}: must be a file or not there; it is something else: give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(target)
    part = target.with_name(f".{target.name}.{_owner()}.part")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to fill, and rename it to `target` when the block ends well.

    `target` must not be there, or be empty. When the block fails, what it wrote is removed. Unfinished folders that
    killed processes left for the same target are removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(target)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.{_owner()}.", suffix=".part", dir=target.parent))
    part.chmod(0o755)
    try:
        yield part
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _owner() -> str:
    """Return the part of an unfinished file's name that says which process writes it."""
    return f"{os.getpid()}-{_machine()}"


@functools.cache
def _machine() -> str:
    """Return eight hexadecimal digits of this machine and, in a container, of the container.

    A process number means something only there: folders may be shared between machines and containers.
    """
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux, which has no such thing
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _remove_unfinished(target: Path) -> None:
    """Remove what processes of this machine that are no longer alive were writing for `target`."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"(\d+)-" + _machine() + r"(\.[^.]*)?\.part")
    for unfinished in target.parent.iterdir():
        match = pattern.fullmatch(unfinished.name)
        if not match or _is_alive(int(match[1])):
            continue
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                unfinished.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's process; no process at all, so nothing of ours
        return True
    return True
