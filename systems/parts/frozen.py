"""Encoders that stay as others published them: a checkpoint holds what they are, not their weights.

A model that has such encoders says in `frozen` what their embeddings follow from (`identity`), by the prefix of their
weights' names: `{"audio_encoder.": encoder.identity}`.
"""

from collections.abc import Mapping, MutableMapping
from pathlib import Path

from torch import nn

from evaluation.findings import BadRequest
from systems.training import read_checkpoint


def leave_out(checkpoint: MutableMapping, frozen: Mapping[str, str]) -> None:
    """Take frozen weights out of the checkpoint of a module that has the model as `model`, and say what they are."""
    checkpoint["frozen"] = dict(frozen)
    prefixes = tuple(f"model.{prefix}" for prefix in frozen)
    weights = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: weights[name] for name in weights if not name.startswith(prefixes)}


def check(model: nn.Module, state: Mapping, checkpoint: str | Path) -> None:
    """Make sure that what is frozen in a model is what a checkpoint was trained with.

    Raises:
        BadRequest: An encoder is another than in training; with the checkpoint's name.
    """
    if others := [prefix for prefix, identity in model.frozen.items() if state["frozen"].get(prefix) != identity]:
        names = " and ".join(prefix.removesuffix(".").replace("_", " ") for prefix in others)
        raise BadRequest(
            f"{checkpoint}: was trained with another {names} than the config names on this machine; put the same files "
            "in their places, or train again"
        )


def fill(model: nn.Module, checkpoint: Path) -> None:
    """Give a model what it learnt; its frozen encoders stay as they are. Raises as `check` does."""
    state = read_checkpoint(checkpoint)
    check(model, state, checkpoint)
    weights = {name.removeprefix("model."): value for name, value in state["state_dict"].items()}
    kept = {name: value for name, value in model.state_dict().items() if name.startswith(tuple(model.frozen))}
    model.load_state_dict(weights | kept)
