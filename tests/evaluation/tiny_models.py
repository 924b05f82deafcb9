"""Models with a few weights in place of the published ones, and helpers of the tests that load them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evaluation.findings import BadRequest
from evaluation.metrics.java import Unavailable

if TYPE_CHECKING:
    from transformers import BertTokenizer

WORDS = [
    "a",
    "dog",
    "barks",
    "birds",
    "sing",
    "rain",
    "falls",
    "on",
    "the",
    "roof",
    "and",
    "car",
    "passes",
    "by",
    "loudly",
]
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCES = [" ".join(WORDS[start : start + length]) for start in range(len(WORDS)) for length in (1, 3, 6)][:33]
ODD = ["", "🐕", "  \n ", "dog " * 300, "a dog, and 'quotes' … [SEP]"]
NETWORK = {"vocab_size": len(MARKS + WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
NETWORK |= {"intermediate_size": 32, "initializer_range": 1.0}


def snapshot(hub: Path, name: str) -> Path:
    """Make an empty model folder with the layout of the hub's cache."""
    place = hub / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0123abcd")
    folder = place / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    return folder


def tokenizer(folder: Path) -> "BertTokenizer":
    from transformers import BertTokenizer

    made = BertTokenizer(vocab={word: index for index, word in enumerate(MARKS + WORDS)})
    made.save_pretrained(folder)
    return made


def published(**changes: object) -> dict:
    """A fluency checker's checkpoint with the published names."""
    import torch
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = BertModel(BertConfig(**NETWORK)).state_dict()
        state = {f"encoder.{name}": value for name, value in encoder.items()}
        state["encoder.embeddings.position_ids"] = torch.arange(512)[None]
        state |= {"clf.weight": 10 * torch.randn(6, 16), "clf.bias": torch.full((6,), 50.0)}
    return {"model_type": "bert-base-uncased", "num_classes": 6, "state_dict": state} | changes


def refused(function: Callable[[], object]) -> str:
    with pytest.raises((Unavailable, BadRequest)) as caught:
        function()
    assert "\n" not in str(caught.value)
    return str(caught.value)
