import math

import numpy as np
import pytest

from evaluation.inspection import charts


def test_a_mean_has_an_interval():
    bar = charts._mean_bar(np.array([0.0, 1.0, 0.5]), "words 3")
    margin = 1.96 * 0.5 / math.sqrt(3)
    assert (bar.low, bar.value, bar.high) == pytest.approx((0.5 - margin, 0.5, 0.5 + margin))
    assert bar.tooltip == "words 3: 0.500 over 3 (-0.066 to 1.066)"
    assert charts._mean_bar(np.array([0.5]), "words 3").low is None


def test_groups_have_about_equally_many_items():
    factor = np.repeat(np.arange(10.0), 3)
    uppers = charts.edges(factor)
    assert uppers == [1, 3, 5, 7, 9]
    assert charts.group_labels(factor, uppers) == ["0–1", "2–3", "4–5", "6–7", "8–9"]


@pytest.mark.parametrize(("value", "top"), [(0.0, 1), (0.61, 0.8), (1.0, 1), (23, 30)])
def test_the_vertical_axis_ends_at_a_round_number(value, top):
    assert charts._top([[charts.Bar(value, None, None, ""), None]]) == pytest.approx(top)
