"""Pairs of a clip and a caption, and the clips that each caption belongs to, for contrastive training."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluation.data.dataset import Clip
from systems.parts.losses import NONE


class Pairs(NamedTuple):
    """Clips and distinct texts, identified by their indices, and the pairs of a clip and a text.

    Attributes:
        captions: The distinct texts.
        numbers: A dict from each text to its index in `captions`.
        pairs: The indices (clip, caption) of every pair of a clip and one of its captions.
        extra: The indices (clip, caption) of every pair of a clip and one of its extra captions.
        owners: (captions, K) int64, the indices of all clips that a text belongs to, padded with `losses.NONE`.
    """

    captions: list[str]
    numbers: dict[str, int]
    pairs: list[tuple[int, int]]
    extra: list[tuple[int, int]]
    owners: Tensor


def clip_caption_pairs(
    clips: Sequence[Clip], queries: Sequence[str] = (), extra: Sequence[tuple[int, str]] = ()
) -> Pairs:
    """Give each distinct text an index, and list all pairs of a clip and one of its captions.

    Args:
        clips: The clips.
        queries: Further texts. If they are not captions of the clips, they do not belong to any clip.
        extra: Extra captions (`systems.parts.extra`), each with the index of its clip.
    """
    owners: dict[str, list[int]] = {}
    for number, clip in enumerate(clips):
        for caption in clip.captions:
            owners.setdefault(caption, []).append(number)
    owners |= {query: [] for query in queries if query not in owners}
    for number, caption in extra:
        owners.setdefault(caption, []).append(number)
    numbers = {caption: number for number, caption in enumerate(owners)}
    clip_and_caption = []
    for number, clip in enumerate(clips):
        clip_and_caption += [(number, numbers[caption]) for caption in clip.captions]
    clip_and_extra = [(number, numbers[caption]) for number, caption in extra]
    rows = [torch.tensor(row, dtype=torch.int64) for row in owners.values()]
    owner_table = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NONE)
    return Pairs(list(owners), numbers, clip_and_caption, clip_and_extra, owner_table)
