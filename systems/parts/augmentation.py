"""Changes to training material, so that a model does not learn it by heart."""

import torch
from torch import Tensor

from systems.parts.sequences import length_mask


def spec_augment(mels: Tensor, lengths: Tensor, masks: int, time: float = 0.1, bands: float = 0.125) -> Tensor:
    """Blot out stretches of time and of frequency (SpecAugment, Park et al. 2019, without its time warping).

    Args:
        mels: (N, T, F) log-mel energies; they are left as they are.
        lengths: (N,) frames of each clip.
        masks: How many stretches of time, and as many of frequency; they may overlap.
        time: The longest stretch of time, as a share of the clip.
        bands: The widest stretch of frequency, as a share of the mels.

    Returns:
        (N, T, F) where what is blotted out has its clip's mean value.
    """
    inside = length_mask(lengths, mels.shape[1])
    mean = (mels * inside[..., None]).sum((1, 2), keepdim=True) / (lengths * mels.shape[2])[:, None, None]
    for _ in range(masks):
        for axis, whole, share in ((1, lengths, time), (2, torch.full_like(lengths, mels.shape[2]), bands)):
            width = torch.rand(len(mels), device=mels.device) * share * whole
            first = torch.rand(len(mels), device=mels.device) * (whole - width)
            place = torch.arange(mels.shape[axis], device=mels.device)
            hidden = (place >= first[:, None].floor()) & (place < (first + width)[:, None].floor())
            mels = torch.where(hidden[:, :, None] if axis == 1 else hidden[:, None], mean, mels)
    return torch.where(inside[..., None], mels, 0)


def mixing(clips: int, alpha: float, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Draw with whom each clip is mixed and how much of it stays (mixup, Zhang et al. 2018).

    Args:
        clips: How many.
        alpha: Of the beta distribution that the share is drawn from; small: nearly all stays.
        device: Where to.

    Returns:
        (clips,) the other clip, and (clips,) the share of the first in [0.5, 1]: it stays the louder one, so that its
        words can stay the answer.
    """
    share = torch.distributions.Beta(alpha, alpha).sample((clips,)).to(device)
    return torch.randperm(clips).to(device), torch.maximum(share, 1 - share)
