"""PaSST equals the authors' package hear21passt, and can be trained like the package's own model."""

import contextlib
import io
import sys
import types

import pytest
import torch

from evaluation.findings import BadRequest
from systems.modules import trusting
from systems.parts import encoders
from systems.parts.encoders import passt
from tests.systems.parts.encoders.published import FILES, write

LAYERS = 1  # of the published 12; the others would take long and test nothing new
ARCH = "passt_s_p16_s16_128_ap468"  # the fastest one


def noise(samples, sounds=1):
    """Noise that fades in."""
    random = torch.Generator().manual_seed(samples)
    return (torch.rand(sounds, samples, generator=random) - 0.5) * torch.linspace(0, 1, samples)


@pytest.fixture(scope="module")
def theirs():
    """The package's model with random weights and logits, as its module `base` makes it.

    The package is installed without timm, from which it only uses a function that downloads weights.
    """
    hub = types.ModuleType("timm.models._hub")
    hub.download_cached_file = None
    with pytest.MonkeyPatch.context() as patch:
        for module in (types.ModuleType("timm"), types.ModuleType("timm.models"), hub):
            patch.setitem(sys.modules, module.__name__, module)
        package = pytest.importorskip("hear21passt.models.passt")
        base = pytest.importorskip("hear21passt.base")
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        size = {"img_size": (128, 998), "stride": (16, 16), "distilled": True, "depth": LAYERS}
        net = package.PaSST(**size, s_patchout_t=15, s_patchout_f=2)
        front_end = base.AugmentMelSTFT(freqm=0, timem=0, fmin_aug_range=10, fmax_aug_range=2000)
        model = base.PasstBasicWrapper(mel=front_end, net=net, mode="all")
        model(noise(32000))  # the first call prints the shapes
    for parameter in model.parameters():  # layer norms and biases have their initial values, ones and zeros
        parameter.data += torch.randn_like(parameter) * 0.02
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ours(theirs):
    """Our model with the same weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passt, "LAYERS", LAYERS)
        model = passt.PaSST(ARCH, patchout_time=15, patchout_frequency=2, logits=True)
    state = {name: value for name, value in theirs.net.state_dict().items() if "head_dist" not in name}
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("training", [False, True])
def test_the_front_end_is_the_authors(ours, theirs, training):
    audio = noise(50_000, sounds=2)
    ours.mel.train(training)
    theirs.mel.train(training)
    try:
        torch.manual_seed(5)  # in training, both draw the edges of the filters
        wanted = theirs.mel(audio)
        torch.manual_seed(5)
        torch.testing.assert_close(ours.mel(audio), wanted, atol=1e-4, rtol=1e-4)
    finally:
        ours.mel.eval()
        theirs.mel.eval()


@pytest.mark.filterwarnings("ignore")
def test_embeddings_are_the_authors(ours, theirs):
    audio = noise(passt.SEGMENT)
    wanted = theirs.get_scene_embeddings(audio)  # 527 logits and 768 features
    torch.testing.assert_close(passt.get_scene_embeddings(audio, ours), wanted, atol=1e-4, rtol=1e-3)
    short = noise(70_000)
    torch.testing.assert_close(ours(short), theirs(short), atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_patchout_is_the_authors(ours, theirs):
    audio = noise(passt.SEGMENT)
    ours.train()
    theirs.train()
    try:
        torch.manual_seed(7)
        wanted = theirs(audio)
        torch.manual_seed(7)
        torch.testing.assert_close(ours(audio), wanted, atol=1e-4, rtol=1e-3)
    finally:
        ours.eval()
        theirs.eval()


def test_patchout_keeps_the_order_of_the_patches():
    patches = torch.arange(24.0).view(1, 1, 4, 6)
    kept = passt.patchout(patches, 3, 2)[0, 0, 0]
    assert len(kept) == 4
    assert (kept.diff() > 0).all()
    assert torch.equal(passt.patchout(patches, 2, 0), patches)


def test_a_clip_is_the_mean_of_its_segments(ours):
    sound = noise(passt.SEGMENT + 64_000)
    values, times = passt.get_timestamp_embeddings(sound, ours)
    assert values.shape == (1, 2, 1295)
    assert times.tolist() == [[5000, 11000]]
    padded = torch.nn.functional.pad(sound[:, passt.SEGMENT :], (0, passt.SEGMENT - 64_000))
    torch.testing.assert_close(values[:, 1], ours(padded), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(passt.get_scene_embeddings(sound, ours), values.mean(1))
    assert passt.get_scene_embeddings(torch.zeros(2, 5), ours).isfinite().all()


def test_the_published_file_is_found_by_its_model(tmp_path):
    state = {name: torch.tensor(0.0).expand(shape) for name, shape in FILES["passt"][1].items()}
    file = str(write("passt", tmp_path, state))
    encoder = encoders.load_encoder("passt", file, options={"patchout_time": 15})
    assert (encoder.size, encoder.sample_rate) == (768, 32000)
    assert "('arch', 'passt_s_swa_p16_128_ap476')" in encoder.identity
    assert encoders.load_encoder("passt", file, options={"logits": True}).size == 1295
    (needed,) = encoders.downloads("passt", options={"arch": ARCH})
    assert needed.asset.file_name == "passt-s-f128-p16-s16-ap.468.pt"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "passt_xl"}, "passt: arch must be one of passt_s_swa_p16_128_ap476, .*; found 'passt_xl'"),
        ({"patchout_time": 99}, "passt: patchout_time must be a whole number from 0 to 98; found 99"),
        ({"patchout_frequency": 8, "arch": ARCH}, "passt: patchout_frequency must be a whole number from 0 to 7"),
        ({"logits": "no"}, "passt: logits must be true or false; found 'no'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(BadRequest, match=message):
        encoders.load_encoder("passt", options=options)


# Training --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ours", "theirs"])
def trained(request, ours, theirs, monkeypatch):
    """An encoder that is trained: ours, or the package's, whose HEAR functions compute without gradients."""
    if request.param == "ours":
        yield encoders.Encoder("passt", passt, ours, trained=True)
        return
    module = types.ModuleType("their_passt")
    base = sys.modules["hear21passt.base"]
    module.load_model = lambda path="": theirs
    module.get_scene_embeddings = base.get_scene_embeddings
    module.get_timestamp_embeddings = base.get_timestamp_embeddings
    monkeypatch.setitem(sys.modules, "their_passt", module)
    with trusting(["their_passt"]):
        yield encoders.load_encoder("their_passt", trained=True)


@pytest.mark.filterwarnings("ignore")
def test_gradients_flow_in_training_mode_through_segments(trained):
    audio, lengths = noise(passt.SEGMENT + 400, sounds=2), torch.tensor([40_000, passt.SEGMENT + 400])
    model = trained.model.requires_grad_(True)
    try:
        quiet = trained(audio, lengths)
        assert [values.shape for values in quiet] == [(1, 1295), (2, 1295)]
        torch.testing.assert_close(trained.encode_one(audio[1])[1], quiet[1][1], atol=1e-4, rtol=1e-3)
        trained.train(True)
        values = torch.cat(trained(audio, lengths))
        assert not torch.allclose(values, torch.cat(quiet), atol=1e-3), "patchout changes the embeddings"
        (gradient,) = torch.autograd.grad(values.sum(), [dict(model.named_parameters())[name(trained)]])
        assert gradient.abs().max() > 0
    finally:
        trained.train(False)
        model.requires_grad_(False)
    assert not any(module.training for module in model.modules())


def name(encoder):
    """Return the name of the class token in the encoder's model."""
    return "cls_token" if encoder.name == "passt" else "net.cls_token"


@pytest.mark.filterwarnings("ignore")
def test_spectrograms_are_changed_in_training_only(trained):
    shapes = []

    def remember(spectrograms):
        shapes.append(tuple(spectrograms.shape))
        return spectrograms

    trained.change_spectrograms(remember)
    audio, lengths = noise(32_000), torch.tensor([32_000])
    trained(audio, lengths)
    assert shapes == []
    trained.train(True)
    trained(audio, lengths)
    trained.train(False)
    assert shapes == [(1, 128, 1000)]


def test_a_frozen_encoder_is_not_trained_or_masked(ours):
    frozen = encoders.Encoder("passt", passt, ours)
    frozen.train(True)
    assert not ours.training
    with pytest.raises(BadRequest, match="passt: spec_augment must be 0, unless the encoder is trained and offers"):
        frozen.change_spectrograms(lambda spectrograms: spectrograms)


class Model(torch.nn.Module):
    """A model whose network maps segments to values of another size than it says."""

    sample_rate, timestamp_embedding_size, scene_embedding_size, max_model_window = 8000, 3, 3, 100

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, audio):
        return self.norm(audio[:, :4])


def test_batch_norms_keep_their_statistics():
    encoder = encoders.Encoder("theirs", passt, Model(), trained=True)
    encoder.train(True)
    assert encoder.model.training
    assert not encoder.model.norm.training
    with pytest.raises(BadRequest, match=r"theirs: the network must map 2 segments to \(2, 3\) values; found \(2, 4\)"):
        encoder(torch.zeros(1, 150), torch.tensor([150]))


def test_a_network_takes_no_hop(monkeypatch):
    module = types.ModuleType("with_hop")
    module.load_model = lambda path="": Model()
    module.get_scene_embeddings = lambda audio, model: audio[:, :3]
    module.get_timestamp_embeddings = lambda audio, model, hop=1: (audio[:, None, :3], audio[:, :1])
    monkeypatch.setitem(sys.modules, "with_hop", module)
    with trusting(["with_hop"]):
        assert encoders.load_encoder("with_hop", hop=100).hop == 100
        with pytest.raises(BadRequest, match="with_hop: audio_hop must be null if the encoder is trained, because"):
            encoders.load_encoder("with_hop", hop=100, trained=True)
