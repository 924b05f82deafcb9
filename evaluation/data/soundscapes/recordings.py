"""Generation of long recordings with several scenes, and queries for the windows of the scenes.

    make_recordings(Path("data/recordings"))
    recordings, _ = read_recordings(Path("data/recordings/moments_evaluation.jsonl"))

Files: for each split, `moments_SPLIT.jsonl` in the form of CASTELLA (DCASE 2026 task 6), the recordings in `SPLIT/`,
and `sources_SPLIT.csv` with the start, end and scene of each window.

Conventions
-----------
- A recording has `SCENES` scenes with two or three sources each. Two scenes of a recording do not share a kind of
  sound, so a query fits only its own scene. Each scene occurs one to three times, and each occurrence is a window.
  Between the windows, there are pauses of quiet noise.
- A query describes a scene in the words of the captions of soundscapes.
- A window begins at a multiple of 0.1 s. Its end is the end of the scene's audio, rounded to 0.001 s.
- The same seed gives the same bytes, for any number of workers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

from evaluation.data.audio import write_wave
from evaluation.data.soundscapes.generate import check_request, random_of, run_jobs
from evaluation.data.soundscapes.grammar import describe
from evaluation.data.soundscapes.scenes import arrange, scene_text
from evaluation.data.soundscapes.synthesis import SAMPLE_RATE, SOUND_KINDS, Scene, render
from evaluation.data.tables import write_table
from evaluation.files import appearing

RECORDINGS = MappingProxyType({"development": 16, "validation": 4, "evaluation": 8})
SCENES = 4  # number of different scenes of a recording, each of which has a query
MOST_TIMES = 3  # maximum number of windows of a scene
PAUSE = (1.0, 6.0)  # shortest and longest pause in seconds
NOISE = 1e-3  # standard deviation of the noise in pauses
STEP = 0.1  # seconds; windows begin at multiples

Job = tuple[str, int]  # split, index of the recording in the split


@dataclass(frozen=True)
class Moment:
    """A scene of a recording.

    Attributes:
        scene: The scene.
        query: The description of the scene.
        windows: The starts and ends of its windows in seconds.
    """

    scene: Scene
    query: str
    windows: tuple[tuple[float, float], ...]


def make_recordings(
    folder: Path,
    *,
    seed: int = 0,
    recordings: Mapping[str, int] = RECORDINGS,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Generate the data set.

    Args:
        folder: The new folder, which must not exist or must be empty. It appears only when it is complete.
        seed: The seed, 0 or more.
        recordings: Dict from each split to its number of recordings.
        workers: Number of processes (default: the number of processors).
        progress: Show a progress bar.

    Raises:
        BadRequest: The folder is not empty, or the seed is negative.
    """
    check_request(folder, seed)
    jobs = [(split, index) for split, number in recordings.items() for index in range(number)]
    with appearing(folder) as new:
        for split in recordings:
            (new / split).mkdir(parents=True)
        written = run_jobs(partial(_write_recording, new, seed), jobs, workers, progress)
        for split in recordings:
            of_split = [made for (job_split, _), made in zip(jobs, written, strict=True) if job_split == split]
            _write_split(new, split, of_split)


def _write_recording(folder: Path, seed: int, job: Job) -> tuple[float, list[Moment]]:
    """Write the audio of a recording, and return its length in seconds and its scenes."""
    split, index = job
    rng = random_of(seed, split, index + 1)
    scenes = _draw_scenes(rng)
    queries = [describe(rng, scene)[0] for scene in scenes]
    played = np.repeat(np.arange(SCENES), rng.integers(1, MOST_TIMES + 1, size=SCENES))
    windows: list[list[tuple[float, float]]] = [[] for _ in scenes]
    placed: list[tuple[float, np.ndarray]] = []
    now = 0.0
    for number in rng.permutation(played).tolist():
        start = round(round((now + rng.uniform(*PAUSE)) / STEP) * STEP, 1)
        sound = render(rng, scenes[number])
        now = start + len(sound) / SAMPLE_RATE
        placed.append((start, sound))
        windows[number].append((start, round(now, 3)))
    seconds = round(np.ceil((now + rng.uniform(*PAUSE)) / STEP) * STEP, 1)
    recording = NOISE * rng.standard_normal(round(seconds * SAMPLE_RATE))
    for start, sound in placed:
        first = round(start * SAMPLE_RATE)
        recording[first : first + len(sound)] += sound
    write_wave(folder / split / f"{_name(index)}.wav", recording, SAMPLE_RATE)
    moments = []
    for scene, query, windows_of_scene in zip(scenes, queries, windows, strict=True):
        moments.append(Moment(scene, query, tuple(windows_of_scene)))
    return float(seconds), moments


def _draw_scenes(rng: Generator) -> list[Scene]:
    """Draw the scenes of a recording, which do not share a kind."""
    kinds = rng.permutation(list(SOUND_KINDS)).tolist()
    scenes = []
    for _ in range(SCENES):
        size = int(rng.integers(2, 4))
        scenes.append(arrange(rng, kinds[:size]))
        kinds = kinds[size:]
    return scenes


def _name(index: int) -> str:
    return f"recording_{index + 1:04d}"


def _write_split(folder: Path, split: str, written: Sequence[tuple[float, Sequence[Moment]]]) -> None:
    """Write the queries and the windows of a split."""
    rows = [["file_name", "start", "end", "scene"]]
    lines = []
    for index, (seconds, moments) in enumerate(written):
        of_recording: list[tuple[float, float, str]] = []
        for number, moment in enumerate(moments, start=1):
            content = {
                "qid": f"{_name(index)}_{number}",
                "query": moment.query,
                "duration": seconds,
                "vid": _name(index),
                "relevant_windows": moment.windows,
            }
            lines.append(json.dumps(content) + "\n")
            of_recording += [(start, end, scene_text(moment.scene)) for start, end in moment.windows]
        for start, end, text in sorted(of_recording):
            rows.append([f"{_name(index)}.wav", f"{start:g}", f"{end:.3f}", text])
    (folder / f"moments_{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    write_table(folder / f"sources_{split}.csv", rows)
