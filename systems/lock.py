"""A lock that allows only one training at a time in a run folder."""

import contextlib
import os
import platform
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from evaluation.findings import BadRequest

LOCK, HOLDER = ".lock", ".lock-holder"  # the file that is locked, and a file that describes the process that locked it
# The environment variables in which torchrun, Lightning, SLURM and LSF store the index of a process or of its machine.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def is_first_process() -> bool:
    """Return whether this process is the only one, or the first one, of those that train a run together."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def is_left_over(path: Path) -> bool:
    """Return whether a file does not count as the content of a run folder.

    Such files belong to the lock or to a file browser, or were left by an interrupted write.
    """
    return path.name in (LOCK, HOLDER, ".DS_Store", "Thumbs.db") or path.name.endswith(".part")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the block, allow no other process to train in a run folder.

    The operating system releases the lock when the process ends for any reason. If several processes train one run
    together on several devices, only the first one locks the folder. If the folder contains no config.yaml after the
    block, the folder is removed, unless it contains other files.

    Args:
        folder: The run folder; it is created if it does not exist.

    Raises:
        BadRequest: Another process is training in the folder. The message names the process.
    """
    if not is_first_process():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / HOLDER
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadRequest(f"{folder}: {_holder(holder)}; wait until it ends, or give another run folder") from None
    try:
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder.write_text(f"process {os.getpid()} on {platform.node()} since {now}\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        is_run = (folder / "config.yaml").exists()
        if not is_run:
            # The file is removed before the lock is released, because afterwards another process may lock the file.
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if not is_run:
            with contextlib.suppress(OSError):  # raised if the folder contains other files
                folder.rmdir()


def _holder(file: Path) -> str:
    """Return the message that another process is training in the folder.

    The message includes the description that the process wrote into `file`, if it can be read.
    """
    try:
        process = file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        process = ""
    return f"must be trained by one process at a time; {process or 'another process'} is training there"
