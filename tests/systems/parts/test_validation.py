"""Validation metrics that training monitors."""

from pathlib import Path

import pytest
import torch

from evaluation.data.dataset import Clip, Split
from systems.parts.validation import retrieval_metrics


def test_metrics_of_a_small_ranking():
    clips = (Clip("1.wav", ("dog",), Path("1.wav")), Clip("2.wav", ("cat",), Path("2.wav")))
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]])  # "dog" ranks its clip first, "cat" second
    metrics = retrieval_metrics(Split("validation", clips), scores)
    assert metrics["validation_mAP@10"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["validation_R@10"] == 1
