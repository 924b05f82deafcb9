"""Writing files and folders completely or not at all, the cache folder, and messages for missing files."""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluation.findings import BadRequest

DEFAULT_CACHE = "~/.cache/dcase-kit"  # name of the default folder in the help of commands


def cache_folder() -> Path:
    """Return the folder of the user's caches, which all commands use by default.

    It is $DCASE_KIT_CACHE if this variable is set. Otherwise it is the folder `dcase-kit` in $XDG_CACHE_HOME, or in
    ~/.cache if that variable is not set either. The folder may not exist.
    """
    own = os.environ.get("DCASE_KIT_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser().absolute() / "dcase-kit"


def no_file(path: Path, expected: str) -> BadRequest:
    """Return the error for a file to read that does not exist or is a folder.

    If the path is a run folder, the message lists its predictions.

    Args:
        path: The given path.
        expected: The noun for the file that the user must give instead.
    """
    if not path.is_dir():
        return BadRequest(f"{path}: no such file; give {expected}")
    predictions = sorted(str(file) for file in path.glob("predictions/*") if file.suffix in (".npz", ".csv"))
    return BadRequest(f"{path}: is a folder; give {' or '.join(predictions) or expected}")


def require_other_files(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Make sure that no output file is an input file, because it would be overwritten.

    Args:
        outputs: A dict from options to the files to write; None for an option that is not given.
        inputs: A dict from options to the files to read.

    Raises:
        BadRequest: An output file is an input file, or two output files are the same.
    """
    others = {option: path.resolve() for option, path in inputs.items() if path}
    for option, path in outputs.items():
        if not path:
            continue
        for other, used in others.items():
            if path.resolve() == used:
                raise BadRequest(f"{option} {path}: must be another file than {other}; give another name")
        others[option] = path.resolve()


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `target`, and rename it to `target` if the block succeeds.

    If the block fails, the temporary file is removed and `target` does not change. Missing parent folders are created.
    Temporary files that killed processes left for the same target are removed first.

    Raises:
        BadRequest: `target` is a folder, a device or a pipe, which must not be replaced; or a parent is not a folder.
    """
    target = Path(target)  # many callers give a string
    if target.exists() and not target.is_file():
        raise BadRequest(f"{target}: must be a file or not exist; it is neither: give another name")
    for parent in target.parents:
        if parent.exists() and not parent.is_dir():
            raise BadRequest(f"{parent}: must be a folder; it is a file: give another name for {target.name}")
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
    """Yield an empty temporary folder next to `target`, and rename it to `target` if the block succeeds.

    `target` must not exist, or must be an empty folder. If the block fails, the temporary folder is removed. Temporary
    folders that killed processes left for the same target are removed first.
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
    """Return the part of a temporary file's name that identifies the process that writes it."""
    return f"{os.getpid()}-{_machine()}"


@functools.cache
def _machine() -> str:
    """Return eight hexadecimal digits that identify this machine and, in a container, the container.

    Machines and containers may share folders, but a process number is valid in only one of them.
    """
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # only Linux has this link
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _remove_unfinished(target: Path) -> None:
    """Remove the temporary files and folders for `target` whose processes ran on this machine and have ended."""
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
    except (PermissionError, OverflowError):  # a process of another user, or a number too large for a process
        return True
    return True
