"""The run folder of a re-ranked run, and wrong requests."""

import shutil
import sys

import pytest
import yaml

from evaluation import predictions
from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from systems.__main__ import parser
from systems.reranking.candidates import Candidates, candidates_file
from tests.systems.made import NAME, make_data, make_module, make_run

COMPLEXITY = {"total_parameters": 10, "trainable_parameters": 4}
DESCRIPTION = {"audio_modelling": "CRNN", "optimizer": "Adam", "ensemble": False}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data, a retriever that recognises tones, and a captioner's run with candidates."""
    make_module(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = make_data(tmp_path / "data")
    shutil.copytree(data / "evaluation", data / "validation")
    shutil.copy(data / "captions_evaluation.csv", data / "captions_validation.csv")
    for name, method in (("retriever", "PANNs"), ("captioner", "CRNN")):
        run = make_run(tmp_path / name, "Retriever")
        system = {"description": DESCRIPTION | {"audio_modelling": method}, "complexity": COMPLEXITY}
        (run / "system.yaml").write_text(yaml.safe_dump(system))
    config = {"system": NAME, "decoding": {"decoding": "sample", "candidates": 3}}
    (tmp_path / "captioner" / "config.yaml").write_text(yaml.safe_dump(config))
    names = read_dataset(data, "evaluation", sound=False)["evaluation"].file_names
    scored = [[("a high tone", -2.0), ("a low tone", -4.0), ("a high tone", -2.0)]] * len(names)
    for split in ("validation", "evaluation"):
        Candidates.of(names[::-1], scored).write(candidates_file(tmp_path / "captioner", split))
    yield tmp_path
    sys.modules.pop(NAME, None)


def rerank(place, *words, run="captioner"):
    asked = ["rerank", str(place / run), "--run", str(place / "out"), "--cache", str(place / "cache")]
    return command(parser(), [*asked, *map(str, words)])


def with_retriever(place):
    return ["--retriever", place / "retriever", "--data", place / "data", "--trust", NAME]


def test_the_retriever_corrects_the_captioner(place, capsys):
    assert rerank(place, *with_retriever(place)) == 0
    output = capsys.readouterr().out
    assert "fitted" in output
    split = read_dataset(place / "data", "evaluation", sound=False)["evaluation"]
    found = predictions.read_captions(place / "out" / "predictions" / "evaluation.csv")
    caption_of = dict(zip(found.file_names, found.captions, strict=True))
    for clip in split.clips:
        is_high = "high" in clip.captions[0]
        assert caption_of[clip.file_name] == ("a high tone" if is_high else "a low tone")
    config = yaml.safe_load((place / "out" / "config.yaml").read_text())["config"]
    assert config["weight"] > 0
    assert config["decoding"] == {"decoding": "sample", "candidates": 3}
    system = yaml.safe_load((place / "out" / "system.yaml").read_text())
    assert system["description"] == {"audio_modelling": "CRNN, PANNs", "optimizer": "Adam", "ensemble": False}
    assert system["complexity"] == {"total_parameters": 20, "trainable_parameters": 8}
    assert system["parts"] == {"captioner": str(place / "captioner"), "retriever": str(place / "retriever")}
    header = candidates_file(place / "out", "evaluation").read_text().splitlines()[0]
    assert header == "file_name,rank,caption,log_probability,similarity"


def test_without_weight_the_log_probability_decides(place):
    assert rerank(place, *with_retriever(place), "--weight", 0) == 0
    found = predictions.read_captions(place / "out" / "predictions" / "evaluation.csv")
    assert set(found.captions) == {"a high tone"}


def test_the_candidates_can_decide_by_themselves(place):
    assert rerank(place) == 0
    found = predictions.read_captions(place / "out" / "predictions" / "evaluation.csv")
    assert set(found.captions) == {"a high tone"}  # two of the three candidates
    system = yaml.safe_load((place / "out" / "system.yaml").read_text())
    assert system["parts"] == {"captioner": str(place / "captioner")}


def test_wrong_requests(place, capsys):
    given = with_retriever(place)
    tries = {
        ("--retriever", place / "retriever"): "--retriever must be given with --data; found no --data",
        ("--weight", "2"): "--weight must be a number from 0 to 1, or search; found '2'",
        ("--weight", "0.5"): "--weight must be given with --retriever",
        (*given[:1], place / "no", *given[2:]): "no/config.yaml: no such file; give the folder of a run",
    }
    for words, message in tries.items():
        assert rerank(place, *words) == 2, words
        assert message in capsys.readouterr().err
    assert rerank(place, *given, run="retriever") == 2
    assert "must have candidates (candidates/SPLIT.csv); found none: predict with" in capsys.readouterr().err
    candidates_file(place / "captioner", "validation").unlink()
    assert rerank(place, *given) == 2
    assert "to fit the weight, there must be candidates for validation; found none" in capsys.readouterr().err
    assert not (place / "out").exists()
