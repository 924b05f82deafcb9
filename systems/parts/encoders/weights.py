"""Where an encoder's published weights are, and whether a file holds them.

Nothing is downloaded: what is missing is named with its size and where it is published.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import torch
from torch import nn

from evaluation.findings import BadRequest, Faulty, Finding, cut
from evaluation.models import Part

CACHE = Path("~/.cache/dcase-kit")

# VGGish's principal components are numpy's. Files of numpy 1 call the first by its old name.
ARRAY = np._core.multiarray._reconstruct
DTYPES = (type(np.dtype(np.float32)), type(np.dtype(np.float64)))
ARRAYS = [(ARRAY, "numpy.core.multiarray._reconstruct"), ARRAY, np.ndarray, np.dtype, *DTYPES]

Shapes = Mapping[str, tuple[int, ...]]


def file_name(part: Part) -> str:
    """The name that a file is published under.

    >>> file_name(Part("", "https://example.org/files/Cnn14_mAP%3D0.431.pth?download=1", 0))
    'Cnn14_mAP=0.431.pth'
    """
    return unquote(part.source.rpartition("/")[2].partition("?")[0])


def find(part: Part, path: str | Path = "") -> Path:
    """Find a file of weights.

    Args:
        part: What it is and where it is published.
        path: The file, or a folder that holds it under its published name. Where empty, it is looked for where people
            put it: in ~/.cache/dcase-kit, among torch.hub's checkpoints, and in ~/panns_data of panns_inference.

    Raises:
        BadRequest: It is not there.
    """
    name = file_name(part)
    if path:
        given = Path(path).expanduser()
        places = [given / name if given.is_dir() else given]
    else:
        folders = (CACHE, Path(torch.hub.get_dir()) / "checkpoints", Path("~/panns_data"))
        places = [folder.expanduser() / name for folder in folders]
    for place in places:
        if place.is_file():
            return place
    where = f"{places[0]}: no such file" if path else f"{part.title} is not on this machine"
    raise BadRequest(f"{where}; put {name} ({part.size}) from {part.source} into {CACHE}, or give its path")


def read(file: Path, part: Part) -> object:
    """Read a file of tensors, arrays and plain values that torch saved; nothing of it is run.

    Raises:
        BadRequest: It is none, or holds more.
    """
    try:
        with torch.serialization.safe_globals(ARRAYS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        message = f"{file}: must be {part.title} as torch saves it ({unreadable(error)})"
        raise BadRequest(f"{message}; fetch it again from {part.source}") from None


def unreadable(error: Exception) -> str:
    """Why torch could not read a file: the first sentence of what it says, of a text file's letters nothing.

    >>> unreadable(KeyError(101)), unreadable(RuntimeError("failed finding central directory. Is it a checkpoint?"))
    ('torch did not save it', 'failed finding central directory')
    """
    said = "" if isinstance(error, KeyError) else " ".join(str(error).split()).partition(". ")[0]
    return cut(said.rstrip(".")) or "torch did not save it"


def load(network: Callable[[], nn.Module], part: Part, path: str, unused: Shapes, inside: str = "") -> nn.Module:
    """Make a network with its published weights, frozen, in evaluation mode.

    Args:
        network: Its names and shapes are the published ones.
        part: What the file is.
        path: As in `find`.
        unused: What the file holds beside, by name: layers of a front end that is computed, or of a classifier.
        inside: The entry of the file that holds the tensors; empty where they are all that it holds.

    Raises:
        BadRequest: There is no such file, or torch did not save it.
        Faulty: It holds other weights; with every difference.
    """
    file = find(part, path)
    state = read(file, part)
    if inside:
        state = state.get(inside) if isinstance(state, Mapping) else None
    with torch.device("meta"):  # nothing is filled at random only to be overwritten
        model = network()
    return fill(model, state, file, unused)


def fill(model: nn.Module, state: object, file: Path, unused: Shapes) -> nn.Module:
    """Give a model what was read from `file`, and freeze it; arguments and `Faulty` as in `load`."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()} | dict(unused)
    found = {}
    if isinstance(state, Mapping):
        found = {str(name): tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}
    if not found:
        kind = f"only {', '.join(map(str, state)) or 'none'}" if isinstance(state, Mapping) else "none"
        raise BadRequest(f"{file}: must hold the weights' tensors by name; found {cut(kind)}: fetch it again")
    # How many batches a norm was trained on: nothing follows from it, and torch did not keep it before 0.4.1.
    counts = {name for name in {**expected, **found} if name.endswith(".num_batches_tracked")}
    if differences := _differences(_without(expected, counts), _without(found, counts), file):
        raise Faulty(differences)
    names = model.state_dict().keys()
    values = {name: torch.tensor(0) if name in counts else state[name].float() for name in names}
    model.load_state_dict(values, assign=True)
    return model.eval().requires_grad_(False)


def _without(shapes: Shapes, names: Iterable[str]) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name not in names}


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
