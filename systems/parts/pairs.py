"""Pairs of a clip and a caption, and which clips a caption belongs to: what contrastive training draws batches from."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluation.data.dataset import Clip
from systems.parts.losses import NONE


class Pairs(NamedTuple):
    """Clips and texts by number; a clip is known by its place.

    Attributes:
        captions: The distinct texts.
        numbers: The number of each text.
        pairs: Every (clip, caption), by number.
        owners: (captions, K) int64, the numbers of all clips that a text belongs to; `losses.NONE` fills up.
    """

    captions: list[str]
    numbers: dict[str, int]
    pairs: list[tuple[int, int]]
    owners: Tensor


def of(clips: Sequence[Clip], queries: Sequence[str] = ()) -> Pairs:
    """The pairs of some clips; `queries` are texts beside their captions, which belong to none."""
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
