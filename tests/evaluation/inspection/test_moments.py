import numpy as np
import pytest

from evaluation.inspection.content import Request
from evaluation.inspection.moments import read_page
from tests.evaluation.inspection.small_pages import write_recordings

QUERIES = (("a dog", "one", [[4, 8]]), ("rain", "one", [[0, 5], [10, 15]]), ("a bell", "two", [[2, 6]]))
SCORED = ([[0, 2, 0.1], [4, 8, 0.9]], [[0, 4, 0.5]], [[3, 3, 0.2], [2, 7, 0.1]])
BLIND = ([[4, 8]], [[18, 20], [10, 15]], [[2, 6]] * 12)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    data, paths = write_recordings(tmp_path_factory.mktemp("moments"), QUERIES, SCORED, BLIND)
    return read_page(Request(paths, data))[0]


def test_windows_are_best_first_with_their_iou(content):
    scored, blind = content.data()["answers"]
    assert scored["windows"][0] == [[4, 8, 0.9, 1], [0, 2, 0.1, 0]]
    assert scored["first"] == [1, 0, 0]  # R1 uses the first window of the file
    assert scored["recalled"] == [[False, False], [True, True], [False, False]]
    assert scored["windows"][2] == [[3, 3, 0.2, 0], [2, 7, 0.1, 0.8]]
    assert blind["windows"][1] == [[18, 20, None, 0], [10, 15, None, 1]]
    assert len(blind["windows"][2]) == 10
    for system, answers in zip(content.systems, (scored, blind), strict=True):
        for place, metric in enumerate(("R1@0.5", "R1@0.7")):
            assert [row[place] for row in answers["recalled"]] == system.score.items.values[metric].tolist()


def test_recordings_have_their_sounds(content):
    assert [clip.file_name for clip in content.clips] == ["one", "two"]
    assert all(clip.path.is_file() for clip in content.clips)
    assert (content.split_name, content.clip_of_query) == ("evaluation", [0, 0, 1])
    assert content.item_metrics(content.systems[0].score)[0] == "mAP"


def test_charts_and_lists(content):
    values = [system.score.items.values["mAP"] for system in content.systems]
    charts = content.charts("mAP", values, np.array([20.0, 20.0]))
    assert [chart.title for chart in charts if chart] == [
        "AP over queries",
        "IoU of the first window over queries",
        "mAP by number of right windows",
        "mAP by mean length of the right windows",
    ]
    hardest, easiest, lengths = content.tables("mAP", values)
    assert (hardest.title, easiest.title) == ("Hardest recordings of 1", "Easiest recordings of 1")
    assert [row[0] for row in hardest.rows] == ["one", "two"]
    assert lengths.rows[0] == ["right windows", "4.0", "4.5", "5.0"]


def test_a_recording_without_sound(tmp_path):
    data, paths = write_recordings(tmp_path, QUERIES, SCORED)
    (data / "evaluation" / "two.wav").unlink()
    content = read_page(Request(paths, data / "moments_evaluation.jsonl"))[0]
    assert [clip.path.is_file() for clip in content.clips] == [True, False]
