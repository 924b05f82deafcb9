"""Shared by all tests: their order, a tiny data folder, and the real material if this machine has it."""

import os

# The tensors of the tests are tiny: a second thread only waits, and on a busy machine it waits in circles.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # else ray's workers wait for the other tests

import csv
import gc
from collections.abc import Callable, Mapping
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile

hypothesis.settings.register_profile("no deadline", deadline=None)  # tests do not depend on the machine's speed
hypothesis.settings.load_profile("no deadline")

SPLITS = {"development": 6, "validation": 3, "evaluation": 3}
WORDS = ["birds", "rain", "engine", "steps", "water", "door", "wind", "crowd", "bell", "dog", "saw", "thunder"]


# A million objects are imported to stay: looking for garbage among them takes a fifth of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from here on, but not among what is imported."""
    gc.freeze()
    gc.enable()


# Seconds of each test in earlier runs, kept in pytest's cache.
SECONDS = "dcase/seconds"
SLOW_TEST = 100  # seconds that a test marked as slow is expected to take when it was never run
WORTH_KEEPING = 0.5  # seconds; quicker tests do not decide when a file is run

_seconds: dict[str, float] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that took longest in earlier runs, so that in the end no process waits for one.

    A file that was never run comes first if it has a test that is marked as slow. Quick files come last, large ones
    before small ones.
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


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the seconds of a test's setup, call and teardown."""
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the seconds of all tests that were run, for the order of the next run."""
    is_worker = hasattr(session.config, "workerinput")
    if is_worker or not hasattr(session.config, "cache"):
        return
    seconds = {**_earlier_seconds(session.config), **_seconds}
    kept = {test: round(value, 1) for test, value in seconds.items() if value >= WORTH_KEEPING}
    session.config.cache.set(SECONDS, kept)


def _earlier_seconds(config: pytest.Config) -> dict[str, float]:
    """Return the seconds of each test in earlier runs; none if pytest's cache is off."""
    return config.cache.get(SECONDS, {}) if hasattr(config, "cache") else {}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real material's folder; without it the test is skipped."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real material in {folder}")
    return folder


@pytest.fixture
def clotho_like(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder in Clotho's layout: noise of 0.3 to 0.8 s with five captions a clip, and names as Clotho has."""

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
                    heard = [" and ".join(rng.choice(WORDS, 3, replace=False)) for _ in range(5)]
                    table.writerow([clip, *(f"In {split} {index}.{n}, {what}." for n, what in enumerate(heard, 1))])
        return tmp_path / name

    return make
