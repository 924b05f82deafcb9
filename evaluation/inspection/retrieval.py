"""The content of a page about retrieval: the best clips of each query, and the ranks of its relevant clips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.data.dataset import Split, read_dataset
from evaluation.data.relevance import Relevance, chosen_relevance
from evaluation.findings import Finding
from evaluation.inspection.charts import (
    LISTED,
    Chart,
    Table,
    hardest_and_easiest,
    histogram,
    item_title,
    mean_chart,
    shares,
)
from evaluation.inspection.content import TEMPLATES, Request, SplitContent, System, check_content, read_systems
from evaluation.inspection.neighbours import THRESHOLD, CaptionSimilarity
from evaluation.metrics import retrieval
from evaluation.predictions import Ranking, Similarity
from evaluation.retrieval_formats import read_prediction
from evaluation.scores import Score
from evaluation.text import printable

SHOWN = 10  # number of clips to show for each query
RANKS = (1, 2, 5, 10, 20, 100)  # the last rank of each group in the chart of ranks
WRONG, RIGHT, UNANNOTATED = 0, 1, 2  # how a clip is marked
DIGITS = 4  # number of digits of the scores in the data


@dataclass(frozen=True)
class Hit:
    """A clip that a system ranks among the best for a query.

    Attributes:
        clip: The clip's index in the split; None if the split does not have such a clip.
        name: The clip's name.
        score: The score of the clip for the query; None if the prediction is a list of clips without scores.
        mark: `RIGHT` for a relevant clip, `UNANNOTATED` for another clip with a caption that is similar to the query,
            `WRONG` otherwise.
        similarity: The similarity of the query and the clip's most similar caption, in [0, 1].
        caption: The index of this caption among the clip's captions.
    """

    clip: int | None
    name: str
    score: float | None
    mark: int
    similarity: float = 0
    caption: int = 0


@dataclass(frozen=True)
class Answers(System):
    """The prediction and the score of a retriever. The items of the score are the queries.

    Attributes:
        hits: For each query, the clips that the system ranks first, best first.
        ranks: For each query, the ranks of its relevant clips, in the order of `Queries.right`. The rank of a clip that
            the prediction does not contain is None.
    """

    hits: Sequence[Sequence[Hit]]
    ranks: Sequence[Sequence[int | None]]

    def first_ranks(self) -> np.ndarray:
        """Return the best rank of a relevant clip for each query, as an array of shape (queries,).

        The value is infinite if the prediction does not contain a relevant clip.
        """
        first = []
        for ranks in self.ranks:
            first.append(min((rank for rank in ranks if rank is not None), default=np.inf))
        return np.array(first, dtype=float)


@dataclass(frozen=True)
class Queries(SplitContent):
    """The content of a page about retrieval.

    Attributes:
        split: The split.
        texts: The queries.
        right: For each query, the indices of its relevant clips.
        systems: The prediction and the score of each system.
        threshold: The similarity from which a wrong clip may be unannotated.
    """

    task = "Text-to-audio retrieval"
    answers = "retrieval"
    noun = "queries"
    lists = "Hardest and easiest clips, and hubs"
    about_clips = "The mean is over the queries for which the clip is right."
    templates = TEMPLATES / "retrieval"
    threshold = THRESHOLD

    split: Split
    texts: tuple[str, ...]
    right: Sequence[Sequence[int]]
    systems: Sequence[Answers]

    def charts(self, metric: str, values: Sequence[np.ndarray], seconds: np.ndarray) -> list[Chart | None]:
        """Return charts of a metric, of the ranks of right clips, and of what the metric depends on."""
        words = np.array([len(text.split()) for text in self.texts], dtype=float)
        counts = np.array([len(clips) for clips in self.right], dtype=float)
        durations = np.array([np.mean(seconds[list(clips)]) for clips in self.right])
        title = item_title(metric)
        return [
            histogram(f"{title} over queries", title, metric, values),
            _rank_chart([system.first_ranks() for system in self.systems]),
            mean_chart(metric, "length of the query", "words", words, values),
            mean_chart(metric, "number of right clips", "right clips", counts, values),
            mean_chart(metric, "duration of the right clips", "seconds", durations, values),
        ]

    def tables(self, metric: str, values: Sequence[np.ndarray]) -> list[Table]:
        """Return the hardest and the easiest clips, and the hubs of each system."""
        tables = hardest_and_easiest(self, metric, values, self.right)
        for system in self.systems:
            tables.append(self._hubs(system))
        return tables

    def _hubs(self, system: Answers) -> Table:
        """Return a table of hubs, the clips that are among the first clips of the most queries.

        The number of these queries is the clip's k-occurrence (Radovanović et al. 2010), where k is the number of clips
        that the page shows for each query.
        """
        returned: Counter[str] = Counter()
        right: Counter[str] = Counter()
        deepest = 0
        for hits in system.hits:
            deepest = max(deepest, len(hits))
            for name in {hit.name for hit in hits}:
                returned[name] += 1
            for hit in hits:
                right[hit.name] += hit.mark == RIGHT
        file_names = set(self.split.file_names)
        rows, names = [], []
        for name, count in returned.most_common(LISTED):
            rows.append([name, f"{count:,}", f"{right[name]:,}"])
            names.append(name if name in file_names else None)
        never = len(file_names - returned.keys())
        mean = sum(returned.values()) / max(1, len(self.clips))
        note = f"A clip is among them {mean:.1f} times on average. Clips that are never among them: {never:,}."
        heads = ["clip", f"times among the {deepest} best", "right"]
        return Table(f"Hubs of {system.name}", heads, rows, note, names)

    def data(self) -> dict[str, Any]:
        """Return the queries, their relevant clips, and the best clips of each system."""
        systems = []
        for system in self.systems:
            hits = [[_hit_data(hit) for hit in row] for row in system.hits]
            systems.append({"hits": hits, "ranks": system.ranks})
        return {
            "captions": self.captions(),
            "queries": [printable(text) for text in self.texts],
            "right": self.right,
            "answers": systems,
        }


def _hit_data(hit: Hit) -> list[Any]:
    """Return a hit as the list [clip, score, mark, similarity, caption].

    `clip` is the clip's index in the split, or its name if the split does not have such a clip.
    """
    clip: int | str = printable(hit.name) if hit.clip is None else hit.clip
    score = hit.score
    if score is not None:
        score = float(f"{score:.{DIGITS}g}") if isfinite(score) else None
    return [clip, score, hit.mark, round(hit.similarity, 2), hit.caption]


def _rank_chart(ranks: Sequence[np.ndarray]) -> Chart:
    """Return a chart of the distribution of the best rank of a relevant clip over the queries."""
    labels = ["1"]
    for before, last in pairwise(RANKS):
        labels.append(str(last) if last == before + 1 else f"{before + 1}–{last}")
    labels += [f">{RANKS[-1]}", "none"]
    uppers = [*map(float, RANKS), float(np.finfo(float).max), inf]
    return shares("Rank of the best right clip", "rank", labels, uppers, ranks)


def collect_queries(
    split: Split, truth: Relevance, given: Mapping[str, tuple[Similarity | Ranking, Score]], k: int = SHOWN
) -> Queries:
    """Collect the best clips of every query, and the ranks of its relevant clips.

    Args:
        split: The split.
        truth: The relevant clips of each query.
        given: A dict from the name of each system to its prediction and score.
        k: Number of clips to show for each query.
    """
    index = {name: number for number, name in enumerate(split.file_names)}
    texts = tuple(truth)
    right = []
    for relevant in truth.values():
        right.append(sorted(index[name] for name in relevant))
    similarity = CaptionSimilarity([clip.captions for clip in split.clips], texts)
    systems = []
    for name, (prediction, score) in given.items():
        if isinstance(prediction, Similarity):
            hits, ranks = _hits_of_matrix(prediction, truth, right, index, split, k)
        else:
            hits, ranks = _hits_of_lists(prediction, truth, right, index, split, k)
        systems.append(Answers(name, score, _compared(hits, right, similarity), ranks))
    return Queries(split, texts, right, systems)


Found = tuple[list[list[Hit]], list[list[int | None]]]


def _hits_of_matrix(
    prediction: Similarity,
    truth: Relevance,
    right: Sequence[Sequence[int]],
    index: Mapping[str, int],
    split: Split,
    k: int,
) -> Found:
    """Return the best clips and the ranks of the relevant clips, with the ranks of `metrics.retrieval.ranks`."""
    row_of = {query: row for row, query in enumerate(prediction.queries)}
    column_of = {name: column for column, name in enumerate(prediction.file_names)}
    all_hits, all_ranks = [], []
    for (query, relevant), clips in zip(truth.items(), right, strict=True):
        scores = prediction.scores[row_of[query]]
        grades = np.zeros(len(scores))
        for name in relevant:
            if name in column_of:
                grades[column_of[name]] = relevant[name] if isinstance(relevant, Mapping) else 1
        order = np.lexsort((grades, -scores))  # among equal scores, relevant clips come last
        hits = []
        for column in order[:k].tolist():
            name = prediction.file_names[column]
            mark = RIGHT if grades[column] else WRONG
            hits.append(Hit(index.get(name), name, float(scores[column]), mark))
        all_hits.append(hits)
        place = np.empty(len(order), dtype=int)
        place[order] = np.arange(1, len(order) + 1)
        columns = [column_of.get(split.file_names[clip]) for clip in clips]
        all_ranks.append([None if column is None else int(place[column]) for column in columns])
    return all_hits, all_ranks


def _hits_of_lists(
    prediction: Ranking,
    truth: Relevance,
    right: Sequence[Sequence[int]],
    index: Mapping[str, int],
    split: Split,
    k: int,
) -> Found:
    """Return the best clips and the ranks of the relevant clips.

    If a list contains a relevant clip several times, only the first occurrence is marked as right.
    """
    lists = dict(zip(prediction.queries, prediction.file_names, strict=True))
    all_hits, all_ranks = [], []
    for (query, relevant), clips in zip(truth.items(), right, strict=True):
        first: dict[str, int] = {}
        for rank, name in enumerate(lists[query], start=1):
            first.setdefault(name, rank)
        hits = []
        for rank, name in enumerate(lists[query][:k], start=1):
            mark = RIGHT if name in relevant and first[name] == rank else WRONG
            hits.append(Hit(index.get(name), name, None, mark))
        all_hits.append(hits)
        all_ranks.append([first.get(split.file_names[clip]) for clip in clips])
    return all_hits, all_ranks


def _compared(
    all_hits: Sequence[Sequence[Hit]], right: Sequence[Sequence[int]], captions: CaptionSimilarity
) -> list[list[Hit]]:
    """Add the clip's most similar caption to each hit, and mark clips that may be unannotated.

    If a list contains a relevant clip several times, its later occurrences are still marked as wrong.
    """
    queries, clips = [], []
    for query, hits in enumerate(all_hits):
        for hit in hits:
            if hit.clip is not None:
                queries.append(query)
                clips.append(hit.clip)
    closest = captions.closest(np.array(queries, dtype=int), np.array(clips, dtype=int))
    compared = zip(closest[0].tolist(), closest[1].tolist(), strict=True)
    marked = []
    for hits, right_clips in zip(all_hits, right, strict=True):
        row = []
        for hit in hits:
            if hit.clip is None:
                row.append(hit)
                continue
            similarity, caption = next(compared)
            mark = hit.mark
            if mark == WRONG and similarity >= THRESHOLD and hit.clip not in right_clips:
                mark = UNANNOTATED
            row.append(Hit(hit.clip, hit.name, hit.score, mark, similarity, caption))
        marked.append(row)
    return marked


def read_queries(
    paths: Sequence[Path], split: Split, truth: Relevance, metrics: Sequence[str] | None
) -> tuple[Queries, list[Finding]]:
    """Read and score predictions of retrieval systems.

    Returns:
        The content of the page, and warnings and notes.

    Raises:
        BadRequest: A file is given twice, does not exist, or is not a prediction of a retrieval system; or a metric is
            unknown; or no metric has values for single queries; or the scores cannot be compared.
        Faulty: A prediction is not valid. The exception lists all findings of all predictions.
    """
    expected = len(truth), len(split.clips)

    def read(path: Path) -> tuple[Similarity | Ranking, Score, Sequence[Finding]]:
        prediction, notes = read_prediction(path, split, truth, expected=expected)
        score = retrieval.evaluate(split, prediction, relevance=truth, metrics=metrics, file=str(path))
        return prediction, score, notes

    given, findings = read_systems(paths, read)
    content = collect_queries(split, truth, given)
    check_content(content)
    return content, findings


def read_page(request: Request) -> tuple[Queries, list[Finding]]:
    """Read the data folder and the predictions that a request names, as `read_queries` does."""
    split = read_dataset(request.truth, request.split, sound=False)[request.split]
    relevance = chosen_relevance(request.relevance, split.captions, split.file_names)
    truth = split.truth if relevance is None else relevance
    return read_queries(request.predictions, split, truth, request.metrics)
