"""The published files load, and other files are refused."""

import importlib
import pickle

import numpy as np
import pytest
import torch

from evaluation.findings import BadRequest, Faulty
from systems.parts import encoders
from systems.parts.encoders import coala, vggish, weights
from tests.systems.parts.encoders.published import FILES, write

MODULES = {name: importlib.import_module(f"{encoders.__name__}.{name}") for name in FILES}


def numbered(shapes):
    """Tensors of these shapes. Each holds a single value of its own, so that large ones need no memory."""
    return {name: torch.tensor(float(number)).expand(shape) for number, (name, shape) in enumerate(shapes.items())}


@pytest.fixture(params=FILES)
def published(request, tmp_path):
    """An encoder module: the names and shapes of its file, a state dict, and functions that write and load one."""
    _, shapes, count = FILES[request.param]
    assert len(shapes) == count
    module = MODULES[request.param]

    def load(state):
        return module.load_model(str(write(request.param, tmp_path, state)))

    return module, numbered(shapes), load


def test_a_published_file_loads(published):
    module, state, load = published
    model = load(state)
    found = model.state_dict()
    for name, value in found.items():
        if name in state and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, state[name]), name
    assert {name for name in state if name not in found} <= module.UNUSED.keys()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def without_counts(state):
    return {name: value for name, value in state.items() if "num_batches" not in name}


@pytest.mark.parametrize(
    "change",
    [
        without_counts,
        lambda state: {name: value for name, value in state.items() if "speclayer.dft" not in name},
        lambda state: state | {"head.bias": torch.empty(0)},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "step": torch.tensor(3)},
        lambda state: {"model_state_dict": state},
    ],
    ids=["no counts", "no kernels", "an empty parameter", "DataParallel", "state_dict", "model", "model_state_dict"],
)
def test_the_same_weights_load_however_they_were_saved(published, change):
    """Unused tensors may be present or absent, and the state dict may be inside a checkpoint."""
    _, state, load = published
    (expected, model) = (load(state).state_dict(), load(change(state)))
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_what_is_not_used_may_be_absent(published):
    module, state, load = published
    load({name: value for name, value in state.items() if name not in module.UNUSED})


def test_an_empty_tensor_in_place_of_a_weight_is_refused(published):
    _, state, load = published
    name = next(name for name, value in state.items() if value.ndim == 4)
    with pytest.raises(Faulty, match=rf"{name}: error: must have shape \(.*\), found \(0,\)"):
        load(state | {name: torch.empty(0)})


def test_vggish_loads_as_the_port_saves_it(tmp_path):
    state = numbered(FILES["vggish"][1])
    state |= {"pproc.pca_eigen_vectors": torch.zeros(128, 128), "pproc.pca_means": torch.zeros(128, 1)}
    vggish.load_model(str(write("vggish", tmp_path, state)))


def test_all_differences_are_named_at_once(published):
    _, state, load = published
    gone, other, *_ = (name for name, value in state.items() if value.ndim == 4 or name.startswith("embeddings"))
    del state[gone]
    state[other] = torch.zeros(3, 5)
    state["head.weight"] = torch.zeros(2, 2)
    with pytest.raises(Faulty) as fault:
        load(state)
    said = {finding.column: finding.message for finding in fault.value.findings}
    assert set(said) == {gone, other, "head.weight"}
    assert said[gone].startswith("missing; the file must contain it with shape (")
    assert said[other].endswith("found (3, 5)")
    assert said["head.weight"].startswith("unexpected, with shape (2, 2)")


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_network_is_refused(name, tmp_path):
    other = {"fc.weight": torch.zeros(2, 2)}
    with pytest.raises(Faulty, match="missing"):
        MODULES[name].load_model(str(write(name, tmp_path, other)))


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps({"a": print}, protocol=2)])
def test_what_torch_did_not_save_is_refused_unread(content, tmp_path):
    (tmp_path / "vggish-10086976.pth").write_bytes(content)
    with pytest.raises(
        BadRequest, match=r"must be VGGish as torch saves it, but cannot be read \(.*fetch it again from https://"
    ):
        vggish.load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("saved", "found"), [(torch.zeros(3), "none"), ({"a": 3, "model": {"b": 4}}, "only a, model"), ({}, "none")]
)
def test_a_file_without_tensors_is_refused(saved, found, tmp_path):
    torch.save(saved, tmp_path / "Cnn14_mAP=0.431.pth")
    with pytest.raises(
        BadRequest, match=f"must contain a dict with the weights' tensors; found {found}: fetch it again"
    ):
        MODULES["cnn14"].load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("cnn14", "Cnn14_mAP=0.431.pth", "about 327 MB"),
        ("vggish", "vggish-10086976.pth", "about 289 MB"),
        ("openl3", "torchopenl3_mel128_env_512.pth.tar", "about 36 MB"),
        ("coala", "audio_encoder_epoch_200.pt", "about 10 MB"),
        ("passt", "passt-s-f128-p16-s10-ap.476-swa.pt", "about 345 MB"),
        ("yamnet", "yamnet_audio_classifier_with_metadata.tflite", "about 4 MB"),
    ],
)
def test_missing_weights_are_named_with_size_and_place(name, file, size, tmp_path, monkeypatch):
    monkeypatch.setenv("DCASE_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BadRequest) as refusal:
        encoders.load_encoder(name)
    said = str(refusal.value)
    assert "is not on this machine" in said
    assert f"fetch it with: dcase-systems download {name}; or put" in said
    assert all(part in said for part in (file, size, "https://", f"into {tmp_path}/cache, or give its path"))
    with pytest.raises(
        BadRequest, match=f"no such file; fetch it with: dcase-systems download {name}, and give no path"
    ):
        encoders.load_encoder(name, str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("place", ["cache", ".cache/dcase-kit", "hub/checkpoints", "panns_data"])
def test_weights_are_found_where_people_put_them(place, tmp_path, monkeypatch):
    monkeypatch.setenv("DCASE_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "vggish-10086976.pth").touch()
    assert weights.find(vggish.ASSET) == tmp_path / place / "vggish-10086976.pth"


# COALA's scaler ------------------------------------------------------------------------------------------------------


def test_the_scaler_scales_as_scikit_learn_does(tmp_path):
    from sklearn.preprocessing import MinMaxScaler

    rng = np.random.default_rng(0)
    scaler = MinMaxScaler().fit(rng.normal(size=(20, 96)))
    patch = rng.normal(size=(5, 96))
    # scikit-learn 0.22 and numpy 1, which wrote the published file, used other names for the same classes.
    old = pickle.dumps(scaler, protocol=2).replace(b"numpy._core", b"numpy.core").replace(b"._data\n", b".data\n")
    for content in (pickle.dumps(scaler), old):
        (tmp_path / "scaler").write_bytes(content)
        values = coala.read_scaler(tmp_path / "scaler")
        found = torch.from_numpy(patch).float() * values["scale"] + values["offset"]
        assert np.allclose(found, scaler.transform(patch), atol=1e-5)


class Trap:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "said"),
    [(pickle.dumps(Trap()), "it needs builtins.print"), (b"", "must be COALA's scaler"), (pickle.dumps([1]), "scale_")],
)
def test_what_is_no_scaler_is_refused_and_not_run(content, said, tmp_path, capsys):
    (tmp_path / "scaler").write_bytes(content)
    with pytest.raises(BadRequest, match=said):
        coala.read_scaler(tmp_path / "scaler")
    assert capsys.readouterr().out == ""


def test_coala_says_that_its_scaler_is_missing(tmp_path):
    file = write("coala", tmp_path, numbered(FILES["coala"][1]))
    (tmp_path / "scaler_top_1000.pkl").unlink()
    with pytest.raises(BadRequest, match=r"scaler_top_1000\.pkl: no such file; fetch it with"):
        coala.load_model(str(file))
