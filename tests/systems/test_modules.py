"""A run may name the kit's modules, installed ones and those that the user trusts; no other is even imported."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from baseline import floors
from evaluation.cli import command
from evaluation.findings import BadRequest
from systems import modules
from systems.__main__ import parser
from systems.caption_retrieval import LIBRARY, Library

TRACE = "from pathlib import Path\n(Path(r'{}') / __name__).touch()\n"  # where a module ran
REFUSAL = (
    "a run may only name modules that ship with the kit or are installed, because importing a module runs its code"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder on the path, like the working directory, with modules that a download may have put there."""
    (tmp_path / "ran").mkdir()
    for name in (
        "runs/evil/payload.py",
        "runs/packed/__init__.py",
        "runs/packed/payload.py",
        "google/evil_payload.py",
        "shadowed/__init__.py",
        "spectra_of_mine.py",
    ):
        file = tmp_path / "work" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TRACE.format(tmp_path / "ran"))
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(str(tmp_path / "work"))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("runs", "spectra_of_mine", "shadowed", "google.evil", "my_system")):
            del sys.modules[name]


def ran(place):
    return {path.name for path in (place / "ran").iterdir()}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("runs.evil.payload", "work/runs/evil/payload.py"),
        ("runs.packed.payload", "work/runs/packed/__init__.py"),  # which would run first
        ("runs.packed.nothing", "work/runs/packed/__init__.py"),
        ("google.evil_payload", "work/google/evil_payload.py"),  # in a package that is spread over folders
        ("shadowed.payload", "work/shadowed/__init__.py"),
        ("spectra_of_mine", "work/spectra_of_mine.py"),
        ("os", "Python itself"),
        ("sys", "Python itself"),
        ("subprocess", "subprocess.py"),
        ("antigravity", "antigravity.py"),
        ("xml.etree", "xml/__init__.py"),
        ("tests.systems.tiny", "tests/systems/tiny.py"),
    ],
)
def test_other_modules_are_refused_before_they_are_imported(place, name, found):
    before = set(sys.modules)
    with pytest.raises(modules.UntrustedModule) as refusal:
        modules.must_be_trusted(name, "no such module")
    message = str(refusal.value)
    assert message.startswith(f"{REFUSAL}; it names {name}, which is in ")
    assert f"{found}: read that code, and if you trust it, add --trust {name} " in message
    assert set(sys.modules) == before
    assert not ran(place)


@pytest.mark.parametrize(
    "name",
    [
        "runs",
        "runs.evil",
        "runs.evil.nothing",
        "runs/evil/payload",
        "evaluation/../runs",
        "..runs",
        ".runs",
        "",
        "__main__",
        "nothing",
        "baseline.nothing",
    ],
)
def test_names_of_no_module_are_not_imported(place, name):
    with pytest.raises(BadRequest, match=r"^no such module$"):
        modules.must_be_trusted(name, "no such module")
    assert not ran(place)


@pytest.mark.parametrize("name", ["baseline.retriever", "systems.atae", "systems.parts.encoders.yamnet", "torch"])
def test_the_kit_s_modules_and_installed_ones_may_be_named(place, name):
    modules.must_be_trusted(name, "no such module")


def test_a_folder_without_init_is_not_part_of_the_kit(place, monkeypatch):
    monkeypatch.setattr(modules, "ROOT", place / "work")
    monkeypatch.setattr(modules, "SYSTEM_PACKAGES", ("shadowed",))
    (place / "work" / "shadowed" / "run").mkdir()
    (place / "work" / "shadowed" / "run" / "payload.py").write_text("")
    modules.must_be_trusted("shadowed", "no such module")
    with pytest.raises(modules.UntrustedModule, match=r"it names shadowed\.run\.payload"):
        modules.must_be_trusted("shadowed.run.payload", "no such module")


def test_trusted_modules_may_be_named_within_the_block_only(place):
    with modules.trusting(["runs.packed.payload"]):
        modules.must_be_trusted("runs.packed.payload", "no such module")
        with pytest.raises(modules.UntrustedModule):
            modules.must_be_trusted("runs.evil.payload", "no such module")
        with modules.trusting(["spectra_of_mine"]):
            modules.must_be_trusted("runs.packed.payload", "no such module")
            modules.must_be_trusted("spectra_of_mine", "no such module")
    with pytest.raises(modules.UntrustedModule):
        modules.must_be_trusted("runs.packed.payload", "no such module")


@pytest.mark.parametrize("top_level", ["my_system\n", None])
def test_an_editable_install_counts_as_installed(place, monkeypatch, top_level):
    site, project = place / "site-packages", place / "a project"
    record = site / "my_system-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: my-system\nVersion: 1.0\n")
    (record / "direct_url.json").write_text(json.dumps({"url": project.as_uri(), "dir_info": {"editable": True}}))
    if top_level:
        (record / "top_level.txt").write_text(top_level)
    (project / "my_system").mkdir(parents=True)
    (project / "my_system" / "__init__.py").write_text("")
    (project / "runs").mkdir()
    (project / "runs" / "payload.py").write_text("")
    monkeypatch.syspath_prepend(str(project))
    with pytest.raises(modules.UntrustedModule):
        modules.must_be_trusted("my_system", "no such module")
    monkeypatch.setattr(modules, "_site_folders", lambda: (site,))
    importlib.invalidate_caches()
    modules.must_be_trusted("my_system", "no such module")
    with pytest.raises(modules.UntrustedModule):  # which lies in the same project, but is no part of the distribution
        modules.must_be_trusted("runs.payload", "no such module")
    (record / "direct_url.json").write_text("[no JSON")
    with pytest.raises(modules.UntrustedModule):
        modules.must_be_trusted("my_system", "no such module")


def test_the_source_of_a_module_is_found_without_importing_it(place):
    assert modules.source("runs.packed.payload") == place / "work" / "runs" / "packed" / "payload.py"
    assert modules.source("runs.packed") == place / "work" / "runs" / "packed" / "__init__.py"
    for name in ("runs", "runs.nothing", "no.such", "sys", "../x", ""):
        assert modules.source(name) is None
    assert not ran(place)


# Commands ------------------------------------------------------------------------------------------------------------


def downloaded(place, system, config=None):
    """A run folder as somebody else may have made it."""
    run = place / "work" / "runs" / "downloaded"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(f"system: {system}\n")
    library = Library(np.zeros((1, 1, 12), np.float32), np.ones(1, np.int64), [["a dog barks"]])
    library.write(run / LIBRARY)
    state = {"state_dict": {}, "config": config or {}, "frozen": {}, "library": library.digest}
    torch.save(state, run / "checkpoints" / "best.ckpt")
    return run


HOSTILE = {
    "the system": ("runs.evil.payload", None),
    "an encoder of atae": ("systems.atae", {"audio_encoder": "runs.evil.payload"}),
    "an encoder of caption_retrieval": ("systems.caption_retrieval", {"audio_encoder": "runs.evil.payload"}),
}


@pytest.mark.parametrize(("system", "config"), HOSTILE.values(), ids=HOSTILE)
def test_predict_and_floors_do_not_run_the_code_of_a_run(place, clotho_like, capsys, system, config):
    run, data = downloaded(place, system, config), clotho_like()
    (run / "predictions").mkdir()
    (run / "predictions" / "evaluation.csv").touch()
    line = f"error: {run}/checkpoints/best.ckpt: {REFUSAL}; it names runs.evil.payload, which is in "
    for asked, of in (
        (["predict", str(run), "--data", str(data)], parser()),
        ([str(run), "--retriever", str(run), "--data", str(data)], floors.parser()),
    ):
        assert command(of, asked) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(line)
        assert "add --trust runs.evil.payload" in message
    assert not ran(place)


@pytest.mark.parametrize("system", ["systems.atae", "systems.caption_retrieval"])
def test_check_does_not_run_the_code_of_a_run(place, capsys, system):
    run = downloaded(place, system, {"audio_encoder": "runs.evil.payload"})
    assert command(parser(), ["check", system, "--run", str(run)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {REFUSAL}; it names runs.evil.payload")
    assert not ran(place)


@pytest.mark.parametrize(
    ("system", "config", "message"),
    [
        ("runs.evil.payload", None, "the module runs.evil.payload is not a system"),
        ("systems.atae", {"audio_encoder": "runs.evil.payload"}, "runs.evil.payload: must be a HEAR module"),
    ],
)
def test_modules_that_the_user_trusts_are_imported(place, clotho_like, capsys, system, config, message):
    run = downloaded(place, system, config)
    asked = ["predict", str(run), "--data", str(clotho_like()), "--trust", "runs.evil.payload"]
    assert command(parser(), asked) == 2
    assert message in capsys.readouterr().err
    assert ran(place) == {"runs.evil.payload"}


def test_modules_that_the_user_names_need_no_permission(place, clotho_like, capsys):
    data = ["--data", str(clotho_like()), "--run", str(place / "run")]
    assert command(parser(), ["train", "spectra_of_mine", *data]) == 2
    assert "the module spectra_of_mine is not a system" in capsys.readouterr().err
    named = ["--set", "audio_encoder=runs.evil.payload", "--accelerator", "cpu"]
    assert command(parser(), ["train", "systems.atae", *data, *named]) == 2
    assert "runs.evil.payload: must be a HEAR module" in capsys.readouterr().err
    assert ran(place) == {"spectra_of_mine", "runs.evil.payload"}
