"""The human topline of captioning: each reference caption is scored against the other references of its clip.

    score = human_topline(split, metrics=["dcase2023"])

If each clip has R references, there are R folds. In fold r, the reference r of each clip is the prediction, and the
other R - 1 references of the clip are its references. A metric is the mean of its R values. This is the row "human"
of Koizumi et al. 2020, "Audio captioning using pre-trained large-scale language model guided by audio-based similar
caption retrieval", Table 1. A system is scored with R references, and so has one reference more than the human. So the
topline is a little too low: more references raise most metrics.

If the clips have different numbers of references, R is the smallest number. References beyond R are then never
predictions, but always references.

Conventions
-----------
- For the interval of a mean, the values of a clip are averaged over the folds. So the interval is over clips, and
  the captions of a clip are not treated as independent.
- For BLEU and METEOR, the sums over clips are computed in each fold, and the metric is the mean of the R values. The
  interval leaves a clip out of all folds at once, or draws clips for all folds at once.
- `vocab` and `vocab_ratio` are means over the folds and do not have an interval.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.data.dataset import Split
from evaluation.files import cache_folder
from evaluation.findings import BadRequest
from evaluation.metrics import captioning, catalogue
from evaluation.metrics.captioning import BASIC, FORMULAS
from evaluation.metrics.java import Unavailable, find_java
from evaluation.scores import Items, Measured, Score, measure
from evaluation.statistics.intervals import jackknife

Captions = tuple[str, ...]
Components = Mapping[str, Any]


def human_topline(
    split: Split,
    *,
    metrics: Sequence[str] = BASIC,
    interval: str | None = None,
    idf: str = "fixed",
    tokenized: Collection[str] = (),
    cache: Path | None = None,
) -> Score:
    """Score the references of a split against each other.

    Args:
        split: The split. Each clip must have two or more captions.
        metrics: As for `captioning.evaluate`.
        interval: As for `captioning.evaluate`.
        idf: As for `captioning.evaluate`.
        tokenized: As for `captioning.evaluate`. References are predictions too, so give all of
            `captioning.TOKENIZED`, or none of them.
        cache: Folder of the cache (default: `files.cache_folder`).

    Returns:
        The score. Its clips are in the order of the split. Its signature has the fingerprint of the split, one
        reference less than the split, and the part `topline`. So `compare` refuses to compare it with a system.

    Raises:
        BadRequest: As `captioning.evaluate`; or a clip has a single caption, or `tokenized` has one name.
    """
    cache = cache or cache_folder()
    resolved = captioning.resolve_metrics(metrics)
    interval = interval or resolved.interval
    captioning.check_request(split, interval, idf, tokenized)
    if len(set(tokenized)) == 1:
        message = "in the topline, references are also predictions; --tokenized must be both for it"
        raise BadRequest(f"{message}; found {next(iter(tokenized))}")
    fewest = min(len(clip.captions) for clip in split.clips)
    if fewest < 2:
        message = f"every clip of the split {split.name} must have two captions or more for the topline"
        raise BadRequest(f"{message}; some have one: choose another split, or add captions")
    clips, items = captioning.official_order(split)
    needed = captioning.components_of(resolved.metrics)
    try:
        java = find_java()
        all_components: list[Components] = []
        for captions, references in _folds([clip.captions for clip in clips], fewest):
            all_components.append(captioning.compute_components(needed, captions, references, java, cache, tokenized))
    except Unavailable as reason:
        raise BadRequest(str(reason)) from None

    def measure_one(name: str) -> Measured:
        return _measure(name, all_components, items, interval, idf)

    measured, unavailable = captioning.measure_available(resolved.metrics, all_components, measure_one, items, split)
    computed = captioning.components_of(measured)
    signature = captioning.make_signature(split, computed, interval, idf, tokenized, predictions=fewest)
    return Score(measured, replace(items, names=split.file_names), signature, unavailable)


def _folds(captions_of_clips: Sequence[Captions], number: int) -> Iterator[tuple[list[str], list[Captions]]]:
    """Yield the predictions and the references of each fold."""
    for left_out in range(number):
        predictions = [captions[left_out] for captions in captions_of_clips]
        references = [(*captions[:left_out], *captions[left_out + 1 :]) for captions in captions_of_clips]
        yield predictions, references


def _measure(name: str, all_components: Sequence[Components], items: Items, interval: str, idf: str) -> Measured:
    """Compute the mean of a metric over the folds, with its interval."""
    metric = catalogue.CAPTIONING[name]
    if metric.statistic == "corpus":
        [component] = metric.components
        statistics = np.concatenate([components[component] for components in all_components], axis=1)
        formula = partial(_mean_of_folds, formula=FORMULAS[name], folds=len(all_components))
        return measure(statistics, items, interval, formula)
    results = [captioning.measure_metric(name, components, items, interval, idf) for components in all_components]
    value = float(np.mean([result.estimate.value for result in results]))
    if metric.statistic == "total":
        return Measured(replace(results[0].estimate, value=value))
    values = np.mean([result.values for result in results if result.values is not None], axis=0)
    if metric.statistic == "weighted" and idf == "exact":  # the values are pseudo-values, whose mean is not the metric
        return Measured(jackknife(values, value=value, t=interval == "jackknife-t"), values=values)
    return measure(values, items, interval)


def _mean_of_folds(sums: np.ndarray, formula: Callable[[np.ndarray], np.ndarray], folds: int) -> np.ndarray:
    """Return the mean over folds of a corpus metric.

    Args:
        sums: (..., folds * d) the sums of the d statistics of each fold.
        formula: The function that computes the metric from (..., d) sums.
        folds: The number of folds.
    """
    parts = np.split(sums, folds, axis=-1)
    return np.mean([formula(part) for part in parts], axis=0)
