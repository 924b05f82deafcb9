"""Batch norm in training with several processes."""

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from systems.parts.losses import gathered


class Norm(nn.BatchNorm2d):
    """A batch norm whose statistics cover the clips of all processes.

    It replaces torch's batch norms for two reasons. It runs on any device, while torch's SyncBatchNorm runs on GPUs
    only. In training, it accepts one value per channel, which torch's batch norms refuse.

    Attributes:
        updates_statistics: False while the running statistics must not change.
    """

    updates_statistics = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise an array of shape (clips, channels, bins, frames)."""
        several_processes = torch.distributed.is_available() and torch.distributed.is_initialized()
        values = x.numel() // x.shape[1]
        if not self.training or (values > 1 and not several_processes):
            if self.training and not self.updates_statistics:
                copies = self.running_mean.clone(), self.running_var.clone()
                return F.batch_norm(x, *copies, self.weight, self.bias, True, eps=self.eps)
            return super().forward(x)
        single_precision = x.float()
        mean = single_precision.mean((0, 2, 3))
        spread = (single_precision - mean[:, None, None]).square().sum((0, 2, 3))
        of_this_process = torch.stack([torch.full_like(mean, values), mean, spread])
        counts, means, spreads = gathered(of_this_process[None]).unbind(1)  # (processes, channels) each
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (spreads + counts * (means - mean).square()).sum(0) / count
        if self.updates_statistics:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (single_precision * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(x.dtype)
