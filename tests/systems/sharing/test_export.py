"""An exported run predicts the same bytes as the run, and the folder has only what others need."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest
from systems.downloads import required
from systems.sharing import export
from tests.systems.sharing.conftest import SETTINGS, systems
from tests.systems.tiny import HEAR, text_model

FILES = {
    "systems.examples.spectra": [],
    "baseline.retriever": ["words.bin"],
    "baseline.captioner": ["vocabulary.json"],
}


@pytest.mark.parametrize("system", SETTINGS)
def test_an_exported_run_predicts_the_same_bytes(runs, data, tmp_path, capsys, system):
    run = runs(system)
    for folder in ("one/shared", "two/shared"):
        assert systems("export", run, tmp_path / folder) == 0
    names = sorted(file.name for file in (tmp_path / "one" / "shared").iterdir())
    described = ["README.md", "config.json", "config.yaml", "sources.yaml", "system.yaml"]
    assert names == sorted([*described, "model.json", "model.safetensors", *FILES[system]])
    for name in names:
        one, two = (tmp_path / folder / "shared" / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name
        assert one.stat().st_mode & 0o444 == 0o444, "safetensors writes files that others may not read"
    state = json.loads((tmp_path / "one" / "shared" / "model.json").read_text())
    assert not {"optimizer_states", "callbacks", "loops", "lr_schedulers"} & state.keys()

    capsys.readouterr()
    shared = (tmp_path / "one" / "shared").rename(tmp_path / "elsewhere")
    assert systems("predict", shared, "--data", data) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{shared}/predictions/evaluation.")
    assert err == ""
    (prediction,) = (run / "predictions").iterdir()
    assert (shared / "predictions" / prediction.name).read_bytes() == prediction.read_bytes()


def test_the_target_must_be_new_or_empty(runs, tmp_path, capsys):
    run = runs("systems.examples.spectra")
    (tmp_path / "empty").mkdir()
    assert systems("export", run, tmp_path / "empty") == 0
    before = {file: file.read_bytes() for file in (tmp_path / "empty").iterdir()}
    capsys.readouterr()
    assert systems("export", run, tmp_path / "empty") == 2
    message = "must be a new or empty folder; found files: give another folder"
    assert capsys.readouterr().err == f"error: {tmp_path}/empty: {message}\n"
    assert before == {file: file.read_bytes() for file in (tmp_path / "empty").iterdir()}
    assert systems("export", tmp_path / "empty", tmp_path / "again") == 2
    message = "must be a run folder; found an exported run: copy the folder"
    assert capsys.readouterr().err == f"error: {tmp_path}/empty: {message}\n"


def test_a_failed_export_leaves_nothing(runs, tmp_path, capsys):
    run = shutil.copytree(runs("systems.examples.spectra"), tmp_path / "run")
    saved = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    torch.save({**saved, "seen": {1, 2}}, run / "checkpoints" / "best.ckpt")
    assert systems("export", run, tmp_path / "shared") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {run}/checkpoints/best.ckpt: seen must be a tensor, a number, a text, None, or a ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    (run / "checkpoints" / "best.ckpt").unlink()
    assert systems("export", run, tmp_path / "shared") == 2
    assert "best.ckpt: no such file, because no epoch of the training has ended" in capsys.readouterr().err


TEAM = """
import json
import pickle
import torch
from pathlib import Path
from pydantic import BaseModel

class Config(BaseModel, extra="forbid"):
    path: str = ""

def train(config, dataset, run):
    run.start()
    run.best.parent.mkdir(exist_ok=True)
    WRITE
    run.describe(torch.nn.Linear(1, 1), {})

class Model(torch.nn.Module):
    sample_rate = 8000
    def __init__(self, gain):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))
    def embed_audio(self, audio, lengths):
        return audio.square().sum(1, keepdim=True) * self.gain
    def embed_text(self, texts):
        return torch.tensor([[float(len(text))] for text in texts])

def load_model(checkpoint):
    READ
    return Model(gain).eval()
"""
READS = {
    "a text file as the checkpoint": ("run.best.write_text('2')", "gain = float(checkpoint.read_text())", None),
    "a file in a subfolder": (
        "torch.save({}, run.best); (run.folder / 'x').mkdir(); (run.folder / 'x' / 'gain.json').write_text('[2]')",
        "gain = float(json.loads((checkpoint.parents[1] / 'x' / 'gain.json').read_text())[0])",
        None,
    ),
    "another checkpoint": (
        "torch.save({}, run.best); torch.save([2.0], run.folder / 'gain.pt')",
        "[gain] = torch.load(checkpoint.parents[1] / 'gain.pt')",
        None,
    ),
    "a pickle": (
        "torch.save({}, run.best); (run.folder / 'gain.pkl').write_bytes(pickle.dumps(Path('2')))",
        "gain = float(str(pickle.loads((checkpoint.parents[1] / 'gain.pkl').read_bytes())))",
        "gain.pkl: must be a file that `torch.load(…, weights_only=True)` reads, because nothing is shared as a pickle",
    ),
    "a file that Python does not open": (
        "torch.save({}, run.best); (run.folder / 'gain').write_text('xx')",
        "gain = float((checkpoint.parents[1] / 'gain').stat().st_size)",
        "run: load_model of sharing_team must load the model from the files that Python opens in the run folder; it ",
    ),
    "an odd name": (
        "torch.save({}, run.best); (run.folder / 'a:b').write_text('2')",
        "gain = float((checkpoint.parents[1] / 'a:b').read_text())",
        "a:b: the name must have printable letters only, and none of",
    ),
    "random weights": (
        "torch.save({}, run.best)",
        "gain = float(torch.rand(()))",
        "must give the same model every time it is loaded; found different weights after the export",
    ),
}


@pytest.mark.parametrize(("write", "read", "message"), READS.values(), ids=READS)
def test_a_team_s_files_are_exported_without_its_help(data, tmp_path, monkeypatch, capsys, write, read, message):
    (tmp_path / "sharing_team.py").write_text(TEAM.replace("WRITE", write).replace("READ", read))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sharing_team", raising=False)
    run, shared, trust = tmp_path / "run", tmp_path / "shared", ("--trust", "sharing_team")
    assert systems("train", "sharing_team", "--data", data, "--run", run) == 0
    (run / "notes.txt").write_text("private")
    assert systems("export", run, shared) == 2
    assert "a run may only name modules that ship with the kit or are installed" in capsys.readouterr().err
    if message:
        assert systems("export", run, shared, *trust) == 2
        assert message in capsys.readouterr().err
        assert not shared.exists()
        return
    assert systems("export", run, shared, *trust) == 0
    assert not (shared / "notes.txt").exists()
    for folder in (run, shared):
        assert systems("predict", folder, "--data", data, *trust) == 0
    one, two = (folder / "predictions" / "evaluation.npz" for folder in (run, shared))
    assert one.read_bytes() == two.read_bytes()
    monkeypatch.delitem(sys.modules, "sharing_team")


@pytest.fixture
def run_with_files(data, tmp_path, monkeypatch):
    """A run of ATAE with a text model in a folder, and the folder."""
    (tmp_path / "tiny_hear.py").write_text(HEAR)
    monkeypatch.syspath_prepend(str(tmp_path))
    texts = text_model(tmp_path / "bert")
    settings = ["epochs=1", "audio_encoder=tiny_hear", f"text_encoder={texts}", "size=4", "audio_weights=/x/y"]
    given = [word for setting in settings for word in ("--set", setting)]
    place = ["--data", data, "--run", tmp_path / "run", "--cache", tmp_path / "cache", "--accelerator", "cpu"]
    assert systems("train", "systems.atae", *place, *given) == 0
    return tmp_path / "run", Path(texts)


def test_files_that_the_config_names_are_exported(run_with_files, data, tmp_path, capsys, monkeypatch):
    """The copied files are found wherever the folder is, and a file that is too large is reported instead."""
    run, texts = run_with_files
    trust = ("--trust", "tiny_hear")
    capsys.readouterr()
    assert systems("export", run, tmp_path / "shared", *trust) == 0
    (private,) = capsys.readouterr().err.splitlines()
    assert private.endswith("warning: the config names paths of this machine, which are exported: /x/y")
    assert (tmp_path / "shared" / "copied" / "0" / "bert" / "config.json").is_file()
    for name in ("config.yaml", "model.json"):
        assert str(texts) not in (tmp_path / "shared" / name).read_text()
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "- the frozen part `audio_encoder`, which is `tiny_hear`\n" in card
    assert "- the frozen part `text_encoder`, which is `copied/0/bert`\n" in card

    with monkeypatch.context() as small:
        small.setattr(export, "COPIED_BYTES", 1000)
        assert systems("export", run, tmp_path / "linked", *trust) == 0
    needed = capsys.readouterr().err.splitlines()[0]
    assert f"warning: the model needs {texts}, which is not exported, because it has" in needed
    assert not (tmp_path / "linked" / "copied").exists()

    assert systems("predict", run, "--data", data, *trust) == 0
    texts.rename(tmp_path / "gone")
    elsewhere = (tmp_path / "shared").rename(tmp_path / "elsewhere")
    assert systems("predict", elsewhere, "--data", data, *trust) == 0
    one, two = (folder / "predictions" / "evaluation.npz" for folder in (run, elsewhere))
    assert one.read_bytes() == two.read_bytes()
    assert required([str(elsewhere / "config.yaml")])[1].locate() == elsewhere / "copied" / "0" / "bert"

    contents = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps({**contents, "copied": ["copied/../../gone"]}))
    capsys.readouterr()
    assert systems("predict", elsewhere, "--data", data, *trust) == 2
    assert "copied.0: Value error, must be a path in the folder" in capsys.readouterr().err


def test_a_run_without_system_yaml_can_be_exported(runs, data, tmp_path, capsys):
    run = shutil.copytree(runs("systems.examples.spectra"), tmp_path / "run")
    (run / "system.yaml").unlink()
    assert systems("export", run, tmp_path / "shared") == 0
    assert systems("predict", tmp_path / "shared", "--data", data) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(run), str(tmp_path / "shared")]
    assert all("training has not ended (there is no system.yaml)" in line for line in lines)


def test_changed_source_code_is_reported_once(runs, data, tmp_path, capsys):
    run = shutil.copytree(runs("systems.examples.spectra"), tmp_path / "run")
    sources = yaml.safe_load((run / "sources.yaml").read_text())
    sources["digests"]["systems.training"] = "0" * 16
    (run / "sources.yaml").write_text(yaml.safe_dump(sources))
    assert systems("export", run, tmp_path / "shared") == 0
    assert systems("predict", tmp_path / "shared", "--data", data) == 0
    lines = capsys.readouterr().err.splitlines()
    expected = "warning: the code changed since this run was trained: systems.training; "
    assert [line.partition(expected)[0] for line in lines] == [f"{run}: ", f"{tmp_path}/shared: "]


def test_other_data_than_those_of_the_training_are_refused(runs, clotho_like, tmp_path):
    with pytest.raises(BadRequest, match=r"data: must have the development split that .* was trained on"):
        export.export(runs("systems.examples.spectra"), tmp_path / "shared", dataset=read_dataset(clotho_like()))
