"""Run folders: the files that they must have to be packaged, and the metadata that come from them."""

from pathlib import Path

import numpy as np
import pytest

from evaluation import predictions
from evaluation.data.dataset import Clip, Split
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import captioning, retrieval
from submission import package, run_folders, tasks, teams


@pytest.mark.parametrize("file", ["config.yaml", "system.yaml", "predictions/other.csv"])
def test_all_missing_predictions_are_found_at_once(file, tmp_path):
    task = tasks.read("dcase2023-6a")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    files, findings = run_folders.find_predictions(
        task, tmp_path, {"test": "test", "analysis": "analysis"}, Path("data")
    )
    assert files == {}
    assert [Path(finding.file).name for finding in findings] == ["test.csv", "analysis.csv"]
    assert all("is missing, and dcase2023-6a needs it; make it: " in finding.message for finding in findings)


@pytest.mark.parametrize("file", ["", "checkpoints/best.ckpt"])
def test_a_folder_that_is_no_run(file, tmp_path):
    if file:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    with pytest.raises(BadRequest, match="must be a run folder"):
        run_folders.find_predictions(tasks.read("dcase2023-6a"), tmp_path, {}, Path("data"))


def test_predictions_of_the_other_kind_are_not_taken(tmp_path):
    """For retrieval, a retriever's table is used, but not a captioner's. For captioning, similarities are not used."""
    (tmp_path / "predictions").mkdir()
    table = tmp_path / "predictions" / "retrieval.csv"
    table.write_text("file_name,caption_predicted\n")
    task = tasks.read("dcase2022-6b")
    files, findings = run_folders.find_predictions(task, tmp_path, {"retrieval": "retrieval"}, Path("data"))
    assert files == {}
    assert len(findings) == 1
    table.write_text(",".join(task.header()))
    assert run_folders.find_predictions(task, tmp_path, {"retrieval": "retrieval"}, Path("data")) == (
        {"retrieval": table},
        [],
    )
    table.with_suffix(".npz").touch()
    files, _ = run_folders.find_predictions(task, tmp_path, {"retrieval": "retrieval"}, Path("data"))
    assert files == {"retrieval": table.with_suffix(".npz")}


def test_missing_predictions_of_all_runs_are_refused_together(small, team_file, tmp_path):
    task, runs, dataset = small("dcase2022-6b")
    for run in runs:
        (run / "predictions" / "retrieval.npz").unlink()
    with pytest.raises(Faulty) as refusal:
        package.make(task, runs, teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    errors = [finding.file for finding in refusal.value.findings]
    assert errors == [str(run / "predictions" / "retrieval.npz") for run in runs]


def test_a_run_of_both_tasks_has_a_score_of_each(small, team_file, tmp_path):
    """The score of the captions is not used for retrieval, nor the other way round."""
    names = ("dcase2022-6a", "dcase2022-6b")
    asked = {name: small(name) for name in names}  # in the same run folders
    split = Split("evaluation", tuple(Clip(f"{i}.wav", (f"Sound {i}.", "Rain."), Path()) for i in range(4)))
    said = predictions.Captions(split.file_names, tuple(clip.captions[0] for clip in split.clips))
    eye = np.eye(len(split.queries), 4, dtype=np.float32)
    found = {
        "captioning": captioning.evaluate(said, split, metrics=["rouge_l"]),
        "retrieval": retrieval.evaluate(split, predictions.Similarity(split.queries, split.file_names, eye)),
    }
    folder = tmp_path / "first" / "scores"

    def results(name):
        task, runs, dataset = asked[name]
        described, _, findings = run_folders.describe(task, runs[0], dataset)
        (values,) = described["results"].values()
        measured = [value for value in values.values() if value is not None]
        return len(measured), [str(one) for one in findings if "scores/" in one.file]

    found["retrieval"].save(folder / "evaluation.json")
    assert results(names[1])[0] == 4
    number, (finding,) = results(names[0])
    assert number == 0
    assert "warning: is the score of a retriever, but dcase2022-6a is for a captioner" in finding
    assert finding.endswith("rename it evaluation-retrieval.json, and score the captions into evaluation.json")
    found["captioning"].save(folder / "evaluation.json")
    number, (finding,) = results(names[1])
    assert number == 0
    assert finding.endswith("results; score the retrieval into evaluation-retrieval.json, in the same folder")
    found["retrieval"].save(folder / "evaluation-retrieval.json")
    assert results(names[1]) == (4, [])
    assert results(names[0]) == (1, [])
