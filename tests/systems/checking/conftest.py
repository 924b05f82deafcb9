"""Systems that keep the contract, as sources; tests break one rule in each. A fixture writes them to the path."""

import importlib
import sys

import pytest

from systems.checking.check import check_system

RETRIEVER = """
import torch
from pydantic import BaseModel, Field

class Config(BaseModel, extra="forbid"):
    gain: float = 1.0

class Model(torch.nn.Module):
    sample_rate = 8000

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(2, 3))
        self.dropout = torch.nn.Dropout()

    def embed_audio(self, audio, lengths):
        values = torch.stack([audio.square().sum(1) / lengths, audio.abs().amax(1)], dim=1)
        return self.dropout(values @ self.weight)

    def embed_text(self, texts):
        values = torch.tensor([[float(len(text)), float(text.count(" "))] for text in texts])
        return values.to(self.weight.device) @ self.weight

def train(config, dataset, run):
    run.start()
    torch.manual_seed(run.seed)
    model = Model()
    run.best.parent.mkdir(parents=True)
    torch.save(model.state_dict(), run.best)
    run.describe(model, {})

def load_model(checkpoint):
    model = Model()
    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return model.eval()
"""
START = RETRIEVER.index("    def embed_audio")
END = RETRIEVER.index("def train")
CAPTIONER = (
    RETRIEVER[:START]
    + """    def caption(self, audio, lengths):
        texts = [f"A level of {x:.3f}." for x in (audio.square().sum(1) / lengths).tolist()]
        return texts

"""
    + RETRIEVER[END:]
)
AUDIO = "return self.dropout(values @ self.weight)"
TEXT = "return values.to(self.weight.device) @ self.weight"
CAPTIONS = "return texts"
BOTH = "import evaluation.findings\n" + RETRIEVER.replace(
    "def train", CAPTIONER[START : CAPTIONER.index("def train")] + "def train", 1
)
# A model that cannot be moved to a device.
PLAIN = """
class Plain:
    sample_rate = 8000
    def embed_audio(self, audio, lengths): return torch.ones(len(audio), 1)
    def embed_text(self, texts): return torch.ones(len(texts), 1)
"""


@pytest.fixture
def team(tmp_path, monkeypatch):
    """Write a team's module into a folder on the path; it is gone from `sys.modules` afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source, name="team"):
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        importlib.invalidate_caches()
        return name

    yield write
    for name in [name for name in sys.modules if name.startswith("team")]:
        del sys.modules[name]


def broken_rules(name, **options):
    """Check a system, and return its findings."""
    _, findings = check_system(name, **options)
    assert all(finding.file == name and "found" in finding.message for finding in findings)
    return [f"{finding.column}: {finding.message}" for finding in findings]
