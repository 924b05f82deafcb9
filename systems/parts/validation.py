"""Validation metrics that the training of retrievers monitors."""

from torch import Tensor

from evaluation import predictions
from evaluation.data.dataset import Split
from evaluation.metrics import retrieval


def retrieval_metrics(split: Split, scores: Tensor) -> dict[str, float]:
    """Compute a retriever's validation metrics.

    Args:
        split: The validation split.
        scores: (queries, clips) similarity of each of `split.queries` to each of the split's clips.

    Returns:
        `validation_mAP@10` and `validation_R@10`, in [0, 1].
    """
    similarity = predictions.Similarity(split.queries, split.file_names, scores.float().cpu().numpy())
    ranks = retrieval.ranks(split.truth, similarity)
    return {
        "validation_mAP@10": float(retrieval.average_precision(*ranks, 10).mean()),
        "validation_R@10": float(retrieval.recall(*ranks, 10).mean()),
    }
