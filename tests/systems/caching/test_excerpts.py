"""Excerpts of long recordings are the same samples as in a cache of all audio, and are not stored."""

import math

import numpy as np
import pytest
import soundfile

from evaluation.data.audio import load_audio
from evaluation.findings import Faulty
from systems.caching import excerpts
from systems.caching.excerpts import Recording, read_parts, waveforms_or_recordings


@pytest.fixture
def files(tmp_path):
    """A short clip, a long one, one at another sample rate, and one whose encoding cannot seek."""
    rng = np.random.default_rng(0)
    made = []
    for name, seconds, rate, subtype in (
        ("short", 0.5, 8000, "PCM_16"),
        ("long", 3, 8000, "PCM_16"),
        ("other", 3, 11025, "PCM_16"),
        ("gsm", 3, 8000, "GSM610"),
    ):
        made.append(tmp_path / f"{name}.wav")
        soundfile.write(made[-1], rng.uniform(-0.5, 0.5, round(seconds * rate)), rate, subtype)
    return made


def test_only_clips_that_are_read_as_a_whole_are_stored(files, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    sounds = waveforms_or_recordings(files, 8000, 8000, cache)
    assert [isinstance(sound, Recording) for sound in sounds] == [False, True, True, False]
    (stored,) = cache.glob("sound-*/features.f32")
    assert stored.stat().st_size == 4 * (len(sounds[0]) + len(sounds[3]))
    expected = [load_audio(path, 8000) for path in files]
    assert [len(sound) for sound in sounds] == [len(samples) for samples in expected]
    parts = [slice(0, 4000), slice(777, 8777), slice(15999, 23999), slice(1, 8001)]
    for part, samples, excerpt in zip(parts, expected, read_parts(sounds, parts), strict=True):
        np.testing.assert_allclose(excerpt, samples[part], rtol=0, atol=1e-6)
    monkeypatch.setattr(excerpts.audio, "load_audio", None)  # the next training decodes nothing before it begins
    assert waveforms_or_recordings(files, 8000, 8000, cache)[1:3] == sounds[1:3]


def test_without_a_maximum_all_clips_are_stored(files, tmp_path):
    sounds = waveforms_or_recordings(files, 8000, math.inf, tmp_path / "cache")
    assert not any(isinstance(sound, Recording) for sound in sounds)


def test_unusable_files_are_named_before_training_and_in_it(files, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(Faulty) as caught:
        waveforms_or_recordings([*files, tmp_path / "text.wav", tmp_path / "empty.wav"], 8000, 8000, tmp_path / "cache")
    assert [finding.file.rpartition("/")[2] for finding in caught.value.findings] == ["empty.wav", "text.wav"]
    sounds = waveforms_or_recordings(files[1:2], 8000, 8000, tmp_path / "cache")
    soundfile.write(files[1], np.zeros(9000), 8000)
    with pytest.raises(Faulty, match=r"long\.wav.*has fewer samples than before; do not change audio files"):
        read_parts(sounds, [slice(16000, 24000)])
