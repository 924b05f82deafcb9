"""The example notebooks: read them, run them in a temporary folder, and look at what they show."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook, and check that it is valid and stored without outputs."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    return notebook


def run_notebook(notebook: NotebookNode, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Run a notebook in a folder.

    Returns:
        What the cells show: for each output, a dict from its media types to their contents.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "jupyter"))
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = []
    for cell in done.cells:
        for output in cell.get("outputs", []):
            outputs.append(output.get("data", {"text/plain": output.get("text", "")}))
    return outputs


def tables(outputs: list[dict[str, str]]) -> list[str]:
    """Return the HTML of the tables that a notebook shows."""
    pages = [output.get("text/html", "") for output in outputs]
    return [page for page in pages if "<table" in page]
