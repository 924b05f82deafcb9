"""Sound from file to log-mel energies.

Every part of the kit that reads sound calls `decode`, so that a sound that `data check` accepts is read the same way
in training and prediction, and one that it refuses is refused there too.

Conventions
-----------
- Sound is mono float32, in [-1, 1] at full scale; several channels are averaged to one.
- Features are (frames, mels).

A sound is refused (`UnusableSound`) for one of these reasons:

- its file cannot be opened, or is a link to a file that does not exist;
- it does not decode, or is empty;
- it is cut off or damaged, by its container's own lengths and checksums (`evaluation.data.containers`);
- it is joined of files of different kinds, sample rates or numbers of channels;
- a value is not finite, or beyond `LARGEST`;
- it has more than `MOST_VALUES` values or `MOST_CHANNELS` channels, a sample rate outside `RATES`, or a compressed file
  above `containers.MOST_COMPRESSED` bytes.

An encoder may refuse a sound, too: its embeddings must be finite (`systems.caching.embeddings`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from evaluation.data.containers import Source, UnusableSound, sources

ARITHMETIC = 2  # counts up when the same settings give other log-mel energies, so that no cache mixes the two

RATES = (1_000, 768_000)  # Hz, from the lowest that carries sound to the highest that converters have
MOST_CHANNELS = 64
MOST_VALUES = 2**29  # samples x channels: 3.4 hours of mono at 44.1 kHz, 2 GiB of float32
LARGEST = 2.0**31  # the full scale of 32-bit integers; no format of sound goes beyond
BLOCK = 2**20  # frames that are read at once where a file does not say how many it has
KERNEL = 2**22  # values of a resampling filter that torchaudio may lay out


@dataclass(frozen=True)
class Sound:
    """Facts of a sound file.

    Attributes:
        frames: Samples of each channel.
        sample_rate: In Hz.
        channels: Number of channels.
        peak: The largest absolute value; 1 is full scale.
    """

    frames: int
    sample_rate: int
    channels: int
    peak: float

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.frames / self.sample_rate


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Decode a file to mono float32; return the samples and the sample rate in Hz.

    Raises:
        UnusableSound: The sound is refused; see the conventions above.
    """
    samples, sound = _decode(path)
    if sound.channels == 1:
        return samples[:, 0], sound.sample_rate
    return samples.mean(axis=1), sound.sample_rate


def sound_facts(path: Path) -> Sound:
    """Decode a file to its end and return its facts; raises as `decode` does."""
    return _decode(path)[1]


def _decode(path: Path) -> tuple[np.ndarray, Sound]:
    """Decode all channels of a file as (frames, channels) float32, with its facts."""
    try:
        parts = [_read(source) for source in sources(path)]
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise UnusableSound(f"is a link to {path.readlink()}, which does not exist; copy the file there") from None
        raise UnusableSound(f"cannot be opened ({error.strerror or error}); check the file") from None
    forms = {(rate, samples.shape[1]) for samples, rate in parts}
    if len(forms) > 1:
        raise UnusableSound("is joined of parts with different sample rates or channels; split it into files")
    [(sample_rate, channels)] = forms
    if len(parts) == 1:
        samples = parts[0][0]
    else:
        samples = np.concatenate([part for part, _ in parts])
    if not len(samples):
        raise UnusableSound("is empty: no samples; replace the file")
    peak = max(float(samples.max()), -float(samples.min()))  # NaN where any value is
    if not peak <= LARGEST:
        raise UnusableSound(_values_fault(samples))
    return samples, Sound(len(samples), sample_rate, channels, peak)


def _read(source: Source) -> tuple[np.ndarray, int]:
    """Decode one stream as (frames, channels) float32, with its sample rate in Hz."""
    try:
        with soundfile.SoundFile(source) as file:
            _check_size(file)
            # 16-bit samples become the same floats here as in libsndfile, in half the time.
            is_short = file.subtype == "PCM_16"
            samples = _read_frames(file, "int16" if is_short else "float32")
            if file.seekable() and len(samples) < file.frames:
                message = f"is cut off: {len(samples)} of the {file.frames} samples that its header promises"
                raise UnusableSound(f"{message}; copy it again")
            if is_short:
                samples = samples * np.float32(2**-15)
            return samples, file.samplerate
    # MemoryError: a damaged header that promises more samples than any machine holds.
    except (soundfile.LibsndfileError, soundfile.SoundFileRuntimeError, MemoryError) as error:
        reason = getattr(error, "error_string", str(error))
        if getattr(error, "code", None) == 7:  # "File does not exist": libsndfile's answer to an .mp3 that is not one
            reason = "Format not recognised"
        raise UnusableSound(f"does not decode ({reason.strip(' .')}); replace the file") from None


def _check_size(file: soundfile.SoundFile) -> None:
    """Refuse a file by its header where it asks for more memory or time than any clip needs."""
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
    message = f"must last at most {hours:.1f} h at {file.samplerate:,} Hz with {file.channels} channels"
    return f"{message}; it is longer, or its header is damaged: cut it into clips"


def _read_frames(file: soundfile.SoundFile, dtype: str) -> np.ndarray:
    """Read all frames of a file, in blocks where its encoding cannot seek (GSM 6.10, G.721, ADPCM, DPCM)."""
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
    """Return what is wrong with samples of which some are no values of sound."""
    not_finite = int((~np.isfinite(samples)).any(axis=1).sum())
    if not_finite:
        return f"holds {not_finite} samples that are not finite (NaN or infinity); replace the file"
    beyond = int((np.abs(samples) > LARGEST).any(axis=1).sum())
    largest = float(np.abs(samples).max())
    message = f"must hold samples in [-1, 1]; found {beyond} beyond {LARGEST:.1e}, the largest {largest:.1e}"
    return f"{message}: the file is damaged, replace it"


def load_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Decode a file to mono float32 at `sample_rate` Hz; raises as `decode` does."""
    samples, rate = decode(path)
    return resample(samples, rate, sample_rate)


def resample(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample (samples,) float32 from `rate` to `sample_rate` Hz, in memory of about the sound's own size.

    torchaudio lays out one filter for each output phase. With rates whose greatest common divisor is large, as all
    rates in use have (8, 11.025, 16, 22.05, 24, 32, 44.1, 48, 88.2, 96, 192 kHz), these are at most 0.6 million values.
    From 44,099 to 44,100 Hz they would be two thousand million. Where there are more than `KERNEL`, soxr resamples (at
    its quality "HQ"), which computes the filters as it goes.
    """
    if rate == sample_rate:
        return samples
    if _kernel_values(rate, sample_rate) > KERNEL:
        import soxr

        return soxr.resample(samples, rate, sample_rate).astype(np.float32, copy=False)
    import torch
    import torchaudio

    return torchaudio.functional.resample(torch.from_numpy(samples), rate, sample_rate).numpy()


def _kernel_values(rate: int, sample_rate: int) -> int:
    """Return how many values torchaudio's resampling filters have (`_get_sinc_resample_kernel`, its defaults)."""
    divisor = math.gcd(rate, sample_rate)
    before, after = rate // divisor, sample_rate // divisor
    half_width = math.ceil(6 * before / (min(before, after) * 0.99))
    return after * (before + 2 * half_width)


@dataclass(frozen=True)
class LogMel:
    """Log-mel energies as the DCASE 2022 task 6B baseline computes them.

    Source: xieh97/dcase2022-audio-retrieval, `scripts/audio_features.py`: librosa at 44.1 kHz, a Hann window of 40 ms
    every 20 ms, 64 Slaney mels from 12 Hz to 8 kHz of the power spectrum, ln(x + 2.2e-16). Frames are centred, and the
    ends padded with zeros (librosa's default since 0.9), so that a clip of any length has 1 + samples // hop frames.
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
