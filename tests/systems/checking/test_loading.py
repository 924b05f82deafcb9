"""The check of the models that a system loads: each broken rule is one finding."""

import pytest

from evaluation.cli import command
from systems.__main__ import parser
from tests.systems.checking.conftest import BOTH, CAPTIONER, CAPTIONS, PLAIN, RETRIEVER, TEXT, broken_rules

CASES = {
    "importable only once": (
        "import torch",
        "import sys, torch; sys.modules['teammate'] = 1 / ('teammate' not in sys.modules)",
        "import: must be importable again; found ZeroDivisionError (division by zero) at ",
    ),
    "load raises": (
        "torch.load(checkpoint",
        "torch.load(str(checkpoint) + 'x'",
        "load_model: must load the checkpoint",
    ),
    "load returns nothing": (
        "    return model.eval()",
        "    model.eval()",
        "load_model: must return a model; found None",
    ),
    "weights are not loaded": (
        '    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))\n',
        "",
        "load_model: must return a model that gives the same outputs every time the checkpoint is loaded",
    ),
    "training mode": ("return model.eval()", "return model", "load_model: must return a model that is ready to use"),
    "nothing to move": ("return model.eval()", "return Plain()", "load_model: must return a model whose to(device)"),
    "no seed": ("    torch.manual_seed(run.seed)\n", "", "train: must give the same model for the same seed"),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_each_broken_rule_is_one_finding(team, old, new, expected):
    assert RETRIEVER.count(old) == 1 or old == "import torch"
    (finding,) = broken_rules(team(RETRIEVER.replace(old, new, 1) + PLAIN))
    assert finding.startswith(expected)


def test_a_new_process_lacks_what_training_left_in_the_module(team):
    source = RETRIEVER.replace("    model = Model()\n    run.best", "    model = KEPT['model'] = Model()\n    run.best")
    source = "KEPT = {}\n" + source.replace("return model.eval()", "return KEPT['model'].eval()")
    (finding,) = broken_rules(team(source))
    expected = (
        "load_model: must load the checkpoint from nothing but the files in its run folder; found KeyError ('model')"
    )
    assert finding.startswith(expected)


def test_a_captioner_that_can_retrieve_is_checked_as_both(team):
    (finding,) = broken_rules(team(BOTH.replace(TEXT, "return (values / len(values)) @ self.weight")))
    assert finding.startswith(
        "embed_text: must give a text the same embedding in a batch as alone; found a difference of"
    )
    assert broken_rules(team(BOTH.replace(TEXT, "return {}[0]"), "team_fails"))[0].startswith(
        "embed_text: must accept any text"
    )


def test_one_caption_for_all_sounds_is_mentioned(team, capsys):
    assert command(parser(), ["check", team(CAPTIONER.replace(CAPTIONS, "return ['A sound.'] * len(texts)"))]) == 0
    assert "which gave all clips the same caption" in capsys.readouterr().out
