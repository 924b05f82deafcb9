"""The example notebook runs from its first cell to its last, and is stored without outputs."""

from tests.notebooks import ROOT, read_notebook, run_notebook, tables

NOTEBOOK = ROOT / "evaluation" / "examples" / "scoring.ipynb"


def test_the_notebook_runs(tmp_path, monkeypatch):
    shown = tables(run_notebook(read_notebook(NOTEBOOK), tmp_path, monkeypatch))
    assert len(shown) == 8
    assert "rouge_l" in shown[0]
    assert "signature: dcase-kit" in shown[0]
    assert "bleu_4" in shown[3]  # the extended score
    assert (tmp_path / "captioner.json").is_file()
