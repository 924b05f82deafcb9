"""Audio for training on excerpts: short clips from a cache, and excerpts of long recordings from their files.

A cache of decoded audio is faster than the files, but large: for WavCaps at 32 kHz, it would take 3.5 TB. If training
reads only an excerpt of each long recording, most of that cache would be of no use in an epoch. Therefore only clips
that training reads as a whole are in the cache (`features.waveforms`). A longer clip is a `Recording`, which decodes
each excerpt when training needs it. If the decoder cannot read a part of a file (`audio.can_load_excerpts`), the clip
is in the cache, too.

Before training begins, all files are decoded once, to find those that cannot be used and to know their lengths. The
lengths are stored.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.data import audio
from evaluation.findings import Faulty, Finding
from systems.caching.features import waveforms
from systems.caching.store import Store, map_parallel, or_unusable


@dataclass(frozen=True)
class Recording:
    """The samples of an audio file, with `len` and slices as for an array. A slice decodes a part of the file.

    Attributes:
        path: The file.
        sample_rate: The rate to resample to, in Hz.
        length: Number of samples at this rate.
    """

    path: Path
    sample_rate: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> np.ndarray:
        """Decode a part without a step.

        Raises:
            Faulty: The file cannot be decoded, or has fewer samples than `length`.
        """
        start, end, _ = part.indices(self.length)
        try:
            return audio.load_excerpt(self.path, self.sample_rate, start, end - start)
        except audio.UnusableSound as reason:
            raise Faulty([Finding(str(self.path), message=str(reason))]) from None


Sounds = Sequence[np.ndarray | Recording]


def waveforms_or_recordings(paths: Sequence[Path], sample_rate: int, longest: float, cache: Path) -> Sounds:
    """Return the samples of every audio file, or a `Recording` if they are more than `longest`.

    Args:
        paths: The audio files, of any sample rate.
        sample_rate: The rate to resample to, in Hz.
        longest: Maximum number of samples of a clip that training reads as a whole; infinite if it reads all clips so.
        cache: Folder of the cache, as for `features.waveforms`.

    Raises:
        Faulty: As for `features.waveforms`.
        BadRequest: As for `features.waveforms`.
    """
    if math.isinf(longest):
        return waveforms(paths, sample_rate, cache)
    recordings = {}
    for path, (length, can_load_excerpts) in zip(paths, _lengths(paths, sample_rate, cache).tolist(), strict=True):
        if length > longest and can_load_excerpts:
            recordings[path] = Recording(path, sample_rate, length)
    in_cache = [path for path in paths if path not in recordings]
    samples = dict(zip(in_cache, waveforms(in_cache, sample_rate, cache), strict=True))
    return [recordings[path] if path in recordings else samples[path] for path in paths]


def read_parts(sounds: Sounds, parts: Sequence[slice]) -> list[np.ndarray]:
    """Return a part of each sound. Parts of recordings are decoded in threads, because decoding releases Python's lock.

    Raises:
        Faulty: A file cannot be decoded, or has changed.
    """
    if not any(isinstance(sound, Recording) for sound in sounds):
        return [sound[part] for sound, part in zip(sounds, parts, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda sound, part: sound[part], sounds, parts))


def _lengths(paths: Sequence[Path], sample_rate: int, cache: Path) -> np.ndarray:
    """Return two integers for every file: the number of its samples, and 1 if excerpts of it can be loaded, else 0.

    Values that are not in the cache are computed and stored. The exceptions are those of `features.waveforms`.
    """

    @or_unusable
    def compute(path: Path) -> np.ndarray:
        length = len(audio.load_audio(path, sample_rate))
        return np.array([[length, audio.can_load_excerpts(path, sample_rate)]], np.int64).view(np.float32)

    # A store has float32 values. Two of them have the bytes of one integer.
    store = Store(cache, "length", repr((audio.ARITHMETIC, sample_rate)), 4)
    return store.matrix(paths, lambda missing: map_parallel(compute, missing, "checking audio")).view(np.int64)
