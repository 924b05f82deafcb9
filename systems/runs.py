"""Predict and score with a trained run.

The verb `predict` and every run of a sweep go through here, so that predictions are the same wherever they are made.
"""

from collections.abc import Collection
from pathlib import Path

from evaluation import predictions
from evaluation.data.dataset import Split
from evaluation.findings import WARNING, BadRequest, Finding, say
from evaluation.metrics import captioning, retrieval
from evaluation.scores import Score
from evaluation.text import plural
from systems import contract
from systems.caching.embeddings import cache_embeddings
from systems.parts.devices import default_device

# The methods that a model must have for a task.
METHODS = {"captioning": ("caption",), "retrieval": ("embed_audio", "embed_text")}


def predict(
    folder: Path, split: Split, cache: Path | None = None, task: str | None = None, trusted: Collection[str] = ()
) -> str:
    """Score every query of a split against every clip, or caption every clip, with a trained run.

    Args:
        folder: The run folder; `predictions/SPLIT.npz` of a retriever or `.csv` of a captioner is written there.
        split: The split, with its sounds.
        cache: Folder of the cache, where embeddings of encoders that did not learn are kept; None keeps none.
        task: What to do with a model that does both, `captioning` or `retrieval`; captioning without.
        trusted: Import names of modules that the user allows the run to name, beside the kit's and installed ones.

    Returns:
        What was written, in words.

    Raises:
        BadRequest: The folder holds no trained run, the run names a module that it must not, its model does not do the
            task, or there is nothing to answer.
        Faulty: A sound cannot be used; with all that cannot.
    """
    name, checkpoint = contract.read_run(folder).system, folder / "checkpoints" / "best.ckpt"
    stripped = checkpoint.with_name("inference.ckpt")  # what a system keeps of it that needs less to predict
    if stripped.is_file() and not checkpoint.is_file():
        checkpoint = stripped
    if not checkpoint.is_file():
        message = "no such file: training has not come to the end of an epoch; give the same training command again"
        raise BadRequest(f"{checkpoint}: {message}")
    warn_unfinished(folder)
    device = default_device()
    model = contract.load(name, checkpoint, trusted).to(device)
    task = task or ("captioning" if hasattr(model, "caption") else "retrieval")
    if missing := _missing_methods(model, task):
        possible = " and ".join(one for one in METHODS if not _missing_methods(model, one))
        message = f"the model of {name} has no {missing[0]}, which {task} needs; ask for what it does"
        raise BadRequest(f"{message}: {possible}" if possible else message)
    if cache is not None:
        cache_embeddings(model, cache)
    if task == "captioning":
        path = folder / "predictions" / f"{split.name}.csv"
        captions, log_probabilities = contract.captions(model, split, device=device)
        predictions.write_captions(path, split.file_names, captions, log_probabilities)
        return f"{path}: {len(captions)} clips, {plural(len(set(captions)), 'different caption')}"
    if not split.queries:
        raise BadRequest(f"the split {split.name} has no queries to answer")
    path = folder / "predictions" / f"{split.name}.npz"
    prediction = contract.similarity(model, split, device=device)
    prediction.save(path)
    return f"{path}: {len(prediction.queries)} queries x {len(prediction.file_names)} clips"


def _missing_methods(model: object, task: str) -> list[str]:
    return [method for method in METHODS[task] if not hasattr(model, method)]


def warn_unfinished(folder: Path) -> None:
    """Say of a run whose training has not ended that what is asked of it is of its best epoch so far."""
    if not (folder / "system.yaml").is_file():
        message = "training has not ended (there is no system.yaml); this is of its best epoch so far"
        say([Finding(str(folder), message=message, severity=WARNING)])


def score(folder: Path, split: Split, metric: str, cache: Path) -> Score:
    """Score a run's prediction of a split as `evaluation score` does by default, with one more metric in front.

    Args:
        folder: The run folder; `scores/SPLIT.json` is written there.
        split: The split.
        metric: A metric of captions or of retrieval.
        cache: Folder of the cache: tokenised references.

    Raises:
        BadRequest: There is no prediction of the metric's task, or it cannot be computed on this machine.
    """
    task, kind = ("captioning", "csv") if metric in captioning.METRICS else ("retrieval", "npz")
    file = folder / "predictions" / f"{split.name}.{kind}"
    if not file.is_file():
        raise BadRequest(f"{file}: no such file, and {metric} is a metric of {task}; predict with --as {task} first")
    if task == "retrieval":
        prediction = predictions.read_retrieval(file, (len(split.queries), len(split.clips)))
        found = retrieval.evaluate(split, prediction, metrics=[metric, *retrieval.TASK_METRICS])
    else:
        metrics = [metric, *captioning.BASIC]
        found = captioning.evaluate(split, predictions.read_captions(file), metrics=metrics, cache=cache)
        if metric in found.unavailable:
            raise BadRequest(f"{metric} is not available: {found.unavailable[metric]}")
    found.save(folder / "scores" / f"{split.name}.json")
    return found
