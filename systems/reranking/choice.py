"""The choice among the candidates of each clip.

With a retriever, the candidate with the highest weighted mean of two values is chosen: its mean log-probability per
word, and its similarity to the clip. The values are made comparable: the mean over the candidates of the clip is
subtracted, and the differences are divided by their standard deviation over all candidates of the split.

Without a retriever, the candidate that agrees best with the other candidates of the clip is chosen
(`systems.ensembles.consensus`). With sampled candidates, this is minimum Bayes risk decoding.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from evaluation.data.dataset import Split
from evaluation.findings import BadRequest
from evaluation.metrics import fense
from evaluation.metrics.java import Unavailable, find_java
from evaluation.metrics.ptb_tokenizer import ptb_tokenize
from evaluation.metrics.word_overlap import CiderDReferences
from systems import contract
from systems.ensembles import consensus, weights
from systems.parts import texts
from systems.parts.devices import default_device
from systems.parts.sequences import chunks
from systems.reranking.candidates import Candidates
from systems.runs import loaded, missing_methods

Values = list[np.ndarray]  # for each clip, (candidates,)


def word_log_probabilities(candidates: Candidates) -> Values:
    """Return the log-probability of each candidate, divided by its number of words plus 1 for its end."""
    values = []
    for captions, totals in zip(candidates.captions, candidates.log_probabilities, strict=True):
        lengths = [len(caption.split()) + 1 for caption in captions]
        values.append(totals / lengths)
    return values


def similarities(candidates: Candidates, split: Split, folder: Path, trusted: Collection[str] = ()) -> Values:
    """Compute the similarity of each candidate to its clip with a trained retriever.

    Args:
        candidates: The candidates of the split's clips, in the same order.
        split: The split; the audio files of its clips must exist.
        folder: The retriever's run folder.
        trusted: Import names of further modules that the user allows the run to name.

    Raises:
        BadRequest: The folder does not contain the trained run of a retriever, or embeddings are not finite.
        Faulty: Audio files cannot be used. The exception lists all findings.
    """
    import torch

    different = sorted({caption for captions in candidates.captions for caption in captions})
    with loaded(folder, trusted) as run:
        missing = missing_methods(run.model, "retrieval")
        if missing:
            must = f"must be a retriever; the model of {run.system} has no method {missing[0]}"
            raise BadRequest(f"{folder}: {must}: give the run of a retriever with --retriever")
        clips = contract.embeddings(run.model, split, device=default_device()).numpy()
        with torch.inference_mode():
            parts = [run.model.embed_text(part).float().cpu() for part in chunks(different, texts.TEXTS_PER_BATCH)]
    embedded = torch.cat(parts)
    contract.require_finite(embedded, different, "embed_text must give finite values", "caption")
    row_of = {caption: row for row, caption in enumerate(different)}
    vectors = embedded.numpy().astype(np.float64)
    values = []
    for clip, captions in zip(clips, candidates.captions, strict=True):
        values.append(vectors[[row_of[caption] for caption in captions]] @ clip)
    return values


def comparable(values: Values) -> Values:
    """Subtract each clip's mean, and divide by the standard deviation of all differences, unless it is 0."""
    differences = [of_clip - of_clip.mean() for of_clip in values]
    deviation = np.sqrt(np.mean(np.concatenate(differences) ** 2))
    if deviation == 0:
        return differences
    return [of_clip / deviation for of_clip in differences]


def choose(log_probabilities: Values, similar: Values, weight: float) -> list[int]:
    """Choose the candidate of each clip with the highest weighted mean of two comparable values.

    Args:
        log_probabilities: The comparable mean log-probabilities per word.
        similar: The comparable similarities.
        weight: The weight of the similarities, from 0 to 1. That of the log-probabilities is 1 - weight.

    Returns:
        The index of each clip's candidate. Of equally good candidates, the first one is chosen.
    """
    chosen = []
    for of_words, of_sounds in zip(log_probabilities, similar, strict=True):
        chosen.append(int(np.argmax((1 - weight) * of_words + weight * of_sounds)))
    return chosen


def mean_of_chosen(measured: Values, chosen: Sequence[int]) -> float:
    """Return the mean of a metric over the chosen candidates.

    Args:
        measured: The metric of each candidate.
        chosen: The index of each clip's candidate.
    """
    return float(np.mean([of_clip[index] for of_clip, index in zip(measured, chosen, strict=True)]))


def fit_weight(log_probabilities: Values, similar: Values, measured: Values) -> float:
    """Return the weight, among `weights.SHARES`, whose choice has the highest mean of a metric.

    Args:
        log_probabilities: As for `choose`.
        similar: As for `choose`.
        measured: The metric of each candidate.
    """

    def value(shares: Sequence[float]) -> float:
        return mean_of_chosen(measured, choose(log_probabilities, similar, shares[1]))

    return weights.search(value, 2)[1]


def agreeing(candidates: Candidates, measure: str, cache: Path) -> list[int]:
    """Choose the candidate of each clip that agrees best with the other candidates of the clip.

    Args:
        candidates: The candidates. All clips must have the same number of them.
        measure: The similarity of captions, a key of `consensus.MEASURES`.
        cache: Folder of the cache, for the tokeniser.

    Raises:
        BadRequest: The clips have different numbers of candidates or fewer than three, or the measure is not available
            on this machine.
    """
    numbers = sorted({len(captions) for captions in candidates.captions})
    if len(numbers) > 1:
        must = "without --retriever, all clips must have the same number of candidates"
        raise BadRequest(f"{must}; found {numbers[0]} to {numbers[-1]}: predict with --set decoding=sample")
    by_rank = [[captions[rank] for captions in candidates.captions] for rank in range(numbers[0])]
    similar = consensus.similarities(measure, by_rank, cache)
    return consensus.choose(similar, weights.equal(len(by_rank))).tolist()


def cider_d_of_candidates(captions: Sequence[str], clips: Sequence[int], split: Split, cache: Path) -> np.ndarray:
    """Return the CIDEr-D of captions.

    Args:
        captions: The captions.
        clips: The index of each caption's clip in the split.
        split: The split with the references.
        cache: Folder of the cache, for the tokeniser.
    """
    numbers = [len(clip.captions) for clip in split.clips]
    all_references = [caption for clip in split.clips for caption in clip.captions]
    tokens = ptb_tokenize([*captions, *all_references], find_java(), cache)
    references = []
    start = len(captions)
    for number in numbers:
        references.append(tokens[start : start + number])
        start += number
    return CiderDReferences(references).scores(tokens[: len(captions)], clips)


def sbert_of_candidates(captions: Sequence[str], clips: Sequence[int], split: Split, cache: Path) -> np.ndarray:
    """Return the mean cosine similarity of captions to the references. The arguments are those of CIDEr-D."""
    return fense.sbert_similarity(captions, [split.clips[clip].captions for clip in clips])


Metric = Callable[[Sequence[str], Sequence[int], Split, Path], np.ndarray]
METRICS: dict[str, Metric] = {"cider_d": cider_d_of_candidates, "sbert": sbert_of_candidates}


def metric_values(candidates: Candidates, split: Split, metric: str, cache: Path) -> Values:
    """Compute a metric of each candidate, against the references of its clip.

    Args:
        candidates: The candidates of the split's clips, in the same order.
        split: The split.
        metric: A key of `METRICS`.
        cache: Folder of the cache, for the tokeniser.

    Raises:
        BadRequest: The metric is not available on this machine.
    """
    pairs = []
    for clip, captions in enumerate(candidates.captions):
        pairs += [(caption, clip) for caption in captions]
    different = list(dict.fromkeys(pairs))
    try:
        values = METRICS[metric]([caption for caption, _ in different], [clip for _, clip in different], split, cache)
    except Unavailable as reason:
        raise BadRequest(f"{metric} is not available: {reason}") from None
    value_of = dict(zip(different, values, strict=True))
    measured = []
    for clip, captions in enumerate(candidates.captions):
        measured.append(np.array([value_of[caption, clip] for caption in captions]))
    return measured
