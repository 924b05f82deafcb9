"""What guided captioning costs: BERTScore between all pairs of captions, and captions written by a frozen GPT-2."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.measuring import Function, Row, duration, race, times

if TYPE_CHECKING:
    from torch import Tensor

CAPTIONS = 49_838  # of AudioCaps' training split
WORDS, SPREAD = 13, 4  # tokens of a caption, special ones among them: mean and standard deviation
SIZE = 1024  # of RoBERTa-large's token embeddings
PAIRS = 64  # that bert-score looks at together
SIMILAR = 0.01  # share of pairs that the projection takes for similar

CLIPS, BEAMS, TOKENS, GUIDANCE, FRAMES = 8, 4, 20, 60, 10


def similarity(alone: Function, folder: Path) -> list[Row]:
    """BERTScore of a block of captions, and what that comes to for AudioCaps."""
    from systems.caption_retrieval.similarity import SIDE

    block, one_by_one, stored = alone(_similarity)
    embedded = CAPTIONS * alone(_embedding)
    ours, theirs = SIDE**2 / block, PAIRS / one_by_one
    pairs = CAPTIONS * (CAPTIONS - 1) // 2
    kept = 12 * SIMILAR * pairs
    disk = stored * CAPTIONS + kept
    what = f"BERTScore of caption pairs, {SIZE}-d tokens"
    note = f"a block of {SIDE} x {SIDE}; the other is bert-score's padded batches of {PAIRS} pairs, tokens embedded"
    return [
        Row(
            f"{what} / in batches",
            f"{ours:.3g} /s",
            f"{theirs:.3g} /s",
            times(ours / theirs),
            "≥ 2x",
            ours >= 2 * theirs,
            note,
        ),
        Row(
            f"… projected for AudioCaps, {pairs / 1e9:.2f} billion pairs",
            duration(pairs / ours),
            duration(pairs / theirs),
        ),
        Row("… and its token embeddings", duration(embedded), note="RoBERTa-large's size, a caption at a time, once"),
        Row(
            "… and its disk",
            f"{disk / 1e9:.1f} GB",
            note=f"token embeddings; {SIMILAR:.0%} of pairs similar {kept / 1e9:.2f} GB",
        ),
    ]


def _similarity() -> tuple[float, float, float]:
    import torch

    from systems.caption_retrieval.similarity import SIDE, Tokens, f1

    rng = np.random.default_rng(0)
    lengths = np.sort(rng.normal(WORDS, SPREAD, 2 * SIDE).round().clip(4).astype(int))
    values = rng.standard_normal((lengths.sum(), SIZE), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    starts = np.concatenate([[0], lengths.cumsum()])
    counts = np.ones(len(values), bool)
    counts[starts[:-1]] = counts[starts[1:] - 1] = False
    tokens = Tokens(values.astype(np.float16), counts, starts)
    order = rng.permutation(2 * SIDE)  # two parts of captions of all lengths, each sorted
    rows, columns = np.sort(order[:SIDE]), np.sort(order[SIDE:])

    def batch() -> "Tensor":
        """The first pairs of both parts, as bert-score's `greedy_cos_idf` has them."""
        one, other = tokens.some(rows[:PAIRS]), tokens.some(columns[:PAIRS])
        products = torch.bmm(one.values, other.values.transpose(1, 2))
        precision = (products.amax(2) * one.weights).sum(1)
        recall = (products.amax(1) * other.weights).sum(1)
        return 2 * precision * recall / (precision + recall)

    def block() -> "Tensor":
        return f1(tokens.some(rows), tokens.some(columns))

    torch.testing.assert_close(block().diagonal()[:PAIRS].cpu(), batch().cpu(), rtol=1e-3, atol=1e-3)
    began = time.perf_counter()
    block().cpu()  # a GPU has only then done it
    seconds = time.perf_counter() - began
    return seconds, race(batch, rounds=5)[0], 4 * SIZE * float(lengths.mean())


def _embedding() -> float:
    """Seconds that a caption takes, as `texts.embed` asks for it."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {"hidden_size": SIZE, "intermediate_size": 4 * SIZE, "num_hidden_layers": 24, "num_attention_heads": 16}
    model = RobertaModel(RobertaConfig(**sizes)).eval().to(device)
    tokens = torch.randint(5, 30_000, (1, WORDS), device=device)
    with torch.inference_mode():
        return race(lambda: model(tokens, output_hidden_states=True).hidden_states[17].cpu(), rounds=5)[0]


def guided(alone: Function, folder: Path) -> list[Row]:
    """Captions by beam search over a frozen GPT-2, with and without keeping its keys and values."""
    kept, uncached = alone(_guided, folder / "gpt")
    what = f"guided captions of {TOKENS} tokens, {BEAMS} beams, {CLIPS} clips, DistilGPT-2's size"
    speed = [f"{CLIPS / seconds:.3g} /s" for seconds in (kept, uncached)]
    return [Row(f"{what} / without the cache", *speed, times(uncached / kept), "≥ 3x", uncached >= 3 * kept)]


def _guided(folder: Path) -> tuple[float, float]:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from systems.guided_gpt2.generator import Generator, LanguageModel, Steps
    from systems.parts import generation

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_layer=6)).save_pretrained(folder)
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    language = LanguageModel(str(folder))
    learnt = Generator(language, 128, 60, 0.3).eval()
    rules = generation.Rules(language.start, language.end, -1, (), TOKENS, TOKENS)
    guidance, frames = torch.randint(50_000, (CLIPS, GUIDANCE)), torch.randn(CLIPS, FRAMES, 128)
    lengths = torch.full((CLIPS,), GUIDANCE), torch.full((CLIPS,), FRAMES)

    def remembered(clips: "Tensor") -> object:
        read = language(guidance[clips])
        return learnt.remember(read, lengths[0][clips], frames[clips], lengths[1][clips])

    def kept() -> generation.Generated:
        step = Steps(language, learnt, remembered(torch.arange(CLIPS)))
        return generation.beam(step, CLIPS, rules, BEAMS)

    def uncached() -> generation.Generated:
        clips = torch.arange(CLIPS)

        def step(ids: "Tensor", rows: "Tensor") -> "Tensor":
            nonlocal clips
            clips = clips[rows]
            return learnt(language(ids)[:, -1:], remembered(clips.unique_consecutive()))[:, 0]

        return generation.beam(step, CLIPS, rules, BEAMS)

    with torch.inference_mode():
        assert torch.equal(kept().ids, uncached().ids)
        seconds = race(kept, uncached, rounds=1)
    return seconds[0], seconds[1]


MEASURES: dict[str, Callable[[Function, Path], list[Row]]] = {"similarity": similarity, "guided": guided}
