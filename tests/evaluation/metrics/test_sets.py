import pytest

from evaluation.findings import Faulty
from evaluation.metrics.catalogue import CAPTIONING
from evaluation.metrics.sets import MetricSet, year_sets

BASE = "kind: captioning\nmetrics:\n  value: [cider_d, spice]\ninterval:\n  value: bootstrap\n"


def test_the_metric_that_ranks_in_each_year():
    first = {name: metric_set.metrics[0] for name, metric_set in year_sets("captioning").items()}
    assert first == {
        "dcase2020": "spider",
        "dcase2021": "spider",
        "dcase2022": "spider",
        "dcase2023": "spider_fl",
        "dcase2024": "fense",
    }
    for metric_set in year_sets("captioning").values():
        assert set(metric_set.metrics) <= set(CAPTIONING)
    first = {name: metric_set.metrics[0] for name, metric_set in year_sets("retrieval").items()}
    assert first == {"dcase2022": "mAP@10", "dcase2023": "mAP@10", "dcase2024": "mAP@10", "dcase2025": "mAP@16"}


def test_a_new_year_is_a_new_file(tmp_path):
    (tmp_path / "dcase2030-1.yaml").write_text(BASE)
    (tmp_path / "dcase2031-1.yaml").write_text("extends: dcase2030-1\ninterval: null\nmetrics:\n  source: a page\n")
    (tmp_path / "dcase2032-2.yaml").write_text("extends: dcase2031-1\nmetrics:\n  value: [fense]\n")
    assert year_sets("captioning", tmp_path) == {
        "dcase2030": MetricSet(("cider_d", "spice"), "bootstrap"),
        "dcase2031": MetricSet(("cider_d", "spice"), "jackknife"),
        "dcase2032": MetricSet(("fense",), "jackknife"),
    }
    assert year_sets("retrieval", tmp_path) == {}


def test_two_tasks_of_one_kind_in_one_year_keep_both_sets(tmp_path):
    (tmp_path / "dcase2030-1.yaml").write_text(BASE)
    (tmp_path / "dcase2030-2.yaml").write_text("extends: dcase2030-1\nmetrics:\n  value: [fense]\n")
    (tmp_path / "dcase2030-3.yaml").write_text("kind: retrieval\nmetrics:\n  value: [mAP@10]\n")
    assert year_sets("captioning", tmp_path) == {
        "dcase2030-1": MetricSet(("cider_d", "spice"), "bootstrap"),
        "dcase2030-2": MetricSet(("fense",), "bootstrap"),
    }
    assert year_sets("retrieval", tmp_path) == {"dcase2030": MetricSet(("mAP@10",), "jackknife")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: [", "dcase2031-1.yaml: error: must be YAML ("),
        ("- kind", "dcase2031-1.yaml: error: must be a mapping of keys to facts"),
        ("extends: dcase2030", "dcase2031-1.yaml: extends: error: must name another task; unknown task 'dcase2030'"),
        ("extends: dcase2031-1", "extends: error: must not lead back to the task itself; found dcase2031-1 -> dcase"),
        (
            "kind: captioning",
            "dcase2031-1.yaml: metrics.value: error: must be a list of metrics; the first one decides",
        ),
        ("kind: captioning\nmetrics: {value: []}", "metrics.value: error: must be a list of metrics"),
    ],
)
def test_task_files_that_cannot_be_read(text, message, tmp_path):
    (tmp_path / "dcase2030-1.yaml").write_text(BASE)
    (tmp_path / "dcase2031-1.yaml").write_text(text)
    with pytest.raises(Faulty) as refusal:
        year_sets("captioning", tmp_path)
    assert message in str(refusal.value)
