"""A cache of embeddings: each sound is encoded once, and all trainings read its embeddings from a file.

    embeddings = embed(paths, load_encoder("yamnet", hop=480), Path(".cache"))  # a list of (timestamps, size)

Embeddings are stored by the sound's content, the encoder, its weights and its hop. The same encoder with other weights,
such as fine-tuned ones, has a store of its own.
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
    """Return the embeddings of every sound, computing those that are not in the cache.

    The encoder gets one sound at a time, so that no embedding depends on another sound or on padding. Without workers,
    sounds are decoded in threads, and the encoder runs on the device of its model.

    Args:
        paths: The sounds, of any sample rate.
        encoder: The encoder, from `encoders.load_encoder`.
        cache: Folder of the cache; several processes may share it.
        workers: Number of Ray workers that encode the sounds, each on one processor (default: 0, encode in this
            process). They belong to the cluster in the variable RAY_ADDRESS, or else to this machine, and must find the
            sounds under the same paths.

    Returns:
        (timestamps, size) float32 for each sound, in the order of `paths`: read-only views into a memory-mapped file.

    Raises:
        Faulty: Sounds cannot be used, or their embeddings are not finite; with a finding for each. The embeddings of
            the others are kept.
        BadRequest: Workers are requested, but Ray is not installed.
    """
    label = f"{encoder.name} embeddings"

    def encode_here(missing: Sequence[Path]) -> Iterator[Values]:
        for sound in map_parallel(_decode(encoder), missing, label):
            if isinstance(sound, audio.UnusableSound):
                yield sound
            else:
                yield _encode_sound(encoder, sound)

    def encode_on_workers(missing: Sequence[Path]) -> Iterator[Values]:
        values = _distribute(missing, encoder, workers)
        return tqdm(values, label, len(missing), unit="clip", leave=False, disable=None)

    store = _store(encoder, cache)
    if workers:
        return store.rows(paths, encode_on_workers)
    return store.rows(paths, encode_here)


@dataclass(frozen=True)
class CachedEncoder(Encoder):
    """An encoder that reads the embeddings of sounds that it encoded before from a cache.

    Sounds are identified by their samples, so the predictions of several runs share their embeddings. Training
    identifies sounds by their files (`embed`) and does not share them. An encoder that learns is not cached.

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
        """The store. It is made only once because its name includes a digest of all weights."""
        return _store(self, self.cache)

    def _encode(self, missing: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Encode the sounds that are not in the cache."""
        for sound in missing:
            values = _encode_sound(self, sound)
            if isinstance(values, audio.UnusableSound):
                raise BadRequest(str(values))
            yield values


def cache_embeddings(model: torch.nn.Module, cache: Path) -> None:
    """Replace every encoder in a model by one that uses a cache.

    Args:
        model: The model; its encoders are attributes of its modules.
        cache: Folder of the cache.
    """
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Encoder):
                setattr(module, name, CachedEncoder(**vars(value), cache=cache))


def _sample_digests(sounds: Sequence[np.ndarray]) -> list[str]:
    """Return a digest of the samples of each sound."""
    return [f"samples {xxhash.xxh3_128_hexdigest(sound.data)}" for sound in sounds]


def _store(encoder: Encoder, cache: Path) -> Store:
    """Return the store of an encoder's embeddings."""
    kind = "".join(letter if letter.isalnum() else "_" for letter in encoder.name)
    return Store(cache, kind, repr((audio.ARITHMETIC, encoder.identity)), encoder.size)


def _decode(encoder: Encoder) -> Callable[[Path], Values]:
    """Return a function that decodes a sound for an encoder."""
    return or_unusable(lambda path: audio.load_audio(path, encoder.sample_rate))


def _encode_sound(encoder: Encoder, sound: np.ndarray) -> Values:
    """Encode one sound of (samples,) as (timestamps, size)."""
    with torch.inference_mode():
        values = encoder.encode_one(torch.from_numpy(sound))
    if not values.isfinite().all():
        return audio.UnusableSound(f"{encoder.name} gives it embeddings that are not finite; leave the sound out")
    return values.cpu().numpy()


def _distribute(missing: Sequence[Path], encoder: Encoder, workers: int) -> Iterator[Values]:
    """Encode sounds on Ray workers."""
    if missing:
        actors = pool(_Worker, min(workers, len(missing)), encoder)
        yield from actors.map(lambda worker, path: worker.embed.remote(path.absolute()), missing)


class _Worker:
    """A Ray worker, which keeps the encoder for all its sounds."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def embed(self, path: Path) -> Values:
        sound = _decode(self.encoder)(path)
        if isinstance(sound, audio.UnusableSound):
            return sound
        return _encode_sound(self.encoder, sound)
