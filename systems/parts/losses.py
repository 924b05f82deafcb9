"""Losses that align audio and text embeddings.

The contrastive losses take (N, size) embeddings of length 1, where clip i and text i are a pair. The triplet loss takes
a matrix of scores. Each loss also takes a bool matrix, which is true for clips and texts that belong together. They are
not used as negatives of each other: a text that several clips share is not a negative for any of these clips, and if a
batch contains a clip twice, the clip is not its own negative. `matching` makes this matrix from the indices of clips.

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

NONE = -1  # padding in rows of clip indices


def dot_products(one: Tensor, other: Tensor) -> Tensor:
    """Return the (N, M) dot products of (N, size) and (M, size) embeddings, in float32 also with mixed precision.

    In bfloat16, cosines have steps of up to 0.004. This is too coarse for a margin, and for a division by a
    temperature of 0.07.
    """
    with torch.autocast(one.device.type, enabled=False):
        return one.float() @ other.float().T


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
        clips: (N,) int64, the index of each clip in the data.
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
    """Compute the contrastive loss (Weck et al. 2022, equation 3).

    The loss of a pair with the cosine s is 1 - s if the pair matches, and max(0, s) if it does not. The result is the
    sum of two means, one over matching pairs and one over all others. Pairs with a loss of zero do not count in these
    means. The package that section 3.3 names computes it in this way (pytorch-metric-learning, ContrastiveLoss with
    AvgNonZeroReducer). With a single mean, the few matching pairs would have almost no weight.

    Args:
        audio: (N, size) embeddings of length 1.
        text: (N, size) embeddings of length 1.
        matches: (2N, 2N) bool, from `matching`.
        pairs: `all`, which includes pairs of two clips and of two texts, or `text-audio`.
    """
    cosines, matches, others = _pairs(audio, text, matches, pairs)
    of_matching_pairs = F.relu(1 - cosines[matches & others])  # not below 0: rounding can take a cosine above 1
    of_other_pairs = F.relu(cosines[~matches & others])
    return _mean_above_zero(of_matching_pairs) + _mean_above_zero(of_other_pairs)


def _mean_above_zero(losses: Tensor) -> Tensor:
    return losses.sum() / (losses > 0).sum().clamp(min=1)


def nt_xent(
    audio: Tensor, text: Tensor, matches: Tensor, temperature: float | Tensor = 0.07, pairs: str = "all"
) -> Tensor:
    """Compute the normalised temperature-scaled cross entropy (Sohn 2016; InfoNCE), the mean over matching pairs.

    The loss of an anchor i and its match j is -log(exp(s_ij / t) / (exp(s_ij / t) + sum_k exp(s_ik / t))), where s is
    the cosine. The sum is over all k that do not match i, so other matches of i do not count. With `text-audio`, only
    texts are candidates for a clip, and only clips are candidates for a text. If each anchor also has only one match,
    the loss is the symmetric cross entropy of CLIP.

    Args:
        audio: (N, size) embeddings of length 1.
        text: (N, size) embeddings of length 1.
        matches: (2N, 2N) bool, from `matching`.
        temperature: The temperature t; a tensor if it is trained. Weck et al. 2022 use pytorch-metric-learning, and the
            default is that of this package.
        pairs: `all`, which includes pairs of two clips and of two texts, or `text-audio`.
    """
    cosines, matches, others = _pairs(audio, text, matches, pairs)
    logits = cosines / temperature
    # A very low number instead of -inf: with -inf, the gradient of an anchor without negatives would be NaN.
    negatives = logits.masked_fill(matches | ~others, torch.finfo(logits.dtype).min / 2).logsumexp(1, keepdim=True)
    return F.softplus(negatives - logits)[matches & others].mean()


def distilled(audio: Tensor, text: Tensor, targets: Tensor, temperature: float = 0.07) -> Tensor:
    """Compute the cross entropy to estimated correspondences (Primus et al. 2024, "Estimated Audio-Caption ...").

    The targets are similarities that trained retrievers, the teachers, give to the clips and texts of the batch. For
    each clip, the softmax of the targets over the texts is the wanted distribution, and the softmax of the cosines over
    the texts is the distribution of the model. Both are divided by the temperature first. The result is the mean of two
    cross entropies: that of the clips over the texts, and that of the texts over the clips. The authors' code averages
    the similarities of several teachers before the softmax, and so does `systems.atae.teachers`.

    Args:
        audio: (N, size) embeddings of length 1.
        text: (N, size) embeddings of length 1.
        targets: (N, N) similarities of each clip and each text according to the teachers.
        temperature: The temperature of both softmax functions.
    """
    logits = dot_products(audio, text) / temperature
    wanted = targets.float() / temperature
    over_texts = F.cross_entropy(logits, wanted.softmax(dim=1))
    over_clips = F.cross_entropy(logits.T, wanted.T.softmax(dim=1))
    return (over_texts + over_clips) / 2


def _pairs(audio: Tensor, text: Tensor, matches: Tensor, pairs: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cosines, float32, the matches, and the pairs to use without the diagonal, bool; each is (2N, 2N)."""
    both = torch.cat([audio, text])
    others = ~torch.eye(len(both), dtype=torch.bool, device=both.device)
    if pairs == "text-audio":
        is_text = torch.arange(len(both), device=both.device) >= len(audio)
        others = is_text[:, None] != is_text
    return dot_products(both, both), matches, others


def triplet(scores: Tensor, answers: Tensor, pairs: Tensor, margin: float = 1.0) -> Tensor:
    """Compute the sampling-based triplet loss (Xie et al. 2022, equation 1) for all pairs at once.

    Two impostors are drawn from the batch for each pair of a clip and a caption: a caption that does not belong to the
    clip, and a clip that does not belong to the caption. With the scores S, the loss of the pair is
    max(0, S(clip, impostor caption) - S(clip, caption) + margin) plus
    max(0, S(impostor clip, caption) - S(clip, caption) + margin).
    The result is the mean over pairs. If the batch does not contain one of the impostors, its term is 0.

    The two impostors of a pair are drawn independently, so the impostor caption may be a caption of the impostor clip.

    Args:
        scores: (clips, captions) scores S.
        answers: (clips, captions) bool, true if the caption belongs to the clip.
        pairs: (pairs, 2) int64, indices of the clip and the caption of each pair.
        margin: The margin by which a pair's score must exceed those of its impostors.
    """
    clip, caption = pairs.unbind(1)
    impostor_caption = _drawn_impostors(answers[clip])
    impostor_clip = _drawn_impostors(answers.T[caption])
    # Both impostors of all pairs at once: each operation on scores also costs one for the gradient.
    rows = torch.stack([clip, impostor_clip])  # (2, pairs)
    columns = torch.stack([impostor_caption, caption])
    losses = F.relu(scores[rows, columns] - scores[clip, caption] + margin)
    has_no_impostor = answers[rows, columns]
    return losses.masked_fill(has_no_impostor, 0).sum() / len(pairs)


def _drawn_impostors(answers: Tensor) -> Tensor:
    """Draw an impostor in each row of a (pairs, candidates) bool matrix, which is true for candidates that belong.

    Returns:
        (pairs,) int64, the index of a candidate that does not belong. If all candidates of a row belong, it is 0.
    """
    return torch.rand(answers.shape, device=answers.device).masked_fill_(answers, -1).argmax(1)
