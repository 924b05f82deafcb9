"""Sound from file to log-mel energies.

Conventions: sound is mono float32 in [-1, 1]; several channels are averaged to one; features are (frames, mels).
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

ARITHMETIC = 1  # counts up when the same settings give other log-mel energies, so that no cache mixes the two


class UnusableSound(Exception):
    """A sound file that cannot be decoded, is empty, or holds values that are not finite."""


@dataclass(frozen=True)
class Sound:
    """What a sound file holds: frames a channel, samples a second, channels."""

    frames: int
    sample_rate: int
    channels: int


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Decode a file to mono float32 in [-1, 1]; return the samples and the sample rate in Hz.

    Raises:
        UnusableSound: It does not decode, is empty, or holds NaN or infinity.
    """
    samples, sound = _decode(path)
    return (samples[:, 0] if sound.channels == 1 else samples.mean(axis=1)), sound.sample_rate


def facts(path: Path) -> Sound:
    """Decode a file to its end and say what it holds; raises as `decode` does."""
    return _decode(path)[1]


def _decode(path: Path) -> tuple[np.ndarray, Sound]:
    try:
        with soundfile.SoundFile(path) as file:
            # 16-bit samples become the same floats here as in libsndfile, in half the time.
            short = file.subtype == "PCM_16"
            samples = file.read(dtype="int16" if short else "float32", always_2d=True)
            samples, sample_rate = samples * np.float32(2**-15) if short else samples, file.samplerate
    # MemoryError: a damaged header that promises more samples than any machine holds.
    except (soundfile.LibsndfileError, soundfile.SoundFileRuntimeError, MemoryError) as error:
        reason = getattr(error, "error_string", str(error))
        if getattr(error, "code", None) == 7:  # "File does not exist": what libsndfile says of an .mp3 that is none
            reason = "Format not recognised"
        raise UnusableSound(f"does not decode ({reason.strip(' .')}); replace the file") from None
    with path.open("rb") as raw:
        head, there = raw.read(8), raw.seek(0, os.SEEK_END)
    promised = int.from_bytes(head[4:], "little") + 8
    # libsndfile reads what is left of a file that was cut off. A length of 0 or all ones is a recorder's "not known".
    if head[:4] == b"RIFF" and there < promised and promised not in (8, 2**32 + 7):
        raise UnusableSound(f"is cut off: {there} of the {promised} bytes that its header promises; copy it again")
    if not len(samples):
        raise UnusableSound("is empty: no samples; replace the file")
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).any(axis=1).sum())
        raise UnusableSound(f"holds {bad} samples that are not finite (NaN or infinity); replace the file")
    return samples, Sound(len(samples), sample_rate, samples.shape[1])


def load(path: Path, sample_rate: int) -> np.ndarray:
    """Decode a file to mono float32 at `sample_rate` Hz; raises as `decode` does."""
    samples, rate = decode(path)
    if rate == sample_rate:
        return samples
    import torch
    import torchaudio

    return torchaudio.functional.resample(torch.from_numpy(samples), rate, sample_rate).numpy()


@dataclass(frozen=True)
class LogMel:
    """Log-mel energies as the DCASE 2022 task 6B baseline computes them.

    Source: xieh97/dcase2022-audio-retrieval, `scripts/audio_features.py`: librosa at 44.1 kHz, a Hann window of 40 ms
    every 20 ms, 64 Slaney mels from 12 Hz to 8 kHz of the power spectrum, ln(x + 2.2e-16). Frames are centred, and the
    ends padded with zeros (librosa's default since 0.10), so that a clip of any length has 1 + samples // hop frames.
    The paper (Xie et al. 2022, section 3.1) gives window, hop and the number of mels; the range is in the code alone.
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
        """How many frames so many samples have."""
        return 1 + samples // self.hop

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """Log-mel energies of (samples,) as (frames, mels), float32."""
        import scipy.fft  # here, since a verb that only reads tables must start fast

        window, filters = _constants(self)
        padded = np.pad(audio.astype(np.float32, copy=False), self.fft // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.fft)[:: self.hop]
        out = np.empty((len(frames), self.mels), np.float32)
        # Blocks that stay in a core's cache: three times as fast as the whole clip at once.
        for start in range(0, len(frames), 64):
            block = slice(start, start + 64)
            # In float64, as librosa: in float32, rounding at a loud bin is up to a fifth of a faint mel of its frame.
            # Filters are zero above `high`: two thirds of the bins are left out of all that follows.
            spectrum = scipy.fft.rfft(frames[block] * window)[:, : len(filters)].astype(np.complex64)
            out[block] = (spectrum.real**2 + spectrum.imag**2) @ filters
        return np.log(out + np.float32(self.floor))


@lru_cache
def _constants(settings: LogMel) -> tuple[np.ndarray, np.ndarray]:
    """The Hann window, centred in the transform's points, and the mel filters as (bins up to `high`, mels)."""
    before = (settings.fft - settings.window) // 2
    window = np.zeros(settings.fft)
    turn = 2 * np.pi * np.arange(settings.window) / settings.window  # periodic, as for any spectrum
    window[before : before + settings.window] = 0.5 - 0.5 * np.cos(turn)
    filters = mel_filters(settings.sample_rate, settings.fft, settings.mels, settings.low, settings.high)
    used = np.flatnonzero(filters.any(axis=1))[-1] + 1
    return window, filters[:used].astype(np.float32)


def mel_filters(sample_rate: int, fft: int, mels: int, low: float, high: float, *, htk: bool = False) -> np.ndarray:
    """Triangles of unit area over the bins of a transform, (fft // 2 + 1, mels) float64, as librosa's.

    Args:
        sample_rate: Hz.
        fft: Points of the transform.
        mels: How many.
        low: Hz where the first begins.
        high: Hz where the last ends.
        htk: Evenly spaced on the mel scale of HTK, else on Slaney's.
    """
    bins = np.arange(fft // 2 + 1) * sample_rate / fft  # Hz
    if htk:
        edges = htk_hertz(np.linspace(*htk_mel(np.array([low, high])), mels + 2))
    else:
        edges = _slaney_hertz(np.linspace(*_slaney_mel(np.array([low, high])), mels + 2))
    return triangles(bins, edges) * 2 / (edges[2:] - edges[:-2])


def triangles(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Triangles of height 1 that each begin, peak and end at three edges in turn: (points, edges - 2)."""
    rise = (points[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - points[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall))


# The mel scale of HTK (Young et al., The HTK Book), 1127 ln(1 + f / 700).
def htk_mel(hertz: np.ndarray) -> np.ndarray:
    """Hz to mel."""
    return 1127 * np.log1p(hertz / 700)


def htk_hertz(mel: np.ndarray) -> np.ndarray:
    """Mel to Hz."""
    return 700 * np.expm1(mel / 1127)


# The mel scale of Slaney's Auditory Toolbox (1998): linear below 1 kHz at 200 / 3 Hz a mel, then logarithmic with 27
# steps to a factor of 6.4. Computed here in float64: torchaudio's filters, in float32, are off by up to 1e-3.
_LINEAR, _KNEE, _STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _slaney_mel(hertz: np.ndarray) -> np.ndarray:
    above = _KNEE / _LINEAR + np.log(np.maximum(hertz, _KNEE) / _KNEE) / _STEP
    return np.where(hertz < _KNEE, hertz / _LINEAR, above)


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
    knee = _KNEE / _LINEAR
    return np.where(mel < knee, mel * _LINEAR, _KNEE * np.exp(_STEP * (np.maximum(mel, knee) - knee)))
