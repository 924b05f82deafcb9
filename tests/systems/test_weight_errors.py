"""Weights that do not fit a model give one line."""

from pathlib import Path

import pytest
import torch
from torch import nn

from evaluation.findings import BadRequest
from systems.weight_errors import ADVICE, weights_must_fit


def message(load):
    with pytest.raises(BadRequest) as refusal, weights_must_fit(Path("run")):
        load()
    start = "run: must contain weights of the model that the config and the present code describe; "
    text = str(refusal.value)
    assert text.startswith(start)
    assert text.endswith(f": {ADVICE}")
    return text.removeprefix(start).removesuffix(f": {ADVICE}")


def test_shapes_and_names_are_given():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.BatchNorm1d(3))
    weights = {"0.weight": torch.zeros(4, 2), "0.bias": torch.zeros(4), "1.scale": torch.zeros(())}
    assert message(lambda: model.load_state_dict(weights)) == (
        "found 0.weight of shape (4, 2) where the model has (3, 2), 0.bias of shape (4) where the model has (3); "
        "found no weights for 2.weight, 2.bias, 2.running_mean, and 1 more; "
        "found weights that the model does not have: 1.scale"
    )


def test_the_state_of_another_optimiser_is_explained():
    state = torch.optim.SGD(nn.Linear(2, 3).parameters()).state_dict()
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    assert message(lambda: other.load_state_dict(state)) == (
        "found the optimiser's state for another number of parameters"
    )


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_other_errors_are_not_changed(kind):
    with pytest.raises(kind, match="another"), weights_must_fit(Path("run")):
        raise kind("another")
