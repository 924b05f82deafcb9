"""The device that models run on."""

import os

import torch


def default_device() -> torch.device:
    """Return the GPU if this machine has one, or else the CPU.

    For a GPU, also set a variable that makes products of matrices repeatable, unless it is set. Otherwise, a resumed
    training might end with other weights. cuBLAS reads the variable only when it is first used. Lightning sets it too,
    but an encoder may have used the GPU before.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda")
