"""Caches of log-mel energies and of decoded sounds. Each way to compute them has a store of its own."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evaluation.data import audio
from systems.caching.store import Store, map_parallel, or_unusable


def log_mels(paths: Sequence[Path], settings: audio.LogMel, cache: Path) -> list[np.ndarray]:
    """Return the log-mel energies of every sound, computing those that are not in the cache.

    Args:
        paths: The sounds, of any sample rate.
        settings: The settings of the front end.
        cache: Folder of the cache. Several processes may share it, and it may be read-only if it has all sounds.

    Returns:
        (frames, mels) for each sound, in the order of `paths`: read-only views into a memory-mapped file.

    Raises:
        Faulty: Sounds cannot be used; with a finding for each. The features of the others are kept.
        BadRequest: A sound is not in the cache, and the cache cannot be written.
    """

    @or_unusable
    def compute(path: Path) -> np.ndarray:
        return settings(audio.load_audio(path, settings.sample_rate))

    identity = repr((audio.ARITHMETIC, sorted(asdict(settings).items())))
    store = Store(cache, "logmel", identity, settings.mels)
    return store.rows(paths, lambda missing: map_parallel(compute, missing, "log-mel energies"))


def waveforms(paths: Sequence[Path], sample_rate: int, cache: Path) -> list[np.ndarray]:
    """Return the samples of every sound, decoding those that are not in the cache.

    Training reads sounds from here because decoding a batch takes longer than a training step.

    Args:
        paths: The sounds, of any sample rate.
        sample_rate: The rate to resample to, in Hz.
        cache: Folder of the cache, as for `log_mels`.

    Returns:
        (samples,) for each sound, in the order of `paths`: read-only views into a memory-mapped file.

    Raises:
        Faulty: Sounds cannot be used; with a finding for each.
        BadRequest: A sound is not in the cache, and the cache cannot be written.
    """

    @or_unusable
    def decode(path: Path) -> np.ndarray:
        return audio.load_audio(path, sample_rate)[:, None]

    store = Store(cache, "sound", repr((audio.ARITHMETIC, sample_rate)), 1)
    return [values[:, 0] for values in store.rows(paths, lambda missing: map_parallel(decode, missing, "decoding"))]
