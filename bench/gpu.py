"""Measures on a GPU: training epochs, the time that they wait for data, memory, and generating captions.

Weights and data are random. The sizes are those of Clotho's development split and of the published systems.
"""

import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import numpy as np

from bench import atae, clip_aac
from bench.measuring import CLIPS, Function, Measure, Row, duration, times
from evaluation.data.audio import LogMel
from evaluation.data.dataset import Clip, Split

if TYPE_CHECKING:
    import lightning
    import torch
    from gensim.models import KeyedVectors

    from systems.training import Batches

PRECISIONS = ("32-true", "bf16-mixed")
SYSTEMS = {  # the systems whose epochs are measured
    "retriever": "the baseline retriever",
    "captioner": "the baseline captioner",
    "atae": "ATAE's adapters, with embeddings in memory",
}
NUMBER_OF_CLIPS, CAPTIONS = CLIPS["development"], 5
SECONDS = (15, 30)  # the shortest and the longest clip, as in Clotho; lengths are drawn uniformly
WORDS, VOCABULARY = 11, 4363  # words of a caption, as in Clotho on average; size of Clotho's vocabulary
EMBEDDINGS_PER_SECOND, EMBEDDING = 1000 / 320, 2048  # of CNN14
NOISE = 2**27  # number of random values that the clips share
BATCHES_ON_DEVICE = 16  # number of different batches in an epoch that need not wait for data
WARM_UP, STEPS = 3, 10  # training steps that do not count, and those that do
GENERATED, BEAMS, LONGEST = 16, 4, 20  # clips that are captioned together, beams, and words of each caption


class Work(NamedTuple):
    """The cost of some work on a GPU: the duration in seconds, and the peak memory of the GPU in bytes."""

    seconds: float
    memory: int


class Epoch(NamedTuple):
    """Two measurements of a training epoch: with batches from memory, and with batches that are on the GPU already."""

    from_memory: Work
    on_device: Work

    @property
    def waiting(self) -> float:
        """The share of the epoch in which the GPU waits for data, in [0, 1]."""
        return max(0.0, 1 - self.on_device.seconds / self.from_memory.seconds)


def gpu(alone: Function, folder: Path) -> list[Row]:
    """Measure training and captioning on a GPU, in float32 and with bfloat16. On other machines, say so in one row."""
    name = alone(_name)
    if name is None:
        return [Row("training and captioning on a GPU", "not measured", note="needs a CUDA GPU")]
    rows = []
    for system, title in SYSTEMS.items():
        single, mixed = (alone(_epoch, system, precision, folder) for precision in PRECISIONS)
        what = f"epoch of {title} on {name}, {NUMBER_OF_CLIPS} clips with {CAPTIONS} captions: float32 / bfloat16"
        rows.append(_compared(what, single.from_memory, mixed.from_memory))
        worst = max(single.waiting, mixed.waiting)
        rows.append(
            Row(
                "… waiting for data",
                f"{single.waiting:.1%}",
                f"{mixed.waiting:.1%}",
                target="< 5 %",
                met=worst < 0.05,
                note="compared with an epoch whose batches are on the GPU",
            )
        )
        rows.append(_memory(single.from_memory, mixed.from_memory))
    for beams, title in ((1, "greedy decoding"), (BEAMS, f"{BEAMS} beams")):
        single, mixed = (alone(_captions, beams, precision) for precision in PRECISIONS)
        speeds = f"{GENERATED / single.seconds:.3g} /s", f"{GENERATED / mixed.seconds:.3g} /s"
        what = f"captions of {LONGEST} words by the baseline captioner on {name}, {title}: float32 / bfloat16"
        rows.append(Row(what, *speeds, times(single.seconds / mixed.seconds), note="from log-mel energies on the GPU"))
    alone(atae.write_models, folder)
    for measured, title in (
        (_clip_aac_steps, f"CLIP-AAC, {clip_aac.BATCH} clips of {clip_aac.SECONDS} s"),
        (_baseline_2025_steps, f"the DCASE 2025 baseline, {atae.BATCH} clips of {atae.SECONDS} s"),
    ):
        single, mixed = (alone(measured, precision, folder) for precision in PRECISIONS)
        rows.append(_compared(f"training step of {title}, on {name}: float32 / bfloat16", single, mixed))
        rows.append(_memory(single, mixed))
    return rows


def _compared(what: str, single: Work, mixed: Work) -> Row:
    return Row(what, duration(single.seconds), duration(mixed.seconds), times(single.seconds / mixed.seconds))


def _memory(single: Work, mixed: Work) -> Row:
    return Row("… peak memory of the GPU", f"{single.memory / 2**30:.2f} GiB", f"{mixed.memory / 2**30:.2f} GiB")


def _name() -> str | None:
    """Return the name of the GPU, or None if there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name()


# Epochs --------------------------------------------------------------------------------------------------------------


def _epoch(system: str, precision: str, folder: Path) -> Epoch:
    """Measure the second epoch of a training by Lightning, from memory and with batches on the GPU."""
    from torch.utils.data import DataLoader

    from systems.parts.devices import default_device

    if system == "retriever":
        training, batches = _retriever()
    elif system == "captioner":
        training, batches = _captioner()
    else:
        training, batches = _atae(folder)
    batches.trainer = SimpleNamespace(world_size=1, global_rank=0)
    loader = batches.train_dataloader()
    from_memory = _fit(training, loader, precision)
    on_device: list[NamedTuple] = []
    for batch in loader:
        if len(on_device) == BATCHES_ON_DEVICE:
            break
        on_device.append(training.transfer_batch_to_device(batch, default_device(), 0))
    repeated = [on_device[number % len(on_device)] for number in range(len(loader))]
    unchanged = DataLoader(repeated, batch_size=None, collate_fn=lambda batch: batch)
    return Epoch(from_memory, _fit(training, unchanged, precision))


def _fit(training: "lightning.LightningModule", batches: Iterable, precision: str) -> Work:
    """Train two epochs as `Run.fit` does, without its files, and return the cost of the second one."""
    import lightning

    from systems.training import quiet_lightning

    ends = []

    class Clock(lightning.Callback):
        """A callback that notes when the GPU has finished an epoch."""

        def on_train_epoch_end(self, *arguments: object) -> None:
            _wait()
            ends.append(time.perf_counter())

    with warnings.catch_warnings(), quiet_lightning():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=2,
            precision=precision,
            devices=1,
            logger=False,
            callbacks=[Clock()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            deterministic="warn",
        )
        trainer.fit(training, batches)
    return Work(ends[1] - ends[0], _peak())


def _captions_of_clips() -> list[tuple[str, ...]]:
    """Return random captions for each clip. Frequent words are drawn more often."""
    rng = np.random.default_rng(0)
    numbers = rng.zipf(1.3, (NUMBER_OF_CLIPS, CAPTIONS, WORDS)).clip(max=VOCABULARY)
    clips = []
    for clip in numbers.tolist():
        clips.append(tuple(" ".join(f"word{number}" for number in caption) for caption in clip))
    return clips


def _word_vectors(size: int) -> "KeyedVectors":
    from gensim.models import KeyedVectors

    vectors = KeyedVectors(size)
    names = [f"word{number}" for number in range(1, VOCABULARY + 1)]
    vectors.add_vectors(names, np.random.default_rng(0).normal(size=(VOCABULARY, size)).astype(np.float32))
    return vectors


def _sequences(number: int, per_second: float, size: int) -> list[np.ndarray]:
    """Return random sequences of vectors for clips of random lengths. They are parts of one array of half a GB."""
    rng = np.random.default_rng(0)
    lengths = (rng.uniform(*SECONDS, number) * per_second).astype(int)
    noise = rng.standard_normal((NOISE // size, size), dtype=np.float32)
    starts = rng.integers(0, len(noise) - lengths)
    return [noise[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def _log_mels() -> list[np.ndarray]:
    return _sequences(NUMBER_OF_CLIPS, LogMel.sample_rate / LogMel.hop, LogMel.mels)


def _retriever() -> "tuple[lightning.LightningModule, Batches]":
    from baseline.retriever import Config, Item, Retriever, Training, make_batch
    from systems.training import Batches

    captions = _captions_of_clips()
    items = []
    truth: dict[str, frozenset[str]] = {}
    for number, (mels, texts) in enumerate(zip(_log_mels(), captions, strict=True)):
        items.append(Item(f"{number}.wav", mels, texts))
        for text in texts:
            truth[text] = truth.get(text, frozenset()) | {f"{number}.wav"}
    config = Config()
    training = Training(Retriever(config, _word_vectors(300)), Split("validation", ()))
    return training, Batches(items, [], partial(make_batch, truth=truth), config.batch, seed=0)


def _captioner() -> "tuple[lightning.LightningModule, Batches]":
    from baseline.captioner import Captioner, Config, Training, make_batch
    from baseline.retriever import Item
    from systems.parts.vocabulary import from_captions
    from systems.training import Batches

    captions = _captions_of_clips()
    vocabulary = from_captions([text for texts in captions for text in texts])
    items = [Item("", mels, texts) for mels, texts in zip(_log_mels(), captions, strict=True)]
    config = Config()
    training = Training(Captioner(config, vocabulary), Split("validation", ()))
    collate = partial(make_batch, vocab=vocabulary, longest=config.longest)
    return training, Batches(items, [], collate, config.batch, seed=0)


def _atae(folder: Path) -> "tuple[lightning.LightningModule, Batches]":
    import torch

    from systems.atae import Config, Material, Retriever, Training
    from systems.parts import encoders, texts
    from systems.training import Batches

    clips = [Clip(f"{number}.wav", captions, Path()) for number, captions in enumerate(_captions_of_clips())]
    distinct = {caption for clip in clips for caption in clip.captions}
    network = torch.nn.Module()
    network.sample_rate, network.timestamp_embedding_size = 32_000, EMBEDDING
    encoder = encoders.Encoder("random", encoders, network)
    config = Config(text_encoder="train")
    sounds = _sequences(len(clips), EMBEDDINGS_PER_SECOND, EMBEDDING)
    words = _sequences(len(distinct), WORDS / min(SECONDS), 300)
    with (
        mock.patch.object(encoders, "load_encoder", return_value=encoder),
        mock.patch("systems.atae.training.embed", return_value=sounds),
        mock.patch.object(texts, "embed", return_value=words),
    ):
        model = Retriever(config, _word_vectors(300))
        material = Material(clips, [], model, folder)
    training = Training(model, Split("validation", ()), material)
    return training, Batches(material.pairs, [], material.batch, config.batch, seed=0)


# Captions and single training steps ----------------------------------------------------------------------------------


def _captions(beams: int, precision: str) -> Work:
    """Generate captions of `LONGEST` words for clips of the longest duration."""
    import torch

    from baseline.captioner import Captioner, Config
    from systems.parts import generation, vocabulary
    from systems.parts.devices import default_device

    device = default_device()
    torch.manual_seed(0)
    words = vocabulary.Vocabulary([f"word{number}" for number in range(VOCABULARY)])
    model = Captioner(Config(), words).to(device).eval()
    frames = SECONDS[1] * LogMel.sample_rate // LogMel.hop
    mels = torch.randn(GENERATED, frames, LogMel.mels, device=device)
    lengths = torch.full((GENERATED,), frames, device=device)
    rules = vocabulary.rules(LONGEST, LONGEST)

    def caption() -> None:
        with torch.inference_mode(), _autocast(precision, device):
            steps = model.steps(*model.audio_encoder(mels, lengths))
            if beams == 1:
                generation.greedy(steps, GENERATED, rules, device)
            else:
                generation.beam(steps, GENERATED, rules, beams, device=device)

    return _mean(caption)


def _clip_aac_steps(precision: str, folder: Path) -> Work:
    return _training_steps(*clip_aac.published(), precision)


def _baseline_2025_steps(precision: str, folder: Path) -> Work:
    from systems.parts.devices import default_device

    return _training_steps(*atae.published(folder, default_device()), precision)


def _training_steps(training: "lightning.LightningModule", batch: NamedTuple, precision: str) -> Work:
    from systems.parts.devices import default_device

    device = default_device()
    training = training.to(device).train()
    on_device = training.transfer_batch_to_device(batch, device, 0)
    optimizer = training.configure_optimizers()

    def step() -> None:
        optimizer.zero_grad()
        with _autocast(precision, device):
            loss = training.training_step(on_device, 0)
        loss.backward()
        optimizer.step()

    return _mean(step)


def _mean(work: Callable[[], None]) -> Work:
    """Return the mean cost of some work, after a few calls that do not count."""
    for _ in range(WARM_UP):
        work()
    _wait()
    began = time.perf_counter()
    for _ in range(STEPS):
        work()
    _wait()
    return Work((time.perf_counter() - began) / STEPS, _peak())


def _autocast(precision: str, device: "torch.device") -> "torch.autocast":
    """Return the context in which Lightning computes with a precision."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


def _wait() -> None:
    """Wait until the GPU has finished all its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak() -> int:
    """Return the peak memory of the GPU in bytes since the process began."""
    import torch

    return torch.cuda.max_memory_allocated()


MEASURES: dict[str, Measure] = {"gpu": gpu}
