"""Predicting with a trained run, and scoring its predictions.

The command `dcase-systems predict` and the runs of a sweep share this code, so that they give the same predictions.
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

# From each task to the methods that a model must have for it.
METHODS = {"captioning": ("caption",), "retrieval": ("embed_audio", "embed_text")}


def predict(
    folder: Path, split: Split, cache: Path | None = None, task: str | None = None, trusted: Collection[str] = ()
) -> str:
    """Caption every clip of a split with a trained run, or compute the similarity of every query and every clip.

    Write the captions to `predictions/SPLIT.csv` in the run folder, or the similarities to `predictions/SPLIT.npz`.
    Print a warning if the training has not ended, or if the system's source code has changed since it began.

    Args:
        folder: The run folder.
        split: The split; the audio files of its clips must exist.
        cache: Folder of the cache for the embeddings of frozen encoders (default: they are not cached).
        task: `captioning` or `retrieval` (default: captioning if the model can caption).
        trusted: Import names of further modules that the user allows the run to name. Modules of the kit and installed
            modules are always allowed.

    Returns:
        A text that names the file that was written and gives the size of the prediction.

    Raises:
        BadRequest: The folder does not contain a trained run, the checkpoint is damaged, or the run names a module that
            is not allowed. Or the model cannot do the task or gives unusable output, or the split has no queries.
        Faulty: Audio files cannot be used, or config.yaml is damaged. The exception lists all findings.
    """
    name = contract.read_run(folder).system
    checkpoint = _checkpoint(folder)
    warn_unfinished(folder)
    device = default_device()
    model = contract.load(name, checkpoint, trusted).to(device)
    if task is None:
        task = "captioning" if hasattr(model, "caption") else "retrieval"
    missing = _missing_methods(model, task)
    if missing:
        message = f"the model of {name} has no method {missing[0]}, which {task} needs"
        possible = [other for other in METHODS if not _missing_methods(model, other)]
        if possible:
            message += f"; it can do {' and '.join(possible)}"
        raise BadRequest(message)
    if cache is not None:
        cache_embeddings(model, cache)
    if task == "captioning":
        path = folder / "predictions" / f"{split.name}.csv"
        captions, log_probabilities = contract.captions(model, split, device=device)
        predictions.write_captions(path, split.file_names, captions, log_probabilities)
        return f"{path}: {len(captions)} clips, {plural(len(set(captions)), 'different caption')}"
    if not split.queries:
        raise BadRequest(f"the split {split.name} must have queries for retrieval; found none: give another split")
    path = folder / "predictions" / f"{split.name}.npz"
    prediction = contract.similarity(model, split, device=device)
    prediction.save(path)
    return f"{path}: {len(prediction.queries)} queries x {len(prediction.file_names)} clips"


def _checkpoint(folder: Path) -> Path:
    """Return the checkpoint to predict with: best.ckpt, or inference.ckpt, which some systems write, if it is missing.

    Raises:
        BadRequest: There is neither file.
    """
    best = folder / "checkpoints" / "best.ckpt"
    for_inference = best.with_name("inference.ckpt")
    if best.is_file():
        return best
    if for_inference.is_file():
        return for_inference
    message = "no such file, because no epoch of the training has ended; run the same training command again"
    raise BadRequest(f"{best}: {message}")


def _missing_methods(model: object, task: str) -> list[str]:
    """Return the methods that a task needs and a model does not have."""
    return [method for method in METHODS[task] if not hasattr(model, method)]


def warn_unfinished(folder: Path) -> None:
    """Print a warning if the training of a run has not ended."""
    if not (folder / "system.yaml").is_file():
        message = "training has not ended (there is no system.yaml); the best epoch so far is used"
        say([Finding(str(folder), message=message, severity=WARNING)])


def score(folder: Path, split: Split, metric: str, cache: Path) -> Score:
    """Score a run's predictions for a split, and write `scores/SPLIT.json` in the run folder.

    Compute the given metric first, and then the default metrics of `dcase-evaluation score`.

    Args:
        folder: The run folder.
        split: The split.
        metric: A metric of captioning or of retrieval.
        cache: Folder of the cache for tokenised reference captions.

    Raises:
        BadRequest: There are no predictions for the metric's task, or the metric cannot be computed on this machine.
        Faulty: The predictions are not valid. The exception lists all findings.
    """
    if metric in captioning.METRICS:
        task, extension = "captioning", "csv"
    else:
        task, extension = "retrieval", "npz"
    file = folder / "predictions" / f"{split.name}.{extension}"
    if not file.is_file():
        raise BadRequest(f"{file}: no such file, and {metric} is a metric of {task}; predict with --as {task} first")
    if task == "retrieval":
        prediction = predictions.read_retrieval(file, (len(split.queries), len(split.clips)))
        result = retrieval.evaluate(split, prediction, metrics=[metric, *retrieval.TASK_METRICS])
    else:
        metrics = [metric, *captioning.BASIC]
        result = captioning.evaluate(predictions.read_captions(file), split, metrics=metrics, cache=cache)
        if metric in result.unavailable:
            raise BadRequest(f"{metric} is not available: {result.unavailable[metric]}")
    result.save(folder / "scores" / f"{split.name}.json")
    return result
