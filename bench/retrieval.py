"""Measures of retrieval: intervals, scoring beside other libraries, search, and reading."""

import importlib.util
import warnings
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from bench.measuring import CLIPS, CLOTHO, Function, Row, clotho, duration, race, times
from evaluation import predictions
from evaluation.data.dataset import Split, read_dataset
from evaluation.metrics import retrieval
from evaluation.statistics.intervals import jackknife

if TYPE_CHECKING:
    from torch import Tensor


def intervals(alone: Function, folder: Path) -> list[Row]:
    """The jackknife in closed form, against astropy's."""
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
    """Four metrics of a similarity matrix of Clotho's evaluation split, ours with intervals, against what others do.

    All start from the matrix and the truth, so that bringing them into the form a library takes counts.
    """
    place, rows = clotho(folder), []
    for library in ("ranx", "pytrec_eval", "torchmetrics"):
        (queries, clips), ours, theirs, metrics = alone(_scoring, place, library)
        what = f"scoring {queries} queries x {clips} clips, with intervals / {library}"
        note = f"its metrics alone {duration(metrics)}" + (", given the 10 best only" if library == "ranx" else "")
        rows.append(
            Row(what, duration(ours), duration(theirs), times(theirs / ours), "≥ 10x", theirs / ours >= 10, note)
        )
    return rows


def _scoring(place: Path, library: str) -> tuple[tuple[int, int], float, float, float]:
    split = read_dataset(place, "evaluation", sound=False)["evaluation"]
    scores = np.random.default_rng(0).random((len(split.queries), len(split.clips)), np.float32)
    warnings.simplefilter("ignore")  # ranx and numba have much to say
    convert, metrics = {"ranx": _ranx, "pytrec_eval": _pytrec_eval, "torchmetrics": _torchmetrics}[library](
        split, scores
    )

    def ours() -> list[float]:
        score = retrieval.evaluate(split, predictions.Similarity(split.queries, split.file_names, scores))
        return [score.metrics[name].estimate.value for name in ("mAP@10", "R@1", "R@5", "R@10")]

    converted = convert()
    assert np.allclose(ours(), metrics(*converted), rtol=0, atol=1e-6)  # torchmetrics has single precision
    return scores.shape, *race(ours, lambda: metrics(*convert()), lambda: metrics(*converted), rounds=2)


def _ranx(split: Split, scores: np.ndarray) -> tuple[Function, Function]:
    import ranx

    def convert() -> tuple[ranx.Qrels, ranx.Run]:
        best = np.argpartition(-scores, 10, axis=1)[:, :10]  # all of them take it minutes
        rows = zip(split.queries, best.tolist(), np.take_along_axis(scores, best, axis=1).tolist(), strict=True)
        names = split.file_names
        run = {query: dict(zip([names[clip] for clip in best], row, strict=True)) for query, best, row in rows}
        return ranx.Qrels({query: dict.fromkeys(names, 1) for query, names in split.truth.items()}), ranx.Run(run)

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
        found = evaluator.evaluate(run).values()
        return [fmean(query[name] for query in found) for name in ("map_cut_10", "recall_1", "recall_5", "recall_10")]

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
        asked = [RetrievalMAP(top_k=10), *(RetrievalRecall(top_k=k) for k in (1, 5, 10))]
        return [float(metric(scores, target, indexes=indexes)) for metric in asked]

    return convert, metrics


def search(alone: Function, folder: Path) -> list[Row]:
    """The best of more clips than a matrix has room for, against faiss."""
    queries, clips, size, k = 1000, 100_000, 512, 16
    ours, theirs, asking = alone(_search, queries, clips, size, k)
    what = f"the {k} best of {clips} clips for {queries} queries, {size} floats each / faiss, IndexFlatIP"
    return [
        Row(what, duration(ours), duration(theirs), times(theirs / ours), note=f"its search alone {duration(asking)}")
    ]


def _search(queries: int, clips: int, size: int, k: int) -> list[float]:
    import faiss

    rng = np.random.default_rng(0)
    asked, known = (rng.standard_normal((number, size), np.float32) for number in (queries, clips))

    def indexed() -> faiss.IndexFlatIP:
        index = faiss.IndexFlatIP(size)
        index.add(known)
        return index

    index = indexed()
    assert np.allclose(retrieval.top_k(asked, known, k)[1], index.search(asked, k)[0], rtol=0, atol=1e-3)
    return race(
        lambda: retrieval.top_k(asked, known, k),
        lambda: indexed().search(asked, k),
        lambda: index.search(asked, k),
        rounds=3,
    )


def reading(alone: Function, folder: Path) -> list[Row]:
    """Clotho's caption files, checked, against pandas where it is installed."""
    place = clotho(folder)
    ours, *theirs = alone(_reading, place)
    against = [duration(theirs[0]), times(theirs[0] / ours)] if theirs else ["", ""]
    what = "reading and checking Clotho's three caption files" + (" / pandas.read_csv" if theirs else "")
    return [Row(what, duration(ours), *against, "< 1 s", ours < 1, "" if place == CLOTHO else "made up")]


def _reading(place: Path) -> list[float]:
    contenders = [lambda: read_dataset(place, *CLIPS, sound=False)]
    if importlib.util.find_spec("pandas"):
        import pandas

        contenders.append(lambda: [pandas.read_csv(path) for path in place.glob("clotho_captions_*.csv")])
    return race(*contenders, rounds=5)


MEASURES = {"intervals": intervals, "reading": reading, "scoring": scoring, "search": search}
