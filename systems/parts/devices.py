"""The device that models run on."""

import torch


def default_device() -> torch.device:
    """Return the GPU if this machine has one, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
