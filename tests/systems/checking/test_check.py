"""A check imports a system, takes all steps, and reports all findings in one run."""

import importlib
import sys

import pytest

from evaluation.cli import command
from evaluation.findings import BadRequest
from systems.__main__ import parser
from systems.checking.check import check_system
from systems.checking.material import make_data
from tests.systems.checking.conftest import AUDIO, BOTH, CAPTIONER, PLAIN, RETRIEVER, TEXT, broken_rules


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (RETRIEVER, "retriever"),
        (CAPTIONER, "captioner"),
        (BOTH, "captioner and retriever"),
        (BOTH.replace(TEXT, "raise evaluation.findings.BadRequest('no text head')"), "captioner"),
    ],
)
def test_systems_that_keep_the_contract_pass(team, capsys, source, kind):
    assert command(parser(), ["check", team(source)]) == 0
    assert capsys.readouterr().out == f"team: a {kind} for audio at 8000 Hz; nothing to fix\n"


CASES = {
    "no train": ("def train", "def fit", "train: must be a function, train(config, dataset, run); found None"),
    "no load_model": ("def load_model", "def load", "load_model: must be a function, load_model(checkpoint); found"),
    "no import": ("import torch", "import torch, no_such_package", "import: must be importable; found ModuleNotFound"),
    "syntax": ("import torch", "import torch =", "import: must be importable; found SyntaxError (invalid syntax"),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_each_broken_rule_is_one_finding(team, old, new, expected):
    assert RETRIEVER.count(old) == 1 or old == "import torch"
    (finding,) = broken_rules(team(RETRIEVER.replace(old, new, 1) + PLAIN))
    assert finding.startswith(expected)


def test_all_broken_rules_are_reported_at_once_with_their_line(team, capsys, tmp_path):
    source = RETRIEVER.replace(', extra="forbid"', "").replace("return model.eval()", "return model")
    source = (
        source.replace(TEXT, "raise ValueError('no texts')").replace("= 8000", "= 16000").replace(AUDIO, "return audio")
    )
    assert command(parser(), ["check", team(source)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["Config", "load_model", "embed_audio", "embed_text"]
    assert all(line.startswith("team: ") for line in lines)
    line = source.splitlines().index("        raise ValueError('no texts')") + 1
    assert f"found ValueError (no texts) at {tmp_path}/team.py:{line} for 'A dog barks" in lines[3]


def test_a_trained_run_is_checked_without_training(team, tmp_path):
    name, folder = team(RETRIEVER), tmp_path / "run"
    make_data(tmp_path / "data")
    assert command(parser(), ["train", name, "--data", str(tmp_path / "data"), "--run", str(folder)]) == 0
    del sys.modules[name]
    team(
        RETRIEVER.replace("    run.start()", "    raise ValueError").replace(AUDIO, "return values.log() @ self.weight")
    )
    (finding,) = broken_rules(name, run_folder=folder)
    assert finding.startswith("embed_audio: must return finite values; found infinity for 1 s of silence")
    with pytest.raises(BadRequest, match=r"run: must be a run of baseline\.retriever; found a run of team: check team"):
        check_system("baseline.retriever", folder)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no_such_module"], "error: no module 'no_such_module'; give a system's import name, such as baseline"),
        (["team", "--run", "nowhere"], "error: nowhere/checkpoints/best.ckpt: no such file; give the folder of a"),
        (["team", "--set", "gian=2"], "--set: gian: error: unknown key 'gian'; did you mean 'gain'?"),
        (["team", "--set", "gain"], "error: --set must be key=value; found 'gain'"),
        (["team", "--config", "nowhere.yaml"], "error: nowhere.yaml: no such file"),
        (["team", "--run", "a", "--set", "gain=2"], "error: --run cannot be combined with --config or --set, because"),
        (["team", "--run", "a", "--config", "b"], "error: --run cannot be combined with --config or --set, because"),
    ],
)
def test_a_wrong_request_gets_one_clear_line(team, capsys, arguments, expected):
    team(RETRIEVER)
    assert command(parser(), ["check", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(expected)


@pytest.mark.parametrize("name", ["team", "team.of_several.files"])
def test_an_installed_module_is_given_by_its_name(team, tmp_path, name):
    (tmp_path / "team-1.0.dist-info").mkdir()
    (tmp_path / "team-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: team\nVersion: 1.0\n")
    if name == "team":
        (tmp_path / "team").mkdir()
        (tmp_path / "team" / "model.py").write_text(RETRIEVER)
        (tmp_path / "team" / "__init__.py").write_text("from team.model import Config, load_model, train\n")
        importlib.invalidate_caches()
    else:
        (tmp_path / "team" / "of_several").mkdir(parents=True)
        team(RETRIEVER, name)
    assert broken_rules(name) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("baseline.retriever", ["words_epochs=1"]),
        ("baseline.captioner", ["words_epochs=1", "head_size=16", "max_words=8"]),
    ],
)
def test_the_baselines_keep_the_contract(name, settings):
    assert broken_rules(name, settings=settings) == []
