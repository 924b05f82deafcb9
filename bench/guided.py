"""Measures of guided captioning: BERTScore between all pairs of captions, and beam search with a frozen GPT-2."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.measuring import Function, Measure, Row, duration, race, times

if TYPE_CHECKING:
    from torch import Tensor

CAPTIONS = 49_838  # number of captions in AudioCaps' training split
WORDS, SPREAD = 13, 4  # mean and standard deviation of the number of tokens in a caption, with special tokens
SIZE = 1024  # number of values of a token embedding of RoBERTa-large
PAIRS = 64  # number of pairs in a batch of bert-score
BATCHES = 8  # number of these batches that are measured
SIMILAR = 0.01  # the share of similar pairs that the estimate assumes

CLIPS, BEAMS, TOKENS, GUIDANCE, FRAMES = 8, 4, 20, 60, 10


def similarity(alone: Function, folder: Path) -> list[Row]:
    """Measure BERTScore of a block of captions, and estimate the time and disk space for AudioCaps."""
    from systems.caption_retrieval.similarity import SIDE

    block, batch, stored = alone(_similarity)
    embedding = CAPTIONS * alone(_embedding)
    ours, theirs = SIDE**2 / block, PAIRS / batch
    pairs = CAPTIONS * (CAPTIONS - 1) // 2
    similar_size = 12 * SIMILAR * pairs  # bytes
    disk = stored * CAPTIONS + similar_size
    what = f"BERTScore of caption pairs, {SIZE}-d tokens"
    note = f"a block of {SIDE} x {SIDE}; other: bert-score's padded batches of {PAIRS} pairs; without embedding tokens"
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
            f"… estimated for AudioCaps, {pairs / 1e9:.2f} billion pairs",
            duration(pairs / ours),
            duration(pairs / theirs),
        ),
        Row(
            "… token embeddings",
            duration(embedding),
            note="a model of RoBERTa-large's size, which embeds each caption by itself",
        ),
        Row(
            "… disk space",
            f"{disk / 1e9:.1f} GB",
            note=f"token embeddings, and {similar_size / 1e9:.2f} GB if {SIMILAR:.0%} of the pairs are similar",
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
    order = rng.permutation(2 * SIDE)  # for two sets with captions of all lengths, which are sorted by length
    rows, columns = np.sort(order[:SIDE]), np.sort(order[SIDE:])

    def batch(start: int) -> "Tensor":
        """Score pairs of similar length, from this pair of both sets, as bert-score's `greedy_cos_idf` does."""
        first, second = (tokens.some(numbers[start : start + PAIRS]) for numbers in (rows, columns))
        products = torch.bmm(first.values, second.values.transpose(1, 2))
        precision = (products.amax(2) * first.weights).sum(1)
        recall = (products.amax(1) * second.weights).sum(1)
        return 2 * precision * recall / (precision + recall)

    def block() -> "Tensor":
        return f1(tokens.some(rows), tokens.some(columns))

    def batches() -> "list[Tensor]":
        """Score batches of all lengths, from the shortest captions to the longest ones."""
        return [batch(start).cpu() for start in range(0, SIDE, SIDE // BATCHES)]

    torch.testing.assert_close(block().diagonal()[:PAIRS].cpu(), batch(0).cpu(), rtol=1e-3, atol=1e-3)
    # The result is copied to the CPU, because this waits until a GPU has finished.
    of_block, of_batches = race(lambda: block().cpu(), batches, rounds=2)
    return of_block, of_batches / BATCHES, 4 * SIZE * float(lengths.mean())


def _embedding() -> float:
    """Return the time in seconds to embed the tokens of one caption as `texts.embed` does."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {"hidden_size": SIZE, "intermediate_size": 4 * SIZE, "num_hidden_layers": 24, "num_attention_heads": 16}
    model = RobertaModel(RobertaConfig(**sizes)).eval().to(device)
    tokens = torch.randint(5, 30_000, (1, WORDS), device=device)
    with torch.inference_mode():
        return race(lambda: model(tokens, output_hidden_states=True).hidden_states[17].cpu(), rounds=5)[0]


def guided(alone: Function, folder: Path) -> list[Row]:
    """Measure beam search for captions with a frozen GPT-2, with and without a key/value cache."""
    cached, uncached = alone(_guided, folder / "gpt")
    what = f"guided captions of {TOKENS} tokens, {BEAMS} beams, {CLIPS} clips, DistilGPT-2's size"
    speed, uncached_speed = (f"{CLIPS / seconds:.3g} /s" for seconds in (cached, uncached))
    gain = uncached / cached
    return [Row(f"{what} / without the cache", speed, uncached_speed, times(gain), "≥ 3x", gain >= 3)]


def _guided(folder: Path) -> tuple[float, float]:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from systems.guided_gpt2.generator import Generator, LanguageModel, Memory, Steps
    from systems.parts import generation

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_layer=6)).save_pretrained(folder)
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    language = LanguageModel(str(folder))
    generator = Generator(language, 128, 60, 0.3).eval()
    rules = generation.Rules(language.start, language.end, -1, (), TOKENS, TOKENS)
    guidance, frames = torch.randint(50_000, (CLIPS, GUIDANCE)), torch.randn(CLIPS, FRAMES, 128)
    guidance_lengths, frame_lengths = torch.full((CLIPS,), GUIDANCE), torch.full((CLIPS,), FRAMES)

    def keys_values(clips: "Tensor") -> Memory:
        states = language(guidance[clips])
        return generator.remember(states, guidance_lengths[clips], frames[clips], frame_lengths[clips])

    def cached() -> generation.Generated:
        step = Steps(language, generator, keys_values(torch.arange(CLIPS)))
        return generation.beam(step, CLIPS, rules, BEAMS)

    def uncached() -> generation.Generated:
        clips = torch.arange(CLIPS)

        def step(ids: "Tensor", rows: "Tensor") -> "Tensor":
            nonlocal clips
            clips = clips[rows]
            return generator(language(ids)[:, -1:], keys_values(clips.unique_consecutive()))[:, 0]

        return generation.beam(step, CLIPS, rules, BEAMS)

    with torch.inference_mode():
        assert torch.equal(cached().ids, uncached().ids)
        seconds = race(cached, uncached, rounds=1)
    return seconds[0], seconds[1]


MEASURES: dict[str, Measure] = {"similarity": similarity, "guided": guided}
