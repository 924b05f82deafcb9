"""Caption files of other code bases become Clotho's layout, or the reason why they cannot is named."""

import csv
import json

import pytest

from evaluation import __main__
from evaluation.cli import command
from evaluation.data.convert import convert_captions
from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest, Faulty

CLIPS = {" a, b.wav": ("A dog.", "A dog, barking."), "c.wav": ("Rain.", 'A "roof".'), "été.wav": ("One.", "One.")}
LONG = [(name, caption) for name, captions in CLIPS.items() for caption in captions]
MIXED = [LONG[0], LONG[2], LONG[4], LONG[1], LONG[3], LONG[5]]  # the rows of a clip do not follow each other


def write_csv(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


COCO = {
    "info": {"year": 2024},
    "audios": [{"id": index, "file_name": name} for index, name in enumerate(CLIPS)],
    "annotations": [
        {"id": index, "audio_id": list(CLIPS).index(name), "caption": caption}
        for index, (name, caption) in enumerate(MIXED)
    ],
}
WIDE = ["fname", "caption_reference_02", "caption_reference_01"]
SOURCES = {
    "long.csv": lambda path: write_csv(path, ["file_name", "caption"], LONG),
    "mixed.csv": lambda path: write_csv(path, ["tag", "caption", "fname"], [("x", text, name) for name, text in MIXED]),
    "lists.csv": lambda path: write_csv(
        path, ["fname", "mrefs"], [(name, list(texts)) for name, texts in CLIPS.items()]
    ),
    "wide.csv": lambda path: write_csv(path, WIDE, [(name, *texts[::-1]) for name, texts in CLIPS.items()]),
    "long.jsonl": lambda path: write_lines(path, [{"fname": name, "caption": text} for name, text in LONG]),
    "clips.jsonl": lambda path: write_lines(path, [{"key": name, "captions": texts} for name, texts in CLIPS.items()]),
    "map.json": lambda path: path.write_text(json.dumps(CLIPS), encoding="utf-8"),
    "coco.json": lambda path: path.write_text(json.dumps(COCO), encoding="utf-8"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_split(tmp_path, name):
    SOURCES[name](tmp_path / name)
    converted = convert_captions(tmp_path / name, tmp_path / "data", "validation")
    assert (converted.path.name, converted.clips, converted.captions) == ("captions_validation.csv", 3, 2)
    split = read_dataset(tmp_path / "data", "validation", sound=False)["validation"]
    assert {clip.file_name: clip.captions for clip in split.clips} == CLIPS
    assert split.file_names == tuple(CLIPS)


def test_clothos_own_file_stays_as_it_is(shared, tmp_path):
    original = read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"]
    rows = [(clip.file_name, caption) for clip in original.clips for caption in clip.captions]
    write_csv(tmp_path / "long.csv", ["file_name", "caption"], rows)
    convert_captions(tmp_path / "long.csv", tmp_path / "data", "evaluation")
    converted = read_dataset(tmp_path / "data", "evaluation", sound=False)["evaluation"]
    assert converted.fingerprint == original.fingerprint


def test_other_columns_are_counted(tmp_path):
    SOURCES["mixed.csv"](tmp_path / "it.csv")
    notes = convert_captions(tmp_path / "it.csv", tmp_path / "data", "evaluation").notes
    assert [note.message for note in notes] == [
        "read as CSV, with the names in 'fname' and the captions in 'caption'",
        "1 other column not written, for example 'tag'",
    ]


def test_different_numbers_of_captions(tmp_path):
    write_csv(tmp_path / "it.csv", ["file_name", "caption"], [*LONG, ("c.wav", "A third.")])
    with pytest.raises(Faulty) as faulty:
        convert_captions(tmp_path / "it.csv", tmp_path / "data", "evaluation")
    assert str(faulty.value) == (
        f"{tmp_path}/it.csv: error: every clip must have the same number of captions in Clotho's layout; found 2 "
        "(' a, b.wav') to 3 ('c.wav'): --captions 2 keeps the first 2 of each clip"
    )
    assert not (tmp_path / "data").exists()
    converted = convert_captions(tmp_path / "it.csv", tmp_path / "data", "evaluation", captions=2)
    assert converted.notes[-1].message == "1 caption left out: only the first 2 of each clip are written"
    split = read_dataset(tmp_path / "data", "evaluation", sound=False)["evaluation"]
    assert {clip.file_name: clip.captions for clip in split.clips} == CLIPS
    with pytest.raises(Faulty) as faulty:
        convert_captions(tmp_path / "it.csv", tmp_path / "other", "evaluation", captions=3)
    assert [finding.message for finding in faulty.value.findings] == [
        "clip ' a, b.wav' must have 3 captions or more; found 2: give a smaller --captions",
        "clip 'été.wav' must have 3 captions or more; found 2: give a smaller --captions",
    ]


@pytest.mark.parametrize(
    ("rows", "messages"),
    [
        ([("x/a.wav", "A.")], [":2: error: the name must be a file name, not a path; found 'x/a.wav'"]),
        ([("a", "A."), ("b.wav", "B.")], [":2: error: the name must end in .wav, .flac, .ogg, .mp3; found 'a'"]),
        ([("a.wav", "A."), ("a.wav", " ")], [":3: error: the caption of 'a.wav' is blank; write a caption"]),
        ([("a.wav", "A\nB.")], ["the caption of 'a.wav' must be one line without control characters; found 'A\\nB.'"]),
        ([("a.wav", "[]")], [":2: error: clip 'a.wav' must have a caption; found none: add one"]),
        ([], [": error: has no captions; give one for each clip"]),
    ],
)
def test_what_the_layout_cannot_represent(tmp_path, rows, messages):
    write_csv(tmp_path / "it.csv", ["file_name", "caption"], rows)
    with pytest.raises(Faulty) as faulty:
        convert_captions(tmp_path / "it.csv", tmp_path / "data", "evaluation")
    assert len(faulty.value.findings) == len(messages)
    for finding, message in zip(faulty.value.findings, messages, strict=True):
        assert message in str(finding)
    assert not (tmp_path / "data").exists()


def test_nothing_is_overwritten(tmp_path):
    SOURCES["long.csv"](tmp_path / "it.csv")
    for name in ("captions_evaluation.csv", "clotho_captions_evaluation.csv"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(BadRequest, match=f"{name}: exists already; give another folder or split"):
            convert_captions(tmp_path / "it.csv", folder, "evaluation")
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("split", "captions", "message"),
    [
        ("eval", None, "unknown split 'eval'; did you mean 'evaluation'?"),
        ("evaluation", 0, "--captions must be 1 or more; found 0"),
    ],
)
def test_wrong_requests(tmp_path, split, captions, message):
    with pytest.raises(BadRequest) as wrong:
        convert_captions(tmp_path / "it.csv", tmp_path, split, captions=captions)
    assert message in str(wrong.value)


def test_the_command(tmp_path, capsys):
    SOURCES["coco.json"](tmp_path / "it.json")
    given = ["data", "convert", str(tmp_path / "it.json"), "--out", str(tmp_path / "data")]
    assert command(__main__.parser(), given) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/data/captions_evaluation.csv: 3 clips with 2 captions each\n"
    assert err.splitlines()[0] == (
        f"{tmp_path}/it.json: note: read as COCO annotations, with the names in 'audio_id' and the captions in "
        "'caption'"
    )
    assert command(__main__.parser(), given) == 2


def test_a_data_folder_in_long_form_names_the_command(tmp_path):
    SOURCES["long.csv"](tmp_path / "captions_evaluation.csv")
    with pytest.raises(Faulty) as faulty:
        read_dataset(tmp_path, "evaluation", sound=False)
    (finding,) = faulty.value.findings
    assert finding.message == (
        "the header must be file_name,caption_1; found file_name,caption, with a row for each caption; convert the "
        "file with `evaluation data convert`"
    )
