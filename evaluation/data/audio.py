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

import math
import wave
from collections.abc import Callable
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
BLOCK = 2**20  # number of frames to read at a time from an encoding that cannot seek
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

    Raises:
        UnusableSound: The file is refused; the module's docstring lists the reasons.
    """
    samples, sound = _decode(path)
    if sound.channels == 1:
        return samples[:, 0], sound.sample_rate
    return samples.mean(axis=1), sound.sample_rate


def sound_facts(path: Path) -> Sound:
    """Decode the whole file and return its facts. It raises exceptions as `decode` does."""
    return _decode(path)[1]


def _decode(path: Path) -> tuple[np.ndarray, Sound]:
    """Decode all channels. Return an array of shape (frames, channels), float32, and facts about the file."""
    try:
        parts = [_read(source) for source in sources(path)]
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise UnusableSound(f"is a link to {path.readlink()}, which does not exist; copy the file there") from None
        raise UnusableSound(f"cannot be opened ({error.strerror or error}); check the file") from None
    forms = {(rate, samples.shape[1]) for samples, rate in parts}
    if len(forms) > 1:
        raise UnusableSound("consists of joined files with different sample rates or channels; split it into its files")
    [(sample_rate, channels)] = forms
    if len(parts) == 1:
        samples = parts[0][0]
    else:
        samples = np.concatenate([part for part, _ in parts])
    if not len(samples):
        raise UnusableSound("is empty: no samples; replace the file")
    peak = max(float(samples.max()), -float(samples.min()))  # NaN if any value is NaN
    if not peak <= LARGEST:
        raise UnusableSound(_values_fault(samples))
    return samples, Sound(len(samples), sample_rate, channels, peak)


def _read(source: Source) -> tuple[np.ndarray, int]:
    """Decode one stream. Return an array of shape (frames, channels), float32, and the sample rate in Hz."""
    try:
        with soundfile.SoundFile(source) as file:
            _check_size(file)
            # This gives the same floats for 16-bit samples as libsndfile, in half the time.
            is_short = file.subtype == "PCM_16"
            dtype = "int16" if is_short else "float32"
            samples = _read_frames(file, dtype)
            if file.seekable() and len(samples) < file.frames:
                message = f"is cut off: {len(samples)} of the {file.frames} samples that its header promises"
                raise UnusableSound(f"{message}; copy it again")
            if is_short:
                samples = samples * np.float32(2**-15)
            return samples, file.samplerate
    # MemoryError: a damaged header promises more samples than fit into memory.
    except (soundfile.LibsndfileError, soundfile.SoundFileRuntimeError, MemoryError) as error:
        reason = getattr(error, "error_string", str(error))
        if getattr(error, "code", None) == 7:  # "File does not exist", for an .mp3 of another format
            reason = "Format not recognised"
        raise UnusableSound(f"does not decode ({reason.strip(' .')}); replace the file") from None


def _check_size(file: soundfile.SoundFile) -> None:
    """Refuse a file if its header asks for more memory or time than a clip needs."""
    lowest, highest = RATES
    if not lowest <= file.samplerate <= highest:
        message = f"must have a sample rate from {lowest:,} to {highest:,} Hz; found {file.samplerate:,} Hz"
        raise UnusableSound(f"{message}: resample it, or correct its header")
    if file.channels > MOST_CHANNELS:
        raise UnusableSound(f"must have at most {MOST_CHANNELS} channels; found {file.channels}: mix it down")
    if file.seekable() and file.frames * file.channels > MOST_VALUES:
        raise UnusableSound(_too_long(file))


def _too_long(file: soundfile.SoundFile) -> str:
    hours = MOST_VALUES / file.channels / file.samplerate / 3600
    message = f"must last at most {hours:.1f} h at {file.samplerate:,} Hz with {plural(file.channels, 'channel')}"
    return f"{message}; it is longer, or its header is damaged: cut it into clips"


def _read_frames(file: soundfile.SoundFile, dtype: str) -> np.ndarray:
    """Read all frames of a file. Encodings that cannot seek (GSM 6.10, G.721, ADPCM, DPCM) are read in blocks."""
    if file.seekable():
        return file.read(dtype=dtype, always_2d=True)
    blocks = []
    frames = 0
    while True:
        block = file.read(BLOCK, dtype=dtype, always_2d=True)
        frames += len(block)
        if frames * file.channels > MOST_VALUES:
            raise UnusableSound(_too_long(file))
        blocks.append(block)
        if len(block) < BLOCK:
            return np.concatenate(blocks)


def _values_fault(samples: np.ndarray) -> str:
    """Return the message for samples that are not finite or beyond `LARGEST`."""
    not_finite = int((~np.isfinite(samples)).any(axis=1).sum())
    if not_finite:
        return f"has {plural(not_finite, 'sample')} with NaN or infinity; replace the file"
    beyond = int((np.abs(samples) > LARGEST).any(axis=1).sum())
    largest = float(np.abs(samples).max())
    message = f"must have samples in [-1, 1]; found {beyond} beyond {LARGEST:.1e}, the largest {largest:.1e}"
    return f"{message}: the file is damaged, replace it"


def load_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Decode a file to mono float32 at `sample_rate` Hz. It raises exceptions as `decode` does."""
    samples, rate = decode(path)
    return resample(samples, rate, sample_rate)


def resample(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample mono audio, an array of shape (samples,), from `rate` to `sample_rate` Hz.

    This takes about as much memory as the audio itself. torchaudio stores one filter for each output phase. Usual rates
    (8, 11.025, 16, 22.05, 24, 32, 44.1, 48, 88.2, 96, 192 kHz) have a large greatest common divisor. So their filters
    together have at most 0.6 million values. From 44,099 to 44,100 Hz, they would have two billion values. If
    there are more than `KERNEL` values, soxr resamples instead (at its quality "HQ"). soxr computes the filters while
    it runs.

    Raises:
        BadRequest: torchaudio or soxr is not installed.
    """
    if rate == sample_rate:
        return samples
    try:
        if _kernel_values(rate, sample_rate) > KERNEL:
            import soxr

            return soxr.resample(samples, rate, sample_rate).astype(np.float32, copy=False)
        import torch

        resampler = _resampler(rate, sample_rate)
    except ModuleNotFoundError as error:
        raise extras.not_installed(error) or error from None

    return resampler(torch.from_numpy(samples)).numpy()


@lru_cache(maxsize=8)
def _resampler(rate: int, sample_rate: int) -> Callable[["Tensor"], "Tensor"]:
    """Return torchaudio's resampler, with its filters. For short clips, the filters take a fifth of the time."""
    import torch
    import torchaudio

    with torch.inference_mode(False):  # so that the filters can also be used outside of inference mode
        return torchaudio.transforms.Resample(rate, sample_rate, dtype=torch.float32)


def write_wave(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write mono audio, an array of shape (samples,) in [-1, 1], as a WAV file with 16 bits.

    Raises:
        OSError: The disk is full, or the file cannot be written. soundfile would not raise it.
    """
    whole = np.round(samples * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, len(whole), "NONE", ""))
        file.writeframes(whole.tobytes())


def _kernel_values(rate: int, sample_rate: int) -> int:
    """Return the number of values of torchaudio's resampling filters (`_get_sinc_resample_kernel`, its defaults)."""
    divisor = math.gcd(rate, sample_rate)
    before, after = rate // divisor, sample_rate // divisor
    half_width = math.ceil(6 * before / (min(before, after) * 0.99))
    return after * (before + 2 * half_width)


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
