"""Every way to break the contract is one finding, the one expected; what holds to it has none."""

import importlib
import sys

import pytest
import torch

from evaluation.cli import command
from evaluation.data.check import check_dataset
from evaluation.findings import BadRequest
from systems import check
from systems.__main__ import parser

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
        said = [f"A level of {x:.3f}." for x in (audio.square().sum(1) / lengths).tolist()]
        return said

"""
    + RETRIEVER[END:]
)
AUDIO = "return self.dropout(values @ self.weight)"
TEXT = "return values.to(self.weight.device) @ self.weight"
SAID = "return said"
BOTH = "import evaluation.findings\n" + RETRIEVER.replace(
    "def train", CAPTIONER[START : CAPTIONER.index("def train")] + "def train", 1
)


@pytest.fixture
def team(tmp_path, monkeypatch):
    """Write a team's module to the path, and import it by its name as one that was never there."""
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


def found(name, **how):
    _, findings = check.check(name, **how)
    assert all(finding.file == name and "found" in finding.message for finding in findings)
    return [f"{finding.column}: {finding.message}" for finding in findings]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (RETRIEVER, "retriever"),
        (CAPTIONER, "captioner"),
        (BOTH, "captioner and retriever"),
        (BOTH.replace(TEXT, "raise evaluation.findings.BadRequest('no text head')"), "captioner"),
    ],
)
def test_what_holds_to_the_contract(team, capsys, source, kind):
    assert command(parser(), ["check", team(source)]) == 0
    assert capsys.readouterr().out == f"team: a {kind} of sounds at 8000 Hz; nothing to mend\n"


CASES = {
    # What a module must have.
    "no Config": ("class Config(BaseModel", "class Other(BaseModel", "Config: must be a pydantic model; found None"),
    "Config is no model": ('(BaseModel, extra="forbid")', "", "Config: must be a pydantic model; found <class"),
    "unknown keys": (', extra="forbid"', "", "Config: must refuse unknown keys"),
    "no default": (
        "gain: float = 1.0",
        "gain: float",
        "Config: must have a default for every field; found none for gain",
    ),
    "no train": ("def train", "def fit", "train: must be a function, train(config, dataset, run); found None"),
    "no load_model": ("def load_model", "def load", "load_model: must be a function, load_model(checkpoint); found"),
    "no import": ("import torch", "import torch, no_such_package", "import: must be importable; found ModuleNotFound"),
    "syntax": ("import torch", "import torch =", "import: must be importable; found SyntaxError (invalid syntax"),
    "importable once": (
        "import torch",
        "import sys, torch; sys.modules['teammate'] = 1 / ('teammate' not in sys.modules)",
        "import: must be importable again; found ZeroDivisionError (division by zero) at ",
    ),
    # Training, and what it leaves.
    "train raises": (
        "run.describe(model, {})",
        "run.descr()",
        "train: must train on sounds, names and captions as awkward",
    ),
    "no config.yaml": (
        "    run.start()\n",
        "",
        "train: must write config.yaml into the run folder; found no such file",
    ),
    "no system.yaml": ("    run.describe(model, {})\n", "", "train: must write system.yaml into the run folder"),
    "no checkpoint": ("    torch.save(model.state_dict(), run.best)\n", "", "train: must write checkpoints/best.ckpt"),
    "no seed": ("    torch.manual_seed(run.seed)\n", "", "train: must give the same model for the same seed"),
    # What load_model gives.
    "load raises": (
        "torch.load(checkpoint",
        "torch.load(str(checkpoint) + 'x'",
        "load_model: must load the checkpoint",
    ),
    "load gives none": ("    return model.eval()", "    model.eval()", "load_model: must give a model; found None"),
    "weights are not loaded": (
        '    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))\n',
        "",
        "load_model: must give a model of the same answers whenever it is called",
    ),
    "defaults do not hold": (
        "gain: float = 1.0",
        "gain: float = Field('loud', validate_default=True)",
        "Config: must hold with its defaults; found --set: gain: error: Input should be a valid number",
    ),
    "training mode": ("return model.eval()", "return model", "load_model: must give a model that is ready to use"),
    "nothing to move": ("return model.eval()", "return Plain()", "load_model: must give a model whose to(device)"),
    "half a retriever": ("def embed_text", "def text", "load_model: must give a retriever, with embed_audio and"),
    "no sample rate": ("sample_rate = 8000", "rate = 8000", "sample_rate: must be a whole number above 0; found None"),
    "a broken sample rate": ("= 8000", "= 8000.0", "sample_rate: must be a whole number above 0; found 8000.0"),
    # Its answers to sounds.
    "no tensor": (AUDIO, "return (values @ self.weight).numpy()", "embed_audio: must give a torch.Tensor; found ndarr"),
    "shape": (
        AUDIO,
        "return (values @ self.weight)[0]",
        "embed_audio: must give a tensor of (clips, size); found (3,)",
    ),
    "size": (AUDIO, "return values", "embed_text: must give as many values whatever it is given, and for sounds"),
    "type": (AUDIO, "return (values @ self.weight).double()", "embed_audio: must give float32; found torch.float64"),
    "gradients": (
        AUDIO,
        "with torch.inference_mode(False): return (values.clone() @ self.weight.clone())",
        "embed_audio: must give values without gradients in inference mode; found requires_grad for 0.1 s, 1.07",
    ),
    "NaN": (
        AUDIO,
        "return (values / values) @ self.weight",
        "embed_audio: must give finite values; found NaN for 1 s of",
    ),
    "infinity": (
        AUDIO,
        "return values.log()[:, [0, 1, 1]]",
        "embed_audio: must give finite values; found infinity for",
    ),
    "short": (
        AUDIO,
        "assert audio.shape[1] > 8000; return values @ self.weight",
        "embed_audio: must take sounds of any length, silence too; found AssertionError at",
    ),
    "one at a time": (
        AUDIO,
        "assert len(audio) < 5; return values @ self.weight",
        "embed_audio: must take batches of 1, 2 and 5 sounds; found AssertionError",
    ),
    "chance": (AUDIO, "return torch.rand(len(audio), 3)", "embed_audio: must give the same answer to the same sound"),
    "batch": (
        AUDIO,
        "return (values - (values.mean(0) if len(values) > 1 else 0)) @ self.weight",
        "embed_audio: must answer a sound in a batch as alone; found a difference of",
    ),
    "padding": (
        "/ lengths,",
        "/ audio.shape[1],",
        "embed_audio: must answer a sound alike whatever zeros lie behind its end; found a difference of",
    ),
    # Its answers to texts.
    "an empty text": (
        TEXT,
        "[text[0] for text in texts]; " + TEXT,
        "embed_text: must take any text; found IndexError (string index out of range)",
    ),
    "no mean of no words": (
        TEXT,
        "return (values / values[:, :1]) @ self.weight",
        "embed_text: must give finite values; found NaN for '': look for",
    ),
    "among others": (
        TEXT,
        "return (values / len(values)) @ self.weight",
        "embed_text: must embed a text among others as alone; found a difference of",
    ),
}
CAPTIONS = {
    "no list": ("return tuple(said)", "caption: must give a list of one caption for each clip; found tuple"),
    "too few": ("return said[:1]", "caption: must give a list of one caption for each clip; found 1 for a batch of 2"),
    "empty": ("return ['' for _ in said]", "caption: must give captions of one line that are not empty; found ''"),
    "two lines": (r"return [s + '\n.' for s in said]", "caption: must give captions of one line that are not empty"),
    "batch": ("return [s + str(len(said)) for s in said]", "caption: must answer a sound in a batch as alone"),
    "padding": ("return [str(audio.shape[1])] * len(said)", "caption: must answer a sound alike whatever zeros lie"),
    "constant log-probability": (
        "return [s + str(len(said)) for s in said]\n"
        "    def caption_scored(self, *sounds): return self.caption(*sounds), torch.zeros(len(sounds[1]))",
        "caption_scored: must answer a sound in a batch as alone",
    ),
    "no pair": ("return said\n    caption_scored = caption", "caption_scored: must give captions and a tensor of (cl"),
    "NaN": (
        "return said\n    def caption_scored(self, *sounds): return self.caption(*sounds), sounds[1] / 0 * 0",
        "caption_scored: must give each clip a finite log-probability; found [nan]",
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_each_fault_of_a_retriever_is_one_finding(team, old, new, expected):
    assert RETRIEVER.count(old) == 1 or old == "import torch"
    (finding,) = found(team(RETRIEVER.replace(old, new, 1) + PLAIN))
    assert finding.startswith(expected)


PLAIN = """
class Plain:
    sample_rate = 8000
    def embed_audio(self, audio, lengths): return torch.ones(len(audio), 1)
    def embed_text(self, texts): return torch.ones(len(texts), 1)
"""


@pytest.mark.parametrize(("new", "expected"), CAPTIONS.values(), ids=CAPTIONS)
def test_each_fault_of_a_captioner_is_one_finding(team, new, expected):
    (finding,) = found(team(CAPTIONER.replace(SAID, new)))
    assert finding.startswith(expected)


def test_a_captioner_that_retrieves_is_asked_for_both(team):
    (finding,) = found(team(BOTH.replace(TEXT, "return (values / len(values)) @ self.weight")))
    assert finding.startswith("embed_text: must embed a text among others as alone; found a difference of")
    assert found(team(BOTH.replace(TEXT, "return {}[0]"), "team_fails"))[0].startswith("embed_text: must take any text")


NEAREST = """
    def caption(self, audio, lengths):
        return [self.said[i] for i in torch.randint(len(self.said), (len(audio),)).tolist()]

"""


def test_captions_differ_enough_to_notice_a_random_choice(team):
    """A nearest neighbour's, whose neighbours are drawn: what it says are the clips' first captions."""
    source = RETRIEVER[:START] + NEAREST + RETRIEVER[END:]
    source = source.replace(
        "    model = Model()\n    run.best",
        "    model = Model()\n    said = [clip.captions[0] for clip in dataset['development'].clips]\n    run.best",
    )
    source = source.replace(
        "torch.save(model.state_dict(), run.best)", "torch.save([model.state_dict(), said], run.best)"
    )
    source = source.replace(
        '    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))',
        "    state, model.said = torch.load(checkpoint, map_location='cpu', weights_only=True)\n"
        "    model.load_state_dict(state)",
    )
    torch.manual_seed(0)
    (finding,) = found(team(source))
    assert finding.startswith("caption: must give the same answer to the same sound; found another at the second time")


def test_that_one_caption_for_all_tells_nothing_is_said(team, capsys):
    assert command(parser(), ["check", team(CAPTIONER.replace(SAID, "return ['A sound.'] * len(said)"))]) == 0
    assert "which said the same of all sounds" in capsys.readouterr().out


def test_what_keeps_the_run_from_being_made_is_said_too(team):
    findings = found(team(RETRIEVER.replace("    run.start()\n", "").replace("mkdir(parents=True)", "touch()")))
    assert len(findings) == 2
    assert findings[1].startswith("train: must write config.yaml into the run folder; found no such file")


def test_all_faults_are_reported_at_once_with_their_place(team, capsys, tmp_path):
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


def test_a_new_process_lacks_what_training_left_in_the_module(team):
    source = RETRIEVER.replace("    model = Model()\n    run.best", "    model = KEPT['model'] = Model()\n    run.best")
    source = "KEPT = {}\n" + source.replace("return model.eval()", "return KEPT['model'].eval()")
    (finding,) = found(team(source))
    expected = (
        "load_model: must load the checkpoint with nothing but what lies in its run folder; found KeyError ('model')"
    )
    assert finding.startswith(expected)


def test_a_trained_run_is_asked_without_training(team, tmp_path):
    name, folder = team(RETRIEVER), tmp_path / "run"
    check.make_data(tmp_path / "data")
    assert command(parser(), ["train", name, "--data", str(tmp_path / "data"), "--run", str(folder)]) == 0
    del sys.modules[name]
    team(
        RETRIEVER.replace("    run.start()", "    raise ValueError").replace(AUDIO, "return values.log() @ self.weight")
    )
    (finding,) = found(name, run_folder=folder)
    assert finding.startswith("embed_audio: must give finite values; found infinity for 1 s of silence")
    with pytest.raises(BadRequest, match=r"run: is a run of team; check that, or give a run of baseline\.retriever"):
        check.check("baseline.retriever", folder)


def test_a_config_is_trained_with_for_an_epoch(team, tmp_path):
    source = RETRIEVER.replace("gain: float = 1.0", "gain: float = 1.0\n    epochs: int = 5")
    source = source.replace(
        "    run.start()", "    assert (config.gain, config.epochs) == (2, 1), config\n    run.start()"
    )
    name, file = team(source), tmp_path / "two.yaml"
    file.write_text("gain: 2\nepochs: 40\n")
    assert found(name, file=file) == []
    finding, *_ = found(name, file=file, settings=["epochs=3"])
    assert "gain=2.0 epochs=3" in finding


def test_the_data_are_as_awkward_as_they_may_be(tmp_path):
    check.make_data(tmp_path / "data")
    _, findings = check_dataset(tmp_path / "data")
    assert not [finding for finding in findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no_such_module"], "error: no module 'no_such_module'; give a system's import name, such as baseline"),
        (["team", "--run", "nowhere"], "error: nowhere/checkpoints/best.ckpt: no such file; give the folder of a"),
        (["team", "--set", "gian=2"], "--set: gian: error: unknown key 'gian'; did you mean 'gain'?"),
        (["team", "--set", "gain"], "error: --set takes key=value; found 'gain'"),
        (["team", "--config", "nowhere.yaml"], "error: nowhere.yaml: no such file"),
        (["team", "--run", "a", "--set", "gain=2"], "error: --run asks a trained run, which has its config; leave"),
        (["team", "--run", "a", "--config", "b"], "error: --run asks a trained run, which has its config; leave"),
    ],
)
def test_a_wrong_request_gets_one_clear_line(team, capsys, arguments, expected):
    team(RETRIEVER)
    assert command(parser(), ["check", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(expected)


@pytest.mark.parametrize("name", ["team", "team.of_several.files"])
def test_an_installed_module_goes_by_its_name(team, tmp_path, name):
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
    assert found(name) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("baseline.retriever", ["words_epochs=1"]),
        ("baseline.captioner", ["words_epochs=1", "head_size=16", "max_words=8"]),
    ],
)
def test_the_baselines_hold_to_the_contract(name, settings):
    assert found(name, settings=settings) == []
