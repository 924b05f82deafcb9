"""The list of systems is what lies in the rooms, and says what is true of them."""

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


def test_the_baselines_are_found(capsys):
    found = {one.name: one for one in listing.systems()}
    assert found["baseline.retriever"].task == "retrieval"
    assert found["baseline.captioner"].task == "captioning"
    for one in found.values():
        assert one.paper
        assert one.parameters
        assert one.configs
        for config in one.configs:  # each is a config that the module takes
            contract.configure(contract.system(one.name).Config, ROOT / config)
    assert command(parser(), ["list"]) == 0
    assert "baseline/{retriever,retriever-published}.yaml" in capsys.readouterr().out


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
    (tmp_path / "systems" / "flat.py").write_text('PAPER = "Someone 2021"\n' + source.replace("embed_audio", "caption"))
    (tmp_path / "systems" / "part.py").write_text("def train(): ...\n")
    (tmp_path / "systems" / "examples").mkdir()
    (tmp_path / "systems" / "examples" / "small.py").write_text(source)
    assert listing.systems(tmp_path) == [
        listing.Found("systems.deep", "retrieval", "", "1,234", (Path("systems/deep/configs/small.yaml"),)),
        listing.Found("systems.flat", "captioning", "Someone 2021", "", ()),
    ]


def test_the_list_imports_no_torch():
    code = "import sys, systems.__main__ as m; m.show(None); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
