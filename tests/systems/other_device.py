"""A second device without hardware: a place for tensors whose values are on the CPU, and which must not meet others.

A GPU refuses to compute with tensors of the CPU. Tests that run on the CPU do not notice such mistakes. Within
`other_device`, tensors on the device "meta" have values: operations compute them on the CPU, as usual. An operation
with tensors of both devices raises the error that it raises on a GPU.
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
CPU = torch.device("cpu")
# The operations that accept tensors of the CPU together with tensors of a GPU: indices, and lengths of sequences.
ACCEPT_BOTH = ("index", "index_put_", "copy_", "_pack_padded_sequence", "_pack_padded_sequence_backward")


class Elsewhere(torch.Tensor):
    """A tensor that is on the other device, and its values on the CPU."""

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "Elsewhere":
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, values.size(), device=DEVICE, **layout)
        tensor.on_cpu = values
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), keywords=None):
        return compute(operation, arguments, keywords or {})


def compute(operation: Callable, arguments: tuple, keywords: dict) -> object:
    """Compute an operation on the CPU, and put its results on the device that they would be on.

    Raises:
        RuntimeError: Tensors are on two devices.
    """
    name = operation._schema.name.removeprefix("aten::")
    tensors = [value for value in tree_leaves((arguments, keywords)) if isinstance(value, torch.Tensor)]
    elsewhere = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim > 0]
    indexed_elsewhere = name == "index" and not isinstance(tensors[0], Elsewhere)
    if elsewhere and here and (name not in ACCEPT_BOTH or indexed_elsewhere):
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise RuntimeError(f"{name}: expected all tensors to be on the same device; found {shapes}")
    is_elsewhere = len(elsewhere) > 0
    if keywords.get("device") is not None:
        is_elsewhere = torch.device(keywords["device"]) == DEVICE
        keywords = {**keywords, "device": CPU}
    result = operation(*tree_map(values_of, arguments), **tree_map(values_of, keywords))
    if operation._schema.is_mutable and name.endswith("_"):
        return arguments[0]
    if name == "_pack_padded_sequence":  # the numbers of rows in each step stay on the CPU
        return Elsewhere(result[0]), result[1]
    originals = {id(tensor.on_cpu): tensor for tensor in elsewhere}

    def placed(value: object) -> object:
        if not is_elsewhere or not isinstance(value, torch.Tensor):
            return value
        if id(value) in originals:
            return originals[id(value)]
        return Elsewhere(value)

    return tree_map(placed, result)


def values_of(value: object) -> object:
    """Return a tensor's values on the CPU, or the value if it is not a tensor on the other device."""
    if isinstance(value, Elsewhere):
        return value.on_cpu
    return value


class Dispatch(TorchDispatchMode):
    """Compute operations that get no tensor on the other device, such as those that make tensors there."""

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        return compute(operation, arguments, keywords or {})


class Functions(TorchFunctionMode):
    """Replace the functions that torch does not dispatch: those that turn Python's numbers into tensors and back."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = dict(keywords or {})
        if function in (torch.tensor, torch.as_tensor):
            device = keywords.pop("device", None)
            return function(*arguments, **keywords).to(device or CPU)
        if function is torch.Tensor.new_tensor:
            original, data = arguments
            return torch.tensor(data, dtype=original.dtype).to(original.device)
        if function is torch.Tensor.tolist and isinstance(arguments[0], Elsewhere):
            return arguments[0].detach().cpu().tolist()
        return function(*arguments, **keywords)


class Autocast(torch.autocast):
    """Mixed precision, whose settings for the other device are those of the CPU."""

    def __init__(self, device_type: str, *arguments: object, **keywords: object):
        super().__init__("cpu" if device_type == DEVICE.type else device_type, *arguments, **keywords)


@contextlib.contextmanager
def other_device() -> Iterator[torch.device]:
    """Within the block, tensors can be on another device than the CPU. Yield this device."""
    with pytest.MonkeyPatch.context() as patch, Functions(), Dispatch():
        patch.setattr(torch, "autocast", Autocast)
        patch.setattr(torch, "inference_mode", torch.no_grad)  # within it, torch passes on operations as a whole
        yield DEVICE
