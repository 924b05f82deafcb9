"""A store of rows that are computed once for each sound and read from one memory-mapped file.

A store is a folder. `features.f32` holds the rows of all sounds one after another, (rows, width) float32.
`index.sqlite` holds, for each sound, the place of its rows and their checksum. A sound is identified by the digest of
its file's content, so a renamed sound is not computed again, and a changed one is. The folder's name depends on
everything else that affects the rows.

Rows are first written to the file and then entered in the index, several sounds in one transaction. If an extraction is
killed, the next one overwrites the rows that were not entered. So the index never refers to rows that are not in the
file, and no sound in the index is computed again.

Reading needs no write permission if the store holds all requested sounds. The index keeps the size and the modification
time of `features.f32`. If they differ, something else has written to the file, or an extraction was killed. Then the
checksum of each sound is compared, and sounds whose checksum differs are computed again. An index that cannot be read
is replaced, and all sounds are computed again.
"""

import hashlib
import os
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar
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

VERSION = 1  # of the index; an index of another version is replaced
SCHEMA = f"""
CREATE TABLE sounds (path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, digest TEXT);
CREATE TABLE features (digest TEXT PRIMARY KEY, start INTEGER, frames INTEGER, checksum TEXT, seal TEXT);
CREATE TABLE file (size INTEGER, modified INTEGER);
PRAGMA user_version = {VERSION};
"""


class Span(NamedTuple):
    """The place of a sound's rows in the file: the first row, the number of rows, and the checksum of their bytes."""

    start: int
    frames: int
    checksum: str

    def seal(self, digest: str) -> str:
        """Return a checksum of the index entry itself, because SQLite does not notice a changed number."""
        return xxhash.xxh3_64_hexdigest(f"{digest} {self.start} {self.frames} {self.checksum}".encode())


@dataclass(frozen=True)
class Index:
    """The content of an index.

    Attributes:
        spans: The place of each sound's rows, by the sound's digest.
        sounds: The size in bytes, the modification time in ns, and the digest of each sound file, by its path.
        file: The size in bytes and the modification time in ns of `features.f32`.
    """

    spans: Mapping[str, Span] = field(default_factory=dict)
    sounds: Mapping[bytes, tuple[int, int, str]] = field(default_factory=dict)
    file: tuple[int, int] | None = None


class CannotWriteError(Exception):
    """The store cannot be written; the message is the reason."""


class Store:
    """The rows of one kind.

    Args:
        cache: Folder of the cache; several processes may share it, and it may be read-only.
        kind: Name of the kind, which begins the folder's name.
        identity: Everything besides the sound that affects the rows.
        width: Number of values in a row.
    """

    def __init__(self, cache: Path, kind: str, identity: str, width: int):
        self.folder = cache / f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        self.index, self.file, self.lock = (self.folder / name for name in ("index.sqlite", "features.f32", "lock"))
        self.width = width

    def rows(self, paths: Sequence[Any], compute: Compute, digests: Digests | None = None) -> list[np.ndarray]:
        """Return the rows of every sound, computing those that are not in the store.

        Args:
            paths: The sounds, as paths of files unless `digests` is given.
            compute: Called with the sounds that are not in the store. For each in turn, it yields the rows, or the
                reason why the sound cannot be used.
            digests: Returns a digest for each of `paths`, which may then be texts, for instance (default: digests of
                the files' contents).

        Returns:
            (rows, width) for each sound, in the order of `paths`: read-only views into the memory-mapped file.

        Raises:
            Faulty: Sounds cannot be used; with a finding for each. The rows of the others are kept.
            BadRequest: A sound is not in the store, and the store cannot be written; or a file of the store has been
                replaced by something that is no file.
        """
        if not paths:  # there may be no file to map yet
            return []
        index = self._read()
        if digests:
            identities = digests(paths)
            hashed: list[tuple] = []
        else:
            identities, hashed = _hash_files(paths, index.sounds)
        requested = dict(zip(identities, paths, strict=True))
        if hashed or index.file != self._file_state() or not index.spans.keys() >= requested.keys():
            index = self._complete(requested, hashed, compute)
        return self._views([index.spans[digest] for digest in identities])

    def _complete(self, requested: Mapping[str, Any], hashed: Sequence[tuple], compute: Compute) -> Index:
        """Enter the digests of sounds, compute the rows that are missing, and return the new index.

        If the store cannot be written but holds all requested sounds, its index is returned as it is.

        Args:
            requested: The requested sounds by their digests.
            hashed: The rows of the table `sounds` to enter.
            compute: As for `rows`.
        """
        for path in (self.index, self.file, self.lock):
            if path.exists() and not path.is_file():
                raise BadRequest(f"{path}: must be a file of the cache; found something else: delete {self.folder}")
        try:
            with ExitStack() as stack:
                with _writing():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(exclusive(self.lock))
                    connection = stack.enter_context(closing(self._connect()))
                    # The file is not buffered, so that closing it does not write, which could fail.
                    mode = "r+b" if self.file.exists() else "w+b"
                    file = stack.enter_context(self.file.open(mode, buffering=0))
                    self._remove_damaged(connection)
                    connection.executemany("INSERT OR REPLACE INTO sounds VALUES (?, ?, ?, ?)", hashed)
                    connection.commit()
                self._fill(requested, compute, connection, file)
                return Index(_spans(connection))
        except CannotWriteError as reason:
            index = self._read()
            intact = {}
            for digest, span in index.spans.items():
                if digest in requested and self._is_intact(span):
                    intact[digest] = span
            missing = len(requested.keys() - intact.keys())
            if missing:
                raise BadRequest(
                    f"{self.folder}: must be writable, because {missing} of {len(requested)} items are missing; found: "
                    f"{reason}: free space, change permissions, or give another cache"
                ) from reason
            return Index(intact)

    def _fill(
        self, requested: Mapping[str, Any], compute: Compute, connection: sqlite3.Connection, file: IO[bytes]
    ) -> None:
        """Compute the rows of the requested sounds that are not in the index."""
        spans = _spans(connection)
        missing = {digest: path for digest, path in requested.items() if digest not in spans}
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
        """Return the content of the index, without spans outside of the file; empty if the index cannot be read."""
        address = f"file:{quote(os.fsencode(self.index.absolute()))}?mode=ro"
        try:
            with closing(_open(address)) as connection:
                if not _is_current(connection):
                    return Index()
                spans = _spans(connection)
                rows = connection.execute("SELECT path, size, modified, digest FROM sounds")
                sounds = {path: (size, modified, digest) for path, size, modified, digest in rows}
                file = connection.execute("SELECT size, modified FROM file").fetchone()
        except sqlite3.Error:  # absent or damaged; `_connect` replaces it
            return Index()
        whole_rows = self._whole_rows()
        inside = {digest: span for digest, span in spans.items() if _is_inside(span, whole_rows)}
        return Index(inside, sounds, file)

    def _connect(self) -> sqlite3.Connection:
        """Open the index for writing, and replace it if it is damaged or has another version."""
        if self.index.exists():
            try:
                connection = _open(self.index)
                if _is_current(connection):
                    _check(connection)
                    return connection
                reason = "has another version"
                connection.close()
            except sqlite3.OperationalError:  # locked, read-only or a full disk, where replacing the index cannot help
                raise
            except sqlite3.DatabaseError as failure:
                connection.close()
                reason = f"is damaged ({failure})"
            _warn(f"{self.index}: {reason}; replacing it, and computing everything in {self.file.name} again")
            for path in self.folder.glob(f"{self.index.name}*"):  # also its journal
                path.unlink()
        connection = _open(self.index)
        connection.executescript(SCHEMA)
        return connection

    def _remove_damaged(self, connection: sqlite3.Connection) -> None:
        """Remove the sounds from the index whose rows in the file are not those that were written."""
        if connection.execute("SELECT size, modified FROM file").fetchone() == self._file_state():
            return
        damaged = [digest for digest, span in _spans(connection).items() if not self._is_intact(span)]
        if damaged:
            _warn(f"{self.file}: was truncated or changed; computing {len(damaged)} of its items again")
            connection.executemany("DELETE FROM features WHERE digest = ?", [(digest,) for digest in damaged])
        self._commit(connection)

    def _commit(self, connection: sqlite3.Connection) -> None:
        """Commit the entries of the index, together with the size and time of the file."""
        connection.execute("DELETE FROM file")
        state = self._file_state()
        if state:
            connection.execute("INSERT INTO file VALUES (?, ?)", state)
        connection.commit()

    def _file_state(self) -> tuple[int, int] | None:
        """Return the file's size in bytes and its modification time in ns; None if there is no file."""
        try:
            status = self.file.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def _whole_rows(self) -> int:
        """Return the number of complete rows in the file, which may end with a part of a row."""
        state = self._file_state()
        if state:
            return state[0] // (4 * self.width)
        return 0

    def _is_intact(self, span: Span) -> bool:
        """Return whether the rows of a span in the file are those that were written."""
        if not _is_inside(span, self._whole_rows()):
            return False
        (values,) = self._views([span])
        return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(values).data) == span.checksum

    def _views(self, spans: Sequence[Span]) -> list[np.ndarray]:
        """Return the rows of spans, all of which must be inside the file."""
        rows = self._whole_rows()
        if not rows:  # an empty file cannot be mapped
            return [np.empty((0, self.width), np.float32) for _ in spans]
        values = np.memmap(self.file, np.float32, "r", shape=(rows, self.width))
        return [values[span.start : span.start + span.frames] for span in spans]


def map_parallel(function: Callable[[T], R], items: Sequence[T], label: str) -> Iterator[R]:
    """Apply a function to items in threads, and yield the results in order, with a progress bar.

    Threads are enough: decoding, hashing and transforms all release Python's global lock.

    Args:
        function: The function.
        items: The items.
        label: Label of the progress bar.
    """
    workers = os.cpu_count() or 1
    with (
        threadpool_limits(1, "blas"),  # a second layer of threads makes the first twice as slow
        ThreadPoolExecutor(workers) as pool,
        tqdm(desc=label, total=len(items), unit="clip", leave=False, disable=None) as bar,
    ):
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:  # a bound on the results that are in memory
                yield waiting.popleft().result()
                bar.update()
        while waiting:
            yield waiting.popleft().result()
            bar.update()


def or_unusable(function: Callable[[Path], R]) -> Callable[[Path], R | UnusableSound]:
    """Make a function return `UnusableSound`, the reason why a sound cannot be used, instead of raising it."""

    def wrapped(path: Path) -> R | UnusableSound:
        try:
            return function(path)
        except UnusableSound as reason:
            return reason

    return wrapped


def exclusive(path: Path) -> FileLock:
    """Return a lock to hold while a folder is filled; print a message if another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
        lock.release()
    except Timeout:
        _warn(f"waiting for another process that is filling {path.parent}")
    return lock


def _warn(message: str) -> None:
    tqdm.write(message, file=sys.stderr)


@contextmanager
def _writing() -> Iterator[None]:
    """Turn errors of the disk and of the index into `CannotWriteError`."""
    try:
        yield
    except OSError as failure:
        raise CannotWriteError(failure.strerror or str(failure)) from failure
    except sqlite3.Error as failure:
        raise CannotWriteError(str(failure)) from failure


def _write(file: IO[bytes], content: bytes) -> None:
    """Write all of `content` to an unbuffered file, which may write less than that in one call."""
    remaining = memoryview(content)
    while remaining:
        written = file.write(remaining)
        remaining = remaining[written:]


def _open(address: Path | str) -> sqlite3.Connection:
    """Open an index by its path, or by an address that begins with `file:`."""
    connection = sqlite3.connect(address, uri=isinstance(address, str))
    # Damaged text is decoded too; it then fails its checksum.
    connection.text_factory = lambda content: content.decode("utf-8", "replace")
    return connection


def _is_current(connection: sqlite3.Connection) -> bool:
    """Return whether the index has the tables of this version.

    Raises:
        sqlite3.DatabaseError: The file is no index.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return version == VERSION and tables == {"sounds", "features", "file"}


def _check(connection: sqlite3.Connection) -> None:
    """Check an index.

    Raises:
        sqlite3.DatabaseError: The index is damaged.
    """
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(" ".join(verdict.split()))
    _spans(connection)


def _is_inside(span: Span, rows: int) -> bool:
    """Return whether a span is inside a file with a number of rows."""
    return 0 <= span.start <= span.start + span.frames <= rows


def _spans(connection: sqlite3.Connection) -> dict[str, Span]:
    """Return the span of every sound by its digest.

    Raises:
        sqlite3.DatabaseError: An entry is damaged.
    """
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
    """Return the digest of every file's content, and rows of the table `sounds` for the files that had to be read.

    Args:
        paths: The files.
        seen: Size, modification time and digest by path. A file with the same path, size and time is not read again.
    """

    def digest(path: Path) -> tuple[tuple[bytes, int, int, str], bool]:
        """Return a row of the table `sounds`, and whether it is new."""
        status = path.stat()
        key, size, modified = os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns
        if key in seen and seen[key][:2] == (size, modified):
            return (key, size, modified, seen[key][2]), False
        content = path.read_bytes()
        return (key, size, modified, xxhash.xxh3_128_hexdigest(content)), True

    rows = list(map_parallel(digest, paths, "hashing"))
    return [row[3] for row, _ in rows], [row for row, is_new in rows if is_new]
