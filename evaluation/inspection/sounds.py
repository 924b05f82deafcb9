"""The spectrograms of a page, and links to audio files or copies of them.

A spectrogram is a WebP image of `WIDTH` x `HEIGHT` pixels. It shows the log-mel energies of a clip from 30 Hz to
16 kHz, or to half the sample rate if this is lower. The colours cover the `RANGE` dB below the loudest point.
Spectrograms are kept in the cache folder. A spectrogram is made again if the path, the size or the modification time of
its audio file changes.
"""

import hashlib
import io
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile
from tqdm import tqdm

from evaluation.data.audio import LogMel, decode
from evaluation.data.containers import UnusableSound
from evaluation.files import cache_folder, replacing
from evaluation.findings import WARNING, Finding

VERSION = 1  # increased when the same audio gives a different image
WIDTH, HEIGHT = 320, 64
RANGE = 70  # range of the colours in dB
QUALITY = 55  # quality of the WebP images, which then have about 3 kB each
FEW = 8  # fewer files than this are processed without worker processes
# The colours of a spectrogram from quiet to loud.
COLOURS = ((13, 10, 33), (58, 17, 95), (124, 33, 112), (194, 62, 90), (241, 124, 70), (252, 205, 120), (252, 253, 220))
COPIED = (".ogg", ".mp3")  # these files are copied unchanged: browsers play them, and they are small


@dataclass(frozen=True)
class Sound:
    """The sound of a clip.

    Attributes:
        path: The audio file.
        seconds: The duration; None if the file does not exist or cannot be read.
        spectrogram: The WebP image; None if the file does not exist or cannot be read.
    """

    path: Path
    seconds: float | None = None
    spectrogram: bytes | None = None

    @property
    def is_playable(self) -> bool:
        """True if the file could be read."""
        return self.spectrogram is not None


def read_sounds(paths: Sequence[Path]) -> tuple[list[Sound], list[Finding]]:
    """Return the sound of each clip, and a warning for each audio file that exists and cannot be read."""
    existing = [path for path in paths if path.is_file()]
    images: dict[Path, bytes] = {}
    findings = []
    for path, image in zip(existing, _in_processes(spectrogram, existing, "spectrograms"), strict=True):
        if isinstance(image, str):
            findings.append(Finding(str(path), message=f"{image}; the page does not have its sound", severity=WARNING))
        else:
            images[path] = image
    sounds = []
    for path in paths:
        if path in images:
            sounds.append(Sound(path, _seconds(path), images[path]))
        else:
            sounds.append(Sound(path))
    return sounds, findings


def _seconds(path: Path) -> float | None:
    try:
        return float(soundfile.info(path).duration)
    except (OSError, soundfile.SoundFileError):
        return None


def _in_processes(function: Callable[[Path], Any], paths: Sequence[Path], title: str) -> Generator[Any]:
    """Call a function for each file, and yield the results in order, with a progress bar.

    `FEW` or more files are processed in several processes.
    """
    from evaluation.processes import start_worker

    with ExitStack() as stack:
        results: Iterator[Any] = map(function, paths)
        if len(paths) >= FEW:
            pool = stack.enter_context(ProcessPoolExecutor(initializer=start_worker))
            stack.callback(pool.shutdown, cancel_futures=True)  # if the caller stops early
            results = pool.map(function, paths, chunksize=4)
        yield from tqdm(results, title, len(paths), unit="clip", disable=None)


# Spectrograms ---------------------------------------------------------------------------------------------------------


def spectrogram(path: Path) -> bytes | str:
    """Return the spectrogram of an audio file as a WebP image, or a text with the reason why the file cannot be read.

    The image is read from the cache folder, or written to it.
    """
    try:
        status = path.stat()
    except OSError as failure:
        return str(failure.strerror)
    content = repr((VERSION, str(path.resolve()), status.st_size, status.st_mtime_ns))
    digest = hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()
    cached = cache_folder() / "spectrograms" / f"{digest[:32]}.webp"
    if cached.is_file():
        return cached.read_bytes()
    try:
        samples, sample_rate = decode(path)
    except UnusableSound as reason:
        return str(reason)
    image = draw(samples, sample_rate)
    with replacing(cached) as part:
        part.write_bytes(image)
    return image


def draw(samples: np.ndarray, sample_rate: int) -> bytes:
    """Draw the log-mel spectrogram of audio as a WebP image.

    Args:
        samples: (samples,) mono audio.
        sample_rate: Sample rate in Hz.
    """
    from PIL import Image

    fft = 2 ** max(6, round(np.log2(0.046 * sample_rate)))
    log_mel = LogMel(sample_rate, fft, fft // 2, fft, HEIGHT, min(30.0, sample_rate / 8), min(16000.0, sample_rate / 2))
    decibels = log_mel(samples) * np.float32(10 / np.log(10))  # (frames, mels)
    loudness = np.clip((decibels - decibels.max()) / RANGE + 1, 0, 1)
    if decibels.max() <= 10 * np.log10(2 * log_mel.floor):  # silence
        loudness[:] = 0
    shown = (255 * loudness.T[::-1]).astype(np.uint8)  # low frequencies at the bottom
    grey = Image.fromarray(shown).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    shades = np.linspace(0, 255, len(COLOURS))
    palette = [np.interp(np.arange(256), shades, channel) for channel in zip(*COLOURS, strict=True)]
    pixels = np.stack(palette, axis=1).astype(np.uint8)[np.asarray(grey)]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=QUALITY, method=4)
    return file.getvalue()


# Audio ----------------------------------------------------------------------------------------------------------------


def link(path: Path, folder: Path) -> str:
    """Return a relative, percent-encoded link from a page in a folder to a file."""
    relative = os.path.relpath(path.resolve(), folder.resolve())
    return quote(os.fsencode(Path(relative).as_posix()))


def copies(sounds: Sequence[Sound]) -> Generator[tuple[bytes, str]]:
    """Yield a copy of each playable sound, and its suffix. Ogg and MP3 files are copied unchanged."""
    paths = [sound.path for sound in sounds if sound.is_playable]
    yield from _in_processes(copy, paths, "sounds")


def copy(path: Path) -> tuple[bytes, str]:
    """Return the content of an Ogg or MP3 file, or other audio as mono Ogg Vorbis, and the suffix of this format."""
    suffix = path.suffix.lower()
    if suffix in COPIED:
        return path.read_bytes(), suffix
    samples, sample_rate = decode(path)
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate, 1, "VORBIS", format="OGG") as out:
        for start in range(0, len(samples), sample_rate):  # libsndfile may crash if it encodes minutes in one call
            out.write(samples[start : start + sample_rate])
    return file.getvalue(), ".ogg"
