import numpy as np
import pytest
from astropy.stats import jackknife_stats

from evaluation.intervals import Estimate, jackknife

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

# Xie et al. 2022, Table 2: R@1, R@5 and R@10 of the top system of each team with the printed 95 % intervals; 1000
# queries with one relevant clip each. A mean of three decimals over 1000 zeros and ones tells how many ones there are,
# so the intervals follow. All 30 agree in every printed digit. (Those of mAP@10 would need the queries' own values.)
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
    """Efron's definition, by its letter."""
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
        (
            [],
            0.95,
            "values must be one or more finite numbers in one dimension, but array([], dtype=float64) was given",
        ),
        ([0.5, np.nan], 0.95, "values must be one or more finite numbers in one dimension, but array([0.5, nan]) was"),
        ([np.inf], 0.95, "values must be one or more finite numbers in one dimension, but array([inf]) was given"),
        ([[0, 1]], 0.95, "values must be one or more finite numbers in one dimension, but array([[0., 1.]]) was given"),
        (1.0, 0.95, "values must be one or more finite numbers in one dimension, but array(1.) was given"),
        ([0, 1], 0, "confidence must lie between 0 and 1, but 0 was given"),
        ([0, 1], 1, "confidence must lie between 0 and 1, but 1 was given"),
        ([0, 1], 2, "confidence must lie between 0 and 1, but 2 was given"),
        ([0, 1], 95, "confidence must lie between 0 and 1, but 95 was given"),
        ([0, 1], float("nan"), "confidence must lie between 0 and 1, but nan was given"),
    ],
)
def test_refused(values, confidence, message):
    with pytest.raises(ValueError) as refusal:
        jackknife(np.array(values), confidence)
    assert str(refusal.value).startswith(message)
