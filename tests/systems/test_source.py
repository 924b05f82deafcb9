"""The source files of a system, and the warning that they changed since a run was trained."""

import sys

import pytest

from systems import source

LATE = "def train():\n    from systems.parts import losses\n"  # imported within a function


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A system of two modules that uses a part of the kit, and a module that it does not import."""
    folder = tmp_path / "modules" / "mine"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from . import layers\n\n\ndef train():\n    from systems.parts import losses\n"
    )
    (folder / "layers.py").write_text("SIZE = 3\n")
    (folder / "notes.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield folder
    sys.modules.pop("mine", None)


def test_sources_are_those_of_the_package_and_of_the_kit(package):
    digests = source.digests("mine")
    assert {"mine", "mine.layers", "systems.parts.losses"} <= digests.keys()
    assert "mine.notes" not in digests
    assert "torch" not in digests
    assert "mine" not in sys.modules


def test_the_baseline_s_sources():
    digests = source.digests("baseline.retriever")
    assert {"baseline.retriever", "baseline.crnn", "systems.training", "evaluation.data.audio"} <= digests.keys()
    assert "baseline.captioner" not in digests


def test_changes_are_named(package, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert source.source_changes(run, "mine") == []  # an older run has no digests
    source.write_digests(run, "mine")
    assert source.source_changes(run, "mine") == []
    (package / "layers.py").write_text("SIZE = 4\n")
    (package / "more.py").write_text("")
    (package / "__init__.py").write_text(f"from . import layers, more\n{LATE}")
    (finding,) = source.source_changes(run, "mine")
    assert finding.severity == "warning"
    assert "the code changed since this run was trained: mine, mine.layers, mine.more; the run" in finding.message
    source.write_digests(run, "mine")  # the digests of the code that the weights come from stay
    assert source.source_changes(run, "mine") == [finding]


def test_the_first_of_many_changes_are_named(package, tmp_path):
    (tmp_path / source.FILE).write_text("".join(f"mine.m{number}: '0'\n" for number in range(1000)))
    (finding,) = source.source_changes(tmp_path, "mine")
    assert "mine.m1, mine.m10, " in finding.message
    assert len(finding.message) < 600
    assert ", and 98" in finding.message  # a thousand, and the package itself, but for twenty


@pytest.mark.parametrize("content", ["[", "{a: 1", "\x00", "{1: a, b: c}", "{mine: [1]}"])
def test_a_damaged_file_is_named(package, tmp_path, content):
    (tmp_path / source.FILE).write_text(content)
    (finding,) = source.source_changes(tmp_path, "mine")
    assert finding.file == str(tmp_path / source.FILE)
    assert "changes in the code since the training are not noticed" in finding.message


def test_a_source_that_is_no_python_has_a_digest(package):
    (package / "layers.py").write_text("def broken(:\n")
    assert "mine.layers" in source.digests("mine")
