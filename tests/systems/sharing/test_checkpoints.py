"""A checkpoint that was written without pickle is equal to the original; damaged files are refused in a line."""

import json
import pickle
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from evaluation.findings import BadRequest
from systems.sharing import checkpoints


def assert_equal(one, other):
    """Check that two contents have the same types, values and order of keys, and the same tensors bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.requires_grad) == (other.dtype, other.shape, other.requires_grad)
        assert (
            one.detach()
            .contiguous()
            .flatten()
            .view(torch.uint8)
            .equal(other.detach().contiguous().flatten().view(torch.uint8))
        )
    elif isinstance(one, dict):
        assert_equal(list(one), list(other))
        for key, value in one.items():
            assert_equal(value, other[key])
        if isinstance(one, OrderedDict):
            assert_equal(getattr(one, "_metadata", None), getattr(other, "_metadata", None))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for value, copy in zip(one, other, strict=True):
            assert_equal(value, copy)
    else:
        assert repr(one) == repr(other)


MODEL = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
CONTENTS = {
    "a state dict": {"weights": MODEL.state_dict(), "words": ["a", "dog"]},
    "plain values": [None, True, False, 0, -(2**70), 0.1, -0.0, 1e-320, "é\ud800\n", "", [], {}, (), {"a": (1, [2])}],
    "numbers that JSON does not have": [float("nan"), float("inf"), -float("inf")],
    "keys that are not texts": {1: "a", None: {2.5: (True,)}, ("b", 1): torch.ones(2), False: 0},
    "keys like the markers": {"$tensor": "x", "$y": {"$dict": [1]}},
    "names that collide": {"a": {"b.c": torch.ones(1)}, "a.b": {"c": torch.zeros(1)}, "__metadata__": torch.ones(2)},
    "a tensor alone": torch.arange(3),
    "no tensors": {"state_dict": {}},
    "a parameter": [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)],
    "shapes": [torch.tensor(1.5), torch.empty(0), torch.empty(0, 3), torch.arange(6).reshape(2, 3).T],
    "NaN with a payload": torch.tensor([0x7FC01234], dtype=torch.int32).view(torch.float32),
    "types": [torch.ones(2).to(dtype) for dtype in checkpoints.DTYPES],
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_checkpoint_is_equal_after_writing_and_reading(tmp_path, content):
    for folder in ("one", "two"):
        checkpoints.write(content, tmp_path / folder / "model", tmp_path / "best.ckpt")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = checkpoints.read(tmp_path / "one" / "model")
    assert_equal(content, again)
    torch.save(again, tmp_path / "best.ckpt")
    assert_equal(content, torch.load(tmp_path / "best.ckpt", weights_only=True))


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    weight = torch.ones(1000)
    content = {"one": weight, "two": weight, "part": weight[:10]}
    checkpoints.write(content, tmp_path / "model", tmp_path / "best.ckpt")
    assert load_file(tmp_path / "model.safetensors").keys() == {"one", "part"}
    again = checkpoints.read(tmp_path / "model")
    assert again["one"].data_ptr() == again["two"].data_ptr()
    assert_equal(content, again)


Point = namedtuple("Point", "x")
NESTED: list = []
NESTED.append(NESTED)
REFUSED = {
    "a set": (
        {"a": [{1}]},
        "a.0 must be a tensor, a number, a text, None, or a list, tuple or dict of these; found",
    ),
    "a subclass": ({"p": Point(1)}, "p must be a tensor, a number, a text, None, or a list, tuple or dict of these;"),
    "an array": ({"x": np.ones(2)}, "found an object of the class numpy.ndarray: store its values instead"),
    "a sparse tensor": ({"x": torch.ones(2).to_sparse()}, "x must be a dense tensor of a type that safetensors has;"),
    "a complex tensor": ({"x": torch.ones(2, dtype=torch.complex128)}, "found a tensor of torch.complex128"),
    "a meta tensor": ({"x": torch.ones(2, device="meta")}, "on meta: convert it"),
    "a tensor as a key": ({torch.ones(1): 1}, "the content must be a dict whose keys are texts or numbers;"),
    "a circle": (NESTED, "must not be nested so deeply"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_other_content_is_refused_with_its_place(tmp_path, content, message):
    with pytest.raises(BadRequest) as refusal:
        checkpoints.write(content, tmp_path / "model", Path("best.ckpt"))
    assert str(refusal.value).startswith("best.ckpt: ")
    assert message in str(refusal.value)
    assert not list(tmp_path.iterdir())


DAMAGED = {
    "no JSON": ("model.json", b"{", "model.json: must be JSON (Expecting property name"),
    "not UTF-8": ("model.json", b"\xff", "model.json: must be JSON ('utf-8' codec"),
    "deep": ("model.json", b"[" * 10**6, "model.json: must be JSON ("),
    "an unknown marker": ("model.json", b'{"$pickle": "x"}', "($pickle is not known)"),
    "a marker with other keys": ("model.json", b'{"$tensor": "a", "b": 1}', "($tensor is not known)"),
    "a name that is no text": ("model.json", b'{"$tensor": 1}', "(the name of a tensor must be a text)"),
    "a float that is no text": ("model.json", b'{"$float": "1e5"}', "($float must be nan, inf or -inf)"),
    "pairs that are none": (
        "model.json",
        b'{"$dict": [[1]]}',
        "model.json: must describe a checkpoint, as `",
    ),
    "a key that is a list": ("model.json", b'{"$dict": [[[], 1]]}', "(unhashable type: 'list')"),
    "a state that is none": ("model.json", b'{"$state": []}', "model.json: must describe a checkpoint"),
    "cut off": ("model.safetensors", None, "model.safetensors: cannot be read as safetensors ("),
    "empty": ("model.safetensors", b"", "model.safetensors: cannot be read as safetensors ("),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused_in_a_line(tmp_path, name, damage, message):
    checkpoints.write({"a": torch.ones(3), "b": 1}, tmp_path / "model", Path("best.ckpt"))
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    with pytest.raises(BadRequest) as refusal:
        checkpoints.read(tmp_path / "model")
    assert str(refusal.value).startswith(f"{tmp_path}/model.")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_both_files_must_exist(tmp_path, name):
    checkpoints.write({"a": torch.ones(3)}, tmp_path / "model", Path("best.ckpt"))
    (tmp_path / name).unlink()
    with pytest.raises(BadRequest, match=rf"{name}: no such file; export the run again"):
        checkpoints.read(tmp_path / "model")


def test_both_files_must_have_the_same_tensors(tmp_path):
    checkpoints.write({"a": torch.ones(3), "b": torch.ones(1)}, tmp_path / "model", Path("best.ckpt"))
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(BadRequest, match=r"must contain the tensors that model\.json names; b is missing"):
        checkpoints.read(tmp_path / "model")
    save_file({"a": torch.ones(3), "b": torch.ones(1), "c": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BadRequest, match=r"must contain only the tensors that model\.json names; found c"):
        checkpoints.read(tmp_path / "model")


def test_a_large_json_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "JSON_BYTES", 50)
    with pytest.raises(BadRequest, match="must contain at most 50 bytes besides its tensors"):
        checkpoints.write(["word"] * 20, tmp_path / "model", Path("best.ckpt"))
    (tmp_path / "model.json").write_text(json.dumps(["word"] * 20))
    with pytest.raises(BadRequest, match=r"model\.json: must have at most 50 bytes; found 160"):
        checkpoints.read(tmp_path / "model")


def test_pickles_are_recognised_by_their_content(tmp_path):
    file = tmp_path / "file"
    for protocol in range(6):
        file.write_bytes(pickle.dumps(Path("x"), protocol))
        assert checkpoints.is_pickle(file), protocol
    for zipped in (True, False):
        torch.save({"a": torch.ones(1)}, file, _use_new_zipfile_serialization=zipped)
        assert checkpoints.is_pickle(file)
    for suffix, save in ((".npy", np.save), (".npz", np.savez)):
        save(tmp_path / f"objects{suffix}", np.array([{}], dtype=object))
        assert checkpoints.is_pickle(tmp_path / f"objects{suffix}")
        save(tmp_path / f"numbers{suffix}", np.ones(3))
        assert not checkpoints.is_pickle(tmp_path / f"numbers{suffix}")
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    assert not checkpoints.is_pickle(tmp_path / "a.safetensors")
    for text in (b"", b"0.5 1.5\n", b'["a", "b"]\n', b"371 128\nthe \0\0", b"cat\ndog\nbird\n", b"PK\x03\x04 no zip"):
        file.write_bytes(text)
        assert not checkpoints.is_pickle(file), text
