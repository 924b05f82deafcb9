"""Front ends equal the authors' own: librosa, or formulas written out."""

import numpy as np
import pytest
import torch

from evaluation.data.audio import mel_filters
from systems.parts.encoders import coala, vggish
from systems.parts.encoders.cnn14 import Cnn14
from systems.parts.encoders.openl3 import OpenL3, normalisation
from tests.librosa_uncompiled import librosa


def sound(rate, seconds=1.3):
    """A rising tone in noise that fades in."""
    rng = np.random.default_rng(0)
    time = np.arange(int(rate * seconds)) / rate
    return (time / seconds * (np.sin(2000 * time * (1 + time)) + rng.normal(0, 0.1, len(time))) * 0.5).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def cnn14():
    with torch.device("meta"):  # a front end does not need the network's 80 million weights
        return Cnn14()


@pytest.mark.parametrize(
    ("rate", "fft", "mels", "low", "high", "htk"),
    [
        (32000, 1024, 64, 50, 14000, False),
        (48000, 2048, 128, 0, 24000, True),
        (22000, 1024, 96, 0, 11000, False),
        (44100, 2048, 64, 12, 8000, False),
    ],
)
def test_mel_filters_are_librosas(rate, fft, mels, low, high, htk):
    wanted = librosa.filters.mel(sr=rate, n_fft=fft, n_mels=mels, fmin=low, fmax=high, htk=htk, dtype=np.float64)
    assert np.allclose(mel_filters(rate, fft, mels, low, high, htk=htk), wanted.T, rtol=1e-9, atol=1e-15)


def test_cnn14(cnn14):
    audio = sound(32000)
    energies = librosa.feature.melspectrogram(
        y=audio, sr=32000, n_fft=1024, hop_length=320, n_mels=64, fmin=50, fmax=14000, pad_mode="reflect"
    )
    wanted = librosa.power_to_db(energies, ref=1.0, amin=1e-10, top_db=None)
    found = cnn14.log_mels(torch.from_numpy(audio)[None])[0]
    assert found.shape == (1 + len(audio) // 320, 64)
    assert np.allclose(found.T, wanted, atol=1e-2)  # dB
    assert (cnn14.log_mels(torch.zeros(1, 9920)) == -100).all()


def test_vggish():
    with torch.device("meta"):
        model = vggish.VGGish()
    audio = sound(16000)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    wanted = np.zeros((96, 64))
    frames = range(0, 96, 7)
    for frame in frames:
        spectrum = np.abs(np.fft.rfft(audio[160 * frame :][:400] * window, 512))
        for band in range(64):
            lower, centre, upper = edges[band : band + 3]
            for number in range(1, 257):
                at = mel(number * 16000 / 512)
                weight = max(0, min((at - lower) / (centre - lower), (upper - at) / (upper - centre)))
                wanted[frame, band] += weight * spectrum[number]
    found = model.log_mels(torch.from_numpy(audio)[None, : model.window])[0]
    assert found.shape == (96, 64)
    assert np.allclose(found[frames], np.log(wanted[frames] + 0.01), atol=1e-4)
    assert model.window == 15600


def test_openl3():
    with torch.device("meta"):
        model = OpenL3()
    audio = np.stack([sound(48000)[:48000], sound(48000)[6000:54000] * 0.01])
    found = model.log_mels(torch.from_numpy(audio))
    assert found.shape == (2, 128, 199)
    for one, levels in zip(audio, found, strict=True):
        padded = np.pad(one, 982)
        powers = np.abs(librosa.stft(padded, n_fft=2048, hop_length=242, center=False)) ** 2
        mels = librosa.filters.mel(sr=48000, n_fft=2048, n_mels=128, htk=True) @ powers
        wanted = 10 * np.log10(np.maximum(np.sqrt(mels), 1e-10))
        wanted = np.maximum(wanted - wanted.max(), -80)
        assert np.allclose(levels, wanted, atol=1e-2)  # dB
    assert (model.log_mels(torch.zeros(1, 48000)) == 0).all()


def test_openl3_pads_the_end_of_a_second_as_later_versions_do():
    with torch.device("meta"):
        model = OpenL3("end")
    audio = sound(48000)[:48000]
    powers = np.abs(librosa.stft(np.pad(audio, (0, 1964)), n_fft=2048, hop_length=242, center=False)) ** 2
    mels = librosa.filters.mel(sr=48000, n_fft=2048, n_mels=128, htk=True) @ powers
    wanted = 10 * np.log10(np.maximum(np.sqrt(mels), 1e-10))
    wanted = np.maximum(wanted - wanted.max(), -80)
    found = model.log_mels(torch.from_numpy(audio)[None])[0]
    assert found.shape == (128, 199)
    assert np.allclose(found, wanted, atol=1e-2)  # dB


@pytest.mark.parametrize(("norm", "name"), [("slaney", "slaney"), (1, "sum 1"), (None, "peak 1"), (2, "other")])
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_openl3_reads_the_normalisation_of_mel_filters(norm, name):
    filters = librosa.filters.mel(sr=48000, n_fft=2048, n_mels=128, fmin=0, fmax=24000, htk=True, norm=norm)
    assert normalisation(torch.from_numpy(filters)) == name


def test_coala():
    model = coala.Coala().eval()
    audio = sound(22000, 5.0)
    wanted = librosa.feature.melspectrogram(
        y=audio, sr=22000, n_fft=1024, hop_length=512, n_mels=96, power=1.0, pad_mode="reflect"
    )
    wanted = np.log(wanted + np.finfo(np.float32).eps)
    padded = torch.nn.functional.pad(torch.from_numpy(audio)[None], (512, 512), "reflect")
    for patch in range(2):
        start = patch * 96 * 512
        found = model.log_mels(padded[:, start : start + coala.WINDOW])[0]
        assert np.allclose(found, wanted[:, 96 * patch : 96 * (patch + 1)], atol=1e-3)


def test_coala_hears_the_same_at_its_own_rate(monkeypatch):
    """Resampling inside the module equals the authors' resampling before it, up to 9 kHz (the lowest 85 mels)."""
    model = coala.Coala().eval()
    monkeypatch.setattr(model, "forward", lambda windows: model.log_mels(windows)[:, :85].flatten(1))
    tones, sizes = np.arange(30.0, 9000.0, 30.0), np.random.default_rng(0).uniform(0.5, 1, 299)

    def played(rate):
        times = np.arange(rate * 4.9) / rate
        waves = sum(size * np.sin(2 * np.pi * tone * times + tone**2) for tone, size in zip(tones, sizes, strict=True))
        return torch.from_numpy(0.01 * waves).float()[None]

    padded = torch.nn.functional.pad(played(22000), (512, 512), "reflect")
    found, _ = coala.get_timestamp_embeddings(played(44100), model)
    wanted = model(padded[:, 96 * 512 :][:, : coala.WINDOW])  # the second patch, away from the ends
    assert (found[0, 1] - wanted[0]).abs().max() < 0.05
