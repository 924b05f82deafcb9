"""The baseline retriever: its batches, its model."""

import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors

from baseline import retriever
from baseline.retriever import Config, Item, Retriever, make_batch, pad, upsample
from evaluation.audio import LogMel
from systems.parts import words
from systems.parts.losses import triplet


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


def test_upsampling_equals_interpolation_of_every_clip_alone():
    frames, lengths = torch.randn(2, 5, 300), torch.tensor([5, 3])
    found = upsample(frames, lengths)
    for row, length in enumerate(lengths):
        alone = frames[row : row + 1, :length].transpose(1, 2)
        expected = torch.nn.functional.interpolate(alone, size=4 * int(length), mode="linear").transpose(1, 2)
        torch.testing.assert_close(found[row, : 4 * int(length)], expected[0])


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
    assert batch.answers[scores.argmax(0), torch.arange(len(batch.captions))].all()  # each finds its clip


def test_a_checkpoint_without_its_word_vectors_is_refused(tmp_path, model):
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "config": Config().model_dump()}, checkpoint)
    with pytest.raises(words.BadRequest, match=r"words.bin: no such file"):
        retriever.load_model(checkpoint)
    words.write(vectors(), tmp_path / "words.bin")
    again = retriever.load_model(checkpoint)
    assert not again.training
    torch.testing.assert_close(again.embed_text(["dog rain"]), model.embed_text(["dog rain"]))
