"""Published weights of encoders: finding the file, reading it, and checking its content.

Only `dcase-systems download` downloads. If a file is missing, the error message gives its size and this command.
"""

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy._core import multiarray
from torch import nn

from evaluation.assets import first_file, torch_hub
from evaluation.downloads import Asset, Download, fetch_file
from evaluation.files import DEFAULT_CACHE, cache_folder
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import cut

# VGGish's file contains numpy arrays. Files that numpy 1 wrote use the old name of `_reconstruct`.
ARRAY = multiarray._reconstruct
DTYPES = (type(np.dtype(np.float32)), type(np.dtype(np.float64)))
ARRAYS = [(ARRAY, "numpy.core.multiarray._reconstruct"), ARRAY, np.ndarray, np.dtype, *DTYPES]

WRAPPERS = ("state_dict", "model", "model_state_dict")  # entries of a checkpoint that may contain the state dict
PARALLEL = "module."  # the prefix that DataParallel puts before each name
BATCHES = ".num_batches_tracked"  # end of the name of a batch norm's number of training batches

Shapes = Mapping[str, tuple[int, ...]]


def find(asset: Asset, path: str | Path = "") -> Path:
    """Find a file of weights.

    Args:
        asset: The file, and where it is published.
        path: The file, or the folder with the file under its published name. If empty, the file is looked for in
            the cache folder (`files.cache_folder`), in ~/.cache/dcase-kit, among torch.hub's checkpoints, and in
            ~/panns_data, the folder of panns_inference.

    Returns:
        The file.

    Raises:
        BadRequest: There is no such file.
    """
    file = locate(asset, path)
    if file is not None:
        return file
    command = f"dcase-systems download {asset.name}"
    by_hand = f"put {asset.file_name} ({asset.size}) from {asset.source} into {cache_folder()}, or give its path"
    if path:
        given = Path(path).expanduser()
        if given.is_dir():
            given = given / asset.file_name
        raise BadRequest(f"{given}: no such file; fetch it with: {command}, and give no path; or {by_hand}")
    raise BadRequest(f"{asset.title} is not on this machine; fetch it with: {command}; or {by_hand}")


def locate(asset: Asset, path: str | Path = "") -> Path | None:
    """Return a file of weights, or None if it is not on this machine. The arguments are those of `find`."""
    if path:
        given = Path(path).expanduser()
        return first_file([given, given / asset.file_name])
    folders = (cache_folder(), Path(DEFAULT_CACHE), torch_hub() / "checkpoints", Path("~/panns_data"))
    return first_file(folder.expanduser() / asset.file_name for folder in folders)


def download(asset: Asset, path: str = "") -> Download:
    """Return the download of a file of weights.

    Args:
        asset: The file.
        path: The file, or the folder with it, if the user gives one. A file at a place that the user chose is not
            downloaded.
    """
    if path:
        place = Path(path).expanduser()
        advice = f"{path}: no such file of weights; correct the path, or give no path to download the published file"
        return Download(asset, place, partial(locate, asset, path), advice=advice)
    place = cache_folder() / asset.file_name
    return Download(asset, place, partial(locate, asset), partial(fetch_file, asset, place))


def read(file: Path, asset: Asset) -> object:
    """Read a file of tensors, arrays and plain values that torch saved, without running code from it.

    Raises:
        BadRequest: The file was not saved by torch, or contains other objects.
    """
    try:
        with torch.serialization.safe_globals(ARRAYS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        message = f"{file}: must be {asset.title} as torch saves it, but cannot be read ({unreadable(error)})"
        raise BadRequest(f"{message}; fetch it again from {asset.source}") from None


def unreadable(error: Exception) -> str:
    """Return the reason why torch could not read a file: the first sentence of torch's message.

    For a text file, torch raises a KeyError with a letter of the text, which is of no use to the reader.

    >>> unreadable(KeyError(101)), unreadable(RuntimeError("failed finding central directory. Is it a checkpoint?"))
    ('torch did not save it', 'failed finding central directory')
    """
    reason = ""
    if not isinstance(error, KeyError):
        reason = " ".join(str(error).split()).partition(". ")[0]
    return cut(reason.rstrip(".")) or "torch did not save it"


def tensors(saved: object, file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint, as a dict from the names that the network itself gives them.

    A file may contain the state dict itself, or a larger checkpoint with the state dict in one of `WRAPPERS`. The names
    may begin with `module.`, which torch's DataParallel puts before each name.

    Args:
        saved: The content of the file, from `read`.
        file: The file, for messages.

    Raises:
        BadRequest: The content has no tensors.
    """
    state = _state_in(saved)
    if not state:
        found = "none"
        if isinstance(saved, Mapping) and saved:
            found = f"only {', '.join(map(str, saved))}"
        raise BadRequest(f"{file}: must contain a dict with the weights' tensors; found {cut(found)}: fetch it again")
    if all(name.startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): value for name, value in state.items()}
    return state


def _state_in(saved: object) -> dict[str, torch.Tensor]:
    """Return the tensors in the innermost entry of `WRAPPERS` that has tensors, or else those of the mapping itself."""
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
        network: A function that makes the network. Its tensors must have the published names and shapes.
        asset: The file, and where it is published.
        path: The file, or the folder with it, as in `find`.
        unused: Shapes of tensors that the network does not use, as in `fill`.

    Raises:
        BadRequest: There is no such file, or torch did not save it.
        Faulty: The file does not hold the network's weights. The findings name every difference.
    """
    file = find(asset, path)
    state = tensors(read(file, asset), file)
    with torch.device("meta"):  # draw no random weights, because the file overwrites all of them
        model = network()
    return fill(model, state, file, unused)


def fill(model: nn.Module, state: Mapping[str, torch.Tensor], file: Path, unused: Shapes) -> nn.Module:
    """Load weights into a model, freeze it, and put it in evaluation mode.

    The file must have all weights of the model, with its names and shapes. Three kinds of tensors do not affect the
    embeddings, so the file may have them or not: the tensors in `unused`; empty tensors, which torch saves if a module
    registers `Parameter(None)`; and the number of training batches of each batch norm, which torch did not save before
    version 0.4.1.

    Args:
        model: The model, on the device "meta" or any other.
        state: The weights, from `tensors`.
        file: The file of the weights, for messages.
        unused: A dict from names to shapes of further tensors that the file may contain, such as those of a
            classifier.

    Raises:
        Faulty: The file does not hold the model's weights. The findings name every difference.
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
        if name.endswith(BATCHES):
            values[name] = torch.tensor(0)
        else:
            values[name] = state[name].float()
    model.load_state_dict(values, assign=True)
    return model.eval().requires_grad_(False)


def _differences(expected: Shapes, found: Shapes, file: Path) -> list[Finding]:
    """Return a finding for each tensor that is missing, unexpected or of another shape."""
    messages = {}
    for name in sorted(expected.keys() - found.keys()):
        messages[name] = f"missing; the file must contain it with shape {expected[name]}"
    for name in sorted(found.keys() - expected.keys()):
        messages[name] = f"unexpected, with shape {found[name]}; the published weights do not have it"
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            messages[name] = f"must have shape {expected[name]}, found {found[name]}"
    return [Finding(str(file), column=name, message=message) for name, message in messages.items()]
