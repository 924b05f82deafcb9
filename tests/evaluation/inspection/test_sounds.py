import io
import os
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from PIL import Image

from evaluation.inspection import sounds
from tests.evaluation.inspection.small_pages import NAMES, RATE, write_data


@pytest.fixture
def folder(tmp_path):
    return write_data(tmp_path / "data") / "evaluation"


def pixels(image):
    with Image.open(io.BytesIO(image)) as picture:
        assert picture.format == "WEBP"
        return np.asarray(picture.convert("L")).astype(int)


@pytest.mark.parametrize("rate", [1000, 8000, 44100, 768_000])
def test_a_higher_tone_is_higher_in_the_spectrogram(rate):
    rows = []
    for hertz in (rate / 20, rate / 6):
        tone = np.sin(2 * np.pi * min(hertz, hertz * 44100 / rate) * np.arange(rate // 2) / rate)
        image = pixels(sounds.draw(tone.astype(np.float32), rate))
        assert image.shape == (sounds.HEIGHT, sounds.WIDTH)
        rows.append(image.mean(axis=1).argmax())
    assert rows[1] < rows[0]  # row 0 is at the top


@pytest.mark.parametrize("samples", [1, 100, 8000])
def test_silence_and_very_short_sounds_are_drawn(samples):
    assert pixels(sounds.draw(np.zeros(samples, np.float32), 8000)).max() < 40
    assert sounds.draw(np.ones(samples, np.float32), 8000)


def test_a_spectrogram_is_cached_until_the_file_changes(folder, monkeypatch):
    path = folder / NAMES[0]
    image = sounds.spectrogram(path)
    monkeypatch.setattr(sounds, "draw", lambda *_: b"new")
    assert sounds.spectrogram(path) == image
    os.utime(path, (1, 1))
    assert sounds.spectrogram(path) == b"new"


def test_files_that_cannot_be_read_give_a_warning(folder):
    (folder / "broken.wav").write_bytes(b"RIFF no sound")
    paths = [folder / NAMES[0], folder / "broken.wav", folder / "absent.wav"]
    read, findings = sounds.read_sounds(paths)
    assert [sound.is_playable for sound in read] == [True, False, False]
    assert [sound.seconds for sound in read] == [1, None, None]
    (finding,) = findings
    assert (finding.file, finding.severity) == (str(paths[1]), "warning")
    assert "the page does not have its sound" in finding.message


def test_many_sounds_are_read_by_several_processes(folder):
    paths = [folder / name for name in NAMES] * 3
    assert len(paths) > sounds.FEW
    read, findings = sounds.read_sounds(paths)
    assert (len(read), findings) == (12, [])
    assert read[0].spectrogram == read[4].spectrogram != read[1].spectrogram


@pytest.mark.parametrize("name", ["a b#c?.wav", "100%.wav", "é\u202e.wav", "\udcff.wav"])
def test_a_link_leads_to_the_file(tmp_path, name):
    link = sounds.link(tmp_path / "data" / name, tmp_path / "pages" / "one")
    assert link.isascii()
    assert not set(link) & set(" #?\"'<>&")
    assert unquote(link, errors="surrogateescape") == f"../../data/{name}"


def test_a_copy_is_ogg_or_the_file_itself(folder):
    content, suffix = sounds.copy(folder / NAMES[0])
    samples, rate = soundfile.read(io.BytesIO(content))
    assert (suffix, rate, len(samples)) == (".ogg", RATE, RATE)
    (folder / "dog.ogg").write_bytes(content)
    assert sounds.copy(folder / "dog.ogg") == (content, ".ogg")
