"""In another folder, a notebook of a few lines scores files of other code bases, and reaches the expected figures.

The captions are CoNeTTE's, with their published figures. The embeddings are random vectors, one for each of the 1,045
clips and 5,225 captions of Clotho's evaluation split. Plain numpy computes their figures.
"""

import numpy as np
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell

from evaluation.data.convert import convert_captions
from evaluation.scores import Score
from tests.notebooks import ROOT, read_notebook, run_notebook, tables

NOTEBOOK = ROOT / "evaluation" / "examples" / "other_files.ipynb"
CONETTE = "conette_outputs_clotho_eval.csv"
GOLDEN = "clotho_eval/best_fense.cands."  # the prefix of CoNeTTE's published figures


@pytest.fixture(scope="module")
def golden(shared):
    """The folder with CoNeTTE's predictions and their figures."""
    return shared / "golden"


def code_lines(notebook):
    lines = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            lines += [line for line in cell.source.splitlines() if line.strip()]
    return lines


def test_both_files_need_less_than_ten_lines():
    assert len(code_lines(read_notebook(NOTEBOOK))) < 10


def save_embeddings(folder, captions):
    """Write embeddings of clips and captions as a dual encoder's script would.

    Args:
        folder: The output folder.
        captions: DataFrame with the captions of each clip in a row.

    Returns:
        The embeddings of the texts and of the clips.
    """
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((len(captions), 64), dtype=np.float32)
    texts = np.repeat(clips, captions.shape[1], axis=0) + 3 * rng.standard_normal((captions.size, 64), dtype=np.float32)
    names, sentences = captions.index.tolist(), captions.to_numpy().ravel()
    _, first, sentence_of_row = np.unique(sentences, return_index=True, return_inverse=True)
    texts = texts[first[sentence_of_row]]  # a sentence that two clips share has one embedding
    np.savez(folder / "audio.npz", audio_embeds=clips, file_names=np.array(names))
    np.savez(folder / "text.npz", text_embeds=texts, captions=sentences.astype(str))
    return texts, clips


def plain_figures(texts, clips, captions):
    """Return mAP@10 and R@k of the distinct captions, by plain numpy."""
    texts, clips = texts.astype(np.float64), clips.astype(np.float64)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    clips /= np.linalg.norm(clips, axis=1, keepdims=True)
    sentences = captions.to_numpy().ravel()
    values = []
    for sentence in dict.fromkeys(sentences):
        rows = np.flatnonzero(sentences == sentence)
        relevant = set(rows // captions.shape[1])
        hits = np.isin(np.argsort(-clips @ texts[rows[0]]), list(relevant))
        precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        average_precision = (precisions * hits)[:10].sum() / len(relevant)
        recalls = [hits[:k].sum() / len(relevant) for k in (1, 5, 10)]
        values.append([average_precision, *recalls])
    return dict(zip(["mAP@10", "R@1", "R@5", "R@10"], np.mean(values, axis=0), strict=True))


def test_the_notebook_reaches_the_golden_figures(golden, tmp_path, monkeypatch):
    (tmp_path / CONETTE).symlink_to(golden / CONETTE)
    written = convert_captions(tmp_path / CONETTE, tmp_path / "data", "evaluation")
    references = pd.read_csv(written.path, index_col="file_name", keep_default_na=False)
    texts, clips = save_embeddings(tmp_path, references)

    notebook = read_notebook(NOTEBOOK)
    # This cell is not a part of the notebook. It saves what the second and third cell show, at full precision.
    notebook.cells.append(new_code_cell('Out[2].save("captions.json")\nOut[3].save("retrieval.json")'))
    shown = tables(run_notebook(notebook, tmp_path, monkeypatch))
    assert ["cider_d" in shown[0], "mAP@10" in shown[1]] == [True, True]

    published = yaml.safe_load((golden / "conette_scores_clotho_eval.yaml").read_text(encoding="utf-8"))
    for name, measured in Score.load(tmp_path / "captions.json").metrics.items():
        assert measured.estimate.value == pytest.approx(published[GOLDEN + name], abs=1e-12)
    expected = plain_figures(texts, clips, references)
    found = {name: value.estimate.value for name, value in Score.load(tmp_path / "retrieval.json").metrics.items()}
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0.05 < found["mAP@10"] < 0.95
