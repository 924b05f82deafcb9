"""Log-mel energies and decoded sounds that are computed once per sound, a store for each way to compute them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evaluation.data import audio
from systems.caching.store import Store, map_parallel, or_unusable


def log_mels(paths: Sequence[Path], settings: audio.LogMel, cache: Path) -> list[np.ndarray]:
    """Return the log-mel energies of every sound, (frames, mels) each, computing those that the cache lacks.

    Args:
        paths: The sounds, of any sample rate.
        settings: How features are computed.
        cache: Folder of the cache; several processes may share it, and a complete one may be read-only.

    Returns:
        Read-only views into the memory-mapped file, in the order of `paths`.

    Raises:
        Faulty: A sound cannot be used; with all that cannot. The others are kept.
        BadRequest: The cache lacks a sound and cannot be written.
    """

    @or_unusable
    def compute(path: Path) -> np.ndarray:
        return settings(audio.load_audio(path, settings.sample_rate))

    identity = repr((audio.ARITHMETIC, sorted(asdict(settings).items())))
    store = Store(cache, "logmel", identity, settings.mels)
    return store.rows(paths, lambda missing: map_parallel(compute, missing, "log-mel energies"))


def waveforms(paths: Sequence[Path], sample_rate: int, cache: Path) -> list[np.ndarray]:
    """Return every sound, (samples,) at a rate, from a memory-mapped file: decoding would take longer than a step.

    Raises:
        Faulty: A sound cannot be used; with all that cannot.
        BadRequest: The cache lacks a sound and cannot be written.
    """

    @or_unusable
    def decode(path: Path) -> np.ndarray:
        return audio.load_audio(path, sample_rate)[:, None]

    store = Store(cache, "sound", repr((audio.ARITHMETIC, sample_rate)), 1)
    return [values[:, 0] for values in store.rows(paths, lambda missing: map_parallel(decode, missing, "decoding"))]
