"""Language-based audio retrieval: the best clips of each query, or the similarities of all clips."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation import predictions
from evaluation.data.dataset import EVALUATION, Split
from evaluation.metrics import retrieval
from evaluation.predictions import Ranking, Similarity
from evaluation.scores import Score
from submission.kinds.clotho import ClothoKind
from submission.outputs.rankings import BestClips, Matrix


class Retrieval(ClothoKind):
    """Language-based audio retrieval."""

    name = "retrieval"
    forms = {"top-k": BestClips(), "matrix": Matrix()}  # noqa: RUF012, nothing changes it
    memory = 4 * 2**30
    suffixes = (".npz", ".csv")
    answers = "similarities"
    of_system = "a retriever's similarities"
    system = "retriever"
    scored = "retrieval"
    score_name = f"{EVALUATION}-retrieval"  # the name of a system that does both captioning and retrieval
    about = (
        "Language-based audio retrieval systems search audio clips with queries in natural language. You run your "
        "system on the queries and clips of the evaluation set and submit {submitted}. The results are compared with "
        "the clips that are relevant to each query."
    )

    def check_truth(self, split: Split) -> None:
        """Check the relevance by scoring a prediction whose similarities are all 0."""
        scores = np.zeros((len(split.truth), len(split.clips)), dtype=np.float32)
        retrieval.evaluate(split, Similarity(tuple(split.truth), split.file_names, scores), file="truth")

    def sizes(self, split: Split) -> dict[str, int]:
        """Return the numbers of clips and of queries."""
        return {"clips": len(split.clips), "queries": len(split.truth)}

    def read_prediction(self, path: Path, split: Split) -> Similarity | Ranking:
        """Read similarities from an .npz, or similarities or the best clips from a CSV."""
        return predictions.read_retrieval(path, (len(split.queries), len(split.clips)))

    def score_prediction(
        self, prediction: Similarity, split: Split, metrics: Sequence[str], interval: str, file: str
    ) -> Score:
        """Score a matrix that its check has read."""
        return retrieval.evaluate(split, prediction, metrics=metrics, interval=interval, file=file)

    def has_score(self, score: Score) -> bool:
        """Return whether a score is one of queries and retrieval metrics."""
        return score.items.kind == "queries" and super().has_score(score)
