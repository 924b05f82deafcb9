import pytest

from evaluation.inspection.captioning import collect_descriptions
from evaluation.predictions import read_captions
from tests.evaluation.inspection.small_pages import NAMES, split_of, write_data, write_predictions


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return split_of(write_data(tmp_path_factory.mktemp("data") / "data", sound=False))


def test_captions_are_in_the_order_of_the_split(split, tmp_path):
    path = write_predictions(tmp_path / "p.csv", split.source.parent, "A cat.")
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], *lines[:0:-1]]), encoding="utf-8")
    content = collect_descriptions(split, {"one": ((path, read_captions(path)), None)})
    assert content.systems[0].captions[0] == "A cat."
    assert content.systems[0].log_probabilities == [-1.5, -2.5, -3.5, -4.5]


def test_captions_without_log_probabilities(split, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("file_name,caption_predicted\n" + "".join(f"{name},Rain.\n" for name in NAMES), encoding="utf-8")
    content = collect_descriptions(split, {"one": ((path, read_captions(path)), None)})
    assert content.systems[0].log_probabilities is None
