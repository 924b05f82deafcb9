"""The content of a page: the clips, and the predictions of each system for each query or clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from evaluation import caption_formats
from evaluation.data.dataset import Split
from evaluation.data.relevance import Relevance
from evaluation.findings import BadRequest
from evaluation.inspection.neighbours import THRESHOLD, CaptionSimilarity
from evaluation.metrics import catalogue
from evaluation.predictions import Captions, Ranking, Similarity
from evaluation.scores import Score

SHOWN = 10  # number of clips to show for each query
WRONG, RIGHT, UNANNOTATED = 0, 1, 2  # how a clip is marked


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
class Answers:
    """The prediction and the score of a retriever.

    Attributes:
        name: The short name of the system.
        score: The score of the system. Its items are the queries.
        hits: For each query, the clips that the system ranks first, best first.
        ranks: For each query, the ranks of its relevant clips, in the order of `Queries.right`. The rank of a clip that
            the prediction does not contain is None.
    """

    name: str
    score: Score
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
class Queries:
    """The content of a page about retrieval.

    Attributes:
        split: The split.
        texts: The queries.
        right: For each query, the indices of its relevant clips.
        systems: The prediction and the score of each system.
    """

    split: Split
    texts: tuple[str, ...]
    right: Sequence[Sequence[int]]
    systems: Sequence[Answers]


@dataclass(frozen=True)
class Predicted:
    """The captions and the score of a captioner.

    Attributes:
        name: The short name of the system.
        score: The score of the system. Its items are the clips, in the order of the split.
        captions: The caption of each clip of the split.
        log_probabilities: The log-probability of each caption; None if the prediction does not contain any.
    """

    name: str
    score: Score
    captions: Sequence[str]
    log_probabilities: Sequence[float | None] | None


@dataclass(frozen=True)
class Descriptions:
    """The content of a page about captioning: the split, and the captions of each system."""

    split: Split
    systems: Sequence[Predicted]


Content = Queries | Descriptions


def item_metrics(score: Score) -> list[str]:
    """Return the names of the metrics that have a value for each item.

    Raises:
        BadRequest: The score does not contain such a metric.
    """
    names = [name for name, measured in score.metrics.items() if measured.values is not None]
    if not names:
        found = ", ".join(score.metrics) or "none that is available"
        raise BadRequest(f"--metrics must have a metric with a value for each of the {score.items.kind}; found {found}")
    return names


def is_pseudo(metric: str) -> bool:
    """Return True if the metric is not a mean over items, so that the values of items are pseudo-values."""
    facts = catalogue.find(metric)
    return facts is not None and facts.statistic == "corpus"


# Retrieval ------------------------------------------------------------------------------------------------------------


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


# Captioning -----------------------------------------------------------------------------------------------------------


def collect_descriptions(split: Split, given: Mapping[str, tuple[Path, Captions, Score]]) -> Descriptions:
    """Collect the captions of every clip.

    Args:
        split: The split.
        given: A dict from the name of each system to its file, prediction and score.
    """
    systems = []
    for name, (path, prediction, score) in given.items():
        captions = dict(zip(prediction.file_names, prediction.captions, strict=True))
        listed = [captions[clip.file_name] for clip in split.clips]
        systems.append(Predicted(name, score, listed, _log_probabilities(path, prediction, split)))
    return Descriptions(split, systems)


def _log_probabilities(path: Path, prediction: Captions, split: Split) -> list[float | None] | None:
    """Return the log-probability of each clip's caption, or None if the file does not contain any."""
    rows = caption_formats.load(path).rows  # one row for each caption, in the order of the prediction
    found = {}
    for name, row in zip(prediction.file_names, rows, strict=True):
        try:
            value = float(row.cells["log_probability"])
        except (KeyError, TypeError, ValueError):
            continue
        if isfinite(value):
            found[name] = value
    if not found:
        return None
    return [found.get(clip.file_name) for clip in split.clips]
