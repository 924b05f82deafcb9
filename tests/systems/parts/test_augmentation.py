"""Augmentation changes only what it should."""

import torch

from systems.parts.augmentation import mixed, mixing, spec_augment


def test_spec_augment_blots_out_stretches_within_each_clip():
    torch.manual_seed(0)
    lengths = torch.tensor([100, 40])
    mels = torch.randn(2, 100, 64) + 3
    mels[1, 40:] = 0
    before = mels.clone()
    found = spec_augment(mels, lengths, masks=2, time=0.2, bands=0.25)
    assert torch.equal(mels, before)
    assert (found[1, 40:] == 0).all()
    for row, length in enumerate(lengths):
        changed = found[row, :length] != mels[row, :length]
        mean = mels[row, :length].mean()
        torch.testing.assert_close(found[row, :length][changed], mean.expand(int(changed.sum())))
        rows, columns = changed.all(1), changed.all(0)
        assert torch.equal(changed, rows[:, None] | columns)
        assert 0 < rows.sum() <= 2 * 0.2 * length + 2
        assert 0 < columns.sum() <= 2 * 0.25 * 64 + 2


def test_mixing_keeps_the_first_clip_the_louder():
    torch.manual_seed(0)
    other, share = mixing(1000, 0.4)
    assert sorted(other.tolist()) == list(range(1000))
    assert share.min() >= 0.5
    assert share.max() <= 1
    assert 0.8 < share.mean() < 0.9  # the beta distribution has most of its mass at the ends


def test_mixed_clips_keep_their_own_length():
    torch.manual_seed(0)
    sequences, lengths = torch.ones(2, 4, 3), torch.tensor([4, 1])
    sequences[1, 1:] = 0
    found = [mixed(sequences, lengths, 1.0) for _ in range(20)]
    assert all((values[1, 1:] == 0).all() for values in found)
    shares = torch.stack([values[0, 1:] for values in found])  # the partner is the clip itself, or has ended
    assert shares.min() >= 0.5
    assert shares.unique().numel() > 2
    audio = mixed(torch.ones(2, 5), torch.tensor([5, 2]), 1.0)
    assert audio.shape == (2, 5)
    assert (audio[1, 2:] == 0).all()
