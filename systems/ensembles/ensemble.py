"""Writing the run folder of an ensemble."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from evaluation import predictions
from evaluation.data.dataset import VALIDATION, Split
from evaluation.files import appearing
from evaluation.findings import BadRequest
from evaluation.metrics import captioning, retrieval
from evaluation.text import table
from systems import contract
from systems.ensembles import consensus, matrices, weights
from systems.ensembles.members import Member, common_digests, common_task, joined_description, read_members

Objective = Callable[[Sequence[float]], float]
METRICS = {"retrieval": "mAP@10", "captioning": "cider_d"}  # for each task, what the search for weights maximises


@dataclass(frozen=True)
class Combination:
    """Settings that decide how predictions are combined.

    Attributes:
        standardise: If true, shift and scale each similarity matrix to mean 0 and standard deviation 1.
        measure: The similarity of captions, a key of `consensus.MEASURES`.
        cache: Folder of the cache, for the tokeniser.
    """

    standardise: bool
    measure: str
    cache: Path


def make_ensemble(
    folders: Sequence[Path], out: Path, combination: Combination, weight_file: Path | None, validation: Split | None
) -> str:
    """Combine the predictions of runs, and write them as a new run folder.

    The new run has a prediction for each split for which all runs have predictions.

    Args:
        folders: The run folders.
        out: The folder to write. It must be new or empty.
        combination: Settings of the combination.
        weight_file: YAML file with the weight of each run, or None for equal weights.
        validation: The validation split for which the weights are fitted, or None if they are not fitted.

    Returns:
        A text with a table of the weights, and the names of the files that were written.

    Raises:
        BadRequest: `out` contains files; or the runs cannot be combined; or the weights must be fitted, and a run does
            not have a prediction for the validation split.
        Faulty: Run folders, predictions or weights are not valid. The exception lists all findings.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadRequest(f"{out}: must be a new or empty folder; found files: give another folder with --run")
    members = read_members(folders)
    task, splits = common_task(members)
    fitted = weights.equal(len(members))
    values: list[float] = []
    if weight_file is not None:
        fitted = weights.read_weights(weight_file, folders)
    combined: dict[str, _Matrices | _Captions] = {}  # the predictions that have been read, for each split
    if validation is not None:
        _require_validation(members, task, splits)
        combined[VALIDATION] = _combine(members, task, VALIDATION, combination)
        fitted, values = _fit(combined[VALIDATION].objective(validation), len(members))
    written = []
    with appearing(out) as folder:
        for split in splits:
            file = members[0].prediction(split, task).relative_to(members[0].folder)
            if split not in combined:
                combined[split] = _combine(members, task, split, combination)
            combined.pop(split).write(fitted, folder / file)
            written.append(str(out / file))
        _write_yaml(folder / "system.yaml", joined_description(members))
        _write_yaml(folder / "config.yaml", _config(members, combination, fitted))
    return f"{_weights_table(members, task, fitted, values)}\n\n{', '.join(written)}: written"


class _Matrices:
    """The similarity matrices of the runs for one split."""

    def __init__(self, files: Sequence[Path], combination: Combination):
        self.matrices = matrices.read_matrices(files, combination.standardise)

    def write(self, fitted: Sequence[float], file: Path) -> None:
        """Write the weighted mean to a file."""
        matrices.weighted_mean(self.matrices, fitted).save(file)

    def objective(self, split: Split) -> Objective:
        """Return a function that computes the metric of the weighted mean for given weights."""
        metric = METRICS["retrieval"]

        def value(tried: Sequence[float]) -> float:
            score = retrieval.evaluate(split, matrices.weighted_mean(self.matrices, tried), metrics=[metric])
            return score.metrics[metric].estimate.value

        return value


class _Captions:
    """The captions of the runs for one split, and their similarities."""

    def __init__(self, files: Sequence[Path], combination: Combination):
        self.names, self.candidates = consensus.read_candidates(files)
        self.similar = consensus.similarities(combination.measure, self.candidates, combination.cache)
        self.cache = combination.cache

    def write(self, fitted: Sequence[float], file: Path) -> None:
        """Choose a caption for each clip, and write the captions to a file."""
        chosen = consensus.choose(self.similar, fitted)
        captions = [self.candidates[run][clip] for clip, run in enumerate(chosen)]
        predictions.write_captions(file, self.names, captions)

    def objective(self, split: Split) -> Objective:
        """Return a function that computes the metric of the chosen captions for given weights.

        The metric of each candidate is computed only once, because it does not depend on the weights.
        """
        metric = METRICS["captioning"]
        row_of = {name: row for row, name in enumerate(split.file_names)}
        values = []
        for captions in self.candidates:
            prediction = dict(zip(self.names, captions, strict=True))
            score = captioning.evaluate(prediction, split, metrics=[metric], cache=self.cache)
            values_of_clips = np.asarray(score.metrics[metric].values)
            values.append(values_of_clips[[row_of[name] for name in self.names]])
        by_run = np.stack(values)  # (runs, clips)

        def value(tried: Sequence[float]) -> float:
            chosen = consensus.choose(self.similar, tried)
            return float(by_run[chosen, np.arange(len(chosen))].mean())

        return value


def _combine(members: Sequence[Member], task: str, split: str, combination: Combination) -> _Matrices | _Captions:
    """Read the predictions of all runs for a split."""
    files = [member.prediction(split, task) for member in members]
    if task == "retrieval":
        return _Matrices(files, combination)
    return _Captions(files, combination)


def _require_validation(members: Sequence[Member], task: str, splits: Sequence[str]) -> None:
    """Make sure that all runs have predictions for the validation split.

    Raises:
        BadRequest: A run does not have a prediction for the validation split.
    """
    if VALIDATION in splits:
        return
    folders = [str(member.folder) for member in members if not member.prediction(VALIDATION, task).is_file()]
    message = f"to fit the weights, all runs must have predictions for {VALIDATION}"
    command = f"dcase-systems predict RUN --data DIR --split {VALIDATION}"
    raise BadRequest(f"{message}; missing in {', '.join(folders)}: make them with {command}")


def _fit(objective: Objective, runs: int) -> tuple[list[float], list[float]]:
    """Search for the weights with the highest metric on the validation split.

    Returns:
        The weights; and a list with the metric of each run alone, followed by the metric of the ensemble.
    """
    fitted = weights.search(objective, runs)
    alone = []
    for run in range(runs):
        alone.append(objective([float(run == other) for other in range(runs)]))
    return fitted, [*alone, objective(fitted)]


def _config(members: Sequence[Member], combination: Combination, fitted: Sequence[float]) -> dict[str, object]:
    """Return the content of the ensemble's config.yaml."""
    runs = [{"run": str(member.folder), "weight": weight} for member, weight in zip(members, fitted, strict=True)]
    config = {"runs": runs, "standardise": combination.standardise, "measure": combination.measure}
    return {"system": contract.ENSEMBLE, "data": common_digests(members), "config": config}


def _write_yaml(file: Path, content: dict[str, object]) -> None:
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _weights_table(members: Sequence[Member], task: str, fitted: Sequence[float], values: Sequence[float]) -> str:
    """Return a table with the weight of each run and, if the weights were fitted, with the metrics in `values`."""
    rows: list[list[str]] = []
    for member, weight in zip(members, fitted, strict=True):
        rows.append([str(member.folder), f"{weight:.3f}"])
    headers = ["run", "weight"]
    if values:
        rows.append(["ensemble", ""])
        headers.append(f"validation {METRICS[task]}")
        rows = [[*row, f"{value:.3f}"] for row, value in zip(rows, values, strict=True)]
    return table(rows, headers, range(1, len(headers)))
