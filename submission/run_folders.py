"""Reading of run folders, from which packages are made.

To make a package, a run folder must contain a prediction for each split that the package has an output for:

- a captioning system has `predictions/SPLIT.csv` (a caption for each clip);
- a retrieval system has `predictions/SPLIT.npz` (the similarities) or `predictions/SPLIT.csv` (each query with its best
  clips, or the similarities).

These files are optional:

- `system.yaml` describes the system;
- `scores/evaluation.json` contains the results;
- `scores/evaluation-retrieval.json` contains the results of retrieval, if the system does both captioning and
  retrieval;
- `config.yaml` contains digests of the splits that the system was trained on.

`dcase-systems train`, `dcase-systems predict` and `dcase-evaluation score` write all these files.
"""

import difflib
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from evaluation import scores
from evaluation.data.dataset import EVALUATION, Dataset, Split
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Faulty, Finding
from evaluation.scores import Score
from evaluation.text import cut, quoted
from submission import documents, metadata
from submission.kinds import KINDS
from submission.kinds.kind import Kind
from submission.metadata_text import ABSENT
from submission.tasks import Key, Task

CORRECT = "; correct it there or in the team file"


# Predictions ----------------------------------------------------------------------------------------------------------


def find_predictions(
    task: Task, run: Path, splits: Mapping[str, str], data: Path
) -> tuple[dict[str, Path], list[Finding]]:
    """Return the predictions of a run for a task, and an error for each missing one.

    Args:
        task: The task.
        run: The run folder.
        splits: A dict from each of the task's sets to the name of the split that its outputs are for.
        data: The data folder. Messages about missing predictions show a command that contains it.

    Returns:
        A dict from each of the task's sets to the file of its prediction, and the findings.

    Raises:
        BadRequest: The folder does not exist, or contains neither `predictions/`, `system.yaml` nor `config.yaml`.
    """
    if not run.is_dir():
        raise BadRequest(f"{run}: no such run folder; train a system: dcase-systems train …")
    if not any((run / name).exists() for name in ("predictions", "system.yaml", "config.yaml")):
        message = (
            "must be a run folder, or have a folder predictions/; found neither: give the folder from `dcase-systems "
        )
        raise BadRequest(f"{run}: {message}train --run`, or a folder with your own predictions")
    files: dict[str, Path] = {}
    findings: dict[str, Finding] = {}  # for each split, because all sets have the same split in a rehearsal
    for name, split in splits.items():
        candidates = _files_of(KINDS[task.kind], run, split)
        existing = [path for path in candidates if path.is_file() and not _is_of_other_kind(task, path)]
        if existing:
            files[name] = existing[0]
        else:
            findings[split] = _missing_prediction(task, run, split, data)
    return files, list(findings.values())


def _files_of(kind: Kind, run: Path, split: str) -> list[Path]:
    """Return the files that a prediction of a kind may be in; the usual one is first."""
    return [run / "predictions" / f"{split}{suffix}" for suffix in kind.suffixes]


def _is_of_other_kind(task: Task, path: Path) -> bool:
    """Return whether a file is the prediction of a system of another kind."""
    others = [kind for name, kind in KINDS.items() if name != task.kind]
    return any(kind.holds(path) for kind in others)


def _missing_prediction(task: Task, run: Path, split: str, data: Path) -> Finding:
    """Return the finding about a missing prediction.

    Args:
        task: The task.
        run: The run folder.
        split: The split that the prediction is for.
        data: The data folder.
    """
    kind = KINDS[task.kind]
    model = [str(run)]
    if (run / "config.yaml").is_file() and not any((run / name).exists() for name in ("checkpoints", "config.json")):
        model = ["RUN", "--out", str(run)]  # the folder only has the predictions of a run that is elsewhere
    command = shlex.join(["dcase-systems", "predict", *model, "--data", str(data), "--split", split])
    expected = _files_of(kind, run, split)[0]
    for other in KINDS.values():
        for path in _files_of(other, run, split):
            if other is not kind and path.is_file() and other.holds(path):
                message = f"is missing: {task.name} needs {kind.answers}, and {path.name} has {other.of_system}; give "
                message += f"the run of a {kind.system}, or, if the system does both tasks: {command} --as {kind.name}"
                return Finding(str(expected), message=message)
    own = task.output_form.own_prediction.format(split=split)
    advice = f"make it: {command}; for a system of your own, {own}"
    return Finding(str(expected), message=f"is missing, and {task.name} needs it; {advice}")


# Descriptions ---------------------------------------------------------------------------------------------------------


def describe(task: Task, run: Path, dataset: Dataset) -> tuple[dict[str, object], list[str], list[Finding]]:
    """Return the metadata of a system that are known from its run folder and the data.

    The keys below `system` are read from `system.yaml`, and the results from the score. The lists of data sets are made
    from the data folder. If a key that may be null has no value, it is null.

    Args:
        task: The task.
        run: The run folder.
        dataset: The data folder.

    Returns:
        Three values: the metadata; the paths of the keys that may be null and have no value; and the findings.
    """
    findings: list[Finding] = []
    system = _read_system(run / "system.yaml", findings)
    results = _read_results(task, run, dataset, findings)
    description = _Description(task, run, dataset, system, results, findings)
    values = description.fill_mapping(task.whole, {"system": system}, "")
    return values, description.without_value, findings


def _read_system(file: Path, findings: list[Finding]) -> dict[str, object]:
    """Return the values of `system.yaml`. If it is missing, add a note and return an empty dict."""
    if not file.is_file():
        message = "is missing (`dcase-systems train` writes it at the end), so only the team file describes the system"
        findings.append(Finding(str(file), message=message, severity=NOTE))
        return {}
    document = documents.read(file)
    findings += [finding for finding in document.findings if finding.severity == ERROR]
    return document.values or {}


def _read_results(task: Task, run: Path, dataset: Dataset, findings: list[Finding]) -> dict[str, float]:
    """Return a dict from each metric of the run's score on the evaluation split to its value.

    If the run has no such score for a task of this kind, add a finding and return an empty dict.
    """
    kind = KINDS[task.kind]
    file = run / "scores" / f"{EVALUATION}.json"
    own_file = file.with_stem(kind.score_name)
    if own_file.is_file():
        file = own_file
    if not file.is_file():
        command = f"dcase-evaluation score … --json {shlex.quote(str(file))}"
        message = f"is missing, so the metadata have no results; make it: {command}"
        findings.append(Finding(str(file), message=message, severity=NOTE))
        return {}
    try:
        score = Score.load(file)
    except Faulty as faulty:
        findings += faulty.findings
        return {}
    findings += scores.check(score, str(file))
    owner = next((other for other in KINDS.values() if other.has_score(score)), kind)
    if owner is not kind:
        advice = f"score the {kind.scored} into {own_file.name}, in the same folder"
        if own_file.name == file.name:
            advice = f"rename it {file.with_stem(owner.score_name).name}, and score the {kind.scored} into {file.name}"
        message = f"is the score of a {owner.system}, but {task.name} is for a {kind.system}, so the metadata have no "
        message += "results"
        findings.append(Finding(str(file), message=f"{message}; {advice}", severity=WARNING))
        return {}
    if not kind.is_of_evaluation(score, dataset):
        message = f"must be a score on {EVALUATION}, because the metadata ask for its results; found "
        message += f"{cut(score.signature)}: score the predictions for {EVALUATION}"
        findings.append(Finding(str(file), column="signature", message=message))
    return {name: measured.estimate.value for name, measured in score.metrics.items()}


class _Description:
    """The metadata of a system that are known from its run folder and the data.

    Attributes:
        without_value: Paths of the keys that may be null and have no value.
    """

    def __init__(
        self,
        task: Task,
        run: Path,
        dataset: Dataset,
        system: Mapping[str, object],
        results: Mapping[str, float],
        findings: list[Finding],
    ):
        self.task, self.run, self.dataset = task, run, dataset
        self.system, self.results, self.findings = system, results, findings
        self.trained_on = _training_digests(run / "config.yaml")
        self.without_value: list[str] = []

    def fill(self, key: Key, value: object, path: str) -> object:
        """Return the value of a key, with all keys below it.

        Args:
            key: The key.
            value: The key's value in `system.yaml`; None if it has no value there.
            path: The key's path in the metadata.
        """
        if key.split:
            return self._describe_split(key, path)
        if key.keys and not key.many:
            return self.fill_mapping(key, value, path)
        if key.metric:
            if key.metric in self.results:
                return round(self.results[key.metric], 6)
            return None
        if key.need == "nullable" and metadata.value_at({"system": self.system}, tuple(path.split("."))) is ABSENT:
            self.without_value.append(path)
        return value

    def fill_mapping(self, key: Key, value: object, path: str) -> dict[str, object]:
        """Return the values of the keys below a key. The arguments are those of `fill`."""
        file = str(self.run / "system.yaml")
        values: dict[str, object] = {}
        if isinstance(value, dict):
            values = value
        elif value is not None:
            message = f"must be keys and values ({', '.join(key.keys)}); found {quoted(str(value))}{CORRECT}"
            self.findings.append(Finding(file, column=path.removeprefix("system."), message=message))
        absent = [name for name in key.keys if name not in values]
        for name in values:  # keys that the task does not ask for are allowed, unless they look misspelt
            if name in key.keys:
                continue
            meant = difflib.get_close_matches(str(name), absent, 1, 0.8)
            if meant:
                message = f"is not a key of {self.task.name}, and is ignored; did you mean {meant[0]!r}?"
                self.findings.append(Finding(file, column=cut(str(name)), message=message, severity=WARNING))
        filled = {}
        for name, below in key.keys.items():
            inner = self.fill(below, values.get(name), f"{path}.{name}".lstrip("."))
            if inner is not None or below.need == "nullable":
                filled[name] = inner
        return filled

    def _describe_split(self, key: Key, path: str) -> list[dict[str, object]] | None:
        """Return a list with the description of a split, or None if the split cannot be described.

        This is the case if the data folder does not have the split. It is also the case if the system was trained on
        other data than the folder has; a warning is then added.
        """
        split = self.dataset.splits.get(key.split)
        if not split:
            return None
        if split.digest and self.trained_on.get(key.split, split.digest) != split.digest:
            message = f"the {key.split} split of the training differs from that in {self.dataset.folder}"
            message += "; describe it in the team file"
            self.findings.append(Finding(str(self.run / "config.yaml"), column=path, message=message, severity=WARNING))
            return None
        return [_split_description(key.keys, self.dataset.folder, split)]


def _training_digests(config: Path) -> dict[str, str]:
    """Return a dict from each split that a system was trained on to its digest.

    The dict is empty if there is no `config.yaml`, or if it does not contain digests.
    """
    if not config.is_file():
        return {}
    values = documents.read(config).values or {}
    digests = values.get("data")
    if isinstance(digests, dict):
        return digests
    return {}


def _split_description(names: Iterable[str], folder: Path, split: Split) -> dict[str, object]:
    """Return the description of a split as a data set. Keys whose value the split does not contain are null.

    Args:
        names: The keys that the metadata ask for.
        folder: The data folder.
        split: The split.
    """
    captions = sum(len(clip.captions) for clip in split.clips)
    clips_of_captions = sum(len(clips) for clips in split.captions.values())
    seconds = None
    if split.seconds is not None:
        seconds = round(split.seconds)
    values = {
        "name": f"{folder.resolve().name} {split.name}",
        "has_audio": True,
        "has_images": False,
        "has_video": False,
        "has_captions": captions > 0,
        "nb_captions_per_audio": _ratio(captions, len(split.clips)),
        "nb_clips_per_caption": _ratio(clips_of_captions, len(split.captions)),
        "total_audio_length": seconds,
        "total_captions": captions,
    }
    return {name: values.get(name) for name in names}


def _ratio(total: int, number: int) -> float | int:
    """Return a mean rounded to two decimals, or as an integer if it is whole."""
    mean = total / max(number, 1)
    if mean == int(mean):
        return int(mean)
    return round(mean, 2)
