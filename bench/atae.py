"""Measure of the DCASE 2025 baseline at its published size: a training step of ATAE with PaSST and RoBERTa-large."""

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measuring import Function, Measure, Row, duration
from evaluation.data.dataset import Split

if TYPE_CHECKING:
    import torch

    from systems.atae import Training
    from systems.atae.training import Batch

BATCH, SECONDS, TOKENS = 4, 30, 20  # the clips are as long as Clotho's longest clip
CONFIG = Path(__file__).parents[1] / "systems" / "atae" / "dcase2025-baseline.yaml"


def baseline_2025(alone: Function, folder: Path) -> list[Row]:
    """Measure a training step of the DCASE 2025 baseline. The weights are random."""
    alone(write_models, folder)
    seconds, memory, before, device = alone(_step, folder)
    what = f"DCASE 2025 baseline (PaSST, RoBERTa-large): training step, {BATCH} clips of {SECONDS} s, on {device}"
    note = f"includes {_gibibytes(before)} for model and libraries; the second step; measured once"
    return [
        Row(what, duration(seconds), note=f"{BATCH / seconds:.3g} clips/s; published batch: 64"),
        Row("… peak memory", _gibibytes(memory), note=note),
    ]


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def write_models(folder: Path) -> None:
    """Write PaSST and RoBERTa-large with random weights, and a tokeniser of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    from systems.parts.encoders import passt

    arch = "passt_s_p16_s16_128_ap468"
    torch.save(passt.PaSST(arch, logits=True).state_dict(), folder / passt.PUBLISHED[arch].file_name)
    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"word{number}" for number in range(1000))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "roberta")
    size = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, **size)
    RobertaModel(config).save_pretrained(folder / "roberta")


def published(folder: Path, device: "torch.device") -> "tuple[Training, Batch]":
    """Return the training of the DCASE 2025 baseline and a batch, both on a device. `write_models` wrote the models."""
    import torch

    from systems import contract
    from systems.atae import Config, Retriever, Training
    from systems.atae.training import Batch

    settings = [f"audio_weights={folder}", f"text_encoder={folder / 'roberta'}", f"batch={BATCH}"]
    torch.manual_seed(0)
    model = Retriever(contract.configure(Config, CONFIG, settings)).to(device)
    training = Training(model, Split("validation", ()), None)  # type: ignore[arg-type]  # the batch below needs no material
    training.log = lambda *_, **__: None  # there is no trainer to log to
    numbers = torch.arange(BATCH, device=device)
    captions = [" ".join(f"word{BATCH * position + row}" for position in range(TOKENS)) for row in range(BATCH)]
    sounds = torch.rand(BATCH, SECONDS * model.sample_rate, device=device) - 0.5
    lengths = torch.full((BATCH,), sounds.shape[1], device=device)
    ones = torch.ones(BATCH, device=device)
    return training, Batch(sounds, lengths, captions, ones, numbers, numbers[:, None], numbers)


def _step(folder: Path) -> tuple[float, int, int, str]:
    """Make two training steps.

    Returns:
        The duration of the second step in seconds, the peak memory in bytes after the steps and before them, and the
        device. On a GPU, the memory is that of the GPU.
    """
    from systems.parts.devices import default_device

    device = default_device()
    training, batch = published(folder, device)
    optimizer = training.configure_optimizers()
    before = _peak(device.type)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = training.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        loss.item()  # wait for the GPU
        seconds = time.perf_counter() - began
    return seconds, _peak(device.type), before, device.type


def _peak(device: str) -> int:
    """Return the peak memory of the process or, on a GPU, of the GPU in bytes."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


MEASURES: dict[str, Measure] = {"baseline-2025": baseline_2025}
