"""The CRNN is the published one, and a clip's vectors do not depend on its batch."""

import pytest
import torch
from torch import nn

from baseline.crnn import CRNN, FLOOR, SIZE

CPU = torch.device("cpu")


def published():
    """The layers of the published encoder in their order, built from torch's own modules."""

    def convolution(inputs, outputs):
        parts = [nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.LeakyReLU(0.1)]
        return nn.Sequential(*parts)

    return nn.Sequential(
        convolution(1, 32),
        nn.LPPool2d(4, (2, 4)),
        convolution(32, 128),
        convolution(128, 128),
        nn.LPPool2d(4, (2, 4)),
        convolution(128, 128),
        convolution(128, 128),
        nn.LPPool2d(4, (1, 4)),
    )


def random_net(seed=0, floor=FLOOR):
    torch.manual_seed(seed)
    net = CRNN(floor=floor)
    for module in net.modules():  # random statistics, as if the network were trained
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return net.eval()


def test_it_has_the_published_number_of_parameters():
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in CRNN().named_children()}
    assert sum(parameters.values()) == 732_354
    assert (parameters["blocks"], parameters["gru"]) == (480_354, 252_000)


@pytest.mark.parametrize("frames", [4, 5, 7, 64, 250])
def test_it_equals_the_published_layers_on_one_clip(frames):
    net, reference = random_net(), published().eval()
    convolutions = [module for module in reference if isinstance(module, nn.Sequential)]
    for block, (norm, convolution, _) in zip(net.blocks, convolutions, strict=True):
        norm.load_state_dict(block.norm.state_dict())
        convolution.load_state_dict(block.convolution.state_dict())
    mels = torch.randn(1, frames, 64)
    with torch.inference_mode():
        expected, _ = net.gru(reference(mels.unsqueeze(1)).squeeze(3).transpose(1, 2))
        found, lengths = net(mels, torch.tensor([frames]))
    assert lengths.tolist() == [frames // 4]
    torch.testing.assert_close(found[:, : frames // 4], expected, rtol=1e-5, atol=1e-5)


def test_the_floor_is_a_key_and_as_small_as_it_says():
    mels = torch.zeros(1, 101, 64)
    with torch.inference_mode():
        published_one, _ = random_net(floor=0)(mels, torch.tensor([101]))
        ours, _ = random_net()(mels, torch.tensor([101]))
    assert 0 < (ours - published_one).abs().max() < 1e-3
    block = random_net().blocks[0]
    for pooled, change in ((0, 1e-3), (0.01, 2.5e-7), (1, 0)):
        value = torch.tensor(pooled, dtype=torch.float64)
        assert (value**4 + block.floor) ** 0.25 - value == pytest.approx(change, rel=0.01, abs=1e-12)


def test_a_clip_has_the_same_vectors_alone_and_in_a_batch():
    net, lengths = random_net(), torch.tensor([4, 9, 30, 57, 64])
    clips = [torch.randn(int(length), 64) for length in lengths]
    padded = torch.randn(len(clips), 64, 64)  # the values behind a clip's end must not matter
    for row, clip in enumerate(clips):
        padded[row, : len(clip)] = clip
    with torch.inference_mode():
        together, inside = net(padded, lengths)
        for row, clip in enumerate(clips):
            alone, _ = net(clip[None], lengths[row : row + 1])
            end = int(inside[row])
            torch.testing.assert_close(together[row, :end], alone[0, :end], rtol=1e-5, atol=5e-5)
            assert not together[row, end:].any()


def test_batch_statistics_are_those_of_the_clips_alone():
    mels, lengths = torch.randn(2, 32, 64) + 3, torch.tensor([32, 12])
    mels[1, 12:] = 1000  # padding
    net = CRNN().train()
    net(mels, lengths)
    frames = torch.cat([mels[0], mels[1, :12]])
    norm = net.blocks[0].norm
    torch.testing.assert_close(norm.running_mean, frames.mean()[None] * norm.momentum)
    torch.testing.assert_close(norm.running_var, 1 - norm.momentum + frames.var()[None] * norm.momentum)


def test_gradients_stay_finite_on_silence():
    net = CRNN().train()
    mels = torch.full((2, 16, 64), -36.04, requires_grad=True)
    frames, _ = net(mels, torch.tensor([16, 16]))
    frames.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert frames.shape == (2, 4, SIZE)
