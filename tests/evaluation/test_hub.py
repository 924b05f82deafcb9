"""A name on the hub is recognised only where no folder is meant."""

from pathlib import Path

import pytest

from evaluation.hub import hub_name, prediction_folder


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["ann/spectra", "Ann-1/my_model.v2", "0/0"])
def test_names_on_the_hub(name):
    assert hub_name(Path(name)) == name
    assert prediction_folder(Path(name)) == Path("runs") / name.replace("/", "--")


@pytest.mark.parametrize(
    "path",
    ["runs/mine", "runs/missing", "runs", "missing", "/ann/spectra", "../ann/spectra", "./runs", "a/b/c", "a/é", "~/x"],
)
def test_folders(path):
    assert hub_name(Path(path)) is None
    assert prediction_folder(Path(path)) == Path(path)
