"""Comparisons: the test equals scipy's, the correction Holm's definition, and intervals those of leaving items out."""

import csv
import dataclasses
import io
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from evaluation import predictions
from evaluation.__main__ import parser
from evaluation.cli import command
from evaluation.data.dataset import Clip, Split
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import retrieval
from evaluation.scores import Items, Measured, Score, measure
from evaluation.statistics import comparison
from evaluation.statistics.comparison import DRAWS, Difference, compare, holm, randomisation, short_names
from evaluation.statistics.intervals import Estimate, jackknife

SIGNATURE = "dcase-kit:1|split:evaluation#ab|truth:captions"
SPECIAL = "a&b%c_d#e$f{g}h~i^j\\k<l>m|n"


def items(n: int, size: int = 1) -> Items:
    return Items("queries", tuple(f"query {index}" for index in range(n)), tuple(index // size for index in range(n)))


def score(values, of: Items | None = None, signature: str = SIGNATURE, **more) -> Score:
    """Make a score of the given metrics (default: one that is called R@1)."""
    values = values if isinstance(values, dict) else {"R@1": values}
    of = of or items(len(next(iter(values.values()))))
    metrics = {name: measure(np.asarray(each, float), of, "jackknife") for name, each in values.items()}
    return Score(metrics, of, signature, **more)


def systems(n: int, size: int = 1, count: int = 3, seed: int = 0) -> dict[str, Score]:
    rng = np.random.default_rng(seed)
    return {f"{name}.json": score(rng.random(n), items(n, size)) for name in "abcdefgh"[:count]}


def values(one: Score) -> np.ndarray:
    return one.metrics["R@1"].values


def refused(given, **options) -> list[str]:
    with pytest.raises(Faulty) as faulty:
        compare(given, **options)
    assert faulty.value.status == 1
    return str(faulty.value).splitlines()


# ------------------------------------------------------------------------------------------------ the test


def scipys(differences, resamples, seed=0):
    """Return p of scipy's permutation test of the sum of paired differences, with all changes of signs."""
    return scipy.stats.permutation_test(
        (differences,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        rng=seed,
    ).pvalue


@pytest.mark.parametrize("n", [2, 3, 8, 12])
@pytest.mark.parametrize("shift", [0, 0.3, -1])
def test_equals_scipy_where_all_exchanges_are_made(n, shift):
    differences = np.random.default_rng(n).normal(size=(n, 5)) + shift
    expected = [scipys(column, np.inf) for column in differences.T]
    np.testing.assert_allclose(randomisation(differences), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["zeros and ones", "reciprocals"])
def test_ties_count(kind):
    """Sums of few different numbers are often equal, but differ in the last digit if the order differs."""
    rng = np.random.default_rng(1)
    pools = {"zeros and ones": [-1, 0, 0, 1], "reciprocals": [-1 / 3, 1 / 3, 0.1, -0.1, 1 / 7]}
    differences = rng.choice(pools[kind], (11, 8))
    # The expected p, from whole multiples of 1/210, which are exact.
    whole = np.round(differences * 210).astype(int)
    signs = np.array(list(itertools.product([1, -1], repeat=11)))
    expected = (np.abs(signs @ whole) >= np.abs(whole.sum(axis=0))).mean(axis=0)
    assert randomisation(differences).tolist() == expected.tolist()


def test_is_near_scipy_where_exchanges_are_drawn():
    differences = np.random.default_rng(2).normal(size=(60, 3)) + np.array([0, 0.2, 0.3])
    ours = randomisation(differences)
    # Each p is a share of 99,999 draws. Three standard deviations of their difference are below 0.007.
    np.testing.assert_allclose(ours, [scipys(column, DRAWS, seed=1) for column in differences.T], rtol=0, atol=0.007)
    assert 0.5 > ours[1] > ours[2] > 1 / (DRAWS + 1)
    np.testing.assert_array_equal((ours * (DRAWS + 1)).round(6) % 1, 0)


def test_drawn_and_made_exchanges_agree(monkeypatch):
    differences = np.random.default_rng(3).normal(size=(16, 6)) + 0.4
    exact = randomisation(differences)
    monkeypatch.setattr(comparison, "_makes_all_exchanges", lambda n: False)
    np.testing.assert_allclose(randomisation(differences), exact, rtol=0, atol=0.005)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 17, 100])
def test_the_smallest_p(n):
    """If all differences are equal, only exchanging none or all gives a sum as far from zero."""
    (p,) = randomisation(np.ones((n, 1)))
    assert p == comparison._smallest_p(n) or (n == 17 and p < 1e-4)  # 1.5 of 99,999 draws are expected to be as far
    assert comparison._smallest_p(n) == (2 / 2**n if n <= 16 else 1e-5)


def test_the_level_is_kept():
    """Of 500 comparisons without a difference, 5 % have p below 0.05, within three standard deviations."""
    p = randomisation(np.random.default_rng(4).normal(size=(40, 500)))
    assert abs((p < 0.05).mean() - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 500)


def test_the_seed_decides():
    differences = np.random.default_rng(5).normal(size=(100, 1))
    assert randomisation(differences) == randomisation(differences, seed=0)
    assert len({float(randomisation(differences, seed)[0]) for seed in range(4)}) > 1


DIFFERENCES = st.integers(1, 20).flatmap(
    lambda n: st.lists(st.floats(-1, 1) | st.sampled_from([-1.0, 0.0, 0.0, 1.0]), min_size=n, max_size=n)
)


@given(differences=DIFFERENCES)
def test_p_is_a_chance_and_does_not_know_directions(differences):
    column = np.array(differences)[:, None]
    (p,) = randomisation(column)
    assert comparison._smallest_p(len(column)) <= p <= 1 or len(column) > 16
    assert 0 < p <= 1
    assert randomisation(-column) == p
    if not column.any():
        assert p == 1


# ------------------------------------------------------------------------------------------------ Holm


def holm_by_the_letter(p):
    """Holm (1979) rejects the smallest p while p ≤ α / (m - i + 1). The corrected p is the smallest such α."""

    def rejected(alpha):
        ordered = sorted(range(len(p)), key=lambda index: p[index])
        out = set()
        for step, index in enumerate(ordered):
            if p[index] > alpha / (len(p) - step):
                break
            out.add(index)
        return out

    return rejected


@given(p=st.lists(st.floats(1e-5, 1), min_size=1, max_size=8))
def test_holm(p):
    corrected = holm(np.array(p))
    assert (corrected >= np.array(p)).all()
    assert (corrected <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()
    for alpha in (0.001, 0.01, 0.05, 0.5):
        nearly = np.isclose(corrected, alpha, rtol=1e-9)
        rejected = holm_by_the_letter(p)(alpha)
        assert all(nearly[i] or (corrected[i] <= alpha) == (i in rejected) for i in range(len(p)))


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.2])).tolist() == [0.2]
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]


# ------------------------------------------------------------------------------------------------ differences


def test_a_comparison_is_made_of_its_parts():
    given = systems(40, size=4)
    compared = compare(given)
    a, b, c = given.values()
    assert [(d.metric, d.system, d.against) for d in compared.differences] == [("R@1", "b", "a"), ("R@1", "c", "a")]
    groups = np.repeat(np.arange(10), 4)
    sums = np.stack([np.bincount(groups, values(other) - values(a)) for other in (b, c)], axis=1)
    p = [scipys(column, np.inf) for column in sums.T]  # ten clips are exchanged, not forty queries
    assert [d.p for d in compared.differences] == pytest.approx(p, rel=1e-12)
    assert [d.p_holm for d in compared.differences] == holm(np.array([d.p for d in compared.differences])).tolist()
    for d, other in zip(compared.differences, (b, c), strict=True):
        assert d.value == other.metrics["R@1"].estimate.value
        assert d.difference.value == d.value - a.metrics["R@1"].estimate.value
        # Compare with leaving out each clip in both systems.
        without = [values(other)[groups != g].mean() - values(a)[groups != g].mean() for g in range(10)]
        std_error = np.sqrt(9 / 10 * ((without - np.mean(without)) ** 2).sum())
        assert d.difference.std_error == pytest.approx(std_error, rel=1e-9)
        assert d.difference.high - d.difference.value == pytest.approx(1.959963984540054 * std_error, rel=1e-9)
        assert (d.difference.n, d.difference.interval) == (10, "jackknife-95")
    assert (compared.groups, compared.items) == (10, "40 queries in 10 groups that share a clip")


def test_of_items_alone_the_interval_is_the_paired_one():
    given = systems(30, count=2)
    (d,) = compare(given).differences
    a, b = map(values, given.values())
    plain = jackknife(b - a)
    assert [d.difference.std_error, d.difference.low, d.difference.high] == pytest.approx(
        [plain.std_error, plain.low, plain.high], rel=1e-9
    )
    t = scipy.stats.ttest_rel(b, a)
    assert d.difference.value / d.difference.std_error == pytest.approx(t.statistic, rel=1e-9)


def test_of_a_corpus_metric_the_difference_is_really_left_out():
    rng = np.random.default_rng(6)
    counts = [np.stack([rng.random(20), 1 + rng.random(20)], axis=1) for _ in range(2)]

    def ratio(sums):
        return sums[..., 0] / sums[..., 1]

    of = items(20)
    given = {f"{k}": Score({"BLEU": measure(c, of, "jackknife", ratio)}, of, "s") for k, c in enumerate(counts)}
    (d,) = compare(given).differences
    without = np.array([np.subtract(*(ratio(np.delete(c, i, 0).sum(0)) for c in counts[::-1])) for i in range(20)])
    assert d.difference.value == ratio(counts[1].sum(0)) - ratio(counts[0].sum(0))
    assert d.difference.std_error == pytest.approx(np.sqrt(19 / 20 * ((without - without.mean()) ** 2).sum()), rel=1e-9)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("n", [10, 100])
def test_the_order_turns_the_sign(n, size):
    given = systems(n, size, count=2)
    (there,) = compare(given).differences
    (back,) = compare(dict(reversed(given.items()))).differences
    assert (there.system, there.against) == (back.against, back.system) == ("b", "a")
    a, b = there.difference, back.difference
    assert [a.value, a.low, a.high, a.std_error] == [-b.value, -b.high, -b.low, b.std_error]
    assert (there.p, there.p_holm, there.mark) == (back.p, back.p_holm, back.mark)


@pytest.mark.parametrize("n", [1, 10, 100])
def test_a_system_does_not_differ_from_itself(recwarn, n):
    one = score(np.random.default_rng(7).random(n))
    compared = compare({"a": one, "b": one})
    (d,) = compared.differences
    assert (d.difference.value, d.p, d.p_holm, d.mark) == (0, 1, 1, "")
    spread = [d.difference.low, d.difference.high]
    assert np.isnan(spread).all() if n == 1 else spread == [0, 0]
    assert ("–" in str(compared), "–" in compared.latex()) == (n == 1, n == 1)
    assert not recwarn


def test_pairs():
    given = systems(12, count=4)
    compared = compare(given, pairs=True)
    pairs = [(d.against, d.system) for d in compared.differences]
    assert pairs == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    p = np.array([d.p for d in compared.differences])
    assert [d.p_holm for d in compared.differences] == holm(p).tolist()  # over all six comparisons
    # Each difference is the same as in a comparison of only these two.
    for d in compared.differences:
        (alone,) = compare({name: given[f"{name}.json"] for name in (d.against, d.system)}).differences
        assert dataclasses.replace(d, p_holm=d.p) == alone


def test_compare_pairs_takes_any_pairs():
    given = {"a": score([0, 1, 0, 1]), "b": score([1, 1, 1, 0]), "c": score([1, 1, 1, 1])}
    found = comparison.compare_pairs(given, ["R@1"], [("c", "b"), ("b", "a")])
    assert [(d.system, d.against, d.value, d.difference.value) for d in found] == [
        ("c", "b", 1.0, 0.25),
        ("b", "a", 0.75, 0.25),
    ]
    assert [d.p_holm for d in found] == holm(np.array([d.p for d in found])).tolist()


def test_table_has_a_row_for_each_system(three):
    compared = compare(three)
    table = compared.table()
    assert table["system"].tolist() == ["crnn", "b", "c"]
    assert table["difference"].isna().tolist() == [True, False, False]
    assert table["p_holm"].tolist()[1:] == [d.p_holm for d in compared.differences]


def test_holm_counts_the_comparisons_of_each_metric():
    rng = np.random.default_rng(8)
    given = {name: score({"R@1": rng.random(12), "R@5": rng.random(12)}) for name in "abc"}
    compared = compare(given)
    for metric in ("R@1", "R@5"):
        rows = [d for d in compared.differences if d.metric == metric]
        assert [d.p_holm for d in rows] == holm(np.array([d.p for d in rows])).tolist()
    assert len(compared.differences) == 4


def test_items_in_another_order_are_paired_by_name():
    given = systems(30, size=3, count=2)
    a, b = given.values()
    order = np.random.default_rng(9).permutation(30)
    # The groups have new numbers, in the order of their first items.
    numbers = {group: 100 - k for k, group in enumerate(dict.fromkeys(b.items.groups[i] for i in order))}
    other = Items("queries", tuple(b.items.names[i] for i in order), tuple(numbers[b.items.groups[i]] for i in order))
    measured = dataclasses.replace(b.metrics["R@1"], values=values(b)[order])
    shuffled = {"a.json": a, "b.json": Score({"R@1": measured}, other, SIGNATURE)}
    assert compare(shuffled) == compare(given)


def test_the_marks():
    def mark(p_holm):
        return Difference("m", "b", "a", 0.5, Estimate(0, 0, 0, 0, 1, ""), 1e-9, p_holm).mark

    marks = {0.05: "", 0.0499: "*", 0.01: "*", 0.0099: "**", 0.001: "**", 0.0009: "***", 1: ""}
    assert {p: mark(p) for p in marks} == marks


def test_what_has_no_values_is_listed_and_not_compared():
    of = items(12)
    rank = Measured(Estimate(4.0, np.nan, np.nan, np.nan, 12, "none"))
    given = {}
    for name in "ab":
        one = score({"R@1": np.arange(12) % 2, f"R@{name}": np.arange(12) % 3, "some": np.arange(12)}, of)
        given[name] = Score({**one.metrics, "median rank": rank}, of, SIGNATURE, {"spice": "needs Java"})
    given["b"].metrics["some"] = rank
    compared = compare(given)
    assert [*compared.values] == ["R@1"]
    assert compared.not_compared == {
        "R@a": "not in b",
        "some": "no values of single items in b",
        "median rank": "no values of single items",
        "spice": "not in a, b",
        "R@b": "not in a",
    }
    assert "\nR@a: not compared: not in b\n" in str(compared)


def test_it_is_quick():
    rng = np.random.default_rng(10)
    of = items(5225)
    given = {name: score({f"R@{k}": rng.random(5225) for k in range(4)}, of) for name in "abc"}
    started = time.process_time()
    compare(given)
    assert time.process_time() - started < 3  # 0.7 s on an idle core; a busy machine is slower


# ------------------------------------------------------------------------------------------------ refused


def test_all_differing_parts_of_signatures_are_listed():
    one, two, three = (list(range(3)) for _ in range(3))
    given = {
        "a.json": score(one),
        "b.json": score(two, signature="dcase-kit:1|split:test#cd|truth:captions"),
        "c.json": score(three, signature="dcase-kit:2|truth:captions|split:evaluation#ab|interval:bootstrap-95|new:1"),
        "d.json": score(three),
    }
    assert refused(given) == [
        "b.json: split: error: must be 'evaluation#ab' as in a.json; found 'test#cd'; score both in the same way",
        "c.json: dcase-kit: error: must be '1' as in a.json; found '2'; score both in the same way",
    ]  # entries of only one score belong to a metric that the other lacks; intervals are computed again


@pytest.mark.parametrize(
    "other", ["a:1|interval:bootstrap-95", "a:1|fer:model@2|interval:jackknife-95", "interval:x|a:1", "a:1|match:case"]
)
def test_signatures_that_agree(other):
    given = {"a": score([1, 2], signature="a:1|interval:jackknife-95|match:path"), "b": score([1, 2], signature=other)}
    assert compare(given).values


def test_items_that_differ():
    names = ("x", "y", "z")
    given = {
        "a": score([1, 2, 3], Items("queries", names, (0, 0, 1))),
        "b": score([1, 2, 3], Items("clips", ("x", "w\n", "v"), (0, 0, 1))),
        "c": score([1, 2], Items("queries", names[:2], (0, 0))),
        "d": score([1, 2, 3], Items("queries", names, (0, 1, 1))),
        "e": score([1, 2, 3], Items("queries", names, (0, 1, 2))),
        "f": score([1, 2, 3], Items("queries", names, (5, 5, 5))),
        "g": score([1, 2, 3], Items("queries", names, (9, 9, 4))),
    }
    assert refused(given) == [
        "b: items.kind: error: must be 'queries' as in a; found 'clips'",
        "b: items.names: error: must be those of a; missing here: 2, for example 'y'; score both with the same data",
        r"b: items.names: error: must be those of a; only here: 2, for example 'w\n'; score both with the same data",
        "c: items.names: error: must be those of a; missing here: 1, for example 'z'; score both with the same data",
        "d: items.groups: error: must group the same items as a; score both with the same data",
        "e: items.groups: error: must group the same items as a; score both with the same data",
        "f: items.groups: error: must group the same items as a; score both with the same data",
    ]


def test_items_whose_names_all_differ_alike():
    names = tuple(f"{number}.wav" for number in range(6))
    changed = tuple(name.replace(".wav", ".mp3") for name in names)
    given = {
        "a": score([1] * 6, Items("clips", names, tuple(range(6)))),
        "b": score([1] * 6, Items("clips", changed, tuple(range(6)))),
    }
    assert refused(given) == [
        "b: items.names: error: must be those of a; all 6 names differ from the other names' only in their extension: "
        ".mp3 where the other names have .wav; write the names as in the other names",
    ]


def test_items_that_stand_twice():
    twice = Items("queries", ("x", "y", "x", "y", "z"), (0, 0, 1, 1, 2))
    given = {"a": score([1] * 5, twice), "b": score([1] * 5, twice), "c": score([1] * 5)}
    lines = refused(given)
    assert [line for line in lines if "those of" not in line] == [
        f"{file}: items.names: error: must be different; 2 appear more than once, for example 'x'; "
        "score the prediction again"
        for file in "ab"
    ]


def test_no_metric_in_common():
    rank = Score({"rank": Measured(Estimate(4.0, np.nan, np.nan, np.nan, 2, "none"))}, items(2), SIGNATURE)
    given = {"a": score({"R@1": [0, 1], "R@5": [1, 1]}), "b": rank}
    assert refused(given) == [
        "a: error: must share a metric with item values with all scores; found R@1, R@5",
        "b: error: must share a metric with item values with all scores; found rank",
    ]


def test_a_seed_below_zero():
    with pytest.raises(BadRequest, match=r"^the seed must be 0 or more; found -1$"):
        compare(systems(3), seed=-1)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.json", "x/b.json"], ["a", "b"]),
        (["runs/a/scores/evaluation.json", "runs/b/scores/evaluation.json"], ["a", "b"]),
        (["runs/a/e.json", "runs/b/e.json"], ["a", "b"]),
        (["a.b.json", "a.c.json"], ["a.b", "a.c"]),
        (["1/a/scores/e.json", "2/a/scores/e.json"], ["1/a/scores/e.json", "2/a/scores/e.json"]),
        (["a/e.json", "b/e.json", "b/f.json"], ["a/e.json", "b/e.json", "b/f.json"]),
    ],
)
def test_short_names(files, names):
    assert short_names(files) == names


# ------------------------------------------------------------------------------------------------ printed and kept


@pytest.fixture
def three():
    """One system is much better than the first and one a little worse, on twelve queries of six clips."""
    base = np.array([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0], float)
    worse = base.copy()
    worse[3] = 0
    of = items(12, 2)
    return {"runs/crnn.json": score(base, of), "b.json": score(np.ones(12), of), "c.json": score(worse, of)}


def test_text(three):
    assert str(compare(three)).splitlines() == [
        "metric    system      value    difference     95 % interval       p    p (Holm)",
        "--------  --------  -------  ------------  ----------------  ------  ----------  --",
        "R@1       crnn        0.167",
        "          b           1.000        +0.833  [+0.627, +1.040]  0.0312      0.0625",
        "          c           0.083        -0.083  [-0.247, +0.080]  1.0000      1.0000",
        "differences from crnn, over 12 queries in 6 groups that share a clip; 95 % jackknife intervals",
        "p: paired randomisation test, all 64 exchanges, never below 0.031",
        "Holm: over 2 comparisons per metric; * p < 0.05, ** p < 0.01, *** p < 0.001",
        f"signature: {SIGNATURE}",
    ]


def test_text_of_pairs_with_marks():
    rng = np.random.default_rng(11)
    base = rng.random(40)
    given = {name: score(base + step + 0.1 * rng.random(40)) for name, step in zip("abc", (0, 0.01, 0.2), strict=True)}
    text = str(compare(given, pairs=True, seed=5)).splitlines()
    assert text[0].split()[:5] == ["metric", "system", "value", "against", "difference"]
    assert [line.split()[0] for line in text[3:6]] == ["b", "c", "c"]
    assert "differences from the system in the column `against`, over 40 queries; 95 % jackknife intervals" in text
    assert "p: paired randomisation test, 99999 drawn exchanges (seed 5), never below 1e-05" in text
    assert text[4].split()[-3:] == ["<0.0001", "<0.0001", "***"]


def test_csv(three):
    three = {'b, "1"\n.json' if name == "b.json" else name: one for name, one in three.items()}
    compared = compare(three)
    rows = list(csv.DictReader(io.StringIO(compared.csv())))
    assert [*rows[0]] == [
        *("metric", "system", "value", "against"),
        *("difference", "std_error", "low", "high", "p", "p_holm", "mark"),
    ]
    assert [row["system"] for row in rows] == ["crnn", r'b, "1"\n', "c"]
    assert rows[0]["against"] == rows[0]["p"] == ""
    for row, d in zip(rows[1:], compared.differences, strict=True):
        figures = [d.value, d.difference.value, d.difference.std_error, d.difference.low, d.difference.high, d.p]
        assert [float(row[key]) for key in ("value", "difference", "std_error", "low", "high", "p")] == figures
        assert (row["metric"], row["against"], float(row["p_holm"]), row["mark"]) == ("R@1", "crnn", d.p_holm, d.mark)


def test_latex(three):
    compared = compare({f"{SPECIAL}.json" if name == "c.json" else name: one for name, one in three.items()})
    assert compared.latex().splitlines() == [
        r"\begin{tabular}{llrrrrr}",
        r"\hline",
        r"metric & system & value & difference & 95 \% interval & p & p (Holm) \\",
        r"\hline",
        r"R@1 & crnn & 0.167 &  &  &  &  \\",
        r" & b & 1.000 & $+0.833$ & $[+0.627, +1.040]$ & 0.0312 & 0.0625 \\",
        r" & a\&b\%c\_d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k$<$l$>$m$|$n"
        r" & 0.083 & $-0.083$ & $[-0.247, +0.080]$ & 1.0000 & 1.0000 \\",
        r"\hline",
        r"\end{tabular}",
        *(f"% {note}" for note in compared.notes),
    ]


def test_latex_with_marks_and_pairs():
    base = np.random.default_rng(12).random(40)
    given = {name: score(base + step) for name, step in zip("abc", (0, 0.01, 0.2), strict=True)}
    lines = compare(given, pairs=True).latex().splitlines()
    assert lines[0] == r"\begin{tabular}{llrlrrrr}"
    assert lines[5].split(" & ")[3:5] == ["a", "$+0.010^{***}$"]
    assert lines[5].endswith(r" & $<$0.0001 & $<$0.0001 \\")


def test_a_wide_table_has_a_row_for_each_system():
    rng = np.random.default_rng(3)
    base = rng.random(60)
    given = {
        "a_1": score({"mAP@10": base, "fer": base}),
        "b": score({"mAP@10": base + 0.2, "fer": base + 0.1}),
        "c": score({"mAP@10": rng.random(60), "fer": base}),
    }
    compared = compare(given)
    values = {
        name: [f"{one.metrics[key].estimate.value:.3f}" for key in ("mAP@10", "fer")] for name, one in given.items()
    }
    heads, _, *rows = compared.wide().splitlines()
    assert heads.split() == ["system", "mAP@10", "fluency", "error", "rate"]
    assert rows[0].split() == ["a_1", *values["a_1"]]
    assert rows[1].split() == ["b", *(f"{value}***" for value in values["b"])]
    assert rows[3] == "stars: differences from a_1, over 60 queries"
    lines = compared.wide("latex").splitlines()
    assert lines[:5] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"system & mAP@10 & fluency error rate \\",
        r"\midrule",
        rf"a\_1 & {values['a_1'][0]} & \textbf{{{values['a_1'][1]}}} \\",
    ]
    assert lines[5] == rf"b & \textbf{{{values['b'][0]}}}$^{{***}}$ & {values['b'][1]}$^{{***}}$ \\"
    assert rf"\textbf{{{values['c'][1]}}} \\" in lines[6]  # as good as the best
    assert lines[7:9] == [r"\bottomrule", r"\end{tabular}"]
    assert all(line.startswith("% ") for line in lines[9:])
    rows = list(csv.DictReader(io.StringIO(compared.wide("csv"))))
    assert [row["system"] for row in rows] == ["a_1", "b", "c"]
    assert float(rows[1]["mAP@10"]) == given["b"].metrics["mAP@10"].estimate.value
    with pytest.raises(BadRequest, match="leave out --pairs or --wide"):
        compare(given, pairs=True).wide()


def test_scores_of_cosine_and_dot_are_comparable():
    base = np.random.default_rng(3).random(60)
    given = {"a": score(base, signature=f"{SIGNATURE}|similarity:cosine-26-bits"), "b": score(base)}
    given["c"] = score(base, signature=f"{SIGNATURE}|similarity:dot-26-bits")
    assert len(compare(given).differences) == 2


def test_one_line_stays_one_line(three):
    """A name with a line break must not end a comment or a row early."""
    given = {"a\nb.json": three["b.json"], "c\n%.json": three["c.json"]}
    compared = compare(given)
    assert len(str(compared).splitlines()) == len(compare({"a": three["b.json"], "c": three["c.json"]}).notes) + 4
    assert all(line.startswith("%") for line in compared.latex().partition(r"\end{tabular}")[2].splitlines()[1:])
    assert r"a\nb" in str(compared)
    assert r"c\textbackslash{}n\%" in compared.latex()


def test_json(three, tmp_path):
    compared = compare({"c\udc80.json" if name == "c.json" else name: one for name, one in three.items()})
    compared.save(tmp_path / "new" / "x.json")
    content = json.loads((tmp_path / "new" / "x.json").read_bytes().decode("utf-8"))
    assert content["signature"] == SIGNATURE
    assert content["files"] == {"crnn": "runs/crnn.json", "b": "b.json", "c\udc80": "c\udc80.json"}
    assert content["test"] == {
        "name": "paired randomisation, two-sided",
        "units": 6,
        "exact": True,
        "draws": 64,
        "seed": None,
        "smallest_p": 2 / 64,
        "correction": "Holm",
        "family": 2,
    }
    assert content["metrics"]["R@1"]["value"] == compared.values["R@1"]
    for figures, d in zip(content["metrics"]["R@1"]["comparisons"], compared.differences, strict=True):
        e = d.difference
        assert figures == {
            "system": d.system,
            "against": "crnn",
            "value": d.value,
            "difference": e.value,
            "std_error": e.std_error,
            "low": e.low,
            "high": e.high,
            "n": 6,
            "interval": "jackknife-95",
            "p": d.p,
            "p_holm": d.p_holm,
            "mark": d.mark,
        }


def test_json_of_a_single_item_and_of_draws(tmp_path):
    compare({"a": score([1]), "b": score([0])}).save(tmp_path / "x.json")
    figures = json.loads((tmp_path / "x.json").read_text())["metrics"]["R@1"]["comparisons"][0]
    assert (figures["difference"], figures["low"], figures["high"], figures["std_error"]) == (-1, None, None, None)
    compare(systems(20), seed=3).save(tmp_path / "x.json")
    test = json.loads((tmp_path / "x.json").read_text())["test"]
    assert (test["exact"], test["draws"], test["seed"], test["smallest_p"]) == (False, 99_999, 3, 1e-5)


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def run(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = command(parser(), ["compare", *map(str, arguments)])
        except SystemExit as usage:
            status = usage.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """Two retrievers' scores of 20 clips with two captions each, in run folders."""
    monkeypatch.chdir(tmp_path)
    clips = tuple(Clip(f" {k}, a.wav", (f"Sound {k} is heard.", f"One hears {k}."), Path()) for k in range(20))
    split = Split("evaluation", clips)
    queries = tuple(query for clip in clips for query in clip.captions)
    rng = np.random.default_rng(13)
    for name, strength in (("weak", 0.0), ("strong", 3.0)):
        truth = np.repeat(np.eye(20), 2, axis=0)
        matrix = (strength * truth + rng.normal(size=(40, 20))).astype(np.float32)
        prediction = predictions.Similarity(queries, split.file_names, matrix)
        retrieval.evaluate(split, prediction).save(Path("runs", name, "scores", "evaluation.json"))
    return [Path("runs", name, "scores", "evaluation.json") for name in ("weak", "strong")]


def test_compare(run, scored, tmp_path):
    status, out, err = run(*scored, "--json", tmp_path / "x.json")
    assert (status, err) == (0, "")
    expected = compare({str(path): Score.load(path) for path in scored})
    assert out == f"{expected}\n"
    rows = [line.split() for line in out.splitlines()[2:10]]
    assert [row[:2] for row in rows[::2]] == [[metric, "weak"] for metric in ("mAP@10", "R@1", "R@5", "R@10")]
    assert [row[0] for row in rows[1::2]] == ["strong"] * 4
    assert all(row[-1].startswith("*") for row in rows[1::2])
    assert "over 40 queries in 20 groups that share a clip" in out
    first = json.loads((tmp_path / "x.json").read_text())["metrics"]["mAP@10"]["comparisons"][0]
    assert first["p_holm"] == expected.differences[0].p_holm


def test_options_of_compare(run, scored):
    files = [*scored, Path("third.json")]
    files[2].write_bytes(files[0].read_bytes())
    given = {str(path): Score.load(path) for path in files}
    with_options = compare(given, pairs=True, seed=7)
    assert run(*files, "--pairs", "--seed", 7, "--format", "csv")[1] == f"{with_options.csv()}\n"
    assert run(*files, "--format", "latex")[1] == f"{compare(given).latex()}\n"
    assert run(*files, "--format", "latex", "--wide")[1] == f"{compare(given).wide('latex')}\n"
    status, _, err = run(*files, "--wide", "--pairs")
    assert (status, err) == (2, "error: --wide compares all systems with the first one; leave out --pairs or --wide\n")
    assert run(*files)[1] == f"{compare(given)}\n"


def test_wrong_requests(run, scored):
    a, b = scored
    Path("again.json").symlink_to(b)
    Path("broken.json").write_text("[]")
    assert run(a, b, "again.json") == (2, "", f"error: {b} and again.json are the same file; give each score once\n")
    assert run(a, a)[0] == 2
    status, out, err = run(a, "no.json", "broken.json", "nor.json")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "broken.json: error: must be an object; found []; score the prediction again",
        "no.json: error: no such file; give a score file, written by `dcase-evaluation score … --json FILE`",
        "nor.json: error: no such file; give a score file, written by `dcase-evaluation score … --json FILE`",
    ]
    assert run(a, "broken.json")[0] == 1
    assert run(a, b, "--seed", "-1") == (2, "", "error: the seed must be 0 or more; found -1\n")
    status, _, err = run(a)
    assert (status, "the following arguments are required: OTHER" in err) == (2, True)
    assert run(a, b, "--format", "word")[0] == 2


def edited(file: Path, change) -> None:
    """Change a score file by hand."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def figures(metric: str, **new: float):
    return lambda content: content["metrics"][metric].update(new)


def by_clip(metric: str, **new: float):
    return lambda content: content["metrics"][metric]["by_clip"].update(new)


def zeroed(content: dict) -> None:
    content["items"]["values"]["R@1"] = [0.0] * 40


AGAIN = "was the file changed by hand? score the prediction again"


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            figures("mAP@10", value=0.99),
            [f"metrics.mAP@10.value: error: must be the mean of items.values.mAP@10, 0.177252; found 0.99; {AGAIN}"],
        ),
        (
            figures("mAP@10", value=0.99, low=0.98, high=1.0),
            [f"metrics.mAP@10.value: error: must be the mean of items.values.mAP@10, 0.177252; found 0.99; {AGAIN}"],
        ),
        (
            zeroed,
            [f"metrics.R@1.value: error: must be the mean of items.values.R@1, 0; found 0.075; {AGAIN}"],
        ),
        (
            figures("R@1", low=0.09, n=400),
            [
                f"metrics.R@1.low: error: must be -0.00766417, computed from items.values.R@1; found 0.09; {AGAIN}",
                f"metrics.R@1.n: error: must be 40, computed from items.values.R@1; found 400; {AGAIN}",
            ],
        ),
        (
            by_clip("R@5", low=0.0),
            [f"metrics.R@5.by_clip.low: error: must be 0.124603, computed from items.values.R@5; found 0; {AGAIN}"],
        ),
    ],
    ids=["value", "value and interval", "items", "interval", "interval by clip"],
)
def test_a_file_whose_figures_its_items_do_not_give(run, scored, change, messages):
    a, b = scored
    edited(a, change)
    status, out, err = run(a, b)
    assert (status, out) == (1, "")
    assert err.splitlines() == [f"{a}: {message}" for message in messages]


def test_figures_may_be_rounded_and_other_metrics_have_no_items(run, scored):
    a, b = scored

    def rounded(content):
        for name, metric in content["metrics"].items():
            content["metrics"][name] = {k: round(v, 7) if isinstance(v, float) else v for k, v in metric.items()}

    edited(a, rounded)
    for file in (a, b):  # the median rank cannot be recomputed
        rank = {"value": 4.0, "std_error": None, "low": 1.0, "high": 9.0, "n": 40, "interval": "order-statistics-95"}
        edited(file, lambda content, rank=rank: content["metrics"].update({"medR": rank}))
    status, out, _ = run(a, b)
    assert (status, "medR: not compared" in out) == (0, True)


def test_csv_for_spreadsheets(run, scored):
    """A metric's name may be hostile: no escape sequence is printed, and no formula is written."""
    names = {"R@1": "\x1b[2Jevil", "R@5": " =cmd|' /C calc'!A0"}

    def renamed(content):
        for part in (content["metrics"], content["items"]["values"]):
            for old, new in names.items():
                part[new] = part.pop(old)

    for file in scored:
        edited(file, renamed)
    status, out, _ = run(*scored, "--format", "csv")
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["metric"] for row in rows[::2]] == ["mAP@10", "R@10", r"\x1b[2Jevil", "' =cmd|' /C calc'!A0"]


def test_scores_of_different_things(run, scored):
    a, b = scored
    content = json.loads(b.read_text())
    content["signature"] = content["signature"].replace("split:evaluation", "split:validation")
    b.write_text(json.dumps(content))
    status, out, err = run(a, b)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"{b}: split: error: must be 'evaluation#")
    assert f"as in {a}; found 'validation#" in err


# ------------------------------------------------------------------------------------------------ values


def test_values_are_compared_as_scores_are():
    one, other = np.random.default_rng(0).random((2, 30))
    of = items(30, 5)
    expected = compare({"one": score({"mean": one}, of), "other": score({"mean": other}, of)})
    names = [f"clip {group}" for group in of.groups]
    for arrays in ({"one": one, "other": other}, {"one": one.tolist(), "other": pd.Series(other)}):
        for groups in (names, np.array(of.groups), pd.Series(names)):
            compared = compare(arrays, groups=groups)
            assert compared.differences == expected.differences
            assert compared.items == "30 items in 6 groups"
    assert compare({"one": one, "other": other}).groups == 30
    assert compared._repr_html_().count("<tr>") == 3
    assert "signature: values:given|items:30" in compared._repr_html_()


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([[1, 2], [3, 4]], {}, "the systems must be a dict from two or more names to scores or values; found a list"),
        ({"a": [1, 2]}, {}, "the systems must be a dict from two or more names to scores or values; found a dict"),
        ({"a": [1, 2], "b": [1, 2, 3]}, {}, "b: error: must have a value for each of the 2 items of a; found 3"),
        (
            {"a": [1], "b": [math.nan]},
            {},
            "b: error: values must be finite numbers; found 1 of 1 with NaN or infinity, ",
        ),
        ({"a": [], "b": "x"}, {}, "a: error: values must be one or more finite numbers; found none\nb: error: values "),
        (
            {"a": iter([1]), "b": [1]},
            {},
            "a: error: values must be a list or an array of numbers; found a list_iterator",
        ),
        (
            {"a": [1], "b": [1]},
            {"groups": [1, 2]},
            "groups: error: each value must have a group; found 2 groups for 1 ",
        ),
        (
            {"a": [1], "b": [1]},
            {"groups": [None]},
            "groups: error: each value must have a group; found None at index 0",
        ),
        (
            {"a": [1], "b": [1]},
            {"groups": [math.nan]},
            "groups: error: each value must have a group; found NaN, a missi",
        ),
        (
            {"a": [1], "b": [1]},
            {"groups": "x"},
            "groups: error: groups must be a list or an array with one dimension; ",
        ),
        ({"a": [1.0], "b": score([1])}, {}, "b is a score and a is not; give only scores, or only values"),
        (
            {"a": score([1]), "b": score([1])},
            {"groups": [1]},
            "scores contain the groups of their items; leave out gro",
        ),
    ],
)
def test_refused_values(given, options, message):
    with pytest.raises((BadRequest, Faulty)) as refusal:
        compare(given, **options)
    assert str(refusal.value).startswith(message)
