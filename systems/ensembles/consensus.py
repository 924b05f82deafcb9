"""Choosing the caption of a clip that agrees best with the captions of other runs.

The method is minimum Bayes risk decoding (Kumar and Byrne, NAACL 2004). The candidates are the captions of the runs for
the same clip. With equal weights, the candidate with the highest mean similarity to the other candidates is chosen.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from evaluation import predictions
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.metrics import bert_score, fense
from evaluation.metrics.java import Unavailable, find_java
from evaluation.metrics.ptb_tokenizer import ptb_tokenize
from evaluation.metrics.word_overlap import cider_d_between

AGAIN = "predict with the same data folder as for the first run"
FEWEST = 3  # minimum number of runs: two candidates always agree with each other equally well


def read_candidates(files: Sequence[Path]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Read the captions of several runs for the same split.

    Args:
        files: The prediction of each run.

    Returns:
        The file names of the clips, in the order of the first file; and for each run, its captions in the same order.

    Raises:
        Faulty: A file is damaged, or contains other clips than the first file. The exception lists all findings.
    """
    names: tuple[str, ...] = ()
    candidates: list[tuple[str, ...]] = []
    findings = []
    for file in files:
        try:
            captions = predictions.read_captions(file)
        except Faulty as faulty:
            findings += faulty.findings
            continue
        if not candidates:
            names = captions.file_names
        caption_of = dict(zip(captions.file_names, captions.captions, strict=True))
        if sorted(captions.file_names) != sorted(names) or len(caption_of) != len(names):
            message = f"must have one caption for each clip of {files[0]}; found other clips"
            findings.append(Finding(str(file), message=f"{message}: {AGAIN}"))
            continue
        candidates.append(tuple(caption_of[name] for name in names))
    if findings:
        raise Faulty(findings)
    return names, candidates


def cider_similarities(candidates: Sequence[Sequence[str]], cache: Path) -> np.ndarray:
    """Compute CIDEr-D of each candidate, with each other candidate of the same clip as its only reference.

    The weights of the n-grams are computed from all captions of the run that the reference comes from.

    Args:
        candidates: The captions of each run, in the same order of clips.
        cache: Folder of the cache, for the tokeniser.

    Returns:
        (runs, runs, clips) similarities. The first index is the run of the candidate, the second the run of the
            reference. The similarity of a caption to itself is 0.

    Raises:
        Unavailable: The tokeniser cannot run, for example because Java is missing.
    """
    all_captions = [caption for captions in candidates for caption in captions]
    tokens = ptb_tokenize(all_captions, find_java(), cache)
    clips = len(candidates[0])
    return cider_d_between([tokens[start : start + clips] for start in range(0, len(tokens), clips)])


def sentence_similarities(candidates: Sequence[Sequence[str]], cache: Path) -> np.ndarray:
    """Compute the cosine similarities of candidates of the same clip with FENSE's sentence encoder.

    Args:
        candidates: The captions of each run, in the same order of clips.
        cache: Not used. All functions in `MEASURES` have this argument.

    Returns:
        (runs, runs, clips) similarities.

    Raises:
        Unavailable: The encoder is not on this machine, or cannot be loaded.
    """
    different = sorted({caption for captions in candidates for caption in captions})
    encoder = fense.load_sentence_encoder()
    vectors = encoder.encode(different, normalize_embeddings=True, show_progress_bar=False)
    row_of = {caption: row for row, caption in enumerate(different)}
    embedded = np.stack([vectors[[row_of[caption] for caption in captions]] for captions in candidates])
    return np.einsum("ncd,mcd->nmc", embedded, embedded).astype(np.float64)


def bert_similarities(candidates: Sequence[Sequence[str]], cache: Path) -> np.ndarray:
    """Compute BERTScore between the candidates of each clip. It does not depend on which one is the reference.

    Args:
        candidates: The captions of each run, in the same order of clips.
        cache: Not used. All functions in `MEASURES` have this argument.

    Returns:
        (runs, runs, clips) similarities. The similarity of a caption to itself is 0.

    Raises:
        Unavailable: BERTScore's model is not on this machine, or cannot be loaded.
    """
    pairs: dict[tuple[str, str], float] = {}
    for captions, others in combinations(candidates, 2):
        pairs |= dict.fromkeys(zip(captions, others, strict=True), 0.0)
    scores = bert_score.bert_score([caption for caption, _ in pairs], [[other] for _, other in pairs])
    pairs = dict(zip(pairs, scores.tolist(), strict=True))
    similarities = np.zeros((len(candidates), len(candidates), len(candidates[0])))
    for first, second in combinations(range(len(candidates)), 2):
        both = zip(candidates[first], candidates[second], strict=True)
        similarities[first, second] = similarities[second, first] = [pairs[pair] for pair in both]
    return similarities


Similarities = Callable[[Sequence[Sequence[str]], Path], np.ndarray]
MEASURES: dict[str, Similarities] = {
    "cider_d": cider_similarities,
    "sbert": sentence_similarities,
    "bert_score": bert_similarities,
}


def similarities(measure: str, candidates: Sequence[Sequence[str]], cache: Path) -> np.ndarray:
    """Compute the similarities of the candidates of each clip.

    Args:
        measure: A key of `MEASURES`.
        candidates: The captions of each run, in the same order of clips.
        cache: Folder of the cache.

    Returns:
        (runs, runs, clips) similarities.

    Raises:
        BadRequest: There are fewer than `FEWEST` runs, or the measure is not available on this machine.
    """
    if len(candidates) < FEWEST:
        raise BadRequest(f"a consensus of captions must have {FEWEST} runs or more; found {len(candidates)}: add runs")
    try:
        return MEASURES[measure](candidates, cache)
    except Unavailable as reason:
        raise BadRequest(f"{measure} is not available: {reason}") from None


def choose(similar: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Choose the candidate of each clip that agrees best with the other candidates.

    Args:
        similar: (runs, runs, clips) similarities of the candidates.
        weights: For each run, the weight of the similarities to its candidates. The sum is 1.

    Returns:
        (clips,) index of the run whose candidate is chosen. If several candidates agree equally well, the first of them
            is chosen.
    """
    others = 1 - np.eye(len(weights))
    agreement = np.einsum("nmc,nm,m->nc", similar, others, np.asarray(weights))
    return agreement.argmax(axis=0)
