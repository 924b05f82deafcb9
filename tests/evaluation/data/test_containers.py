"""Audio files of all containers are read completely, or refused if cut off, damaged, joined or never finished."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.data import audio
from evaluation.data.audio import UnusableSound

RATE = 22050
SAMPLES = RATE * 2
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLES).astype(np.float32)

KINDS = {  # soundfile's name of the container, of the encoding, and its options
    "wav": ("WAV", "PCM_16", {}),
    "wav, float": ("WAV", "FLOAT", {}),
    "rf64": ("RF64", "PCM_16", {}),
    "wave64": ("W64", "PCM_16", {}),
    "aiff": ("AIFF", "PCM_16", {}),
    "au": ("AU", "PCM_16", {}),
    "caf": ("CAF", "PCM_16", {}),
    "flac": ("FLAC", "PCM_16", {}),
    "vorbis": ("OGG", "VORBIS", {}),
    "opus": ("OGG", "OPUS", {}),
    "mp3, constant": ("MP3", "MPEG_LAYER_III", {"bitrate_mode": "CONSTANT"}),
    "mp3, variable": ("MP3", "MPEG_LAYER_III", {"bitrate_mode": "VARIABLE"}),
}


def encoded(kind: str, samples: np.ndarray = NOISE) -> bytes:
    """Return the bytes of a complete file of a container."""
    container, encoding, options = KINDS[kind]
    rate = 24000 if encoding == "OPUS" else RATE
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=encoding, **options)
    return file.getvalue()


WHOLE = {kind: encoded(kind) for kind in KINDS}


def written(folder: Path, kind: str, content: bytes) -> Path:
    path = folder / f"a.{'mp3' if kind.startswith('mp3') else kind.partition(',')[0]}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_whole_file(kind, tmp_path):
    assert audio.sound_facts(written(tmp_path, kind, WHOLE[kind])).frames == SAMPLES


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_file_is_named(kind, share, tmp_path):
    content = WHOLE[kind]
    path = written(tmp_path, kind, content[: int(share * len(content))])
    with pytest.raises(UnusableSound, match=r"cut off|damaged|does not decode"):
        audio.decode(path)


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_ogg_cut_between_pages_is_named(kind, tmp_path):
    content = WHOLE[kind]
    last_page = content.rfind(b"OggS")
    with pytest.raises(UnusableSound, match="is cut off: its last Ogg page is not marked as the end; copy it again"):
        audio.decode(written(tmp_path, kind, content[:last_page]))


def test_a_size_beyond_any_file_is_named(tmp_path):
    content = bytearray(WHOLE["wave64"])
    content[56:64] = b"\xff" * 8  # the size of the first chunk
    with pytest.raises(UnusableSound):
        audio.decode(written(tmp_path, "wave64", bytes(content)))


def test_ogg_with_a_page_missing_is_named(tmp_path):
    content = WHOLE["vorbis"]
    pages = [place for place in range(len(content)) if content.startswith(b"OggS", place)]
    assert len(pages) > 4
    without = content[: pages[2]] + content[pages[3] :]
    with pytest.raises(UnusableSound, match="is damaged: Ogg pages are missing before byte"):
        audio.decode(written(tmp_path, "vorbis", without))


@pytest.mark.parametrize("kind", ["vorbis", "opus", "mp3, constant", "mp3, variable"])
def test_joined_files_are_read_whole(kind, tmp_path):
    path = written(tmp_path, kind, WHOLE[kind] * 2)
    assert audio.sound_facts(path).frames == 2 * SAMPLES


@pytest.mark.parametrize("kind", ["wav", "rf64", "wave64", "aiff", "au", "caf", "flac"])
def test_joined_files_that_a_decoder_would_cut_are_named(kind, tmp_path):
    with pytest.raises(UnusableSound, match=r"must be one \w+ file; another file follows|does not decode"):
        audio.decode(written(tmp_path, kind, WHOLE[kind] * 2))


def test_mp3_of_two_sample_rates_is_named(tmp_path):
    other = io.BytesIO()
    soundfile.write(other, NOISE, 44100, format="MP3", subtype="MPEG_LAYER_III")
    with pytest.raises(UnusableSound, match="it changes its sample rate or its number of channels at byte"):
        audio.decode(written(tmp_path, "mp3, constant", WHOLE["mp3, constant"] + other.getvalue()))


def test_mp3_without_a_header_is_read_whole(tmp_path):
    """The first frame of a variable MP3 has the number of frames; without this frame, a decoder guesses the number."""
    content = WHOLE["mp3, variable"]
    second_frame = content.find(content[:2], 4)
    frames = audio.sound_facts(written(tmp_path, "mp3, variable", content[second_frame:])).frames
    assert SAMPLES <= frames <= SAMPLES + 4 * 1152  # the encoder adds samples at both ends


def test_wav_of_a_recorder_that_stopped_is_read_whole(tmp_path):
    content = bytearray(WHOLE["wav"])
    content[4:8] = bytes(4)
    content[40:44] = bytes(4)
    assert content[36:40] == b"data"
    assert audio.sound_facts(written(tmp_path, "wav", bytes(content))).frames == SAMPLES


@pytest.mark.parametrize(
    ("kind", "place", "length"),
    [("aiff", lambda content: content.find(b"SSND") + 4, 4), ("au", lambda content: 8, 4)],
)
def test_other_files_that_were_never_finished_are_named(kind, place, length, tmp_path):
    content = bytearray(WHOLE[kind])
    start = place(content)
    content[start : start + length] = bytes(length)
    if kind == "aiff":
        content[4:8] = bytes(4)
    with pytest.raises(UnusableSound, match="was never finished: its header promises no audio"):
        audio.decode(written(tmp_path, kind, bytes(content)))


@pytest.mark.parametrize(
    "encoding", ["GSM610", "G721_32", "NMS_ADPCM_16", "IMA_ADPCM", "MS_ADPCM", "ALAW", "ULAW", "PCM_24", "DOUBLE"]
)
def test_encodings_of_wav(encoding, tmp_path):
    container = "AU" if encoding == "G721_32" else "WAV"
    path = tmp_path / "a.wav"
    soundfile.write(path, NOISE[:8000], 8000, format=container, subtype=encoding)
    frames = audio.sound_facts(path).frames
    assert 8000 <= frames <= 8000 + 1024  # an encoding with blocks pads the last one


@pytest.mark.parametrize(
    ("name", "frames", "message"),
    [
        ("half_cbr.mp3", None, "is cut off: 96 of the 193 MP3 frames that its header promises; copy it again"),
        ("half_vorbis.ogg", None, "is cut off in the middle of an Ogg page; copy it again"),
        ("half_rf64.wav", None, "is cut off: 220596 of the 441192 bytes that its header promises; copy it again"),
        ("vbr_no_xing.mp3", (264_600, 264_600 + 3 * 1152), None),
        ("two_joined.mp3", (529_200, 529_200), None),
        ("gsm.wav", (16_000, 16_000), None),
        ("coprime_44099.wav", (44_099, 44_099), None),
    ],
)
def test_given_cases(name, frames, message, shared, capfd):
    path = shared / "cases" / "sound" / name
    if message:
        with pytest.raises(UnusableSound) as reason:
            audio.decode(path)
        assert str(reason.value) == message
    else:
        assert frames[0] <= audio.sound_facts(path).frames <= frames[1]
    assert capfd.readouterr().err == ""  # no warnings of a decoder, because they do not name the file


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
def test_any_damage_is_told_in_one_way(kind, data, tmp_path):
    content = bytearray(WHOLE[kind][:6000])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content) - 1, 200)))
        content[place] = data.draw(st.integers(0, 255))
    path = written(tmp_path, kind, bytes(content))
    try:
        samples, rate = audio.decode(path)
    except UnusableSound as reason:
        assert "\n" not in str(reason)
    else:
        assert np.isfinite(samples).all()
        assert rate > 0
