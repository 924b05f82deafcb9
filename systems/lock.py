"""One training at a time in a run folder."""

import contextlib
import os
import platform
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from evaluation.findings import BadRequest

LOCK, HOLDER = ".lock", ".lock-holder"  # the file that is locked, and what is said of the process that holds it
# Where torchrun, Lightning, SLURM and LSF put the number of a process or of its machine.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other training out of a run folder until the block ends.

    The operating system releases the lock when the process ends, however it ends. Of the processes that train one run
    together on several devices, only the first locks the folder. A folder that the block leaves without a run is
    removed again.

    Args:
        folder: The run folder, which is made where it does not exist.

    Raises:
        BadRequest: Another process trains in the folder; names the process.
    """
    if any(os.environ.get(name, "0") != "0" for name in RANKS):
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
            (folder / LOCK).unlink(missing_ok=True)  # while it is held: afterwards it may be another process's
        lock.release()
        if not is_run:
            with contextlib.suppress(OSError):  # it holds something else
                folder.rmdir()


def _holder(file: Path) -> str:
    """Return who trains in the folder, as that process wrote it."""
    try:
        who = file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        who = ""
    return f"must be trained by one process at a time; {who or 'another process'} is training there"
