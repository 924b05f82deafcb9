"""WavCaps as published: captions, audio files, numbers of clips, excluded sounds, and faults."""

import json

import pytest

from evaluation.data import wavcaps
from evaluation.findings import BadRequest, Faulty


def entry(identifier, caption="Rain falls.", duration=2.5, **others):
    return {"id": identifier, "caption": caption, "duration": duration, **others}


def published(folder, sources, audio="Audio/{}", sounds=None):
    """Write JSON files, and an empty audio file for each clip or for each of `sounds`."""
    for source, entries in sources.items():
        file = folder / "json_files" / source / wavcaps.FILES[source]
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"num_captions_per_audio": 1, "data": entries}))
        place = folder / audio.format(source)
        place.mkdir(parents=True)
        for one in entries:
            stem = one["id"].removesuffix(".wav")
            if sounds is None or stem in sounds:
                (place / f"{stem}.flac").touch()


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(wavcaps, "CLIPS", {"AudioSet_SL": 2, "BBC_Sound_Effects": 1, "FreeSound": 3, "SoundBible": 1})


SOURCES = {
    "AudioSet_SL": [entry("Yabc.wav", audio="wav_path"), entry("Y06-g5jz-OGc.wav")],
    "BBC_Sound_Effects": [entry("NHU05093027", description="x", category="[]")],
    "FreeSound": [entry("180913", tags=["a"]), entry("17", "A dog barks."), entry("400", duration=3)],
    "SoundBible": [entry("2219", title="Airplane", author="x", href="2219.html")],
}


@pytest.mark.parametrize("audio", wavcaps.AUDIO_FOLDERS)
def test_all_sources_become_one_split(few, tmp_path, audio):
    published(tmp_path, SOURCES, audio)
    (tmp_path / audio.format("SoundBible") / "9999.flac").touch()  # without an entry
    dataset = wavcaps.read_wavcaps(tmp_path, {"17", "2219"})
    captions = {clip.file_name: clip.captions for clip in dataset["development"].clips}
    assert captions == {
        "AudioSet_SL/Yabc.flac": ("Rain falls.",),
        "BBC_Sound_Effects/NHU05093027.flac": ("Rain falls.",),
        "FreeSound/180913.flac": ("Rain falls.",),
        "FreeSound/400.flac": ("Rain falls.",),
        "SoundBible/2219.flac": ("Rain falls.",),
    }
    assert all(clip.path.is_file() for clip in dataset["development"].clips)
    assert dataset["development"].digest is not None
    broken, excluded = (str(finding).replace(f"{tmp_path}/json_files/", "") for finding in dataset.findings)
    assert broken.startswith("AudioSet_SL/as_final.json: note: skipped 1 clip whose published audio cannot be decoded")
    message = "note: skipped 1 clip that the list of excluded sounds contains (for example 17)"
    assert excluded == f"FreeSound/fsd_final.json: {message}"


def test_missing_audio_sources_and_other_numbers_are_warnings(tmp_path):
    published(tmp_path, {"FreeSound": SOURCES["FreeSound"]}, sounds=["400"])
    dataset = wavcaps.read_wavcaps(tmp_path)
    assert dataset["development"].file_names == ("FreeSound/400.flac",)
    remarks = "\n".join(map(str, dataset.findings))
    for source in ("AudioSet_SL", "BBC_Sound_Effects", "SoundBible"):
        assert f"{wavcaps.FILES[source]}: warning: no such file; its clips are not read" in remarks
    assert "fsd_final.json: warning: has 3 clips; the published file has 262300" in remarks
    assert "skipped 2 clips without an audio file in Audio/FreeSound/ (for example 17)" in remarks
    published(tmp_path / "silent", {"FreeSound": SOURCES["FreeSound"]}, sounds=[])
    with pytest.raises(Faulty, match="no clip has an audio file; put the audio into Audio/SOURCE/"):
        wavcaps.read_wavcaps(tmp_path / "silent")


def test_a_list_without_an_object_around_it_is_read(tmp_path):
    published(tmp_path, {"SoundBible": SOURCES["SoundBible"]})
    file = tmp_path / "json_files" / "SoundBible" / "sb_final.json"
    file.write_text(json.dumps(SOURCES["SoundBible"]))
    assert wavcaps.read_wavcaps(tmp_path)["development"].file_names == ("SoundBible/2219.flac",)


def test_all_faults_are_found_at_once(tmp_path):
    published(tmp_path, {"FreeSound": SOURCES["FreeSound"], "SoundBible": SOURCES["SoundBible"]})
    faulty = [
        entry("1"),
        entry("1"),
        entry("../2"),
        entry(3),
        entry("4", " "),
        entry("5", "a\nb"),
        entry("6", None, None),
        entry("7", duration=True),
        "8",
    ]
    (tmp_path / "json_files" / "FreeSound" / "fsd_final.json").write_text(json.dumps({"data": faulty}))
    (tmp_path / "json_files" / "SoundBible" / "sb_final.json").write_text("{")
    with pytest.raises(Faulty) as fault:
        wavcaps.read_wavcaps(tmp_path)
    found = {finding.column: finding.message.partition("; ")[0] for finding in fault.value.findings}
    assert found == {
        "data[1].id": "must be different from all others",
        "data[2].id": "must be a text that can be a file name",
        "data[3].id": "must be a text that can be a file name",
        "data[4].caption": "is blank",
        "data[5].caption": "must be one line without control characters",
        "data[6].caption": "must be a text",
        "data[6].duration": "must be a number of seconds",
        "data[7].duration": "must be a number of seconds",
        "data[8]": "must be an object with id, caption and duration",
        "": "must be JSON",
    }


@pytest.mark.parametrize("content", ['{"data": {}}', "3", '{"clips": []}'])
def test_a_file_without_clips_is_refused(tmp_path, content):
    published(tmp_path, {"SoundBible": SOURCES["SoundBible"]})
    (tmp_path / "json_files" / "SoundBible" / "sb_final.json").write_text(content)
    with pytest.raises(Faulty, match="must have a list of clips in `data`; found a"):
        wavcaps.read_wavcaps(tmp_path)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(
        BadRequest, match=r"must contain a JSON file of WavCaps, such as json_files/SoundBible/sb_final"
    ):
        wavcaps.read_wavcaps(tmp_path)
