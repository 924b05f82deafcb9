import pytest

from evaluation.inspection import captioning, overview, retrieval
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
    content, _ = retrieval.read_queries([worse, better], split, split.truth, ["mAP@10", "medR"])
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
    content, _ = captioning.read_descriptions(paths, split, ["rouge_l"], "")
    made = overview.make_overview(content, [Sound(clip.path) for clip in split.clips])
    assert "ROUGE-L by duration" not in [chart.title for chart in made.charts]
    vocabulary, repeated, _ = made.tables
    assert vocabulary.rows[1][0] == "a"
    assert vocabulary.rows[1][3:] == ["4 of 4", "2"]  # no reference has "cat" or "again"
    assert repeated.rows == []
