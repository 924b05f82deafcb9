"""The baseline retriever: batches, model, and rules of training."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from gensim.models import KeyedVectors

from baseline import retriever
from baseline.cased_words import UNKNOWN
from baseline.retriever import Config, Item, Retriever, Training, interpolation_weights, make_batch, pad, prepare
from evaluation.cli import command
from evaluation.data.audio import LogMel
from systems.__main__ import parser
from systems.parts import words
from systems.parts.losses import triplet
from systems.training import is_plateau
from tests.systems.runs import rows

ROOT = Path(__file__).parents[2]
TRUTH = {"dog": frozenset({"1"}), "rain": frozenset({"2"})}


def vectors():
    found = KeyedVectors(300)
    rng = np.random.default_rng(0)
    found.add_vectors(["dog", "rain", "bell", "wind"], rng.normal(size=(4, 300)).astype(np.float32))
    return found


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Retriever(Config(), vectors()).eval()


def test_batches_by_clip_and_by_caption():
    mels = np.zeros((8, 64), np.float32)
    truth = {"a dog": frozenset({"1.wav", "2.wav"}), "rain": frozenset({"1.wav"}), "a bell": frozenset({"2.wav"})}
    items = [Item("1.wav", mels, ("a dog", "rain")), Item("2.wav", mels[:5], ("a bell", "a dog"))]
    batch = make_batch(items, truth)
    assert batch.mels.shape == (2, 8, 64)
    assert batch.lengths.tolist() == [8, 5]
    assert batch.captions == ["a dog", "rain", "a bell", "a dog"]
    assert batch.pairs.tolist() == [[0, 0], [0, 1], [1, 2], [1, 3]]
    assert batch.answers.tolist() == [[True, True, False, True], [True, False, True, True]]
    by_caption = make_batch([Item("1.wav", mels, ("rain",)), Item("1.wav", mels, ("a dog",))], truth)
    assert by_caption.pairs.tolist() == [[0, 0], [1, 1]]
    assert by_caption.answers.all()


def test_padding():
    mels, lengths = pad([np.ones((6, 64), np.float32), np.ones((1, 64), np.float32)])
    assert mels.shape == (2, 8, 64)
    assert lengths.tolist() == [6, 4]
    assert mels[1, 1:].sum() == 0


@pytest.mark.parametrize("frames", [4, 5, 7, 25, 26, 27, 28, 751])
def test_frames_are_interpolated_as_published(model, frames):
    """`models/audio_encoders.py` of the published code interpolates to the number of frames and takes the mean."""
    mels = torch.randn(1, frames, 64)
    with torch.inference_mode():
        vectors, _ = model.audio_encoder(mels, torch.tensor([frames]))
        each = torch.nn.functional.interpolate(vectors.transpose(1, 2), frames, mode="linear", align_corners=False)
        expected = torch.nn.functional.normalize(each.mean(2), dim=1)
        found = model.encode(*pad([mels[0].numpy()]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_interpolation_weights_of_every_clip_alone():
    counts, lengths = torch.tensor([5, 3, 1]), torch.tensor([20, 15, 6])
    weights = interpolation_weights(counts, lengths, 5)
    assert weights.dtype == torch.float32
    for row, (count, length) in enumerate(zip(counts.tolist(), lengths.tolist(), strict=True)):
        frames = torch.randn(1, 2, count)
        expected = torch.nn.functional.interpolate(frames, length, mode="linear").mean(2)[0]
        torch.testing.assert_close(frames[0] @ weights[row, :count], expected)
        assert not weights[row, count:].any()
    torch.testing.assert_close(weights[0], torch.full((5,), 0.2))


@pytest.mark.parametrize("padding", ["clip", "batch"])
def test_where_clips_end_in_training(padding):
    torch.manual_seed(0)
    model = Retriever(Config(padding=padding), vectors()).eval()
    clips = [torch.randn(length, 64) for length in (30, 101)]
    batch = make_batch([Item("1", clips[0].numpy(), ("dog",)), Item("2", clips[1].numpy(), ("rain",))], TRUTH)
    with torch.inference_mode():
        found = Training(model, None).encode(batch)
        alone = torch.cat([model.encode(*pad([clip.numpy()])) for clip in clips])
        filled = torch.zeros(1, 101, 64)  # as `utils/data_utils.py` of the published code pads
        filled[0, :30] = clips[0]
        published = model.encode(filled, torch.tensor([101]))
    torch.testing.assert_close(found[1], alone[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0], alone[0] if padding == "clip" else published[0], rtol=1e-5, atol=1e-5)
    assert torch.nn.functional.cosine_similarity(alone[0], published[0], dim=0) < 0.99


def test_published_pooling_learns_from_padded_batches():
    torch.manual_seed(0)
    model = Retriever(Config(padding="batch", pooling_floor=0), vectors()).train()
    mels = [
        np.random.default_rng(row).normal(size=(length, 64)).astype(np.float32) for row, length in ((0, 30), (1, 9))
    ]
    batch = make_batch([Item("1", mels[0], ("dog",)), Item("2", mels[1], ("rain",))], TRUTH)
    Training(model, None).loss(batch, Training(model, None).encode(batch)).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with pytest.raises(ValueError, match="pooling_floor must be above 0 with padding: clip; found 0"):
        Config(pooling_floor=0)


def plateaus(values, threshold, patience=5):
    """Return after which values torch's scheduler, configured as in the published code, lowers the learning rate."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.1, patience=patience, threshold=threshold, threshold_mode="abs"
    )
    lowered = []
    for value in values:
        before = optimizer.param_groups[0]["lr"]
        scheduler.step(value)
        lowered.append(optimizer.param_groups[0]["lr"] < before)
    return lowered


def test_the_published_plateau_is_torchs():
    rng = np.random.default_rng(0)
    losses = [*(2 - 0.1 * np.arange(8)), *(1.2 - 0.004 * np.arange(20)), *(1 + rng.normal(0, 0.005, 30))]
    config = Config(monitor="loss", plateau_threshold=0.01)
    found = [config.lowers_rate([-loss for loss in losses[: count + 1]]) for count in range(len(losses))]
    assert found == plateaus(losses, 0.01)
    assert sum(found) > 2
    paper = [Config().lowers_rate([-loss for loss in losses[: count + 1]]) for count in range(len(losses))]
    assert paper == [is_plateau([-loss for loss in losses[: count + 1]], 5) for count in range(len(losses))]


def test_when_training_stops():
    falling = [-loss for loss in 2 - 0.0005 * np.arange(200)]
    assert not Config().stops(falling)
    assert Config().stops([*falling, *[-3.0] * 10])
    flat = Config(stop_deviation=0.01)
    assert not flat.stops(falling[:58])  # the published code needs sixty losses, with the untrained model's
    assert flat.stops(falling[:59])
    assert not flat.stops([*falling[:59], -1.5])
    assert flat.stops([*falling[:59], -1.5, *[-1.8] * 10])


def test_words_without_a_vector():
    known = vectors()
    texts = ["a dog", "dog"]
    model = Retriever(Config(score="dot"), known)
    torch.testing.assert_close(model.embed_text(texts)[0], model.embed_text(texts)[1])
    config = Config(score="dot", unknown="draw", center=False)
    prepare(known, config, ["a dog and rain"], seed=3)
    found = Retriever(config, known).embed_text(["a dog", "dog", "unheard of"]).numpy()
    unknown = known[UNKNOWN]
    np.testing.assert_allclose(found, [(unknown + known["dog"]) / 2, known["dog"], unknown], rtol=1e-5, atol=1e-6)


def test_words_keep_their_case():
    known = KeyedVectors(300)
    known.add_vectors(["Dog", "dog", "bark"], np.eye(3, 300, dtype=np.float32))
    model = Retriever(Config(score="dot", tokens="cased", unknown="draw", center=False), known)
    found = model.embed_text(["Dog dog barks"]).numpy()
    np.testing.assert_allclose(found[0, :3], np.full(3, 1 / 3), rtol=1e-6)


def test_the_yaml_file_has_every_key_at_its_default():
    content = yaml.safe_load((ROOT / "baseline" / "retriever.yaml").read_text())
    assert Config(**content) == Config()
    assert content.keys() == Config.model_fields.keys()


def word_file(path, words):
    """Write word vectors as text, in place of Google News, which has no "a", "and", "of" and "to"."""
    values = np.random.default_rng(0).normal(size=(len(words), 300))
    lines = [" ".join([word, *(f"{value:.4f}" for value in row)]) for word, row in zip(words, values, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["retriever", "captioner"])
def test_the_published_configs_train(name, clotho_like, tmp_path):
    folder = clotho_like({"development": 5, "validation": 2})
    words = word_file(tmp_path / "words.txt", ["In", "bird", "rain", "engine", "Door", "saw"])
    run = tmp_path / "run"
    arguments = ["train", f"baseline.{name}", "--data", str(folder), "--run", str(run), "--accelerator", "cpu"]
    arguments += ["--config", str(ROOT / "baseline" / f"{name}-published.yaml"), "--cache", str(tmp_path / "cache")]
    changes = {"words": words, "epochs": 1, "batch": 8}
    if name == "captioner":
        changes |= {"blocks": 1, "heads": 1, "head_size": 8, "hidden": 8, "max_words": 5}
    arguments += [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    assert command(parser(), arguments) == 0
    assert np.isfinite([float(value) for row in rows(run) for value in row.values()]).all()
    if name == "retriever":
        assert UNKNOWN in retriever.load_model(run / "checkpoints" / "best.ckpt").vectors


def test_embeddings_of_sounds_do_not_depend_on_the_batch(model):
    lengths = torch.tensor([200, 4_410, 22_050, 88_199])
    audio = torch.zeros(4, 88_199)
    for row, length in enumerate(lengths):
        audio[row, :length] = torch.randn(int(length)) * 0.1
    with torch.inference_mode():
        together = model.embed_audio(audio, lengths)
        alone = [model.embed_audio(audio[row : row + 1, :n], lengths[row : row + 1]) for row, n in enumerate(lengths)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))


def test_sounds_are_embedded_as_in_training(model):
    sound = np.random.default_rng(0).normal(0, 0.1, 30_000).astype(np.float32)
    with torch.inference_mode():
        trained = model.encode(*pad([LogMel()(sound)]))
        used = model.embed_audio(torch.from_numpy(sound)[None], torch.tensor([len(sound)]))
    torch.testing.assert_close(trained, used)


def test_text_and_score(model):
    texts = model.embed_text(["A dog", "rain and wind", "dog", "unheard of"])
    torch.testing.assert_close(texts[0], texts[2])
    assert texts.norm(dim=1).tolist() == pytest.approx([1, 1, 1, 0])
    plain = Retriever(Config(score="dot"), vectors())
    torch.testing.assert_close(plain.embed_text(["dog"])[0], torch.tensor(vectors()["dog"]))


def test_the_papers_slope_is_one_key_away():
    for slope in (0.1, -0.1):
        net = Retriever(Config(slope=slope), vectors()).audio_encoder
        assert {block.activation.negative_slope for block in net.blocks} == {slope}


@pytest.mark.parametrize("sampler", ["clip", "caption"])
def test_it_learns_to_tell_four_clips_apart(sampler):
    torch.manual_seed(0)
    model = Retriever(Config(dropout=0.0), vectors()).train()
    rng = np.random.default_rng(0)
    names = ["dog", "rain", "bell", "wind"]
    items = [
        Item(name, rng.normal(row, 1, (20, 64)).astype(np.float32), (f"a {name}", name))
        for row, name in enumerate(names)
    ]
    if sampler == "caption":
        items = [Item(item.name, item.mels, (caption,)) for item in items for caption in item.captions]
    truth = {text: frozenset({name}) for name in names for text in (name, f"a {name}")}
    batch = make_batch(items, truth)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(60):
        scores = model.encode(batch.mels, batch.lengths) @ model.embed_text(batch.captions).T
        loss = triplet(scores, batch.answers, batch.pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3
    assert batch.answers[scores.argmax(0), torch.arange(len(batch.captions))].all()  # each caption retrieves its clip


def test_a_checkpoint_without_its_word_vectors_is_refused(tmp_path, model):
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "config": Config().model_dump()}, checkpoint)
    with pytest.raises(words.BadRequest, match=r"words.bin: no such file"):
        retriever.load_model(checkpoint)
    words.write_vectors(vectors(), tmp_path / "words.bin")
    again = retriever.load_model(checkpoint)
    assert not again.training
    torch.testing.assert_close(again.embed_text(["dog rain"]), model.embed_text(["dog rain"]))
