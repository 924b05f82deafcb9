"""Fixtures of the sweeps' tests: tiny systems, data, and sweep files."""

import sys

import pytest
import yaml

from evaluation.data.soundscapes import generate
from tests.systems.tiny import HEAR, text_model

# ATAE. If a file says so, the end of an epoch kills the worker or another process, or raises the error of a full disk.
FRAGILE = """
import errno, os, signal
from systems import atae, training
from systems.atae import Config, load_model

def train(config, dataset, run):
    original = training.write_rows
    def write_rows(path, rows):
        for word in ("kill", "full"):
            mark = run.folder.parents[1] / f"{word} {run.folder.name}"
            if mark.exists():
                pid, _, others = mark.read_text().partition(",")
                mark.write_text(others) if others else mark.unlink()
                if word == "full":
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
                os.kill(int(pid or os.getpid()), signal.SIGKILL)
        original(path, rows)
    training.write_rows = write_rows
    try:
        atae.train(config, dataset, run)
    finally:
        training.write_rows = original
"""
# Appended to `tiny_hear`: it records the number of sounds in each call.
COUNTING = """
from pathlib import Path

uncounted = get_timestamp_embeddings

def get_timestamp_embeddings(audio, model):
    with Path(__file__).with_name("embedded").open("a") as file:
        print(len(audio), file=file)
    return uncounted(audio, model)
"""
CAPTIONER = """
import torch
from pydantic import BaseModel

class Config(BaseModel, extra="forbid"):
    words: str = "rain falls"

class Captioner(torch.nn.Module):
    sample_rate = 8000
    def caption(self, audio, lengths):
        return [self.words] * len(audio)

def train(config, dataset, run):
    run.start()
    run.best.parent.mkdir(exist_ok=True)
    torch.save(config.words, run.best)
    run.describe(Captioner(), {})

def load_model(checkpoint):
    model = Captioner()
    model.words = torch.load(checkpoint, weights_only=True)
    return model
"""
BOTH = CAPTIONER.replace(
    "\ndef train",
    """
    def embed_audio(self, audio, lengths):
        return audio[:, :4]
    def embed_text(self, texts):
        return torch.ones(len(texts), 4)

def train""",
)
# A retriever that trains without Lightning. Its value after each epoch is `gain` times the number of epochs.
CURVE = """
import torch
from pydantic import BaseModel

class Config(BaseModel, extra="forbid"):
    gain: float = 1.0
    kind: str = "a"
    monitor: str = "mAP@10"
    epochs: int = 5

class Retriever(torch.nn.Module):
    sample_rate = 8000
    def embed_audio(self, audio, lengths):
        return audio[:, :4]
    def embed_text(self, texts):
        return torch.ones(len(texts), 4)

def train(config, dataset, run):
    run.start()
    run.best.parent.mkdir(exist_ok=True)
    values = torch.load(run.last) if run.last.exists() else []
    print("after epoch", len(values))
    while len(values) < config.epochs:
        values.append(config.gain * (len(values) + 1))
        torch.save(values, run.last)
        torch.save(values, run.best)
        if len(values) < config.epochs and not run.continues(values):
            raise KeyboardInterrupt
    run.describe(Retriever(), {})

def load_model(checkpoint):
    return Retriever()
"""
# The same retriever, whose training takes a second. It records on which node it is trained.
SLOW_CURVE = """
import time
import ray
import curve
from curve import Config, load_model

def train(config, dataset, run):
    time.sleep(1)
    curve.train(config, dataset, run)
    (run.folder / "node").write_text(ray.get_runtime_context().get_node_id())
"""
# Python imports this module when a worker or a driver starts. Their imports create a million permanent objects, and
# searching these for garbage takes a fifth of the time.
SITECUSTOMIZE = """
import gc

gc.set_threshold(100_000)
"""
MODULES = {
    "sitecustomize": SITECUSTOMIZE,
    "tiny_hear": HEAR + COUNTING,
    "fragile": FRAGILE,
    "captioner_system": CAPTIONER,
    "both_system": BOTH,
    "curve": CURVE,
    "slow_curve": SLOW_CURVE,
}
SPLITS = {"development": 8, "validation": 3, "evaluation": 6}
RUNS = [f"8_{way}_{seed}" for way in ("nt-xent", "broken") for seed in (0, 1)]


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with tiny models, data, and a sweep of four runs, two of which fail."""
    folder = tmp_path_factory.mktemp("sweep")
    text_model(folder / "text")
    (folder / "modules").mkdir()
    for name, source in MODULES.items():
        (folder / "modules" / f"{name}.py").write_text(source)
    generate.make_soundscapes(folder / "data", clips=SPLITS, progress=False)
    content = {
        "system": "fragile",
        "set": {"text_encoder": str(folder / "text"), "audio_encoder": "tiny_hear", "epochs": 2, "batch": 8},
        "grid": {"size": [8], "way": {"nt_xent": {"loss": "nt_xent"}, "broken": {"audio_adapter": "identity"}}},
        "seeds": 2,
        "metric": "mAP@5",
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture(autouse=True)
def modules(place, monkeypatch):
    """Let the tiny systems be imported."""
    monkeypatch.syspath_prepend(str(place / "modules"))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def write(place, tmp_path):
    """Write the sweep file with some keys changed; None removes a key."""

    def write(changes, name="changed.yaml"):
        content = yaml.safe_load((place / "sweep.yaml").read_text()) | changes
        content = {key: value for key, value in content.items() if value is not None}
        file = tmp_path / name
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return write
