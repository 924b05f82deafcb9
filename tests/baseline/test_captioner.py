"""The baseline captioner: training, resuming, refused requests, and its floors."""

import csv
import json
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from baseline import captioner, floors
from baseline.captioner import Captioner, Config, Training, make_batch
from baseline.retriever import Item
from evaluation import predictions
from evaluation.cli import command
from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.metrics import captioning
from submission.__main__ import parser as submission
from systems import training
from systems.__main__ import parser
from systems.parts import generation, vocabulary
from systems.parts.generation import Decoding
from systems.parts.vocabulary import END, PADDING, START
from tests.brief import make_brief_soundscapes
from tests.systems.runs import (
    assert_captions_do_not_depend_on_the_batch,
    assert_runs_agree,
    cut_off,
    same,
    train_in_two_processes,
    weights,
)
from tests.systems.tiny import HEAR

ROOT = Path(__file__).parents[2]
SMALL = ("epochs=3", "batch=4", "words_epochs=1", "blocks=1", "heads=2", "head_size=8", "hidden=16", "max_words=8")
ADVICE = "give the run folder of a trained baseline retriever or captioner"
NO_RUN = "must be the folder of a trained run, but it has no checkpoints/best.ckpt; " + ADVICE
NO_CRNN = "must contain this kit's CRNN, but the file is damaged or holds another model; " + ADVICE


def arguments(folder, run, *settings, system="baseline.captioner", small=SMALL):
    keys = [word for setting in (*small, *settings) for word in ("--set", setting)]
    return [
        *("train", system, "--data", str(folder), "--run", str(run), "--cache", str(folder / "cache")),
        *("--accelerator", "cpu", *keys),
    ]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_brief_soundscapes(tmp_path_factory.mktemp("data") / "tiny", development=12, validation=4, evaluation=5)


@pytest.fixture(scope="module")
def retriever(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("retriever") / "run"
    words = arguments(tiny, run, system="baseline.retriever", small=("epochs=1", "words_epochs=1"))
    assert command(parser(), words) == 0
    return run


@pytest.fixture(scope="module")
def undisturbed(tiny, retriever, tmp_path_factory):
    """An uninterrupted run with everything that is random: dropout, SpecAugment and mixup."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert command(parser(), arguments(tiny, run, *RANDOM, f"init_from={retriever}")) == 0
    return run


RANDOM = ("spec_augment=2", "mixup=0.4", "monitor=CIDEr-D")


def untrained(**settings):
    torch.manual_seed(0)
    known = vocabulary.from_captions(["a dog barks", "a far-off bell rings twice"])
    sizes = {"blocks": 1, "heads": 2, "head_size": 8, "hidden": 16}
    return Captioner(Config(**{**sizes, **settings}), known).eval()


def test_it_learns_four_clips_word_by_word():
    rng = np.random.default_rng(0)
    said = ["a dog barks twice", "rain", "a bell rings and then a dog barks", "a bell rings and a far-off wind blows"]
    items = [
        Item(f"{row}", rng.normal(row, 1, (20, 64)).astype(np.float32), (caption,)) for row, caption in enumerate(said)
    ]
    known = vocabulary.from_captions(said)
    torch.manual_seed(0)
    sizes = {"blocks": 2, "heads": 2, "head_size": 16, "hidden": 64}
    model = Captioner(Config(dropout=0, decoder_dropout=0, label_smoothing=0, **sizes), known).train()
    training = Training(model, Split("validation", ()))
    batch = make_batch(items, known, longest=60)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        memory, lengths = model.audio_encoder(batch.mels, batch.lengths)
        loss = training.loss(model.embedding(batch.ids[:, :-1]), batch.ids, memory, lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        for decoding in ("beam", "greedy", "sample"):
            how = Decoding(decoding=decoding, top_p=0.5)
            steps = model.steps(*model.audio_encoder(batch.mels, batch.lengths))
            found = generation.search(steps, range(4), model.rules, how)
            assert [known.decode(ids) for ids in found.ids.tolist()] == said
            assert (found.log_probability > -0.7).all()


@pytest.mark.parametrize("decoding", ["beam", "greedy", "sample"])
def test_captions_do_not_depend_on_the_batch(decoding):
    model = untrained(decoding=decoding)
    lengths = torch.tensor([200, 4_410, 30_000, 88_199])
    audio = torch.zeros(4, 88_199)
    for row, length in enumerate(lengths):
        audio[row, :length] = torch.randn(int(length)) * 0.1
    assert_captions_do_not_depend_on_the_batch(model, audio, lengths)


def test_the_log_probability_is_the_models():
    model = untrained(decoding="beam", beams=3)
    memory, lengths = torch.randn(2, 6, 300), torch.tensor([6, 2])
    with torch.inference_mode():
        found = generation.search(model.steps(memory, lengths), [0, 1], model.rules, model.decoding)
        ids = torch.cat([torch.full((2, 1), START), found.ids], dim=1)
        log_probs = model.decoder(model.embedding(ids[:, :-1]), memory, lengths).log_softmax(2)
    own = log_probs.gather(2, ids[:, 1:, None])[..., 0].masked_fill(ids[:, 1:] == PADDING, 0).sum(1)
    torch.testing.assert_close(own, found.log_probability, rtol=1e-4, atol=1e-4)


def test_a_long_caption_is_cut_and_has_no_end():
    known = vocabulary.from_captions(["a dog"])
    mels = np.zeros((8, 64), np.float32)
    items = [Item("1.wav", mels, ("a " * 200, "A dog.")), Item("2.wav", mels[:5], ("a dog " * 30, "dog!"))]
    batch = make_batch(items, known, longest=60)
    assert batch.ids.shape == (4, 62)
    assert (batch.ids == END).sum(1).tolist() == [0, 1, 1, 1]
    assert batch.ids[1].tolist() == [START, 4, 5, END] + [PADDING] * 58


def test_words_begin_with_their_vectors():
    known = vocabulary.from_captions(["a dog"])
    vectors = np.zeros((len(known), 300), np.float32)
    vectors[4] = np.random.default_rng(0).normal(0, 5, 300)
    model = Captioner(Config(blocks=1), known, vectors)
    torch.testing.assert_close(model.embedding.weight[4].std(), torch.tensor(1.0), rtol=0.01, atol=0)
    assert model.embedding.weight[5].any()
    assert not model.embedding.weight[PADDING].any()


@pytest.mark.parametrize(("kind", "seconds"), [("noise", 0.1), ("silence", 1), ("noise", 0.0001)])
def test_short_and_silent_sounds_get_a_caption(kind, seconds):
    model = untrained()
    sound = torch.randn(1, max(1, int(seconds * model.sample_rate))) * (0.1 if kind == "noise" else 0)
    with torch.inference_mode():
        (caption,), score = model.caption_scored(sound, torch.tensor([sound.shape[1]]))
    assert caption
    assert score.isfinite().all()


def test_a_run_holds_what_it_promises(undisturbed):
    found = {str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*") if path.is_file()}
    expected = {"config.yaml", "system.yaml", "metrics.csv", "vocabulary.json", "checkpoints/best.ckpt"}
    assert expected <= found
    with (undisturbed / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"loss", "learning_rate", "validation_loss", "validation_CIDEr-D"} <= rows[0].keys()
    system = yaml.safe_load((undisturbed / "system.yaml").read_text())
    assert system["description"]["data_augmentation"] == "SpecAugment, mixup"
    assert system["description"]["metric_monitored"] == "validation CIDEr-D"
    best = max(range(3), key=lambda row: float(rows[row]["validation_CIDEr-D"]))
    assert same(weights(undisturbed), weights(undisturbed, "best")) == (best == 2)


def test_it_begins_with_the_retrievers_encoder(retriever):
    encoder = captioner.encoder_of(retriever, 0.1)
    there = {name: value for name, value in weights(retriever, "best").items() if "audio_encoder" in name}
    assert same({f"model.audio_encoder.{name}": value for name, value in encoder.items()}, there)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "count"), [(Training, "training_step", 5), (training.AtomicCheckpoints, "save_checkpoint", 2)]
)
def test_killed_at_any_moment_it_ends_with_the_same_weights(tiny, retriever, undisturbed, tmp_path, owner, name, count):
    words = arguments(tiny, tmp_path / "run", *RANDOM, f"init_from={retriever}")
    assert cut_off(words, owner, name, count) == -signal.SIGKILL
    assert command(parser(), words) == 0
    for which in ("last", "best"):
        assert same(weights(tmp_path / "run", which), weights(undisturbed, which))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (undisturbed / "metrics.csv").read_bytes()


def test_self_critical_training_resumes_exactly(tiny, undisturbed, tmp_path):
    stage = ("loss=self_critical", "monitor=CIDEr-D", "samples=2", "epochs=2", f"init_from={undisturbed}")
    assert command(parser(), arguments(tiny, tmp_path / "whole", *stage)) == 0
    killed = arguments(tiny, tmp_path / "killed", *stage)
    assert cut_off(killed, Training, "training_step", 5) == -signal.SIGKILL
    assert command(parser(), killed) == 0
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert not same(weights(tmp_path / "whole"), weights(undisturbed, "best"))


def test_self_critical_training_in_two_processes(tiny, undisturbed, tmp_path):
    stage = ("loss=self_critical", "monitor=CIDEr-D", "samples=2", "epochs=1", "dropout=0", f"init_from={undisturbed}")
    assert command(parser(), arguments(tiny, tmp_path / "one", *stage)) == 0
    assert train_in_two_processes(arguments(tiny, tmp_path / "two", *stage, "batch=2")) == [0, 0]
    assert_runs_agree(tmp_path / "one", tmp_path / "two")


def test_from_prediction_to_output_file_and_floors(tiny, retriever, undisturbed, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    assert command(parser(), ["predict", str(run), "--data", str(tiny)]) == 0
    assert "5 clips" in capsys.readouterr().out
    path = run / "predictions" / "evaluation.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file_name", "caption_predicted", "log_probability"]
    split = read_dataset(tiny, "evaluation", "development")["evaluation"]
    assert [row["file_name"] for row in rows] == list(split.file_names)
    assert all(float(row["log_probability"]) < 0 and row["caption_predicted"] for row in rows)
    assert predictions.read_captions(path).captions == tuple(row["caption_predicted"] for row in rows)

    for task in ("dcase2022-6a", "dcase2024-6"):
        shared = ["--task", task, "--data", str(tiny), "--split", "evaluation"]
        made, team = tmp_path / f"{task}.zip", ROOT / "baseline" / "team.yaml"
        assert command(submission(), ["package", str(run), *shared, "--team", str(team), "--out", str(made)]) == 0
        assert command(submission(), ["validate", str(made), *shared]) == 0
        with zipfile.ZipFile(made) as package:
            for name in package.namelist():
                assert b"log_probability" not in package.read(name)
    capsys.readouterr()

    (tmp_path / "tiny_hear.py").write_text(HEAR)
    monkeypatch.syspath_prepend(str(tmp_path))
    other = ["train", "systems.caption_retrieval", "--data", str(tiny), "--run", str(tmp_path / "1nn")]
    other += ["--set", "embedding=raw", "--set", "audio_encoder=tiny_hear", "--cache", str(tmp_path / "cache")]
    assert command(parser(), other) == 0
    capsys.readouterr()

    words = [str(run), "--retriever", str(retriever), "--data", str(tiny), "--cache", str(tmp_path / "cache")]
    words += ["--retrieval", str(tmp_path / "1nn"), "--trust", "tiny_hear"]
    assert command(floors.parser(), words) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("captions  "))
    assert [line.split("  ")[0] for line in lines[first + 2 : first + 8]] == [
        str(run),
        *floors.NAMES,
        "retrieval of 1nn",
        floors.HUMAN,
    ]
    human = json.loads((run / "floors" / "evaluation" / "human.json").read_text())
    assert "|topline:mean-over-" in human["signature"]
    assert lines[-1].startswith("the 95 % interval of the captioner's CIDEr-D ")
    assert lines[-1].endswith(" above the CIDEr-D of all 4 floors")
    for name in (*floors.NAMES.values(), "retrieval-1nn"):
        score = json.loads((run / "floors" / "evaluation" / f"{name}.json").read_text())
        assert score["metrics"]["cider_d"]["n"] == 5
        captions = predictions.read_captions(run / "floors" / "evaluation" / f"{name}.csv")
        assert captioning.validate(split, captions) == []


def test_floors_see_no_caption_of_the_split(tiny):
    dataset = read_dataset(tiny, "development", "evaluation")
    development = dataset["development"]
    captions = {caption for clip in development.clips for caption in clip.captions}
    assert floors.constant(development) in captions
    assert set(floors.drawn(development, 9)) <= captions
    assert floors.drawn(development, 9) == floors.drawn(development, 9)


def test_the_constant_caption_fits_most_clips(clotho_like):
    folder = clotho_like({"development": 6})
    development = read_dataset(folder, "development")["development"]
    said = [
        "Rain falls on a roof.",
        "A dog barks.",
        "Rain falls.",
        "Rain falls on a tin roof.",
        "Wind.",
        "Rain on a roof.",
    ]
    clips = tuple(
        Clip(clip.file_name, (text,) * 2, clip.path) for clip, text in zip(development.clips, said, strict=True)
    )
    assert floors.constant(Split("development", clips)) in {said[0], said[3]}


def test_the_nearest_clip_of_a_clip_is_itself(tiny, retriever):
    split = read_dataset(tiny, "evaluation")["evaluation"]
    model = floors.loaded(retriever, "embed_audio", "", ())
    assert floors.nearest(split, split, model) == [clip.captions[0] for clip in split.clips]


def test_a_blind_split_is_captioned(tiny, undisturbed, tmp_path):
    shutil.copytree(tiny / "evaluation", tmp_path / "blind" / "test")
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    long = np.random.default_rng(0).normal(0, 0.1, 60 * 44100)
    soundfile.write(tmp_path / "blind" / "test" / "three minutes.wav", np.tile(long, 3).astype(np.float32), 44100)
    soundfile.write(tmp_path / "blind" / "test" / "short.wav", long[:4410], 44100)
    soundfile.write(tmp_path / "blind" / "test" / "silence.wav", np.zeros(44100), 44100)
    assert command(parser(), ["predict", str(run), "--data", str(tmp_path / "blind"), "--split", "test"]) == 0
    found = predictions.read_captions(run / "predictions" / "test.csv")
    assert len(found.captions) == 8
    assert all(found.captions)


def test_a_checkpoint_of_another_vocabulary_is_refused(tiny, undisturbed, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    vocabulary.from_captions(["a dog"]).write(run / "vocabulary.json")
    assert command(parser(), ["predict", str(run), "--data", str(tiny)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {run}/vocabulary.json: must be the vocabulary that {run}/checkpoints/best.ckpt was")
    assert line.endswith("put the run's own file back, or train again")
    (run / "vocabulary.json").unlink()
    assert command(parser(), ["predict", str(run), "--data", str(tiny)]) == 2
    assert "vocabulary.json: no such file" in capsys.readouterr().err


def test_a_caption_of_200_words_is_trained_on(clotho_like, tmp_path):
    folder = clotho_like({"development": 3, "validation": 2})
    path = folder / "captions_development.csv"
    path.write_text(path.read_text().replace("In development 1.1, ", "rain and wind and thunder " * 50))
    assert command(parser(), arguments(folder, tmp_path / "run", "epochs=1")) == 0


@pytest.mark.parametrize("split", ["development", "validation"])
def test_an_empty_split_gets_a_clear_line(clotho_like, tmp_path, capsys, split):
    folder = clotho_like({"development": 2, "validation": 2})
    path = folder / f"captions_{split}.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    for sound in (folder / split).iterdir():
        sound.unlink()
    assert command(parser(), arguments(folder, tmp_path / "run")) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "error" in line
    assert not (tmp_path / "run").exists()


def wrong(folder, kind):
    """Make a folder that `init_from` must refuse."""
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if kind == "missing":
        return
    checkpoint.parent.mkdir(parents=True)
    if kind == "garbage":
        checkpoint.write_bytes(b"no checkpoint")
    elif kind == "empty":
        checkpoint.touch()
    elif kind == "another model":
        torch.save({"state_dict": {"weight": torch.zeros(2)}, "config": {}}, checkpoint)
    elif kind == "another slope":
        state = {f"model.audio_encoder.{name}": value for name, value in captioner.CRNN().state_dict().items()}
        torch.save({"state_dict": state, "config": {"slope": -0.1}}, checkpoint)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "init_from: {folder}: " + NO_RUN),
        ("garbage", "init_from: {folder}/checkpoints/best.ckpt: " + NO_CRNN),
        ("empty", "init_from: {folder}/checkpoints/best.ckpt: " + NO_CRNN),
        ("another model", "init_from: {folder}/checkpoints/best.ckpt: " + NO_CRNN),
        ("another slope", "slope must be -0.1, as in the run of init_from, {folder}; found 0.1: set slope=-0.1"),
    ],
)
def test_a_folder_that_is_no_run_is_not_begun_with(tiny, tmp_path, capsys, kind, message):
    folder = tmp_path / "other"
    wrong(folder, kind)
    assert command(parser(), arguments(tiny, tmp_path / "run", f"init_from={folder}")) == 2
    assert capsys.readouterr().err == f"error: {message.format(folder=folder)}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("monitor=mAP@10", "--set: monitor: error: Input should be 'loss' or 'CIDEr-D'; found 'mAP@10'"),
        ("min_words=9", "min_words must not exceed max_words, 8; found 9"),
        ("decoding=best", "--set: decoding: error: Input should be 'beam', 'greedy' or 'sample'"),
        ("label_smoothing=1", "--set: label_smoothing: error: Input should be less than 1"),
        ("beam=4", "--set: beam: error: unknown key 'beam'; did you mean 'beams'?"),
    ],
)
def test_wrong_settings_get_a_clear_line(tiny, tmp_path, capsys, setting, message):
    assert command(parser(), arguments(tiny, tmp_path / "run", setting)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_floors_say_what_is_missing(tiny, retriever, undisturbed, tmp_path, capsys):
    words = ["--retriever", str(retriever), "--data", str(tiny)]
    assert command(floors.parser(), [str(tmp_path), *words]) == 2
    assert "predictions/evaluation.csv: no such file; predict first" in capsys.readouterr().err
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "evaluation.csv").touch()
    words[1] = str(tmp_path / "nowhere")
    assert command(floors.parser(), [str(tmp_path), *words]) == 2
    assert "nowhere/config.yaml: no such file; give the folder of a run" in capsys.readouterr().err
    words[1] = str(undisturbed)
    assert command(floors.parser(), [str(tmp_path), *words]) == 2
    message = "must be a run whose model has embed_audio; it is a run of baseline.captioner: give --retriever the run"
    assert message in capsys.readouterr().err
    words[1] = str(retriever)
    assert command(floors.parser(), [str(tmp_path), *words, "--split", "development"]) == 2
    assert "--split must not be development, because the floors use its captions" in capsys.readouterr().err


def test_the_yaml_file_has_every_key_at_its_default():
    content = yaml.safe_load((ROOT / "baseline" / "captioner.yaml").read_text())
    assert Config(**content) == Config()
    assert list(content) != []
    assert content.keys() == Config.model_fields.keys()


def test_extra_captions_are_in_the_vocabulary(tiny, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    name = read_dataset(folder, "development", sound=False)["development"].file_names[0]
    (folder / "captions_development.extra.csv").write_text(f'file_name,caption,source\n"{name}",zzyzx barks,x\n')
    run, settings = tmp_path / "run", ("extra_share=1", "epochs=1")
    assert command(parser(), arguments(folder, run, *settings)) == 2
    assert "sampler must be caption with extra_share above 0" in capsys.readouterr().err
    assert command(parser(), arguments(folder, run, *settings, "sampler=caption")) == 0
    words = captioner.load_model(run / "checkpoints" / "best.ckpt").vocabulary.words
    assert "zzyzx" in words
    assert words.index("barks") < len(words)
