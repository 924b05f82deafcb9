"""The hub can read the model card: its metadata are valid, with the scores and their intervals."""

import math
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from evaluation import scores
from evaluation.__main__ import parser as scoring
from evaluation.cli import command
from tests.systems.sharing.conftest import systems


@pytest.fixture
def scored(runs, data, tmp_path):
    run = shutil.copytree(runs("systems.examples.spectra"), tmp_path / "run")
    words = ["score", "retrieval", "--truth", data, "--split", "evaluation", "--prediction"]
    words += [run / "predictions" / "evaluation.npz", "--json", run / "scores" / "evaluation.json"]
    assert command(scoring(), [str(word) for word in words]) == 0
    return run


def test_the_hub_reads_the_metadata_and_the_scores(scored, data, tmp_path):
    assert systems("export", scored, tmp_path / "my-model", "--data", data) == 0
    card = ModelCard.load(tmp_path / "my-model" / "README.md")
    assert card.data.library_name == "dcase-kit"
    assert card.data.language == ["en"]
    assert card.data.license is None
    assert card.data.pipeline_tag == "feature-extraction"
    assert card.data.model_name == "my-model"
    score = scores.Score.load(scored / "scores" / "evaluation.json")
    assert [result.metric_type for result in card.data.eval_results] == list(score.metrics)
    for result in card.data.eval_results:
        estimate = score.metrics[result.metric_type].estimate
        assert result.metric_value == estimate.value
        assert result.metric_args["low"] == estimate.low
        assert result.metric_args["interval"] == estimate.interval
        assert (result.dataset_name, result.dataset_split) == (data.name, "evaluation")
        assert result.dataset_args["digest"] in score.signature
        assert math.isfinite(result.metric_value)
    assert f"Trained on: {data.name}\n" in card.text
    assert "| 11 | 55 |\n" in card.text
    assert score.signature in card.text
    assert "The repository contains all weights." in card.text
    block = card.text.partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(block) == {"steps": 2, "learning_rate": 0.01}


def test_what_the_run_does_not_know_is_to_be_filled_in(exported):
    text = (exported / "README.md").read_text()
    assert text.startswith("---\nlicense:  # fill in: such as mit")
    assert "datasets: []  # fill in" in text
    assert "Trained on: (to be filled in)" in text
    assert "(to be filled in) The run had no scores when it was exported." in text
    assert "model-index" not in text
    card = ModelCard(text)
    assert card.data.eval_results is None
    assert card.data.tags == ["audio", "dcase", "audio-retrieval", "text-to-audio-retrieval"]


def test_a_captioner_has_no_pipeline_of_the_hub(runs, tmp_path):
    assert systems("export", runs("baseline.captioner"), tmp_path / "shared") == 0
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.pipeline_tag is None
    assert card.data.tags == ["audio", "dcase", "audio-captioning"]


def test_a_damaged_score_is_refused(scored, tmp_path, capsys):
    (scored / "scores" / "evaluation.json").write_text("{}")
    assert systems("export", scored, tmp_path / "shared") == 1
    assert "evaluation.json: signature: error: is missing" in capsys.readouterr().err
    assert not (tmp_path / "shared").exists()
