"""What encoders and systems need from others, by name and by config file, and its download."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.cli import command
from evaluation.downloads import Download
from evaluation.findings import BadRequest
from systems import listing
from systems.__main__ import parser
from systems.downloads import NAMES, required
from systems.parts import encoders, words
from systems.parts.encoders import vggish, weights
from tests.file_server import serving

SWEEP = """\
system: systems.offtheshelf
grid:
  audio_encoder: [yamnet, coala]
  words: [random, glove.6B.300d.txt, vectors.npy]
seeds: 2
metric: cider_d
"""


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide a machine that has none of the files, and an empty working directory."""
    from huggingface_hub import constants

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DCASE_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def sources(downloads: list[Download]) -> list[str]:
    """Return the last part of each source."""
    return [download.asset.source.rpartition("/")[2] for download in downloads]


def test_every_name_needs_something():
    for name in NAMES:
        if name not in ("fense", "bert_score", "spice"):
            assert all(download.locate() is None and download.fetch for download in required([name])), name


@pytest.mark.parametrize(
    ("file", "needed"),
    [
        ("systems/atae/atae.yaml", ["Cnn14_mAP%3D0.431.pth", "distilroberta-base"]),
        ("systems/atae/ablation-4.yaml", ["Cnn14_mAP%3D0.431.pth", "distilroberta-base", "fsd50k"]),
        ("systems/caption_retrieval/nearest.yaml", ["vggish-10086976.pth"]),
        ("systems/guided_gpt2/whole.yaml", ["vggish-10086976.pth", "roberta-large", "gpt2"]),
        ("systems/clip_aac/system-1.yaml", []),
        ("systems/clip_aac/system-2.yaml", ["ESRNXFBSP.pt"]),
        ("systems/clip_aac/system-8.yaml", ["AudioCLIP-Full-Training.pt", "clip-vit-base-patch32"]),
        ("baseline/retriever.yaml", []),
        ("baseline/captioner-published.yaml", ["GoogleNews-vectors-negative300.bin"]),
    ],
)
def test_what_a_config_needs(file, needed):
    assert sources(required([file])) == needed


def test_every_system_of_the_kit_states_what_its_configs_need():
    configs = [str(config) for system in listing.systems() for config in system.configs]
    assert len(configs) > 30
    assert required(configs)


def test_a_sweep_needs_what_all_its_runs_need(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    needed = required([str(file), "yamnet"])
    yamnet, coala = "yamnet_audio_classifier_with_metadata.tflite", "audio_encoder_epoch_200.pt"
    assert sources(needed) == [yamnet, "glove.6B.zip", "vectors.npy", coala, "scaler_top_1000.pkl"]
    assert [download.fetch is None for download in needed] == [False, False, True, False, False]


def test_a_config_that_names_its_own_files(tmp_path):
    (tmp_path / "cnn14.pth").write_bytes(b"weights")
    file = tmp_path / "own.yaml"
    file.write_text(f"audio_weights: {tmp_path}/cnn14.pth\ntext_encoder: ./no_folder\n")
    audio, text = required([str(file)], system="systems.atae")
    assert audio.locate() == tmp_path / "cnn14.pth"
    assert text.locate() is audio.fetch is text.fetch is None
    assert "no such folder" in text.advice
    with pytest.raises(BadRequest, match="name its system with --system"):
        required([str(file)])


def test_training_data_are_listed_with_their_addresses(tmp_path, capsys):
    (tmp_path / "work" / "data" / "audiocaps").mkdir(parents=True)
    file = tmp_path / "own.yaml"
    file.write_text(
        "external: {audiocaps: data/audiocaps, rain: data/rain, wavcaps: data/WavCaps}\nexcluded: list.csv\n"
    )
    assert command(parser(), ["download", "--dry-run", "--system", "systems.atae", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    states = {line.partition("  ")[0]: line.rpartition("  ")[2] for line in lines[4:8]}
    assert states == {
        "AudioCaps (external.audiocaps)": "already here",
        "training data (external.rain)": "missing; by hand",
        "WavCaps (external.wavcaps)": "missing; by hand",
        "Freesound ids to exclude (excluded)": "missing; by hand",
    }
    rain, wavcaps, excluded = lines[8:]
    assert rain.endswith("data/rain: no such folder; put training data there, or change external.rain")
    assert "put WavCaps there as published (https://huggingface.co/datasets/cvssp/WavCaps), or change" in wavcaps
    assert excluded.endswith("put the list of Freesound ids to exclude there, or set excluded=null")


def test_a_published_list_of_excluded_sounds_has_an_address():
    *_, excluded = required(["systems/atae/dcase2025-baseline-wavcaps.yaml"])
    assert "/dcase2025_task6_excluded_freesound_ids.csv)" in excluded.advice


def test_a_hear_module_of_another_package():
    (here,), (absent,) = encoders.downloads("json.tool"), encoders.downloads("no_such_package.base")
    assert here.locate()
    assert absent.locate() is None
    assert "the Python package no_such_package is not installed" in absent.advice


@pytest.mark.parametrize(
    ("needs", "status", "message"),
    [
        (["cnn41"], 2, "unknown name 'cnn41'; did you mean 'cnn14'?"),
        (["none.yaml"], 2, "none.yaml: no such file"),
        (["owner/\x1b[31mmodel"], 2, "unknown name 'owner/\\x1b[31mmodel'"),
        (["systems/atae/published.yaml"], 2, "must be a config file in a system's folder"),
        (["--dry-run", "cnn14", "openai/clip-vit-base-patch32", "owner/model", "glove.6B.50d.txt"], 0, ""),
    ],
)
def test_the_command_line(needs, status, message, capsys):
    assert command(parser(), ["download", *needs]) == status
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.out.splitlines()) == (6 if status == 0 else 0)


def test_encoders_find_what_was_fetched(tmp_path, monkeypatch, capsys):
    content = b"weights" * 1000
    with serving(monkeypatch) as server:
        server.files["/vggish.pth"] = content
        asset = replace(vggish.ASSET, source=f"{server.url}/vggish.pth", checksum="sha256:10086976")
        monkeypatch.setattr(vggish, "ASSETS", (asset,))
        assert command(parser(), ["download", "vggish"]) == 2
        assert "sha256 must be 10086976, as published" in capsys.readouterr().err
        assert not (tmp_path / "cache" / "vggish.pth").exists()
        digest = hashlib.sha256(content).hexdigest()
        asset = replace(asset, checksum=f"sha256:{digest[:8]}")
        monkeypatch.setattr(vggish, "ASSETS", (asset,))
        assert command(parser(), ["download", "vggish"]) == 0
    assert weights.find(asset) == tmp_path / "cache" / "vggish.pth"


def test_published_vectors_are_found_in_the_cache_folder(tmp_path):
    with pytest.raises(BadRequest, match=r"no such file; fetch it with: dcase-systems download glove\.6B\.50d\.txt"):
        words.read_vectors("glove.6B.50d.txt")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "glove.6B.50d.txt").write_text("dog 1 2 3\nrain 3 2 1\n")
    assert words.read_vectors("glove.6B.50d.txt", size=3).index_to_key == ["dog", "rain"]
