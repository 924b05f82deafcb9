import csv
import itertools
import json
import math
import os
import re
import subprocess
import sys
import time
import tomllib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.data.relevance import read_relevance
from evaluation.findings import WARNING, BadRequest, Faulty, limited
from evaluation.metrics import retrieval
from evaluation.metrics.retrieval import (
    average_precision,
    chance,
    evaluate,
    median_rank,
    ndcg,
    ranks,
    recall,
    reciprocal_rank,
    success,
    top_k,
    validate,
)
from evaluation.predictions import Ranking, Similarity, read_retrieval
from evaluation.statistics.intervals import METHODS
from tests.evaluation.hostile_names import HOSTILE_NAMES

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared/data"
METRICS = [(metric, k) for metric in (recall, average_precision, success, ndcg) for k in (1, 2, 5, 10, 16, 50)]
METRICS += [(reciprocal_rank, k) for k in (1, 2, 5, 10, 16, math.inf)]
CLIPS = tuple("abcdefghij")
quick = settings(max_examples=80, deadline=None, database=None)


def split_of(truth, clips, name="evaluation") -> Split:
    return Split(name, tuple(Clip(clip, (), Path(clip)) for clip in clips), truth)


def one_hot(order: str, clips=CLIPS) -> Similarity:
    """Return a matrix with one query, q, that ranks clips in this order; those in brackets have equal scores."""
    scores, score, inside = dict.fromkeys(clips, -100.0), 0.0, False
    for letter in order:
        inside = (inside or letter == "(") and letter != ")"
        if letter not in "()":
            scores[letter] = score
        if not inside:
            score -= 1
    return Similarity(("q",), tuple(clips), np.array([list(scores.values())], dtype=np.float32))


def oracle(truth, prediction, metric, k) -> list[float]:
    """Compute a metric of every query by sorting: among equal scores the worst case first."""
    values = []
    for query, relevant in truth.items():
        grades = relevant if isinstance(relevant, dict) else dict.fromkeys(relevant, 1)
        grades = {name: grade for name, grade in grades.items() if grade > 0}
        row = prediction.queries.index(query)
        if isinstance(prediction, Ranking):
            answer = prediction.file_names[row]
        else:
            scored = zip(prediction.scores[row], prediction.file_names, strict=True)
            answer = [name for *_, name in sorted((-score, grades.get(name, 0), name) for score, name in scored)]
        found = {}  # the rank of each name
        for place, name in enumerate(answer, start=1):
            if name in grades and name not in found and place <= k:
                found[name] = place
        values.append(
            {
                recall: lambda found, grades: len(found) / len(grades),
                average_precision: lambda found, grades: (
                    sum(number / place for number, place in enumerate(found.values(), start=1)) / len(grades)
                ),
                success: lambda found, grades: float(len(found) > 0),
                ndcg: lambda found, grades: (
                    sum(grades[name] / math.log2(place + 1) for name, place in found.items())
                    / sum(
                        grade / math.log2(place + 1)
                        for place, grade in enumerate(sorted(grades.values(), reverse=True), start=1)
                        if place <= k
                    )
                ),
                reciprocal_rank: lambda found, grades: max((1 / place for place in found.values()), default=0),
            }[metric](found, grades)
        )
    return values


def apply(metric, found, k) -> np.ndarray:
    return metric(*found) if k == math.inf else metric(*found, k)


def score(truth, prediction) -> list[np.ndarray]:
    found = ranks(truth, prediction)
    return [apply(metric, found, k) for metric, k in METRICS]


# ------------------------------------------------------------------------------------------------ the metrics

HAND = [
    # ranking, relevant, metric, k, value
    ("abcdefghij", "a", recall, 1, 1),
    ("abcdefghij", "a", average_precision, 10, 1),
    ("bacdefghij", "a", recall, 1, 0),
    ("bacdefghij", "a", recall, 2, 1),
    ("bacdefghij", "a", average_precision, 10, 1 / 2),  # with one relevant clip, the reciprocal rank
    ("bcdefghija", "a", average_precision, 10, 1 / 10),
    ("bcdefghija", "a", average_precision, 9, 0),
    ("abcdefghij", "bd", recall, 1, 0),
    ("abcdefghij", "bd", recall, 2, 1 / 2),
    ("abcdefghij", "bd", recall, 4, 1),
    ("abcdefghij", "bd", average_precision, 10, (1 / 2 + 2 / 4) / 2),
    ("abcdefghij", "bd", average_precision, 3, (1 / 2) / 2),  # divided by both relevant clips, although one is beyond k
    ("abcdefghij", "abc", recall, 1, 1 / 3),  # even a perfect ranking finds only k clips
    ("abcdefghij", "abc", average_precision, 1, 1 / 3),
    ("abcdefghij", "abc", average_precision, 2, (1 / 1 + 2 / 2) / 3),
    ("abcdefghij", "abc", average_precision, 3, 1),
    ("jihgfedcba", "abc", average_precision, 10, (1 / 8 + 2 / 9 + 3 / 10) / 3),
    ("abcdefghij", "abcdefghij", average_precision, 10, 1),
    ("bacdefghij", "aj", success, 1, 0),
    ("bacdefghij", "aj", success, 2, 1),
    ("bacdefghij", "aj", reciprocal_rank, math.inf, 1 / 2),
    ("bcdefghija", "a", reciprocal_rank, math.inf, 1 / 10),
    ("bcdefghija", "a", reciprocal_rank, 10, 1 / 10),
    ("bcdefghija", "a", reciprocal_rank, 9, 0),
    ("bacdefghij", "cd", reciprocal_rank, 3, 1 / 3),
    ("abcdefghij", "a", ndcg, 10, 1),
    ("bacdefghij", "a", ndcg, 10, 1 / math.log2(3)),
    ("bacdefghij", "a", ndcg, 1, 0),
    ("abcdefghij", "abc", ndcg, 2, 1),  # the best ranking is also cut at k
    ("abcdefghij", "ac", ndcg, 10, (1 + 1 / 2) / (1 + 1 / math.log2(3))),
    ("abcdefghij", {"a": 3, "c": 2, "d": 0}, ndcg, 10, (3 + 2 / 2) / (3 + 2 / math.log2(3))),
    ("cabdefghij", {"a": 3, "c": 2}, ndcg, 10, (2 + 3 / math.log2(3)) / (3 + 2 / math.log2(3))),
    ("cabdefghij", {"a": 3, "c": 2}, ndcg, 1, 2 / 3),
    ("cadbefghij", {"a": 1e308, "c": 1e308, "d": 1e308}, ndcg, 10, 1),  # their sum is infinite as a float
    ("dabcefghij", {"a": 3, "d": 0}, recall, 1, 0),  # grade 0 is not relevant
    ("dabcefghij", {"a": 3, "d": 0}, success, 1, 0),
    ("dabcefghij", {"a": 3, "d": 0}, average_precision, 10, 1 / 2),
    ("dabcefghij", {"a": 3, "d": 0}, reciprocal_rank, math.inf, 1 / 2),
]


def relevance(of):
    return of if isinstance(of, dict) else frozenset(of)


@pytest.mark.parametrize(("order", "relevant", "metric", "k", "value"), HAND)
def test_by_hand(order, relevant, metric, k, value):
    truth = {"q": relevance(relevant)}
    for prediction in (one_hot(order), Ranking(("q",), (tuple(order),))):
        assert apply(metric, ranks(truth, prediction), k) == pytest.approx([value], abs=1e-15)


@pytest.mark.parametrize(
    ("order", "relevant", "places"),
    [
        ("(ab)cdefghij", "a", [2]),  # the clip that is not relevant comes first
        ("(ab)cdefghij", "ab", [1, 2]),  # both are relevant
        ("a(bcd)efghij", "ab", [1, 4]),
        ("a(bcd)efghij", "bd", [3, 4]),
        ("(abc)(def)ghij", "ade", [3, 5, 6]),
        ("(abcdefghij)", "abc", [8, 9, 10]),
    ],
)
def test_of_equal_scores_the_relevant_clips_come_last(order, relevant, places):
    found, grades = ranks({"q": frozenset(relevant)}, one_hot(order))
    assert found.tolist() == [places]
    assert grades.tolist() == [[1] * len(relevant)]


def test_of_equal_scores_the_lower_grades_come_first():
    truth = {"q": {"a": 2, "b": 3, "c": 1, "d": 0, "e": 5}, "r": {"a": 1}, "s": {"e": 2, "x": 7, "a": 4}}
    prediction = Similarity(("s", "r", "q"), CLIPS[:6], np.float32([[9, 0, 0, 0, 9, 9]] * 2 + [[1, 1, 1, 1, 0, 0]]))
    places, grades = ranks(truth, prediction)
    inf = math.inf
    assert places.tolist() == [[2, 3, 4, 6], [3, inf, inf, inf], [2, 3, inf, inf]]
    assert grades.tolist() == [[1, 2, 3, 5], [1, 0, 0, 0], [2, 4, 7, 0]]


@pytest.mark.parametrize("constant", [0, 1, -1, -np.inf, np.nan])
@pytest.mark.parametrize("relevant", [1, 3, 10, 20])
def test_a_constant_scorer_gets_the_worst_case(constant, relevant):
    """The scores of a diverged model are NaN, which compares as neither greater nor smaller; they rank last."""
    names = tuple(f"{clip}.wav" for clip in range(20))
    prediction = Similarity(("q",), names, np.full((1, 20), constant, dtype=np.float32))
    found, _ = ranks({"q": frozenset(names[:relevant])}, prediction)
    assert found.tolist() == [list(range(21 - relevant, 21))]


def test_nan_is_worse_than_any_score():
    scores = np.array([[np.nan, 1, 0], [np.nan, 1, 0]], dtype=np.float32)
    prediction = Similarity(("first", "second"), ("a", "b", "c"), scores)
    found, _ = ranks({"first": frozenset("a"), "second": frozenset("ac")}, prediction)
    assert found.tolist() == [[3, np.inf], [2, 3]]
    scores = np.array([[np.nan, np.nan, -np.inf, 5, 5]])
    for relevant, places in {
        "abc": [3, 4, 5],
        "ac": [4, 5],
        "ad": [3, 5],
        "de": [3, 4],
        "e": [4],
        "bcd": [3, 4, 5],
    }.items():
        assert ranks({"q": frozenset(relevant)}, Similarity(("q",), tuple("abcde"), scores))[0].tolist() == [places]


def random_problem(seed: int) -> tuple[dict, Similarity]:
    """Return a problem with ties, unknown clips and relevant clips without a column; with grades if the seed is odd."""
    random = np.random.default_rng(seed)
    names = tuple(f"{clip}.wav" for clip in range(25))
    queries = tuple(f"query {query}" for query in range(12))
    truth = {query: frozenset(random.choice(names, random.integers(1, 10), replace=False)) for query in queries}
    if seed % 2:  # grades, some of them 0
        truth = {
            query: dict(zip(relevant, [2, *random.choice([0, 0.5, 1, 2, 3], 10)], strict=False))
            for query, relevant in truth.items()
        }
    columns = tuple(random.permutation([*names[3:], "unknown.wav", "other.wav"]))
    scores = random.integers(-3, random.integers(-2, 9), size=(12, len(columns))).astype(np.float32)
    return dict(random.permutation(list(truth.items()))), Similarity(queries, columns, scores)


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_slow_way(seed):
    truth, similarity = random_problem(seed)
    for prediction in (similarity, similarity.top(10), similarity.top(99)):
        for (metric, k), values in zip(METRICS, score(truth, prediction), strict=True):
            np.testing.assert_allclose(values, oracle(truth, prediction, metric, k), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_ranking_of_the_best_k_says_the_same_up_to_k(seed):
    truth, similarity = random_problem(seed)
    random = np.random.default_rng(seed)
    similarity = replace(similarity, scores=random.permuted(np.arange(288.0).reshape(12, 24), axis=1))  # no ties
    for length in (1, 5, 10, 16, 50):
        ranking = similarity.top(length)
        assert {len(names) for names in ranking.file_names} == {min(length, 24)}
        for (_, k), full, best in zip(METRICS, score(truth, similarity), score(truth, ranking), strict=True):
            if k <= length:
                np.testing.assert_array_equal(full, best)


def test_the_best_k_with_equal_scores():
    assert one_hot("c(adb)e").top(4).file_names == (tuple("cabd"),)
    names = tuple(f"{clip}.wav" for clip in range(200))
    two = Similarity(("q",), names, np.tile(np.float32([0, 1]), (1, 100)))
    assert two.top(999).file_names == (names[1::2] + names[::2],)


def organisers_2025(relevant_ranks, k):  # CPJKU/dcase2025_task6_baseline@c78422f, retrieval_module.py; ranks from 0
    relevant_ranks = sorted(relevant_ranks)
    ap = 0.0
    for i, rank in enumerate(relevant_ranks, start=1):
        if rank >= k:
            break
        ap += i / (rank + 1)
    return ap / len(relevant_ranks)


@pytest.mark.parametrize("k", [10, 16])
def test_equals_the_organisers_formula(k):
    random = np.random.default_rng(k)
    for count in (1, 2, 5, 12):
        places = random.permuted(np.tile(np.arange(40), (50, 1)), axis=1)[:, :count]
        found = np.sort(places, axis=1) + 1.0, np.ones((50, count))
        expected = [organisers_2025(row, k) for row in places.tolist()]
        np.testing.assert_allclose(average_precision(*found, k), expected, rtol=0, atol=1e-15)
        if count == 1:  # the rule of DCASE 2022 for one relevant clip: the reciprocal rank within k
            reciprocal = [1 / (rank + 1) if rank < k else 0 for (rank,) in places.tolist()]
            np.testing.assert_array_equal(average_precision(*found, k), reciprocal)


# Both libraries divide AP by all relevant clips and cut nDCG's best ranking at k, as the kit does. They also treat
# negative scores and relevant clips that the prediction lacks as the kit does. These tests do not compare equal scores
# (trec_eval then ranks by name, backwards; the order of ranx is not defined), missing queries (both ignore them) and
# grades that are not whole numbers.
IN_PYTREC = {recall: "recall", average_precision: "map_cut", success: "success", ndcg: "ndcg_cut"}
IN_RANX = {recall: "recall", average_precision: "map", success: "hit_rate", ndcg: "ndcg", reciprocal_rank: "mrr"}
OWN_NAMES = {function: name for name, function in retrieval.AT_K.items()}
RANX = """
import json, sys, ranx
for truth, run, names in json.load(sys.stdin):
    print(json.dumps(ranx.evaluate(ranx.Qrels(truth), ranx.Run(run), names)))
"""


def for_others(seed: int) -> tuple[dict, Similarity, dict]:
    """Return a problem without ties and with whole grades, and its matrix also as a mapping."""
    truth, similarity = random_problem(seed)
    truth = {
        query: {name: math.ceil(relevant[name]) if seed % 2 else 1 for name in relevant}
        for query, relevant in truth.items()
    }
    scores = np.random.default_rng(seed).permuted(np.arange(-200.0, 88).reshape(12, 24), axis=1)
    rows = zip(similarity.queries, scores.tolist(), strict=True)
    run = {query: dict(zip(similarity.file_names, row, strict=True)) for query, row in rows}
    return truth, replace(similarity, scores=scores), run


@pytest.mark.parametrize("seed", range(8))
def test_equals_trec_eval(seed):
    truth, similarity, run = for_others(seed)
    asked = {"recip_rank", *(f"{name}.1,2,5,10,16,50" for name in IN_PYTREC.values())}
    trec = pytrec_eval.RelevanceEvaluator(truth, asked).evaluate(run)
    for (metric, k), values in zip(METRICS, score(truth, similarity), strict=True):
        name = f"{IN_PYTREC[metric]}_{k}" if metric in IN_PYTREC else "recip_rank"
        if metric is reciprocal_rank and k < math.inf:  # trec_eval does not limit its rank
            continue
        np.testing.assert_allclose(values, [trec[query][name] for query in truth], rtol=0, atol=1e-12)


def test_equals_ranx():
    names = [IN_RANX[metric] + (f"@{k}" if k < math.inf else "") for metric, k in METRICS]
    problems = [for_others(seed) for seed in range(8)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RANX],
        input=json.dumps([(truth, run, names) for truth, _, run in problems]),
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},  # compiling takes 20 s
        capture_output=True,
        text=True,
        check=True,
    )
    for (truth, similarity, run), line in zip(problems, done.stdout.splitlines(), strict=True):
        means = [values.mean() for values in score(truth, similarity)]
        expected = [json.loads(line)[name] for name in names]
        np.testing.assert_allclose(means, expected, rtol=0, atol=1e-12)
        own_names = [OWN_NAMES[metric] + (f"@{k}" if k < math.inf else "") for metric, k in METRICS]
        clips = {*similarity.file_names, *itertools.chain.from_iterable(truth.values())}
        table = evaluate(truth, run, clips=sorted(clips), metrics=own_names).table()  # the dicts that ranx takes
        np.testing.assert_allclose(table.loc[own_names, "value"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "firsts", [[3], [1, 5, 2], [4, 1, math.inf, 2], [1, math.inf], [math.inf] * 4, [7, 7, 7, 1, 9, 8]]
)
def test_median_rank(firsts):
    found = np.array(firsts)[:, None], np.ones((len(firsts), 1))
    estimate = median_rank(*found)
    ordered = sorted(firsts)
    middle = (ordered[(len(firsts) - 1) // 2] + ordered[len(firsts) // 2]) / 2
    assert (estimate.value, estimate.n, estimate.interval) == (middle, len(firsts), "order-statistics-95")
    assert math.isnan(estimate.std_error)
    if len(firsts) < 6:  # in 2 / 2^n of the samples all values are on one side of the median
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)
    else:
        assert (estimate.low, estimate.high) == (1, 9)


@pytest.mark.parametrize("n", [6, 7, 8, 9, 10, 17, 40, 100, 1000, 5225])
def test_the_median_s_interval_is_the_narrowest_that_holds_it(n):
    places = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))[:, None]
    estimate = median_rank(places, np.ones((n, 1)))
    low, high = int(estimate.low), int(estimate.high)
    assert low + high == n + 1
    assert 2 * binom.cdf(low - 1, n, 0.5) <= 0.05 < 2 * binom.cdf(low, n, 0.5)


def test_the_median_s_interval_holds_it_as_often_as_said():
    random = np.random.default_rng(0)
    ranks = np.ceil(random.exponential(20, size=(2000, 60)))  # the median of ceil(x) is ceil(20 log 2) = 14
    ends = [median_rank(row[:, None], np.ones((60, 1))) for row in ranks]
    assert np.mean([end.low <= 14 <= end.high for end in ends]) >= 0.95


# ------------------------------------------------------------------------------------------------ what must never be

with_grades = st.dictionaries(st.sampled_from(CLIPS), st.sampled_from([0, 0.5, 1, 2, 7]), min_size=1)
plain_sets = st.sets(st.sampled_from(CLIPS), min_size=1).map(frozenset)
relevant_sets = plain_sets | with_grades.filter(lambda grades: any(grades.values()))
anything = st.lists(st.sampled_from([*CLIPS, "unknown", "", " a", "A"]), max_size=25).map(tuple)
matrices = st.lists(st.lists(st.integers(-4, 4), min_size=10, max_size=10), min_size=3, max_size=3)


@quick
@given(st.lists(st.tuples(relevant_sets, anything), min_size=1, max_size=5))
def test_bounded_whatever_the_ranking_holds(rows):
    """Return a ranking with repeated and unknown names, and with rows that are too long or too short."""
    truth = {f"query {index}": relevant for index, (relevant, _) in enumerate(rows)}
    prediction = Ranking(tuple(truth), tuple(answer for _, answer in rows))
    for (metric, k), values in zip(METRICS, score(truth, prediction), strict=True):
        assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_allclose(values, oracle(truth, prediction, metric, k), rtol=0, atol=1e-12)
    assert median_rank(*ranks(truth, prediction)).value >= 1


@quick
@given(st.lists(relevant_sets, min_size=3, max_size=3), matrices, st.randoms(use_true_random=False))
def test_bounded_and_unchanged_by_what_does_not_matter(relevant, matrix, random):
    """Strictly monotone transforms (also to negative scores) and the order of rows and columns change nothing."""
    scores, queries = np.array(matrix, dtype=np.float64), ("x", "y", "z")
    truth = dict(zip(queries, relevant, strict=True))
    plain = Similarity(queries, CLIPS, scores)
    expected, median = score(truth, plain), median_rank(*ranks(truth, plain)).value
    assert all(((values >= 0) & (values <= 1)).all() for values in expected)
    assert median >= 1
    for (metric, k), values in zip(METRICS, expected, strict=True):
        np.testing.assert_allclose(values, oracle(truth, plain, metric, k), rtol=0, atol=1e-12)
    constant = score(truth, replace(plain, scores=np.full_like(scores, -3)))
    assert all((worst <= values).all() for worst, values in zip(constant, expected, strict=True))

    rows, columns = random.sample(range(3), 3), random.sample(range(10), 10)
    shuffled = [queries[row] for row in rows], [CLIPS[column] for column in columns], scores[rows][:, columns]
    same = [
        Similarity(queries, CLIPS, scores - 1000),
        Similarity(queries, CLIPS, 1e-3 * scores**3),
        Similarity(queries, CLIPS, np.exp(scores).astype(np.float32)),
        Similarity(queries, CLIPS, -1 / (scores + 9)),
        Similarity(*shuffled),
    ]
    for prediction in same:
        np.testing.assert_array_equal(score(truth, prediction), expected)
        assert median_rank(*ranks(truth, prediction)).value == median
    best = same[0].top(10)
    again = Ranking(tuple(best.queries[row] for row in rows), tuple(best.file_names[row] for row in rows))
    np.testing.assert_array_equal(score(truth, again), score(truth, best))


@quick
@given(relevant_sets, st.permutations(CLIPS), st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=12))
def test_repeated_and_unknown_names_never_help(relevant, answer, insertions):
    truth, stuffed = {"q": relevant}, list(answer)
    for number, (place, repeat) in enumerate(insertions):
        place %= len(stuffed) + 1
        stuffed.insert(place, stuffed[place // 2] if repeat and place else f"unknown {number}")
    plain, worse = (Ranking(("q",), (tuple(names),)) for names in (answer, stuffed))
    for before, after in zip(score(truth, plain), score(truth, worse), strict=True):
        assert after <= before
    assert median_rank(*ranks(truth, worse)).value >= median_rank(*ranks(truth, plain)).value


def test_repeating_the_best_clip_gains_nothing():
    """Repeating names lifts the 2022 baseline's mAP@10 from 0.07 to 0.32 in the organisers' scorer of that year."""
    random = np.random.default_rng(2022)
    names = tuple(f"{clip}.wav" for clip in range(40))
    truth = {f"query {clip}": frozenset([name]) for clip, name in enumerate(names)}
    honest = Similarity(tuple(truth), names, random.normal(size=(40, 40)) + 2 * np.eye(40)).top(10)
    stuffed = Ranking(honest.queries, tuple((best,) * 10 for best, *_ in honest.file_names))
    values, gamed = ([metric.mean() for metric in score(truth, prediction)] for prediction in (honest, stuffed))
    assert all(after <= before for before, after in zip(values, gamed, strict=True))
    np.testing.assert_allclose(gamed, values[0], rtol=0, atol=1e-15)  # equals R@1 for each metric


# ------------------------------------------------------------------------------------------------ chance

NAMED = {f"{name}@{k}": (metric, k) for name, metric in retrieval.AT_K.items() for k in (1, 5, 10)}
NAMED["MRR"] = reciprocal_rank, math.inf


@pytest.mark.parametrize("clips", [1, 2, 6])
def test_chance_is_the_mean_over_all_rankings(clips):
    """The result equals the mean over all orders."""
    orders = 1.0 + np.array(list(itertools.permutations(range(clips))))
    for graded in ([1], [1, 1], [3, 1], [2, 0.5, 2], [1] * 4, [5, 1, 3, 2, 0.25], [2] * 6):
        if len(graded) > clips:
            continue
        places = orders[:, : len(graded)]  # the ranks of the clips with these grades
        order = places.argsort(axis=1)
        found = np.take_along_axis(places, order, axis=1), np.array(graded, dtype=float)[order]
        for name, (metric, k) in NAMED.items():
            expected = apply(metric, found, k).mean()
            assert chance(np.array([graded]), clips, name) == pytest.approx(expected, abs=1e-12), (name, graded)
        assert chance(np.array([graded]), clips, "medR") is None


def test_chance_known_values():
    # DCASE 2022: 1000 clips, one relevant (Xie et al. 2022, section 3.4).
    one = np.ones((1000, 1))
    assert [chance(one, 1000, f"R@{k}") for k in (1, 5, 10)] == [0.001, 0.005, 0.01]
    harmonic = sum(1 / rank for rank in range(1, 11))
    assert chance(one, 1000, "mAP@10") == pytest.approx(harmonic / 1000, abs=1e-15)
    assert [chance(one, 1000, f"success@{k}") for k in (1, 5, 10)] == pytest.approx([0.001, 0.005, 0.01], abs=1e-15)
    assert chance(one, 1000, "MRR") == pytest.approx(sum(1 / rank for rank in range(1, 1001)) / 1000, abs=1e-15)
    some = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    assert chance(some, 3, "R@50") == 1  # k is larger than the number of clips
    assert chance(some[2:], 3, "mAP@50") == pytest.approx(1)
    assert chance(some, 3, "success@50") == pytest.approx(1)


def test_chance_is_what_random_matrices_reach():
    random, clips, counts = np.random.default_rng(1), 30, np.array([1, 2, 5, 8, 30])
    names = tuple(f"{clip}.wav" for clip in range(clips))
    truth = {f"{count} relevant": frozenset(names[:count]) for count in counts}
    draws = {name: [] for name in NAMED}
    _, grades = ranks(truth, Similarity(tuple(truth), names, np.zeros((len(counts), clips))))
    for _ in range(600):
        found = ranks(truth, Similarity(tuple(truth), names, random.random((len(counts), clips))))
        for name, (metric, k) in NAMED.items():
            draws[name].append(apply(metric, found, k).mean())
    for name, values in draws.items():
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - chance(grades, clips, name)) < 4 * error, name


# ------------------------------------------------------------------------------------------------ many clips


def dense(queries, clips, k) -> tuple[list, list]:
    """Return the best k from the whole matrix. Embeddings are whole numbers, so sums are exact in any order."""
    scores = queries @ clips.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return best.tolist(), np.take_along_axis(scores, best, axis=1).tolist()


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (3, 7), (5, 16), (100, 100)])
def test_top_k_is_that_of_the_matrix(tile, monkeypatch):
    """Ties within and across tiles, k above the number of clips, and the best clips first, last or anywhere."""
    monkeypatch.setattr(retrieval, "TILE", tile)
    random = np.random.default_rng(0)
    for clips, span, d in itertools.product((1, 2, 9, 50), (0, 1, 5, 1000), (1, 4)):
        q, c = (random.integers(-span, span, size=(n, d), endpoint=True).astype(np.float32) for n in (7, clips))
        for those in (c, c[np.argsort(c[:, 0])], c[np.argsort(-c[:, 0])]):
            for k in (1, 3, 10, 60):
                indices, scores = top_k(q, those, k)
                assert (indices.tolist(), scores.tolist()) == dense(q, those, k)
                assert (indices.dtype, scores.dtype) == (np.int64, np.float32)


@quick
@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=1, max_size=30),
    *(st.integers(1, 12) for _ in range(3)),
)
def test_top_k_whatever_the_tiles(clips, k, rows, columns):
    q, c = np.float32([[1, 0], [0, 1], [1, 1], [-2, 1], [0, 0]]), np.float32(clips)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "TILE", (rows, columns))
        indices, scores = top_k(q, c, k)
    assert (indices.tolist(), scores.tolist()) == dense(q, c, k)


def test_top_k_in_its_own_tiles(tmp_path):
    """Clips are on disk, and there are more queries and clips than in a tile. The ranking scores as the matrix does."""
    random = np.random.default_rng(0)
    q, c = (
        random.integers(-9, 9, size=(n, 8)).astype(np.float32)
        for n in (retrieval.TILE[0] + 5, 2 * retrieval.TILE[1] + 9)
    )
    c.tofile(tmp_path / "clips")
    indices, scores = top_k(q, np.memmap(tmp_path / "clips", np.float32, "r", shape=c.shape), 10)
    assert (indices.tolist(), scores.tolist()) == dense(q, c, 10)
    queries, names = (tuple(f"{what} {n}" for n in range(len(of))) for what, of in (("query", q), ("clip", c)))
    assert Ranking.of(queries, names, indices) == Similarity(queries, names, q @ c.T).top(10)


def test_top_k_takes_little_memory():
    """All scores would take 400 MB, but they are never in memory together."""
    q, c = np.ones((2000, 2), np.float32), np.random.default_rng(0).random((50_000, 2), np.float32)
    tracemalloc.start()
    top_k(q, c, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6


def test_top_k_of_other_floats_and_of_nothing():
    q, c = np.float64([[0.1, 0.2], [0.3, 0.7]]), np.float16([[0.1, 0.2]] * 5 + [[9, 9]])
    assert top_k(q, c, 3)[0].tolist() == [[5, 0, 1]] * 2  # equal scores stay equal for embeddings of any precision
    assert top_k(q, c[:0], 3)[0].shape == (2, 0)
    assert top_k(q[:0], c, 3)[0].shape == (0, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("place", [(0, 0), (8, 1)])
def test_top_k_refuses_what_is_not_finite(value, place):
    for index in range(2):
        both = [np.ones((9, 2), np.float32), np.ones((9, 2), np.float32)]
        both[index][place] = value
        with pytest.raises(ValueError, match="embeddings must be finite, and small enough that their inner"):
            top_k(*both, 3)


@pytest.mark.parametrize(
    ("q", "c", "k"), [((2, 3), (2, 4), 1), ((3,), (2, 3), 1), ((2, 3), (2, 3), 0), ((1, 3), (3,), 1)]
)
def test_top_k_of_other_shapes(q, c, k):
    with pytest.raises(
        ValueError, match=r"queries must have the shape \(q, d\), clips the shape \(n, d\), and k must be"
    ):
        top_k(np.ones(q), np.ones(c), k)


# ------------------------------------------------------------------------------------------------ validate

TRUTH = {"A dog barks.": frozenset(["dog.wav"]), "It rains.": frozenset([" rain.wav", "storm.wav"])}
NAMES = ("dog.wav", " rain.wav", "storm.wav", "cours d&#39;eau.wav")


def ranking(*rows, lines=()) -> Ranking:
    return Ranking(tuple(row[0] for row in rows), tuple(tuple(row[1:]) for row in rows), lines)


def similarity(queries=tuple(TRUTH), names=NAMES, scores=None) -> Similarity:
    return Similarity(queries, names, np.zeros((len(queries), len(names)), "f4") if scores is None else scores)


DOG, RAIN = ("A dog barks.", "dog.wav"), ("It rains.", "storm.wav")

FINDINGS = [
    (ranking(DOG, RAIN), []),
    (similarity(), []),
    # errors
    (ranking(DOG), ["prediction: error: query 'It rains.' is missing"]),
    (similarity(tuple(TRUTH)[:1]), ["prediction: error: query 'It rains.' is missing"]),
    (
        ranking(DOG, ("it rains. ", "storm.wav")),
        [
            "prediction: error: query 'It rains.' is missing; there is 'it rains. ', and queries are compared verbatim",
            "prediction: note: skipped queries that are not in the truth: 1",
        ],
    ),
    (ranking(), ["prediction: error: has no rows; give one for each of the 2 queries"]),
    (
        ranking(DOG, RAIN, DOG, lines=(2, 3, 5)),
        ["prediction:5: error: query 'A dog barks.' appears twice; give each query once"],
    ),
    (
        similarity(("It rains.", *TRUTH)),
        ["prediction: error: query 'It rains.' appears twice; give each query once"],
    ),
    (similarity(names=(*NAMES, "dog.wav")), ["prediction: error: clip 'dog.wav' has two columns; give each clip one"]),
    (
        similarity(scores=np.array([[0, 1, 2, 3], [np.nan, 0, np.inf, 0]])),
        [
            "prediction: error: scores must be finite; 1 of 2 queries have NaN or infinite scores, for example "
            "'It rains.'; check the model"
        ],
    ),
    # warnings and notes
    (
        ranking(DOG, RAIN, ("More.", "dog.wav"), ("And more.", "dog.wav")),
        ["prediction: note: skipped queries that are not in the truth: 2"],
    ),
    (
        ranking(DOG, ("It rains.", "storm.wav", "rain.wav", "snow.wav", "snow.wav", "cours d'eau.wav"), lines=(2, 3)),
        [
            "prediction:3: warning: given more than once: 'snow.wav'; only the first counts",
            'prediction:3: warning: no clip "cours d\'eau.wav" in this split; it counts as wrong; '
            "there is 'cours d&#39;eau.wav', and names are compared verbatim",
            "prediction:3: warning: no clip 'rain.wav' in this split; it counts as wrong; there is ' rain.wav', and "
            "names are compared verbatim",
            "prediction:3: warning: no clip 'snow.wav' in this split; it counts as wrong",
        ],
    ),
    (
        ranking(("A dog barks.", "dog.wav", "storm.wav", "dog.wav", "storm.wav"), RAIN, lines=(2, 3)),
        ["prediction:2: warning: given more than once: 'dog.wav', 'storm.wav'; only the first counts"],
    ),
    (
        similarity(names=NAMES[:2]),
        ["prediction: warning: no column for 2 of the split's 4 clips; they count as not found"],
    ),
    (
        similarity(names=(*NAMES[:2], "Storm.wav", NAMES[3])),
        [
            "prediction: warning: no clip 'Storm.wav' in this split; it counts as wrong; there is 'storm.wav', and "
            "names are compared verbatim",
            "prediction: warning: no column for 1 of the split's 4 clips; they count as not found",
        ],
    ),
    # all at once
    (
        ranking(DOG, DOG, ("Else.", "dog.wav", "dog.wav"), lines=(2, 3, 4)),
        [
            "prediction: error: query 'It rains.' is missing",
            "prediction: note: skipped queries that are not in the truth: 1",
            "prediction:3: error: query 'A dog barks.' appears twice; give each query once",
            "prediction:4: warning: given more than once: 'dog.wav'; only the first counts",
        ],
    ),
]


@pytest.mark.parametrize(("prediction", "expected"), FINDINGS)
def test_findings(prediction, expected):
    if any(": error: " in line for line in expected):
        with pytest.raises(Faulty) as refusal:
            validate(TRUTH, NAMES, prediction)
        assert str(refusal.value).split("\n") == expected
    else:
        assert [str(finding) for finding in sorted(validate(TRUTH, NAMES, prediction))] == expected


def test_grades_that_do_not_hold():
    nan, inf = math.nan, math.inf
    truth = {"a": {"a": 1, "b": -1, "c": nan}, "b": {"a": 0, "b": 0.0}, "c": {"a": inf}, "d": {}, "e": {"a": 0.1}}
    with pytest.raises(Faulty) as refusal:
        validate(truth, CLIPS, ranking(*((query, "a") for query in truth)))
    assert str(refusal.value).split("\n") == [
        "truth: error: 'b' must have a grade above 0; give a clip that answers it such a grade, or remove it",
        "truth: error: 'd' must have a grade above 0; give a clip that answers it such a grade, or remove it",
        "truth: error: the grades of 'a' must be finite and 0 or more; found -1, nan",
        "truth: error: the grades of 'c' must be finite and 0 or more; found inf",
    ]


def test_a_full_ranking_of_clotho_is_checked_in_no_time():
    names = tuple(f"{clip}.wav" for clip in range(1045))
    rows = tuple((f"query {row}", *names) for row in range(300))
    truth = {row[0]: frozenset(["7.wav"]) for row in rows}
    start = time.process_time()
    assert validate(truth, names, ranking(*rows)) == []
    assert time.process_time() - start < 2  # 0.05 s; with list.count for every name, 6 s


# ------------------------------------------------------------------------------------------------ evaluate

# Twenty clips, four queries with one relevant clip each, found at ranks 1, 1, 2 and 6:
#   R@1 1/2, R@5 3/4, R@10 1; mAP@10 (1 + 1 + 1/2 + 1/6) / 4 = 2/3. The jackknife's margin is 1.96 · SD / √4.
#   By chance R@k is k / 20 and mAP@10 (1 + 1/2 + … + 1/10) / 20 = 0.146.
# The first two queries have the same clip. By clip, mAP@10 without one of the three clips is 1/3, 13/18 and 5/6; the
#   pseudo-values 3 · 2/3 - 2 · mAP@10 are 4/3, 5/9 and 1/3; their SD is 0.5251, the margin 1.96 · 0.5251 / √3 = 0.594.
TWENTY = tuple(f"{clip:02}.wav" for clip in range(20))
FOUR = {f"query {row}": frozenset([TWENTY[place]]) for row, place in enumerate((0, 0, 1, 5))}
DESCENDING = Similarity(tuple(FOUR), TWENTY, np.tile(-np.arange(20, dtype=np.float32), (4, 1)))
TABLE = """\
metric      value    95 % interval         by clip    chance    queries
--------  -------  ---------------  --------------  --------  ---------
mAP@10      0.667    0.267 – 1.067   0.072 – 1.261     0.146          4
R@1         0.500   -0.066 – 1.066  -0.371 – 1.371     0.050          4
R@5         0.750    0.260 – 1.240   0.174 – 1.326     0.250          4
R@10        1.000    1.000 – 1.000   1.000 – 1.000     0.500          4
signature: """


def test_score_table():
    score = evaluate(split_of(FOUR, TWENTY), DESCENDING)
    assert str(score) == TABLE + score.signature
    assert score.findings == ()


def test_json_has_full_precision(tmp_path):
    score = evaluate(split_of(FOUR, TWENTY), DESCENDING)
    score.save(tmp_path / "new" / "scores.json")
    text = (tmp_path / "new" / "scores.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    saved = json.loads(text)
    assert list(saved) == ["signature", "metrics", "items"]
    assert saved["signature"] == score.signature
    assert list(saved["metrics"]) == ["mAP@10", "R@1", "R@5", "R@10"]
    for name, figures in saved["metrics"].items():
        measured = score.metrics[name]
        assert list(figures) == ["value", "std_error", "low", "high", "n", "interval", "chance", "by_clip"]
        assert [figures[key] for key in ("n", "interval")] == [4, "jackknife-95"]
        assert [figures["by_clip"][key] for key in ("n", "interval")] == [3, "jackknife-95"]
        for key in ("value", "std_error", "low", "high"):
            assert figures[key] == getattr(measured.estimate, key)  # to the last bit
            assert key == "value" or figures["by_clip"][key] == getattr(measured.by_clip, key)
        assert figures["chance"] == measured.chance
        assert saved["items"]["values"][name] == measured.values.tolist()
    assert [saved["items"][key] for key in ("kind", "names", "groups")] == ["queries", list(FOUR), [0, 0, 1, 2]]
    assert saved["items"]["values"]["mAP@10"] == [1, 1, 1 / 2, 1 / 6]
    assert saved["metrics"]["mAP@10"]["value"] == pytest.approx(2 / 3, abs=1e-16)


def test_json_of_a_single_query_is_json(tmp_path):
    truth = {"query 0": FOUR["query 0"]}
    evaluate(split_of(truth, TWENTY), DESCENDING).save(tmp_path / "scores.json")

    def refuse(constant):
        pytest.fail(f"{constant} is no JSON")

    saved = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    figures = saved["metrics"]["R@1"]
    assert [figures[key] for key in ("value", "std_error", "low", "high", "n")] == [1.0, None, None, None, 1]


def parts(score) -> dict[str, str]:
    return dict(part.split(":", 1) for part in score.signature.split("|"))


def test_signature_names_all_that_changes_the_number():
    split = split_of(FOUR, TWENTY)
    score = evaluate(split, DESCENDING)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.sub("#[0-9a-f]{8}", "#…", score.signature) == (
        f"dcase-kit:{version}|split:evaluation#…|truth:relevance#…|queries:4|clips:20|relevant:1-1|"
        "ap:over-relevant|ndcg:linear-log2|ties:relevant-last|repeated,unknown:wrong|unlisted:not-found|"
        "missing,duplicate:error|"
        f"extra:left-out|interval:jackknife-95-normal|numpy:{np.__version__}"
    )
    assert parts(score)["split"] == f"evaluation#{split.fingerprint}"
    other = {**FOUR, "query 3": frozenset([TWENTY[6]])}
    more = {**FOUR, "query 3": frozenset(TWENTY[5:8])}
    graded = {**FOUR, "query 3": {TWENTY[5]: 2}}
    captions = tuple(Clip(clip, (query,), Path()) for clip, query in zip(TWENTY, FOUR, strict=False))
    changes = [
        (evaluate(split, DESCENDING), set()),
        (evaluate(split, replace(DESCENDING, scores=2 * DESCENDING.scores)), set()),
        (evaluate(split, DESCENDING, metrics=["R@7"]), set()),  # k is part of the metric's name
        (evaluate(split, DESCENDING, metrics=["nDCG@7", "MRR", "medR"]), set()),
        (evaluate(split, DESCENDING, interval="bootstrap"), {"interval"}),
        (evaluate(replace(split, name="validation"), DESCENDING), {"split"}),
        (evaluate(split_of(other, TWENTY), DESCENDING), {"split", "truth"}),
        (evaluate(split_of(graded, TWENTY), DESCENDING), {"split", "truth"}),
        (evaluate(split, DESCENDING, relevance=other), {"truth"}),
        (evaluate(split, DESCENDING, relevance=graded), {"truth"}),
        (evaluate(split, DESCENDING, relevance={**FOUR, "query 3": {TWENTY[5]: 1, TWENTY[6]: 0}}), set()),
        (evaluate(split, DESCENDING, relevance=FOUR), set()),
        (evaluate(split, DESCENDING, relevance=more), {"truth", "relevant"}),
        (evaluate(split_of(FOUR, (*TWENTY, "more.wav")), DESCENDING), {"split", "clips"}),
        (evaluate(Split("evaluation", captions), DESCENDING), {"split", "truth", "clips"}),
        (evaluate(split, DESCENDING, relevance={"query 0": FOUR["query 0"]}), {"truth", "queries"}),
    ]
    for number, (changed, keys) in enumerate(changes):
        now = parts(changed)
        assert {key for key, value in parts(score).items() if now[key] != value} == keys, number
    assert parts(changes[-2][0])["truth"].startswith("captions#")


@pytest.mark.parametrize(
    ("metrics", "length", "short"),
    [
        (["mAP@10", "R@1"], 10, 0),
        (["mAP@10", "R@1"], 9, 10),
        (["R@1"], 1, 0),
        (["nDCG@5", "success@10"], 5, 10),
        (["dcase2025"], 16, 0),
        (["dcase2025"], 10, 16),
        (["MRR"], 19, 20),
        (["MRR", "medR", "R@50"], 20, 0),  # the split has only 20 clips
    ],
)
def test_a_list_shorter_than_k_is_noted(metrics, length, short):
    """The signature does not depend on the length of the lists. Clips that a list lacks are not found, with a note."""
    split, ranking = split_of(FOUR, TWENTY), DESCENDING.top(length)
    full, top = (evaluate(split, prediction, metrics=metrics) for prediction in (DESCENDING, ranking))
    assert full.signature == top.signature
    notes = [finding.message for finding in top.findings if "some metrics use" in finding.message]
    expected = (
        f"some metrics use the first {short} clips, but the lists of 4 queries are shorter (the shortest has "
        f"{length}); clips that are not in a list count as not found"
    )
    assert notes == ([expected] if short else [])
    assert not full.findings
    for name, measured in top.metrics.items():
        if not short:
            assert measured.estimate == full.metrics[name].estimate
        elif name != "medR":
            assert measured.estimate.value <= full.metrics[name].estimate.value


@pytest.mark.parametrize("matrix", [True, False])
def test_names_of_another_data_set(matrix):
    """A prediction with none of the split's clips is an error, not a table of zeros."""
    names = tuple(name.replace(".wav", ".ogg") for name in TWENTY)
    prediction = replace(DESCENDING, file_names=names)
    with pytest.raises(Faulty) as faulty:
        validate(FOUR, TWENTY, prediction if matrix else prediction.top(10), "best.csv")
    (finding,) = faulty.value.findings
    assert str(finding) == (
        f"best.csv: error: all {20 if matrix else 10} names differ from the data's only in their extension: .ogg where "
        "the data have .wav; write the names as in the data"
    )


def test_of_many_findings_of_a_kind_the_first_are_shown():
    queries = tuple(f"query {number}" for number in range(250))
    truth = {query: frozenset([TWENTY[0]]) for query in queries}
    with pytest.raises(Faulty) as faulty:
        validate(truth, TWENTY, Ranking(queries[:1], (TWENTY[:10],)))
    assert len(faulty.value.findings) == 249
    lines = str(faulty.value).splitlines()
    assert len(lines) == 21
    assert lines[-1].startswith("prediction: error: and 229 more of this kind: query 'query 21' is missing")
    findings = validate(truth, TWENTY, Ranking(queries, ((TWENTY[0], "x.wav"),) * 250))
    assert len(findings) == 250
    assert len(limited(findings)) == 21


RENAMED = {
    "an extension": (lambda name: name.replace(".wav", ".mp3"), "their extension: .mp3 where the data have .wav"),
    "no extension": (lambda name: name.removesuffix(".wav"), "their extension: none where the data have .wav"),
    "paths": (
        lambda name: f"/data/{name}",
        "the folder before the name: '/data/00.wav' where the data have '00.wav'",
    ),
}


@pytest.mark.parametrize(("rename", "difference"), RENAMED.values(), ids=RENAMED)
@pytest.mark.parametrize("known", [0, 4])
def test_names_that_all_differ_alike_are_one_finding(rename, difference, known):
    """If no name is right, that is an error. If some are, it is a warning, and the wrong names count as wrong."""
    names = (*TWENTY[:known], *map(rename, TWENTY[known:]))
    prediction = replace(DESCENDING, file_names=names)
    difference = difference.replace("00", f"{known:02}")
    if known:
        first, second = validate(FOUR, TWENTY, prediction)
        assert "16 of 20 names differ from the data's only in " + difference in first.message
        assert first.severity == WARNING
        assert second.message == "no column for 16 of the split's 20 clips; they count as not found"
    else:
        with pytest.raises(Faulty) as faulty:
            validate(FOUR, TWENTY, prediction)
        (finding,) = faulty.value.findings
        assert (
            finding.message
            == f"all 20 names differ from the data's only in {difference}; write the names as in the data"
        )


def test_queries_without_punctuation_are_one_finding():
    queries = [f"A dog, no. {number}, barks!" for number in range(30)]
    truth = {query: frozenset([TWENTY[0]]) for query in queries}
    plain = tuple(re.sub(r"[^\w ]", "", query).lower() for query in queries)
    with pytest.raises(Faulty) as faulty:
        validate(truth, TWENTY, Ranking((queries[0], *plain[1:]), (TWENTY,) * 30, tuple(range(2, 32))), "best.csv")
    assert str(faulty.value) == (
        "best.csv:3: error: 29 of 30 queries differ from the data's only in upper and lower case and punctuation: 'a "
        "dog no 1 barks' where the data have 'A dog, no. 1, barks!'; write the queries as in the data"
    )


def test_the_prediction_of_another_split_names_it(tmp_path):
    for split in ("validation", "evaluation"):
        rows = [f"{split} {number}.wav,A sound of {split} {number}." for number in range(9)]
        (tmp_path / f"captions_{split}.csv").write_text("\n".join(["file_name,caption_1", *rows]))
    dataset = read_dataset(tmp_path, sound=False)
    other = dataset["validation"]
    prediction = Similarity(other.queries, other.file_names, np.eye(9))
    with pytest.raises(Faulty) as faulty:
        evaluate(dataset["evaluation"], prediction)
    assert str(faulty.value) == (
        "prediction: error: answers none of the 9 queries of evaluation; these queries are of the split validation; "
        "give the prediction of evaluation, or give --split validation"
    )


@pytest.mark.parametrize("text", ["", "\n", "caption,file_name_1\n"])
def test_a_prediction_without_rows(text, tmp_path):
    (tmp_path / "it.csv").write_text(text)
    with pytest.raises(Faulty) as faulty:
        validate(FOUR, TWENTY, read_retrieval(tmp_path / "it.csv"), "it.csv")
    assert str(faulty.value) == "it.csv: error: has no rows; give one for each of the 4 queries"


def test_the_truth_must_name_clips_of_the_split():
    truth = {**FOUR, "query 1": {"typo.wav", TWENTY[0]}}
    with pytest.raises(Faulty) as faulty:
        validate(truth, TWENTY, DESCENDING)
    (finding,) = faulty.value.findings
    assert str(finding) == "truth: error: must name clips of the split for 'query 1'; the split has no 'typo.wav'"


def test_many_queries_of_few_groups_are_told_of():
    """Neighbouring queries share a clip, so all are in one group."""
    clips = tuple(f"{number}.wav" for number in range(31))
    truth = {f"q{number}": {clips[number], clips[number + 1]} for number in range(30)}
    matrix = Similarity(tuple(truth), clips, np.random.default_rng(0).random((30, 31), np.float32))
    (finding,) = evaluate(split_of(truth, clips), matrix).findings
    assert finding.message.startswith("the 30 queries form only 1 independent groups, because they share clips")


def test_sets_of_metrics():
    split = split_of(FOUR, TWENTY)
    for year in ("dcase2022", "dcase2023", "dcase2024"):
        assert list(evaluate(split, DESCENDING, metrics=[year]).metrics) == ["mAP@10", "R@1", "R@5", "R@10"]
    assert list(evaluate(split, DESCENDING).metrics) == list(retrieval.TASK_METRICS)
    chosen = evaluate(split, DESCENDING, metrics=["nDCG@5", "dcase2025", "R@5"]).metrics
    assert list(chosen) == ["nDCG@5", "mAP@16", "mAP@10", "R@1", "R@5", "R@10"]


def test_every_metric_of_a_score():
    metrics = ["success@1", "nDCG@2", "MRR@5", "MRR", "medR"]
    score = evaluate(split_of(FOUR, TWENTY), DESCENDING, metrics=metrics)  # ranks 1, 1, 2 and 6
    values = [measured.estimate.value for measured in score.metrics.values()]
    expected = [1 / 2, (2 + 1 / math.log2(3)) / 4, 5 / 8, 2 / 3, 3 / 2]
    assert values == pytest.approx(expected, abs=1e-15)
    median = score.metrics["medR"]
    assert (median.by_clip, median.values, median.chance) == (None, None, None)
    assert median.estimate.interval == "order-statistics-95"
    assert score.findings == ()
    assert [line.split()[0] for line in str(score).splitlines()[2:-1]] == metrics


def test_a_median_beyond_the_lists(tmp_path):
    score = evaluate(split_of(FOUR, TWENTY), DESCENDING.top(1), metrics=["medR"], file="best.csv")
    assert score.metrics["medR"].estimate.value == math.inf
    message = "medR is infinite: at least half of the queries do not find any of their relevant clips"
    assert f"best.csv: note: {message}" in [str(finding) for finding in score.findings]
    score.save(tmp_path / "score.json")
    assert json.loads((tmp_path / "score.json").read_text())["metrics"]["medR"]["value"] is None
    by_clip = Ranking(TWENTY, (("query 3",),) * 20)
    score = evaluate(split_of(FOUR, TWENTY), by_clip, metrics=["medR"], file="best.csv", direction="audio-to-text")
    assert any(finding.message.endswith("find any of their relevant captions") for finding in score.findings)


@pytest.mark.parametrize("interval", METHODS)
def test_every_interval(interval):
    score = evaluate(split_of(FOUR, TWENTY), DESCENDING, metrics=["mAP@10", "medR"], interval=interval)
    assert score.metrics["mAP@10"].estimate.interval == f"{interval}-95"
    assert score.metrics["medR"].estimate.interval == "order-statistics-95"
    assert parts(score)["interval"].startswith(f"{interval}-95")


def test_queries_of_one_clip_are_one_group():
    clips = tuple(
        Clip(name, captions, Path())
        for name, captions in [("a", ("1", "2")), ("b", ("3", "shared")), ("c", ("4", "shared")), ("d", ("5",))]
    )
    truth = {"5": frozenset("a"), "1": frozenset("d"), "2": frozenset("b"), "3": frozenset("b"), "4": frozenset("c")}
    truth |= {"nobody's": frozenset("cd"), "nor is this": {"a": 1, "b": 0}}
    # The clips that have a query as a caption count: 5 belongs to d, 1 and 2 to a. A query of no clip joins c and d.
    assert retrieval.clip_groups(truth, Split("evaluation", clips), truth) == (0, 1, 1, 2, 0, 0, 1)
    truth |= {"shared": frozenset("a")}  # joins b and c
    assert retrieval.clip_groups(truth, Split("evaluation", clips), truth) == (0, 1, 1, 0, 0, 0, 1, 0)


def test_the_same_prediction_from_either_file_scores_the_same(tmp_path):
    random = np.random.default_rng(3)
    truth = {query: frozenset(random.choice(TWENTY, 3)) for query in HOSTILE_NAMES if "\ud83d" not in query}
    matrix = Similarity(tuple(truth), TWENTY, random.random((len(truth), 20)).astype(np.float32))
    matrix.save(tmp_path / "it.npz")
    best = matrix.top(10)
    with (tmp_path / "it.csv").open("w", encoding="utf-8", newline="") as file:
        rows = ([query, *names] for query, names in zip(best.queries, best.file_names, strict=True))
        csv.writer(file).writerows([["caption", *(f"file_name_{rank}" for rank in range(1, 11))], *rows])
    split, metrics = split_of(truth, TWENTY), ["mAP@10", "R@1", "R@5", "R@10", "mAP@5", "R@20"]
    full, top = (evaluate(split, read_retrieval(tmp_path / f"it.{kind}"), metrics=metrics) for kind in ("npz", "csv"))
    assert full.metrics["R@20"].estimate.value == 1
    assert top.metrics["R@20"].estimate == top.metrics["R@10"].estimate  # clips that are not in the lists are not found
    for name in metrics[:-1]:
        one, other = full.metrics[name], top.metrics[name]
        assert (one.estimate, one.chance) == (other.estimate, other.chance)
        np.testing.assert_array_equal(one.values, other.values)


UNKNOWN = ["mAP", "map@10", "R@0", "R@", "P@10", "R@1.5", "mAP@-1", "R@10 ", "R@010", "", "é@1", "MRR@0", "dcase2021"]


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_metric(name):
    with pytest.raises(BadRequest) as refusal:
        evaluate(split_of(FOUR, TWENTY), DESCENDING, metrics=["R@1", name])
    assert str(refusal.value) == (
        f"unknown metric {name!r}; there are mAP@k, R@k, nDCG@k, success@k, MRR@k (for any k from 1), MRR, medR, and "
        "the sets dcase2022, dcase2023, dcase2024, dcase2025"
    )


def test_no_truth():
    with pytest.raises(BadRequest) as refusal:
        evaluate(split_of(None, TWENTY, "retrieval"), DESCENDING)
    assert str(refusal.value) == (
        "the split retrieval has no truth: the clips that answer its queries are not known; choose another split"
    )
    with pytest.raises(BadRequest) as refusal:
        evaluate(split_of({**FOUR, "query 2": frozenset()}, TWENTY), DESCENDING)
    assert str(refusal.value) == (
        "the truth must name at least one clip for each query; 1 of 4 queries have none, for example 'query 2'; add "
        "clips, or remove them"
    )


def test_evaluate_refuses_and_remarks_as_validate_does():
    split = split_of({**FOUR, "one more": frozenset([TWENTY[0]])}, TWENTY)
    with pytest.raises(Faulty, match=r"^answers\.csv: error: query 'one more' is missing$"):
        evaluate(split, DESCENDING, file="answers.csv")
    other = replace(DESCENDING, file_names=(*TWENTY[:-1], "x.wav"))
    findings = evaluate(split_of(FOUR, TWENTY), other, file="answers.csv").findings
    assert [str(finding) for finding in findings] == [
        "answers.csv: warning: no clip 'x.wav' in this split; it counts as wrong",
        "answers.csv: warning: no column for 1 of the split's 20 clips; they count as not found",
    ]


# ------------------------------------------------------------------------------------------------ real data


def real(path: str) -> Path:
    if not (REAL / path).exists():
        pytest.skip(f"{REAL / path} is not here")
    return REAL / path


def test_esc10_by_chance():
    split = read_dataset(real("esc10"), "evaluation", sound=False)["evaluation"]
    assert len(split.truth) == 60
    assert {len(names) for names in split.truth.values()} != {1}
    random = np.random.default_rng(10)
    draws = {name: [] for name in NAMED}
    for _ in range(150):
        matrix = random.random((len(split.queries), len(split.clips)), dtype=np.float32)
        found = ranks(split.truth, Similarity(split.queries, split.file_names, matrix))
        for name, (metric, k) in NAMED.items():
            draws[name].append(apply(metric, found, k).mean())
    score = evaluate(split, Similarity(split.queries, split.file_names, matrix), metrics=list(NAMED))
    assert parts(score)["truth"].startswith("relevance#")
    for name, values in draws.items():
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - score.metrics[name].chance) < 4 * error, name
        assert score.metrics[name].estimate.value == values[-1]


def test_dcase2025_development_annotations():
    split = read_dataset(real("clotho"), "evaluation", sound=False)["evaluation"]
    path = real("dcase2025_task6/metadata_eval.csv")
    truth = read_relevance(path, split.file_names)
    assert len(truth) == 1037
    assert max(map(len, truth.values())) == 12
    random = np.random.default_rng(2025)
    matrix = random.random((len(split.queries), len(split.clips)))
    columns = {name: column for column, name in enumerate(split.file_names)}
    rows = {query: row for row, query in enumerate(split.queries)}
    for query, names in truth.items():
        matrix[rows[query], [columns[name] for name in names]] += 0.5  # raises the scores of relevant clips
    prediction = Similarity(split.queries, split.file_names, matrix)
    score = evaluate(split, prediction, relevance=truth, metrics=["mAP@16", "mAP@10"])
    places = (-matrix).argsort(axis=1).argsort(axis=1)
    for k in (10, 16):
        expected = [
            organisers_2025([places[rows[query], columns[name]] for name in names], k) for query, names in truth.items()
        ]
        estimate = score.metrics[f"mAP@{k}"].estimate
        assert estimate.n == 1037
        assert 0.1 < estimate.value < 0.9
        assert estimate.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert parts(score)["relevant"] == "1-12"
    # In the 46 lists that omit the query's own clip, this clip counts as wrong.
    disowned = {query: names for query, names in truth.items() if not split.captions[query] & names}
    assert len(disowned) == 46
    best = prediction.top(15)
    own_first = Ranking(
        best.queries,
        tuple(
            (*split.captions[query], *(name for name in names if name not in split.captions[query]))
            for query, names in zip(best.queries, best.file_names, strict=True)
        ),
    )
    wrong = evaluate(split, own_first, relevance=disowned, metrics=["R@1", "success@1", "MRR"])
    assert [wrong.metrics[name].estimate.value for name in ("R@1", "success@1")] == [0, 0]
    assert 0 < wrong.metrics["MRR"].estimate.value <= 1 / 2
    all_of_them = evaluate(split, own_first, relevance=truth, metrics=["success@1"])
    assert all_of_them.metrics["success@1"].estimate.value == (1037 - 46) / 1037
    remarks = [str(finding) for finding in score.findings]
    assert remarks == [f"prediction: note: skipped queries that are not in the truth: {len(split.queries) - 1037}"]


def test_the_prediction_of_another_split_is_one_finding():
    truth = {f"query {number}": frozenset({"a.wav"}) for number in range(50)}
    other = Ranking(tuple(f"other {number}" for number in range(40)), (("b.wav",),) * 40)
    with pytest.raises(Faulty) as fault:
        retrieval.validate(truth, ["a.wav"], other, "file.csv")
    message = "answers none of the 50 queries; is this the prediction of another split or data set?"
    assert [str(finding) for finding in fault.value.findings] == [f"file.csv: error: {message}"]


def test_a_matrix_is_validated_as_any_other(tmp_path):
    split = split_of({"q": {"a"}}, ("a", "b"))
    (tmp_path / "it.csv").write_text("index,a,b,a\nq,1,2,3\nq,1,2,3\n")
    with pytest.raises(Faulty) as refusal:
        evaluate(split, read_retrieval(tmp_path / "it.csv"))
    assert "query 'q' appears twice" in str(refusal.value)
    assert "clip 'a' has two columns" in str(refusal.value)
