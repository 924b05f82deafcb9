"""Digests of weights and of bytes."""

import torch
import xxhash
from torch import nn


def digest(content: bytes) -> str:
    """Return 32 hexadecimal digits that change if any byte changes."""
    return xxhash.xxh3_128_hexdigest(content)


def weights_digest(model: nn.Module) -> str:
    """Return 32 hexadecimal digits that change if the name, type, shape or value of any weight changes."""
    state = xxhash.xxh3_128()
    for name, weight in sorted(model.state_dict().items()):
        state.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        state.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()
