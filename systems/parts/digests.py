"""Digests of weights and of bytes."""

from collections.abc import Mapping

import torch
import xxhash
from torch import Tensor, nn


def digest(content: bytes) -> str:
    """Return 32 hexadecimal digits that change if any byte changes."""
    return xxhash.xxh3_128_hexdigest(content)


def weights_digest(model: nn.Module) -> str:
    """Return 32 hexadecimal digits that change if the name, type, shape or value of any weight changes."""
    return tensors_digest(model.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return 32 hexadecimal digits that change if the name, type, shape or value of any tensor changes."""
    state = xxhash.xxh3_128()
    for name, weight in sorted(tensors.items()):
        state.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        state.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()
