"""A store gives the right rows or a clear line, whatever happened to its files."""

import ctypes
import os
import random
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
def sounds(tmp_path):
    """Files by the rows that belong to them."""
    rng = np.random.default_rng(0)
    rows = {}
    for number in range(SOUNDS):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(rng.bytes(60))
        rows[path] = rng.normal(size=(1 + number % 4, WIDTH)).astype(np.float32)
    return rows


class Asked:
    """Gives the rows of sounds, and counts the sounds that it was asked for."""

    def __init__(self, sounds):
        self.sounds, self.count = sounds, 0

    def __call__(self, missing):
        for path in missing:
            self.count += 1
            yield self.sounds[path]


def read(cache, sounds, paths=None):
    """Read the rows of sounds from a store, check each, and return how many were computed."""
    asked = Asked(sounds)
    paths = list(paths or sounds)
    found = Store(cache, "rows", "identity", WIDTH).rows(paths, asked)
    assert len(found) == len(paths)
    for path, rows in zip(paths, found, strict=True):
        np.testing.assert_array_equal(rows, sounds[path])
    return asked.count


@pytest.fixture
def folder(sounds, tmp_path):
    """The folder of a store that holds all sounds."""
    assert read(tmp_path / "cache", sounds) == SOUNDS
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
def test_an_index_that_cannot_be_used_is_made_again(sounds, folder, capsys, damage):
    damage(folder / "index.sqlite")
    assert read(folder.parent, sounds) == SOUNDS
    error = capsys.readouterr().err
    if damage is not Path.unlink:
        assert f"{folder}/index.sqlite: is " in error
        assert "; making it again, and with it all that is in features.f32" in error
    assert read(folder.parent, sounds) == 0


def test_rows_that_were_cut_off_are_computed_again(sounds, folder, capsys):
    half(folder / "features.f32")
    count = read(folder.parent, sounds)
    assert 0.4 * SOUNDS < count < 0.6 * SOUNDS
    assert f"{folder}/features.f32: was cut or changed; computing {count} of its items again" in capsys.readouterr().err
    assert read(folder.parent, sounds) == 0


def test_rows_that_were_changed_are_computed_again(sounds, folder, capsys):
    overwrite(folder / "features.f32", 4 * WIDTH, b"garbage")  # in the second row, which is the second sound's first
    assert read(folder.parent, sounds) == 1
    assert "was cut or changed; computing 1 of its items again" in capsys.readouterr().err


def test_a_file_that_was_lost_or_lengthened(sounds, folder):
    with (folder / "features.f32").open("ab") as file:
        file.write(b"half a row")
    assert read(folder.parent, sounds) == 0
    (folder / "features.f32").unlink()
    assert read(folder.parent, sounds) == SOUNDS


def test_no_damage_gives_wrong_rows(sounds, folder, tmp_path):
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
        read(folder.parent, sounds)


@pytest.mark.parametrize("name", ["index.sqlite", "features.f32", "lock"])
def test_a_folder_in_the_place_of_a_file(sounds, folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    (new := folder.parent.parent / "new.wav").write_bytes(b"new")
    with pytest.raises(BadRequest) as refused:
        read(folder.parent, {**sounds, new: np.zeros((1, WIDTH), np.float32)})
    expected = f"{folder / name}: must be a file of the cache; it is something else: delete {folder}"
    assert str(refused.value) == expected


@contextmanager
def full_disk(left):
    """Let no file grow past a size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_reported_and_loses_nothing(sounds, tmp_path):
    few = list(sounds)[:5]
    read(tmp_path / "cache", sounds, few)
    (folder,) = (tmp_path / "cache").iterdir()
    with full_disk((folder / "features.f32").stat().st_size + 100):
        assert read(tmp_path / "cache", sounds, few) == 0  # nothing to write
        with pytest.raises(BadRequest) as refused:
            read(tmp_path / "cache", sounds)
    said = str(refused.value)
    assert said.startswith(f"{folder}: must be writable, for it lacks {SOUNDS - 5} of {SOUNDS} items; ")
    assert said.endswith(": free space, change permissions, or give another cache")
    assert read(tmp_path / "cache", sounds) == SOUNDS - 5


def test_a_full_disk_at_the_start(sounds, tmp_path):
    with full_disk(0), pytest.raises(BadRequest, match=f"must be writable, for it lacks {SOUNDS} of {SOUNDS} items; "):
        read(tmp_path / "cache", sounds)
    assert read(tmp_path / "cache", sounds) == SOUNDS


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
            said = str(work())
        except BaseException as failure:
            said = f"{type(failure).__name__}: {failure}"
        os.write(there, said.encode())
        os._exit(0)
    os.close(there)
    with os.fdopen(here, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(child, 0)
    for path in paths:
        path.chmod(0o755)
    return said


def test_a_read_only_store_that_holds_everything_is_used(sounds, folder):
    assert in_read_only(folder.parent, lambda: read(folder.parent, sounds)) == "0"
    renamed = {path.rename(path.with_suffix(".flac")): rows for path, rows in sounds.items()}  # hashed each time
    assert in_read_only(folder.parent, lambda: read(folder.parent, renamed)) == "0"
    os.utime(folder / "features.f32")  # as after a copy: checksums are compared each time
    assert in_read_only(folder.parent, lambda: read(folder.parent, renamed)) == "0"
    assert read(folder.parent, renamed) == 0


@pytest.mark.parametrize("damage", [lambda folder: half(folder / "features.f32"), lambda folder: None])
def test_a_read_only_store_that_lacks_something_is_refused(sounds, folder, tmp_path, damage):
    damage(folder)
    new = tmp_path / "new.wav"
    new.write_bytes(b"new")
    sounds[new] = np.zeros((2, WIDTH), np.float32)
    said = in_read_only(folder.parent, lambda: read(folder.parent, sounds))
    assert said.startswith(f"BadRequest: {folder}: must be writable, for it lacks ")
    assert said.endswith(
        f" of {SOUNDS + 1} items; Permission denied: free space, change permissions, or give another cache"
    )


def test_a_cache_that_is_a_file(sounds, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(BadRequest, match="must be writable, for it lacks 40 of 40 items; Not a directory"):
        read(tmp_path / "cache", sounds)


def test_rows_of_no_length(tmp_path):
    path = tmp_path / "short.wav"
    path.write_bytes(b"short")
    nothing = {path: np.empty((0, WIDTH), np.float32)}
    assert read(tmp_path / "cache", nothing) == 1
    assert read(tmp_path / "cache", nothing) == 0


def test_texts_are_identified_by_what_is_given(tmp_path):
    asked = Asked({"one": np.ones((1, WIDTH), np.float32), "two": np.zeros((2, WIDTH), np.float32)})
    for _ in range(2):
        one, two = Store(tmp_path, "texts", "identity", WIDTH).rows(["one", "two"], asked, list)
        assert (one.shape, two.shape) == ((1, WIDTH), (2, WIDTH))
    assert asked.count == 2


def test_reading_waits_for_nobody(sounds, folder):
    with store.exclusive(folder / "lock"):  # as another process that fills the store holds it
        assert read(folder.parent, sounds) == 0
