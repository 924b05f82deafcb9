"""The check of a system's config and training: each broken rule is one finding."""

import pytest

from tests.systems.checking.conftest import PLAIN, RETRIEVER, broken_rules

CASES = {
    "no Config": ("class Config(BaseModel", "class Other(BaseModel", "Config: must be a pydantic model; found None"),
    "Config is no model": ('(BaseModel, extra="forbid")', "", "Config: must be a pydantic model; found <class"),
    "unknown keys": (', extra="forbid"', "", "Config: must refuse unknown keys"),
    "no default": (
        "gain: float = 1.0",
        "gain: float",
        "Config: must have a default for every field; found none for gain",
    ),
    "invalid defaults": (
        "gain: float = 1.0",
        "gain: float = Field('loud', validate_default=True)",
        "Config: must be valid with its defaults; found --set: gain: error: Input should be a valid number",
    ),
    "train raises": (
        "run.describe(model, {})",
        "run.descr()",
        "train: must train on clips, names and captions as awkward",
    ),
    "no config.yaml": (
        "    run.start()\n",
        "",
        "train: must write config.yaml into the run folder; found no such file",
    ),
    "no system.yaml": ("    run.describe(model, {})\n", "", "train: must write system.yaml into the run folder"),
    "no checkpoint": ("    torch.save(model.state_dict(), run.best)\n", "", "train: must write checkpoints/best.ckpt"),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_each_broken_rule_is_one_finding(team, old, new, expected):
    assert RETRIEVER.count(old) == 1 or old == "import torch"
    (finding,) = broken_rules(team(RETRIEVER.replace(old, new, 1) + PLAIN))
    assert finding.startswith(expected)


def test_a_missing_run_start_is_reported_with_its_consequence(team):
    findings = broken_rules(team(RETRIEVER.replace("    run.start()\n", "").replace("mkdir(parents=True)", "touch()")))
    assert len(findings) == 2
    assert findings[1].startswith("train: must write config.yaml into the run folder; found no such file")


def test_a_given_config_is_used_with_one_epoch(team, tmp_path):
    source = RETRIEVER.replace("gain: float = 1.0", "gain: float = 1.0\n    epochs: int = 5")
    source = source.replace(
        "    run.start()", "    assert (config.gain, config.epochs) == (2, 1), config\n    run.start()"
    )
    name, file = team(source), tmp_path / "two.yaml"
    file.write_text("gain: 2\nepochs: 40\n")
    assert broken_rules(name, file=file) == []
    finding, *_ = broken_rules(name, file=file, settings=["epochs=3"])
    assert "gain=2.0 epochs=3" in finding
