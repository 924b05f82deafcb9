"""The example notebook runs from its first cell to its last, and is stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "evaluation" / "examples" / "scoring.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_stored_without_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = []
    for cell in done.cells:
        for output in cell.get("outputs", []):
            shown.append(output.get("data", {}).get("text/html", ""))
    tables = [page for page in shown if "<table" in page]
    assert len(tables) == 8
    assert "rouge_l" in tables[0]
    assert "signature: dcase-kit" in tables[0]
    assert "bleu_4" in tables[3]  # the extended score
    assert (tmp_path / "captioner.json").is_file()
