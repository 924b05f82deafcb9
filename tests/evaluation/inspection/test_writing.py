import re

import pytest

from evaluation.__main__ import command, parser
from evaluation.findings import BadRequest, Faulty
from evaluation.inspection import retrieval, writing
from tests.evaluation.inspection.small_pages import split_of, write_data, write_predictions, write_similarity


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    data = write_data(tmp_path_factory.mktemp("data") / "my data")
    write_similarity(data / "runs" / "one" / "predictions" / "evaluation.npz", data)
    write_similarity(data / "runs" / "two" / "predictions" / "evaluation.npz", data, own=0)
    write_predictions(data / "captions.csv", data, "A dog.")
    return data


def inspect(data, *arguments):
    return command(parser(), ["inspect", "--truth", str(data), *map(str, arguments)])


def one(data):
    return data / "runs" / "one" / "predictions" / "evaluation.npz"


def test_a_page_with_links_to_the_sounds(data, tmp_path, capsys):
    assert inspect(data, one(data), data / "runs/two/predictions/evaluation.npz", "--out", tmp_path / "page") == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(
        r".*/page/index.html: 0.\d MB; 8 queries, sounds of 4 of 4 clips; open it in a browser\n", printed
    )
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert '"systems":["one","two"]' in text
    assert "my%20data/evaluation/rain%20%26%20wind%20%231.wav" in text
    assert len(list((tmp_path / "page" / "spectrograms").iterdir())) == 4
    assert not (tmp_path / "page" / "sounds").exists()


def test_an_earlier_page_is_replaced(data, tmp_path):
    out = tmp_path / "page"
    assert inspect(data, one(data), "--out", out) == 0
    assert inspect(data, one(data), "--out", out, "--copy-audio") == 0
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "sounds", "spectrograms"]
    assert (out / "sounds" / "0001.ogg").read_bytes()[:4] == b"OggS"
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_a_single_file(data, tmp_path, capsys):
    out = tmp_path / "page.html"
    for _ in range(2):
        assert inspect(data, one(data), "--out", out, "--single-file") == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("data:audio/ogg;base64,") == text.count("data:image/webp;base64,") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_sounds_that_are_too_large_for_one_file(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(writing, "LARGEST", 8000)
    assert inspect(data, one(data), "--out", tmp_path / "page.html", "--single-file") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.search("the first [234] of 4 clips already have more: leave out --single-file", message)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_never_replaced(data, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "index.html").write_text("mine")
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "page").mkdir()
    assert inspect(data, one(data), "--out", tmp_path / "page") == 0  # an empty folder
    (tmp_path / "page" / "notes.txt").write_text("mine")
    for out, single in (("notes", False), ("page", False), ("mine.html", False), ("mine.html", True)):
        arguments = ["--single-file"] if single else []
        assert inspect(data, one(data), "--out", tmp_path / out, *arguments) == 2
        assert "give another" in capsys.readouterr().err
    assert (tmp_path / "notes" / "index.html").read_text() == (tmp_path / "mine.html").read_text() == "mine"
    with pytest.raises(BadRequest, match=r"must be a file with the extension \.html"):
        writing.check_target(tmp_path / "page", single_file=True)


def test_a_failure_keeps_the_earlier_page(data, tmp_path, monkeypatch):
    out = tmp_path / "page"
    assert inspect(data, one(data), "--out", out) == 0
    before = (out / "index.html").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.page, "html", fail)
    assert inspect(data, one(data), "--out", out) == 2
    assert (out / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_a_page_without_sounds(tmp_path, capsys):
    data = write_data(tmp_path / "data", sound=False)
    path = write_similarity(tmp_path / "s.npz", data)
    assert inspect(data, path, "--out", tmp_path / "page") == 0
    assert "no sounds, because the data folder has no audio files" in capsys.readouterr().out
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "this page has no sounds and no spectrograms" in text
    assert list((tmp_path / "page" / "spectrograms").iterdir()) == []


def test_findings_of_all_predictions_are_reported(data, tmp_path):
    split = split_of(data)
    paths = []
    for name in ("a", "b"):
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text("caption,file_name_1\nA dog barks.,dog.wav\n")
    with pytest.raises(Faulty) as raised:
        retrieval.read_queries(paths, split, split.truth, None)
    assert [finding.file for finding in raised.value.findings].count(str(paths[1])) == 7
    assert len(raised.value.findings) == 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npz"], "nowhere.npz: no such file; give a prediction"),
        (["nowhere.csv"], "nowhere.csv: no such file"),
        (["DATA/captions.csv", "--relevance", "captions"], "--relevance is for predictions of retrieval systems"),
        (["ONE", "--match", "stem"], "--match is for predictions of captioning systems"),
        (["ONE", "--single-file", "--copy-audio"], "must be a file with the extension .html"),
        (["ONE", "ONE"], "each prediction must be given once"),
        (["ONE", "--metrics", "medR"], "--metrics must have a metric with a value for each of the queries; found medR"),
        (["ONE", "--metrics", "mAP"], "unknown metric 'mAP'"),
    ],
)
def test_wrong_requests(data, tmp_path, capsys, arguments, message):
    words = [word.replace("DATA", str(data)).replace("ONE", str(one(data))) for word in arguments]
    assert inspect(data, *words, "--out", tmp_path / "page") == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
