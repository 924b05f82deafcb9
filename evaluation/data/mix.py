"""A data set of mixed clips: each is the sum of two clips of a development split, with their captions joined by "and".

    mixed = mix_clips(Path("data/clotho"), Path("data/clotho-mixed"), pairs=5000)
    print(mixed.clips, mixed.captions)

Wu et al. 2024 (arXiv 2309.17352, the winner of DCASE 2023 task 6A) trained on such mixtures of Clotho's clips. As in
their code (slSeanWU/beats-conformer-bart-audio-captioner), the two clips are drawn at random, the ratio of their
energies is drawn between -5 and 5 dB, and the shorter clip begins at a random place in the longer one. Wu et al. let
ChatGPT combine the captions. This module joins them: "A dog barks." and "Rain falls." become "A dog barks and rain
falls.". To use captions of a language model, replace those in `captions_development.csv` of the new folder;
`metadata_development.csv` has the two clips of each mixture.

Two clips that share a caption are not mixed, because the mixture would be described by the same words twice.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from evaluation.data import audio, tables
from evaluation.data.dataset import DEVELOPMENT, Clip, read_dataset
from evaluation.files import appearing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import plural

DECIBELS = 5.0  # the ratio of the energies of two clips is between -5 and 5 dB
TRIES = 10  # maximum number of pairs that are drawn for each mixture, because clips that share a caption are left out


@dataclass(frozen=True)
class Mixed:
    """The size of a data set of mixed clips.

    Attributes:
        clips: The number of mixed clips.
        captions: The number of captions of each mixed clip.
    """

    clips: int
    captions: int


@dataclass(frozen=True)
class Mixture:
    """A mixed clip before its audio is made.

    Attributes:
        file_name: Its name.
        first: The clip whose captions come first.
        second: The other clip.
        captions: The joined captions.
        decibels: The ratio of the energy of the first clip to that of the second, in dB.
        place: The start of the shorter clip, as a share of the time by which the longer one is longer.
    """

    file_name: str
    first: Clip
    second: Clip
    captions: tuple[str, ...]
    decibels: float
    place: float


def mix_clips(folder: Path, out: Path, *, pairs: int, seed: int = 0) -> Mixed:
    """Write a data folder in Clotho's layout whose development split consists of mixed clips.

    Args:
        folder: The data folder whose development clips are mixed.
        out: The new folder, which must not exist or must be empty. It appears only when it is complete.
        pairs: The number of mixed clips. No two of them have the same two clips.
        seed: The seed, 0 or more. The same data and seed give the same files on the same machine.

    Raises:
        BadRequest: `out` is not empty, the number or the seed is too small, the split has too few pairs of clips, or a
            clip has no captions.
        Faulty: The data are not valid, or clips cannot be decoded. The exception lists all findings.
    """
    if pairs < 1:
        raise BadRequest(f"--pairs must be 1 or more; found {pairs}")
    if seed < 0:
        raise BadRequest(f"the seed must be 0 or more; found {seed}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadRequest(f"{out}: must not exist or must be an empty folder; remove it or give another folder")
    clips = read_dataset(folder, DEVELOPMENT)[DEVELOPMENT].clips
    number = min(len(clip.captions) for clip in clips)
    if not number:
        raise BadRequest(
            f"{folder}: the clips must have captions; found clips without: add them, or give another folder"
        )
    mixtures = []
    drawn = draw_pairs(clips, pairs, np.random.default_rng([seed, 0]))
    if len(drawn) < pairs:
        message = f"--pairs must be at most the number of pairs of clips that share no caption; found {pairs}"
        raise BadRequest(f"{message}, and only {plural(len(drawn), 'pair')}: give a smaller number")
    for index, (first, second) in enumerate(drawn, start=1):
        name = f"mix_{index:0{max(5, len(str(pairs)))}d}.wav"
        mixtures.append(_plan(name, first, second, number, np.random.default_rng([seed, index])))
    with appearing(out) as new:
        (new / DEVELOPMENT).mkdir()
        _write_sounds(new / DEVELOPMENT, mixtures)
        header = ["file_name", *(f"caption_{index}" for index in range(1, number + 1))]
        rows = [[mixture.file_name, *mixture.captions] for mixture in mixtures]
        tables.write_table(new / f"captions_{DEVELOPMENT}.csv", [header, *rows])
        rows = [["file_name", "first", "second", "decibels"]]
        for mixture in mixtures:
            names = [mixture.file_name, mixture.first.file_name, mixture.second.file_name]
            rows.append([*names, f"{mixture.decibels:.2f}"])
        tables.write_table(new / f"metadata_{DEVELOPMENT}.csv", rows)
    return Mixed(pairs, number)


def draw_pairs(clips: Sequence[Clip], number: int, rng: Generator) -> list[tuple[Clip, Clip]]:
    """Draw different pairs of clips that share no caption, in random order.

    Args:
        clips: The clips.
        number: The number of pairs.
        rng: The random generator.

    Returns:
        The pairs. There are fewer than `number` if too few of the drawn pairs share no caption.
    """
    total = len(clips) * (len(clips) - 1) // 2
    drawn = rng.choice(total, size=min(total, TRIES * number + 1000), replace=False)
    pairs: list[tuple[Clip, Clip]] = []
    for code in drawn.tolist():
        # The pairs (0, 1), (0, 2), (1, 2), (0, 3), … have the codes 0, 1, 2, 3, …
        later = (1 + math.isqrt(1 + 8 * code)) // 2
        earlier = code - later * (later - 1) // 2
        first, second = clips[earlier], clips[later]
        if rng.random() < 0.5:
            first, second = second, first
        if len(pairs) < number and not set(first.captions) & set(second.captions):
            pairs.append((first, second))
    return pairs


def join_captions(first: str, second: str) -> str:
    """Join two captions with "and".

    The full stop of the first caption is removed. The second caption begins with a small letter, unless its first word
    is "I" or has another capital letter. A name with one capital letter loses it.

    >>> join_captions("A dog barks.", "Rain falls."), join_captions("Rain falls", "TV sounds are audible")
    ('A dog barks and rain falls.', 'Rain falls and TV sounds are audible')
    """
    word, *_ = second.split()
    begins = second
    if word != "I" and not any(letter.isupper() for letter in word[1:]):
        begins = second[0].lower() + second[1:]
    return f"{first.rstrip(' .') or first} and {begins}"


def mix(first: np.ndarray, second: np.ndarray, decibels: float, place: float) -> np.ndarray:
    """Add two waveforms of the same sample rate.

    Args:
        first: (samples,) the first waveform.
        second: (samples,) the second one, which may have another length.
        decibels: The ratio of the mean energy of the first waveform to that of the second one in dB. The second
            waveform is scaled to get this ratio, unless a waveform is zero everywhere.
        place: The start of the shorter one in the longer one: 0 at its beginning, 1 as late as possible.

    Returns:
        (samples,) the sum, as long as the longer one. If a sample is outside [-1, 1], all samples are divided by the
        largest absolute value.
    """
    energies = [float(np.mean(np.square(waveform, dtype=np.float64))) for waveform in (first, second)]
    gain = 1.0
    if all(energies):
        gain = math.sqrt(energies[0] / energies[1]) * 10 ** (-decibels / 20)
    longer, shorter = first, gain * second
    if len(shorter) > len(longer):
        longer, shorter = shorter, longer
    start = round(place * (len(longer) - len(shorter)))
    total = longer.astype(np.float64)
    total[start : start + len(shorter)] += shorter
    return total / max(1.0, float(np.abs(total).max()))


def _plan(name: str, first: Clip, second: Clip, captions: int, rng: Generator) -> Mixture:
    """Draw the random parts of a mixture: the pairs of captions, the ratio of the energies, and the place."""
    order = rng.permutation(captions)
    joined = tuple(join_captions(first.captions[index], second.captions[order[index]]) for index in range(captions))
    return Mixture(name, first, second, joined, rng.uniform(-DECIBELS, DECIBELS), rng.random())


def _write_sounds(folder: Path, mixtures: Sequence[Mixture]) -> None:
    """Write the audio of mixtures.

    Raises:
        Faulty: Clips cannot be decoded. The exception lists all of them.
    """
    findings: dict[Path, Finding] = {}

    def write(mixture: Mixture) -> None:
        sounds = []
        for clip in (mixture.first, mixture.second):
            try:
                sounds.append(audio.decode(clip.path))
            except audio.UnusableSound as reason:
                findings[clip.path] = Finding(str(clip.path), message=str(reason))
        if findings:
            return
        rate = max(rate for _, rate in sounds)
        first, second = [audio.resample(samples, own_rate, rate) for samples, own_rate in sounds]
        total = mix(first, second, mixture.decibels, mixture.place)
        audio.write_wave(folder / mixture.file_name, total, rate)

    # Threads are enough, because libsndfile and numpy compute without Python's global lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(tqdm(pool.map(write, mixtures), "mixing", len(mixtures), unit="clip", leave=False, disable=None))
    if findings:
        raise Faulty(sorted(findings.values()))
