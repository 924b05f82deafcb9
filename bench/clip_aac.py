"""Measures of CLIP-AAC at its published size: training steps of its parts, captioning with and without text head."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measuring import Function, Measure, Row, duration, times
from evaluation.data.dataset import Split

if TYPE_CHECKING:
    from torch import Tensor

    from systems.clip_aac import Batch, ClipAac, Training

BATCH, SECONDS = 8, 30  # the clips are as long as Clotho's longest clip
PARTS = {
    "all": "heads and decoder",
    "audio": "audio head",
    "text": "text head",
    "decoder": "decoder",
}
CAPTIONED = 2  # clips that are captioned


def clip_aac(alone: Function, folder: Path) -> list[Row]:
    """Measure training steps of CLIP-AAC, and captioning from its checkpoints. The weights are random."""
    rows = []
    for part, title in PARTS.items():
        seconds, memory, before = alone(_step, part)
        note = f"includes {_mebibytes(before)} for model and libraries; with activation checkpointing; measured once"
        what = f"CLIP-AAC's {title}: training step, {BATCH} clips of {SECONDS} s"
        rows.append(Row(what, duration(seconds), note=f"{BATCH / seconds:.3g} clips/s"))
        rows.append(Row("… peak memory of the process", _mebibytes(memory), note=note))
    alone(_checkpoints, folder)
    without, memory_without = alone(_captions, folder / "inference.ckpt")
    with_head, memory_with = alone(_captions, folder / "best.ckpt")
    what = f"captioning {CAPTIONED} clips of {SECONDS} s, including loading, without text head / with it"
    rows.append(Row(what, duration(without), duration(with_head), times(with_head / without)))
    ratio = times(memory_with / memory_without)
    rows.append(Row("… peak memory of the process", _mebibytes(memory_without), _mebibytes(memory_with), ratio))
    return rows


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _model() -> "ClipAac":
    import torch

    from systems.clip_aac import ClipAac, Config, clip_tokenizer, heads
    from systems.parts.vocabulary import Vocabulary

    torch.manual_seed(0)
    tokenizer = clip_tokenizer.train(["rain"])
    tokenizer.add_tokens([f"piece {number}" for number in range(heads.WORDS - tokenizer.get_vocab_size())])
    words = [f"word{number}" for number in range(4363)]  # the size of Clotho's vocabulary
    return ClipAac(Config(init="random", tokenizer="train", recompute=True), Vocabulary(words), tokenizer)


def published() -> "tuple[Training, Batch]":
    """Return the training of CLIP-AAC at its published size, with random weights, and a batch."""
    import torch

    from systems.clip_aac import Batch, Training

    model = _model().train()
    sounds = torch.rand(BATCH, SECONDS * 44100) - 0.5
    numbers = torch.arange(BATCH)
    ids = torch.randint(4, len(model.vocabulary), (BATCH, 13))  # an average caption
    captions = [f"rain falls on roof {number} and a car drives by in the distance" for number in range(BATCH)]
    batch = Batch(sounds, torch.full((BATCH,), sounds.shape[1]), ids, captions, numbers, numbers[:, None])
    training = Training(model, Split("validation", ()))
    training.log = lambda *_, **__: None
    return training, batch


def _step(part: str) -> tuple[float, int, int]:
    """Make a training step of one of `PARTS`.

    Returns:
        The duration in seconds, and the peak memory in bytes after the step and before it.
    """
    import torch

    training, batch = published()
    model, sounds, ids, captions = training.model, batch.sounds, batch.ids, batch.captions
    optimizer = training.configure_optimizers()
    before = _peak()

    def decode() -> "Tensor":
        embeddings = torch.rand(BATCH, 1, model.config.size)
        return model.decoder(model.embedding(ids), embeddings, torch.ones(BATCH, dtype=torch.int64)).logsumexp(2)

    losses: dict[str, Callable[[], Tensor]] = {
        "all": lambda: training.training_step(batch, 0),
        "audio": lambda: model.heads.embed_audio(sounds),
        "text": lambda: model.text_vectors(captions),
        "decoder": decode,
    }
    began = time.perf_counter()
    losses[part]().sum().backward()
    optimizer.step()
    return time.perf_counter() - began, _peak(), before


def _checkpoints(folder: Path) -> None:
    import torch

    from systems.clip_aac import Training, strip

    model = _model()
    state = {"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}
    Training(model, Split("validation", ())).on_save_checkpoint(state)
    torch.save(state, folder / "best.ckpt")
    strip(folder / "best.ckpt", folder / "inference.ckpt")


def _captions(checkpoint: Path) -> tuple[float, int]:
    import torch

    from systems.clip_aac import load_model

    sounds = torch.rand(CAPTIONED, SECONDS * 44100, generator=torch.Generator().manual_seed(0)) - 0.5
    began = time.perf_counter()
    with torch.inference_mode():
        load_model(checkpoint).caption(sounds, torch.full((CAPTIONED,), sounds.shape[1]))
    return time.perf_counter() - began, _peak()


MEASURES: dict[str, Measure] = {"clip-aac": clip_aac}
