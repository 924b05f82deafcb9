"""Checkpoints without pickle: the tensors in a safetensors file, and everything else in a JSON file.

A checkpoint may contain tensors, parameters, numbers, texts, None, lists, tuples and dicts, in any nesting. `write`
stores it in two files, and `read` returns an equal checkpoint. In the JSON file, lists and most dicts are written as
they are. An object whose only key begins with `$` stands for a value that JSON does not have:

    {"$tensor": NAME}                    the tensor with this name in the safetensors file
    {"$parameter": [NAME, GRADIENT]}     a torch parameter; GRADIENT is true if it requires gradients
    {"$tuple": [VALUE, …]}
    {"$float": TEXT}                     nan, inf or -inf
    {"$dict": [[KEY, VALUE], …]}         a dict with keys that are not texts or begin with `$`
    {"$state": [[KEY, VALUE], …, META]}  an OrderedDict such as torch's `state_dict()`, and its attribute `_metadata`

The name of a tensor is its path in the checkpoint, such as `state_dict.model.layer.weight`.
"""

import json
import math
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from itertools import islice
from pathlib import Path
from pickletools import genops
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evaluation.findings import BadRequest
from evaluation.text import first_items

JSON_BYTES = 2**26  # maximum size of the JSON file
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool),
)
ALLOWED = "a tensor, a number, a text, None, or a list, tuple or dict of these"
RESERVED = "__metadata__"  # safetensors does not allow this name for a tensor
OPERATIONS = 100_000  # number of operations of a pickle that are read
IMPORTS = {"GLOBAL", "STACK_GLOBAL", "INST"}  # the operations of a pickle that import a module
SHOWN = 3  # maximum number of tensors that a message names
DAMAGED = "export the run again, or download the folder again"


# Writing --------------------------------------------------------------------------------------------------------------


def write(content: object, stem: Path, source: Path) -> None:
    """Write a checkpoint as `STEM.safetensors` and `STEM.json`. The same content always gives the same bytes.

    Args:
        content: The checkpoint.
        stem: The path of the two files, without their extension.
        source: The file that the checkpoint was read from, for messages.

    Raises:
        BadRequest: The checkpoint contains something that cannot be stored.
    """
    writer = _Writer(source)
    try:
        described = writer.describe(content, "")
    except RecursionError:
        raise BadRequest(f"{source}: must not be nested so deeply; write a simpler checkpoint") from None
    text = json.dumps(described, indent=1, allow_nan=False) + "\n"
    if len(text) > JSON_BYTES:
        message = f"must contain at most {JSON_BYTES} bytes besides its tensors; found {len(text)}"
        raise BadRequest(f"{source}: {message}: store long lists of numbers as tensors")
    stem.parent.mkdir(parents=True, exist_ok=True)
    file = stem.with_name(f"{stem.name}.safetensors")
    save_file(writer.tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors writes files that only their owner may read
    stem.with_name(f"{stem.name}.json").write_text(text, encoding="utf-8")


class _Writer:
    """Describes a checkpoint as JSON, and collects its tensors.

    Attributes:
        tensors: A dict from the name of each tensor to the tensor.
    """

    def __init__(self, source: Path):
        self.source = source
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[object, ...], str] = {}  # from the place of a tensor in memory to its name

    def describe(self, value: object, path: str) -> object:
        """Return the JSON form of a value.

        Args:
            value: The value.
            path: The path of the value in the checkpoint.

        Raises:
            BadRequest: The value cannot be stored.
        """
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if isinstance(value, float) and kind is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, list) and kind is list:
            return self._describe_items(value, path)
        if isinstance(value, tuple) and kind is tuple:
            return {"$tuple": self._describe_items(value, path)}
        if isinstance(value, OrderedDict) and kind is OrderedDict:
            metadata = self.describe(getattr(value, "_metadata", None), _below(path, "_metadata"))
            return {"$state": [*self._describe_pairs(value, path), metadata]}
        if isinstance(value, dict) and kind is dict:
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: self.describe(inner, _below(path, key)) for key, inner in value.items()}
            return {"$dict": self._describe_pairs(value, path)}
        if isinstance(value, nn.Parameter) and kind is nn.Parameter:
            return {"$parameter": [self._store(value, path), value.requires_grad]}
        if isinstance(value, Tensor) and kind is Tensor:
            return {"$tensor": self._store(value, path)}
        found = f"an object of the class {kind.__module__}.{kind.__qualname__}"
        raise self._refusal(path, ALLOWED, found, "store its values instead")

    def _describe_items(self, values: list | tuple, path: str) -> list[object]:
        return [self.describe(value, _below(path, index)) for index, value in enumerate(values)]

    def _describe_pairs(self, values: dict, path: str) -> list[object]:
        pairs: list[object] = []
        for key, value in values.items():
            if isinstance(key, Tensor):
                raise self._refusal(path, "a dict whose keys are texts or numbers", "a tensor as a key", "use texts")
            pairs.append([self.describe(key, path), self.describe(value, _below(path, key))])
        return pairs

    def _store(self, tensor: Tensor, path: str) -> str:
        """Add a tensor to `tensors`, unless it was added before, and return its name."""
        if tensor.layout is not torch.strided or tensor.dtype not in DTYPES or tensor.is_meta:
            found = f"a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise self._refusal(path, "a dense tensor of a type that safetensors has", found, "convert it")
        # Two names may stand for the same tensor, such as tied weights, which safetensors stores only once.
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in self._names:
            return self._names[place]
        name, number = path or "tensor", 1
        while name in self.tensors or name == RESERVED:
            number += 1
            name = f"{path}~{number}"
        self.tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._names[place] = name
        return name

    def _refusal(self, path: str, must: str, found: str, advice: str) -> BadRequest:
        return BadRequest(f"{self.source}: {path or 'the content'} must be {must}; found {found}: {advice}")


def _below(path: str, key: object) -> str:
    return f"{path}.{key}".lstrip(".")


# Reading --------------------------------------------------------------------------------------------------------------


def read(stem: Path) -> Any:
    """Read a checkpoint that `write` wrote. No code from the files is run.

    Args:
        stem: The path of the two files, without their extension.

    Raises:
        BadRequest: A file is missing or damaged, or the two files do not have the same tensors.
    """
    described = read_json(stem.with_name(f"{stem.name}.json"))
    file = stem.with_name(f"{stem.name}.safetensors")
    if not file.is_file():
        raise BadRequest(f"{file}: no such file; {DAMAGED}")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise BadRequest(f"{file}: cannot be read as safetensors ({reason}); {DAMAGED}") from None
    reader = _Reader(tensors)
    try:
        content = reader.restore(described)
    except (ValueError, TypeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        message = "must describe a checkpoint, as `systems export` writes it"
        raise BadRequest(f"{stem}.json: {message} ({reason}); {DAMAGED}") from None
    if reader.missing:
        message = f"must contain the tensors that {stem.name}.json names"
        raise BadRequest(f"{file}: {message}; {first_items(reader.missing, SHOWN)} is missing: {DAMAGED}")
    extra = sorted(tensors.keys() - reader.used)
    if extra:
        message = f"must contain only the tensors that {stem.name}.json names"
        raise BadRequest(f"{file}: {message}; found {first_items(extra, SHOWN)}: {DAMAGED}")
    return content


def read_json(file: Path) -> Any:
    """Read a JSON file of at most `JSON_BYTES` bytes.

    Raises:
        BadRequest: There is no such file, it is too large, or it is not JSON.
    """
    if not file.is_file():
        raise BadRequest(f"{file}: no such file; {DAMAGED}")
    if file.stat().st_size > JSON_BYTES:
        raise BadRequest(f"{file}: must have at most {JSON_BYTES} bytes; found {file.stat().st_size}: {DAMAGED}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also a number with too many digits, and bytes that are not UTF-8
        raise BadRequest(f"{file}: must be JSON ({' '.join(str(error).split())}); {DAMAGED}") from None


class _Reader:
    """Restores a checkpoint from its JSON form and its tensors.

    Attributes:
        used: The names of the tensors that the checkpoint contains.
        missing: The names of the tensors that the JSON form names, but that do not exist.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors
        self.used: set[str] = set()
        self.missing: list[str] = []
        self._kinds: dict[str, Callable[[Any], object]] = {
            "$tensor": self._tensor,
            "$parameter": self._parameter,
            "$tuple": self._tuple,
            "$float": self._float,
            "$dict": self._dict,
            "$state": self._state,
        }

    def restore(self, described: object) -> object:
        """Return the value of a JSON form.

        Raises:
            ValueError, TypeError: The JSON form is not valid.
        """
        if isinstance(described, list):
            return [self.restore(value) for value in described]
        if not isinstance(described, dict):
            return described
        if len(described) == 1:
            [(kind, value)] = described.items()
            if kind in self._kinds:
                return self._kinds[kind](value)
        for key in described:
            if key.startswith("$"):
                raise ValueError(f"{key} is not known")
        return {key: self.restore(value) for key, value in described.items()}

    def _tensor(self, name: object) -> Tensor:
        if not isinstance(name, str):
            raise ValueError("the name of a tensor must be a text")
        self.used.add(name)
        if name not in self.tensors:
            self.missing.append(name)
            return torch.empty(0)
        return self.tensors[name]

    def _parameter(self, value: list) -> nn.Parameter:
        name, requires_grad = value
        return nn.Parameter(self._tensor(name), requires_grad is True)

    def _tuple(self, value: list) -> tuple:
        return tuple(self.restore(item) for item in value)

    def _float(self, text: object) -> float:
        if text not in ("nan", "inf", "-inf"):
            raise ValueError("$float must be nan, inf or -inf")
        return float(str(text))

    def _dict(self, pairs: list) -> dict:
        return {self.restore(key): self.restore(value) for key, value in pairs}

    def _state(self, value: list) -> OrderedDict:
        *pairs, metadata = value
        state = OrderedDict(self._dict(pairs))
        if metadata is not None:
            state._metadata = self.restore(metadata)  # type: ignore[attr-defined]
        return state


# Pickles --------------------------------------------------------------------------------------------------------------


def is_pickle(file: Path) -> bool:
    """Return whether a file is a pickle, or a zip file (such as torch and numpy write) that contains a pickle."""
    with file.open("rb") as stream:
        if _begins_as_pickle(stream):
            return True
    if not zipfile.is_zipfile(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as member:
                    if _begins_as_pickle(BytesIO(member.read(2**16))):
                        return True
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):  # it cannot be read as a zip file
        return False
    return False


def _begins_as_pickle(stream: BinaryIO) -> bool:
    """Return whether a stream begins with a pickle, or is numpy's file of an array of pickled objects."""
    beginning = stream.read(2**10)
    if beginning.startswith(b"\x93NUMPY"):
        return b"'descr': '|O'" in beginning or b"'O'" in beginning
    if beginning.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return True
    stream.seek(0)
    names = set()
    try:
        for operation, _, _ in islice(genops(stream), OPERATIONS):
            names.add(operation.name)
    except Exception:  # pickletools raises many kinds of exceptions for a file that is not a pickle
        return False
    return not names.isdisjoint(IMPORTS)  # a text that begins with a number can look like a pickle of nothing
