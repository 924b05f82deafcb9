"""The check finds models whose answers or windows break the contract."""

import pytest
import torch

from evaluation.cli import command
from systems.__main__ import parser
from systems.checking.asked import AskedProbe
from systems.checking.report import Report
from tests.systems.made import make_module, make_run


class Answerer:
    sample_rate = 8000

    def answer(self, audio, lengths, questions, options):
        return [of_question[0] for of_question in options]


class Finder:
    sample_rate = 8000

    def moments(self, audio, queries):
        return [torch.tensor([[0, len(audio) / 8000, 1.0]])] * len(queries)


def rules(model, method):
    report = Report("team")
    AskedProbe(model, torch.device("cpu"), report, method).check()
    return [finding.message for finding in report.findings]


BROKEN = {
    "letters": ("answer", lambda a, n, q, o: ["A"] * len(q), "must return a list with one of the options"),
    "too few": ("answer", lambda a, n, q, o: [o[0][0]][:0], "must return a list with one of the options"),
    "padding": ("answer", lambda a, n, q, o: [of[a.shape[1] % 3] for of in o], "the same output with zeros after"),
    "no list": ("moments", lambda a, q: torch.zeros(len(q), 1, 3), "must return a list of windows for each query"),
    "no window": ("moments", lambda a, q: [torch.zeros(0, 3)] * len(q), "must return (n, 3) values for each query"),
    "outside": (
        "moments",
        lambda a, q: [torch.tensor([[0, 31.0, 1]])] * len(q),
        "must return windows in the recording",
    ),
    "empty": ("moments", lambda a, q: [torch.tensor([[0, 0, 1.0]])] * len(q), "must return windows that end after"),
    "random": ("moments", lambda a, q: [torch.tensor([[0, 0.1, torch.rand(1)]])] * len(q), "the second time"),
    "others": ("moments", lambda a, q: [torch.tensor([[0, 0.1, len(q)]])] * len(q), "for a query among others"),
    "NaN": ("moments", lambda a, q: [torch.tensor([[0, 0.1, torch.nan]])] * len(q), "must return finite values"),
}


@pytest.mark.parametrize(("method", "function", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_found(method, function, expected):
    model = Answerer() if method == "answer" else Finder()
    setattr(model, method, function)
    assert any(expected in message for message in rules(model, method))


def test_good_models_pass():
    assert rules(Answerer(), "answer") == []
    assert rules(Finder(), "moments") == []


@pytest.mark.parametrize(("name", "kind"), [("answers", "an answerer"), ("moments", "a moment finder")])
def test_the_systems_of_the_kit_pass(tmp_path, monkeypatch, capsys, name, kind):
    make_module(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = make_run(tmp_path / "retriever", "Retriever")
    arguments = ["check", f"systems.{name}", "--set", f"retriever={run}", "--trust", "made_tones"]
    assert command(parser(), arguments) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == f"systems.{name}: {kind} for audio at 8000 Hz; nothing to fix\n"
