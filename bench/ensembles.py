"""Measures of ensembles: the mean of similarity matrices, and the consensus of captions, at the size of Clotho."""

from pathlib import Path

import numpy as np

from bench.measuring import CLIPS, Function, Measure, Row, clotho, duration, race, times
from evaluation.data.dataset import EVALUATION, read_dataset
from evaluation.predictions import Similarity

RUNS = 20
MATRICES_TARGET, CONSENSUS_TARGET = 5, 60  # seconds


def ensembles(alone: Function, folder: Path) -> list[Row]:
    """Measure an ensemble of retrievers, compared with numpy, and an ensemble of captioners."""
    data = clotho(folder)
    queries, clips = 5 * CLIPS[EVALUATION], CLIPS[EVALUATION]
    ours, theirs = alone(_matrices, queries, clips, folder)
    what = f"mean of {RUNS} matrices of {queries} queries x {clips} clips, from files / numpy"
    matrices = Row(
        what, duration(ours), duration(theirs), times(theirs / ours), f"< {MATRICES_TARGET} s", ours < MATRICES_TARGET
    )
    seconds = alone(_consensus, data, folder)
    note = "CIDEr-D, with tokenising; measured once"
    what = f"consensus of {RUNS} x {clips} captions"
    is_met = seconds < CONSENSUS_TARGET
    return [matrices, Row(what, duration(seconds), target=f"< {CONSENSUS_TARGET} s", met=is_met, note=note)]


def _matrices(queries: int, clips: int, folder: Path) -> list[float]:
    from systems.ensembles.matrices import read_matrices, weighted_mean

    rng = np.random.default_rng(0)
    texts = tuple(f"query {number}" for number in range(queries))
    names = tuple(f"{number}.wav" for number in range(clips))
    files = []
    for run in range(RUNS):
        files.append(folder / f"matrix-{run}.npz")
        Similarity(texts, names, rng.standard_normal((queries, clips), np.float32)).save(files[-1])

    def combine() -> Similarity:
        return weighted_mean(read_matrices(files, standardise=False), [1 / RUNS] * RUNS)

    def combine_with_numpy() -> np.ndarray:
        total = np.zeros((queries, clips), np.float32)
        for file in files:
            with np.load(file, allow_pickle=False) as arrays:
                total += arrays["scores"]
        return total / RUNS

    assert np.allclose(combine().scores, combine_with_numpy(), atol=1e-5)
    seconds = race(combine, combine_with_numpy, rounds=3)
    for file in files:
        file.unlink()
    return seconds


def _consensus(data: Path, folder: Path) -> float:
    from systems.ensembles.consensus import choose, similarities

    split = read_dataset(data, EVALUATION, sound=False)[EVALUATION]
    rng = np.random.default_rng(0)
    candidates = []
    for _ in range(RUNS):  # a reference of the clip, or of another clip
        captions = []
        for clip in split.clips:
            chosen = clip if rng.random() < 0.5 else split.clips[rng.integers(len(split.clips))]
            captions.append(chosen.captions[rng.integers(len(chosen.captions))])
        candidates.append(tuple(captions))
    (seconds,) = race(
        lambda: choose(similarities("cider_d", candidates, folder / "consensus"), [1 / RUNS] * RUNS), rounds=1
    )
    return seconds


MEASURES: dict[str, Measure] = {"ensembles": ensembles}
