"""The source files of a system, and the warning that they changed since a run was trained."""

import sys

import pytest
import yaml

from evaluation.findings import BadRequest
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


@pytest.mark.parametrize(
    ("text", "is_same"),
    [
        ('"""Another title."""\nSIZE=3  # the size\n', True),
        ("class A:\n    'A class.'\nSIZE = 3\n", False),
        ("SIZE = 3.0\n", False),
        ("SIZE = '3'\n", False),
        ("'a title'\n'a text that is not a docstring'\nSIZE = 3\n", False),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(text, is_same):
    assert (source.code_digest(text.encode()) == source.code_digest(b"SIZE = 3\n")) is is_same


def test_docstrings_of_functions_and_classes_do_not_count():
    texts = ["class A:\n    def f(self):\n        return 1\n"]
    texts.append("class A:\n    'A class.'\n    def f(self):\n        'Return 1.'\n        return (1)\n")
    assert len({source.code_digest(text.encode()) for text in texts}) == 1


def test_all_versions_of_python_give_this_digest():
    code = b"async def f(a, *b, c=1.5) -> str:\n    return f'{a!r:>{c}}' + 'x'\n"
    assert source.code_digest(code) == "a217845ba556e443"


def test_changes_are_named(package, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert source.source_changes(run) == []  # an older run has no digests
    source.write_digests(run, "mine")
    assert source.source_changes(run) == []
    (package / "layers.py").write_text("SIZE = 4\n")
    (package / "more.py").write_text("")
    (package / "__init__.py").write_text(f"from . import layers, more\n{LATE}")
    (finding,) = source.source_changes(run)
    assert finding.severity == "warning"
    assert "the code changed since this run was trained: mine, mine.layers, mine.more; the run" in finding.message
    with pytest.raises(BadRequest, match=r"found changes in mine, mine\.layers, mine\.more: undo them"):
        source.require_same_code(run)


def test_accepted_changes_are_recorded_in_each_stage(package, tmp_path):
    stages = [tmp_path / "run", tmp_path / "run" / "stage-1"]
    for stage in stages:
        source.write_digests(stage, "mine")
    (package / "layers.py").write_text("SIZE = 4\n")
    source.accept_changes(stages[0])
    (package / "layers.py").write_text("SIZE = 5\n")
    source.accept_changes(stages[0])
    source.accept_changes(stages[0])  # nothing changed since
    for stage in stages:
        source.require_same_code(stage)
        changes = source.read_sources(stage).code_changes
        assert [change.modules for change in changes] == [["mine.layers"], ["mine.layers"]]


def test_the_first_of_many_changes_are_named(package, tmp_path):
    digests = {f"mine.m{number}": "0" for number in range(1000)}
    (tmp_path / source.FILE).write_text(yaml.safe_dump({"system": "mine", "digests": digests}))
    (finding,) = source.source_changes(tmp_path)
    assert "mine.m1, mine.m10, " in finding.message
    assert len(finding.message) < 600
    assert ", and 98" in finding.message  # a thousand, and the package itself, but for twenty


EARLIER = "{mine: 0123456789abcdef}"  # an earlier version of the kit wrote digests of the bytes


@pytest.mark.parametrize("content", ["[", "{a: 1", "\x00", "{1: a, b: c}", "{mine: [1]}", EARLIER])
def test_a_damaged_or_earlier_file_is_named(package, tmp_path, content):
    (tmp_path / source.FILE).write_text(content)
    (finding,) = source.source_changes(tmp_path)
    assert finding.file == str(tmp_path / source.FILE)
    assert "so changes in the code are not noticed" in finding.message
    source.require_same_code(tmp_path)
    source.accept_changes(tmp_path)
    assert (tmp_path / source.FILE).read_text() == content


def test_a_source_that_is_no_python_has_a_digest(package):
    (package / "layers.py").write_text("def broken(:\n")
    assert "mine.layers" in source.digests("mine")
