"""Features that are computed once per sound and read from one memory-mapped file.

`CACHE/logmel-SETTINGS/` holds `features.f32`, the frames of all sounds one after another (frames, mels) float32, and
`index.sqlite`, which says where each sound's frames stand. A sound is known by the digest of its file's content, the
settings by the digest in the folder's name: a renamed sound is not computed again, a changed one is.

Frames are written first and entered in the index after, some sounds to a transaction. What a killed extraction had
not entered is overwritten by the next, so that the index is never ahead of the file and no sound starts over.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import xxhash
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from evaluation import audio
from evaluation.findings import Faulty, Finding

T = TypeVar("T")
R = TypeVar("R")

SCHEMA = """
CREATE TABLE IF NOT EXISTS sounds (path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, digest TEXT);
CREATE TABLE IF NOT EXISTS features (digest TEXT PRIMARY KEY, start INTEGER, frames INTEGER);
"""


def log_mels(paths: Sequence[Path], settings: audio.LogMel, cache: Path) -> list[np.ndarray]:
    """Return the log-mel energies of every sound, (frames, mels) each, computing those that the cache lacks.

    Args:
        paths: The sounds, of any sample rate.
        settings: How features are computed.
        cache: Folder of the cache; several processes may share it.

    Returns:
        Read-only views into the memory-mapped file, in the order of `paths`.

    Raises:
        Faulty: A sound cannot be used; with all that cannot. The others are kept.
    """
    identity = repr((audio.ARITHMETIC, sorted(asdict(settings).items())))
    folder = cache / f"logmel-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "lock"), closing(sqlite3.connect(folder / "index.sqlite")) as index:
        index.executescript(SCHEMA)
        with (folder / "features.f32").open("r+b" if (folder / "features.f32").exists() else "w+b") as file:
            # A file that was cut since holds less than the index says: what is gone is computed again.
            rows = file.seek(0, os.SEEK_END) // (4 * settings.mels)
            index.execute("DELETE FROM features WHERE start + frames > ?", (rows,))
            digests = _digests(paths, index)
            _extract(dict(zip(digests, paths, strict=True)), settings, index, file)
        spans = dict(_spans(index))
    values = np.memmap(folder / "features.f32", np.float32, "r").reshape(-1, settings.mels)
    return [values[start : start + frames] for start, frames in (spans[digest] for digest in digests)]


def _alone(path: Path) -> FileLock:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
        lock.release()
    except Timeout:
        tqdm.write(f"waiting for another process that fills {path.parent}")
    return lock


def _spans(index: sqlite3.Connection) -> Iterator[tuple[str, tuple[int, int]]]:
    for digest, start, frames in index.execute("SELECT digest, start, frames FROM features"):
        yield digest, (start, frames)


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

    rows = list(_parallel(digest, paths, "hashing"))
    with index:
        index.executemany("INSERT OR REPLACE INTO sounds VALUES (?, ?, ?, ?)", rows)
    return [known for *_, known in rows]


def _extract(wanted: dict[str, Path], settings: audio.LogMel, index: sqlite3.Connection, file: BinaryIO) -> None:
    """Compute the features of the sounds, by digest, that the index lacks."""
    known = dict(_spans(index))
    missing = {digest: path for digest, path in wanted.items() if digest not in known}
    end = max((start + frames for start, frames in known.values()), default=0)
    findings = []

    def compute(item: tuple[str, Path]) -> tuple[str, np.ndarray] | Finding:
        digest, path = item
        try:
            return digest, settings(audio.load(path, settings.sample_rate))
        except audio.UnusableSound as reason:
            return Finding(str(path), message=str(reason))

    file.seek(end * 4 * settings.mels)
    entered = time.monotonic()
    for result in _parallel(compute, list(missing.items()), "log-mel energies"):
        if isinstance(result, Finding):
            findings.append(result)
            continue
        digest, values = result
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


def _parallel(function: Callable[[T], R], items: Sequence[T], label: str) -> Iterator[R]:
    """Map in threads, in order, with a bar. Decoding, hashing and transforms all run outside Python's lock."""
    with (
        threadpool_limits(1, "blas"),  # a second layer of threads makes the first twice as slow
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(desc=label, total=len(items), unit="clip", leave=False, disable=None) as bar,
    ):
        for start in range(0, len(items), 256):  # results wait in memory for their turn, so not all at once
            for result in pool.map(function, items[start : start + 256]):
                bar.update()
                yield result
