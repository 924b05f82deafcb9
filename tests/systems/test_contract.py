"""Any module with the three names of the contract is a system."""

import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from pydantic import BaseModel

from evaluation import predictions
from evaluation.cli import command
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION, read_dataset
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import retrieval
from systems import contract
from systems.__main__ import parser

TEAM = '''
"""A system of a team: hears how loud a clip is, and reads numbers."""
import torch
from pydantic import BaseModel

class Config(BaseModel, extra="forbid"):
    gain: float = 1.0

class Loudness:
    sample_rate = 8000
    def to(self, device):
        return self
    def embed_audio(self, audio, lengths):
        rms = (audio.square().sum(1) / lengths).sqrt()
        return torch.stack([rms, -rms.square() / 2], dim=1)
    def embed_text(self, texts):
        level = torch.tensor([float(text.split()[-1]) for text in texts])
        return torch.stack([level, torch.ones_like(level)], dim=1)

def train(config, dataset, run):
    run.start()
    run.best.parent.mkdir()
    torch.save({"gain": config.gain}, run.best)

def load_model(checkpoint):
    torch.load(checkpoint, weights_only=True)
    return Loudness()
'''


NAME = " clip, number 0.take 1.wav"


@pytest.fixture
def team(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "loudness.py").write_text(TEAM)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield "loudness"
    sys.modules.pop("loudness", None)


@pytest.fixture
def loud_and_quiet(tmp_path):
    folder = tmp_path / "data"
    for split in (DEVELOPMENT, VALIDATION, EVALUATION):
        (folder / split).mkdir(parents=True)
        rows = ["file_name,caption_1,caption_2"]
        for number in range(12):
            level, seconds = 0.05 + 0.05 * number, 0.1 + 0.07 * (number * 5 % 12)
            name = f" clip, number {number}.take 1.wav"
            sound = level * np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(int(8000 * seconds)) / 8000)
            soundfile.write(folder / split / name, sound, 8000)
            rows.append(f'"{name}",It sounds at {level:.2f},A level of {level:.2f}')
        (folder / f"captions_{split}.csv").write_text("\n".join(rows))
    return folder


def test_a_teams_module_is_trained_and_predicts(team, loud_and_quiet, tmp_path, capsys):
    run = tmp_path / "run"
    assert command(parser(), ["train", team, "--data", str(loud_and_quiet), "--run", str(run), "--set", "gain=2"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["config"] == {"gain": 2.0}
    assert command(parser(), ["predict", str(run), "--data", str(loud_and_quiet), "--trust", team]) == 0
    assert "24 queries x 12 clips" in capsys.readouterr().out
    split = read_dataset(loud_and_quiet)[EVALUATION]
    score = retrieval.evaluate(split, predictions.read_retrieval(run / "predictions" / "evaluation.npz"))
    # Every query is of one level, and clips of all lengths shared a batch.
    assert score.metrics["R@1"].estimate.value == 1


def test_predicting_without_a_run(tmp_path, loud_and_quiet, capsys):
    assert command(parser(), ["predict", str(tmp_path / "nowhere"), "--data", str(loud_and_quiet)]) == 2
    expected = (
        f"error: {tmp_path}/nowhere/config.yaml: no such file; give the folder of a run, such as `dcase-systems train`"
    )
    assert capsys.readouterr().err.startswith(expected)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("system: baseline.retriever")
    assert command(parser(), ["predict", str(tmp_path / "begun"), "--data", str(loud_and_quiet)]) == 2
    assert "no epoch of the training has ended; run the same training command" in capsys.readouterr().err
    (tmp_path / "begun" / "checkpoints").mkdir()
    (tmp_path / "begun" / "checkpoints" / "best.ckpt").write_bytes(b"half a checkpoint")
    assert command(parser(), ["predict", str(tmp_path / "begun"), "--data", str(loud_and_quiet)]) == 2
    assert "best.ckpt: cannot be read as a checkpoint" in capsys.readouterr().err
    state = {"state_dict": {}, "config": {"no_such_key": 1, "epochs": 2}}
    torch.save(state, tmp_path / "begun" / "checkpoints" / "best.ckpt")
    assert command(parser(), ["predict", str(tmp_path / "begun"), "--data", str(loud_and_quiet)]) == 2
    expected = (
        "must contain a config that baseline.retriever accepts now; found no_such_key: Extra inputs are not permitted: "
        "put"
    )
    assert expected in capsys.readouterr().err
    (tmp_path / "begun" / "config.yaml").write_text("- no run")
    assert command(parser(), ["predict", str(tmp_path / "begun"), "--data", str(loud_and_quiet)]) == 2
    assert "config.yaml: error: must be a mapping of keys to values; found a list" in capsys.readouterr().err


def test_all_unusable_sounds_are_reported(team, loud_and_quiet, monkeypatch):
    monkeypatch.setattr(contract, "CLIPS_PER_BATCH", 2)
    split = read_dataset(loud_and_quiet)[EVALUATION]
    for clip in split.clips[3:5]:
        clip.path.write_text("no sound")
    model = contract.system(team).Loudness()
    with pytest.raises(Faulty) as fault:
        contract.similarity(model, split, device=torch.device("cpu"))
    assert len(fault.value.findings) == 2


class Echo:
    """A captioner that gives the length of a clip."""

    sample_rate = 8000

    def to(self, device):
        return self

    def caption(self, audio, lengths):
        assert (audio.square().sum(1) > 0).all()
        return [f"{length} samples" for length in lengths.tolist()]


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """A run of a team's captioner, which gives no log-probabilities."""
    module = type(sys)("echo")
    module.Config, module.train, module.load_model = BaseModel, print, lambda checkpoint: Echo()
    monkeypatch.setitem(sys.modules, "echo", module)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("system: echo\n")
    (run / "checkpoints" / "best.ckpt").touch()
    return run


def test_a_blind_set_is_captioned_without_log_probabilities(echo, loud_and_quiet, capsys):
    (loud_and_quiet / "evaluation").rename(loud_and_quiet / "test")
    assert (
        command(parser(), ["predict", str(echo), "--data", str(loud_and_quiet), "--split", "test", "--trust", "echo"])
        == 0
    )
    assert "12 clips, 12 different captions" in capsys.readouterr().out
    path = echo / "predictions" / "test.csv"
    assert path.read_text().startswith("file_name,caption_predicted\n")
    prediction = predictions.read_captions(path)
    split = read_dataset(loud_and_quiet, "test")["test"]
    assert prediction.file_names == split.file_names
    assert prediction.captions == tuple(f"{soundfile.info(clip.path).frames} samples" for clip in split.clips)


def test_long_clips_do_not_share_a_batch(loud_and_quiet, monkeypatch):
    split = read_dataset(loud_and_quiet)[EVALUATION]
    monkeypatch.setattr(contract, "SECONDS_PER_BATCH", 1)
    sizes, indexes = [], []
    for those, sounds, lengths in contract.audio_batches(split, 8000, "testing"):
        assert sounds.shape == (len(those), lengths.max())
        assert len(those) == 1 or sounds.numel() <= 8000
        sizes.append(len(those))
        indexes += those
    assert sorted(indexes) == list(range(12))
    assert 1 < max(sizes) < 12


@pytest.mark.parametrize("caption", ["", " ", "two\nlines", None])
def test_a_caption_is_one_line_and_not_empty(loud_and_quiet, caption):
    model = Echo()
    model.caption = lambda audio, lengths: [caption] * len(lengths)
    split = read_dataset(loud_and_quiet)[EVALUATION]
    with pytest.raises(BadRequest, match=r"must be one line of text that is not empty; found .* for ' clip, number"):
        contract.captions(model, split, device=torch.device("cpu"))


def test_an_answer_that_is_not_finite_is_refused(team, loud_and_quiet):
    split = read_dataset(loud_and_quiet)[EVALUATION]
    model = contract.system(team).Loudness()
    embed_audio, embed_text = model.embed_audio, model.embed_text
    model.embed_audio = lambda audio, lengths: embed_audio(audio, lengths) / 0 * 0
    with pytest.raises(BadRequest) as refusal:
        contract.similarity(model, split, device=torch.device("cpu"))
    expected = f"embed_audio must give finite values; found NaN or infinity for 12 of 12, first the clip {NAME!r}"
    assert str(refusal.value).startswith(expected)
    model.embed_audio = embed_audio
    model.embed_text = lambda texts: embed_text(texts) + float("inf")
    with pytest.raises(BadRequest, match="embed_text must give finite values; found NaN or infinity for 24 of 24"):
        contract.similarity(model, split, device=torch.device("cpu"))


def test_a_log_probability_that_is_not_finite_is_refused(loud_and_quiet):
    model = Echo()
    model.caption_scored = lambda audio, lengths: (model.caption(audio, lengths), lengths * float("nan"))
    split = read_dataset(loud_and_quiet)[EVALUATION]
    with pytest.raises(BadRequest, match="caption_scored must give finite log-probabilities; found NaN or infinity"):
        contract.captions(model, split, device=torch.device("cpu"))


def test_each_clip_gets_one_caption(loud_and_quiet):
    model = Echo()
    model.caption = lambda audio, lengths: ["one"]
    with pytest.raises(BadRequest, match="caption must give one caption for each clip; found 1 captions for 12 clips"):
        contract.captions(model, read_dataset(loud_and_quiet)[EVALUATION], device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module", "no module 'no_such_module'; give a system's import name, such as baseline.retriever"),
        (".retriever", "no module '.retriever'; did you mean 'baseline.retriever'? give a system's import name"),
        ("./retriever.py", "no module './retriever.py'; did you mean 'baseline.retriever'? give a system's"),
        ("baseline.nothing", "no module 'baseline.nothing'; give a system's import name"),
        ("json", "the module json is not a system: it must have Config, train, load_model; found no Config"),
    ],
)
def test_other_modules_are_refused(name, message):
    with pytest.raises(BadRequest, match=r".+") as refusal:
        contract.system(name)
    assert str(refusal.value).startswith(message)


class Config(BaseModel, extra="forbid"):
    epochs: int = 3
    words: str = "train"


def test_settings_win_over_the_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("epochs: 5\nwords: x.bin\n")
    assert contract.configure(Config, file, ["epochs=7"]) == Config(epochs=7, words="x.bin")
    assert contract.configure(Config, None) == Config()
    file.write_text("# nothing set\n")
    assert contract.configure(Config, file) == Config()


def test_all_wrong_keys_are_named_with_their_place(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("epoch: 5\nwords: 3\n")
    with pytest.raises(Faulty) as fault:
        contract.configure(Config, file, ["epochs=few"])
    assert [str(finding) for finding in fault.value.findings] == [
        "--set: epochs: error: Input should be a valid integer, unable to parse string as an integer; found 'few'",
        f"{file}: epoch: error: unknown key 'epoch'; did you mean 'epochs'? there are: epochs, words",
        f"{file}: words: error: Input should be a valid string; found 3",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "1: error: the '[' here is never closed"),
        (b"- 1\n- 2", " error: must be a mapping of keys to values; found a list"),
        (b"\xff\xfe", " error: must be UTF-8"),
        (
            b"words: !!python/object/apply:os.system ['true']",
            "1: error: is not valid YAML: could not determine a constructor",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(Faulty) as fault:
        contract.configure(Config, file)
    assert str(fault.value).startswith(f"{file}:{message}")


def test_a_setting_that_is_no_yaml_is_refused():
    for value in ("[1", "[" * 3000):
        with pytest.raises(BadRequest, match=r"^--set words=\[.*: the value is not YAML: "):
            contract.configure(Config, None, [f"words={value}"])
    assert contract.configure(Config, None, ["words=2020-13-45"]) == Config(words="2020-13-45")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"system: [1", ":1: error: the '[' here is never closed"),
        (b"system: \xe9", ":1: error: must be UTF-8"),
        (b"system: a\nseed: 2020-13-45", ": seed: error: Input should be a valid integer"),
        (b"a: &a [*a]", ":1: error: must not be an alias of a value that contains it"),
        (b"a: " + b"[" * 3000, ":1: error: must not be nested more than 50 levels deep"),
        (b"seed: 1", ": system: error: is missing; give it"),
        (b"", ": system: error: is missing; give it"),
        (b"system: a\ndata: 3", ": data: error: Input should be a valid dictionary; found 3"),
    ],
)
def test_a_damaged_run_is_refused_in_a_line(tmp_path, content, message):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(Faulty) as fault:
        contract.read_run(tmp_path)
    (finding,) = fault.value.findings
    assert str(finding).startswith(f"{tmp_path}/config.yaml{message}")
    assert fault.value.status == 2


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadRequest, match=r"config.yaml: no such file; give the folder of a run"):
            contract.read_run(folder)
