"""The files of splits are located by their names, and missing ones are named."""

import pytest

from evaluation.data.split_files import CHOICE, MOMENTS, split_file, split_files
from evaluation.findings import BadRequest


def test_files_and_folders_of_splits(tmp_path):
    (tmp_path / "questions_evaluation").mkdir()
    (tmp_path / "questions_test").mkdir()
    (tmp_path / "moments_test").mkdir()  # only questions may be a folder
    for name in ("questions_test.jsonl", "questions_development.jsonl", "questions_other.jsonl", "moments_test.csv"):
        (tmp_path / name).touch()
    assert split_files(tmp_path, CHOICE) == {
        "development": tmp_path / "questions_development.jsonl",
        "evaluation": tmp_path / "questions_evaluation",
        "test": tmp_path / "questions_test.jsonl",
    }
    assert split_files(tmp_path, MOMENTS) == {}
    assert split_files(tmp_path / "nowhere", CHOICE) == {}
    assert split_file(tmp_path, CHOICE, "evaluation") == tmp_path / "questions_evaluation"
    with pytest.raises(BadRequest, match=r"questions_validation.jsonl: no such .*: development, evaluation, test$"):
        split_file(tmp_path, CHOICE, "validation")
    with pytest.raises(BadRequest, match=r"moments_test.jsonl: no such file; the splits in this folder: none$"):
        split_file(tmp_path, MOMENTS, "test")
