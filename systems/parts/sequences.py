"""Sequences of different lengths in one tensor: stacking, masks and means."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def stack_sequences(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack N sequences of shape (T, size) in one tensor.

    Returns:
        sequences: (N, longest, size), zero after each sequence's end.
        lengths: (N,) int64.
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
    """Return a mask of sequences with (N,) `lengths`: (N, longest) bool, false after each sequence's end."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def masked_mean(sequences: Tensor, mask: Tensor) -> Tensor:
    """Average the elements of (N, T, size) sequences where `mask` (N, T) is true, as (N, size).

    The mean of no elements is zero.
    """
    total = (sequences * mask[..., None]).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1)
