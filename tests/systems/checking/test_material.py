"""The data folder of a check."""

from evaluation.data.check import check_dataset
from systems.checking import material


def test_the_data_folder_is_valid(tmp_path):
    material.make_data(tmp_path / "data")
    _, findings = check_dataset(tmp_path / "data")
    assert not [finding for finding in findings if finding.severity == "error"]
