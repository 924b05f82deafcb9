"""Exported folders: where they come from, damaged and hostile ones, and the commands that take them."""

import json
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.cli import command
from submission.__main__ import parser as submitting
from systems.sharing import folders
from tests.systems.sharing.conftest import systems

TEAM_FILE = Path(__file__).parents[3] / "baseline" / "team.yaml"


def change_json(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


NAME = "weights.text.weight"
DAMAGES = {
    "a missing tensor": (
        lambda folder: change_tensors(folder, lambda tensors: tensors.pop(NAME)),
        "model.safetensors: must contain the tensors that model.json names; weights.text.weight is missing",
    ),
    "an extra tensor": (
        lambda folder: change_tensors(folder, lambda tensors: tensors.update(x=torch.ones(1))),
        "model.safetensors: must contain only the tensors that model.json names; found x",
    ),
    "a wrong shape": (
        lambda folder: change_tensors(folder, lambda tensors: tensors.update({NAME: torch.ones(1, 2)})),
        "model.safetensors: must contain weights of the model",
    ),
    "cut off": (truncate, "model.safetensors: cannot be read as safetensors ("),
    "no tensors": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: no such file"),
    "no JSON": (lambda folder: (folder / "model.json").write_text("no"), "model.json: must be JSON ("),
    "no contents": (
        lambda folder: (folder / "config.json").write_text("no"),
        "config.json: must be written by `systems export`; found Invalid JSON",
    ),
    "a model of another kind": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
        "config.json: must be written by `systems export`; found format: Field required",
    ),
    "a newer format": (
        lambda folder: change_json(folder / "config.json", format=2),
        "config.json: must be written by `systems export`; found format: Input should be 1",
    ),
    "no checkpoint": (
        lambda folder: change_json(folder / "config.json", checkpoints={}),
        "checkpoints/best.ckpt: no such file",
    ),
    "a missing file": (
        lambda folder: change_json(folder / "config.json", files=["words.bin"]),
        "words.bin: no such file; export the run again",
    ),
    "no config.yaml": (lambda folder: (folder / "config.yaml").unlink(), "config.yaml: no such file"),
    "an untrusted system": (
        lambda folder: (folder / "config.yaml").write_text("system: tests.systems.tiny"),
        "model.safetensors: a run may only name modules that ship with the kit or are installed, because importing",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_is_refused_in_a_line(exported, data, capsys, damage, message):
    damage(exported)
    capsys.readouterr()
    assert systems("predict", exported, "--data", data) == 2
    *warnings, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {exported}/{message}")
    assert all("the code changed since this run was trained" in warning for warning in warnings)
    assert not (exported / "predictions").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "c:x", ".", "", "a//b", "a\0b", "*"])
@pytest.mark.parametrize("place", ["a checkpoint", "its files", "a file"])
def test_no_path_leads_out_of_the_folder(exported, data, capsys, name, place):
    changes = {
        "a checkpoint": {"checkpoints": {name: "model"}},
        "its files": {"checkpoints": {"checkpoints/best.ckpt": name}},
        "a file": {"files": [name]},
    }
    change_json(exported / "config.json", **changes[place])
    capsys.readouterr()
    assert systems("predict", exported, "--data", data) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {exported}/config.json: must be written by `systems export`; found ")
    assert "must be a path in the folder" in line


class Touch:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["checkpoints/best.ckpt", "words.bin", "config.yaml"])
def test_no_pickle_of_the_folder_is_read(exported, data, tmp_path, capsys, name):
    (exported / name).parent.mkdir(exist_ok=True)
    content = pickle.dumps(Touch(tmp_path / "ran"))
    (exported / name).write_bytes(content)
    change_json(exported / "config.json", files=[name], checkpoints={"checkpoints/inference.ckpt": "model"})
    capsys.readouterr()
    assert systems("predict", exported, "--data", data) in (1, 2)
    assert f"{exported}/{name}" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_in_the_folder_is_not_read(exported, data):
    (exported / "checkpoints").mkdir()
    (exported / "checkpoints" / "best.ckpt").write_bytes(b"not read")
    assert systems("predict", exported, "--data", data) == 0


# Commands -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(exported, tmp_path, monkeypatch):
    """A hub that has the exported folder as `ann/spectra`; the list of the patterns that were downloaded."""
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")
    asked = []

    def snapshot_download(name, *, cache_dir, allow_patterns):
        if name != "ann/spectra":
            raise OSError("404 Client Error")
        asked.append(allow_patterns)
        snapshot = tmp_path / "snapshots" / str(len(asked))
        for pattern in allow_patterns:
            for file in exported.glob(pattern):
                (snapshot / file.relative_to(exported)).parent.mkdir(parents=True, exist_ok=True)
                (snapshot / file.relative_to(exported)).symlink_to(file)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def package(run, data):
    words = ["package", run, "--task", "dcase2022-6b", "--team", TEAM_FILE, "--data", data, "--split", "evaluation"]
    return command(submitting(), [str(word) for word in words])


def test_a_name_on_the_hub_predicts_into_runs(hub, exported, runs, data, capsys):
    assert package("ann/spectra", data) == 2
    message = "ann/spectra: no such folder, and runs/ann--spectra has no predictions of the system with this name"
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")
    before = sorted(exported.rglob("*"))
    assert systems("predict", "ann/spectra", "--data", data) == 0
    assert hub[0] == ["config.json"]
    assert "model.safetensors" in hub[1]
    assert "README.md" not in hub[1]
    assert sorted(exported.rglob("*")) == before
    assert capsys.readouterr().out.startswith("runs/ann--spectra/predictions/evaluation.npz: ")
    prediction = runs("systems.examples.spectra") / "predictions" / "evaluation.npz"
    assert Path("runs/ann--spectra/predictions/evaluation.npz").read_bytes() == prediction.read_bytes()
    assert systems("predict", "ann/spectra", "--data", data, "--split", "validation") == 0
    assert package("ann/spectra", data) == 0
    assert Path("runs/ann--spectra/submission/Baseline_DCASE_task6b.zip").is_file()


def test_a_name_on_the_hub_is_checked(hub, capsys):
    assert systems("check", "systems.examples.spectra", "--run", "ann/spectra") == 0
    assert "systems.examples.spectra: a retriever for audio at 44100 Hz; nothing to fix" in capsys.readouterr().out


def test_other_repositories_are_not_downloaded(hub, exported, data, capsys):
    (exported / "config.json").write_text('{"model_type": "bert"}')
    assert systems("predict", "ann/spectra", "--data", data) == 2
    assert "config.json: must be written by `systems export`; found format: Field required" in capsys.readouterr().err
    assert hub == [["config.json"]]
    (exported / "config.json").unlink()
    (exported.parent / "snapshots" / "2").mkdir()
    assert systems("predict", "ann/spectra", "--data", data) == 2
    assert "config.json: no such file; give the folder of a run, or a folder or hub name" in capsys.readouterr().err
    assert systems("predict", "ann/nothing", "--data", data) == 2
    message = "ann/nothing: no such folder, and cannot be downloaded from the Hugging Face hub (404 Client Error); give"
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_folder_is_not_looked_up_on_the_hub(hub, data, capsys):
    Path("runs").mkdir()
    assert systems("predict", "runs/nothing", "--data", data) == 2
    assert capsys.readouterr().err.startswith("error: runs/nothing/config.yaml: no such file")
    assert hub == []


def test_an_exported_folder_is_checked_and_packaged(exported, data, capsys):
    assert systems("check", "systems.examples.spectra", "--run", exported) == 0
    assert systems("predict", exported, "--data", data) == 0
    assert package(exported, data) == 0
    assert systems("check", "baseline.retriever", "--run", exported) == 2
    message = f"{exported}: must be a run of baseline.retriever; found a run of systems.examples.spectra"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["run", "exported"])
def test_predictions_can_be_written_elsewhere(runs, exported, data, tmp_path, capsys, kind):
    run = runs("systems.examples.spectra")
    source, out = (run if kind == "run" else exported), tmp_path / "out"
    before = sorted(source.rglob("*"))
    assert systems("predict", source, "--data", data, "--out", out) == 0
    assert sorted(source.rglob("*")) == before
    names = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    assert names == ["config.yaml", "predictions/evaluation.npz", "system.yaml"]
    assert systems("predict", source, "--data", data, "--out", out, "--split", "validation") == 0
    assert package(out, data) == 0

    shutil.rmtree(out / "predictions")
    capsys.readouterr()
    assert package(out, data) == 1
    assert f"make it: dcase-systems predict RUN --out {out} --data {data}" in capsys.readouterr().err
    (out / "config.yaml").write_text("system: other")
    assert systems("predict", source, "--data", data, "--out", out) == 2
    message = "must be a new or empty folder, or have predictions of the same run; found other files: give another"
    assert capsys.readouterr().err.startswith(f"error: {out}: {message}")
    assert not (out / "predictions").exists()


def test_predictions_are_not_written_into_the_hub_s_cache(exported, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert systems("predict", exported, "--data", data) == 2
    assert f"error: {exported}: must not be in the hub's cache; give a folder" in capsys.readouterr().err


def test_the_size_of_the_contents_is_bounded(exported, data, monkeypatch, capsys):
    monkeypatch.setattr(folders, "CONTENTS_BYTES", 10)
    assert systems("predict", exported, "--data", data) == 2
    assert "config.json: must be written by `systems export`; found Invalid JSON" in capsys.readouterr().err
