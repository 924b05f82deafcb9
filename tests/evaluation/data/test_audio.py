import math
from dataclasses import asdict

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from evaluation.data import audio
from evaluation.data.audio import LogMel, UnusableSound
from tests.librosa_uncompiled import librosa

RATE = 44100


def tone(hertz: float, samples: int, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


def loudest(sound: np.ndarray, rate: int) -> float:
    """Return the frequency of the strongest bin in Hz."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(power.argmax() * rate / len(sound))


# ------------------------------------------------------------------------------------------------ decoding


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_24", 2**-23),
        ("wav", "FLOAT", 0),
        ("flac", "PCM_16", 2**-15),
        ("ogg", "VORBIS", 0.05),
        ("mp3", "MPEG_LAYER_III", 0.05),
        ("wav", "PCM_U8", 2**-6),
        ("WAV", "PCM_16", 2**-15),
    ],
)
def test_every_format_decodes(tmp_path, suffix, subtype, error):
    sound = tone(440, RATE)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sound, RATE, subtype=subtype)
    decoded, rate = audio.decode(path)
    assert (rate, decoded.dtype, decoded.shape) == (RATE, np.float32, sound.shape)
    np.testing.assert_allclose(decoded, sound, rtol=0, atol=error)
    sound = audio.sound_facts(path)
    assert (sound.frames, sound.sample_rate, sound.channels) == (RATE, RATE, 1)
    assert sound.peak == np.abs(decoded).max()


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_24"), ("ogg", None), ("mp3", None)])
@pytest.mark.parametrize("rate", [RATE, 48000, 8000])
def test_an_excerpt_is_a_part_of_the_file(tmp_path, suffix, subtype, rate):
    path, seconds = tmp_path / f"a.{suffix}", 2
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (seconds * rate + 17, 2)), rate, subtype)
    assert audio.can_load_excerpts(path, RATE)
    whole, length = audio.load_audio(path, RATE), RATE // 2
    for start in (0, 1, 440, 29_321, len(whole) - length - 1, len(whole) - length):
        excerpt = audio.load_excerpt(path, RATE, start, length)
        rounding = 0 if rate == RATE else 1e-6
        np.testing.assert_allclose(excerpt, whole[start : start + length], rtol=0, atol=rounding)
    with pytest.raises(UnusableSound, match="has fewer samples than before"):
        audio.load_excerpt(path, RATE, len(whole) - length + 1, length)


def test_channels_are_averaged(tmp_path):
    channels = np.random.default_rng(0).uniform(-1, 1, (1000, 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, 8000, subtype="FLOAT")
    decoded, rate = audio.decode(tmp_path / "a.wav")
    assert (rate, decoded.dtype) == (8000, np.float32)
    np.testing.assert_allclose(decoded, channels.astype(float).mean(axis=1), atol=1e-7)
    assert audio.sound_facts(tmp_path / "a.wav") == audio.Sound(1000, 8000, 3, float(np.abs(channels).max()))


@pytest.mark.parametrize(
    ("suffix", "subtype", "channels"),
    [
        ("wav", "PCM_16", 3),
        ("wav", "PCM_24", 2),
        ("wav", "FLOAT", 6),
        ("wav", "IMA_ADPCM", 2),
        ("flac", "PCM_16", 2),
        ("ogg", "VORBIS", 2),
        ("mp3", "MPEG_LAYER_III", 1),
        ("mp3", "MPEG_LAYER_III", 2),
    ],
)
def test_the_size_of_blocks_changes_no_sample(tmp_path, monkeypatch, suffix, subtype, channels):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, channels)).astype(np.float32)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sound, RATE, subtype=subtype)
    expected = soundfile.read(path, frames=2 * RATE, dtype="float32", always_2d=True)[0].mean(axis=1)
    monkeypatch.setattr(audio, "BLOCK", 5000)
    np.testing.assert_array_equal(audio.decode(path)[0], expected)


def test_faulty_samples_of_all_blocks_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK", 4)
    sound = np.zeros((100, 2), np.float32)
    sound[[3, 50, 99], 1] = 1e19
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    with pytest.raises(UnusableSound, match=r"found 3 beyond 2.1e\+09, the largest 1.0e\+19"):
        audio.decode(tmp_path / "a.wav")
    sound[[0, 98]] = np.inf, -np.inf
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    with pytest.raises(UnusableSound, match="has 2 samples with NaN or infinity"):
        audio.decode(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.wav", lambda path: path.write_bytes(b""), "does not decode (Format not recognised); replace the file"),
        ("a.mp3", lambda path: path.write_bytes(b"no"), "does not decode (Format not recognised); replace the file"),
        ("': a.wav", lambda path: None, "cannot be opened (No such file or directory); check the file"),
        (
            "a.wav",
            lambda path: path.symlink_to("gone.wav"),
            "is a link to gone.wav, which does not exist; copy the file there",
        ),
        ("a.wav", lambda path: soundfile.write(path, [], RATE), "is empty: no samples; replace the file"),
        (
            "a.wav",
            lambda path: soundfile.write(path, [[0, np.nan], [np.inf, -np.inf], [0, 1]], RATE, subtype="FLOAT"),
            "has 2 samples with NaN or infinity; replace the file",
        ),
        (
            "a.wav",
            lambda path: soundfile.write(path, [[0, 1e19], [-1e19, 0], [0, 1]], RATE, subtype="FLOAT"),
            "must have samples in [-1, 1]; found 2 beyond 2.1e+09, the largest 1.0e+19: "
            "the file is damaged, replace it",
        ),
        (
            "a.wav",
            lambda path: soundfile.write(path, tone(1, 100), 1),
            "must have a sample rate from 1,000 to 768,000 Hz; found 1 Hz: resample it, or correct its header",
        ),
        (
            "a.wav",
            lambda path: soundfile.write(path, np.zeros((10, 65)), RATE),
            "must have at most 64 channels; found 65: mix it down",
        ),
    ],
    ids=["no bytes", "other content", "no file", "link", "no samples", "not finite", "1e19", "1 Hz", "channels"],
)
def test_sound_that_cannot_be_used(tmp_path, name, write, message):
    write(tmp_path / name)
    for reader in (audio.decode, audio.sound_facts, lambda path: audio.load_audio(path, 16000)):
        with pytest.raises(UnusableSound) as reason:
            reader(tmp_path / name)
        assert str(reason.value) == message


def test_a_sound_that_is_too_long_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "MOST_VALUES", 8000 * 2 * 36)
    soundfile.write(tmp_path / "a.wav", np.zeros((8000 * 36 + 1, 2)), 8000)
    with pytest.raises(UnusableSound, match=r"must last at most 0.0 h at 8,000 Hz with 2 channels; it is longer"):
        audio.decode(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.zeros(8000 * 73), 8000, subtype="GSM610")
    with pytest.raises(UnusableSound, match="must last at most"):
        audio.decode(tmp_path / "b.wav")


def test_a_header_that_promises_more_than_memory_holds(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone(440, 100), RATE)

    def read(*arguments: object, **keywords: object) -> None:
        raise MemoryError("Unable to allocate 38.5 GiB")  # as numpy does; the limit depends on the machine

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    with pytest.raises(UnusableSound, match=r"^does not decode \(Unable to allocate 38.5 GiB\); replace the file$"):
        audio.decode(tmp_path / "a.wav")


# ------------------------------------------------------------------------------------------------ resampling


@pytest.mark.parametrize("rate", [8000, 16000, 32000, 48000])
@pytest.mark.parametrize("samples", [RATE, RATE - 1, 12345])
def test_resampling_keeps_pitch_and_length(tmp_path, rate, samples):
    soundfile.write(tmp_path / "a.wav", tone(1000, samples), RATE, subtype="FLOAT")
    sound = audio.load_audio(tmp_path / "a.wav", rate)
    assert (sound.dtype, sound.shape) == (np.float32, (math.ceil(samples * rate / RATE),))
    assert loudest(sound, rate) == pytest.approx(1000, abs=rate / len(sound))
    middle = slice(len(sound) // 4, -len(sound) // 4)
    np.testing.assert_allclose(sound[middle], tone(1000, len(sound), rate)[middle], atol=2e-3)


def test_resampling_lets_nothing_alias(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(10000, RATE), RATE, subtype="FLOAT")
    assert np.abs(audio.load_audio(tmp_path / "a.wav", 16000)[1000:-1000]).max() < 0.005


def test_sound_of_the_right_rate_is_left_as_it_is(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1000, 500), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(audio.load_audio(tmp_path / "a.wav", RATE), tone(1000, 500))


@pytest.mark.parametrize(("rate", "target"), [(44_099, 44_100), (44_099, 16_000), (47_999, 8_000)])
def test_rates_without_a_common_divisor(rate, target, monkeypatch):
    """The filters of torchaudio would take up to 8 GB, so soxr resamples."""
    monkeypatch.setattr("torchaudio.functional.resample", None)
    sound = audio.resample(tone(1000, rate, rate), rate, target)
    assert (sound.dtype, sound.shape) == (np.float32, (target,))
    middle = slice(target // 4, -target // 4)
    np.testing.assert_allclose(sound[middle], tone(1000, target, target)[middle], atol=2e-3)


@pytest.mark.parametrize(("rate", "target"), [(44100, 16000), (48000, 44100), (16000, 44100), (8000, 16000)])
@pytest.mark.parametrize("samples", [4097, 12345, 20000])
def test_long_audio_is_resampled_in_blocks(rate, target, samples, monkeypatch):
    sound = noise(samples)
    whole = audio.resample(sound, rate, target)
    monkeypatch.setattr(audio, "LONG", 4096)
    monkeypatch.setattr(audio, "RESAMPLED", 4096)
    blocks = audio.resample(sound, rate, target)
    assert (blocks.dtype, blocks.shape) == (np.float32, whole.shape)
    np.testing.assert_allclose(blocks, whole, rtol=0, atol=1e-6)


def test_rates_in_use_are_resampled_by_torchaudio(monkeypatch):
    monkeypatch.setattr("soxr.resample", None)
    rates = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000]
    for rate in rates:
        for target in (44100, 16000):
            sound = tone(100, 50, rate)
            expected = torchaudio.functional.resample(torch.from_numpy(sound), rate, target).numpy()
            np.testing.assert_array_equal(audio.resample(sound, rate, target), expected)


# ------------------------------------------------------------------------------------------------ log-mel energies


def assert_equals_librosa(sound: np.ndarray, **changes: float) -> None:
    """Mel energies are within 1e-5 of librosa's, even in the faintest bin of the loudest frame."""
    settings = LogMel(**changes)
    theirs = librosa.feature.melspectrogram(
        y=sound,
        sr=settings.sample_rate,
        n_fft=settings.fft,
        win_length=settings.window,
        hop_length=settings.hop,
        n_mels=settings.mels,
        fmin=settings.low,
        fmax=settings.high,
        power=2.0,
    ).T
    ours = settings(sound)
    assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
    np.testing.assert_allclose(np.exp(ours.astype(float)), theirs.astype(float) + np.finfo(float).eps, rtol=1e-5)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


CLICKS = np.zeros(RATE, np.float32)
CLICKS[[0, 5000, RATE - 1]] = 1


@pytest.mark.parametrize(
    "sound",
    [
        noise(3 * RATE),
        1e-4 * noise(RATE),
        CLICKS,
        tone(440, RATE),
        tone(50, RATE) + 1e-3 * noise(RATE),
        1 + 1e-2 * noise(RATE),
    ],
    ids=["noise", "faint noise", "clicks", "tone", "faint noise under a loud tone", "offset"],
)
def test_log_mel_equals_librosa(sound):
    assert_equals_librosa(sound)


@pytest.mark.parametrize(
    "changes",
    [
        {"mels": 40},
        {"low": 0.0, "high": 22050.0},
        {"sample_rate": 16000, "window": 400, "hop": 160, "fft": 512, "low": 50.0},
        {"window": 2048, "hop": 1024},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_log_mel_equals_librosa_with_other_settings(changes):
    assert_equals_librosa(noise(RATE), **changes)


def test_log_mel_equals_librosa_on_real_sound(shared):
    clips = sorted((shared / "esc10" / "evaluation").glob("*.ogg"))[::16]
    clips += sorted((shared / "clotho" / "evaluation").glob("*.wav"))[::4]
    assert len(clips) == 8
    for clip in clips:
        assert_equals_librosa(audio.load_audio(clip, RATE))


@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
@pytest.mark.parametrize("samples", [1, 100, 881, 882, 883, 1763, 1764, 2048, 63 * 882, 64 * 882, 65 * 882 - 1])
def test_frames_are_counted_as_they_come(samples):
    sound = noise(samples)
    assert LogMel().frames(samples) == 1 + samples // 882 == len(LogMel()(sound))
    assert_equals_librosa(sound)


def test_silence_is_the_floor():
    log = LogMel()(np.zeros(RATE, np.float32))
    assert (log.dtype, log.shape) == (np.float32, (51, 64))
    np.testing.assert_allclose(log, np.log(2.2e-16), atol=0.01)
    assert (log == log[0, 0]).all()


def test_settings_are_the_published_ones():
    assert asdict(LogMel()) == {
        "sample_rate": 44100,
        "window": 1764,
        "hop": 882,
        "fft": 2048,
        "mels": 64,
        "low": 12.0,
        "high": 8000.0,
        "floor": np.finfo(np.float64).eps,
    }


def test_neither_the_type_nor_the_layout_of_the_samples_matters():
    sound = noise(5000)
    expected = LogMel()(sound)
    np.testing.assert_array_equal(LogMel()(sound.astype(np.float64)), expected)
    np.testing.assert_array_equal(LogMel()(np.stack([sound, sound], axis=1)[:, 0]), expected)
    np.testing.assert_array_equal(sound, noise(5000))


def test_a_wav_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "cut.wav"
    soundfile.write(path, np.zeros(1000), 8000)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(audio.UnusableSound, match=r"is cut off: 1000 of the 2044 bytes that its header promises"):
        audio.decode(path)
    path.write_bytes(whole[:4] + b"\xff" * 4 + whole[8:])  # recorders write this before they know the length
    assert len(audio.decode(path)[0]) == 1000
