import numpy as np
import pytest

from evaluation.findings import BadRequest, Faulty
from evaluation.inspection.choice import read_page
from evaluation.inspection.content import Request
from tests.evaluation.inspection.small_pages import write_questions

QUESTIONS = (
    ("What is it?", ["rain", "a dog"], "kind", "A"),
    ("How many dogs?", ["two", "one", "no dog"], "count", "A"),
    ("What is it?", ["rain", "wind"], "kind", "B"),
)
CHOSEN = ((0, 1), (1, 0), (1, 1))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("choice"), QUESTIONS, CHOSEN)


@pytest.fixture(scope="module")
def content(files):
    data, paths = files
    return read_page(Request(paths, data))[0]


def test_options_and_answers(content):
    data = content.data()
    assert content.split_name == "evaluation"
    assert data["right"] == [0, 0, 0]
    assert data["chosen"] == [[0, 1, 1], [1, 0, 1]]
    assert data["options"][1] == ["two", "one", "no dog"]
    assert (data["types"][1], data["parts"][2], data["clipOf"]) == ("count", "B", [0, 1, 2])
    assert [clip.path.is_file() for clip in content.clips] == [True] * 3


def test_questions_only_show_the_accuracy(content, files):
    score = content.systems[0].score
    assert "macro_types" in score.metrics
    assert content.item_metrics(score) == ["accuracy"]
    with pytest.raises(BadRequest, match="a value for each of the questions; found macro_types"):
        read_page(Request(files[1], files[0], metrics=["macro_types"]))


def test_lists(content):
    positions, first, second = content.tables("accuracy", [])
    assert positions.rows == [
        ["right options", "100.0%", "0.0%", "0.0%"],
        ["0", "33.3%", "66.7%", "0.0%"],
        ["1", "33.3%", "66.7%", "0.0%"],
    ]
    assert first.rows == [["two", "one", "1"], ["rain", "wind", "1"]]
    assert second.note == "2 of 3 answers are wrong."


def test_charts(content):
    values = [system.score.items.values["accuracy"] for system in content.systems]
    options, words, duration = content.charts("accuracy", values, np.array([1.0, 1.0, 2.0]))
    assert words is None  # all questions have three words
    assert (options.labels, duration.labels) == (["2", "3"], ["1", "2"])
    assert [bar.value for bar in options.series[1]] == [0, 1]


def test_findings_of_all_predictions_are_reported(files, tmp_path):
    paths = []
    for name in ("a", "b"):
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text("question,answer\nq0,rain\n")
    with pytest.raises(Faulty) as raised:
        read_page(Request(paths, files[0]))
    assert [finding.file for finding in raised.value.findings] == [str(paths[0])] * 2 + [str(paths[1])] * 2
