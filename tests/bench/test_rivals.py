"""The kit and other libraries give the same metrics for the same files, except where `bench/README.md` says why not."""

import csv

import numba
import numpy as np
import pytest

from bench import rivals
from evaluation.metrics.java import lay_out_jars

CLIPS = [f"clip{number}.wav" for number in range(16)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small files of the three kinds. In the matrix, each query has one relevant clip; in the run, up to three."""
    folder = tmp_path_factory.mktemp("rivals")
    lay_out_jars(folder / "cache")
    rng = np.random.default_rng(0)
    words = ["a", "dog", "barks", "rain", "falls", "on", "the", "roof"]
    captions = {}
    for name in CLIPS:
        captions[name] = [f"{' '.join(rng.choice(words, 6))} {name[4:-4]} {number}" for number in range(2)]
    with (folder / "captions_evaluation.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["file_name", "caption_1", "caption_2"], *([name, *captions[name]] for name in CLIPS)]
        )
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["fname", "cands"], *([name, " ".join(rng.choice(words, 5))] for name in CLIPS)])
    truth = {caption: frozenset([name]) for name in CLIPS for caption in captions[name]}
    rivals.write_matrix(folder, truth, CLIPS, rng)
    several = {f"q{row}": frozenset(rng.choice(CLIPS, 1 + row % 3, replace=False)) for row in range(12)}
    rivals.write_run(folder, several, CLIPS, rng)
    return folder


@pytest.fixture
def positive(folder, tmp_path):
    """The same files with positive scores: torchmetrics counts clips with other scores as not relevant."""
    saved = dict(np.load(folder / "scores.npz"))
    np.savez(tmp_path / "scores.npz", **{**saved, "scores": saved["scores"] + 2})
    (tmp_path / "captions_evaluation.csv").symlink_to(folder / "captions_evaluation.csv")
    return tmp_path


def test_captions(folder, monkeypatch):
    monkeypatch.setattr(rivals, "CAPTION_METRICS", ["bleu_1", "bleu_4", "rouge_l", "cider_d"])  # METEOR takes long
    ours, theirs = rivals.captions_kit(folder), rivals.captions_aac_metrics(folder)
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("library", ["ranx", "pytrec_eval"])
@pytest.mark.parametrize("kind", ["matrix", "run"])
def test_rankings(kind, library, folder, monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)  # compiling ranx's functions takes 20 s
    ours = getattr(rivals, f"{kind}_kit")(folder)
    theirs = getattr(rivals, f"{kind}_{library}")(folder)
    assert {"mAP@10", "R@1", "R@5", "R@10"} <= theirs.keys()
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)


def test_torchmetrics_agrees_for_positive_scores(positive):
    ours, theirs = rivals.matrix_kit(positive), rivals.matrix_torchmetrics(positive)
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_torchmetrics_drops_clips_that_are_not_positive(positive):
    saved = dict(np.load(positive / "scores.npz"))
    np.savez(positive / "scores.npz", **{**saved, "scores": saved["scores"] - 4})
    assert rivals.matrix_torchmetrics(positive)["mAP@10"] == 0
    assert rivals.matrix_kit(positive)["mAP@10"] > 0


def test_torchmetrics_divides_by_the_clips_it_finds():
    import torch
    from torchmetrics.functional.retrieval import retrieval_average_precision

    from evaluation.metrics import retrieval

    found = retrieval_average_precision(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([1, 0, 1]), top_k=2)
    score = retrieval.evaluate({"q": ["a", "c"]}, {"q": {"a": 0.9, "b": 0.5, "c": 0.1}}, metrics=["mAP@2"])
    assert (float(found), score.metrics["mAP@2"].estimate.value) == (1, 0.5)


def test_lines_of_code_are_those_of_the_body():
    assert rivals.lines_of_code(rivals.run_ranx) == 6


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        ({"R@1": 0.25, "MRR": 0.5}, "all 2 values agree"),
        ({"R@1": 0.25, "MRR": 0.625}, "MRR differs: 0.500000 and 0.625000"),
    ],
)
def test_agreement(theirs, text):
    assert rivals.agreement({"R@1": 0.25, "mAP@10": 0.5, "MRR": 0.5}, theirs) == text
