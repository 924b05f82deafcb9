"""Measures of retrieval: intervals, scoring, search and reading, compared with other libraries."""

import warnings
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from bench.measuring import CLIPS, CLOTHO, Function, Measure, Row, clotho, duration, race, times
from evaluation import predictions
from evaluation.data.dataset import Split, read_dataset
from evaluation.metrics import retrieval
from evaluation.statistics.intervals import jackknife

if TYPE_CHECKING:
    from torch import Tensor


def intervals(alone: Function, folder: Path) -> list[Row]:
    """Measure the jackknife in closed form, compared with astropy's."""
    n = 5 * CLIPS["evaluation"]
    ours, theirs = alone(_intervals, n)
    return [Row(f"jackknife, n = {n} / astropy", duration(ours), duration(theirs), times(theirs / ours))]


def _intervals(n: int) -> list[float]:
    from astropy.stats import jackknife_stats

    values = np.random.default_rng(0).random(n)
    ours, (value, _, error, ends) = jackknife(values), jackknife_stats(values, np.mean, 0.95)
    assert np.allclose([ours.value, ours.std_error, ours.low, ours.high], [value, error, *ends])
    return race(lambda: jackknife(values), lambda: jackknife_stats(values, np.mean, 0.95), rounds=3)


def scoring(alone: Function, folder: Path) -> list[Row]:
    """Measure four metrics of a similarity matrix of the size of Clotho's evaluation split.

    The kit, which also computes intervals, is compared with other libraries. All start from the matrix and the truth,
    so the time to convert these to a library's format counts.
    """
    data = clotho(folder)
    rows = []
    for library in ("ranx", "pytrec_eval", "torchmetrics"):
        (queries, clips), ours, theirs, metrics = alone(_scoring, data, library)
        what = f"scoring {queries} queries x {clips} clips, with intervals / {library}"
        note = f"without conversion, its metrics take {duration(metrics)}"
        if library == "ranx":
            note += "; it scores only the 10 best clips"
        rows.append(
            Row(what, duration(ours), duration(theirs), times(theirs / ours), "≥ 10x", theirs / ours >= 10, note)
        )
    return rows


def _scoring(data: Path, library: str) -> tuple[tuple[int, int], float, float, float]:
    split = read_dataset(data, "evaluation", sound=False)["evaluation"]
    scores = np.random.default_rng(0).random((len(split.queries), len(split.clips)), np.float32)
    warnings.simplefilter("ignore")  # ranx and numba print many warnings
    libraries = {"ranx": _ranx, "pytrec_eval": _pytrec_eval, "torchmetrics": _torchmetrics}
    convert, metrics = libraries[library](split, scores)

    def ours() -> list[float]:
        score = retrieval.evaluate(split, predictions.Similarity(split.queries, split.file_names, scores))
        return [score.metrics[name].estimate.value for name in ("mAP@10", "R@1", "R@5", "R@10")]

    converted = convert()
    assert np.allclose(ours(), metrics(*converted), rtol=0, atol=1e-6)  # torchmetrics uses single precision
    our_seconds, their_seconds, their_metrics_seconds = race(
        ours, lambda: metrics(*convert()), lambda: metrics(*converted), rounds=2
    )
    return scores.shape, our_seconds, their_seconds, their_metrics_seconds


def _ranx(split: Split, scores: np.ndarray) -> tuple[Function, Function]:
    import ranx

    def convert() -> tuple[ranx.Qrels, ranx.Run]:
        best = np.argpartition(-scores, 10, axis=1)[:, :10]  # with all clips, ranx takes minutes
        best_scores = np.take_along_axis(scores, best, axis=1)
        run = {}
        for query, clips, row in zip(split.queries, best.tolist(), best_scores.tolist(), strict=True):
            names = [split.file_names[clip] for clip in clips]
            run[query] = dict(zip(names, row, strict=True))
        truth = {query: dict.fromkeys(names, 1) for query, names in split.truth.items()}
        return ranx.Qrels(truth), ranx.Run(run)

    def metrics(qrels: ranx.Qrels, run: ranx.Run) -> list[float]:
        return list(ranx.evaluate(qrels, run, ["map@10", "recall@1", "recall@5", "recall@10"]).values())

    return convert, metrics


def _pytrec_eval(split: Split, scores: np.ndarray) -> tuple[Function, Function]:
    from pytrec_eval import RelevanceEvaluator

    def convert() -> tuple[RelevanceEvaluator, dict[str, dict[str, float]]]:
        truth = {query: dict.fromkeys(names, 1) for query, names in split.truth.items()}
        rows = zip(split.queries, scores.tolist(), strict=True)
        run = {query: dict(zip(split.file_names, row, strict=True)) for query, row in rows}
        return RelevanceEvaluator(truth, {"map_cut.10", "recall.1,5,10"}), run

    def metrics(evaluator: RelevanceEvaluator, run: dict[str, dict[str, float]]) -> list[float]:
        by_query = evaluator.evaluate(run).values()
        names = ("map_cut_10", "recall_1", "recall_5", "recall_10")
        return [fmean(query[name] for query in by_query) for name in names]

    return convert, metrics


def _torchmetrics(split: Split, scores: np.ndarray) -> tuple[Function, Function]:
    import torch
    from torchmetrics.retrieval import RetrievalMAP, RetrievalRecall

    def convert() -> "tuple[Tensor, Tensor, Tensor]":
        columns = {name: column for column, name in enumerate(split.file_names)}
        target = np.zeros(scores.shape, dtype=bool)
        for row, query in enumerate(split.queries):
            target[row, [columns[name] for name in split.truth[query]]] = True
        indexes = torch.arange(len(scores)).repeat_interleave(scores.shape[1])
        return torch.from_numpy(scores).flatten(), torch.from_numpy(target).flatten(), indexes

    def metrics(scores: "Tensor", target: "Tensor", indexes: "Tensor") -> list[float]:
        measures = [RetrievalMAP(top_k=10), *(RetrievalRecall(top_k=k) for k in (1, 5, 10))]
        return [float(metric(scores, target, indexes=indexes)) for metric in measures]

    return convert, metrics


def search(alone: Function, folder: Path) -> list[Row]:
    """Measure exact search in many clips without a matrix of all scores, compared with faiss."""
    queries, clips, size, k = 10_000, 100_000, 512, 16
    ours, theirs, search_only = alone(_search, queries, clips, size, k)
    what = f"the {k} best of {clips} clips for {queries} queries, {size} floats each / faiss, IndexFlatIP"
    note = f"without building the index, its search takes {duration(search_only)}"
    return [Row(what, duration(ours), duration(theirs), times(theirs / ours), note=note)]


def _search(queries: int, clips: int, size: int, k: int) -> list[float]:
    import faiss

    rng = np.random.default_rng(0)
    query_vectors = rng.standard_normal((queries, size), np.float32)
    clip_vectors = rng.standard_normal((clips, size), np.float32)

    def build_index() -> faiss.IndexFlatIP:
        index = faiss.IndexFlatIP(size)
        index.add(clip_vectors)
        return index

    index = build_index()
    _, scores = retrieval.top_k(query_vectors, clip_vectors, k)
    assert np.allclose(scores, index.search(query_vectors, k)[0], rtol=0, atol=1e-3)
    return race(
        lambda: retrieval.top_k(query_vectors, clip_vectors, k),
        lambda: build_index().search(query_vectors, k),
        lambda: index.search(query_vectors, k),
        rounds=2,
    )


def reading(alone: Function, folder: Path) -> list[Row]:
    """Measure reading and checking Clotho's caption files, compared with pandas."""
    data = clotho(folder)
    ours, theirs = alone(_reading, data)
    what = "reading and checking Clotho's three caption files / pandas.read_csv"
    note = "" if data == CLOTHO else "random captions of Clotho's size"
    return [Row(what, duration(ours), duration(theirs), times(theirs / ours), "< 1 s", ours < 1, note)]


def _reading(data: Path) -> list[float]:
    import pandas

    files = list(data.glob("clotho_captions_*.csv"))
    return race(
        lambda: read_dataset(data, *CLIPS, sound=False),
        lambda: [pandas.read_csv(path) for path in files],
        rounds=5,
    )


MEASURES: dict[str, Measure] = {"intervals": intervals, "reading": reading, "scoring": scoring, "search": search}
