"""The folder of a Space has the runs, the pinned packages and instructions, and its app starts the demo."""

import json
import runpy
import sys
import types
from importlib.util import find_spec

import pytest
import yaml
from packaging.requirements import Requirement

from evaluation.cli import command
from systems.__main__ import parser
from systems.demo import space
from tests.systems.made import make_data

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="the extra `demo` is not installed")


def demo(*words):
    return command(parser(), ["demo", *map(str, words)])


@pytest.fixture
def exported(tmp_path):
    """An exported run, as far as a Space needs it, and a file that does not belong to it."""
    folder = tmp_path / "my: run"
    folder.mkdir()
    contents = {"format": 1, "checkpoints": {"checkpoints/best.ckpt": "model"}, "files": ["words.bin"]}
    (folder / "config.json").write_text(json.dumps(contents))
    (folder / "config.yaml").write_text("system: baseline.retriever")
    for name in ("model.safetensors", "model.json", "words.bin", "README.md", "private.wav"):
        (folder / name).write_text(name)
    return folder


def test_a_space_has_all_files_and_no_audio(exported, tmp_path, capsys):
    assert demo(exported, "--space", tmp_path / "space") == 0
    assert "follow the steps in" in capsys.readouterr().out
    files = {str(file.relative_to(tmp_path / "space")) for file in (tmp_path / "space").rglob("*") if file.is_file()}
    names = ("config.json", "config.yaml", "model.safetensors", "model.json", "words.bin", "README.md")
    assert files == {"app.py", "README.md", "requirements.txt", *(f"runs/1-my: run/{name}" for name in names)}
    readme = (tmp_path / "space" / "README.md").read_text()
    header = yaml.safe_load(readme.split("---")[1])
    assert header["sdk"] == "gradio"
    assert header["title"] == "my: run"
    requirements = (tmp_path / "space" / "requirements.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in requirements[1:]]
    assert {requirement.name: str(requirement.specifier) for requirement in pinned}["gradio"] == (
        f"=={header['sdk_version']}"
    )
    assert requirements[0] == "dcase-kit[train,reports,demo] @ git+ADDRESS-OF-THE-KIT"
    assert "in place of `ADDRESS-OF-THE-KIT`" in readme


def test_the_address_of_the_kit_comes_from_its_metadata(monkeypatch):
    fields = types.SimpleNamespace(get_all=lambda key: ["Homepage, https://a.org", "Repository, https://b.org/kit.git"])
    monkeypatch.setattr(space.metadata, "metadata", lambda name: fields)
    assert space._address_of_the_kit() == "https://b.org/kit.git"


@pytest.mark.parametrize("has_data", [True, False])
def test_the_app_serves_the_runs_and_the_clips(exported, has_data, tmp_path, monkeypatch):
    assert demo(exported, exported, "--space", tmp_path / "space") == 0
    if has_data:
        make_data(tmp_path / "space" / "data")
    calls = []
    page = types.ModuleType("systems.demo.page")
    page.serve = lambda *values, **named: calls.append((values, named))
    monkeypatch.setitem(sys.modules, "systems.demo.page", page)
    runpy.run_path(str(tmp_path / "space" / "app.py"))
    [((folders, split), named)] = calls
    assert [folder.name for folder in folders] == ["1-my: run", "2-my: run"]
    assert (len(split.clips) if split else None) == (6 if has_data else None)
    assert named == {"address": "0.0.0.0", "port": 7860}  # noqa: S104, only a Space runs the app


def test_wrong_requests_leave_nothing(exported, tmp_path, capsys):
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.txt").touch()
    assert demo(exported, "--space", tmp_path / "space") == 2
    assert "must be a new or empty folder; found files: give another folder" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("system: baseline.retriever")
    assert demo(tmp_path / "run", "--space", tmp_path / "other") == 2
    assert f"run `dcase-systems export {tmp_path / 'run'} DIR`, and give DIR" in capsys.readouterr().err
    (exported / "model.json").unlink()
    assert demo(exported, "--space", tmp_path / "other") == 2
    assert "model.json: no such file; export the run again" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert demo(exported, exported, exported) == 2
    assert "demo takes one or 2 runs; found 3: give fewer" in capsys.readouterr().err
