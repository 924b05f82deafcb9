"""The list of systems shows what is in this checkout, and what it says is true."""

import subprocess
import sys
from pathlib import Path

import pytest

from baseline import captioner, retriever
from evaluation.cli import command
from systems import contract, listing
from systems.__main__ import parser
from systems.parts.vocabulary import from_captions

ROOT = Path(__file__).parents[2]


def test_the_baselines_are_found():
    systems = {system.name: system for system in listing.systems()}
    assert systems["baseline.retriever"].task == "retrieval"
    assert systems["baseline.captioner"].task == "captioning"
    for system in systems.values():
        assert system.paper
        assert system.parameters
        assert system.configs
        for config in system.configs:  # each is a config that the module accepts
            contract.configure(contract.system(system.name).Config, ROOT / config)


def test_no_config_names_a_file_outside_the_checkout():
    configs = [*ROOT.glob("systems/**/*.yaml"), *ROOT.glob("baseline/*.yaml")]
    assert configs
    for config in configs:
        assert "../" not in config.read_text(), config


def test_the_list_fits_100_columns_in_the_order_of_numbers(capsys):
    assert command(parser(), ["list"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "baseline/: retriever.yaml, retriever-published.yaml" in printed
    words = printed.replace(",", "").split()
    assert words.index("system-2.yaml") < words.index("system-10.yaml")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("baseline.retreiver", "baseline.retriever"),
        ("retriever", "baseline.retriever"),
        ("atae", "systems.atae"),
        ("systems.clipaac", "systems.clip_aac"),
        ("baseline.nothing", None),
        ("json", None),
    ],
)
def test_the_system_that_was_meant(name, meant):
    assert listing.closest_name(name) == meant


@pytest.mark.parametrize("words", [2, 7])
def test_parameters_are_counted_right(words):
    known = from_captions([" ".join("abcdefg"[:words])])
    count = sum(p.numel() for p in captioner.Captioner(captioner.Config(), known).parameters())
    base, _, each, *_ = captioner.PARAMETERS.replace(",", "").split()
    assert count == int(base) + int(each) * len(known)
    assert sum(p.numel() for p in retriever.Retriever(retriever.Config(), None).parameters()) == retriever.PARAMETERS


def test_systems_of_one_file_and_of_several_are_found(tmp_path):
    (tmp_path / "systems" / "deep" / "configs").mkdir(parents=True)
    deep = tmp_path / "systems" / "deep"
    (deep / "__init__.py").write_text("from systems.deep.model import Config, load_model, train\nPARAMETERS = 1234\n")
    source = "class Config: ...\nclass M:\n    def embed_audio(self): ...\ndef train(): ...\ndef load_model(): ...\n"
    (deep / "model.py").write_text(source)
    (deep / "configs" / "small.yaml").touch()
    (deep / "published.yaml").touch()
    for number in (10, 2):
        (tmp_path / "systems" / f"flat-{number}.yaml").touch()
    (tmp_path / "systems" / "flat.py").write_text('PAPER = "Someone 2021"\n' + source.replace("embed_audio", "caption"))
    (tmp_path / "systems" / "part.py").write_text("def train(): ...\n")
    (tmp_path / "systems" / "examples").mkdir()
    (tmp_path / "systems" / "examples" / "small.py").write_text(source)
    assert listing.systems(tmp_path) == [
        listing.System("systems.deep", "retrieval", "", "1,234", (Path("systems/deep/configs/small.yaml"),)),
        listing.System(
            "systems.flat",
            "captioning",
            "Someone 2021",
            "",
            (Path("systems/flat-2.yaml"), Path("systems/flat-10.yaml")),
        ),
    ]


def test_the_list_imports_no_torch():
    code = "import sys, systems.__main__ as m; m.show(None); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
