"""The notebook that trains a system runs from its first cell to its last, and is stored without outputs."""

import pytest

from evaluation.scores import Score
from tests.brief import make_brief_soundscapes
from tests.notebooks import ROOT, read_notebook, run_notebook, tables

NOTEBOOK = ROOT / "systems" / "examples" / "training.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    make_brief_soundscapes(tmp_path / "data" / "small", development=12, validation=4, evaluation=4)
    outputs = run_notebook(read_notebook(NOTEBOOK), tmp_path, monkeypatch)
    epochs, scores, hardest = tables(outputs)
    assert "validation_loss" in epochs
    assert "signature: dcase-kit" in scores
    assert "mAP@10" in hardest
    assert [output for output in outputs if "image/png" in output]  # the loss curve
    assert [output for output in outputs if "<audio" in output.get("text/html", "")]
    assert "mAP@10" in Score.load(tmp_path / "runs" / "small" / "scores" / "evaluation.json").metrics
