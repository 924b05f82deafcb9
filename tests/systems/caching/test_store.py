"""A store returns the right rows or a clear message, whatever happened to its files."""

import ctypes
import os
import random
import re
import resource
import shutil
import sqlite3
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from evaluation.findings import BadRequest
from systems.caching import store
from systems.caching.store import Store

WIDTH = 5
SOUNDS = 40


@pytest.fixture
def files(tmp_path):
    """Files, each with the rows that belong to it."""
    rng = np.random.default_rng(0)
    rows = {}
    for number in range(SOUNDS):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(rng.bytes(60))
        rows[path] = rng.normal(size=(1 + number % 4, WIDTH)).astype(np.float32)
    return rows


class Computation:
    """Gives the rows of files, and counts the files that were requested."""

    def __init__(self, files):
        self.files, self.count = files, 0

    def __call__(self, missing):
        for path in missing:
            self.count += 1
            yield self.files[path]


def read(cache, files, paths=None):
    """Read the rows of files from a store, check each, and return how many were computed."""
    computation = Computation(files)
    paths = list(paths or files)
    values = Store(cache, "rows", "identity", WIDTH).rows(paths, computation)
    assert len(values) == len(paths)
    for path, rows in zip(paths, values, strict=True):
        np.testing.assert_array_equal(rows, files[path])
    return computation.count


@pytest.fixture
def folder(files, tmp_path):
    """The folder of a store that holds all files."""
    assert read(tmp_path / "cache", files) == SOUNDS
    (folder,) = (tmp_path / "cache").iterdir()
    return folder


def overwrite(path, start, content):
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def garbage(path):
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))  # noqa: S311


def half(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def another_version(path):
    with sqlite3.connect(path) as index:
        index.execute("PRAGMA user_version = 99")
    index.close()


def other_tables(path):
    path.unlink()
    with sqlite3.connect(path) as index:
        index.execute("CREATE TABLE features (digest TEXT, start INTEGER, frames INTEGER)")
    index.close()


def changed_start(path):
    """As a flipped bit does, which SQLite does not notice."""
    with sqlite3.connect(path) as index:
        index.execute("UPDATE features SET start = start + 1 WHERE start = 0")
    index.close()


@pytest.mark.parametrize("damage", [garbage, half, empty, another_version, other_tables, changed_start, Path.unlink])
def test_an_index_that_cannot_be_used_is_replaced(files, folder, capsys, damage):
    damage(folder / "index.sqlite")
    assert read(folder.parent, files) == SOUNDS
    error = capsys.readouterr().err
    if damage is not Path.unlink:
        assert re.search(f"{folder}/index.sqlite: (is damaged|has another version)", error)
        assert "; replacing it, and computing everything in features.f32 again" in error
    assert read(folder.parent, files) == 0


def test_rows_that_were_cut_off_are_computed_again(files, folder, capsys):
    half(folder / "features.f32")
    count = read(folder.parent, files)
    assert 0.4 * SOUNDS < count < 0.6 * SOUNDS
    assert (
        f"{folder}/features.f32: was truncated or changed; computing {count} of its items again"
        in capsys.readouterr().err
    )
    assert read(folder.parent, files) == 0


def test_rows_that_were_changed_are_computed_again(files, folder, capsys):
    overwrite(folder / "features.f32", 4 * WIDTH, b"garbage")  # in the second row, which is the second sound's first
    assert read(folder.parent, files) == 1
    assert "was truncated or changed; computing 1 of its items again" in capsys.readouterr().err


def test_a_file_that_was_lost_or_lengthened(files, folder):
    with (folder / "features.f32").open("ab") as file:
        file.write(b"half a row")
    assert read(folder.parent, files) == 0
    (folder / "features.f32").unlink()
    assert read(folder.parent, files) == SOUNDS


def test_no_damage_gives_wrong_rows(files, folder, tmp_path):
    intact = shutil.copytree(folder, tmp_path / "intact")
    draw = random.Random(0)  # noqa: S311
    for _ in range(60):
        shutil.rmtree(folder)
        shutil.copytree(intact, folder)
        path = folder / draw.choice(["index.sqlite", "features.f32"])
        size = path.stat().st_size
        start = draw.randrange(size)
        if draw.random() < 0.3:
            os.truncate(path, start)
        else:
            overwrite(path, start, draw.randbytes(draw.choice([1, 40, 1000])))
        read(folder.parent, files)


@pytest.mark.parametrize("name", ["index.sqlite", "features.f32", "lock"])
def test_a_folder_in_the_place_of_a_file(files, folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    (new := folder.parent.parent / "new.wav").write_bytes(b"new")
    with pytest.raises(BadRequest) as refused:
        read(folder.parent, {**files, new: np.zeros((1, WIDTH), np.float32)})
    expected = f"{folder / name}: must be a file of the cache; found something else: delete {folder}"
    assert str(refused.value) == expected


@contextmanager
def full_disk(size):
    """Let no file grow beyond a size in bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_reported_and_loses_nothing(files, tmp_path):
    few = list(files)[:5]
    read(tmp_path / "cache", files, few)
    (folder,) = (tmp_path / "cache").iterdir()
    with full_disk((folder / "features.f32").stat().st_size + 100):
        assert read(tmp_path / "cache", files, few) == 0  # nothing to write
        with pytest.raises(BadRequest) as refused:
            read(tmp_path / "cache", files)
    message = str(refused.value)
    missing = f"{SOUNDS - 5} of {SOUNDS} items are missing"
    assert message.startswith(f"{folder}: must be writable, because {missing}; found: ")
    assert message.endswith(": free disk space, change permissions, or give another cache")
    assert read(tmp_path / "cache", files) == SOUNDS - 5


def test_a_full_disk_at_the_start(files, tmp_path):
    with (
        full_disk(0),
        pytest.raises(BadRequest, match=f"must be writable, because {SOUNDS} of {SOUNDS} items are missing"),
    ):
        read(tmp_path / "cache", files)
    assert read(tmp_path / "cache", files) == SOUNDS


def drop_privileges():
    """Make permissions count for root too."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        nothing = (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, nothing) == 0


def in_read_only(folder, work):
    """Run a function in another process that can only read the folder; return what it returns, as text."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            drop_privileges()
            result = str(work())
        except BaseException as failure:
            result = f"{type(failure).__name__}: {failure}"
        os.write(there, result.encode())
        os._exit(0)
    os.close(there)
    with os.fdopen(here, encoding="utf-8") as file:
        result = file.read()
    os.waitpid(child, 0)
    for path in paths:
        path.chmod(0o755)
    return result


def test_a_read_only_store_that_holds_everything_is_used(files, folder):
    assert in_read_only(folder.parent, lambda: read(folder.parent, files)) == "0"
    renamed = {path.rename(path.with_suffix(".flac")): rows for path, rows in files.items()}  # hashed each time
    assert in_read_only(folder.parent, lambda: read(folder.parent, renamed)) == "0"
    os.utime(folder / "features.f32")  # as after a copy: checksums are compared each time
    assert in_read_only(folder.parent, lambda: read(folder.parent, renamed)) == "0"
    assert read(folder.parent, renamed) == 0


@pytest.mark.parametrize("damage", [lambda folder: half(folder / "features.f32"), lambda folder: None])
def test_a_read_only_store_that_lacks_something_is_refused(files, folder, tmp_path, damage):
    damage(folder)
    new = tmp_path / "new.wav"
    new.write_bytes(b"new")
    files[new] = np.zeros((2, WIDTH), np.float32)
    result = in_read_only(folder.parent, lambda: read(folder.parent, files))
    assert result.startswith(f"BadRequest: {folder}: must be writable, because ")
    advice = "free disk space, change permissions, or give another cache"
    assert result.endswith(f" of {SOUNDS + 1} items are missing; found: Permission denied: {advice}")


def test_a_cache_that_is_a_file(files, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(BadRequest, match="because 40 of 40 items are missing; found: Not a directory"):
        read(tmp_path / "cache", files)


def test_sounds_without_rows(tmp_path):
    path = tmp_path / "short.wav"
    path.write_bytes(b"short")
    nothing = {path: np.empty((0, WIDTH), np.float32)}
    assert read(tmp_path / "cache", nothing) == 1
    assert read(tmp_path / "cache", nothing) == 0


def test_texts_are_identified_by_the_given_digests(tmp_path):
    computation = Computation({"one": np.ones((1, WIDTH), np.float32), "two": np.zeros((2, WIDTH), np.float32)})
    for _ in range(2):
        one, two = Store(tmp_path, "texts", "identity", WIDTH).rows(["one", "two"], computation, list)
        assert (one.shape, two.shape) == ((1, WIDTH), (2, WIDTH))
    assert computation.count == 2


def test_reading_does_not_wait_for_a_lock(files, folder):
    with store.exclusive(folder / "lock"):  # as another process that fills the store holds it
        assert read(folder.parent, files) == 0


def test_a_matrix_is_a_view_if_the_rows_are_in_order(tmp_path):
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.wav")
        paths[-1].write_bytes(bytes([number]))

    def compute(missing):
        for path in missing:
            yield np.full((1, 3), float(path.read_bytes()[0]), np.float32)

    place = Store(tmp_path / "cache", "rows", "identity", 3)
    whole = place.matrix(paths, compute)
    assert whole[:, 0].tolist() == [0, 1, 2, 3]
    assert np.shares_memory(whole, whole.base)
    assert isinstance(whole, np.memmap)
    paths[1].write_bytes(b"\x09")
    assert place.matrix(paths, compute)[:, 0].tolist() == [0, 9, 2, 3]
    assert place.matrix(paths[::-1], compute)[:, 2].tolist() == [3, 2, 9, 0]
    assert place.matrix([paths[2], paths[2]], compute)[:, 0].tolist() == [2, 2]
    assert place.matrix([], compute).shape == (0, 3)
