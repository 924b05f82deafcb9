"""Encoders that stay as others published them: a checkpoint holds what they are, not their weights.

A model that has such encoders says in `frozen` what their embeddings follow from (`identity`), by the prefix of their
weights' names: `{"audio_encoder.": encoder.identity}`.
"""

from collections.abc import Mapping
from pathlib import Path

import lightning
from torch import nn

from evaluation.findings import BadRequest
from systems.training import read_checkpoint


class Training(lightning.LightningModule):
    """What a system's training has in common with others': a `model` with frozen encoders, and its checkpoints."""

    strict_loading = False  # what is frozen is in no checkpoint

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep the config beside the weights, and of what is frozen only what it is."""
        checkpoint["config"] = self.model.config.model_dump(mode="json")
        checkpoint["frozen"] = dict(self.model.frozen)
        prefixes = tuple(f"model.{prefix}" for prefix in self.model.frozen)
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: weights[name] for name in weights if not name.startswith(prefixes)}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Go on over what is frozen only where it is what it was."""
        check(self.model, checkpoint, self.trainer.ckpt_path)


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
    state = read_checkpoint(checkpoint, frozen=dict)
    check(model, state, checkpoint)
    weights = {name.removeprefix("model."): value for name, value in state["state_dict"].items()}
    kept = {name: value for name, value in model.state_dict().items() if name.startswith(tuple(model.frozen))}
    model.load_state_dict(weights | kept)
