"""Losses that bring sounds and texts together, of (N, size) embeddings of length 1, sound i and text i a pair.

What goes together is for the caller to say, as a bool matrix: a text that several clips share is an impostor for none
of them, and neither is a clip for itself where a batch holds it twice. `matching` makes it from numbers of clips.

Under several processes each embeds its own part of a batch and `gathered` gives it all parts, so that the negatives are
those of the whole batch. Every process then computes the same loss; what flows back through `gathered` is the sum over
processes, and DDP takes the mean, so that the gradient is that of one process with the whole batch.
"""

import torch
import torch.distributed
import torch.distributed.nn.functional
import torch.nn.functional as F
from torch import Tensor

NONE = -1  # fills up rows of clips' numbers


def gathered(values: Tensor) -> Tensor:
    """Join all processes' values, (N, …) of each, as (processes x N, …); gradients flow back to their own."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    if values.requires_grad:
        return torch.cat(torch.distributed.nn.functional.all_gather(values))
    parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def matching(clips: Tensor, owners: Tensor) -> Tensor:
    """Say which of N sounds and N texts go together.

    Args:
        clips: (N,) int64, the number of each sound's clip.
        owners: (N, K) int64, the numbers of all clips whose text it is; `NONE` fills up.

    Returns:
        (2N, 2N) bool, sounds before texts: of one clip, a text and a clip that it belongs to, texts that share a clip.
    """
    known = torch.cat([F.pad(clips[:, None], (0, owners.shape[1] - 1), value=NONE), owners])  # (2N, K)
    numbers, columns = known.unique(return_inverse=True)
    has = torch.zeros(len(known), len(numbers), device=known.device).scatter_(1, columns, 1)  # (2N, numbers)
    has[:, numbers == NONE] = 0
    return has @ has.T > 0


def contrastive(audio: Tensor, text: Tensor, matches: Tensor, pairs: str = "all") -> Tensor:
    """Contrastive loss (Weck et al. 2022, equation 3): 1 - s of what matches, max(0, s) of what does not.

    Of each kind the mean over all pairs with a loss above zero, and their sum: so the package that section 3.3 names
    computes it (pytorch-metric-learning, ContrastiveLoss over AvgNonZeroReducer). One mean over both kinds would leave
    the few that match next to no weight.

    Args:
        audio: (N, size).
        text: (N, size).
        matches: (2N, 2N) bool, of `matching`.
        pairs: `all`, with two sounds and two texts among them, or `text-audio`.
    """
    scores, matches, others = _pairs(audio, text, matches, pairs)
    # Rounding takes a cosine past 1: such a pair has no loss either.
    kinds = F.relu(1 - scores[matches & others]), F.relu(scores[~matches & others])
    return sum(losses.sum() / (losses > 0).sum().clamp(min=1) for losses in kinds)


def nt_xent(
    audio: Tensor, text: Tensor, matches: Tensor, temperature: float | Tensor = 0.07, pairs: str = "all"
) -> Tensor:
    """Normalised temperature-scaled cross entropy (Sohn 2016; InfoNCE), mean over matching pairs.

    Of an anchor i and what matches it, j, the loss is -log(exp(s_ij / t) / (exp(s_ij / t) + sum_k exp(s_ik / t))), k
    over what does not match i: other matches of i are no part of it. With `text-audio` the anchors are sounds among
    texts and texts among sounds; where each has one match, that is the symmetric cross entropy of CLIP.

    Args:
        audio: (N, size).
        text: (N, size).
        matches: (2N, 2N) bool, of `matching`.
        temperature: t, a tensor where it is learnt; 0.07 is pytorch-metric-learning's, which Weck et al. 2022 use.
        pairs: `all`, with two sounds and two texts among them, or `text-audio`.
    """
    scores, matches, others = _pairs(audio, text, matches, pairs)
    scores = scores / temperature
    # Not -inf: an anchor without negatives would have a gradient that is no number.
    negatives = scores.masked_fill(matches | ~others, torch.finfo(scores.dtype).min / 2).logsumexp(1, keepdim=True)
    return F.softplus(negatives - scores)[matches & others].mean()


def _pairs(audio: Tensor, text: Tensor, matches: Tensor, pairs: str) -> tuple[Tensor, Tensor, Tensor]:
    """Similarities (2N, 2N) float32, which of them match, and which are pairs at all: nothing is one with itself."""
    both = torch.cat([audio, text]).float()
    others = ~torch.eye(len(both), dtype=torch.bool, device=both.device)
    if pairs == "text-audio":
        is_text = torch.arange(len(both), device=both.device) >= len(audio)
        others = is_text[:, None] != is_text
    return both @ both.T, matches, others


def triplet(scores: Tensor, answers: Tensor, pairs: Tensor, margin: float = 1.0) -> Tensor:
    """Sampling-based triplet loss (Xie et al. 2022, equation 1), over all pairs at once.

    For every pair of a clip and a caption, one impostor caption and one impostor clip are drawn from the batch, among
    those that do not belong together with it: max(0, S(clip, impostor caption) - S(clip, caption) + margin) plus
    max(0, S(impostor clip, caption) - S(clip, caption) + margin), and the mean over pairs. Where the batch holds no
    impostor, there is no term.

    The two impostors of a pair are drawn independently of each other, so the impostor caption may be a caption of the
    impostor clip.

    Args:
        scores: (clips, captions) S.
        answers: (clips, captions) bool, which clip answers which caption.
        pairs: (pairs, 2) int64, clip and caption of every pair.
        margin: How far an impostor must stay below.
    """
    clip, caption = pairs.unbind(1)
    own = scores[clip, caption]  # (pairs,)
    loss = scores.new_zeros(())
    strangers = scores.masked_fill(answers, -torch.inf)
    for impostors in (strangers[clip], strangers.T[caption]):  # (pairs, captions), (pairs, clips)
        drawn = torch.rand_like(impostors).masked_fill(impostors == -torch.inf, -1).argmax(1, keepdim=True)
        impostor = impostors.gather(1, drawn).squeeze(1)  # -inf where there is none: its hinge is 0
        loss = loss + F.relu(impostor - own + margin).mean()
    return loss
