"""Rows that are computed once per sound and read from one memory-mapped file.

A store is a folder: `features.f32` holds the rows of all sounds one after another, (rows, width) float32, and
`index.sqlite` says where each sound's rows stand. A sound is known by the digest of its file's content: a renamed sound
is not computed again, a changed one is. What else the rows follow from is for the folder's name to say.

Rows are written first and entered in the index after, some sounds to a transaction. What a killed extraction had not
entered is overwritten by the next, so that the index is never ahead of the file and no sound starts over.
"""

import hashlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import xxhash
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from evaluation.audio import UnusableSound
from evaluation.findings import Faulty, Finding

T = TypeVar("T")
R = TypeVar("R")
Compute = Callable[[Sequence], Iterable[np.ndarray | UnusableSound]]
Digests = Callable[[Sequence, sqlite3.Connection], list[str]]

SCHEMA = """
CREATE TABLE IF NOT EXISTS sounds (path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, digest TEXT);
CREATE TABLE IF NOT EXISTS features (digest TEXT PRIMARY KEY, start INTEGER, frames INTEGER);
"""


class Store:
    """The rows of one kind.

    Args:
        cache: Folder of the cache; several processes may share it.
        kind: What the rows are, for the folder's name.
        identity: All that they follow from besides the sound.
        width: Values of a row.
    """

    def __init__(self, cache: Path, kind: str, identity: str, width: int):
        self.folder = cache / f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        self.width = width

    def rows(self, paths: Sequence[Path], compute: Compute, digests: Digests | None = None) -> list[np.ndarray]:
        """Return the rows of every sound, (rows, width) each, computing those that are not there.

        Args:
            paths: The sounds.
            compute: Called with those that are missing; gives the rows of each in turn, or why it cannot be used.
            digests: What to know `paths` by where they are no files: texts, for instance.

        Returns:
            Read-only views into the memory-mapped file, in the order of `paths`.

        Raises:
            Faulty: A sound cannot be used; with all that cannot. The others are kept.
        """
        if not paths:  # and maybe nothing to map yet
            return []
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / "features.f32"
        with alone(self.folder / "lock"), closing(sqlite3.connect(self.folder / "index.sqlite")) as index:
            index.executescript(SCHEMA)
            with place.open("r+b" if place.exists() else "w+b") as file:
                # A file that was cut since holds less than the index says: what is gone is computed again.
                there = file.seek(0, os.SEEK_END) // (4 * self.width)
                index.execute("DELETE FROM features WHERE start + frames > ?", (there,))
                known = (digests or _digests)(paths, index)
                self._fill(dict(zip(known, paths, strict=True)), compute, index, file)
            spans = dict(_spans(index))
        values = np.memmap(place, np.float32, "r").reshape(-1, self.width)
        return [values[start : start + count] for start, count in (spans[digest] for digest in known)]

    def _fill(self, wanted: Mapping[str, Path], compute: Compute, index: sqlite3.Connection, file: BinaryIO) -> None:
        """Compute the rows of the sounds, by digest, that the index lacks."""
        known = dict(_spans(index))
        missing = {digest: path for digest, path in wanted.items() if digest not in known}
        end = max((start + count for start, count in known.values()), default=0)
        findings = []
        file.seek(end * 4 * self.width)
        entered = time.monotonic()
        for (digest, path), values in zip(missing.items(), compute(list(missing.values())), strict=True):
            if isinstance(values, UnusableSound):
                findings.append(Finding(str(path), message=str(values)))
                continue
            file.write(values.tobytes())
            index.execute("INSERT INTO features VALUES (?, ?, ?)", (digest, end, len(values)))
            end += len(values)
            if time.monotonic() - entered > 1:
                file.flush()
                index.commit()
                entered = time.monotonic()
        file.flush()
        index.commit()
        if findings:
            raise Faulty(findings)


def parallel(function: Callable[[T], R], items: Sequence[T], label: str) -> Iterator[R]:
    """Map in threads, in order, with a bar. Decoding, hashing and transforms all run outside Python's lock."""
    workers = os.cpu_count() or 1
    with (
        threadpool_limits(1, "blas"),  # a second layer of threads makes the first twice as slow
        ThreadPoolExecutor(workers) as pool,
        tqdm(desc=label, total=len(items), unit="clip", leave=False, disable=None) as bar,
    ):
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:  # results wait in memory for their turn, so not all at once
                yield waiting.popleft().result()
                bar.update()
        while waiting:
            yield waiting.popleft().result()
            bar.update()


def usable(function: Callable[[Path], R]) -> Callable[[Path], R | UnusableSound]:
    """Have a function return the reason why a sound cannot be used instead of raising it."""

    def tried(path: Path) -> R | UnusableSound:
        try:
            return function(path)
        except UnusableSound as reason:
            return reason

    return tried


def alone(path: Path) -> FileLock:
    """A lock to fill a folder under; waiting for it is said."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
        lock.release()
    except Timeout:
        tqdm.write(f"waiting for another process that fills {path.parent}")
    return lock


def _spans(index: sqlite3.Connection) -> Iterator[tuple[str, tuple[int, int]]]:
    for digest, start, count in index.execute("SELECT digest, start, frames FROM features"):
        yield digest, (start, count)


def _digests(paths: Sequence[Path], index: sqlite3.Connection) -> list[str]:
    """The digest of every file's content; files of known path, size and time of change are not read again."""
    seen = {path: rest for path, *rest in index.execute("SELECT path, size, modified, digest FROM sounds")}

    def digest(path: Path) -> tuple[str, int, int, str]:
        status = path.stat()
        key = str(path.resolve())
        size, modified, known = seen.get(key, (None, None, ""))
        if (size, modified) != (status.st_size, status.st_mtime_ns):
            known = xxhash.xxh3_128_hexdigest(path.read_bytes())  # tells sounds apart at the speed of memory
        return key, status.st_size, status.st_mtime_ns, known

    rows = list(parallel(digest, paths, "hashing"))
    with index:
        index.executemany("INSERT OR REPLACE INTO sounds VALUES (?, ?, ?, ?)", rows)
    return [known for *_, known in rows]
