"""How well a retriever finds the clips that answer a query.

Conventions
-----------
- The *truth* maps each query to the clips that answer it: a set of names, or names with *grades*, finite and 0 or more.
  Grade 0 is not relevant, a name in a set has grade 1, and all metrics but nDCG only ask which grades are above 0. A
  *prediction* is either a `Similarity` (a score for every query and clip) or a `Ranking` (for every query its best
  clips, best first).
- **Ranks** count from 1. Of clips with equal scores the relevant ones are ranked last, and of these the lower grades
  first, so that a constant scorer gets the worst case and not the order of the files.
- **AP@k divides by the number of relevant clips**, whether or not they fit into k (DCASE 2025 task 6's rule; for one
  relevant clip the reciprocal rank, DCASE 2022's). R@k is the share of the relevant clips among the first k. All
  metrics but the median rank lie in [0, 1] whatever the prediction holds.
- **Repeated and unknown names never help**: a name counts where it stands first; later ones, and names that are no clip
  of the split, take their places and count as wrong. A relevant clip that is not in the prediction is not found, also
  where a list is shorter than a metric looks.
- **Every query of the truth must be there, once**: a missing or a repeated query is an error, not a zero or a merge.
  Queries beyond the truth's are left out, and said so.

Metrics
-------
- `recall`: R@k.
- `average_precision`: AP@k; its mean over queries is mAP@k.
- `success`: success@k, whether any relevant clip is among the first k.
- `ndcg`: nDCG@k.
- `reciprocal_rank`: of the first relevant clip, where that is among the first k; its mean is MRR@k, or MRR for all
  ranks.
- `median_rank`: medR, the median of the first relevant clips' ranks.

Each takes what `ranks` returns: `recall(*ranks(truth, prediction), 10)`. `evaluation.metrics.catalogue` has all of
them as a table; `metric_sets` has the metrics of each year's challenge. Where a matrix of all clips would not fit into
memory, `top_k` makes rankings.

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

from evaluation import scores
from evaluation.data.dataset import Split, of_another_split
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Faulty, Finding
from evaluation.metrics.sets import MetricSet, year_sets
from evaluation.names import closest, explain, hint
from evaluation.predictions import Ranking, Similarity
from evaluation.scores import Items, Measured, Score, interval_method, measure
from evaluation.statistics.intervals import Estimate
from evaluation.text import printable

TASK_METRICS = ("mAP@10", "R@1", "R@5", "R@10")  # of DCASE 2022; the default

Truth = Mapping[str, Set[str] | Mapping[str, float]]


Prediction = Similarity | Ranking


def validate(
    truth: Truth,
    file_names: Sequence[str],
    prediction: Prediction,
    file: str = "prediction",
    split: Split | None = None,
) -> list[Finding]:
    """Check a prediction against the truth and the clips of its split.

    Args:
        truth: Query to the clips that answer it; a query with an empty set only has to be there.
        file_names: Every clip of the split.
        prediction: The prediction.
        file: Its name in findings.
        split: The split, for messages that name its files and the other splits of its folder.

    Returns:
        Warnings and notes, sorted.

    Raises:
        Faulty: A query of the truth is missing or repeated, scores are not finite, a query's grades are not finite,
            below 0 or all 0, or the truth names no clip of the split; with every finding.
    """
    findings = _check_truth(truth, set(file_names))
    findings += _check_queries(truth, prediction, file, split)
    findings += _check_clips(file_names, prediction, file, split)
    if isinstance(prediction, Similarity):
        bad = np.flatnonzero(~np.isfinite(prediction.scores).all(axis=1))
        if len(bad):
            share, first = f"{len(bad)} of {len(prediction.queries)}", prediction.queries[bad[0]]
            message = f"scores must be finite; {share} queries have others, first {first!r}"
            findings.append(Finding(file, message=message))
    if any(finding.severity == ERROR for finding in findings):
        raise Faulty(findings)
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
                message = f"no grade of {query!r} is above 0; grade a clip that answers it, or leave the query out"
                findings.append(Finding("truth", message=message))
        unknown = [repr(name) for name in relevant if name not in clips]
        if unknown:
            message = f"must name clips of the split for {query!r}; it has no {', '.join(unknown)}"
            findings.append(Finding("truth", message=message))
    return findings


def _source(split: Split | None) -> str:
    """Return the name of the file that a split's names are from; "" where it is not known."""
    if split and split.source:
        return split.source.name
    return ""


def _check_queries(truth: Truth, prediction: Prediction, file: str, split: Split | None) -> list[Finding]:
    """Find queries that are repeated, missing or unknown; raise Faulty where it is the prediction of another split."""
    findings = []
    lines = prediction.lines if isinstance(prediction, Ranking) else ()
    seen: dict[str, int] = {}  # the line of each query
    for index, query in enumerate(prediction.queries):
        line = lines[index] if lines else 0
        if query in seen:
            findings.append(Finding(file, line, message=f"query {query!r} stands here twice; give each query once"))
        seen.setdefault(query, line)
    if truth and not seen:
        raise Faulty([Finding(file, message=f"has no rows; give one for each of the {len(truth)} queries")])
    extra = dict.fromkeys(query for query in seen if query not in truth)
    missing = dict.fromkeys(query for query in truth if query not in seen)
    if split and missing and (other := of_another_split(split, seen, "queries")):
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
    if extra and len(extra) == len(seen) and not any(close.values()):  # every other finding would only repeat it
        message = f"answers none of the {len(truth)} queries; is this the prediction of another split or data set?"
        raise Faulty([Finding(file, message=message)])
    for query in missing:
        message = f"no query {query!r}{hint(query, close[query], 'queries')}"
        findings.append(Finding(file, message=message))
    if extra:
        findings.append(Finding(file, message=f"queries beyond the truth's are left out: {len(extra)}", severity=NOTE))
    return findings


def _check_clips(file_names: Sequence[str], prediction: Prediction, file: str, split: Split | None) -> list[Finding]:
    """Find clips that are repeated, missing or unknown."""
    clips = set(file_names)
    given = _named_clips(prediction)
    unknown = _lines_of_unknown_clips(prediction, clips)
    none_known = bool(given) and given.isdisjoint(clips)
    match = explain(unknown, file_names)
    findings = []
    if match:
        message = match.message(len(given), "names", _source(split))
        line = unknown[next(iter(match.pairs))][0]
        if none_known:
            return [Finding(file, line, message=message)]
        findings.append(Finding(file, line, message=f"{message}; they count as wrong", severity=WARNING))
    elif split and (other := of_another_split(split, given, "names")):
        number = len(given) - len(unknown) or "none"
        return [Finding(file, message=f"names {number} of the {len(clips)} clips of {split.name}; {other}")]
    meant = closest(file_names)
    if none_known:
        name = min(given)
        message = f"names none of the split's {len(clips)} clips; found {name!r}{hint(name, meant(name))}"
        question = "is this the prediction of another split or data set?"
        return [Finding(file, message=f"{message}; {question}")]
    explained = match.pairs if match else {}
    for name, lines in unknown.items():
        if name not in explained:
            message = f"no clip {name!r} in this split; it counts as wrong{hint(name, meant(name))}"
            findings += [Finding(file, line, message=message, severity=WARNING) for line in lines]
    if isinstance(prediction, Similarity):
        for name in _repeated(prediction.file_names):
            findings.append(Finding(file, message=f"clip {name!r} has two columns; give each clip one"))
        absent = len(clips - given)
        if absent:
            message = f"no column for {absent} of the split's {len(clips)} clips; they count as not found"
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
    if isinstance(prediction, Similarity):
        return set(prediction.file_names)
    return set().union(*prediction.file_names)


def _lines_of_unknown_clips(prediction: Prediction, clips: Set[str]) -> dict[str, list[int]]:
    """Return every name that is no clip's, in order, with the lines that give it; of a matrix, line 0."""
    if isinstance(prediction, Similarity):
        return {name: [0] for name in prediction.file_names if name not in clips}
    unknown: dict[str, list[int]] = {}
    for index, names in enumerate(prediction.file_names):
        line = prediction.lines[index] if prediction.lines else 0
        for name in dict.fromkeys(names):
            if name not in clips:
                unknown.setdefault(name, []).append(line)
    return unknown


def _graded(relevant: Set[str] | Mapping[str, float]) -> Mapping[str, float]:
    """The relevant clips with their grades."""
    if isinstance(relevant, Mapping):
        return {name: float(grade) for name, grade in relevant.items() if grade > 0}
    return dict.fromkeys(relevant, 1.0)


def ranks(truth: Truth, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Return where the relevant clips of every query stand, and their grades: what each metric takes.

    Args:
        truth: Query to the clips that answer it.
        prediction: A prediction with every query of the truth; see `validate`.

    Returns:
        (queries, most relevant clips of any query) float64, ascending in each row, infinite where a relevant clip is
        not found or the query has fewer; and in the same order their grades, 0 where the query has fewer. Queries are
        in the truth's order.
    """
    relevant = [_graded(names) for names in truth.values()]
    names = list(chain.from_iterable(relevant))  # the relevant clips of all queries, one after the other
    grade = np.array(list(chain.from_iterable(grades.values() for grades in relevant)), dtype=float)
    counts = np.array([len(grades) for grades in relevant], dtype=int)
    owners = np.repeat(np.arange(len(relevant)), counts)  # the query of each
    row_of = {query: row for row, query in enumerate(prediction.queries)}
    rows = np.array([row_of[query] for query in truth], dtype=int)  # of each query of the truth in the prediction
    if isinstance(prediction, Similarity):
        column_of = {name: column for column, name in enumerate(prediction.file_names)}
        columns = np.array([column_of.get(name, -1) for name in names], dtype=int)
        present = np.flatnonzero(columns >= 0)
        place = np.full(len(owners), np.inf)
        place[present] = _places(prediction.scores, rows[owners[present]], columns[present], grade[present])
    else:
        place = np.array(
            [_place_in_list(name, prediction.file_names[rows[q]]) for name, q in zip(names, owners, strict=True)]
        )
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


def _places(scores: np.ndarray, row: np.ndarray, column: np.ndarray, grade: np.ndarray) -> np.ndarray:
    """Return the (n,) ranks in their rows of the relevant clips, given as (n,) rows and columns of the scores."""
    own = scores[row, column]
    order = np.lexsort((grade, -own, row))  # each row's relevant clips as they rank
    row, own = row[order], own[order]
    # Asked as "not worse", NaN gets the worst case too: a model that diverged must not look perfect.
    lost = np.isnan(own)
    own = np.where(lost, -np.inf, own)
    not_worse = np.empty(len(own), dtype=int)
    size = max(1, 2**17 // max(1, scores.shape[1]))  # what is compared at once stays in the cache
    for start in range(0, len(own), size):
        block = slice(start, start + size)
        worse = scores[row[block]] < own[block, None]
        not_worse[block] = scores.shape[1] - np.count_nonzero(worse, axis=1)
    # Before a clip stand all that are not worse, but for the relevant ones after it in its own run of equal scores …
    runs = np.flatnonzero(np.append((row[1:] != row[:-1]) | (own[1:] != own[:-1]), True)[: len(own)])
    here = np.arange(len(own))
    after = runs[np.searchsorted(runs, here)] - here
    # … and for relevant ones of NaN, which are not worse than any and yet rank last.
    after += np.where(own > -np.inf, np.bincount(row[lost], minlength=len(scores))[row], 0)
    places = np.empty(len(own))
    places[order] = not_worse - after
    return places


def recall(places: np.ndarray, grades: np.ndarray, k: int) -> np.ndarray:
    """R@k of every query: the share of its relevant clips among the first k, in [0, 1]. Arguments as from `ranks`."""
    return (places <= k).sum(axis=1) / (grades > 0).sum(axis=1)


def average_precision(places: np.ndarray, grades: np.ndarray, k: int) -> np.ndarray:
    """AP@k of every query: precision at each relevant clip among the first k, over the number of relevant clips."""
    precision = np.arange(1, places.shape[1] + 1) / places
    return np.where(places <= k, precision, 0.0).sum(axis=1) / (grades > 0).sum(axis=1)


def success(places: np.ndarray, grades: np.ndarray, k: int) -> np.ndarray:
    """Whether any relevant clip of a query is among the first k: 1 or 0."""
    return (places[:, 0] <= k).astype(float)


def ndcg(places: np.ndarray, grades: np.ndarray, k: int) -> np.ndarray:
    """nDCG@k of every query: Σ grade / log2(rank + 1) over the first k, over that of the best ranking; in [0, 1].

    The best ranking has all relevant clips, best grades first, also those that the prediction lacks.
    """
    grades = grades / grades.max(axis=1, keepdims=True)  # the sum of great grades would be infinite
    ideal_places = np.broadcast_to(np.arange(1.0, places.shape[1] + 1), places.shape)
    ideal_grades = -np.sort(-grades, axis=1)
    gain = _discounted_gain(places, grades, k)
    ideal = _discounted_gain(ideal_places, ideal_grades, k)
    return np.minimum(gain / ideal, 1.0)  # rounding must not lift it


def _discounted_gain(places: np.ndarray, grades: np.ndarray, k: int) -> np.ndarray:
    """Return the sum of grade / log2(rank + 1) over the first k ranks of every query."""
    return np.where(places <= k, grades / np.log2(places + 1), 0.0).sum(axis=1)


def reciprocal_rank(places: np.ndarray, grades: np.ndarray, k: float = math.inf) -> np.ndarray:
    """One over the rank of a query's first relevant clip, in [0, 1]; 0 where none is among the first k, or found."""
    return np.where(places[:, 0] <= k, 1 / places[:, 0], 0.0)


def median_rank(places: np.ndarray, grades: np.ndarray) -> Estimate:
    """The median over queries of the first relevant clip's rank, at least 1; infinite where most find none.

    The 95 % interval is the one that supposes no distribution: from the l-th smallest to the l-th greatest rank, l as
    great as the binomial distribution of how many ranks lie below the median allows (Conover, Practical Nonparametric
    Statistics, section 3.2). It holds the median at least 95 times in 100; of five ranks or fewer there is none. It
    takes the queries for independent.
    """
    first = np.sort(places[:, 0])
    n, below = len(first), np.arange(len(first))
    binomial = np.cumsum(np.log((n - below) / (below + 1))) - n * np.log(2)  # of 1, 2, … n; none has 2 ** -n
    tail = np.cumsum(np.exp(np.append(-n * np.log(2), binomial)))
    outside = np.count_nonzero(tail <= 0.025)
    low, high = (first[outside - 1], first[n - outside]) if outside else (np.nan, np.nan)
    return Estimate(float(np.median(first)), np.nan, float(low), float(high), n, "order-statistics-95")


FEW = 6  # groups, fewer than which say little
AT_K = {"mAP": average_precision, "R": recall, "nDCG": ndcg, "success": success, "MRR": reciprocal_rank}


def chance(grades: np.ndarray, clips: int, metric: str) -> float | None:
    """The mean of a metric over all random rankings of `clips` clips; None for the median rank, which is no mean.

    A clip stands at any rank with the same chance, so that R@k is k / clips, and each rank of nDCG's sum has the mean
    grade. The precision at a relevant clip of rank r counts itself and, of the r - 1 before it, each with chance
    (relevant - 1) / (clips - 1). That none is among the first r has the chance of drawing r of the others.

    Args:
        grades: (queries, m) the grades of each query's relevant clips, as from `ranks`.
        clips: How many clips are ranked.
        metric: Its name.
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
        # The chance that no relevant clip is among the first 0, 1, … k.
        others = (clips - count - rank + 1).clip(0)
        none = np.cumprod(np.append(1, others / (clips - rank + 1)))
        values.append(1 - none[-1] if name == "success" else (-np.diff(none) / rank).sum())
    return float(np.average(values, weights=queries))


def _parse(name: str) -> tuple[str, float] | None:
    """Split a metric's name, such as R@10, into its kind and the number of clips it looks at; None if it is unknown."""
    match = re.fullmatch(rf"({'|'.join(AT_K)})@([1-9]\d{{0,8}})", name)
    if match:
        return match[1], int(match[2])
    if name in ("MRR", "medR"):
        return (name, np.inf)
    return None


def metric_sets() -> dict[str, MetricSet]:
    """Return the sets of metrics that a request can name: those of the years.

    Raises:
        Faulty: As `sets.year_sets`.
    """
    return year_sets("retrieval")


def resolve_metrics(names: Sequence[str]) -> MetricSet:
    """Return the metrics that a request names, each once.

    Args:
        names: Names of metrics and of sets, in any mixture.

    Raises:
        BadRequest: A name is not known.
        Faulty: As `sets.year_sets`.
    """
    metrics: dict[str, None] = {}
    for name in names:
        if _parse(name):
            metrics[name] = None
            continue
        sets = metric_sets()
        members = sets[name].metrics if name in sets else (name,)
        for member in members:
            if not _parse(member):
                at_k = ", ".join(f"{kind}@k" for kind in AT_K)
                there = f"there are {at_k} for any k from 1, MRR, medR, and the sets {', '.join(sets)}"
                raise BadRequest(f"unknown metric {printable(member)!r}; {there}")
            metrics[member] = None
    return MetricSet(tuple(metrics))


def clip_groups(queries: Iterable[str], split: Split, truth: Truth) -> tuple[int, ...]:
    """Number the queries so that those get one number that describe one clip, or clips that share a caption.

    Sharing goes on from query to query: two that share no clip are of one group when a third shares one with each. What
    a query describes are the clips whose caption it is; of a query that is nobody's caption, those that answer it.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    described = {query: sorted(split.captions.get(query) or _graded(truth[query])) for query in queries}
    for names in described.values():
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    numbers: dict[str, int] = {}
    return tuple(numbers.setdefault(root(names[0]), len(numbers)) for names in described.values())


def evaluate(
    split: Split,
    prediction: Prediction,
    *,
    truth: Truth | None = None,
    metrics: Sequence[str] = TASK_METRICS,
    interval: str = "jackknife",
    file: str = "prediction",
) -> Score:
    """Score a prediction for a split.

    Args:
        split: The split.
        prediction: The prediction.
        truth: Query to the clips that answer it, with or without grades (default: the split's own).
        metrics: Names such as `mAP@10`, `MRR` and `dcase2025`, a set of them.
        interval: One of `intervals.METHODS`.
        file: The prediction's name in findings.

    Returns:
        The score; its items are the queries in the truth's order.

    Raises:
        BadRequest: A metric or the interval is not known, or the split or a query has no truth.
        Faulty: As `validate`.
    """
    if truth is None:
        truth = split.truth
    if not truth:
        raise BadRequest(f"the split {split.name} has no truth: its queries' clips are not known")
    unanswered = [query for query, relevant in truth.items() if not relevant]
    if unanswered:
        raise BadRequest(
            f"the truth has no clip for {len(unanswered)} of {len(truth)} queries, first {unanswered[0]!r}"
        )
    names = resolve_metrics(metrics).metrics
    findings = validate(truth, split.file_names, prediction, file, split)
    places, grades = ranks(truth, prediction)
    if isinstance(prediction, Ranking):
        deepest = max((_parse(name)[1] for name in names), default=0)
        findings += _short_lists(truth, prediction, min(deepest, len(split.clips)), file)
    signature = _signature(split, truth, grades, interval)
    items = Items("queries", tuple(truth), clip_groups(truth, split, truth))
    groups = len(set(items.groups))
    if groups < FEW and len(items.names) >= 20:
        message = f"by shared clips the {len(items.names)} queries make only {groups} independent groups"
        findings.append(Finding(file, message=f"{message}: the intervals by clip say little", severity=NOTE))
    measured = {}
    for name in names:
        kind, k = _parse(name)
        if kind == "medR":
            measured[name] = Measured(median_rank(places, grades))
            if measured[name].estimate.value == np.inf:
                message = "medR: the median lies beyond the lists: half of the queries or more find none of their clips"
                findings.append(Finding(file, message=message, severity=NOTE))
            continue
        values = AT_K[kind](places, grades, k)
        measured[name] = measure(values, items, interval, chance=chance(grades, len(split.clips), name))
    return Score(measured, items, signature, findings=tuple(findings))


def _short_lists(truth: Truth, prediction: Ranking, deepest: float, file: str) -> list[Finding]:
    """Note that lists have fewer clips than a metric looks at."""
    lengths = []
    for query, ranked in zip(prediction.queries, prediction.file_names, strict=True):
        if query in truth and len(ranked) < deepest:
            lengths.append(len(ranked))
    if not lengths:
        return []
    message = (
        f"some metrics look at {deepest} clips; {len(lengths)} queries have fewer, the least {min(lengths)}: clips"
    )
    return [Finding(file, message=f"{message} that are not in a list are not found", severity=NOTE)]


def _signature(split: Split, truth: Truth, grades: np.ndarray, interval: str) -> str:
    """Name everything that the numbers depend on."""
    source = "captions" if truth == split.captions else "relevance"
    answers = sorted((query, sorted(_graded(relevant).items())) for query, relevant in truth.items())
    digest = hashlib.sha256(repr(answers).encode()).hexdigest()[:8]
    counts = (grades > 0).sum(axis=1)
    return "|".join(
        [
            f"dcase-kit:{scores.VERSION}",
            f"split:{split.name}#{split.fingerprint}",
            f"truth:{source}#{digest}",
            f"queries:{len(truth)}",
            f"clips:{len(split.clips)}",
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


# More clips than a matrix has room for --------------------------------------------------------------------------------

TILE = (1024, 4096)  # queries and clips that are multiplied at once: 16 MiB of scores


def top_k(queries: np.ndarray, clips: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for every query the k clips of greatest inner product, exactly, without all scores being there at once.

    Args:
        queries: (q, d) float32 embeddings.
        clips: (n, d) float32 embeddings; may lie on disk (`np.memmap`), each part is read once.
        k: How many, from 1; all n where there are fewer.

    Returns:
        (q, min(k, n)) indices of clips, best first, equal scores in the order of the clips as of `Similarity.top`; and
        their float32 scores.

    Raises:
        ValueError: The shapes do not go together, k is below 1, or scores may not be finite.

    >>> top_k(np.float32([[1, 0]]), np.float32([[1, 5], [3, 0], [2, 2]]), 2)
    (array([[1, 2]]), array([[3., 2.]], dtype=float32))
    """
    if queries.ndim != 2 or clips.ndim != 2 or queries.shape[1] != clips.shape[1] or k < 1:
        raise ValueError(
            f"queries and clips must be (q, d) and (n, d), k 1 or more; found {queries.shape}, {clips.shape} and {k}"
        )
    queries, k = np.asarray(queries, dtype=np.float32), min(k, len(clips))
    indices = np.zeros((len(queries), k), dtype=np.int64)
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    greatest = _greatest(queries) * queries.shape[1]
    for start in range(0, len(clips), TILE[1]):
        block = np.asarray(clips[start : start + TILE[1]], dtype=np.float32)
        if not greatest * _greatest(block) < float(np.finfo(np.float32).max):
            raise ValueError("embeddings must be finite, and so small that their inner products are")
        for first in range(0, len(queries), TILE[0]):
            rows = slice(first, first + TILE[0])
            _enter(queries[rows] @ block.T, start, indices[rows], best[rows])
    return indices, best


def _greatest(values: np.ndarray) -> float:
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))  # NaN where any is


def _enter(scores: np.ndarray, start: int, indices: np.ndarray, best: np.ndarray) -> None:
    """Put into the best of every query, in place, the clips from `start` on that are better than its last."""
    k, width = best.shape[1], scores.shape[1]
    enters = scores > best[:, -1:]  # earlier clips go first: one that is as good as the last stays out
    if width > k and np.count_nonzero(enters) > 2 * best.size:  # as at the start; to sort that many would be dear
        enters &= scores >= np.partition(scores, -k, axis=1)[:, -k, None]
    found = np.flatnonzero(enters)
    row, column = np.divmod(found, width)
    touched, new = np.unique(row, return_counts=True)
    rows = np.concatenate([np.repeat(touched, k), row])
    values = np.concatenate([best[touched].ravel(), scores.ravel()[found]])
    clips = np.concatenate([indices[touched].ravel(), start + column])
    order = np.lexsort((clips, -values, rows))
    ends = np.cumsum(k + new)
    first = order[(ends - k - new)[:, None] + np.arange(k)]
    best[touched], indices[touched] = values[first], clips[first]
