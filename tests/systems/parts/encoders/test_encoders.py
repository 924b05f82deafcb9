"""Encoders by name, from this package and others, on unusual audio."""

import functools
import sys
import types

import pytest
import torch

from evaluation.findings import BadRequest
from systems.modules import trusting
from systems.parts import encoders
from systems.parts.encoders import cnn14, coala, openl3, vggish, windows
from tests.systems.parts.encoders.published import FILES, write

OURS = {
    "cnn14": (cnn14, cnn14.Cnn14, 2048, 32000, 320.0),
    "vggish": (vggish, vggish.VGGish, 128, 16000, 960.0),
    "openl3": (openl3, openl3.OpenL3, 512, 48000, 1000.0),
    "coala": (coala, coala.Coala, 1152, 44100, 2234.0),
}
SECONDS = (0.01, 0.1, 1.07, 1.98, 4.0)


@functools.cache  # CNN14 takes seconds
def made(name):
    torch.manual_seed(0)
    return OURS[name][1]().eval().requires_grad_(False)


@pytest.fixture(scope="module", params=OURS)
def ours(request):
    """One of our encoders with random weights."""
    module, _, size, rate, hop = OURS[request.param]
    model = made(request.param)
    assert (model.sample_rate, model.timestamp_embedding_size, model.scene_embedding_size) == (rate, size, size)
    return encoders.Encoder(request.param, module, model), hop


def noise(model, seconds, sounds=1):
    random = torch.Generator().manual_seed(int(100 * seconds))
    return torch.rand(sounds, int(seconds * model.sample_rate), generator=random) * 2 - 1


@pytest.mark.parametrize("seconds", SECONDS)
def test_awkward_lengths(ours, seconds):
    encoder, hop = ours
    audio = noise(encoder.model, seconds)
    values, times = encoder.module.get_timestamp_embeddings(audio, encoder.model)
    assert values.shape == (*times.shape, encoder.size)
    assert values.dtype == times.dtype == torch.float32
    assert values.isfinite().all()
    assert torch.allclose(times.diff(), torch.tensor(hop), atol=0.5)
    assert times.shape[1] == 1 or times.max() <= 1000 * seconds
    assert times.max() >= 1000 * seconds - 1.5 * hop  # less than half a window is lost at the end
    scene = encoder.module.get_scene_embeddings(audio, encoder.model)
    assert scene.shape == (1, encoder.size)
    assert scene.isfinite().all()
    if times.shape[1] == 1:
        assert torch.allclose(scene, values[:, 0], atol=1e-6)


def test_half_a_minute(ours):
    encoder, hop = ours
    step = hop if encoder.name in ("cnn14", "coala") else 9600.0  # more windows would take long and test nothing new
    values, times = encoder.module.get_timestamp_embeddings(noise(encoder.model, 30), encoder.model, step)
    assert values.shape == (*times.shape, encoder.size)
    assert abs(times.shape[1] - 30_000 / step) <= 1


def test_silence(ours):
    encoder, _ = ours
    values, _ = encoder.module.get_timestamp_embeddings(torch.zeros(1, 2 * encoder.sample_rate), encoder.model)
    assert values.isfinite().all()


def test_neighbours_and_padding_change_nothing(ours):
    encoder, _ = ours
    short, long = noise(encoder.model, 1.98), noise(encoder.model, 4.0)
    alone = encoder(short, torch.tensor([short.shape[1]]))[0]
    batch = long.repeat(2, 1)
    batch[0, : short.shape[1]] = short
    batch[0, short.shape[1] :] = 7.0  # padding, which must not matter
    together = encoder(batch, torch.tensor([short.shape[1], long.shape[1]]))
    assert torch.equal(together[0], alone)
    assert len(together[1]) > len(together[0]) or encoder.name == "coala"
    # The module's own function, with another clip of the same length.
    pair, _ = encoder.module.get_timestamp_embeddings(torch.cat([short, short.flip(1)]), encoder.model)
    assert torch.allclose(pair[0], alone, atol=1e-4 * float(alone.abs().max()))


def test_weights_can_be_fine_tuned(ours):
    encoder, _ = ours
    last = list(encoder.model.parameters())[-1].requires_grad_(True)
    try:
        encoder(noise(encoder.model, 0.5), torch.tensor([1000]))[0].sum().backward()
        assert last.grad.isfinite().all()
    finally:
        last.requires_grad_(False)


@pytest.mark.parametrize("hop", [0, -960, float("nan"), float("inf")])
def test_impossible_hops_are_refused(ours, hop):
    encoder, _ = ours
    with pytest.raises(BadRequest, match="hop must be"):
        encoder.module.get_timestamp_embeddings(noise(encoder.model, 0.1), encoder.model, hop)


@pytest.mark.parametrize("audio", [torch.zeros(5), torch.zeros(1, 0), torch.zeros(0, 5), torch.zeros(1, 5).long()])
def test_what_is_no_sound_is_refused(ours, audio):
    encoder, _ = ours
    for function in (encoder.module.get_timestamp_embeddings, encoder.module.get_scene_embeddings):
        with pytest.raises(BadRequest, match=r"audio must be \(n_sounds, n_samples\) floats"):
            function(audio, encoder.model)


def test_cnn14_steps_every_so_many():
    model = made("cnn14")
    audio = noise(model, 3.0)
    values, times = cnn14.get_timestamp_embeddings(audio, model)
    sparse, sparse_times = cnn14.get_timestamp_embeddings(audio, model, 960.0)
    assert torch.allclose(sparse, values[:, ::3], atol=1e-5)
    assert torch.equal(sparse_times, times[:, ::3])
    steps = model(audio)[0].T  # (9, 2048), without the ReLU's layer
    near = steps[4:7]
    assert torch.allclose(values[0, 5], model.fc1(near.amax(0) + near.mean(0)).relu(), atol=1e-5)
    assert torch.allclose(values[0, 0], model.fc1(steps[:2].amax(0) + steps[:2].mean(0)).relu(), atol=1e-5)
    with pytest.raises(BadRequest, match="a multiple of 320 ms"):
        cnn14.get_timestamp_embeddings(audio, model, 500.0)


def test_windows_are_where_they_should_be():
    audio = torch.arange(1.0, 1001.0)[None]  # 1 s at 1 kHz
    values, times = windows.over_windows(lambda part: part, audio, 1000, 300, 200.0)
    assert times.tolist() == [[150, 350, 550, 750, 950]]
    assert values[0, 3].tolist() == list(range(601, 901))
    assert values[0, 4].tolist() == [*range(801, 1001), *[0.0] * 100]
    _, times = windows.over_windows(lambda part: part, audio[:, :949], 1000, 300, 200.0)
    assert times.tolist() == [[150, 350, 550, 750]]  # the middle of a fifth window would be behind the end


def test_hops_do_not_drift():
    _, times = windows.over_windows(lambda part: part[:, :1], torch.zeros(1, 44100 * 600), 44100, 4410, 25.0)
    assert (times.double().diff() - 1102 / 44.1).abs().max() < 0.1  # ms, of float32
    assert times[0, -1] == pytest.approx((times.shape[1] - 1) * 1102 / 44.1 + 50, abs=0.1)


# Other modules -----------------------------------------------------------------------------------------------------


class Model(torch.nn.Module):
    """The model of another package: the mean and the loudness of each tenth of a second."""

    sample_rate = 16000
    timestamp_embedding_size = 2
    scene_embedding_size = 3


def timestamps(audio, model):
    parts = audio.unfold(1, 1600, 1600)
    values = torch.stack([parts.mean(2), parts.square().mean(2)], dim=2)
    return values, torch.arange(values.shape[1]).expand(values.shape[:2]) * 100.0


def scenes(audio, model):
    return torch.cat([timestamps(audio, model)[0].mean(1), torch.ones(len(audio), 1)], dim=1)


@pytest.fixture
def theirs(monkeypatch):
    """An importable HEAR module of another package."""
    module = types.ModuleType("their_encoder")
    module.load_model = lambda path="default": Model()
    module.get_timestamp_embeddings, module.get_scene_embeddings = timestamps, scenes
    monkeypatch.setitem(sys.modules, "their_encoder", module)
    with trusting(["their_encoder"]):
        yield module


def test_any_hear_module_works_where_ours_does(theirs):
    encoder = encoders.load_encoder("their_encoder")
    assert (encoder.sample_rate, encoder.size, encoder.hop) == (16000, 2, None)
    sequences = encoder(torch.ones(2, 8000), torch.tensor([3200, 8000]))
    assert [sequence.shape for sequence in sequences] == [(2, 2), (5, 2)]
    scene = encoders.load_encoder("their_encoder", scene=True)
    assert scene.size == 3
    assert [value.tolist() for value in scene(torch.ones(1, 8000), torch.tensor([8000]))] == [[[1, 1, 1]]]
    assert scene.identity != encoder.identity


def test_all_that_a_module_lacks_is_named(theirs, monkeypatch):
    monkeypatch.delattr(theirs, "load_model")
    monkeypatch.delattr(theirs, "get_scene_embeddings")
    with pytest.raises(BadRequest, match=r"must be a HEAR module, with .*; it has no load_model, get_scene_embeddings"):
        encoders.load_encoder("their_encoder")


def test_all_that_a_model_lacks_is_named(theirs, monkeypatch):
    monkeypatch.delattr(Model, "sample_rate")
    monkeypatch.setattr(Model, "scene_embedding_size", "large")
    with pytest.raises(BadRequest, match=r"must have the integers .*; it has no sample_rate, scene_embedding_size"):
        encoders.load_encoder("their_encoder")
    theirs.load_model = lambda: "a model"
    with pytest.raises(BadRequest, match=r"load_model must return a torch\.nn\.Module; found str"):
        encoders.load_encoder("their_encoder")


def test_wrong_shapes_are_said(theirs, monkeypatch):
    monkeypatch.setattr(Model, "timestamp_embedding_size", 9)
    with pytest.raises(BadRequest, match=r"must be \(1, n_timestamps, 9\) floats; found \(5, 2\)"):
        encoders.load_encoder("their_encoder")(torch.ones(1, 8000), torch.tensor([8000]))


def test_a_model_in_training_mode_is_evaluated(theirs):
    theirs.load_model = lambda path="default": Model().train()
    assert not encoders.load_encoder("their_encoder").model.training


def test_a_module_that_must_have_a_file_gets_one(theirs):
    theirs.load_model = lambda model_file_path: Model()
    assert encoders.load_encoder("their_encoder", "weights.pt").size == 2
    with pytest.raises(BadRequest, match="load_model needs a file of weights; give it"):
        encoders.load_encoder("their_encoder")


def test_a_hop_where_there_is_none_is_refused(theirs):
    with pytest.raises(BadRequest, match="their_encoder: audio_hop must be null, because"):
        encoders.load_encoder("their_encoder", hop=100)


def test_options_reach_load_model_and_the_identity(theirs):
    def load_model(path="default", gain=1.0):
        model = Model()
        model.gain = gain
        return model

    theirs.load_model = load_model
    encoder = encoders.load_encoder("their_encoder", options={"gain": 2.0})
    assert encoder.model.gain == 2
    assert encoder.identity != encoders.load_encoder("their_encoder").identity


def test_options_that_load_model_does_not_have_are_refused(theirs):
    theirs.load_model = lambda path="default", gain=1.0: Model()
    message = r"their_encoder: audio_options must be options of its load_model, which has gain; found path, loud:"
    with pytest.raises(BadRequest, match=message):
        encoders.load_encoder("their_encoder", options={"path": "x", "gain": 2.0, "loud": True})
    theirs.load_model = lambda path="default": Model()
    with pytest.raises(BadRequest, match="which has none; found loud"):
        encoders.load_encoder("their_encoder", options={"loud": True})


def test_vggish_embeds_after_its_relu_or_before(tmp_path):
    """If all weights are 0, the embedding is the last layer's bias."""
    state = {name: torch.tensor(0.0).expand(shape) for name, shape in FILES["vggish"][1].items()}
    state["embeddings.4.bias"] = torch.linspace(-1, 1, 128)
    file = str(write("vggish", tmp_path, state))
    audio, lengths = torch.zeros(1, 15600), torch.tensor([15600])
    after = encoders.load_encoder("vggish", file)
    before = encoders.load_encoder("vggish", file, options={"post_activation": False})
    assert torch.equal(before(audio, lengths)[0][0], state["embeddings.4.bias"])
    assert torch.equal(after(audio, lengths)[0][0], state["embeddings.4.bias"].relu())
    assert "('post_activation', True)" in after.identity  # older caches are not used
    assert "('post_activation', False)" in before.identity
    with pytest.raises(BadRequest, match="vggish: post_activation must be true or false; found 'no'"):
        encoders.load_encoder("vggish", file, options={"post_activation": "no"})


def test_openl3s_identity_names_padding_and_normalisation(tmp_path):
    state = {name: torch.zeros(shape) for name, shape in FILES["openl3"][1].items()}
    filters = openl3.unit_area_filters()
    state["speclayer.mel_basis"] = filters / filters.sum(dim=1, keepdim=True)
    file = str(write("openl3", tmp_path, state))
    identity = encoders.load_encoder("openl3", file).identity
    assert "[('mel_normalisation', 'sum 1'), ('padding', 'both')]" in identity
    assert "('padding', 'end')" in encoders.load_encoder("openl3", file, options={"padding": "end"}).identity
    with pytest.raises(BadRequest, match="openl3: padding must be both or end; found 'same'"):
        encoders.load_encoder("openl3", file, options={"padding": "same"})


@pytest.mark.parametrize(
    "name",
    [
        "no_such_encoder",
        "no.such.encoder",
        "systems.parts.encoders.no_such",
        "cnn15",
        "",
        ".x",
        "./cnn14.pth",
        "/a.pth",
    ],
)
def test_unknown_names_are_refused(name):
    with pytest.raises(BadRequest, match="there are cnn14, coala, openl3, passt, vggish, yamnet, and any HEAR module"):
        encoders.load_encoder(name)


def test_what_a_module_lacks_itself_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "wants_more.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with trusting(["wants_more"]), pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        encoders.load_encoder("wants_more")
