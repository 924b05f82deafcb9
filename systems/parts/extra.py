"""Extra captions in training: which ones a training may use, and which ones each epoch sees.

A data folder may contain extra captions of its development clips in `captions_development.extra.csv`
(`evaluation.data.extra_captions`). A system that can train on them has the settings `ExtraCaptions` in its config and
does three things:

1. It calls `choose_extra`, which selects the extra captions of the sources that the config names, and adds the digest
   of these captions to the run's data. So a run does not resume with other extra captions.
2. It makes a training item from each of these captions: the clip with this caption.
3. It gives these items to `WithExtra`, together with the other training items. Each epoch sees all other items, and
   draws a share of the extra items from the run's seed and the number of the epoch. So a resumed run sees the same
   items as one that was not interrupted, and all processes of a run draw the same items.

Only the clips of the data folder's development split have extra captions in training. Extra captions of other splits
and of further data folders are not used.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from pydantic import BaseModel, Field, model_validator

from evaluation.data.dataset import Split
from evaluation.data.extra_captions import file_name
from evaluation.findings import BadRequest
from evaluation.text import unknown_key

DATA = "extra_captions"  # the key of their digest in the `data` of a run's config.yaml


class ExtraCaptions(BaseModel, extra="forbid", frozen=True):
    """The settings of a config for extra captions."""

    extra_share: float = Field(0.0, ge=0, le=1)  # share of the extra captions that each epoch draws; 0: none
    extra_sources: tuple[str, ...] = ()  # the sources of the extra captions to use; empty: all sources

    @model_validator(mode="after")
    def _sources(self) -> "ExtraCaptions":
        if self.extra_sources and not self.extra_share:
            raise ValueError(
                f"extra_share must be above 0 with extra_sources; found 0 with {list(self.extra_sources)}: raise it, "
                "or set extra_sources: []"
            )
        return self


class Pair(NamedTuple):
    """A clip and one of its extra captions."""

    clip: int  # index of the clip in its split
    caption: str


@dataclass(frozen=True)
class Chosen:
    """The extra captions that a training may use.

    Attributes:
        split: The split of the clips.
        pairs: Every pair of a clip and one of its extra captions, in the order of the clips.
    """

    split: Split
    pairs: tuple[Pair, ...] = ()

    @property
    def captions(self) -> list[str]:
        """The captions in the order of the pairs; a caption that several clips share is repeated."""
        return [pair.caption for pair in self.pairs]

    @property
    def digests(self) -> Mapping[str, str]:
        """A dict with the digest of the pairs, to add to `Run.data`; empty if there are no pairs."""
        if not self.pairs:
            return {}
        content = [(self.split.file_names[pair.clip], pair.caption) for pair in self.pairs]
        return {DATA: hashlib.sha256(repr(content).encode()).hexdigest()[:8]}

    def as_split(self) -> Split:
        """Return a split of the clips that have extra captions, with these captions in place of their own."""
        captions: dict[int, list[str]] = {}
        for pair in self.pairs:
            captions.setdefault(pair.clip, []).append(pair.caption)
        clips = [replace(self.split.clips[clip], captions=tuple(texts)) for clip, texts in captions.items()]
        return Split(self.split.name, tuple(clips))

    def truth(self) -> dict[str, frozenset[str]]:
        """Return a dict from each caption, also each extra one, to the names of its clips, as `Split.captions`.

        If a clip has an extra caption that is a caption of another clip, the caption belongs to both clips.
        """
        owners = dict(self.split.captions)
        for pair in self.pairs:
            owners[pair.caption] = owners.get(pair.caption, frozenset()) | {self.split.file_names[pair.clip]}
        return owners


def choose_extra(config: ExtraCaptions, split: Split) -> Chosen:
    """Select the extra captions of a split that the config allows.

    Args:
        config: The settings. With `extra_share` 0, nothing is selected.
        split: The development split.

    Raises:
        BadRequest: `extra_share` is above 0 and the split has no extra captions, or none of a source that
            `extra_sources` names.
    """
    if not config.extra_share:
        return Chosen(split)
    pairs = []
    sources = set()
    for number, clip in enumerate(split.clips):
        for extra in clip.extra:
            sources.add(extra.source)
            if not config.extra_sources or extra.source in config.extra_sources:
                pairs.append(Pair(number, extra.caption))
    if not sources:
        raise BadRequest(
            f"extra_share must be 0 for a {split.name} split without extra captions; found {config.extra_share:g}: "
            f"add {file_name(split.name)} to the data folder, or set extra_share: 0"
        )
    for source in config.extra_sources:
        if source not in sources:
            raise BadRequest(
                f"extra_sources: {file_name(split.name)}: {unknown_key(source, sorted(sources), 'source')}"
            )
    return Chosen(split, tuple(pairs))


class WithExtra:
    """Training items, of which each epoch sees all regular ones and a share of the extra ones.

    The length is the number of items that an epoch sees.

    Args:
        regular: The regular items.
        extra: The extra items, one or more.
        share: The share of the extra items that each epoch draws, in (0, 1]. At least one item is drawn.

    Attributes:
        items: All items; the extra ones follow the regular ones.
    """

    def __init__(self, regular: Sequence, extra: Sequence, share: float):
        self.items = [*regular, *extra]
        self.regular, self.extra = len(regular), len(extra)
        self.drawn = max(1, round(share * self.extra))

    def __len__(self) -> int:
        return self.regular + self.drawn

    def in_epoch(self, seed: int, epoch: int) -> list[int]:
        """Return the indices of the items that an epoch sees, in ascending order.

        Args:
            seed: The seed of the run.
            epoch: The number of the epoch, from 0.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch * 1_009)
        drawn = torch.randperm(self.extra, generator=generator)[: self.drawn]
        return [*range(self.regular), *(self.regular + drawn.sort().values).tolist()]
