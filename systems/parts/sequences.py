"""Sequences of different lengths in one tensor: stacking, masks and means."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def stack_sequences(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack N sequences of shape (T, size), with different T, in one tensor.

    Returns:
        sequences: (N, longest, size), zero after each sequence's end.
        lengths: (N,) int64, the length T of each sequence.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=sequences[0].device)
    return nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut a sequence into parts of `size` items; the last one may be shorter.

    >>> chunks("abcde", 2)
    ['ab', 'cd', 'e']
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """Return a mask, (N, longest) bool, that is false after the end of each of N sequences with (N,) `lengths`."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def masked_mean(sequences: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the elements of each sequence for which a mask is true.

    Args:
        sequences: (N, T, size) sequences.
        mask: (N, T) bool.

    Returns:
        (N, size) means. If the mask of a sequence is false everywhere, its mean is zero.
    """
    total = (sequences * mask[..., None]).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1)
