"""Training a run, predicting with it, and scoring its predictions.

    dataset = read_dataset("data/soundscapes")
    run = train("baseline.retriever", dataset, "runs/small", {"epochs": 5})
    predict(run.folder, dataset["evaluation"])
    result = score(run.folder, dataset["evaluation"], "mAP@10")

The commands `dcase-systems train` and `predict` and the runs of a sweep share this code, so that they give the same
predictions. `systems/examples/training.ipynb` is a notebook that uses it.
"""

import contextlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import BaseModel

from evaluation import predictions, yamlfiles
from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset, Split
from evaluation.downloads import hub_cache
from evaluation.files import cache_folder, replacing
from evaluation.findings import WARNING, BadRequest, Finding, say
from evaluation.metrics import captioning, retrieval
from evaluation.scores import Score
from evaluation.text import plural
from systems import answering, contract, request_checks
from systems.asked import AskedSplit, require_kind
from systems.caching.embeddings import cache_embeddings
from systems.parts.devices import default_device
from systems.reranking.candidates import Candidates, candidates_file
from systems.sharing.folders import SCORES, unpacked
from systems.training import Run

# From each task to the methods that a model must have for it.
METHODS = {
    "captioning": ("caption",),
    "retrieval": ("embed_audio", "embed_text"),
    "choice": ("answer",),
    "moments": ("moments",),
}


NOTHING: Mapping[str, object] = MappingProxyType({})


def train(
    name: str,
    dataset: Dataset,
    folder: Path | str,
    config: BaseModel | Mapping[str, object] = NOTHING,
    *,
    seed: int = 0,
    cache: Path | None = None,
    flags: Mapping[str, object] = NOTHING,
    logger: str = "tensorboard",
    code_changed: bool = False,
) -> Run:
    """Train a system into a run folder, or resume an interrupted training.

    Args:
        name: Import name of the system.
        dataset: The data. The development and validation splits must have audio.
        folder: The run folder to write, or to resume.
        config: The system's config, or a dict with the settings that differ from its defaults.
        seed: The seed of all random generators, from 0 to 2**32 - 1.
        cache: Folder of the cache (default: `evaluation.files.cache_folder`).
        flags: Arguments for `lightning.Trainer`, as in `training.Run`.
        logger: As in `training.Run`.
        code_changed: As in `training.Run`.

    Returns:
        The run.

    Raises:
        BadRequest: There is no such system or split, or the seed is outside its range; or as for `contract.train`.
        Faulty: The settings are not valid; or as for `contract.train`. The exception lists all findings.
    """
    request_checks.check_seed(seed)
    system = contract.system(name)
    require_kind(system, dataset, DEVELOPMENT, VALIDATION)
    if isinstance(config, BaseModel):
        settings = config
    else:
        settings = contract.validate(system.Config, config, lambda _: "config")
    digests = {split: dataset[split].digest for split in (DEVELOPMENT, VALIDATION)}
    run = Run(
        Path(folder),
        name,
        settings,
        digests,
        seed,
        cache or cache_folder(),
        flags,
        logger=logger,
        code_changed=code_changed,
    )
    contract.train(system, settings, dataset, run)
    return run


@dataclass(frozen=True)
class LoadedRun:
    """A trained run whose model is in memory.

    Attributes:
        system: Import name of the system.
        model: The model, on the default device.
        checkpoint: The checkpoint that the model was loaded from. For an exported run, it is a temporary file.
    """

    system: str
    model: Any
    checkpoint: Path


@contextlib.contextmanager
def loaded(folder: Path, trusted: Collection[str] = ()) -> Iterator[LoadedRun]:
    """Load the model of a trained run. The files of the run exist at least until the end of the block.

    Print a warning if the training has not ended, or if the system's source code has changed since it began.

    Args:
        folder: The run folder, or a folder that `systems export` wrote.
        trusted: Import names of further modules that the user allows the run to name.

    Raises:
        BadRequest: The folder does not contain a trained run, the checkpoint is damaged, or the run names a module that
            is not allowed.
        Faulty: config.yaml is damaged. The exception lists all findings.
    """
    system = contract.read_model_run(folder).system
    with unpacked(folder) as run:
        checkpoint = trained_checkpoint(run)
        warn_unfinished(folder)
        model = contract.load(system, checkpoint, trusted).to(default_device())
        yield LoadedRun(system, model, checkpoint)


def predict(
    folder: Path,
    split: Split | AskedSplit,
    cache: Path | None = None,
    task: str | None = None,
    trusted: Collection[str] = (),
    out: Path | None = None,
    decoding: Mapping[str, object] = NOTHING,
) -> str:
    """Caption every clip of a split with a trained run, or compute the similarity of every query and every clip.

    Write the captions to `predictions/SPLIT.csv`, or the similarities to `predictions/SPLIT.npz`. If the decoding gives
    several candidates for each clip, write them to `candidates/SPLIT.csv`. If the split has questions, write the
    answers to `predictions/SPLIT.csv`. If it has queries about recordings, write the windows to
    `predictions/SPLIT.jsonl`. Print a warning if the training has not ended, or if the system's source code has changed
    since it began.

    Args:
        folder: The run folder, or a folder that `systems export` wrote.
        split: The split; the audio files of its clips must exist.
        cache: Folder of the cache for the embeddings of frozen encoders (default: they are not cached).
        task: `captioning` or `retrieval` (default: captioning if the model can caption). A split of questions or of
            queries about recordings has only one task.
        trusted: Import names of further modules that the user allows the run to name. Modules of the kit and installed
            modules are always allowed.
        out: The folder to write to (default: `folder`). It must be new or empty, or have predictions of the same run.
            A new folder also gets copies of config.yaml, system.yaml and scores/, which a package needs.
        decoding: Decoding settings that differ from those of the run's config. They need `out`, where the config.yaml
            contains them, and where scores/ of the run is not copied.

    Returns:
        A text that names the file that was written and gives the size of the prediction.

    Raises:
        BadRequest: The folder does not contain a trained run, the checkpoint is damaged, or the run names a module that
            is not allowed. Or the model cannot do the task or gives unusable output, or the split has no queries. Or
            `out` has other files. Or decoding settings are given and `out` is not, or the model has no such settings.
        Faulty: Audio files cannot be used, config.yaml is damaged, or decoding settings are not valid. The exception
            lists all findings.
    """
    contract.read_run(folder)
    if decoding and out is None:
        raise BadRequest("decoding settings must be given with a folder for the predictions; found none: give out")
    place = _Place(folder, out or folder, decoding)
    place.require()
    with loaded(folder, trusted) as run:
        if cache is not None:
            cache_embeddings(run.model, cache)
        if decoding:
            contract.change_decoding(run.model, run.system, decoding)
        return _predict_with(run.model, run.system, split, task, place)


@dataclass(frozen=True)
class _Place:
    """The folder to write predictions into.

    Attributes:
        folder: The run folder.
        out: The folder to write to.
        decoding: Decoding settings that differ from those of the run's config.
    """

    folder: Path
    out: Path
    decoding: Mapping[str, object]

    def config(self) -> bytes:
        """Return the content of config.yaml in the folder to write to: that of the run, and the decoding settings."""
        content = (self.folder / "config.yaml").read_bytes()
        if not self.decoding:
            return content
        with_decoding = yamlfiles.read_yaml(self.folder / "config.yaml") | {"decoding": dict(self.decoding)}
        return yaml.safe_dump(with_decoding, sort_keys=False).encode()

    def require(self) -> None:
        """Make sure that the predictions may be written into the folder.

        Raises:
            BadRequest: The folder has files that do not belong to the run, has predictions with other decoding
                settings, or is in the hub's cache.
        """
        if self.out.resolve().is_relative_to(hub_cache().resolve()):
            raise BadRequest(
                f"{self.out}: must not be in the hub's cache; give a folder for the predictions with --out"
            )
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return
        config = self.out / "config.yaml"
        if not config.is_file() or config.read_bytes() != self.config():
            must = "must be a new or empty folder, or have predictions of the same run"
            if self.decoding:
                must += " with the same decoding settings"
            raise BadRequest(f"{self.out}: {must}; found other files: give another folder with --out")

    def describe(self) -> None:
        """Write the files that a package needs besides the predictions, unless the folder has a config.yaml.

        Scores are not copied if the decoding differs, because they are those of the run's own predictions.
        """
        if (self.out / "config.yaml").exists():
            return
        names = [Path("system.yaml")]
        if not self.decoding:
            names += [file.relative_to(self.folder) for file in sorted((self.folder / SCORES).glob("*.json"))]
        for name in names:
            if (self.folder / name).is_file():
                with replacing(self.out / name) as part:
                    shutil.copyfile(self.folder / name, part)
        with replacing(self.out / "config.yaml") as part:
            part.write_bytes(self.config())


def _predict_with(model: Any, name: str, split: Split | AskedSplit, task: str | None, place: _Place) -> str:
    """Write the prediction of a loaded model; the arguments and the result are those of `predict`.

    Args:
        model: The model.
        name: Import name of its system.
        split: As for `predict`.
        task: As for `predict`.
        place: The folder to write to.
    """
    device = default_device()
    if isinstance(split, AskedSplit):
        task = split.kind
    elif task is None:
        of_clips = [known for known in tasks(model) if known in ("captioning", "retrieval")]
        task = of_clips[0] if of_clips else "retrieval"
    missing = missing_methods(model, task)
    if missing:
        message = f"the model of {name} has no method {missing[0]}, which {task} needs"
        if tasks(model):
            message += f"; it can do {' and '.join(tasks(model))}"
        raise BadRequest(message)
    if isinstance(split, AskedSplit):
        place.describe()
        return answering.predict(model, split, place.out, device=device)
    if task == "captioning":
        path = place.out / "predictions" / f"{split.name}.csv"
        log_probabilities: list[float] | None
        number = getattr(getattr(model, "decoding", None), "candidates", 1)
        if number > 1:
            candidates = Candidates.of(
                split.file_names, contract.caption_candidates(model, split, number, device=device)
            )
            place.describe()
            candidates.write(candidates_file(place.out, split.name))
            captions, log_probabilities = candidates.first()
        else:
            captions, log_probabilities = contract.captions(model, split, device=device)
            place.describe()
        predictions.write_captions(path, split.file_names, captions, log_probabilities)
        return f"{path}: {len(captions)} clips, {plural(len(set(captions)), 'different caption')}"
    if not split.queries:
        raise BadRequest(f"the split {split.name} must have queries for retrieval; found none: give another split")
    prediction = contract.similarity(model, split, device=device)
    path = place.out / "predictions" / f"{split.name}.npz"
    place.describe()
    prediction.save(path)
    return f"{path}: {len(prediction.queries)} queries x {len(prediction.file_names)} clips"


def trained_checkpoint(folder: Path) -> Path:
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


def tasks(model: object) -> list[str]:
    """Return the tasks that a model can do: `captioning`, `retrieval`, `choice` and `moments`."""
    return [task for task in METHODS if not missing_methods(model, task)]


def missing_methods(model: object, task: str) -> list[str]:
    """Return the methods that a task needs and a model does not have."""
    return [method for method in METHODS[task] if not hasattr(model, method)]


def warn_unfinished(folder: Path) -> None:
    """Print a warning if the training of a run has not ended."""
    if not (folder / "system.yaml").is_file():
        message = "training has not ended (there is no system.yaml); the best epoch so far is used"
        say([Finding(str(folder), message=message, severity=WARNING)])


def score(folder: Path, split: Split, metric: str, cache: Path | None = None) -> Score:
    """Score a run's predictions for a split, and write `scores/SPLIT.json` in the run folder.

    Compute the given metric first, and then the default metrics of `dcase-evaluation score`.

    Args:
        folder: The run folder.
        split: The split.
        metric: A metric of captioning or of retrieval.
        cache: Folder of the cache for tokenised reference captions (default: `evaluation.files.cache_folder`).

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
