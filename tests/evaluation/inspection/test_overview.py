import math

import numpy as np
import pytest

from evaluation.inspection import overview, requests
from evaluation.inspection.sounds import Sound
from tests.evaluation.inspection.small_pages import split_of, write_data, write_predictions, write_similarity


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "data", sound=False)


@pytest.fixture(scope="module")
def queries(data):
    split = split_of(data)
    worse = write_similarity(data / "worse.npz", data, own=-2)
    better = write_similarity(data / "better.npz", data, own=2)
    content, _ = requests.read_queries([worse, better], split, split.truth, ["mAP@10", "medR"])
    return content


def sounds_of(content):
    return [Sound(clip.path, float(number)) for number, clip in enumerate(content.split.clips)]


def test_metrics_and_differences(queries):
    made = overview.make_overview(queries, sounds_of(queries))
    metrics, differences = made.metrics
    assert metrics.heads == ["metric", "worse", "better", "chance"]
    assert [row[0] for row in metrics.rows] == ["mAP@10", "medR"]
    assert metrics.rows[0][1].startswith("0.250")
    assert metrics.rows[0][2].startswith("1.000")
    ((metric, system, difference, _),) = differences.rows
    assert (metric, system) == ("mAP@10", "better")
    assert difference.startswith("+0.750 (")


def test_charts_of_queries(queries):
    charts = overview.make_overview(queries, sounds_of(queries)).charts
    assert [chart.title for chart in charts] == [
        "AP@10 over queries",
        "Rank of the best right clip",
        "mAP@10 by length of the query",
        "mAP@10 by duration of the right clips",  # each query has one right clip, so that chart is left out
    ]
    ranks = charts[1]
    assert ranks.labels == ["1", "2", "3–5", "6–10", "11–20", "21–100", ">100", "none"]
    assert [bar.value for bar in ranks.series[0]] == [0, 0, 1, 0, 0, 0, 0, 0]
    assert [bar.value for bar in ranks.series[1]] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert ranks.series[1][0].tooltip == "rank 1: 8 of 8 (100.0%)"
    assert charts[3].labels == ["0", "1", "2", "3"]
    for chart in charts:
        assert all(len(bars) == len(chart.labels) for bars in chart.series)


def test_hubs_and_hard_clips(queries):
    hardest, easiest, *hubs = overview.make_overview(queries, sounds_of(queries)).tables
    assert hardest.title == "Hardest clips of better"
    assert len(easiest.rows) == len(easiest.clips) == 4
    assert [table.title for table in hubs] == ["Hubs of worse", "Hubs of better"]
    assert hubs[0].rows[0][1:] == ["8", "2"]


def test_captions(data):
    split = split_of(data)
    paths = [write_predictions(data / f"{name}.csv", data, text) for name, text in (("a", "A cat."), ("b", "Rain"))]
    content, _ = requests.read_descriptions(paths, split, ["rouge_l"], "")
    made = overview.make_overview(content, [Sound(clip.path) for clip in split.clips])
    assert "ROUGE-L by duration" not in [chart.title for chart in made.charts]
    vocabulary, repeated, _ = made.tables
    assert vocabulary.rows[1][0] == "a"
    assert vocabulary.rows[1][3:] == ["4 of 4", "2"]  # no reference has "cat" or "again"
    assert repeated.rows == []


def test_a_mean_has_an_interval():
    bar = overview._mean_bar(np.array([0.0, 1.0, 0.5]), "words 3")
    margin = 1.96 * 0.5 / math.sqrt(3)
    assert (bar.low, bar.value, bar.high) == pytest.approx((0.5 - margin, 0.5, 0.5 + margin))
    assert bar.tooltip == "words 3: 0.500 over 3 (-0.066 to 1.066)"
    assert overview._mean_bar(np.array([0.5]), "words 3").low is None


def test_groups_have_about_equally_many_items():
    factor = np.repeat(np.arange(10.0), 3)
    uppers = overview._edges(factor)
    assert uppers == [1, 3, 5, 7, 9]
    assert overview._labels(factor, uppers) == ["0–1", "2–3", "4–5", "6–7", "8–9"]


@pytest.mark.parametrize(("value", "top"), [(0.0, 1), (0.61, 0.8), (1.0, 1), (23, 30)])
def test_the_vertical_axis_ends_at_a_round_number(value, top):
    assert overview._top([[overview.Bar(value, None, None, ""), None]]) == pytest.approx(top)
