"""A search returns the best clips, and embeds the clips of a collection only once."""

import importlib.util
import json
import re
import sys

import numpy as np
import pytest

from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from evaluation.metrics import retrieval
from systems import runs
from systems.__main__ import parser
from systems.search.collection import FAISS, Collection
from tests.systems.made import NAME, make_data, make_run, tone


def search(*words):
    return command(parser(), ["search", *map(str, words), "--trust", NAME])


def embedded(run, data, monkeypatch):
    """Make the collection of a run, and return the number of clips that were embedded."""
    sizes = []
    split = read_dataset(data)["evaluation"]
    with runs.loaded(run, [NAME]) as loaded:
        original = loaded.model.embed_audio

        def counting(audio, lengths):
            sizes.append(len(audio))
            return original(audio, lengths)

        monkeypatch.setattr(loaded.model, "embed_audio", counting, raising=False)
        Collection(loaded, split)
    sys.modules.pop(NAME)
    return sum(sizes)


def test_a_text_finds_the_clips_that_match(retriever, data, tmp_path, capsys):
    assert search(retriever, "something high", "--data", data, "-n", 3, "--json", tmp_path / "out.json") == 0
    printed = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", printed[0].strip()) == ["rank", "name", "score", "caption"]
    assert "<b>high</b>" in printed[2]
    assert len(printed) == 5
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["query"] == "something high"
    first, second, third = written["results"]
    assert {first["file_name"], second["file_name"]} == {" clip, 2.wav", " clip, 5.wav"}
    assert [first["rank"], third["rank"]] == [1, 3]
    assert third["score"] < second["score"] <= first["score"] < 1.0001


def test_scores_are_those_of_predict(retriever, data):
    split = read_dataset(data)["evaluation"]
    with runs.loaded(retriever, [NAME]) as run:
        matches = Collection(run, split).search_text("A low tone.", 6)
        predicted = runs.contract.similarity(run.model, split, device="cpu")
    row = dict(zip(predicted.file_names, predicted.scores[list(predicted.queries).index("A low tone.")], strict=True))
    for match in matches:
        np.testing.assert_allclose(match.score, row[match.file_name], rtol=1e-5)


def test_a_sound_finds_itself_and_its_like(retriever, data, tmp_path, capsys):
    assert search(retriever, "--sound", data / "evaluation" / " clip, 2.wav", "--data", data, "-n", 2) == 0
    printed = capsys.readouterr().out
    assert "clip, 2.wav" in printed
    assert "clip, 5.wav" in printed


def test_a_collection_without_captions_has_three_columns(retriever, data, tmp_path, capsys):
    (data / "evaluation").rename(data / "test")
    (data / "captions_evaluation.csv").unlink()
    assert search(retriever, "low", "--data", data, "--split", "test", "-n", 100) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["rank", "name", "score"]
    assert len(printed) == 8


def test_only_what_changed_is_embedded_again(retriever, data, module, monkeypatch, tmp_path):
    assert embedded(retriever, data, monkeypatch) == 6
    assert embedded(retriever, data, monkeypatch) == 0
    tone(data / "evaluation" / " clip, 0.wav", 700)
    assert embedded(retriever, data, monkeypatch) == 1
    assert embedded(retriever, data, monkeypatch) == 0
    make_run(tmp_path / "other", "Retriever", gain=2.0)
    (tmp_path / "other" / "checkpoints" / "best.ckpt").replace(retriever / "checkpoints" / "best.ckpt")
    assert embedded(retriever, data, monkeypatch) == 6
    module.write_text(module.read_text(encoding="utf-8") + "\nCHANGED = True\n", encoding="utf-8")
    assert embedded(retriever, data, monkeypatch) == 6
    (retriever / "metrics.csv").write_text("epoch\n")
    assert embedded(retriever, data, monkeypatch) == 0


@pytest.mark.parametrize("name", ["features.f32", "index.sqlite"])
@pytest.mark.parametrize("content", [b"", b"damaged" * 100])
def test_a_damaged_cache_is_computed_again(retriever, data, name, content, tmp_path, monkeypatch):
    assert embedded(retriever, data, monkeypatch) == 6
    (file,) = (tmp_path / "cache").glob(f"collection-*/{name}")
    file.write_bytes(content)
    assert embedded(retriever, data, monkeypatch) == 6
    split = read_dataset(data)["evaluation"]
    with runs.loaded(retriever, [NAME]) as run:
        best = Collection(run, split).search_text("high", 2)
    assert {match.file_name for match in best} == {" clip, 2.wav", " clip, 5.wav"}


def test_an_interrupted_computation_leaves_nothing_wrong(retriever, data, monkeypatch, tmp_path):
    split = read_dataset(data)["evaluation"]
    with runs.loaded(retriever, [NAME]) as run:
        original, calls = run.model.embed_audio, []

        def interrupted(audio, lengths):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return original(audio, lengths)

        run.model.embed_audio = interrupted
        with pytest.raises(KeyboardInterrupt):
            Collection(run, split)
        run.model.embed_audio = original
        resumed = Collection(run, split).search_text("high", 6)
        monkeypatch.setenv("DCASE_KIT_CACHE", str(tmp_path / "new"))
        assert Collection(run, split).search_text("high", 6) == resumed


def test_blocks_of_any_size_give_the_same_clips(retriever, data, monkeypatch):
    split = read_dataset(data)["evaluation"]
    with runs.loaded(retriever, [NAME]) as run:
        collection = Collection(run, split)
        whole = collection.search_text("low", 4)
        monkeypatch.setattr(retrieval, "TILE", (1, 2))
        assert collection.search_text("low", 4) == whole
        assert isinstance(collection.embeddings, np.memmap)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs faiss")
def test_faiss_finds_the_same_clips(retriever, data):
    split = read_dataset(data)["evaluation"]
    with runs.loaded(retriever, [NAME]) as run:
        exact = Collection(run, split).search_text("high", 100)
        approximate = Collection(run, split, FAISS).search_text("high", 100)
    assert [match.file_name for match in approximate[:2]] == [match.file_name for match in exact[:2]]
    assert len(approximate) == 6


def test_an_exported_run_is_embedded_once(retriever, data, monkeypatch, tmp_path):
    assert command(parser(), ["export", str(retriever), str(tmp_path / "exported"), "--trust", NAME]) == 0
    assert embedded(tmp_path / "exported", data, monkeypatch) == 6
    assert embedded(tmp_path / "exported", data, monkeypatch) == 0


def test_a_captioner_cannot_search(module, data, tmp_path, capsys):
    run = make_run(tmp_path / "captioner", "Captioner")
    assert search(run, "low", "--data", data) == 2
    expected = f"error: the model of {NAME} has no method embed_audio, which search needs; it can do captioning: give "
    assert capsys.readouterr().err == f"{expected}the run of a retriever\n"


def test_audio_files_that_cannot_be_used_are_all_listed(retriever, data, tmp_path, capsys):
    for number in (1, 4):
        (data / "evaluation" / f" clip, {number}.wav").write_text(f"not audio {number}")
    assert search(retriever, "low", "--data", data) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": error: does not decode")[0] for line in lines] == [
        f"{data}/evaluation/ clip, {number}.wav" for number in (1, 4)
    ]
    (tmp_path / "text.wav").write_text("not audio")
    make_data(tmp_path / "good")
    assert search(retriever, "--sound", tmp_path / "text.wav", "--data", tmp_path / "good") == 1
    assert capsys.readouterr().err.startswith(f"{tmp_path}/text.wav: error: does not decode")


def test_embeddings_must_be_finite(module, data, tmp_path, capsys):
    run = make_run(tmp_path / "run", "Retriever", gain=float("nan"))
    assert search(run, "low", "--data", data) == 1
    assert "clip, 0.wav: error: must have a finite embedding; found NaN or infinity" in capsys.readouterr().err
