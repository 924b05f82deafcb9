"""Extra captions: strict reading, and that scoring does not depend on them."""

import numpy as np
import pytest
import soundfile

from evaluation.data.check import check_dataset
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION, read_dataset
from evaluation.data.extra_captions import ExtraCaption, file_name
from evaluation.findings import Faulty

CAPTIONS = "file_name,caption_1,caption_2\na.wav,A dog barks.,A hound is barking.\nb.wav,Rain falls.,It is raining.\n"
EXTRA = file_name(DEVELOPMENT)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A data folder with three splits of the same two clips."""
    folder = tmp_path_factory.mktemp("extra")
    rng = np.random.default_rng(0)
    for split in (DEVELOPMENT, VALIDATION, EVALUATION):
        (folder / split).mkdir()
        (folder / f"captions_{split}.csv").write_text(CAPTIONS)
        for name in ("a.wav", "b.wav"):
            soundfile.write(folder / split / name, rng.uniform(-0.5, 0.5, 441), 44100)
    return folder


@pytest.fixture
def data(sounds):
    """The data folder, from which the files of extra captions are removed after the test."""
    yield sounds
    for path in sounds.glob("*.extra.csv"):
        path.unlink()


def text(*rows: str, header: str = "file_name,caption,source") -> str:
    return "\n".join([header, *rows, ""])


def test_extra_captions_are_read_verbatim_and_counted_by_source(data):
    (data / EXTRA).write_text(
        "\ufeff" + text("b.wav, Drops fall.,gpt", 'a.wav,"Woof, woof",back translation', "b.wav,Wet,gpt")
    )
    first, second = read_dataset(data)[DEVELOPMENT].clips
    assert first.extra == (ExtraCaption("Woof, woof", "back translation"),)
    assert [extra.caption for extra in second.extra] == [" Drops fall.", "Wet"]
    table, findings = check_dataset(data)
    assert findings == []
    assert [line.split() for line in table.splitlines()[-2:]] == [
        ["development", "back", "translation", "1", "1"],
        ["development", "gpt", "2", "1"],
    ]


FAULTS = {
    "empty": ("", "1: error: the header must be file_name,caption,source, with a row for each caption below; found "),
    "no source": (
        text("a.wav,Woof.", header="file_name,caption"),
        "1: error: the header must be file_name,caption,source, with a row for each caption below; found file_name,",
    ),
    "header alone": (text(), "1: error: has a header but no captions; add a row for each caption, or remove the file"),
    "unknown clip": (text("c.wav,A cat.,x"), "2: file_name: error: unknown clip 'c.wav'"),
    "other letter": (text("A.wav,Woof.,x"), "2: file_name: error: unknown clip 'A.wav'; there is 'a.wav', and names"),
    "a path": (text("../a.wav,Woof.,x"), "2: file_name: error: must be a file name, not a path; found '../a.wav'"),
    "blank caption": (text("a.wav, ,x"), "2: caption: error: is blank; write a caption"),
    "blank source": (text("a.wav,Woof.,"), "2: source: error: is blank; write a source"),
    "two lines": (text('a.wav,"Woof.\nWoof.",x'), "2: caption: error: must be one line without control characters; "),
    "the clip's own": (
        text("b.wav,It is raining.,x"),
        "2: caption: error: must differ from the captions of the clip; found its caption_2: remove the row",
    ),
    "twice": (
        text("a.wav,Woof.,x", "b.wav,Woof.,x", "a.wav,Woof.,y"),
        "4: caption: error: is already on line 2 for the clip; keep one of them",
    ),
    "unquoted comma": (
        text("a.wav,Woof, woof.,x"),
        "2: error: has 4 columns where the header has 3; quote a cell that holds a comma",
    ),
    "Latin-1": (text("a.wav,caf\xe9,x").encode("latin-1"), "2: caption: error: must be UTF-8; byte 0xE9 is not"),
    "UTF-16": (text("a.wav,Woof.,x").encode("utf-16"), " error: must be UTF-8; this is UTF-16: save it as UTF-8"),
    "unterminated quote": (text('a.wav,"Woof.,x'), "2: error: is not valid CSV (unexpected end of data); quote a cell"),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_finding(data, content, message):
    (data / EXTRA).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Faulty) as faulty:
        read_dataset(data, DEVELOPMENT)
    (finding,) = faulty.value.findings
    assert str(finding).startswith(f"{data}/{EXTRA}:{message}")
    assert read_dataset(data, DEVELOPMENT, sound=False)[DEVELOPMENT].clips[0].extra == ()


def test_all_faults_are_reported_at_once(data):
    (data / EXTRA).write_text(text("c.wav,,", "a.wav,A dog barks.,x", "b.wav,Wet,x", "b.wav,Wet,x", "d.wav,Cat,x"))
    with pytest.raises(Faulty) as faulty:
        read_dataset(data, DEVELOPMENT)
    places = [(finding.line, finding.column) for finding in sorted(faulty.value.findings)]
    expected = [(2, "caption"), (2, "file_name"), (2, "source"), (3, "caption"), (5, "caption"), (6, "file_name")]
    assert places == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (file_name(EVALUATION), "is not used: training draws extra captions only for development clips"),
        (file_name("test"), "is not read: the folder has no captions of the split test; add captions_test.csv, or"),
        (file_name("dev"), "is not read: unknown split 'dev'; did you mean 'development'?"),
        (f"clotho_{EXTRA}", f"is not read: the name must be {EXTRA}; rename the file"),
    ],
)
def test_a_file_that_training_does_not_use_is_a_warning(data, name, message):
    (data / name).write_text(text("a.wav,Woof.,x"))
    (finding,) = read_dataset(data).findings
    assert str(finding).startswith(f"{name}: warning: {message}")
