"""Caches of log-mel energies and of decoded audio. There is a separate store for each setting of their computation."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evaluation.data import audio
from systems.caching.store import Store, map_parallel, or_unusable


def log_mels(paths: Sequence[Path], settings: audio.LogMel, cache: Path) -> list[np.ndarray]:
    """Return the log-mel energies of every audio file. Compute and store those that are not in the cache.

    Args:
        paths: The audio files, of any sample rate.
        settings: The settings of the front end.
        cache: Folder of the cache. Several processes may share it. It may be read-only if it contains all files.

    Returns:
        (frames, mels) float32 for each file, in the order of `paths`. The arrays are read-only views into a
        memory-mapped file.

    Raises:
        Faulty: Files cannot be used. The exception lists all findings. The features of all other files are stored.
        BadRequest: Features are missing, and the cache cannot be written.
    """

    @or_unusable
    def compute(path: Path) -> np.ndarray:
        return settings(audio.load_audio(path, settings.sample_rate))

    identity = repr((audio.ARITHMETIC, sorted(asdict(settings).items())))
    store = Store(cache, "logmel", identity, settings.mels)
    return store.rows(paths, lambda missing: map_parallel(compute, missing, "log-mel energies"))


def waveforms(paths: Sequence[Path], sample_rate: int, cache: Path) -> list[np.ndarray]:
    """Return the samples of every audio file. Decode and store those that are not in the cache.

    Training reads audio from this cache, because decoding a batch takes longer than a training step.

    Args:
        paths: The audio files, of any sample rate.
        sample_rate: The rate to resample to, in Hz.
        cache: Folder of the cache, as for `log_mels`.

    Returns:
        (samples,) float32 for each file, in the order of `paths`. The arrays are read-only views into a memory-mapped
        file.

    Raises:
        Faulty: Files cannot be used. The exception lists all findings. The samples of all other files are stored.
        BadRequest: Samples are missing, and the cache cannot be written.
    """

    @or_unusable
    def decode(path: Path) -> np.ndarray:
        return audio.load_audio(path, sample_rate)[:, None]

    store = Store(cache, "sound", repr((audio.ARITHMETIC, sample_rate)), 1)
    return [values[:, 0] for values in store.rows(paths, lambda missing: map_parallel(decode, missing, "decoding"))]
