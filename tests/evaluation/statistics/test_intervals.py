from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from astropy.stats import jackknife_stats

from evaluation.statistics.intervals import Estimate, bootstrap, from_left_out, grouped, jackknife, mean, pseudo_values

RANDOM = np.random.default_rng(6)
ARRAYS = {
    "two": np.array([0.25, 1.0]),
    "reciprocal ranks": 1 / np.arange(1, 51),
    "negative and large": 1e3 * RANDOM.normal(size=40),
    "float32": RANDOM.random(30).astype(np.float32),
    "booleans": RANDOM.random(60) < 0.2,
    "1000 zeros and ones": (np.arange(1000) % 7 == 0).astype(float),
    "1000 zeros": np.zeros(1000),
    "1000 ones": np.ones(1000),
}

# Xie et al. 2022, Table 2: R@1, R@5 and R@10 of the best system of each team with the printed 95 % intervals. There are
# 1000 queries with one relevant clip each. A mean of 1000 zeros and ones with three decimals determines the number of
# ones, and so the interval. All 30 agree in every printed digit. (Intervals of mAP@10 would need each query's value.)
PUBLISHED = """
Xu       0.176 [0.152, 0.200] 0.416 [0.385, 0.447] 0.536 [0.505, 0.567]
Mei      0.153 [0.131, 0.175] 0.387 [0.357, 0.417] 0.504 [0.473, 0.535]
Lamort   0.131 [0.110, 0.152] 0.343 [0.314, 0.372] 0.466 [0.435, 0.497]
Pellegr. 0.127 [0.106, 0.148] 0.321 [0.292, 0.350] 0.463 [0.432, 0.494]
Lai      0.122 [0.102, 0.142] 0.328 [0.299, 0.357] 0.478 [0.447, 0.509]
Wu       0.107 [0.088, 0.126] 0.303 [0.275, 0.331] 0.413 [0.382, 0.444]
Weck     0.077 [0.060, 0.094] 0.188 [0.164, 0.212] 0.284 [0.256, 0.312]
Xiao     0.043 [0.030, 0.056] 0.162 [0.139, 0.185] 0.267 [0.240, 0.294]
Park     0.033 [0.022, 0.044] 0.127 [0.106, 0.148] 0.208 [0.183, 0.233]
Baseline 0.026 [0.016, 0.036] 0.102 [0.083, 0.121] 0.176 [0.152, 0.200]
"""


def test_estimates_without_an_interval_are_equal():
    """NaN is not equal to itself, but two estimates with NaN in the same place are equal."""
    one, other = (Estimate(0.5, float("nan"), float("nan"), float("nan"), 1, "jackknife-95") for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != replace(other, low=0.0)
    assert one != replace(other, value=float("nan"))
    assert one != (0.5,)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("values", ARRAYS.values(), ids=ARRAYS)
def test_equals_astropy(values, confidence):
    estimate, _, std_error, interval = jackknife_stats(np.asarray(values, dtype=float), np.mean, confidence)
    ours = jackknife(values, confidence)
    scale = max(1.0, np.abs(values).max())
    np.testing.assert_allclose(
        [ours.value, ours.std_error, ours.low, ours.high], [estimate, std_error, *interval], rtol=0, atol=1e-12 * scale
    )


@pytest.mark.parametrize("values", ARRAYS.values(), ids=ARRAYS)
def test_equals_leaving_each_one_out(values):
    """Compute the jackknife by Efron's definition."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    means = np.array([np.delete(values, item).mean() for item in range(n)])
    bias = (n - 1) * (means.mean() - values.mean())
    std_error = np.sqrt((n - 1) / n * ((means - means.mean()) ** 2).sum())
    ours, scale = jackknife(values), max(1.0, np.abs(values).max())
    assert ours.value == pytest.approx(values.mean() - bias, abs=1e-12 * scale)
    assert ours.std_error == pytest.approx(std_error, abs=1e-12 * scale)
    # 97.5 % of the normal distribution lie below 1.959964 standard deviations.
    assert ours.high - ours.value == pytest.approx(1.959963984540054 * std_error, abs=1e-12 * scale)
    assert ours.value - ours.low == pytest.approx(1.959963984540054 * std_error, abs=1e-12 * scale)


def test_published_intervals():
    figures = [line.replace("[", "").replace("]", "").replace(",", "").split()[1:] for line in PUBLISHED.split("\n")]
    triples = [row[start : start + 3] for row in figures for start in range(0, len(row), 3)]
    assert len(triples) == 30
    for printed in triples:
        hits = round(1000 * float(printed[0]))
        estimate = jackknife(np.arange(1000) < hits)
        assert [f"{number:.3f}" for number in (estimate.value, estimate.low, estimate.high)] == printed


def test_says_how_it_was_made():
    low, high = pytest.approx(0.5 - 0.979982, abs=1e-6), pytest.approx(0.5 + 0.979982, abs=1e-6)
    assert jackknife(np.array([0, 1])) == Estimate(0.5, 0.5, low, high, 2, "jackknife-95")
    assert jackknife(np.array([0, 1]), 0.999).interval == "jackknife-99.9"


def test_one_item_has_a_value_and_no_interval(recwarn):
    estimate = jackknife(np.array([0.3]))
    assert (estimate.value, estimate.n) == (0.3, 1)
    assert np.isnan([estimate.std_error, estimate.low, estimate.high]).all()
    assert not recwarn


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 1 / 3])
def test_equal_items_have_an_interval_without_width(constant):
    estimate = jackknife(np.full(999, constant))
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([constant] * 3, abs=1e-15)


@pytest.mark.parametrize(
    ("values", "confidence", "message"),
    [
        ([], 0.95, "values must be one or more finite numbers; found none"),
        ([0.5, np.nan], 0.95, "values must be finite numbers; found 1 of 2 with NaN or infinity, the first at index 1"),
        ([np.inf], 0.95, "values must be finite numbers; found 1 of 1 with NaN or infinity, the first at index 0"),
        ([[0, 1]], 0.95, "values must be a list or an array with one dimension; found the shape (1, 2)"),
        (1.0, 0.95, "values must be a list or an array with one dimension; found the shape ()"),
        (["0.5"], 0.95, "values must be numbers; found texts"),
        (
            iter([0.5]),
            0.95,
            "values must be a list or an array of numbers; found a list_iterator: pass list(…)",
        ),
        ({"a": 0.5}, 0.95, "values must be a list or an array of numbers; found a dict"),
        ([0, 1], 0, "confidence must be between 0 and 1; found 0"),
        ([0, 1], 1, "confidence must be between 0 and 1; found 1"),
        ([0, 1], 2, "confidence must be between 0 and 1; found 2"),
        ([0, 1], 95, "confidence must be between 0 and 1; found 95"),
        ([0, 1], float("nan"), "confidence must be between 0 and 1; found nan"),
    ],
)
def test_refused(values, confidence, message):
    with pytest.raises(ValueError) as refusal:
        jackknife(values, confidence)
    assert str(refusal.value).startswith(message)


# ------------------------------------------------------------------------------------------------ any metric


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


def bleu(sums):
    """Compute corpus BLEU from sums of matches and n-grams of four orders, and candidate and reference lengths."""
    precisions = sums[..., :4] / sums[..., 4:8]
    brevity = np.minimum(0, 1 - sums[..., 9] / sums[..., 8])
    return np.exp(np.log(precisions).mean(axis=-1) + brevity)


def counts(n, seed=0):
    rng = np.random.default_rng(seed)
    length = rng.integers(5, 20, n)
    ngrams = np.stack([length - order for order in range(4)], axis=1)
    return np.hstack([rng.binomial(ngrams, [0.6, 0.3, 0.2, 0.1]), ngrams, length[:, None], length[:, None] + 2])


UNEQUAL = np.repeat(np.arange(12), np.arange(1, 13))  # groups of one, two, … twelve items


@pytest.mark.parametrize(("metric", "columns"), [(ratio, [0, 4]), (bleu, slice(None))], ids=["ratio", "BLEU"])
def test_equals_astropy_for_any_metric_up_to_the_bias(metric, columns):
    """Astropy centres the interval on the value less the bias; the kit centres it on the value."""
    statistics = counts(40)[:, columns]
    value, values = pseudo_values(statistics, metric)
    estimate, bias, std_error, interval = jackknife_stats(
        np.arange(40), lambda chosen: metric(statistics[chosen.astype(int)].sum(axis=0)), 0.9
    )
    ours = jackknife(values, 0.9, value=value)
    assert ours.value == metric(statistics.sum(axis=0)) == pytest.approx(estimate + bias, rel=1e-12)
    assert ours.std_error == pytest.approx(std_error, rel=1e-9)
    assert [ours.low, ours.high] == pytest.approx(interval + bias, rel=1e-9)
    assert abs(bias) > 1e-7  # otherwise the shift is not tested


def brute_force(statistics, metric, groups):
    """Return the standard error from leaving out each group and computing the metric again."""
    left_out = np.array([metric(statistics[groups != group].sum(axis=0)) for group in np.unique(groups)])
    n = len(left_out)
    return np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())


@pytest.mark.parametrize("groups", [np.arange(78), UNEQUAL], ids=["items", "groups"])
def test_equals_leaving_out_really_for_a_corpus_metric(groups):
    statistics = counts(78)
    value, values = pseudo_values(grouped(statistics, groups)[0], bleu)
    ours = jackknife(values, value=value)
    assert ours.value == pytest.approx(bleu(statistics.sum(axis=0)), rel=1e-14)
    assert ours.std_error == pytest.approx(brute_force(statistics, bleu, groups), rel=1e-9)
    assert ours.n == len(np.unique(groups))


def test_groups_of_a_mean_are_left_out_whole():
    values = np.random.default_rng(1).random(78)
    statistics = np.stack([values, np.ones(78)], axis=1)
    ours = jackknife(values, groups=UNEQUAL)
    assert ours.value == pytest.approx(values.mean(), rel=1e-15)
    assert ours.std_error == pytest.approx(brute_force(statistics, mean, UNEQUAL), rel=1e-12)
    assert ours.n == 12
    # The statistics give the same.
    value, of_groups = pseudo_values(grouped(statistics, UNEQUAL)[0], mean)
    assert jackknife(of_groups, value=value).std_error == pytest.approx(ours.std_error, rel=1e-12)


def test_five_captions_of_a_clip_are_no_five_clips():
    """With five equal values per clip, the interval by groups is that of the clips; without groups √5 too narrow."""
    clips = np.random.default_rng(2).random(50)
    values, groups = np.repeat(clips, 5), np.repeat(np.arange(50), 5)
    by_clip = jackknife(values, groups=groups)
    assert by_clip.std_error == pytest.approx(jackknife(clips).std_error, rel=1e-12)
    assert by_clip.std_error / jackknife(values).std_error == pytest.approx(np.sqrt(249 / 49), rel=1e-9)


def test_groups_may_be_named_in_any_way_and_order():
    values, shuffled = np.random.default_rng(3).random(78), np.random.default_rng(4).permutation(78)
    numbers = jackknife(values, groups=UNEQUAL)
    names = [f"clip, {'abcdefghijkl'[group]}.wav" for group in UNEQUAL]
    assert jackknife(values, groups=names) == numbers
    again = jackknife(values[shuffled], groups=-7 * UNEQUAL[shuffled])
    assert again.std_error == pytest.approx(numbers.std_error, rel=1e-12)


@pytest.mark.parametrize("values", ARRAYS.values(), ids=ARRAYS)
def test_groups_of_one_item_each_are_items(values):
    plain = jackknife(values)
    alone = jackknife(values, groups=np.arange(len(values))[::-1])
    scale = max(1.0, np.abs(np.asarray(values, float)).max())
    np.testing.assert_allclose([*vars(alone).values()][:4], [*vars(plain).values()][:4], rtol=0, atol=1e-12 * scale)
    assert (alone.n, alone.interval) == (plain.n, plain.interval)


def test_pseudo_values_of_a_mean_are_the_values():
    values = RANDOM.random(100)
    value, made = pseudo_values(np.stack([values, np.ones(100)], axis=1), mean)
    assert value == pytest.approx(values.mean(), rel=1e-15)
    np.testing.assert_allclose(made, values, rtol=0, atol=1e-13)


def test_pseudo_values_by_hand():
    np.testing.assert_allclose(from_left_out(2.0, np.array([1.0, 2.0, 4.0])), [4, 2, -2])


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_students_t(n, confidence):
    values = np.random.default_rng(n).random(n)
    ours = jackknife(values, confidence, t=True)
    low, high = scipy.stats.t.interval(confidence, n - 1, values.mean(), scipy.stats.sem(values))
    assert [ours.low, ours.high] == pytest.approx([low, high], rel=1e-10)
    assert ours.interval == f"jackknife-t-{100 * confidence:g}"


@pytest.mark.parametrize("t", [False, True])
@pytest.mark.parametrize(("values", "groups"), [([0.3], None), ([0.3], [7]), ([0.1, 0.5], [7, 7])])
def test_one_group_has_a_value_and_no_interval(recwarn, values, groups, t):
    estimate = jackknife(np.array(values), groups=groups, t=t)
    assert (estimate.value, estimate.n) == (pytest.approx(0.3), 1)
    assert np.isnan([estimate.std_error, estimate.low, estimate.high]).all()
    value, made = pseudo_values(np.array([[0.6, 2.0]]), mean)
    assert (value, made.tolist()) == (0.3, [0.3])
    assert not recwarn


@pytest.mark.parametrize("of", [jackknife, bootstrap])
def test_as_many_groups_as_values(of):
    with pytest.raises(ValueError, match="each value must have a group; found 2 groups for 3 values"):
        of(np.arange(3.0), groups=[1, 2])


# ------------------------------------------------------------------------------------------------ bootstrap


@pytest.mark.parametrize(("bca", "method"), [(False, "percentile"), (True, "BCa")])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_equals_scipy(bca, method, confidence):
    values = np.random.default_rng(5).exponential(size=30)  # skewed, so that the methods differ
    ours = bootstrap(values, confidence=confidence, bca=bca, resamples=999, seed=3)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, method=method, n_resamples=999, rng=3
    )
    assert ours.value == pytest.approx(values.mean(), rel=1e-14)
    assert [ours.low, ours.high, ours.std_error] == pytest.approx(
        [*theirs.confidence_interval, theirs.standard_error], rel=1e-9
    )
    assert (ours.n, ours.interval) == (30, f"bootstrap{'-bca' if bca else ''}-{100 * confidence:g}")


def test_bootstrap_of_a_corpus_metric_equals_scipy():
    statistics = counts(30)
    ours = bootstrap(statistics, bleu, bca=True, resamples=499, seed=1)
    theirs = scipy.stats.bootstrap(
        (np.arange(30),), lambda drawn: bleu(statistics[drawn].sum(axis=0)), vectorized=False, n_resamples=499, rng=1
    )
    assert [ours.low, ours.high] == pytest.approx([*theirs.confidence_interval], rel=1e-9)
    assert ours.low < ours.value < ours.high


def test_groups_are_drawn_whole():
    """Each draw has twelve groups of any size. Drawing them here with the same seed gives the same interval."""
    values = np.random.default_rng(1).random(78)
    ours = bootstrap(values, groups=UNEQUAL, resamples=499, seed=8)
    members = [values[group == UNEQUAL] for group in range(12)]
    draws = np.random.default_rng(8).integers(0, 12, (499, 12))
    means = [np.concatenate([members[group] for group in draw]).mean() for draw in draws]
    assert [ours.low, ours.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), rel=1e-12)
    assert (ours.std_error, ours.n) == (pytest.approx(np.std(means, ddof=1)), 12)


def test_the_seed_and_the_number_of_draws_decide():
    values = RANDOM.random(50)
    assert bootstrap(values) == bootstrap(values, seed=0, resamples=9999)
    assert bootstrap(values, resamples=99) == bootstrap(values, resamples=99)
    assert len({bootstrap(values, resamples=draws, seed=seed).low for draws in (99, 199) for seed in (0, 1)}) == 4


@pytest.mark.parametrize("bca", [False, True])
@pytest.mark.parametrize("values", [np.zeros(5), np.ones(5), np.full(21, 0.1), np.full(3, -7e5)])
@pytest.mark.parametrize("groups", [False, True])
def test_equal_items_have_a_bootstrap_interval_without_width(recwarn, values, bca, groups):
    ours = bootstrap(values, bca=bca, resamples=99, groups=np.arange(len(values)) // 2 if groups else None)
    assert ours.low == ours.value == ours.high == pytest.approx(values[0], rel=1e-12)
    assert ours.std_error == pytest.approx(0, abs=1e-9)
    assert not recwarn


@pytest.mark.parametrize("bca", [False, True])
def test_a_bootstrap_of_one_group(recwarn, bca):
    ours = bootstrap(np.array([0.2, 0.4]), groups=["a", "a"], bca=bca)
    assert (ours.value, ours.n) == (pytest.approx(0.3), 1)
    assert np.isnan([ours.std_error, ours.low, ours.high]).all()
    assert not recwarn


@pytest.mark.parametrize("bca", [False, True])
def test_draws_without_a_metric_give_no_interval(recwarn, bca):
    """Half of the items have a denominator of 0. The interval is unknown, not the value itself."""
    ours = bootstrap(np.array([[1.0, 1], [0, 1], [0, 0], [0, 0]]), ratio, bca=bca, resamples=99)
    assert ours.value == 0.5
    assert np.isnan([ours.low, ours.high]).all()
    assert not recwarn


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "values must be one or more finite numbers; found none"),
        ([0.5, np.nan], "values must be finite numbers; found 1 of 2 with NaN or infinity, the first at index 1"),
        ([[[1.0]]], "values must be an array with two dimensions; found the shape (1, 1, 1)"),
    ],
)
def test_refused_by_the_bootstrap(values, message):
    with pytest.raises(ValueError) as refusal:
        bootstrap(np.array(values))
    assert str(refusal.value).startswith(message)


def test_confidence_refused_by_the_bootstrap():
    with pytest.raises(ValueError, match="confidence must be between 0 and 1; found 95"):
        bootstrap(np.arange(3.0), confidence=95)
