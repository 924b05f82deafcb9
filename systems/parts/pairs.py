"""Pairs of a clip and a caption, and the clips that each caption belongs to, for contrastive training."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluation.data.dataset import Clip
from systems.parts.losses import NONE


class Pairs(NamedTuple):
    """Numbered clips and texts; the number of a clip is its index.

    Attributes:
        captions: The distinct texts.
        numbers: The number of each text.
        pairs: Every (clip, caption), by number.
        owners: (captions, K) int64, the indices of all clips that a text belongs to, padded with `losses.NONE`.
    """

    captions: list[str]
    numbers: dict[str, int]
    pairs: list[tuple[int, int]]
    owners: Tensor


def clip_caption_pairs(clips: Sequence[Clip], queries: Sequence[str] = ()) -> Pairs:
    """Number clips and captions, and list their pairs.

    Args:
        clips: The clips.
        queries: Further texts. Those that are not captions of the clips belong to no clip.
    """
    owners: dict[str, list[int]] = {}
    for number, clip in enumerate(clips):
        for caption in clip.captions:
            owners.setdefault(caption, []).append(number)
    owners |= {query: [] for query in queries if query not in owners}
    numbers = {caption: number for number, caption in enumerate(owners)}
    clip_and_caption = []
    for number, clip in enumerate(clips):
        clip_and_caption += [(number, numbers[caption]) for caption in clip.captions]
    rows = [torch.tensor(row, dtype=torch.int64) for row in owners.values()]
    owner_table = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NONE)
    return Pairs(list(owners), numbers, clip_and_caption, owner_table)
