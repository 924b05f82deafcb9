"""The weights of the runs in an ensemble."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from evaluation import yamlfiles
from evaluation.findings import Faulty, Finding
from evaluation.text import quoted, unknown_key

SHARES = np.linspace(0, 1, 11)  # the weights that a search tries for one run; the sum of all weights is 1
GAIN = 1e-9  # a search ignores smaller improvements, which are rounding errors


def equal(runs: int) -> list[float]:
    """Return equal weights, whose sum is 1."""
    return [1 / runs] * runs


def read_weights(file: Path, runs: Sequence[Path]) -> list[float]:
    """Read the weight of each run from a YAML file.

    Args:
        file: A YAML file. Its keys are run folders, as on the command line, and its values are weights of 0 or more.
        runs: The run folders.

    Returns:
        The weights, divided by their sum.

    Raises:
        BadRequest: The file does not exist.
        Faulty: Runs are unknown or missing, or weights are not valid. The exception lists all findings.
    """
    values = {str(Path(str(name))): value for name, value in yamlfiles.read_yaml(file).items()}
    names = [str(run) for run in runs]
    findings = []
    for name in sorted(values.keys() - names):
        findings.append(Finding(str(file), column=name, message=unknown_key(name, names, "run")))
    for name in names:
        value = values.get(name)
        if name not in values:
            findings.append(Finding(str(file), column=name, message="must have a weight; found none: add it"))
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            message = f"must be a number of 0 or more; found {quoted(str(value))}: correct it"
            findings.append(Finding(str(file), column=name, message=message))
    if not findings and not any(values.values()):
        findings.append(Finding(str(file), message="must have a weight above 0; found only 0: correct it"))
    if findings:
        raise Faulty(findings, status=2)
    given = [float(str(values[name])) for name in names]
    return [weight / sum(given) for weight in given]


def search(objective: Callable[[Sequence[float]], float], runs: int) -> list[float]:
    """Search for weights that maximise an objective.

    The method is coordinate ascent, which starts from equal weights. For each run in turn, it tries all `SHARES` as the
    weight of this run, and keeps the best one. The other runs share the rest in their previous proportions. The search
    ends when no change improves the objective. With two runs, it finds the best of all pairs of weights in `SHARES`.
    With more runs, it may miss the best combination.

    Args:
        objective: A function of the weights. The sum of the weights is 1.
        runs: The number of runs.

    Returns:
        The weights. Their sum is 1.
    """
    best = np.array(equal(runs))
    highest = objective(best.tolist())
    has_improved = True
    while has_improved:
        has_improved = False
        for run in range(runs):
            for weights in _with_shares_of(run, best):
                value = objective(weights.tolist())
                if value > highest + GAIN:
                    best, highest, has_improved = weights, value, True
    return best.tolist()


def _with_shares_of(run: int, weights: np.ndarray) -> list[np.ndarray]:
    """Return, for each share in `SHARES`, weights in which a run has this share.

    The other runs keep their proportions. If all of them are 0, they get equal weights.
    """
    others = weights.copy()
    others[run] = 0
    if not others.any():
        others[:] = 1
        others[run] = 0
    others /= others.sum()
    alone = np.zeros_like(weights)
    alone[run] = 1
    return [share * alone + (1 - share) * others for share in SHARES]
