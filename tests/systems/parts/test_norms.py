"""Batch norm compared with torch's."""

import torch

from systems.parts.norms import Norm


def test_the_norm_is_batch_norm_and_takes_a_single_value():
    torch.manual_seed(0)
    ours, theirs = Norm(4), torch.nn.BatchNorm2d(4)
    ours.weight.data.uniform_(0.5, 1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 5, 2)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    lone = torch.full((1, 4, 1, 1), 7.0, requires_grad=True)
    answer = ours(lone)
    torch.testing.assert_close(answer, ours.bias[None, :, None, None].expand_as(answer))
    answer.sum().backward()
    assert lone.grad.isfinite().all()
    assert int(ours.num_batches_tracked) == 2
