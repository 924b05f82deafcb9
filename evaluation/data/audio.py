"""Decoding of audio files, resampling, and log-mel energies.

Every part of the kit reads audio files with `decode`. So `data check`, training and prediction accept the same files
and read the same samples.

Conventions
-----------
- Audio is mono float32, in [-1, 1] at full scale; several channels are averaged to one.
- Log-mel energies are arrays of shape (frames, mels).

`decode` refuses an audio file (`UnusableSound`) for one of these reasons:

- The file cannot be opened, or is a link to a file that does not exist.
- The file cannot be decoded, or has no samples.
- The lengths and checksums in its container show that it is cut off or damaged (`evaluation.data.containers`).
- The file consists of several joined files. Only joined Ogg or MP3 files with the same sample rate and number of
  channels are accepted.
- A sample is not finite, or is beyond `LARGEST`.
- The file has more than `MOST_VALUES` samples, more than `MOST_CHANNELS` channels, or a sample rate outside `RATES`; or
  it is compressed and has more than `containers.MOST_COMPRESSED` bytes.

A clip may also be refused after it was encoded: its embeddings must be finite (`systems.caching.embeddings`).
"""

import contextlib
import math
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from evaluation import extras
from evaluation.data.containers import Source, UnusableSound, sources
from evaluation.text import plural

if TYPE_CHECKING:
    from torch import Tensor

ARITHMETIC = 2  # increased when the same settings give different log-mel energies, so that no cache mixes them

RATES = (1_000, 768_000)  # Hz; lower rates carry no useful sound, and no converter has a higher rate
MOST_CHANNELS = 64
MOST_VALUES = 2**29  # samples x channels: 3.4 hours of mono at 44.1 kHz, 2 GiB of float32
LARGEST = 2.0**31  # largest accepted sample: float files may hold unscaled 32-bit integers, but not more
# Number of samples, of all channels together, to decode at a time. With 2**19 or more, glibc returns the memory of each
# block to the system, and decoding a clip of 22 s takes ten times as long.
BLOCK = 2**18
RESAMPLED = 2**20  # number of samples of a long recording to resample at a time
LONG = 2**24  # maximum number of samples that are resampled at once: 6 minutes at 44.1 kHz
KERNEL = 2**22  # maximum number of values of torchaudio's resampling filters


@dataclass(frozen=True)
class Sound:
    """Facts about an audio file.

    Attributes:
        frames: Number of samples of each channel.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        peak: The largest absolute value; 1 is full scale.
    """

    frames: int
    sample_rate: int
    channels: int
    peak: float

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return self.frames / self.sample_rate


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Decode a file to mono. Return an array of shape (samples,), float32, and the sample rate in Hz.

    The file is decoded in blocks, so that the array takes most of the memory, whatever the number of channels.

    Raises:
        UnusableSound: The file is refused; the module's docstring lists the reasons.
    """
    samples, sound = _decode(path)
    return samples, sound.sample_rate


def sound_facts(path: Path) -> Sound:
    """Decode the whole file and return its facts. It raises exceptions as `decode` does."""
    return _decode(path)[1]


def _decode(path: Path) -> tuple[np.ndarray, Sound]:
    """Decode a file to mono. Return an array of shape (samples,), float32, and facts about the file."""
    levels = _Levels()
    try:
        parts = [_read(source, levels) for source in sources(path)]
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise UnusableSound(f"is a link to {path.readlink()}, which does not exist; copy the file there") from None
        raise UnusableSound(f"cannot be opened ({error.strerror or error}); check the file") from None
    forms = {(rate, channels) for _, rate, channels in parts}
    if len(forms) > 1:
        raise UnusableSound("consists of joined files with different sample rates or channels; split it into its files")
    [(sample_rate, channels)] = forms
    samples = _joined([samples for samples, _, _ in parts])
    if not len(samples):
        raise UnusableSound("is empty: no samples; replace the file")
    levels.check()
    return samples, Sound(len(samples), sample_rate, channels, levels.peak)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays one after the other. A single array is not copied."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts)


@dataclass
class _Levels:
    """The largest value of a file, and the number of its faulty values, from all blocks.

    Attributes:
        peak: The largest absolute value of the blocks with finite values.
        not_finite: Number of frames with NaN or infinity.
        beyond: Number of frames with values beyond `LARGEST`.
    """

    peak: float = 0.0
    not_finite: int = 0
    beyond: int = 0

    def add(self, block: np.ndarray) -> None:
        """Add a block, an array of shape (frames, channels)."""
        if not len(block):
            return
        peak = max(float(block.max()), -float(block.min()))  # NaN if any value is NaN
        if not peak <= LARGEST:
            self.not_finite += int((~np.isfinite(block)).any(axis=1).sum())
            self.beyond += int((np.abs(block) > LARGEST).any(axis=1).sum())
        self.peak = max(self.peak, peak)

    def check(self) -> None:
        """Refuse samples that are not finite or beyond `LARGEST`."""
        if self.not_finite:
            raise UnusableSound(f"has {plural(self.not_finite, 'sample')} with NaN or infinity; replace the file")
        if self.beyond:
            found = f"{self.beyond} beyond {LARGEST:.1e}, the largest {self.peak:.1e}"
            raise UnusableSound(f"must have samples in [-1, 1]; found {found}: the file is damaged, replace it")


class _Stream(soundfile.SoundFile):
    """An audio file that is read once, from its start to its end.

    If a file can seek, soundfile seeks after each block to the position that the decoder already has. This would change
    the rounding of an MP3 file.
    """

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False

    @property
    def promised(self) -> int | None:
        """The number of frames according to the header, or None if the encoding does not state it."""
        if super().seekable():
            return int(self.frames)
        return None


def _read(source: Source, levels: _Levels) -> tuple[np.ndarray, int, int]:
    """Decode one stream, and add its values to `levels`.

    Returns:
        samples: (frames,) float32, the mean over the channels.
        sample_rate: The sample rate in Hz.
        channels: The number of channels.
    """
    with _decoder_errors(), _Stream(source) as file:
        _check_size(file)
        if file.promised is None:
            samples = _joined([*_blocks(file, levels)])
        else:
            samples = np.empty(file.promised, np.float32)
            frames = 0
            for block in _blocks(file, levels):
                samples[frames : frames + len(block)] = block
                frames += len(block)
            if frames < file.promised:
                message = f"is cut off: {frames} of the {file.promised} samples that its header promises"
                raise UnusableSound(f"{message}; copy it again")
        return samples, file.samplerate, file.channels


@contextlib.contextmanager
def _decoder_errors() -> Iterator[None]:
    """Within the block, turn errors of the decoder into `UnusableSound`."""
    try:
        yield
    # MemoryError: a damaged header promises more samples than fit into memory.
    except (soundfile.LibsndfileError, soundfile.SoundFileRuntimeError, MemoryError) as error:
        reason = getattr(error, "error_string", str(error))
        if getattr(error, "code", None) == 7:  # "File does not exist", for an .mp3 of another format
            reason = "Format not recognised"
        raise UnusableSound(f"does not decode ({reason.strip(' .')}); replace the file") from None


def _check_size(file: _Stream) -> None:
    """Refuse a file if its header asks for more memory or time than a clip needs."""
    lowest, highest = RATES
    if not lowest <= file.samplerate <= highest:
        message = f"must have a sample rate from {lowest:,} to {highest:,} Hz; found {file.samplerate:,} Hz"
        raise UnusableSound(f"{message}: resample it, or correct its header")
    if file.channels > MOST_CHANNELS:
        raise UnusableSound(f"must have at most {MOST_CHANNELS} channels; found {file.channels}: mix it down")
    if (file.promised or 0) * file.channels > MOST_VALUES:
        raise UnusableSound(_too_long(file))


def _too_long(file: _Stream) -> str:
    hours = MOST_VALUES / file.channels / file.samplerate / 3600
    message = f"must last at most {hours:.1f} h at {file.samplerate:,} Hz with {plural(file.channels, 'channel')}"
    return f"{message}; it is longer, or its header is damaged: cut it into clips"


def _blocks(file: _Stream, levels: _Levels) -> Iterator[np.ndarray]:
    """Decode a file in blocks, and add them to `levels`. Yield the mean over the channels, (frames,) float32.

    At least one block is yielded. Encodings that do not state their length (GSM 6.10, G.721, ADPCM, DPCM) are refused
    when they are too long.
    """
    frames = 0
    size = BLOCK // file.channels
    while True:
        block = _read_frames(file, size)
        frames += len(block)
        if frames * file.channels > MOST_VALUES:
            raise UnusableSound(_too_long(file))
        levels.add(block)
        yield _mixed(block)
        if len(block) < size:
            return


def _read_frames(file: soundfile.SoundFile, number: int) -> np.ndarray:
    """Read this number of frames, or fewer at the end of the file, from the current position, (frames, channels)."""
    if file.subtype == "PCM_16":
        # This gives the same floats as libsndfile, in half the time.
        return file.read(number, dtype="int16", always_2d=True) * np.float32(2**-15)
    return file.read(number, dtype="float32", always_2d=True)


def _mixed(block: np.ndarray) -> np.ndarray:
    """Return the mean over the channels, (frames,), of an array of shape (frames, channels)."""
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # `_Levels.check` refuses values that are not finite
        if block.shape[1] == 2:  # equals `mean`, which takes several times as long
            return (block[:, 0] + block[:, 1]) / np.float32(2)
        return block.mean(axis=1)


def load_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Decode a file to mono float32 at `sample_rate` Hz. It raises exceptions as `decode` does."""
    samples, rate = decode(path)
    return resample(samples, rate, sample_rate)


def can_load_excerpts(path: Path, sample_rate: int) -> bool:
    """Return whether `load_excerpt` can be used for a file that `decode` accepts.

    It cannot be used if the decoder needs the whole file (`evaluation.data.containers`), if the encoding cannot seek,
    or if soxr must resample the audio.
    """
    if sources(path) != [path]:
        return False
    with _decoder_errors(), soundfile.SoundFile(path) as file:
        return file.seekable() and _kernel_values(file.samplerate, sample_rate) <= KERNEL


def load_excerpt(path: Path, sample_rate: int, start: int, length: int) -> np.ndarray:
    """Decode an excerpt of a file to mono float32 at `sample_rate` Hz, without decoding the rest of the file.

    The samples are those of `load_audio`, up to rounding if they are resampled. torchaudio resamples audio in blocks,
    and its filters cover the ends of the neighbouring blocks. So the file is read from a block before the excerpt to a
    block after it, or from and to more distant blocks if the blocks are shorter than the filters.

    Args:
        path: The file. `can_load_excerpts` must be true for it.
        sample_rate: The sample rate of the excerpt in Hz.
        start: Index of the first sample of the excerpt, at `sample_rate`.
        length: Number of samples of the excerpt.

    Raises:
        UnusableSound: The file cannot be decoded, or ends before the end of the excerpt.
    """
    with _decoder_errors(), soundfile.SoundFile(path) as file:
        rate = file.samplerate
        before, after, half_width = _filters(rate, sample_rate)
        margin = math.ceil(half_width / before)
        first_block = max(0, start // after - margin)
        end_block = math.ceil((start + length) / after) + margin
        file.seek(min(first_block * before, file.frames))
        samples = _mixed(_read_frames(file, (end_block - first_block) * before))
    offset = start - first_block * after
    excerpt = resample(samples, rate, sample_rate)[offset : offset + length]
    if len(excerpt) < length:
        raise UnusableSound("has fewer samples than before; do not change audio files during a training")
    return excerpt


def resample(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample mono audio, an array of shape (samples,), from `rate` to `sample_rate` Hz.

    This takes about as much memory as the result. Audio of more than `LONG` samples is resampled in blocks, which
    changes the result by rounding errors only. torchaudio stores one filter for each output phase. Usual rates
    (8, 11.025, 16, 22.05, 24, 32, 44.1, 48, 88.2, 96, 192 kHz) have a large greatest common divisor. So their filters
    together have at most 0.6 million values. From 44,099 to 44,100 Hz, they would have two billion values. If
    there are more than `KERNEL` values, soxr resamples instead (at its quality "HQ"). soxr computes the filters while
    it runs.

    Raises:
        BadRequest: torchaudio or soxr is not installed.
    """
    if rate == sample_rate:
        return samples
    before, after, half_width = _filters(rate, sample_rate)
    try:
        if _kernel_values(rate, sample_rate) > KERNEL:
            import soxr

            return soxr.resample(samples, rate, sample_rate).astype(np.float32, copy=False)
        import torch

        resampler = _resampler(rate, sample_rate)
    except ModuleNotFoundError as error:
        raise extras.not_installed(error) or error from None

    if len(samples) <= LONG:
        return resampler(torch.from_numpy(samples)).numpy()
    margin = before * math.ceil(half_width / before)
    step = before * math.ceil(RESAMPLED / before)  # so all blocks begin with the same filter
    resampled = np.empty(math.ceil(len(samples) * after / before), np.float32)
    for start in range(0, len(samples), step):
        block = _with_neighbours(samples, start, step, margin)
        part = resampler(torch.from_numpy(block)).numpy()
        place = resampled[start // before * after :][: step // before * after]
        place[:] = part[margin // before * after :][: len(place)]
    return resampled


@lru_cache(maxsize=8)
def _resampler(rate: int, sample_rate: int) -> Callable[["Tensor"], "Tensor"]:
    """Return torchaudio's resampler, with its filters. For short clips, the filters take a fifth of the time."""
    import torch
    import torchaudio

    with torch.inference_mode(False):  # so that the filters can also be used outside of inference mode
        return torchaudio.transforms.Resample(rate, sample_rate, dtype=torch.float32)


def _filters(rate: int, sample_rate: int) -> tuple[int, int, int]:
    """Return the sizes of torchaudio's resampling filters (`_get_sinc_resample_kernel`, its defaults).

    Returns:
        before: The number of input samples after which the same filters are used again.
        after: The number of filters, one for each output sample in this time.
        half_width: The number of input samples that the filters need before and after those of this time.
    """
    divisor = math.gcd(rate, sample_rate)
    before, after = rate // divisor, sample_rate // divisor
    return before, after, math.ceil(6 * before / (min(before, after) * 0.99))


def _kernel_values(rate: int, sample_rate: int) -> int:
    """Return the number of values of torchaudio's resampling filters."""
    before, after, half_width = _filters(rate, sample_rate)
    return after * (before + 2 * half_width)


def _with_neighbours(samples: np.ndarray, start: int, length: int, margin: int) -> np.ndarray:
    """Return `length` samples from `start`, with `margin` samples before and after them; zeros where there are none."""
    block = np.zeros(margin + length + margin, np.float32)
    first = max(start - margin, 0)
    part = samples[first : start + length + margin]
    block[first - start + margin :][: len(part)] = part
    return block


def write_wave(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write mono audio, an array of shape (samples,) in [-1, 1], as a WAV file with 16 bits.

    Raises:
        OSError: The disk is full, or the file cannot be written. soundfile would not raise it.
    """
    whole = np.round(samples * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, len(whole), "NONE", ""))
        file.writeframes(whole.tobytes())


@dataclass(frozen=True)
class LogMel:
    """The log-mel energies of the DCASE 2022 task 6B baseline.

    The sample rate is 44.1 kHz. A Hann window of 40 ms moves in steps of 20 ms. 64 filters on Slaney's mel scale, from
    12 Hz to 8 kHz, sum the power spectrum. Each sum x becomes the feature ln(x + 2.2e-16). Frames are centred, and
    zeros are added before the start and after the end of a clip (librosa's default since 0.9). So a clip of any length
    has 1 + samples // hop frames.

    Source: xieh97/dcase2022-audio-retrieval, `scripts/audio_features.py`, which uses librosa. The paper (Xie et al.
    2022, section 3.1) gives the window, the hop and the number of mels; only the code gives the range of frequencies.
    """

    sample_rate: int = 44100  # Hz
    window: int = 1764  # samples, 40 ms
    hop: int = 882  # samples, 20 ms
    fft: int = 2048  # points
    mels: int = 64
    low: float = 12.0  # Hz
    high: float = 8000.0  # Hz
    floor: float = 2.220446049250313e-16  # added before the logarithm: silence is -36.04

    def frames(self, samples: int) -> int:
        """Return the number of frames for a number of samples."""
        return 1 + samples // self.hop

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """Return the log-mel energies, an array of shape (frames, mels), of audio, an array of shape (samples,)."""
        import scipy.fft  # not at the top: commands that only read tables must start quickly

        window, filters = _constants(self)
        padded = np.pad(audio.astype(np.float32, copy=False), self.fft // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.fft)[:: self.hop]
        out = np.empty((len(frames), self.mels), np.float32)
        # Blocks of this size stay in the cache of a core, which is three times as fast as the whole clip at once.
        for start in range(0, len(frames), 64):
            block = slice(start, start + 64)
            # In float64, as in librosa. In float32, the rounding error of a loud bin is up to a fifth of a faint mel in
            # the same frame. The filters are zero above `high`, so two thirds of the bins can be dropped.
            spectrum = scipy.fft.rfft(frames[block] * window)[:, : len(filters)].astype(np.complex64)
            out[block] = (spectrum.real**2 + spectrum.imag**2) @ filters
        return np.log(out + np.float32(self.floor))


@lru_cache
def _constants(settings: LogMel) -> tuple[np.ndarray, np.ndarray]:
    """Return the window and the mel filters.

    Returns:
        window: (fft,) float64, the Hann window with the same number of zeros before and after it.
        filters: (bins, mels) float32, for the bins of the transform up to `high`.
    """
    before = (settings.fft - settings.window) // 2
    window = np.zeros(settings.fft)
    turn = 2 * np.pi * np.arange(settings.window) / settings.window  # a periodic window, as usual for spectra
    window[before : before + settings.window] = 0.5 - 0.5 * np.cos(turn)
    filters = mel_filters(settings.sample_rate, settings.fft, settings.mels, settings.low, settings.high)
    used = np.flatnonzero(filters.any(axis=1))[-1] + 1
    return window, filters[:used].astype(np.float32)


def mel_filters(sample_rate: int, fft: int, mels: int, low: float, high: float, *, htk: bool = False) -> np.ndarray:
    """Return mel filters as in librosa: triangles of unit area over the bins of a transform.

    Args:
        sample_rate: Sample rate in Hz.
        fft: Number of points of the transform.
        mels: Number of filters.
        low: Lower edge of the first filter in Hz.
        high: Upper edge of the last filter in Hz.
        htk: Use the mel scale of HTK (default: Slaney's).

    Returns:
        The filters, (fft // 2 + 1, mels) float64: a weight for each bin of the transform and each filter.
    """
    bins = np.arange(fft // 2 + 1) * sample_rate / fft  # Hz
    if htk:
        lowest, highest = htk_mel(np.array([low, high]))
        edges = htk_hertz(np.linspace(lowest, highest, mels + 2))
    else:
        lowest, highest = _slaney_mel(np.array([low, high]))
        edges = _slaney_hertz(np.linspace(lowest, highest, mels + 2))
    return triangles(bins, edges) * 2 / (edges[2:] - edges[:-2])


def triangles(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return triangles of height 1. Each one begins, peaks and ends at three successive edges.

    Args:
        points: The n positions at which the triangles are evaluated.
        edges: The m + 2 edges, in ascending order.

    Returns:
        (n, m) values of the triangles.
    """
    rise = (points[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - points[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall))


# The mel scale of HTK (Young et al., The HTK Book), 1127 ln(1 + f / 700).
def htk_mel(hertz: np.ndarray) -> np.ndarray:
    """Convert Hz to mel."""
    return 1127 * np.log1p(hertz / 700)


def htk_hertz(mel: np.ndarray) -> np.ndarray:
    """Convert mel to Hz."""
    return 700 * np.expm1(mel / 1127)


# The mel scale of Slaney's Auditory Toolbox (1998) is linear below 1 kHz, with 200 / 3 Hz for each mel, and logarithmic
# above, with 27 mels for each factor of 6.4. It is computed in float64: torchaudio's filters in float32 have errors of
# up to 1e-3.
_LINEAR, _KNEE, _STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _slaney_mel(hertz: np.ndarray) -> np.ndarray:
    above = _KNEE / _LINEAR + np.log(np.maximum(hertz, _KNEE) / _KNEE) / _STEP
    return np.where(hertz < _KNEE, hertz / _LINEAR, above)


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
    knee = _KNEE / _LINEAR
    return np.where(mel < knee, mel * _LINEAR, _KNEE * np.exp(_STEP * (np.maximum(mel, knee) - knee)))
