"""Measures of captioners: beam search with and without a key/value cache, and a training epoch."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.measuring import Function, Measure, Row, duration, race, times
from evaluation.data.dataset import read_dataset
from evaluation.data.soundscapes import generate, grammar

if TYPE_CHECKING:
    from torch import Tensor

CLIPS, FRAMES = 8, 375  # 30 s, as Clotho's longest clip: one frame every 80 ms
WORDS, BEAMS = 30, 4  # words in a caption; beams for each clip
VOCABULARY = 4367  # size of the vocabulary of Clotho's development captions


def generation(alone: Function, folder: Path) -> list[Row]:
    """Measure beam search for captions of 30 words with a decoder of the published size."""
    cached, uncached, theirs, ratio = alone(_generation)
    speed, uncached_speed, their_speed = (f"{CLIPS / seconds:.3g} /s" for seconds in (cached, uncached, theirs))
    what = f"captions of {WORDS} words, {BEAMS} beams, {CLIPS} clips of {FRAMES} frames"
    note = f"BART's decoder of the same width and depth; the kit's decoder has {ratio:.2f} times its parameters"
    gain, gain_over_theirs = uncached / cached, theirs / cached
    return [
        Row(f"{what} / the decoder without its cache", speed, uncached_speed, times(gain), "≥ 3x", gain >= 3),
        Row(
            f"{what} / transformers' generate",
            speed,
            their_speed,
            times(gain_over_theirs),
            "≥ 1x",
            gain_over_theirs >= 1,
            note,
        ),
    ]


def _generation() -> tuple[float, float, float, float]:
    import torch
    from transformers import BartConfig, BartForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    from systems.parts import generation
    from systems.parts.decoder import CachedSteps, Decoder
    from systems.parts.vocabulary import END, PADDING, START

    torch.manual_seed(0)
    size, blocks, heads, hidden = 512, 3, 4, 512
    decoder = Decoder(VOCABULARY, size, size, blocks=blocks, heads=heads, head_size=size // heads, hidden=hidden).eval()
    embedding = torch.nn.Embedding(VOCABULARY, size)
    memory, lengths = torch.randn(CLIPS, FRAMES, size), torch.full((CLIPS,), FRAMES)
    rules = generation.Rules(START, END, PADDING, (), WORDS, WORDS)

    def uncached() -> Callable[["Tensor", "Tensor"], "Tensor"]:
        clips = torch.arange(CLIPS)

        def step(ids: "Tensor", rows: "Tensor") -> "Tensor":
            nonlocal clips
            clips = clips[rows]
            remaining = clips.unique_consecutive()
            return decoder(embedding(ids), memory[remaining], lengths[remaining])[:, -1]

        return step

    def search(step: Callable[["Tensor", "Tensor"], "Tensor"]) -> generation.Generated:
        return generation.beam(step, CLIPS, rules, BEAMS)

    shape = BartConfig(
        vocab_size=VOCABULARY,
        d_model=size,
        encoder_layers=1,
        encoder_ffn_dim=1,
        decoder_layers=blocks,
        decoder_attention_heads=heads,
        decoder_ffn_dim=hidden,
        max_position_embeddings=64,
        pad_token_id=PADDING,
        bos_token_id=START,
        decoder_start_token_id=START,
        eos_token_id=END,
        forced_eos_token_id=None,
    )
    bart = BartForConditionalGeneration(shape).eval()
    settings = {"num_beams": BEAMS, "do_sample": False, "min_new_tokens": WORDS, "max_new_tokens": WORDS}

    def theirs() -> "Tensor":
        return bart.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            attention_mask=torch.ones(CLIPS, FRAMES, dtype=torch.int64),
            **settings,
        )

    with torch.inference_mode():
        step = CachedSteps(decoder, memory, lengths, lambda ids: embedding(ids[:, -1:]))
        captions = search(step)
        assert torch.equal(captions.ids, search(uncached()).ids)
        assert captions.ids.shape[1] == WORDS == theirs().shape[1] - 1
        seconds = race(
            lambda: search(CachedSteps(decoder, memory, lengths, lambda ids: embedding(ids[:, -1:]))),
            lambda: search(uncached()),
            theirs,
            rounds=2,
        )
    size_of_ours = sum(parameter.numel() for parameter in (*decoder.parameters(), *embedding.parameters()))
    size_of_theirs = sum(parameter.numel() for parameter in bart.model.decoder.parameters())
    return *seconds, size_of_ours / size_of_theirs


class Epoch(NamedTuple):
    """The duration of an epoch in seconds, and the peak memory of the process in bytes."""

    seconds: float
    memory: int


def captioner(alone: Function, folder: Path) -> list[Row]:
    """Measure a training epoch of the baseline captioner on the default data."""
    data, clips = folder / "captioner", generate.CLIPS["development"]
    generate.make_soundscapes(data, clips={"development": clips}, progress=False)
    epoch = alone(_epoch, data, folder)
    what = f"training epoch of the captioner, {clips} clips, {grammar.CAPTIONS} captions each"
    return [
        Row(what, duration(epoch.seconds), note=f"{clips / epoch.seconds:.3g} clips/s; measured once"),
        Row("… peak memory of the process", f"{epoch.memory / 2**20:.0f} MiB"),
    ]


def _epoch(data: Path, cache: Path) -> Epoch:
    import torch

    from baseline.captioner import Captioner, Config, Training, make_batch, make_items
    from systems.parts import vocabulary

    split = read_dataset(data, "development")["development"]
    config = Config()
    words = vocabulary.from_captions(split.all_captions)
    torch.manual_seed(0)
    training = Training(Captioner(config, words), split)
    training.log = lambda *_, **__: None  # there is no trainer to log to
    items = make_items(split, training.model.log_mel, cache)
    optimizer = training.configure_optimizers()
    began = time.perf_counter()
    for start in range(0, len(items), config.batch):
        optimizer.zero_grad()
        batch = make_batch(items[start : start + config.batch], words, config.longest)
        training.training_step(batch, 0).backward()
        training.on_before_optimizer_step(optimizer)
        optimizer.step()
    unit = 1 if sys.platform == "darwin" else 1024
    return Epoch(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


MEASURES: dict[str, Measure] = {"generation": generation, "captioner": captioner}
