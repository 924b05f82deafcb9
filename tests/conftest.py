"""Shared by all tests: their order, small data folders, and the real data if this machine has them."""

import os

# The tests' tensors are so small that more threads only wait, which is slow on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # otherwise Ray's workers wait for the other tests

import csv
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import numpy as np
import pytest
import soundfile

# Tests must not depend on the machine's speed. They try the same examples each time, but `make fuzz` tries new ones.
# A test tries 50 examples, half of hypothesis's default, unless it has settings of its own.
hypothesis.settings.register_profile("kit", deadline=None, derandomize="FUZZ" not in os.environ, max_examples=50)
hypothesis.settings.load_profile("kit")

# The tests must not change the user's caches. Subprocesses inherit the variable; each pytest process has a folder.
_CACHES = TemporaryDirectory(prefix="dcase-cache-")
os.environ["DCASE_KIT_CACHE"] = _CACHES.name

SPLITS = {"development": 6, "validation": 3, "evaluation": 3}
CLIPS_OF_A_CLASS = {"development": 8, "validation": 2, "evaluation": 3}
WORDS = ["birds", "rain", "engine", "steps", "water", "door", "wind", "crowd", "bell", "dog", "saw", "thunder"]


# Imports create a million permanent objects. Searching them for garbage takes a fifth of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Enable garbage collection, but not for the objects that were imported."""
    gc.freeze()
    gc.enable()


# Seconds of each test in earlier runs, kept in pytest's cache.
SECONDS = "dcase/seconds"
SLOW_TEST = 100  # assumed seconds of a test that is marked as slow and was never run
WORTH_KEEPING = 0.5  # seconds; quicker tests do not change the order of files

_seconds: dict[str, float] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the files that took longest in earlier runs first, so that no process runs a long file alone at the end.

    A file that was never run comes first if it has a test that is marked as slow. Quick files come last, large files
    before small files.
    """
    earlier = _earlier_seconds(config)
    seconds: dict[Path, float] = {}
    for item in items:
        expected = earlier.get(item.nodeid, 0)
        if not expected and item.get_closest_marker("slow"):
            expected = SLOW_TEST
        seconds[item.path] = seconds.get(item.path, 0) + expected
    sizes = {path: path.stat().st_size for path in seconds}
    items.sort(key=lambda item: (-seconds[item.path], -sizes[item.path], str(item.path)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that is marked `gpu` on a machine without a CUDA GPU."""
    if item.get_closest_marker("gpu"):
        import torch  # most tests do not need it

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the seconds of a test's setup, call and teardown."""
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Store the seconds of all tests that were run, for the order of the next run."""
    is_worker = hasattr(session.config, "workerinput")
    if is_worker or not hasattr(session.config, "cache"):
        return
    seconds = {**_earlier_seconds(session.config), **_seconds}
    kept = {test: round(value, 1) for test, value in seconds.items() if value >= WORTH_KEEPING}
    session.config.cache.set(SECONDS, kept)


def _earlier_seconds(config: pytest.Config) -> dict[str, float]:
    """Return the seconds of each test in earlier runs; an empty dict if pytest's cache is off."""
    if not hasattr(config, "cache"):
        return {}
    return config.cache.get(SECONDS, {})


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of the real data; skip the test if it is missing."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder


@pytest.fixture(scope="session")
def few_real_sounds(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with the first clips of each class of esc10, which has 400 clips."""
    source, folder = shared / "esc10", tmp_path_factory.mktemp("few")
    with (source / "clips.csv").open(encoding="utf-8", newline="") as file:
        clips = list(csv.DictReader(file))
    for split, count in CLIPS_OF_A_CLASS.items():
        (folder / split).mkdir()
        chosen: dict[str, list[str]] = {}
        for clip in clips:
            names = chosen.setdefault(clip["category"], [])
            if clip["split"] == split and len(names) < count:
                names.append(clip["file_name"])
        kept = set().union(*chosen.values())
        for name in kept:
            (folder / split / name).symlink_to(source / split / name)
        header, *rows = (source / f"captions_{split}.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [row for row in rows if row.partition(",")[0] in kept]
        (folder / f"captions_{split}.csv").write_text(header + "".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of real sounds' embeddings, which the tests of all of xdist's processes share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "real-cache"


@pytest.fixture
def clotho_like(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a folder in Clotho's layout.

    Clips are noise of 0.3 to 0.8 s with five captions each. One name in each split has a leading blank, commas and an
    HTML entity, as in Clotho.
    """

    def make(clips: Mapping[str, int] = SPLITS, name: str = "data", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        for split, count in clips.items():
            folder = tmp_path / name / split
            folder.mkdir(parents=True)
            with (tmp_path / name / f"captions_{split}.csv").open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow(["file_name", *(f"caption_{number}" for number in range(1, 6))])
                for index in range(count):
                    clip = f" {split}, no.1 &amp; first.wav" if index == 0 else f"{split}_{index}.wav"
                    soundfile.write(folder / clip, rng.uniform(-0.5, 0.5, rng.integers(13230, 35280)), 44100)
                    captions = []
                    for number in range(1, 6):
                        words = " and ".join(rng.choice(WORDS, 3, replace=False))
                        captions.append(f"In {split} {index}.{number}, {words}.")
                    table.writerow([clip, *captions])
        return tmp_path / name

    return make
