"""A cache of embeddings. Each audio file is encoded once, and all trainings read its embeddings from the cache.

    embeddings = embed(paths, load_encoder("yamnet", hop=480), cache_folder())  # a list of (timestamps, size)

In shapes, timestamps is the number of embeddings of a clip, and size is the number of values in an embedding. There is
a separate store for each combination of an encoder, its weights and its settings, such as the hop. A fine-tuned encoder
therefore has another store than the original one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xxhash
from tqdm import tqdm

from evaluation.data import audio
from evaluation.files import cache_folder
from evaluation.findings import BadRequest
from systems.caching.store import Store, map_parallel, or_unusable
from systems.parts.encoders import NAMES, Encoder
from systems.workers import Workers

CLIPS_AT_ONCE = 4  # clips that are encoded at once; each of them needs memory for the values of all layers

Values = np.ndarray | audio.UnusableSound


def embed(paths: Sequence[Path], encoder: Encoder, cache: Path, *, workers: int = 0) -> list[np.ndarray]:
    """Return the embeddings of every audio file. Compute and store those that are not in the cache.

    The encoder gets each clip alone, so that no embedding depends on another clip or on padding. In this process, the
    encoder runs on the device of its model. On the CPU, the encoders of this package encode several clips at once, in
    threads, which is faster than using all processors for one clip. Other encoders get one clip after another, because
    we do not know whether they may run in several threads. Then only the decoding of files is in threads.

    Args:
        paths: The audio files, of any sample rate.
        encoder: The encoder, from `encoders.load_encoder`.
        cache: Folder of the cache. Several processes may share it.
        workers: Number of Ray workers that encode the files, each on one processor (default: 0, encode in this
            process). The workers run on the cluster that the variable RAY_ADDRESS names (default: on this machine). On
            all nodes, the files must have the same paths.

    Returns:
        (timestamps, size) float32 for each file, in the order of `paths`. The arrays are read-only views into a
        memory-mapped file.

    Raises:
        Faulty: Files cannot be used, or their embeddings are not finite. The exception lists all findings. The
            embeddings of all other files are stored.
        BadRequest: Workers are requested, but Ray is not installed or does not start, or the cluster that RAY_ADDRESS
            names does not answer; all workers die; or embeddings are missing, and the cache cannot be written.
    """
    label = f"{encoder.name} embeddings"

    def encode_here(missing: Sequence[Path]) -> Iterator[Values]:
        threads = _threads(encoder)
        if threads > 1:
            yield from _encode_in_threads(missing, encoder, threads, label)
            return
        for sound in map_parallel(_decode(encoder), missing, label):
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
    """An encoder that stores embeddings in a cache, and reads the embeddings of a clip from there the next time.

    Clips are identified by their samples. The predictions of several runs therefore share embeddings. Training does not
    share these embeddings, because `embed` identifies clips by the content of their files. If parameters of the encoder
    can be trained (`requires_grad`), the cache is not used.

    Attributes:
        cache: Folder of the cache. Several processes may share it.
    """

    cache: Path = field(default_factory=cache_folder)

    def __call__(self, sounds: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        """Embed mono audio as `Encoder.__call__` does.

        Raises:
            BadRequest: Embeddings are not finite; or embeddings are missing, and the cache cannot be written.
        """
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
        """The store. It is created only once, because its name includes a digest of all weights, which takes time."""
        return _store(self, self.cache)

    def _encode(self, missing: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Encode the clips that are not in the cache.

        Raises:
            BadRequest: Embeddings are not finite.
        """
        for sound in missing:
            values = _encode_sound(self, sound)
            if isinstance(values, audio.UnusableSound):
                raise BadRequest(str(values))
            yield values


def cache_embeddings(model: torch.nn.Module, cache: Path) -> None:
    """Replace every encoder in a model by an encoder that uses a cache.

    Args:
        model: The model. Only encoders that are attributes of its modules are replaced.
        cache: Folder of the cache.
    """
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Encoder):
                setattr(module, name, CachedEncoder(**vars(value), cache=cache))


def _sample_digests(sounds: Sequence[np.ndarray]) -> list[str]:
    """Return a digest of the samples of each clip."""
    return [f"samples {xxhash.xxh3_128_hexdigest(sound.data)}" for sound in sounds]


def _store(encoder: Encoder, cache: Path) -> Store:
    """Return the store of an encoder's embeddings."""
    kind = "".join(letter if letter.isalnum() else "_" for letter in encoder.name)
    return Store(cache, kind, repr((audio.ARITHMETIC, encoder.identity)), encoder.size)


def _decode(encoder: Encoder) -> Callable[[Path], Values]:
    """Return a function that decodes an audio file and resamples it to the encoder's sample rate."""
    return or_unusable(lambda path: audio.load_audio(path, encoder.sample_rate))


def _threads(encoder: Encoder) -> int:
    """Return the number of clips that an encoder can encode at once, in threads."""
    if encoder.name in NAMES and encoder.device(torch.empty(0)).type == "cpu":
        return min(CLIPS_AT_ONCE, torch.get_num_threads())
    return 1


def _encode_in_threads(missing: Sequence[Path], encoder: Encoder, threads: int, label: str) -> Iterator[Values]:
    """Decode and encode audio files in threads, which share the processors, and yield the results in order."""
    decode = _decode(encoder)
    processors = torch.get_num_threads()
    try:
        yield from map_parallel(
            lambda path: _encode_sound(encoder, decode(path)),
            missing,
            label,
            threads,
            lambda: torch.set_num_threads(processors // threads),
        )
    finally:
        torch.set_num_threads(processors)  # because new threads would get the number that was set last


def _encode_sound(encoder: Encoder, sound: Values) -> Values:
    """Encode one clip.

    Args:
        encoder: The encoder.
        sound: The audio of the clip, (samples,), or the reason why it cannot be used.

    Returns:
        (timestamps, size), or the reason why the clip cannot be used.
    """
    if isinstance(sound, audio.UnusableSound):
        return sound
    with torch.inference_mode():
        values = encoder.encode_one(torch.from_numpy(sound))
    if not values.isfinite().all():
        return audio.UnusableSound(
            f"{encoder.name} must give finite embeddings; found NaN or infinity: leave the clip out"
        )
    return values.cpu().numpy()


def _distribute(missing: Sequence[Path], encoder: Encoder, workers: int) -> Iterator[Values]:
    """Decode and encode audio files on Ray workers, and yield the results in the order of the files."""
    if missing:
        paths = [(path.absolute(),) for path in missing]
        yield from Workers(_Worker, min(workers, len(missing)), encoder).map("embed", paths)


class _Worker:
    """A Ray worker, which keeps the encoder in memory for all its audio files."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def embed(self, path: Path) -> Values:
        decode = _decode(self.encoder)
        return _encode_sound(self.encoder, decode(path))
