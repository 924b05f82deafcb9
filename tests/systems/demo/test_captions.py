"""The captions of a sound, from captioners with different methods, and sounds that cannot be used."""

import numpy as np
import pytest
import soundfile
import torch

from evaluation.data.audio import UnusableSound
from systems.demo.captions import captions_of
from tests.systems.made import tone


class Plain:
    sample_rate = 8000

    def caption(self, audio, lengths):
        return [f"{int(length)} samples" for length in lengths]


class Scored(Plain):
    def caption_scored(self, audio, lengths):
        return self.caption(audio, lengths), torch.full((len(audio),), -2.5)


class WithAlternatives(Scored):
    def caption_alternatives(self, audio, lengths, number):
        return [[(f"caption {place}", -float(place)) for place in range(number)] for _ in audio]


def test_the_best_method_of_a_model_is_used(tmp_path):
    path = tone(tmp_path / "tone.wav", 500, seconds=2)
    assert captions_of(Plain(), path) == [("16000 samples", None)]
    assert captions_of(Scored(), path) == [("16000 samples", -2.5)]
    assert captions_of(WithAlternatives(), path) == [(f"caption {place}", -float(place)) for place in range(5)]


def test_channels_and_sample_rates_are_converted(tmp_path):
    soundfile.write(tmp_path / "eight.wav", np.zeros((32_000, 8)), 16_000)
    assert captions_of(Plain(), tmp_path / "eight.wav") == [("16000 samples", None)]


@pytest.mark.parametrize(
    ("seconds", "message"),
    [(0, "is empty: no samples"), (301, "must last at most 300 s; found 301 s: cut it")],
)
def test_a_sound_must_have_samples_and_not_be_too_long(seconds, message, tmp_path):
    soundfile.write(tmp_path / "sound.wav", np.zeros(1000 * seconds), 1000)
    with pytest.raises(UnusableSound, match=message):
        captions_of(Plain(), tmp_path / "sound.wav")


@pytest.mark.parametrize("content", ["", "not audio"])
def test_a_file_that_is_not_audio(content, tmp_path):
    (tmp_path / "text.wav").write_text(content)
    with pytest.raises(UnusableSound, match="does not decode"):
        captions_of(Plain(), tmp_path / "text.wav")
