"""What several rooms' tests need: a tiny data folder, and the real material where this machine has it."""

import os

# The tensors of the tests are tiny: a second thread only waits, and on a busy machine it waits in circles.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # else ray's workers wait for the other tests

import csv
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


LONGEST = (
    "test_readme.py",
    "test_tune.py",
    "test_training.py",
    "test_job.py",
    "test_captioner.py",
    "test_atae.py",
    "test_fuzz.py",
    "test_captioning.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that in the end no process waits for one."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


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
