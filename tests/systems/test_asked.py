"""Data folders of every kind are recognised, and missing files and audio are named."""

import pytest

from evaluation.data.split_files import CHOICE, MOMENTS
from evaluation.findings import BadRequest, Faulty
from systems.asked import CLIPS, kind_of_folder, read_data
from tests.systems.asked_data import make_questions, make_recordings
from tests.systems.made import make_data


def test_the_kind_of_a_folder(tmp_path):
    assert kind_of_folder(make_questions(tmp_path / "questions")) == CHOICE
    assert kind_of_folder(make_recordings(tmp_path / "recordings")) == MOMENTS
    assert kind_of_folder(make_data(tmp_path / "clips")) == CLIPS
    assert kind_of_folder(tmp_path) == CLIPS
    (tmp_path / "questions" / "captions_test.csv").touch()
    assert kind_of_folder(tmp_path / "questions") == CLIPS
    assert read_data(tmp_path / "questions", "evaluation", kind=CHOICE)["evaluation"].kind == CHOICE


def test_the_digest_changes_with_the_audio(tmp_path):
    folder = make_recordings(tmp_path / "data")
    before = read_data(folder, "validation")["validation"]
    assert list(before.paths) == ["a long one"]
    digest = before.digest
    with (folder / "validation" / "a long one.flac").open("ab") as file:
        file.write(b"more")
    assert read_data(folder, "validation")["validation"].digest != digest


def test_missing_files_are_named(tmp_path):
    folder = make_questions(tmp_path / "data", ["validation", "evaluation"])
    with pytest.raises(BadRequest, match=r"questions_development.jsonl: no such file; the splits in this folder: val"):
        read_data(folder, "development", "validation")
    with pytest.raises(BadRequest, match="unknown split 'valid'"):
        read_data(folder, "valid")
    for name in ("high.wav", "low, 1.wav"):
        (folder / "validation" / name).unlink()
    with pytest.raises(Faulty) as raised:
        read_data(folder, "validation")
    assert [finding.message.split("; ")[0] for finding in raised.value.findings] == [
        "no audio file of 'validation/high.wav'",
        "no audio file of 'validation/low, 1.wav'",
    ]


def test_the_form_of_2025_is_read(tmp_path):
    folder = tmp_path / "questions_evaluation"
    folder.mkdir()
    (folder / "a.wav").touch()
    text = '{"audio_url": "x/a.wav", "question": "What?", "choice": ["b", "c"], "answer": "b"}'
    (folder / "q.json").write_text(text)
    split = read_data(tmp_path, "evaluation")["evaluation"]
    assert split.paths == {"a.wav": folder / "a.wav"}
