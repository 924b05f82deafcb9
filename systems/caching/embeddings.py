"""Embeddings that are computed once per sound, whatever is trained on them.

    embeddings = embed(paths, encoder("yamnet", hop=480), Path(".cache"))        # a list of (timestamps, size)

What is kept follows from the sound's content, the encoder, its weights and its hop, so that the same encoder with other
weights, fine-tuned ones for instance, has a store of its own.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash
from tqdm import tqdm

from evaluation.data import audio
from evaluation.findings import BadRequest
from systems.caching.store import Store, parallel, usable
from systems.parts.encoders import KEEP, Encoder
from systems.workers import pool

Values = np.ndarray | audio.UnusableSound


def embed(paths: Sequence[Path], encoder: Encoder, cache: Path, *, workers: int = 0) -> list[np.ndarray]:
    """Return the embeddings of every sound, (timestamps, size) float32 each, computing those that the cache lacks.

    Sounds go through the encoder one at a time, so that no embedding depends on another sound or on padding. Here, they
    are decoded in threads, and the encoder runs where its model is.

    Args:
        paths: The sounds, of any sample rate.
        encoder: From `encoders.encoder`.
        cache: Folder of the cache; several processes may share it.
        workers: How many of ray's workers to spread the sounds over, a processor each; 0 is none. They are of the
            cluster that RAY_ADDRESS names, else of this machine, and see the sounds under the same paths.

    Returns:
        Read-only views into the memory-mapped file, in the order of `paths`.

    Raises:
        Faulty: A sound cannot be used, or its embeddings are not finite; with all of these. The others are kept.
        BadRequest: Workers are asked for and ray is not installed.
    """

    def here(missing: Sequence[Path]) -> Iterator[Values]:
        for sound in parallel(_decode(encoder), missing, label):
            yield sound if isinstance(sound, audio.UnusableSound) else _embedded(sound, encoder)

    def spread(missing: Sequence[Path]) -> Iterator[Values]:
        return tqdm(_spread(missing, encoder, workers), label, len(missing), unit="clip", leave=False, disable=None)

    label = f"{encoder.name} embeddings"
    return _store(encoder, cache).rows(paths, spread if workers else here)


@contextlib.contextmanager
def kept(cache: Path | None) -> Iterator[None]:
    """Within the block, keep what encoders that do not learn say of a sound, and do not ask them twice.

    A sound is known by its samples: predictions, which load their own, need not say where they are from.

    Args:
        cache: Folder of the cache; several processes may share it. None keeps nothing.
    """

    def keep(encoder: Encoder, sounds: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        samples = [np.ascontiguousarray(sound.cpu().numpy()) for sound in sounds]

        def compute(missing: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
            for sound in missing:
                values = _embedded(sound, encoder)
                if isinstance(values, audio.UnusableSound):
                    raise BadRequest(str(values))
                yield values

        def digests(sounds: Sequence[np.ndarray]) -> list[str]:
            return [f"samples {xxhash.xxh3_128_hexdigest(sound)}" for sound in sounds]

        rows = _store(encoder, cache).rows(samples, compute, digests)
        return [torch.from_numpy(values.copy()) for values in rows]

    before = KEEP.set(keep if cache else None)
    try:
        yield
    finally:
        KEEP.reset(before)


def _store(encoder: Encoder, cache: Path) -> Store:
    kind = "".join(letter if letter.isalnum() else "_" for letter in encoder.name)
    return Store(cache, kind, repr((audio.ARITHMETIC, encoder.identity)), encoder.size)


def _decode(encoder: Encoder) -> Callable[[Path], Values]:
    return usable(lambda path: audio.load(path, encoder.sample_rate))


def _embedded(sound: np.ndarray, encoder: Encoder) -> Values:
    with torch.inference_mode(), kept(None):
        (values,) = encoder(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
    if not values.isfinite().all():
        return audio.UnusableSound(f"{encoder.name} gives it embeddings that are not finite; leave the sound out")
    return values.cpu().numpy()


def _spread(missing: Sequence[Path], encoder: Encoder, workers: int) -> Iterator[Values]:
    if missing:
        spread = pool(_Worker, min(workers, len(missing)), encoder)
        yield from spread.map(lambda worker, path: worker.embed.remote(path.absolute()), missing)


class _Worker:
    """Keeps the encoder from sound to sound."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def embed(self, path: Path) -> Values:
        sound = _decode(self.encoder)(path)
        return sound if isinstance(sound, audio.UnusableSound) else _embedded(sound, self.encoder)
