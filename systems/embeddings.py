"""Embeddings that are computed once per sound, whatever is trained on them.

    embeddings = embed(paths, encoder("yamnet", hop=480), Path(".cache"))        # a list of (timestamps, size)

What is kept follows from the sound's content, the encoder, its weights and its hop, so that the same encoder with other
weights, fine-tuned ones for instance, has a store of its own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from evaluation import audio
from systems.parts.encoders import Encoder
from systems.store import Store, parallel, usable


def embed(paths: Sequence[Path], encoder: Encoder, cache: Path) -> list[np.ndarray]:
    """Return the embeddings of every sound, (timestamps, size) float32 each, computing those that the cache lacks.

    Sounds are decoded in threads and go through the encoder one at a time, so that no embedding depends on another
    sound or on padding. The encoder runs where its model is.

    Args:
        paths: The sounds, of any sample rate.
        encoder: From `encoders.encoder`.
        cache: Folder of the cache; several processes may share it.

    Returns:
        Read-only views into the memory-mapped file, in the order of `paths`.

    Raises:
        Faulty: A sound cannot be used, or its embeddings are not finite; with all of these. The others are kept.
    """

    @usable
    def decode(path: Path) -> np.ndarray:
        return audio.load(path, encoder.sample_rate)

    def compute(missing: Sequence[Path]) -> Iterator[np.ndarray | audio.UnusableSound]:
        for sound in parallel(decode, missing, f"{encoder.name} embeddings"):
            yield sound if isinstance(sound, audio.UnusableSound) else _embedded(sound, encoder)

    identity = repr((audio.ARITHMETIC, encoder.identity))
    kind = "".join(letter if letter.isalnum() else "_" for letter in encoder.name)
    return Store(cache, kind, identity, encoder.size).rows(paths, compute)


def _embedded(sound: np.ndarray, encoder: Encoder) -> np.ndarray | audio.UnusableSound:
    with torch.inference_mode():
        (values,) = encoder(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
    if not values.isfinite().all():
        return audio.UnusableSound(f"{encoder.name} gives it embeddings that are not finite; leave the sound out")
    return values.cpu().numpy()
