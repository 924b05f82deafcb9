"""Generation of the data set of soundscapes, in Clotho's layout."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from evaluation.data.audio import write_wave
from evaluation.data.soundscapes.grammar import CAPTIONS, describe
from evaluation.data.soundscapes.scenes import plan, scene_text
from evaluation.data.soundscapes.synthesis import SAMPLE_RATE, Scene, render
from evaluation.data.tables import write_table
from evaluation.files import appearing
from evaluation.findings import BadRequest
from evaluation.processes import start_worker

Job = tuple[str, int, str, Scene]  # split, index of the clip in the split, file name, scene

AnyJob = TypeVar("AnyJob")
Result = TypeVar("Result")

CLIPS = MappingProxyType({"development": 480, "validation": 120, "evaluation": 120})


# Three names of each split are as awkward as some of Clotho's. No name describes the content of its clip.
AWKWARD = (" soundscape_{:04d}.wav", "soundscape {:04d}, take 2.wav", "soundscape.{:04d}.v1.2.wav")


def make_soundscapes(
    folder: Path, *, seed: int = 0, clips: Mapping[str, int] = CLIPS, workers: int | None = None, progress: bool = True
) -> None:
    """Generate the data set: `SPLIT/*.wav`, `captions_SPLIT.csv`, and `sources_SPLIT.csv` with the scene of each clip.

    Args:
        folder: The new folder, which must not exist or must be empty. It appears only when it is complete. Temporary
            folders that killed calls left for it are removed.
        seed: The seed, 0 or more. The same seed gives the same bytes on the same machine.
        clips: Dict from each split to its number of clips.
        workers: Number of processes (default: the number of processors).
        progress: Show a progress bar.

    Raises:
        BadRequest: The folder is not empty, or the seed is negative.
    """
    check_request(folder, seed)
    jobs: list[Job] = []
    for split, number in clips.items():
        for index, scene in enumerate(plan(random_of(seed, split, 0), number)):
            name = AWKWARD[index] if index < len(AWKWARD) else "soundscape_{:04d}.wav"
            jobs.append((split, index, name.format(len(jobs) + 1), scene))
    with appearing(folder) as new:
        for split in clips:
            (new / split).mkdir(parents=True)
        captions = run_jobs(partial(_write_clip, new, seed), jobs, workers, progress)
        for split in clips:
            _write_tables(new, split, jobs, captions)


def _write_tables(folder: Path, split: str, jobs: Sequence[Job], captions: Sequence[Sequence[str]]) -> None:
    """Write the tables of captions and scenes of a split."""
    numbers = range(1, CAPTIONS + 1)
    caption_rows = [["file_name", *(f"caption_{number}" for number in numbers)]]
    scene_rows = [["file_name", "scene"]]
    for (job_split, _, name, scene), texts in zip(jobs, captions, strict=True):
        if job_split == split:
            caption_rows.append([name, *texts])
            scene_rows.append([name, scene_text(scene)])
    write_table(folder / f"captions_{split}.csv", caption_rows)
    write_table(folder / f"sources_{split}.csv", scene_rows)


def check_request(folder: Path, seed: int) -> None:
    """Check the folder and the seed of a data set to generate.

    Raises:
        BadRequest: The folder is not empty, or the seed is negative.
    """
    if seed < 0:
        raise BadRequest(f"the seed must be 0 or more; found {seed}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadRequest(f"{folder}: must not exist or must be an empty folder; remove it or give another folder")


def run_jobs(
    function: Callable[[AnyJob], Result], jobs: Sequence[AnyJob], workers: int | None, progress: bool
) -> list[Result]:
    """Return the results of a function for each job, in the order of the jobs.

    Args:
        function: A function that writes the audio of a job; processes must be able to import it.
        jobs: The jobs.
        workers: Number of processes (default: the number of processors).
        progress: Show a progress bar.
    """
    with ExitStack() as stack:
        each: Callable[..., Iterator[Result]] = map
        if workers != 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, initializer=start_worker))
            each = partial(pool.map, chunksize=8)
        disable = None if progress else True  # None: disabled if standard error is not a terminal
        return list(tqdm(each(function, jobs), "soundscapes", len(jobs), unit="clip", disable=disable))


def random_of(seed: int, split: str, number: int) -> Generator:
    """Return a separate generator for the plan of a split (0) or one of its clips (from 1)."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), number])


def _write_clip(folder: Path, seed: int, job: Job) -> list[str]:
    """Write the audio of a clip and return its captions."""
    split, index, name, scene = job
    rng = random_of(seed, split, index + 1)
    write_wave(folder / split / name, render(rng, scene), SAMPLE_RATE)
    return describe(rng, scene)
