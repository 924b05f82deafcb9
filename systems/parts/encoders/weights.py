"""Where an encoder's published weights are, and whether a file holds them.

Nothing is downloaded: what is missing is named with its size and where it is published.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from evaluation.assets import Asset, first_file, torch_hub
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import cut

CACHE = Path("~/.cache/dcase-kit")

# VGGish's principal components are numpy's. Files of numpy 1 call the first by its old name.
ARRAY = np._core.multiarray._reconstruct
DTYPES = (type(np.dtype(np.float32)), type(np.dtype(np.float64)))
ARRAYS = [(ARRAY, "numpy.core.multiarray._reconstruct"), ARRAY, np.ndarray, np.dtype, *DTYPES]

WRAPPERS = ("state_dict", "model", "model_state_dict")  # entries of a checkpoint that hold the state dict
PARALLEL = "module."  # what DataParallel puts in front of each name
BATCHES = ".num_batches_tracked"  # ends the name of the number of batches that a batch norm was trained on

Shapes = Mapping[str, tuple[int, ...]]


def find(asset: Asset, path: str | Path = "") -> Path:
    """Find a file of weights.

    Args:
        asset: The file, and where it is published.
        path: The file, or a folder that holds it under its published name. Where empty, it is looked for where people
            put it: in ~/.cache/dcase-kit, among torch.hub's checkpoints, and in ~/panns_data of panns_inference.

    Returns:
        The file.

    Raises:
        BadRequest: It is not there.
    """
    name = asset.file_name
    if path:
        given = Path(path).expanduser()
        places = [given / name if given.is_dir() else given]
        fault = f"{places[0]}: no such file"
    else:
        folders = (CACHE, torch_hub() / "checkpoints", Path("~/panns_data"))
        places = [folder.expanduser() / name for folder in folders]
        fault = f"{asset.title} is not on this machine"
    file = first_file(places)
    if file is None:
        raise BadRequest(f"{fault}; put {name} ({asset.size}) from {asset.source} into {CACHE}, or give its path")
    return file


def read(file: Path, asset: Asset) -> object:
    """Read a file of tensors, arrays and plain values that torch saved; nothing of it is run.

    Raises:
        BadRequest: It is none, or holds more.
    """
    try:
        with torch.serialization.safe_globals(ARRAYS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        message = f"{file}: must be {asset.title} as torch saves it ({unreadable(error)})"
        raise BadRequest(f"{message}; fetch it again from {asset.source}") from None


def unreadable(error: Exception) -> str:
    """Why torch could not read a file: the first sentence of what it says, of a text file's letters nothing.

    >>> unreadable(KeyError(101)), unreadable(RuntimeError("failed finding central directory. Is it a checkpoint?"))
    ('torch did not save it', 'failed finding central directory')
    """
    if isinstance(error, KeyError):
        said = ""
    else:
        said = " ".join(str(error).split()).partition(". ")[0]
    return cut(said.rstrip(".")) or "torch did not save it"


def tensors(saved: object, file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint, by the names that the network itself gives them.

    A file may hold the state dict itself, or a larger checkpoint with the state dict in one of `WRAPPERS`. The names
    may begin with `module.`, which torch's DataParallel puts in front of each.

    Args:
        saved: What `read` returned.
        file: Where it was read from, for the message.

    Raises:
        BadRequest: There is no tensor in it.
    """
    state = _state_in(saved)
    if not state:
        entries = ", ".join(map(str, saved)) if isinstance(saved, Mapping) else ""
        kind = f"only {entries}" if entries else "none"
        raise BadRequest(f"{file}: must hold the weights' tensors by name; found {cut(kind)}: fetch it again")
    if all(name.startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): value for name, value in state.items()}
    return state


def _state_in(saved: object) -> dict[str, torch.Tensor]:
    """Return the tensors in the innermost of `WRAPPERS` that has any, else those of the mapping itself."""
    if not isinstance(saved, Mapping):
        return {}
    for wrapper in WRAPPERS:
        if inner := _state_in(saved.get(wrapper)):
            return inner
    return _tensors_in(saved)


def _tensors_in(saved: Mapping) -> dict[str, torch.Tensor]:
    return {str(name): value for name, value in saved.items() if isinstance(value, torch.Tensor)}


def load(network: Callable[[], nn.Module], asset: Asset, path: str, unused: Shapes) -> nn.Module:
    """Make a network with its published weights, frozen, in evaluation mode.

    Args:
        network: Makes the network, whose names and shapes are the published ones.
        asset: The file, and where it is published.
        path: As in `find`.
        unused: As in `fill`.

    Raises:
        BadRequest: There is no such file, or torch did not save it.
        Faulty: It holds other weights; with every difference.
    """
    file = find(asset, path)
    state = tensors(read(file, asset), file)
    with torch.device("meta"):  # nothing is filled at random only to be overwritten
        model = network()
    return fill(model, state, file, unused)


def fill(model: nn.Module, state: Mapping[str, torch.Tensor], file: Path, unused: Shapes) -> nn.Module:
    """Give a model its weights, freeze it, and put it in evaluation mode.

    The names must be those of the model. These may be in the file or not, because the model computes nothing from them:
    the names in `unused`, empty tensors (a module registers `Parameter(None)`, and torch saves a tensor of no values),
    and the number of batches that a batch norm was trained on (torch did not keep it before version 0.4.1).

    Args:
        model: The model, on the device "meta" or any other.
        state: The weights, as from `tensors`.
        file: Where they were read from, for the messages.
        unused: Shapes, by name, of what the file may hold beside the model's weights: layers of a front end that is
            computed, or of a classifier.

    Raises:
        Faulty: The file holds other weights; with every difference.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items() if not name.endswith(BATCHES)}
    found = {}
    for name, value in state.items():
        empty = value.numel() == 0 and name not in expected
        if not empty and not name.endswith(BATCHES):
            found[name] = tuple(value.shape)
    allowed = {name: shape for name, shape in unused.items() if name in found}
    if differences := _differences(expected | allowed, found, file):
        raise Faulty(differences)
    values = {}
    for name in model.state_dict():
        values[name] = torch.tensor(0) if name.endswith(BATCHES) else state[name].float()
    model.load_state_dict(values, assign=True)
    return model.eval().requires_grad_(False)


def _differences(expected: Shapes, found: Shapes, file: Path) -> list[Finding]:
    def say(names: Iterable[str], message: str) -> list[Finding]:
        return [
            Finding(str(file), column=name, message=message.format(expected.get(name), found.get(name)))
            for name in sorted(names)
        ]

    return [
        *say(expected.keys() - found.keys(), "missing; must be there with shape {0}"),
        *say(found.keys() - expected.keys(), "unexpected, with shape {1}; the published weights do not have it"),
        *say(
            (name for name in expected.keys() & found.keys() if expected[name] != found[name]),
            "must have shape {0}, found {1}",
        ),
    ]
