"""The page of an invented kind of answers needs only an entry in the table of kinds, a module, a script and a text."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest

from evaluation import __main__, kinds
from evaluation.data.dataset import Clip
from evaluation.inspection.content import Content, Request, System, check_content, read_systems
from evaluation.metrics import choice
from tests.browser import opened, started

SCRIPT = """
start({
  head: "Clip", texts: data.clips, columns: () => [{key: "dog", title: "Dog", value: item => data.dogs[item]}],
  search: "Search", searched: () => [], shows: {}, filters: [], detail: item => make("p", {}, data.dogs[item]),
});
"""


@dataclass(frozen=True)
class Dogs(Content):
    """Clips that have a dog or not."""

    task = "Is there a dog"
    answers = "dogs"
    noun = "verdicts"
    lists = "Nothing"

    templates: Path
    dogs: dict[str, str]
    systems: Any

    split_name = "test"

    @property
    def clips(self):
        return [Clip(name, (), self.templates / name) for name in self.dogs]

    def charts(self, metric, values, seconds):
        return []

    def tables(self, metric, values):
        return []

    def data(self):
        return {"dogs": list(self.dogs.values())}


def read_page(request: Request):
    dogs = json.loads(request.truth.read_text())

    def read(path):
        given = json.loads(path.read_text())
        options = dict.fromkeys(dogs, ("yes", "no"))
        return given, choice.evaluate(dogs, given, options=options, metrics=["accuracy"]), []

    given, findings = read_systems(request.predictions, read)
    systems = [System(name, score) for name, (_, score) in given.items()]
    content = Dogs(request.truth.parent / "dogs", dogs, systems)
    check_content(content)
    return content, findings


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the ground truth, a prediction, and the script and the text of the invented kind."""
    module = ModuleType("invented_dogs")
    module.read_page = read_page
    monkeypatch.setitem(sys.modules, "invented_dogs", module)
    entry = kinds.Kind("a dog detector", {}, None, None, "", None, lambda path: path.suffix == ".dogs", "invented_dogs")
    table = MappingProxyType({**kinds.KINDS, "dogs": entry})
    monkeypatch.setattr(kinds, "KINDS", table)
    monkeypatch.setattr(__main__, "KINDS", table)
    (tmp_path / "truth.json").write_text(json.dumps({"a.wav": "yes", "b.wav": "no"}))
    (tmp_path / "one.dogs").write_text(json.dumps({"a.wav": "yes", "b.wav": "yes"}))
    (tmp_path / "dogs.js").write_text(SCRIPT)
    (tmp_path / "dogs.html.j2").write_text("<p>A page about {{ content.answers }}.</p>")
    return tmp_path


def test_a_new_kind_is_shown(folder, capsys):
    arguments = [str(folder / "one.dogs"), "--truth", str(folder / "truth.json"), "--out", str(folder / "page")]
    assert __main__.command(__main__.parser(), ["inspect", *arguments]) == 0
    assert "2 questions, no sounds" in capsys.readouterr().out
    with started() as browser, opened(browser, folder / "page" / "index.html") as page:
        assert page.title() == "one: dogs"
        assert page.locator("#table > tbody > .row").all_inner_texts() == ["b.wav\t0.000\tno", "a.wav\t1.000\tyes"]
        assert "A page about dogs." in page.locator("#about").inner_text()
        assert page.get_by_role("status").inner_text() == "2 of 2 verdicts"


def test_options_of_other_kinds_are_refused(folder, capsys):
    arguments = [str(folder / "one.dogs"), "--truth", str(folder / "truth.json"), "--out", str(folder / "page")]
    assert __main__.command(__main__.parser(), ["inspect", *arguments, "--match", "stem"]) == 2
    assert "--match is for predictions of captioning systems; leave it out" in capsys.readouterr().err
