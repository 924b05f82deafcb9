"""FSD50K's published metadata."""

import json

import pytest

from evaluation.findings import BadRequest, Faulty
from systems.caption_retrieval import fsd50k


def published(folder, entries, sounds=None):
    (folder / "FSD50K.metadata").mkdir()
    (folder / "FSD50K.dev_audio").mkdir()
    (folder / "FSD50K.metadata" / "dev_clips_info_FSD50K.json").write_text(json.dumps(entries), encoding="utf-8")
    for number in entries if sounds is None else sounds:
        (folder / "FSD50K.dev_audio" / f"{number}.wav").write_bytes(b"")


def entry(description, *tags):
    licence = "http://creativecommons.org/licenses/by/3.0/"
    return {"title": "a.wav", "description": description, "tags": list(tags), "license": licence, "uploader": "someone"}


def test_descriptions_and_tags_become_captions(tmp_path):
    link = 'Recorded with <a href="http://example.org" rel="nofollow">a Zoom</a> &amp; care.\r\n<br/><b>Enjoy</b>!'
    entries = {
        "64760": entry("electric guitar", "electric", "guitar"),
        "21914": entry(link, "field-recording"),
        "1": entry("x " * 400, "long"),
        "2": entry(" <p></p> ", "only", "tags"),
        "3": entry("only words"),
        "4": entry(""),
    }
    published(tmp_path, entries)
    split = fsd50k.read_fsd50k(tmp_path)
    captions = {clip.file_name: clip.captions for clip in split.clips}
    assert captions == {
        "64760.wav": ("electric guitar", "electric guitar"),
        "21914.wav": ("Recorded with a Zoom & care. Enjoy!", "field-recording"),
        "1.wav": (("x " * 250).rstrip(), "long"),
        "2.wav": ("only tags",),
        "3.wav": ("only words",),
    }
    assert split.clips[0].path == tmp_path / "FSD50K.dev_audio" / "64760.wav"
    assert split.name == "development"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b and c > d", "a < b and c > d"),
        ("1 &lt; 2 &eacute;", "1 < 2 é"),
        ("<i>a</i>b<BR>c", "ab c"),
        ("<style>p{}</style>rain<script>1 < 2</script>", "rain"),
        ("two\nlines\u00a0here", "two lines here"),
    ],
)
def test_html_is_removed(text, expected):
    assert fsd50k.plain(text) == expected


def test_faults_are_reported(tmp_path):
    with pytest.raises(BadRequest, match="no such file; give the folder with FSD50K"):
        fsd50k.read_fsd50k(tmp_path)
    published(tmp_path, {"1": entry("a dog", "dog"), "2": {"description": "a cat", "tags": "cat"}}, sounds=["2"])
    with pytest.raises(Faulty) as fault:
        fsd50k.read_fsd50k(tmp_path)
    messages = [f"{finding.column}: {finding.message}" for finding in fault.value.findings]
    assert messages == [
        "1: no file '1.wav' in FSD50K.dev_audio/; fetch it too",
        "2: must have a description (a text) and tags (a list of texts); fetch the file again",
    ]
    path = tmp_path / "FSD50K.metadata" / "dev_clips_info_FSD50K.json"
    for content, message in (("[1]", "must map each clip's number"), ("{", "must be JSON")):
        path.write_text(content)
        with pytest.raises(BadRequest, match=message):
            fsd50k.read_fsd50k(tmp_path)
