"""Checkpoints of a system's model: the trained weights, the config, and the identity of frozen parts.

A model with frozen encoders has an attribute `frozen`. It maps the prefix of the encoder's weight names to the
encoder's identity, a text that changes with anything that its embeddings depend on: `{"audio_encoder.":
encoder.identity}`. A checkpoint contains this identity in place of the weights. A model without frozen parts needs no
such attribute. A frozen part may contain some trained weights, such as those of LoRA. If so, the model has an attribute
`trained_inside`, the names of these weights. A checkpoint contains them.
"""

from collections.abc import Mapping
from pathlib import Path

import lightning
from torch import Tensor, nn

from evaluation.findings import BadRequest
from systems.contract import read_model_run
from systems.runs import trained_checkpoint
from systems.training import read_checkpoint
from systems.weight_errors import weights_must_fit

PREFIX = "model."  # prefix of the weights' names in a checkpoint


class SystemModule(lightning.LightningModule):
    """The base class of a system's training. It has the attribute `model` and defines the content of checkpoints."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.strict_loading = not frozen_parts(model)  # checkpoints do not contain frozen weights

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the config, and replace frozen weights by the identity of their encoder.

        Systems that need more in their checkpoints extend this method.
        """
        checkpoint["config"] = self.model.config.model_dump(mode="json")
        checkpoint["frozen"] = frozen_parts(self.model)
        frozen = {PREFIX + name for name in frozen_weights(self.model)}
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: weights[name] for name in weights if name not in frozen}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Refuse to resume with frozen parts that differ from those the checkpoint was trained with."""
        require_same_frozen_parts(self.model, checkpoint, self.trainer.ckpt_path)


def frozen_parts(model: nn.Module) -> dict[str, str]:
    """Return a dict from the prefix of each frozen part's weight names to the part's identity."""
    return dict(getattr(model, "frozen", {}))


def frozen_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a model's frozen parts, as a dict from their names."""
    prefixes = tuple(frozen_parts(model))
    trained = frozenset(getattr(model, "trained_inside", ()))
    weights = {}
    for name, value in model.state_dict().items():
        if prefixes and name.startswith(prefixes) and name not in trained:
            weights[name] = value
    return weights


def require_same_frozen_parts(model: nn.Module, state: Mapping, checkpoint: str | Path) -> None:
    """Make sure that a model has the frozen parts that a checkpoint was trained with.

    Raises:
        BadRequest: An encoder differs from the one used in training; the message names the checkpoint and the encoder.
    """
    trained_with = state.get("frozen", {})
    different = []
    for prefix, identity in frozen_parts(model).items():
        if trained_with.get(prefix) != identity:
            different.append(prefix.removesuffix(".").replace("_", " "))
    if different:
        names = " and the ".join(different)
        raise BadRequest(
            f"{checkpoint}: the frozen parts must be those it was trained with; found other weights or settings of the "
            f"{names} on this machine: put the files used in training in their places, or train again"
        )


def trained_weights(state: Mapping) -> dict[str, Tensor]:
    """Return the weights in a checkpoint, as a dict from their names in the model."""
    return {name.removeprefix(PREFIX): value for name, value in state["state_dict"].items()}


def load_weights(model: nn.Module, state: Mapping, checkpoint: Path) -> None:
    """Load trained weights into a model. Its frozen parts keep their weights.

    Args:
        model: The model.
        state: The content of the checkpoint, as `read_checkpoint` returns it.
        checkpoint: The checkpoint's file, for messages.

    Raises:
        BadRequest: A frozen part differs from the one used in training.
        RuntimeError: The weights do not fit the model (raised by torch).
    """
    require_same_frozen_parts(model, state, checkpoint)
    model.load_state_dict({**trained_weights(state), **frozen_weights(model)})


def load_initial_weights(model: nn.Module, folder: Path, vocabulary: str | None) -> None:
    """Load the weights of another run into a captioner, from which its training starts.

    Args:
        model: The captioner.
        folder: The run folder. The run must have the same model.
        vocabulary: The digest of the captioner's vocabulary (default: None for a model without one).

    Raises:
        BadRequest: The folder does not contain a trained run of the same model with the same vocabulary.
    """
    read_model_run(folder)
    checkpoint = trained_checkpoint(folder)
    with weights_must_fit(checkpoint):
        state = read_checkpoint(checkpoint)
        if state.get("vocabulary") != vocabulary:
            must = f"init_from: {folder}: must be a captioner's run with the vocabulary of these development captions"
            raise BadRequest(f"{must}; found another vocabulary or none: give a run that was trained on the same data")
        load_weights(model, state, checkpoint)
