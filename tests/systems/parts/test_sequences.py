"""Sequences of different lengths in one tensor."""

import torch

from systems.parts.sequences import length_mask, masked_mean, stack_sequences


def test_sequences_are_stacked_with_zeros_behind_their_ends():
    sequences, lengths = stack_sequences([torch.ones(2, 3), torch.ones(1, 3)])
    assert lengths.tolist() == [2, 1]
    assert sequences.sum(2).tolist() == [[3, 3], [3, 0]]


def test_the_mask_is_true_up_to_each_length():
    assert length_mask(torch.tensor([2, 0]), 3).tolist() == [[True, True, False], [False, False, False]]


def test_the_mean_ignores_what_the_mask_excludes():
    sequences = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert masked_mean(sequences, length_mask(torch.tensor([2]), 3)).tolist() == [[2.0]]


def test_the_mean_of_an_empty_sequence_is_zero():
    assert masked_mean(torch.ones(1, 2, 3), length_mask(torch.tensor([0]), 2)).tolist() == [[0, 0, 0]]
