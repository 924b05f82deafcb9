"""The packages that the kit's core does not need, and the extra of dcase-kit that installs each of them.

`dcase-kit` installs the core. `dcase-kit[train]` also installs the packages of the extra `train`, and so on.
"""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from types import MappingProxyType

from evaluation.findings import BadRequest

# A dict from the import name of a package to the extra. A package of several extras has the extra of its usual purpose.
EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "aac_metrics": "metrics",
        "accelerate": "train",
        "ai_edge_litert": "train",
        "gensim": "train",
        "gradio": "demo",
        "gguf": "train",
        "huggingface_hub": "train",
        "lightning": "train",
        "matplotlib": "reports",
        "optuna": "cluster",
        "PIL": "reports",
        "pandas": "reports",
        "peft": "train",
        "ray": "cluster",
        "seaborn": "reports",
        "sentence_transformers": "train",
        "sklearn": "train",
        "soxr": "train",
        "tensorboard": "train",
        "torch": "train",
        "torchaudio": "train",
        "transformers": "train",
        "xxhash": "train",
    }
)


def absent(packages: Iterable[str]) -> str | None:
    """Return the first of these packages that is not installed, or None if all are. Nothing is imported.

    Args:
        packages: Import names of packages.
    """
    for package in packages:
        if find_spec(package) is None:
            return package
    return None


def not_installed(error: ModuleNotFoundError) -> BadRequest | None:
    """Return the error for a user who lacks a package, or None if no extra has the module that was not found."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return BadRequest(f"{package} must be installed; install dcase-kit[{EXTRAS[package]}]")
