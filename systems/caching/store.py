"""Rows that are computed once per sound and read from one memory-mapped file.

A store is a folder: `features.f32` holds the rows of all sounds one after another, (rows, width) float32, and
`index.sqlite` says where each sound's rows are, and their checksum. A sound is identified by the digest of its file's
content: a renamed sound is not computed again, a changed one is. The folder's name follows from everything else that
the rows depend on.

Rows are written first and entered in the index after that, some sounds to a transaction. The next extraction overwrites
what a killed one had not entered, so the index is never ahead of the file and no sound starts over.

Reading needs no write permission: a store that holds all that is wanted is used as it is. The index keeps the size and
the time of change of `features.f32`. When they differ, something else has written to the file (or an extraction was
killed): each sound's checksum is compared, and those that differ are computed again. An index that cannot be read is
made again, with all of its sounds.
"""

import hashlib
import os
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
import xxhash
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from evaluation.data.audio import UnusableSound
from evaluation.findings import BadRequest, Faulty, Finding

T = TypeVar("T")
R = TypeVar("R")
Compute = Callable[[Sequence], Iterable[np.ndarray | UnusableSound]]
Digests = Callable[[Sequence], list[str]]

VERSION = 1  # of the index; another one's is made again
SCHEMA = f"""
CREATE TABLE sounds (path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, digest TEXT);
CREATE TABLE features (digest TEXT PRIMARY KEY, start INTEGER, frames INTEGER, checksum TEXT, seal TEXT);
CREATE TABLE file (size INTEGER, modified INTEGER);
PRAGMA user_version = {VERSION};
"""


class Span(NamedTuple):
    """Where a sound's rows are in the file, and the checksum of their bytes."""

    start: int
    frames: int
    checksum: str

    def seal(self, digest: str) -> str:
        """Return the checksum of this entry itself: SQLite does not notice a changed number."""
        return xxhash.xxh3_64_hexdigest(f"{digest} {self.start} {self.frames} {self.checksum}".encode())


@dataclass(frozen=True)
class Index:
    """The content of an index: spans by digest, (size, modified, digest) by path, and the file's size and time."""

    spans: Mapping[str, Span] = field(default_factory=dict)
    sounds: Mapping[bytes, tuple[int, int, str]] = field(default_factory=dict)
    file: tuple[int, int] | None = None


class CannotWriteError(Exception):
    """The store cannot be written; the text is the reason."""


class Store:
    """The rows of one kind.

    Args:
        cache: Folder of the cache; several processes may share it, and it may be read-only.
        kind: What the rows are, for the folder's name.
        identity: All that they depend on besides the sound.
        width: Values of a row.
    """

    def __init__(self, cache: Path, kind: str, identity: str, width: int):
        self.folder = cache / f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        self.index, self.file, self.lock = (self.folder / name for name in ("index.sqlite", "features.f32", "lock"))
        self.width = width

    def rows(self, paths: Sequence[Path], compute: Compute, digests: Digests | None = None) -> list[np.ndarray]:
        """Return the rows of every sound, (rows, width) each, computing those that the store lacks.

        Args:
            paths: The sounds.
            compute: Called with the sounds that are missing; yields the rows of each in turn, or why it is unusable.
            digests: Returns what identifies `paths` if they are not files: texts, for instance.

        Returns:
            Read-only views into the memory-mapped file, in the order of `paths`.

        Raises:
            Faulty: A sound cannot be used; with all that cannot. The others are kept.
            BadRequest: A sound is missing and the store cannot be written, or something that is no file of a store is
                in the place of one.
        """
        if not paths:  # and maybe nothing to map yet
            return []
        index = self._read()
        if digests:
            identities, hashed = digests(paths), []
        else:
            identities, hashed = _hash_files(paths, index.sounds)
        wanted = dict(zip(identities, paths, strict=True))
        if hashed or index.file != self._file_state() or not index.spans.keys() >= wanted.keys():
            index = self._complete(wanted, hashed, compute)
        return self._views([index.spans[digest] for digest in identities])

    def _complete(self, wanted: Mapping[str, Path], hashed: Sequence[tuple], compute: Compute) -> Index:
        """Enter the sounds that were hashed, compute those that are missing, and return the new index.

        A store that cannot be written is returned as it is, if it holds all that is wanted.
        """
        for path in (self.index, self.file, self.lock):
            if path.exists() and not path.is_file():
                raise BadRequest(f"{path}: must be a file of the cache; it is something else: delete {self.folder}")
        try:
            with ExitStack() as stack:
                with _writing():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(exclusive(self.lock))
                    connection = stack.enter_context(closing(self._connect()))
                    # Not buffered: closing the file has nothing left to write, which could fail.
                    file = stack.enter_context(self.file.open("r+b" if self.file.exists() else "w+b", buffering=0))
                    self._remove_damaged(connection)
                    connection.executemany("INSERT OR REPLACE INTO sounds VALUES (?, ?, ?, ?)", hashed)
                    connection.commit()
                self._fill(wanted, compute, connection, file)
                return Index(_spans(connection))
        except CannotWriteError as reason:
            index = self._read()
            intact = {digest: span for digest, span in index.spans.items() if digest in wanted and self._intact(span)}
            if missing := len(wanted.keys() - intact.keys()):
                raise BadRequest(
                    f"{self.folder}: must be writable, for it lacks {missing} of {len(wanted)} items; {reason}: "
                    "free space, change permissions, or give another cache"
                ) from reason
            return Index(intact)

    def _fill(self, wanted: Mapping[str, Path], compute: Compute, connection: sqlite3.Connection, file: object) -> None:
        """Compute the rows of the sounds, by digest, that the index lacks."""
        spans = _spans(connection)
        missing = {digest: path for digest, path in wanted.items() if digest not in spans}
        end = max((span.start + span.frames for span in spans.values()), default=0)
        file.seek(end * 4 * self.width)
        findings = []
        committed = time.monotonic()
        for (digest, path), values in zip(missing.items(), compute(list(missing.values())), strict=True):
            if isinstance(values, UnusableSound):
                findings.append(Finding(str(path), message=str(values)))
                continue
            content = values.tobytes()
            span = Span(end, len(values), xxhash.xxh3_64_hexdigest(content))
            with _writing():
                _write(file, content)
                connection.execute("INSERT INTO features VALUES (?, ?, ?, ?, ?)", (digest, *span, span.seal(digest)))
                end += len(values)
                if time.monotonic() - committed > 1:
                    self._commit(connection)
                    committed = time.monotonic()
        with _writing():
            self._commit(connection)
        if findings:
            raise Faulty(findings)

    def _read(self) -> Index:
        """Return the content of the index; an empty one if there is none that can be read.

        Spans that lie outside of the file are left out.
        """
        address = f"file:{quote(os.fsencode(self.index.absolute()))}?mode=ro"
        try:
            with closing(_open(address)) as connection:
                if not _is_current(connection):
                    return Index()
                spans = _spans(connection)
                rows = connection.execute("SELECT path, size, modified, digest FROM sounds")
                sounds = {path: (size, modified, digest) for path, size, modified, digest in rows}
                file = connection.execute("SELECT size, modified FROM file").fetchone()
        except sqlite3.Error:  # absent or damaged: `_connect` makes another one
            return Index()
        rows = self._whole_rows()
        return Index({digest: span for digest, span in spans.items() if _is_inside(span, rows)}, sounds, file)

    def _connect(self) -> sqlite3.Connection:
        """Open the index to write, and make it again if it is damaged or of another version."""
        if self.index.exists():
            try:
                connection = _open(self.index)
                if _is_current(connection):
                    _check(connection)
                    return connection
                reason = "is another version's"
                connection.close()
            except sqlite3.OperationalError:  # locked, read-only, a full disk: nothing that another index would cure
                raise
            except sqlite3.DatabaseError as failure:
                connection.close()
                reason = f"is damaged ({failure})"
            _warn(f"{self.index}: {reason}; making it again, and with it all that is in {self.file.name}")
            for path in self.folder.glob(f"{self.index.name}*"):  # its journal too
                path.unlink()
        connection = _open(self.index)
        connection.executescript(SCHEMA)
        return connection

    def _remove_damaged(self, connection: sqlite3.Connection) -> None:
        """Remove from the index the sounds whose rows are not in the file as they were written."""
        if connection.execute("SELECT size, modified FROM file").fetchone() == self._file_state():
            return
        damaged = [digest for digest, span in _spans(connection).items() if not self._intact(span)]
        if damaged:
            _warn(f"{self.file}: was cut or changed; computing {len(damaged)} of its items again")
            connection.executemany("DELETE FROM features WHERE digest = ?", [(digest,) for digest in damaged])
        self._commit(connection)

    def _commit(self, connection: sqlite3.Connection) -> None:
        """Enter what was written, with the file's state."""
        connection.execute("DELETE FROM file")
        connection.execute("INSERT INTO file VALUES (?, ?)", self._file_state())
        connection.commit()

    def _file_state(self) -> tuple[int, int] | None:
        """Return the file's size in bytes and its time of change in ns; None if there is none."""
        try:
            status = self.file.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def _whole_rows(self) -> int:
        """Return how many rows the file holds; behind them there may be a part of one."""
        state = self._file_state()
        if state:
            return state[0] // (4 * self.width)
        return 0

    def _intact(self, span: Span) -> bool:
        """Return whether the span's rows are those that were written."""
        if not _is_inside(span, self._whole_rows()):
            return False
        (values,) = self._views([span])
        return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(values)) == span.checksum

    def _views(self, spans: Sequence[Span]) -> list[np.ndarray]:
        """Return the rows of spans that are inside the file."""
        rows = self._whole_rows()
        if not rows:  # nothing can be mapped
            return [np.empty((0, self.width), np.float32) for _ in spans]
        values = np.memmap(self.file, np.float32, "r", shape=(rows, self.width))
        return [values[span.start : span.start + span.frames] for span in spans]


def map_parallel(function: Callable[[T], R], items: Sequence[T], label: str) -> Iterator[R]:
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


def or_unusable(function: Callable[[Path], R]) -> Callable[[Path], R | UnusableSound]:
    """Have a function return the reason why a sound cannot be used instead of raising it."""

    def tried(path: Path) -> R | UnusableSound:
        try:
            return function(path)
        except UnusableSound as reason:
            return reason

    return tried


def exclusive(path: Path) -> FileLock:
    """Return a lock to hold while filling a folder; report that another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
        lock.release()
    except Timeout:
        _warn(f"waiting for another process that fills {path.parent}")
    return lock


def _warn(message: str) -> None:
    tqdm.write(message, file=sys.stderr)


@contextmanager
def _writing() -> Iterator[None]:
    """Turn what the disk or the index refuses into `CannotWriteError`."""
    try:
        yield
    except OSError as failure:
        raise CannotWriteError(failure.strerror or str(failure)) from failure
    except sqlite3.Error as failure:
        raise CannotWriteError(str(failure)) from failure


def _write(file: object, content: bytes) -> None:
    """Write all of `content` to a file without a buffer, which may take less at once."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _open(address: Path | str) -> sqlite3.Connection:
    """Open an index by its path, or by an address that begins with `file:`."""
    connection = sqlite3.connect(address, uri=isinstance(address, str))
    connection.text_factory = lambda content: content.decode("utf-8", "replace")  # damaged text fails its checksum
    return connection


def _is_current(connection: sqlite3.Connection) -> bool:
    """Return whether the index has this version's tables; raise sqlite3.DatabaseError if it is no index."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return version == VERSION and tables == {"sounds", "features", "file"}


def _check(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if the index is damaged."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(" ".join(verdict.split()))
    _spans(connection)


def _is_inside(span: Span, rows: int) -> bool:
    return 0 <= span.start <= span.start + span.frames <= rows


def _spans(connection: sqlite3.Connection) -> dict[str, Span]:
    """Return the span of every sound by its digest; raise sqlite3.DatabaseError if an entry is damaged."""
    spans = {}
    for digest, start, frames, checksum, seal in connection.execute("SELECT * FROM features"):
        span = Span(start, frames, checksum)
        if span.seal(digest) != seal:
            raise sqlite3.DatabaseError("an entry was changed")
        spans[digest] = span
    return spans


def _hash_files(
    paths: Sequence[Path], seen: Mapping[bytes, tuple[int, int, str]]
) -> tuple[list[str], list[tuple[bytes, int, int, str]]]:
    """Return the digest of every file's content, and the rows of those that had to be read.

    A file whose path, size and time of change are in `seen` is not read again.
    """

    def digest(path: Path) -> tuple[tuple[bytes, int, int, str], bool]:
        status = path.stat()
        key, size, modified = os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns
        if key in seen and seen[key][:2] == (size, modified):
            return (key, size, modified, seen[key][2]), False
        content = path.read_bytes()
        return (key, size, modified, xxhash.xxh3_128_hexdigest(content)), True  # as fast as memory

    rows = list(map_parallel(digest, paths, "hashing"))
    return [row[3] for row, _ in rows], [row for row, is_new in rows if is_new]
