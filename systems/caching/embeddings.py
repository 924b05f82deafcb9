"""Embeddings that are computed once per sound, whatever is trained on them.

    embeddings = embed(paths, load_encoder("yamnet", hop=480), Path(".cache"))  # a list of (timestamps, size)

What is kept follows from the sound's content, the encoder, its weights and its hop, so that the same encoder with other
weights, fine-tuned ones for instance, has a store of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xxhash
from tqdm import tqdm

from evaluation.data import audio
from evaluation.findings import BadRequest
from systems.caching.store import Store, map_parallel, or_unusable
from systems.parts.encoders import Encoder
from systems.workers import pool

Values = np.ndarray | audio.UnusableSound


def embed(paths: Sequence[Path], encoder: Encoder, cache: Path, *, workers: int = 0) -> list[np.ndarray]:
    """Return the embeddings of every sound, (timestamps, size) float32 each, computing those that the cache lacks.

    Sounds go through the encoder one at a time, so that no embedding depends on another sound or on padding. Here, they
    are decoded in threads, and the encoder runs where its model is.

    Args:
        paths: The sounds, of any sample rate.
        encoder: From `encoders.load_encoder`.
        cache: Folder of the cache; several processes may share it.
        workers: How many of ray's workers to spread the sounds over, a processor each; 0 is none. They are of the
            cluster that RAY_ADDRESS names, else of this machine, and see the sounds under the same paths.

    Returns:
        Read-only views into the memory-mapped file, in the order of `paths`.

    Raises:
        Faulty: A sound cannot be used, or its embeddings are not finite; with all of these. The others are kept.
        BadRequest: Workers are asked for and ray is not installed.
    """
    label = f"{encoder.name} embeddings"

    def encode_here(missing: Sequence[Path]) -> Iterator[Values]:
        for sound in map_parallel(_decode(encoder), missing, label):
            yield sound if isinstance(sound, audio.UnusableSound) else _encode_sound(encoder, sound)

    def encode_on_workers(missing: Sequence[Path]) -> Iterator[Values]:
        values = _spread(missing, encoder, workers)
        return tqdm(values, label, len(missing), unit="clip", leave=False, disable=None)

    encode = encode_on_workers if workers else encode_here
    return _store(encoder, cache).rows(paths, encode)


@dataclass(frozen=True)
class CachedEncoder(Encoder):
    """An encoder whose embeddings are kept: a sound that was encoded before is read from the cache.

    A sound is known by its samples, so that the predictions of several runs share what was computed once. Training
    knows sounds by their files (`embed`), so the two do not share. An encoder that learns is never cached.

    Attributes:
        cache: Folder of the cache; several processes may share it.
    """

    cache: Path = Path(".cache")

    def __call__(self, sounds: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        """Embed mono sounds as `Encoder.__call__` does."""
        if any(parameter.requires_grad for parameter in self.model.parameters()):
            return super().__call__(sounds, lengths)
        samples = []
        for sound, length in zip(sounds, lengths.tolist(), strict=True):
            samples.append(np.ascontiguousarray(sound[:length].cpu().numpy()))
        device = self.device(sounds)
        rows = self._rows.rows(samples, self._encode, _sample_digests)
        return [torch.from_numpy(values.copy()).to(device) for values in rows]

    @cached_property
    def _rows(self) -> Store:
        """The store; its name takes a digest of all weights, which a frozen encoder computes once."""
        return _store(self, self.cache)

    def _encode(self, missing: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Encode the sounds that the cache lacks."""
        for sound in missing:
            values = _encode_sound(self, sound)
            if isinstance(values, audio.UnusableSound):
                raise BadRequest(str(values))
            yield values


def cache_embeddings(model: torch.nn.Module, cache: Path) -> None:
    """Replace every encoder of a model by one that reads and writes a cache.

    Args:
        model: The model; its encoders are attributes of its modules.
        cache: Folder of the cache.
    """
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Encoder):
                setattr(module, name, CachedEncoder(**vars(value), cache=cache))


def _sample_digests(sounds: Sequence[np.ndarray]) -> list[str]:
    return [f"samples {xxhash.xxh3_128_hexdigest(sound)}" for sound in sounds]


def _store(encoder: Encoder, cache: Path) -> Store:
    kind = "".join(letter if letter.isalnum() else "_" for letter in encoder.name)
    return Store(cache, kind, repr((audio.ARITHMETIC, encoder.identity)), encoder.size)


def _decode(encoder: Encoder) -> Callable[[Path], Values]:
    return or_unusable(lambda path: audio.load_audio(path, encoder.sample_rate))


def _encode_sound(encoder: Encoder, sound: np.ndarray) -> Values:
    """Encode one sound of (samples,) as (timestamps, size)."""
    with torch.inference_mode():
        values = encoder.encode_one(torch.from_numpy(sound))
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
        if isinstance(sound, audio.UnusableSound):
            return sound
        return _encode_sound(self.encoder, sound)
