"""Losses that align audio and text embeddings.

The contrastive losses take (N, size) embeddings of length 1, where clip i and text i are a pair. The triplet loss takes
a matrix of scores. The caller gives a bool matrix of the embeddings that belong together. With it, a text that several
clips share is a negative for none of these clips, and a clip that a batch contains twice is not its own negative.
`matching` makes this matrix from the indices of clips.

With several processes, each process embeds its own part of a batch, and `gathered` returns the parts of all processes,
so the negatives are those of the whole batch. Every process then computes the same loss. The gradient through
`gathered` is the sum over processes, and DDP takes the mean. The result is the gradient of one process with the whole
batch.
"""

import torch
import torch.distributed
import torch.distributed.nn.functional
import torch.nn.functional as F
from torch import Tensor

NONE = -1  # pads rows of clip numbers


def gathered(values: Tensor) -> Tensor:
    """Join the values of all processes, (N, …) each, as (processes x N, …); gradients flow back to each process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    if values.requires_grad:
        return torch.cat(torch.distributed.nn.functional.all_gather(values))
    parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def matching(clips: Tensor, owners: Tensor) -> Tensor:
    """Find the clips and texts of a batch that belong together.

    Args:
        clips: (N,) int64, the number of each clip.
        owners: (N, K) int64, the indices of all clips that each text belongs to, padded with `NONE`.

    Returns:
        (2N, 2N) bool, clips before texts. It is true for the same clip, for a text and a clip that it belongs to, and
        for texts that share a clip.
    """
    clip_numbers = torch.cat([F.pad(clips[:, None], (0, owners.shape[1] - 1), value=NONE), owners])  # (2N, K)
    numbers, columns = clip_numbers.unique(return_inverse=True)
    belongs = torch.zeros(len(clip_numbers), len(numbers), device=clip_numbers.device)  # (2N, numbers)
    belongs.scatter_(1, columns, 1)
    belongs[:, numbers == NONE] = 0
    return belongs @ belongs.T > 0


def contrastive(audio: Tensor, text: Tensor, matches: Tensor, pairs: str = "all") -> Tensor:
    """Contrastive loss (Weck et al. 2022, equation 3): 1 - s for matching pairs, max(0, s) for all others.

    The loss is the sum of two means, one over matching and one over other pairs, each over pairs with a loss above
    zero. The package that section 3.3 names computes it in this way (pytorch-metric-learning, ContrastiveLoss with
    AvgNonZeroReducer). With a single mean, the few matching pairs would have almost no weight.

    Args:
        audio: (N, size) embeddings of length 1.
        text: (N, size) embeddings of length 1.
        matches: (2N, 2N) bool, from `matching`.
        pairs: `all`, which includes pairs of two clips and of two texts, or `text-audio`.
    """
    scores, matches, others = _pairs(audio, text, matches, pairs)
    of_matching_pairs = F.relu(1 - scores[matches & others])  # not below 0: rounding can take a cosine above 1
    of_other_pairs = F.relu(scores[~matches & others])
    return _mean_above_zero(of_matching_pairs) + _mean_above_zero(of_other_pairs)


def _mean_above_zero(losses: Tensor) -> Tensor:
    return losses.sum() / (losses > 0).sum().clamp(min=1)


def nt_xent(
    audio: Tensor, text: Tensor, matches: Tensor, temperature: float | Tensor = 0.07, pairs: str = "all"
) -> Tensor:
    """Normalised temperature-scaled cross entropy (Sohn 2016; InfoNCE), the mean over matching pairs.

    The loss of an anchor i and its match j is -log(exp(s_ij / t) / (exp(s_ij / t) + sum_k exp(s_ik / t))). The sum is
    over all k that do not match i, so other matches of i do not count. With `text-audio`, the anchors are clips with
    texts as candidates, and texts with clips as candidates. If each anchor has one match, this is the symmetric cross
    entropy of CLIP.

    Args:
        audio: (N, size) embeddings of length 1.
        text: (N, size) embeddings of length 1.
        matches: (2N, 2N) bool, from `matching`.
        temperature: t, a tensor if it is trained. The default is that of pytorch-metric-learning, which Weck et al.
            2022 use.
        pairs: `all`, which includes pairs of two clips and of two texts, or `text-audio`.
    """
    scores, matches, others = _pairs(audio, text, matches, pairs)
    scores = scores / temperature
    # The smallest number in place of -inf, with which the gradient of an anchor without negatives would be NaN.
    negatives = scores.masked_fill(matches | ~others, torch.finfo(scores.dtype).min / 2).logsumexp(1, keepdim=True)
    return F.softplus(negatives - scores)[matches & others].mean()


def _pairs(audio: Tensor, text: Tensor, matches: Tensor, pairs: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return cosines (2N, 2N) float32, the matches, and a bool matrix of the pairs to use, none with itself."""
    both = torch.cat([audio, text]).float()
    others = ~torch.eye(len(both), dtype=torch.bool, device=both.device)
    if pairs == "text-audio":
        is_text = torch.arange(len(both), device=both.device) >= len(audio)
        others = is_text[:, None] != is_text
    return both @ both.T, matches, others


def triplet(scores: Tensor, answers: Tensor, pairs: Tensor, margin: float = 1.0) -> Tensor:
    """Sampling-based triplet loss (Xie et al. 2022, equation 1), computed for all pairs at once.

    For each pair of a clip and a caption, the loss draws one impostor caption, which does not belong to the clip, and
    one impostor clip, which does not belong to the caption, from the batch. The loss of the pair is max(0, S(clip,
    impostor caption) - S(clip, caption) + margin) plus max(0, S(impostor clip, caption) - S(clip, caption) + margin).
    The result is the mean over pairs. If the batch has no impostor for a pair, the term is 0.

    The two impostors of a pair are drawn independently, so the impostor caption may be a caption of the impostor clip.

    Args:
        scores: (clips, captions) scores S.
        answers: (clips, captions) bool, true if the caption belongs to the clip.
        pairs: (pairs, 2) int64, indices of the clip and the caption of each pair.
        margin: The margin by which a pair's score must exceed those of its impostors.
    """
    clip, caption = pairs.unbind(1)
    pair_scores = scores[clip, caption]  # (pairs,)
    loss = scores.new_zeros(())
    scores_of_others = scores.masked_fill(answers, -torch.inf)
    for candidates in (scores_of_others[clip], scores_of_others.T[caption]):  # (pairs, captions), (pairs, clips)
        drawn = torch.rand_like(candidates).masked_fill(candidates == -torch.inf, -1).argmax(1, keepdim=True)
        impostor_scores = candidates.gather(1, drawn).squeeze(1)  # -inf if there is no impostor: its loss is 0
        loss = loss + F.relu(impostor_scores - pair_scores + margin).mean()
    return loss
