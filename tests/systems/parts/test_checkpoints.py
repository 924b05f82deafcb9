"""Checkpoints of a system's model: trained weights and the identity of frozen parts."""

from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from torch import nn

from evaluation.findings import BadRequest
from systems.parts.checkpoints import SystemModule, load_weights


class Config(BaseModel):
    size: int = 1


class Model(nn.Module):
    def __init__(self, identity="encoder 1"):
        super().__init__()
        self.encoder, self.adapter = nn.Linear(1, 1), nn.Linear(1, 1)
        self.frozen = {"encoder.": identity}
        self.config = Config()


def saved(module):
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def test_frozen_weights_are_replaced_by_their_identity():
    checkpoint = saved(SystemModule(Model()))
    assert checkpoint["config"] == {"size": 1}
    assert checkpoint["frozen"] == {"encoder.": "encoder 1"}
    assert checkpoint["state_dict"].keys() == {"model.adapter.weight", "model.adapter.bias"}


def test_trained_weights_are_loaded_and_frozen_ones_stay():
    source, target = Model(), Model()
    encoder = target.encoder.weight.clone()
    load_weights(target, saved(SystemModule(source)), Path("best.ckpt"))
    assert torch.equal(target.adapter.weight, source.adapter.weight)
    assert torch.equal(target.encoder.weight, encoder)


def test_another_frozen_part_is_refused():
    with pytest.raises(
        BadRequest, match=r"best\.ckpt: the frozen parts must .* found other weights or settings of the encoder"
    ):
        load_weights(Model("encoder 2"), saved(SystemModule(Model())), Path("best.ckpt"))


def test_a_lacking_weight_is_refused():
    state = saved(SystemModule(Model()))
    del state["state_dict"]["model.adapter.bias"]
    with pytest.raises(RuntimeError, match="Missing key"):
        load_weights(Model(), state, Path("best.ckpt"))


def test_only_frozen_weights_may_be_absent():
    model = Model()
    assert not SystemModule(model).strict_loading
    model.frozen = {}
    assert SystemModule(model).strict_loading
