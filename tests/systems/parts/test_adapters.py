"""Adapters: shapes, and independence of padding."""

import pytest
import torch

from systems.parts import adapters
from systems.parts.adapters import adapter
from systems.parts.sequences import length_mask, masked_mean


@pytest.mark.parametrize(("name", "size"), [("mlp", 20), ("mha", 512), ("linear", 20), ("identity", 6)])
def test_adapters_do_not_depend_on_padding(name, size):
    torch.manual_seed(0)
    found = adapter(name, 6, 20).eval()
    lengths = torch.tensor([5, 2, 1])
    sequences = torch.randn(3, 7, 6)
    mask = length_mask(lengths, 7)
    together = found(sequences, mask)
    assert together.shape == (3, 7, size)
    assert found.size == size
    for row, length in enumerate(lengths):
        alone = found(sequences[row : row + 1, :length], length_mask(length[None], int(length)))
        torch.testing.assert_close(together[row, :length], alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(masked_mean(together, mask)[row], alone[0].mean(0), rtol=1e-4, atol=1e-5)


def test_sizes_of_the_papers():
    def parameters(name, *sizes):
        return sum(parameter.numel() for parameter in adapter(name, *sizes).parameters())

    assert parameters("mlp", 2048) == 2048 * 512 + 512 + 512 * 512 + 512
    assert parameters("identity", 2048) == 0
    assert adapter("mha", 1024).layer.self_attn.num_heads == 4
    assert adapter("mha", 1024).layer.self_attn.head_dim == 128


def test_mha_knows_the_order_and_the_mlp_does_not():
    torch.manual_seed(0)
    sequences, mask = torch.randn(1, 4, 6), torch.ones(1, 4, dtype=torch.bool)
    for name, alike in (("mlp", True), ("mha", False)):
        found = adapter(name, 6, 20).eval()
        one, other = (masked_mean(found(part, mask), mask) for part in (sequences, sequences.flip(1)))
        assert torch.allclose(one, other, atol=1e-5) is alike


def test_every_name_makes_an_adapter():
    assert set(adapters.NAMES) == {"mlp", "mha", "linear", "identity"}
