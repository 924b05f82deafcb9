"""Data augmentation: random changes to the training data, which reduce overfitting."""

import torch
from torch import Tensor

from systems.parts.sequences import length_mask


def spec_augment(mels: Tensor, lengths: Tensor, masks: int, time: float = 0.1, bands: float = 0.125) -> Tensor:
    """Mask random ranges of time and of frequency (SpecAugment, Park et al. 2019, without its time warping).

    Args:
        mels: (N, T, F) log-mel energies; they are not changed in place.
        lengths: (N,) number of frames of each clip.
        masks: Number of masks in time, and also of masks in frequency. Masks may overlap.
        time: Maximum length of a mask in time, as a share of the clip.
        bands: Maximum width of a mask in frequency, as a share of the mel bands.

    Returns:
        (N, T, F) energies. Masked values are replaced by their clip's mean. Frames after a clip's end are zero.
    """
    inside = length_mask(lengths, mels.shape[1])
    mean = (mels * inside[..., None]).sum((1, 2), keepdim=True) / (lengths * mels.shape[2])[:, None, None]
    for _ in range(masks):
        for axis, whole, share in ((1, lengths, time), (2, torch.full_like(lengths, mels.shape[2]), bands)):
            width = torch.rand(len(mels), device=mels.device) * share * whole
            first = torch.rand(len(mels), device=mels.device) * (whole - width)
            positions = torch.arange(mels.shape[axis], device=mels.device)
            masked = (positions >= first[:, None].floor()) & (positions < (first + width)[:, None].floor())
            other_axis = 3 - axis
            mels = torch.where(masked.unsqueeze(other_axis), mean, mels)  # the mask is (N, T, 1) or (N, 1, F)
    return torch.where(inside[..., None], mels, 0)


def mixed(sequences: Tensor, lengths: Tensor, alpha: float) -> Tensor:
    """Mix each clip with a random partner in the batch (mixup). A clip keeps its own length.

    Args:
        sequences: (N, T, …) audio or embeddings of the clips.
        lengths: (N,) number of samples or embeddings of each clip.
        alpha: As for `mixing`.

    Returns:
        (N, T, …) the mixed clips, zero after each clip's own end.
    """
    partners, share = mixing(len(sequences), alpha, sequences.device)
    inside = length_mask(lengths, sequences.shape[1])
    while share.ndim < sequences.ndim:
        share = share[..., None]
    while inside.ndim < sequences.ndim:
        inside = inside[..., None]
    return torch.where(inside, share * sequences + (1 - share) * sequences[partners], 0)


def mixing(clips: int, alpha: float, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Draw a partner to mix each clip with, and each clip's own share (mixup, Zhang et al. 2018).

    The partners are a random permutation of the clips, so a clip can be its own partner.

    Args:
        clips: Number of clips.
        alpha: Both parameters of the share's beta distribution. A small alpha gives shares near 1.
        device: The device of the results.

    Returns:
        (clips,) index of each clip's partner, and (clips,) each clip's own share in [0.5, 1]. A clip's own share is the
        larger one, so its words can stay the target.
    """
    share = torch.distributions.Beta(alpha, alpha).sample((clips,)).to(device)
    return torch.randperm(clips).to(device), torch.maximum(share, 1 - share)
