"""Metrics of retrieval: they measure how well a retriever finds the clips that answer a query.

Conventions
-----------
- The *truth* maps each query to the clips that answer it: a set of names, or names with *grades*. Grades are finite and
  0 or more. A clip with grade 0 is not relevant, and a name in a set has grade 1. All metrics except nDCG only
  distinguish grades above 0 from grade 0.
- A *prediction* is a `Similarity` (a score for every query and clip), `Embeddings` (vectors of queries and clips, whose
  similarities are the scores) or a `Ranking` (a list of clips for every query, best first).
- **Ranks** count from 1. Among clips with equal scores, the relevant ones are ranked last, and among these the lower
  grades come first. So a model that gives all clips the same score gets the worst possible result, independent of the
  order of files.
- **AP@k divides by the number of relevant clips**, even if that is more than k (the rule of DCASE 2025 task 6). For a
  query with one relevant clip, AP@k is the reciprocal rank, as in DCASE 2022. R@k is the share of the relevant clips
  that are among the first k. All metrics except the median rank lie in [0, 1] for any prediction.
- **Repeated and unknown names never help.** Only the first occurrence of a name counts. Later occurrences, and names
  that are not clips of the split, keep their ranks and count as wrong. A relevant clip that is not in the prediction
  counts as not found, even if the list has fewer than k clips.
- **Each query of the truth must appear exactly once.** A missing or repeated query is an error. Queries that are not in
  the truth are ignored, and a note counts them.

Directions
----------
In *text-to-audio* retrieval, a text is the query and the clips are ranked. In *audio-to-text* retrieval, a clip is the
query and the texts are ranked. The relevant texts of a clip are all queries of the truth that the clip answers, with
the same grades; for a truth from captions, these are the clip's captions. A text that several clips share is one text.
All conventions hold in both directions, with the roles of texts and clips exchanged. Papers on CLAP call success@k
R@k in audio-to-text: one of the clip's captions is among the first k. The kit's R@k is the share of the clip's captions
among the first k.

Metrics
-------
- `recall`: R@k.
- `average_precision`: AP@k. Its mean over queries is mAP@k.
- `success`: success@k, 1 if any relevant clip is among the first k, otherwise 0.
- `ndcg`: nDCG@k.
- `reciprocal_rank`: 1 divided by the rank of the first relevant clip, or 0 if that rank is above k. Its mean over
  queries is MRR@k. MRR is the same metric without a limit k.
- `median_rank`: medR, the median over queries of the first relevant clip's rank.

Each function takes the results of `ranks`, and most of them k: `recall(*ranks(truth, prediction), 10)`.
`evaluation.metrics.catalogue` contains a table of all metrics, and `metrics.sets.year_sets` returns the metrics of each
challenge year. If the matrix of all scores does not fit into memory, use `Embeddings`: ranks are then counted in blocks
of the matrix. `best_clips` returns the best clips of each query, with `top_k`.

Sources: Xie et al. 2022, section 2.4; CPJKU/dcase2025_task6_baseline, `average_precision_at_k`; Järvelin and Kekäläinen
2002, section 2.3, and trec_eval's `ndcg_cut`.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain

import numpy as np

from evaluation.data.dataset import Split, other_split_hint
from evaluation.embeddings import BITS, Embeddings, WholeNumbers
from evaluation.findings import NOTE, WARNING, BadRequest, Faulty, Finding, raise_errors
from evaluation.inputs import retrieval_inputs
from evaluation.metrics.sets import MetricSet, listed, named_metrics
from evaluation.names import closest, explain, hint
from evaluation.predictions import Ranking, Similarity
from evaluation.scores import VERSION, Items, Measured, Score, interval_method, measure
from evaluation.statistics.intervals import Estimate
from evaluation.text import unknown_key

TASK_METRICS = ("mAP@10", "R@1", "R@5", "R@10")  # the metrics of DCASE 2022, which are the default
TEXT_TO_AUDIO, AUDIO_TO_TEXT = "text-to-audio", "audio-to-text"
DIRECTIONS = (TEXT_TO_AUDIO, AUDIO_TO_TEXT)
# The default of audio-to-text also has the metrics that papers on CLAP call R@k.
DEFAULT_METRICS = {
    TEXT_TO_AUDIO: TASK_METRICS,
    AUDIO_TO_TEXT: (*TASK_METRICS, "success@1", "success@5", "success@10"),
}

Truth = Mapping[str, Set[str] | Mapping[str, float]]


Prediction = Similarity | Ranking | Embeddings


def validate(
    truth: Truth,
    file_names: Sequence[str],
    prediction: Prediction,
    file: str = "prediction",
    split: Split | None = None,
    noun: str = "clip",
) -> list[Finding]:
    """Check a prediction against the truth and the clips of its split.

    Args:
        truth: The clips that answer each query. The set of a query may be empty. The query must still appear in the
            prediction, and its clips and scores are checked.
        file_names: The names of all clips of the split.
        prediction: The prediction.
        file: The prediction's name in findings.
        split: The split. Messages use it to name its files and the other splits of its folder.
        noun: The noun for what is ranked: "clip", or "text" if clips are the queries.

    Returns:
        Warnings and notes, sorted.

    Raises:
        Faulty: A query of the truth is missing or repeated; scores are not finite; a query's grades are not finite,
            below 0 or all 0; the truth names a clip that is not in the split; or the prediction does not name any of
            the split's clips. The exception lists all findings.
    """
    findings = _check_truth(truth, set(file_names))
    findings += _check_queries(truth, prediction, file, split)
    findings += _check_clips(file_names, prediction, file, split, noun)
    if isinstance(prediction, Embeddings):
        findings += prediction.findings(file)
    if isinstance(prediction, Similarity):
        bad_rows = np.flatnonzero(~np.isfinite(prediction.scores).all(axis=1))
        if len(bad_rows):
            share = f"{len(bad_rows)} of {len(prediction.queries)}"
            example = prediction.queries[bad_rows[0]]
            message = f"scores must be finite; {share} queries have NaN or infinite scores, for example {example!r}"
            message += "; check the model"
            findings.append(Finding(file, message=message))
    raise_errors(findings)
    return sorted(findings)


def _check_truth(truth: Truth, clips: Set[str]) -> list[Finding]:
    findings = []
    for query, relevant in truth.items():
        if isinstance(relevant, Mapping):
            wrong = [str(grade) for grade in relevant.values() if not 0 <= grade < np.inf]
            if wrong:
                message = f"the grades of {query!r} must be finite and 0 or more; found {', '.join(wrong)}"
                findings.append(Finding("truth", message=message))
            elif not any(relevant.values()):
                message = f"{query!r} must have a grade above 0; give a clip that answers it such a grade, or remove it"
                findings.append(Finding("truth", message=message))
        unknown = [repr(name) for name in relevant if name not in clips]
        if unknown:
            message = f"must name clips of the split for {query!r}; the split has no {', '.join(unknown)}"
            findings.append(Finding("truth", message=message))
    return findings


def _source(split: Split | None) -> str:
    """Return the name of the file that the split was read from, or "" if it is not known."""
    if split and split.source:
        return split.source.name
    return ""


def _check_queries(truth: Truth, prediction: Prediction, file: str, split: Split | None) -> list[Finding]:
    """Find repeated, missing and unknown queries; raise Faulty if the prediction is of another split."""
    findings = []
    lines = prediction.lines if isinstance(prediction, Ranking) else ()
    seen: dict[str, int] = {}  # the line of each query
    for index, query in enumerate(prediction.queries):
        line = lines[index] if lines else 0
        if query in seen:
            findings.append(Finding(file, line, message=f"query {query!r} appears twice; give each query once"))
        seen.setdefault(query, line)
    if truth and not seen:
        raise Faulty([Finding(file, message=f"has no rows; give one for each of the {len(truth)} queries")])
    extra = dict.fromkeys(query for query in seen if query not in truth)
    missing = dict.fromkeys(query for query in truth if query not in seen)
    if split and missing and (other := other_split_hint(split, seen, "queries")):
        answered = len(truth) - len(missing) or "none"
        message = f"answers {answered} of the {len(truth)} queries of {split.name}; {other}"
        raise Faulty([Finding(file, message=message)])
    match = explain(extra, missing, texts=True)
    if match:
        source = _source(split) if split and truth.keys() <= split.captions.keys() else ""
        message = match.message(len(seen), "queries", source)
        findings.append(Finding(file, seen[next(iter(match.pairs))], message=message))
        for given, expected in match.pairs.items():
            del extra[given], missing[expected]
    meant = closest(extra, texts=True)
    close = {query: meant(query) for query in missing}
    if extra and len(extra) == len(seen) and not any(close.values()):  # others would only repeat it
        message = f"answers none of the {len(truth)} queries; is this the prediction of another split or data set?"
        raise Faulty([Finding(file, message=message)])
    for query in missing:
        message = f"query {query!r} is missing{hint(query, close[query], 'queries')}"
        findings.append(Finding(file, message=message))
    if extra:
        message = f"skipped queries that are not in the truth: {len(extra)}"
        findings.append(Finding(file, message=message, severity=NOTE))
    return findings


def _check_clips(
    file_names: Sequence[str], prediction: Prediction, file: str, split: Split | None, noun: str
) -> list[Finding]:
    """Find repeated, missing and unknown clips; `noun` is as in `validate`."""
    clips = set(file_names)
    given = _named_clips(prediction)
    unknown = _lines_of_unknown_clips(prediction, clips)
    none_known = bool(given) and given.isdisjoint(clips)
    match = explain(unknown, file_names, texts=noun == "text")
    findings = []
    if match:
        message = match.message(len(given), "names" if noun == "clip" else "texts", _source(split))
        line = unknown[next(iter(match.pairs))][0]
        if none_known:
            return [Finding(file, line, message=message)]
        findings.append(Finding(file, line, message=f"{message}; they count as wrong", severity=WARNING))
    elif split and (other := other_split_hint(split, given, "names")):
        number = len(given) - len(unknown) or "none"
        return [Finding(file, message=f"names {number} of the {len(clips)} clips of {split.name}; {other}")]
    meant = closest(file_names, texts=noun == "text")
    if none_known:
        name = min(given)
        message = f"names none of the split's {len(clips)} {noun}s; found {name!r}{hint(name, meant(name))}"
        question = "is this the prediction of another split or data set?"
        return [Finding(file, message=f"{message}; {question}")]
    explained = match.pairs if match else {}
    for name, lines in unknown.items():
        if name not in explained:
            message = f"no {noun} {name!r} in this split; it counts as wrong{hint(name, meant(name))}"
            findings += [Finding(file, line, message=message, severity=WARNING) for line in lines]
    if not isinstance(prediction, Ranking):
        columns, column = ("two columns", "column") if isinstance(prediction, Similarity) else ("two rows", "row")
        for name in _repeated(prediction.file_names):
            findings.append(Finding(file, message=f"clip {name!r} has {columns}; give each clip one"))
        absent = len(clips - given)
        if absent:
            message = f"no {column} for {absent} of the split's {len(clips)} clips; they count as not found"
            findings.append(Finding(file, message=message, severity=WARNING))
        return findings
    for index, names in enumerate(prediction.file_names):
        line = prediction.lines[index] if prediction.lines else 0
        repeated = _repeated(names)
        if repeated:
            message = f"given more than once: {', '.join(map(repr, repeated))}; only the first counts"
            findings.append(Finding(file, line, message=message, severity=WARNING))
    return findings


def _repeated(names: Iterable[str]) -> list[str]:
    """Return the names that are given more than once, each once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _named_clips(prediction: Prediction) -> set[str]:
    if not isinstance(prediction, Ranking):
        return set(prediction.file_names)
    return set().union(*prediction.file_names)


def _lines_of_unknown_clips(prediction: Prediction, clips: Set[str]) -> dict[str, list[int]]:
    """Return a dict from each name that is not a clip of the split to the lines that contain it.

    If the prediction is a matrix, the only line is 0.
    """
    if not isinstance(prediction, Ranking):
        return {name: [0] for name in prediction.file_names if name not in clips}
    unknown: dict[str, list[int]] = {}
    for index, names in enumerate(prediction.file_names):
        line = prediction.lines[index] if prediction.lines else 0
        for name in dict.fromkeys(names):
            if name not in clips:
                unknown.setdefault(name, []).append(line)
    return unknown


def _graded(relevant: Set[str] | Mapping[str, float]) -> Mapping[str, float]:
    """Return a dict from the relevant clips of a query to their grades."""
    if isinstance(relevant, Mapping):
        return {name: float(grade) for name, grade in relevant.items() if grade > 0}
    return dict.fromkeys(relevant, 1.0)


def ranks(truth: Truth, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranks of the relevant clips of every query, and their grades.

    All metrics are computed from these ranks and grades.

    Args:
        truth: The clips that answer each query.
        prediction: A prediction with every query of the truth; see `validate`.

    Returns:
        The ranks and the grades, two float64 arrays of shape (queries, m). m is the largest number of relevant clips of
        a query. Queries are in the truth's order. Ranks ascend in each row, and grades have the same order. A relevant
        clip that is not found has an infinite rank. A query with fewer than m relevant clips has infinite
        ranks and grades of 0 at the end of its row.
    """
    relevant = [_graded(names) for names in truth.values()]
    names = list(chain.from_iterable(relevant))  # the relevant clips of all queries, one after the other
    grade = np.array(list(chain.from_iterable(grades.values() for grades in relevant)), dtype=float)
    counts = np.array([len(grades) for grades in relevant], dtype=int)
    owners = np.repeat(np.arange(len(relevant)), counts)  # the query of each relevant clip
    row_of = {query: row for row, query in enumerate(prediction.queries)}
    rows = np.array([row_of[query] for query in truth], dtype=int)  # the prediction's row of each query of the truth
    if not isinstance(prediction, Ranking):
        column_of = {name: column for column, name in enumerate(prediction.file_names)}
        columns = np.array([column_of.get(name, -1) for name in names], dtype=int)
        present = np.flatnonzero(columns >= 0)
        place = np.full(len(owners), np.inf)
        place[present] = _places(prediction, rows[owners[present]], columns[present], grade[present])
    else:
        lists = [prediction.file_names[row] for row in rows[owners]]
        place = np.array([_place_in_list(name, ranked) for name, ranked in zip(names, lists, strict=True)])
    order = np.lexsort((place, owners))
    slot = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.full((len(truth), counts.max(initial=0)), np.inf)
    grades = np.zeros_like(places)
    places[owners, slot], grades[owners, slot] = place[order], grade[order]
    return places, grades


def _place_in_list(name: str, ranked: Sequence[str]) -> float:
    if name in ranked:
        return ranked.index(name) + 1
    return np.inf


def _places(prediction: Similarity | Embeddings, row: np.ndarray, column: np.ndarray, grade: np.ndarray) -> np.ndarray:
    """Return the (n,) ranks of the relevant clips in their rows, given their (n,) rows, columns and grades."""
    if isinstance(prediction, Embeddings):
        own = prediction.pairs(row, column)
    else:
        own = prediction.scores[row, column]
    order = np.lexsort((grade, -own, row))  # each row's relevant clips in the order of their ranks
    row, own = row[order], own[order]
    # NaN counts as the lowest score: a model that diverged must get the worst ranks.
    is_nan = np.isnan(own)
    own = np.where(is_nan, -np.inf, own)
    if isinstance(prediction, Embeddings):
        not_worse = _count_not_worse_in_blocks(prediction, row, own)
    else:
        not_worse = _count_not_worse(prediction.scores, row, own)
    # A clip's rank is the number of clips in its row that are not worse (including itself), minus the number of
    # relevant clips that rank after it although they are not worse. These are the later clips of its run of equal
    # scores …
    runs = np.flatnonzero(np.append((row[1:] != row[:-1]) | (own[1:] != own[:-1]), True)[: len(own)])
    index = np.arange(len(own))
    after = runs[np.searchsorted(runs, index)] - index
    # … and the clips with NaN, because a comparison never finds NaN to be worse than another score.
    after += np.where(own > -np.inf, np.bincount(row[is_nan], minlength=len(prediction.queries))[row], 0)
    places = np.empty(len(own))
    places[order] = not_worse - after
    return places


def _count_not_worse(scores: np.ndarray, row: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Count the clips in a row of the matrix that are not worse than a score, for (n,) rows and scores."""
    not_worse = np.empty(len(own), dtype=int)
    size = max(1, 2**17 // max(1, scores.shape[1]))  # so that a block of comparisons fits into the processor's cache
    for start in range(0, len(own), size):
        block = slice(start, start + size)
        worse = scores[row[block]] < own[block, None]
        not_worse[block] = scores.shape[1] - np.count_nonzero(worse, axis=1)
    return not_worse


def _count_not_worse_in_blocks(embeddings: Embeddings, row: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Count as `_count_not_worse`, with the matrix computed in blocks. The rows must ascend."""
    not_worse = np.zeros(len(own), dtype=int)
    rows, first, counts = np.unique(row, return_index=True, return_counts=True)
    for queries, _, block in embeddings.blocks(rows, TILE):
        for slot in range(counts[queries].max(initial=0)):
            has_slot = np.flatnonzero(counts[queries] > slot)  # the block's queries with more than `slot` scores
            pair = first[queries][has_slot] + slot
            compared = block if len(has_slot) == len(block) else block[has_slot]
            better = (compared >= own[pair, None]).view(np.uint8)
            # Sums of 16-bit numbers are twice as fast as np.count_nonzero, and a row has at most TILE[1] ones.
            not_worse[pair] += better.sum(axis=1, dtype=np.uint16)
    return not_worse


def recall(places: np.ndarray, grades: np.ndarray, k: float) -> np.ndarray:
    """Return R@k of every query, in [0, 1]: the share of its relevant clips that are among the first k.

    Args:
        places: (queries, m) ranks of the relevant clips, from `ranks`.
        grades: (queries, m) their grades, from `ranks`.
        k: The number of clips at the top of the ranking that count.
    """
    return (places <= k).sum(axis=1) / (grades > 0).sum(axis=1)


def average_precision(places: np.ndarray, grades: np.ndarray, k: float) -> np.ndarray:
    """Return AP@k of every query, in [0, 1].

    AP@k is the sum of the precisions at the relevant clips among the first k, over the number of all relevant clips.
    The arguments are those of `recall`.
    """
    precision = np.arange(1, places.shape[1] + 1) / places
    return np.where(places <= k, precision, 0.0).sum(axis=1) / (grades > 0).sum(axis=1)


def success(places: np.ndarray, grades: np.ndarray, k: float) -> np.ndarray:
    """Return 1 for every query with a relevant clip among the first k, otherwise 0.

    The arguments are those of `recall`.
    """
    return (places[:, 0] <= k).astype(float)


def ndcg(places: np.ndarray, grades: np.ndarray, k: float) -> np.ndarray:
    """Return nDCG@k of every query, in [0, 1].

    nDCG@k is Σ grade / log2(rank + 1) over the first k clips, divided by the same sum of the best ranking. The best
    ranking contains all relevant clips, including those that the prediction lacks, in the order of falling grades. The
    arguments are those of `recall`.
    """
    grades = grades / grades.max(axis=1, keepdims=True)  # otherwise the sum of very large grades would be infinite
    ideal_places = np.broadcast_to(np.arange(1.0, places.shape[1] + 1), places.shape)
    ideal_grades = -np.sort(-grades, axis=1)
    gain = _discounted_gain(places, grades, k)
    ideal = _discounted_gain(ideal_places, ideal_grades, k)
    return np.minimum(gain / ideal, 1.0)  # rounding must not make it larger than 1


def _discounted_gain(places: np.ndarray, grades: np.ndarray, k: float) -> np.ndarray:
    """Return the sum of grade / log2(rank + 1) over the first k ranks of every query."""
    return np.where(places <= k, grades / np.log2(places + 1), 0.0).sum(axis=1)


def reciprocal_rank(places: np.ndarray, grades: np.ndarray, k: float = math.inf) -> np.ndarray:
    """Return 1 divided by the rank of every query's first relevant clip, or 0 if this rank is above k. It is in [0, 1].

    The arguments are those of `recall`. By default, k is not limited.
    """
    return np.where(places[:, 0] <= k, 1 / places[:, 0], 0.0)


def median_rank(places: np.ndarray, grades: np.ndarray) -> Estimate:
    """Return the median over queries of the first relevant clip's rank, at least 1, with a 95 % interval.

    The median is infinite if at least half of the queries do not find a relevant clip.

    The interval does not assume a distribution of the ranks. It goes from the l-th smallest to the l-th largest rank.
    The number of ranks below the median has a binomial distribution, which determines the largest possible l (Conover,
    Practical Nonparametric Statistics, section 3.2). The interval contains the true median at least 95 times in 100.
    With five ranks or fewer, there is no such interval, and its ends are NaN. The interval treats the queries as
    independent.
    """
    first = np.sort(places[:, 0])
    n, below = len(first), np.arange(len(first))
    # Log probabilities that 1, 2, … n ranks lie below the median. That of 0 is -n log 2.
    binomial = np.cumsum(np.log((n - below) / (below + 1))) - n * np.log(2)
    tail = np.cumsum(np.exp(np.append(-n * np.log(2), binomial)))
    outside = np.count_nonzero(tail <= 0.025)
    low, high = np.nan, np.nan
    if outside:
        low, high = first[outside - 1], first[n - outside]
    return Estimate(float(np.median(first)), np.nan, float(low), float(high), n, "order-statistics-95")


FEW = 6  # if there are fewer groups of queries, intervals by clip are not reliable
AT_K = {"mAP": average_precision, "R": recall, "nDCG": ndcg, "success": success, "MRR": reciprocal_rank}


def chance(grades: np.ndarray, clips: int, metric: str) -> float | None:
    """Return the mean of a metric over all rankings of `clips` clips, or None for the median rank, which is not a mean.

    In a random ranking, a clip has every rank with the same probability. So R@k is k / clips, and every rank of nDCG's
    sum has the mean grade. The precision at a relevant clip of rank r counts the clip itself. Each of the r - 1 clips
    before it is relevant with probability (relevant - 1) / (clips - 1), where `relevant` is the query's number of
    relevant clips. The probability that no relevant clip is among the first r is that of drawing r irrelevant clips
    without replacement.

    Args:
        grades: (queries, m) the grades of each query's relevant clips, from `ranks`.
        clips: The number of clips that are ranked.
        metric: The metric's name, such as `mAP@10`.
    """
    name, depth = _parse(metric)
    if name == "medR":
        return None
    k = int(min(depth, clips))
    if name == "R":
        return k / clips
    rank = np.arange(1, k + 1)
    if name == "nDCG":
        best = -np.sort(-grades / grades.max(axis=1, keepdims=True), axis=1)
        ideal = _discounted_gain(np.broadcast_to(np.arange(1.0, grades.shape[1] + 1), grades.shape), best, k)
        return float((best.sum(axis=1) / ideal).mean() / clips * (1 / np.log2(rank + 1)).sum())
    values = []
    counts, queries = np.unique((grades > 0).sum(axis=1), return_counts=True)
    for count in counts:
        if name == "mAP":
            share = (count - 1) / max(clips - 1, 1)
            values.append(((1 + (rank - 1) * share) / rank).sum() / clips)
            continue
        others = (clips - count - rank + 1).clip(0)
        # The probabilities that no relevant clip is among the first 0, 1, … k clips.
        no_relevant = np.cumprod(np.append(1, others / (clips - rank + 1)))
        if name == "success":
            values.append(1 - no_relevant[-1])
        else:
            values.append((-np.diff(no_relevant) / rank).sum())
    return float(np.average(values, weights=queries))


def _parse(name: str) -> tuple[str, float]:
    """Split a metric's name, such as R@10, into its kind and its depth k, which is infinite for MRR and medR.

    Raises:
        ValueError: There is no such metric.
    """
    match = re.fullmatch(rf"({'|'.join(AT_K)})@([1-9]\d{{0,8}})", name)
    if match:
        return match[1], int(match[2])
    if name in ("MRR", "medR"):
        return name, np.inf
    raise ValueError(f"unknown metric {name!r}")


def _is_metric(name: str) -> bool:
    try:
        _parse(name)
    except ValueError:
        return False
    return True


def resolve_metrics(names: Sequence[str]) -> MetricSet:
    """Return the metrics that a request names, each once.

    Args:
        names: Names of metrics and of sets.

    Raises:
        BadRequest: There is no such metric or set.
        Faulty: As `sets.year_sets`.
    """
    return named_metrics(names, "retrieval", _is_metric, _unknown_metric)


def _unknown_metric(name: str, sets: Sequence[str]) -> str:
    at_k = ", ".join(f"{kind}@k" for kind in AT_K)
    return f"unknown metric {name!r}; there are {at_k} (for any k from 1), MRR, medR, and {listed(sets)}"


def clip_groups(queries: Iterable[str], split: Split, truth: Truth) -> tuple[int, ...]:
    """Return a group number for each query. Queries that share a clip have the same number.

    A query describes the clips that have it as a caption. If it is not a caption of any clip, it describes the clips
    that answer it. Two queries are in one group if they describe the same clip, or if a chain of such queries connects
    them.
    """
    described = [_described(query, split, truth) for query in queries]
    return _group_numbers((names[0] for names in described), described)


def _groups_of_clips(clips: Iterable[str], split: Split, truth: Truth) -> tuple[int, ...]:
    """Return a group number for each clip. Clips that a query of the truth describes together have the same number."""
    return _group_numbers(clips, [_described(query, split, truth) for query in truth])


def _described(query: str, split: Split, truth: Truth) -> list[str]:
    return sorted(split.captions.get(query) or _graded(truth[query]))


def _group_numbers(names: Iterable[str], connected: Iterable[Sequence[str]]) -> tuple[int, ...]:
    """Return a number for each name. Names have the same number if a chain of `connected` lists connects them."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    for together in connected:
        for name in together[1:]:
            parent[root(name)] = root(together[0])
    numbers: dict[str, int] = {}
    return tuple(numbers.setdefault(root(name), len(numbers)) for name in names)


def reversed_truth(truth: Truth) -> Truth:
    """Return the truth of audio-to-text retrieval: a dict from each clip to the texts that it answers, with grades.

    Clips without a relevant text are left out. The clips are in the order in which the truth's queries name them; the
    clips of one query are sorted.

    >>> reversed_truth({"A dog barks.": {"a.wav", "b.wav"}, "It barks.": {"a.wav"}})
    {'a.wav': {'A dog barks.': 1.0, 'It barks.': 1.0}, 'b.wav': {'A dog barks.': 1.0}}
    """
    texts: dict[str, dict[str, float]] = {}
    for query, relevant in truth.items():
        for clip, grade in sorted(_graded(relevant).items()):
            texts.setdefault(clip, {})[query] = grade
    return texts


def _reverse(
    prediction: Prediction, truth: Truth, answers: Truth, split: Split, file_names: Sequence[str], file: str
) -> tuple[Prediction, list[Finding]]:
    """Check a prediction for audio-to-text retrieval, and return it with the clips as queries.

    In a ranking, the queries are clips already. A matrix and embeddings have texts as queries, as in text-to-audio.
    Their texts that are not in the truth are left out.

    Raises:
        Faulty: As `validate`, or a clip that answers a query is missing. The exception lists all findings.
    """
    if isinstance(prediction, Ranking):
        return prediction, validate(answers, tuple(truth), prediction, file, noun="text")
    findings = validate(truth, file_names, prediction, file, split)
    given = set(prediction.file_names)
    missing = [clip for clip in answers if clip not in given]
    if missing:
        message = f"must have all clips that are queries; {len(missing)} of {len(answers)} are missing"
        raise Faulty([Finding(file, message=f"{message}, for example {missing[0]!r}; add them")])
    rows = np.array([row for row, query in enumerate(prediction.queries) if query in truth], dtype=int)
    if isinstance(prediction, Embeddings):
        if len(rows) < len(prediction.queries):
            prediction = prediction.with_queries(rows)
        return prediction.reversed(), findings
    if len(rows) < len(prediction.queries):
        queries = tuple(prediction.queries[row] for row in rows)
        prediction = Similarity(queries, prediction.file_names, prediction.scores[rows])
    return prediction.reversed(), findings


def evaluate(
    truth: Split | Truth,
    scores: object,
    *,
    queries: Sequence[str] | None = None,
    clips: Sequence[str] | None = None,
    relevance: Truth | None = None,
    metrics: Sequence[str] | None = None,
    interval: str = "jackknife",
    direction: str = TEXT_TO_AUDIO,
    lists_all_clips: bool = True,
    file: str = "prediction",
) -> Score:
    """Score a retriever.

    Args:
        truth: A split, or a dict from each query to the clips that answer it: a name, a list or set of names, or a dict
            from names to grades.
        scores: A `Similarity`, an array or tensor of shape (queries, clips), a DataFrame with a row for each query and
            a column for each clip, a `Ranking`, or a dict from each query to its clips, best first, or to a dict from
            clips to scores.
        queries: The queries of an array's rows (default: the queries of the truth, in its order).
        clips: The clips of an array's columns (default: the clips of the split). If `truth` is a dict and `scores`
            names its clips: the names of all clips (default: the columns of a matrix; for ranked lists, the clips that
            the truth names).
        relevance: The clips that answer each query, with or without grades, in place of the split's own truth.
        metrics: Names of metrics, such as `mAP@10` and `MRR`, or of sets, such as `dcase2025` (default: the metrics of
            `DEFAULT_METRICS` for the direction).
        interval: One of `intervals.METHODS`.
        direction: One of `DIRECTIONS`. For audio-to-text retrieval, the queries of a `Ranking` are clips, and its lists
            have texts. A `Similarity` and `Embeddings` are the same for both directions: their queries are texts. The
            truth is also the same for both directions.
        lists_all_clips: True if the split has all clips that can be ranked. If not, as for the qrels of TREC, a clip
            that the split does not have is not relevant, without a warning, and there are no chance levels.
        file: The name of `scores` in findings.

    Returns:
        The score. Its items are the queries in the truth's order; for audio-to-text retrieval, they are the clips that
        answer a query, in the order of `reversed_truth`.

    Raises:
        BadRequest: There is no such metric, direction or interval method, or the split does not have a truth, or the
            truth of a query is empty.
        Faulty: As `validate`, or an input has a form that `evaluation.inputs` does not accept. For audio-to-text
            retrieval, also: a clip that answers a query is missing.

    >>> truth = {"A dog barks.": "dog.wav", "Rain falls.": ["rain.wav", "storm.wav"]}
    >>> ranked = {"A dog barks.": ["dog.wav", "rain.wav"], "Rain falls.": ["storm.wav", "dog.wav", "rain.wav"]}
    >>> evaluate(truth, ranked, metrics=["mAP@10"]).metrics["mAP@10"].values.round(3).tolist()
    [1.0, 0.833]
    """
    if relevance is not None and not isinstance(truth, Split):
        raise BadRequest("relevance replaces the truth of a split; if the truth is a dict, leave out relevance")
    if direction not in DIRECTIONS:
        raise BadRequest(unknown_key(direction, DIRECTIONS, "direction"))
    split, prediction = retrieval_inputs(truth, scores, queries, clips, file)
    answered = split.truth if relevance is None else relevance
    if not answered:
        message = f"the split {split.name} has no truth: the clips that answer its queries are not known"
        raise BadRequest(f"{message}; choose another split")
    unanswered = [query for query, relevant in answered.items() if not relevant]
    if unanswered:
        share = f"{len(unanswered)} of {len(answered)} queries have none, for example {unanswered[0]!r}"
        raise BadRequest(f"the truth must name at least one clip for each query; {share}; add clips, or remove them")
    names = resolve_metrics(DEFAULT_METRICS[direction] if metrics is None else metrics).metrics
    file_names = split.file_names
    if not lists_all_clips:
        named = _named_clips(prediction)
        if not named.isdisjoint(file_names):
            file_names = tuple(dict.fromkeys([*file_names, *sorted(named)]))
    if direction == TEXT_TO_AUDIO:
        answers = answered
        findings = validate(answered, file_names, prediction, file, split)
        candidates = len(split.clips)
        items = Items("queries", tuple(answered), clip_groups(answered, split, answered))
    else:
        answers = reversed_truth(answered)
        prediction, findings = _reverse(prediction, answered, answers, split, file_names, file)
        candidates = len(answered)
        items = Items("clips", tuple(answers), _groups_of_clips(answers, split, answered))
    places, grades = ranks(answers, prediction)
    if isinstance(prediction, Ranking):
        deepest = max((_parse(name)[1] for name in names), default=0)
        noun = "clip" if direction == TEXT_TO_AUDIO else "text"
        findings += _short_lists(answers, prediction, min(deepest, candidates), file, noun)
    signature = _signature(split, answered, grades, interval, direction, prediction, lists_all_clips)
    groups = len(set(items.groups))
    if groups < FEW and len(items.names) >= 20:
        message = f"the {len(items.names)} {items.kind} form only {groups} independent groups, because they share clips"
        findings.append(Finding(file, message=f"{message}: the intervals by clip are not reliable", severity=NOTE))
    if direction == AUDIO_TO_TEXT and any(_parse(name)[0] == "R" for name in names) and grades.shape[1] > 1:
        message = "R@k is the share of a clip's relevant texts among the first k; papers on CLAP call success@k R@k"
        findings.append(Finding(file, message=message, severity=NOTE))
    measured = {}
    for name in names:
        kind, k = _parse(name)
        if kind == "medR":
            measured[name] = Measured(median_rank(places, grades))
            if measured[name].estimate.value == np.inf:
                noun = "clips" if direction == TEXT_TO_AUDIO else "captions"
                message = f"medR is infinite: at least half of the queries do not find any of their relevant {noun}"
                findings.append(Finding(file, message=message, severity=NOTE))
            continue
        values = AT_K[kind](places, grades, k)
        by_chance = chance(grades, candidates, name) if lists_all_clips else None
        measured[name] = measure(values, items, interval, chance=by_chance)
    return Score(measured, items, signature, findings=tuple(findings))


def _short_lists(truth: Truth, prediction: Ranking, deepest: float, file: str, noun: str) -> list[Finding]:
    """Return a note if lists have fewer clips than the largest k of the metrics."""
    lengths = []
    for query, ranked in zip(prediction.queries, prediction.file_names, strict=True):
        if query in truth and len(ranked) < deepest:
            lengths.append(len(ranked))
    if not lengths:
        return []
    message = (
        f"some metrics use the first {deepest} {noun}s, but the lists of {len(lengths)} queries are shorter (the "
        f"shortest has {min(lengths)}); {noun}s that are not in a list count as not found"
    )
    return [Finding(file, message=message, severity=NOTE)]


def _signature(
    split: Split,
    truth: Truth,
    grades: np.ndarray,
    interval: str,
    direction: str,
    prediction: Prediction,
    lists_all_clips: bool,
) -> str:
    """Return a text that names the data, rules and versions that the scores depend on."""
    source = "captions" if truth == split.captions else "relevance"
    answers = sorted((query, sorted(_graded(relevant).items())) for query, relevant in truth.items())
    digest = hashlib.sha256(repr(answers).encode()).hexdigest()[:8]
    counts = (grades > 0).sum(axis=1)
    ranked = [f"clips:{len(split.clips)}" if lists_all_clips else "clips:not-listed"]
    if direction == AUDIO_TO_TEXT:
        ranked = [f"texts:{len(truth)}", f"direction:{direction}"]
    if isinstance(prediction, Embeddings):
        ranked.append(f"similarity:{prediction.similarity}-{BITS}-bits")
    return "|".join(
        [
            f"dcase-kit:{VERSION}",
            f"split:{split.name}#{split.fingerprint}",
            f"truth:{source}#{digest}",
            f"queries:{len(grades)}",
            *ranked,
            f"relevant:{counts.min()}-{counts.max()}",
            "ap:over-relevant",
            "ndcg:linear-log2",
            "ties:relevant-last",
            "repeated,unknown:wrong",
            "unlisted:not-found",
            "missing,duplicate:error",
            "extra:left-out",
            f"interval:{interval_method(interval)}",
            f"numpy:{np.__version__}",
        ]
    )


# Rankings of more clips than fit into memory --------------------------------------------------------------------------

TILE = (1024, 4096)  # number of queries and of clips for which scores are computed at once: 16 MiB of scores


def best_clips(prediction: Similarity | Embeddings, k: int) -> Ranking:
    """Return the k best clips of each query, best first; clips with equal scores keep the order of `file_names`."""
    if isinstance(prediction, Similarity):
        return prediction.top(k)
    rows = np.arange(len(prediction.queries))
    parts = [np.zeros((0, min(k, len(prediction.file_names))), dtype=np.int64)]
    for _, queries in prediction.query_parts(rows):
        parts.append(top_k(queries, prediction.whole_clips, k)[0])
    return Ranking.of(prediction.queries, prediction.file_names, np.concatenate(parts))


def top_k(queries: np.ndarray, clips: np.ndarray | WholeNumbers, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k clips with the largest inner products for every query, without keeping all scores in memory.

    The result is exact, not approximate.

    Args:
        queries: (q, d) float32 embeddings of q queries.
        clips: (n, d) float32 embeddings of n clips. They may be on disk (`np.memmap`). Each part is read once. If both
            arrays are float64, the scores are computed in float64.
        k: The number of clips to return for each query, 1 or more. If there are fewer than k clips, all are returned.

    Returns:
        (q, min(k, n)) indices of the best clips, best first, and their scores in an array of the same shape.
        Clips with equal scores keep their order, as in `Similarity.top`.

    Raises:
        ValueError: The shapes do not match, k is below 1, or an inner product may be infinite or NaN.

    >>> top_k(np.float32([[1, 0]]), np.float32([[1, 5], [3, 0], [2, 2]]), 2)
    (array([[1, 2]]), array([[3., 2.]], dtype=float32))
    """
    if queries.ndim != 2 or clips.ndim != 2 or queries.shape[1] != clips.shape[1] or k < 1:
        raise ValueError(
            f"queries must have the shape (q, d), clips the shape (n, d), and k must be 1 or more; found "
            f"{queries.shape}, {clips.shape} and {k}"
        )
    dtype = np.float64 if queries.dtype == clips.dtype == np.float64 else np.float32
    queries = np.asarray(queries, dtype=dtype)
    k = min(k, len(clips))
    indices = np.zeros((len(queries), k), dtype=np.int64)
    best = np.full((len(queries), k), -np.inf, dtype=dtype)
    largest = _largest(queries) * queries.shape[1]
    for start in range(0, len(clips), TILE[1]):
        block = np.asarray(clips[start : start + TILE[1]], dtype=dtype)
        if not largest * _largest(block) < float(np.finfo(dtype).max):
            raise ValueError("embeddings must be finite, and small enough that their inner products are finite too")
        for first in range(0, len(queries), TILE[0]):
            rows = slice(first, first + TILE[0])
            _update_best(queries[rows] @ block.T, start, indices[rows], best[rows])
    return indices, best


def _largest(values: np.ndarray) -> float:
    """Return the largest absolute value, or NaN if a value is NaN."""
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))


def _update_best(scores: np.ndarray, start: int, indices: np.ndarray, best: np.ndarray) -> None:
    """Merge a block of scores into the best clips of every query, in place.

    Args:
        scores: (queries, width) scores of the block's clips.
        start: The index of the block's first clip.
        indices: (queries, k) indices of the best clips so far, best first. This function changes them.
        best: (queries, k) scores of these clips. This function changes them.
    """
    k, width = best.shape[1], scores.shape[1]
    enters = scores > best[:, -1:]  # if scores are equal, the earlier clip stays
    if width > k and np.count_nonzero(enters) > 2 * best.size:  # mainly in the first block, where sorting would be slow
        enters &= scores >= np.partition(scores, -k, axis=1)[:, -k, None]
    new = np.flatnonzero(enters)
    row, column = np.divmod(new, width)
    changed, new_counts = np.unique(row, return_counts=True)
    # For each changed query, join its k best clips so far and its new clips.
    rows = np.concatenate([np.repeat(changed, k), row])
    values = np.concatenate([best[changed].ravel(), scores.ravel()[new]])
    clips = np.concatenate([indices[changed].ravel(), start + column])
    order = np.lexsort((-values, rows))  # clips with equal scores stay in order, because the sort is stable
    ends = np.cumsum(k + new_counts)
    first = order[(ends - k - new_counts)[:, None] + np.arange(k)]
    best[changed], indices[changed] = values[first], clips[first]
