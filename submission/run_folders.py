"""Run folders: what a package is made from.

A run folder that can be packaged holds a prediction for every split that is answered:

- captioning: `predictions/SPLIT.csv`, a caption for each clip;
- retrieval: `predictions/SPLIT.npz`, the similarities, or `predictions/SPLIT.csv`, each query with its best clips.

These files are used if they are there: `system.yaml` describes the system; `scores/evaluation.json` has the results,
and `scores/evaluation-retrieval.json` those of retrieval if the run does both tasks; `config.yaml` says which data the
system was trained on. `systems train`, `systems predict` and `evaluation score` write all of them.
"""

import difflib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation import scores
from evaluation.data.dataset import EVALUATION, Dataset, Split
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Faulty, Finding
from evaluation.text import SHOWN, cut, quoted
from submission import documents, metadata
from submission.metadata_text import ABSENT
from submission.tasks import Key, Task

CORRECT = "; correct it there or in the team file"
OWN_PREDICTIONS = {  # how to write a prediction without `systems predict`, by the task's form
    "captions": "a CSV of file_name and caption_predicted",
    "top-k": "predictions.Similarity(…).save, or {other}, a CSV of each query and its best clips",
    "matrix": "predictions.Similarity(…).save",
}


# Predictions ----------------------------------------------------------------------------------------------------------


def find_predictions(
    task: Task, run: Path, splits: Mapping[str, str], data: Path
) -> tuple[dict[str, Path], list[Finding]]:
    """Return the predictions that a run holds for a task, and an error for each that is missing.

    Args:
        task: The task.
        run: The run folder.
        splits: By the task's sets, the name of the split that is answered.
        data: The data folder, for the command that makes a missing prediction.

    Returns:
        By the task's sets, the file of the prediction; and the findings.

    Raises:
        BadRequest: There is no such folder, or it holds nothing of a run.
    """
    if not run.is_dir():
        raise BadRequest(f"{run}: no such run folder; train one: python -m systems train …")
    if not any((run / name).exists() for name in ("predictions", "system.yaml", "config.yaml")):
        message = "is no run folder, and has no predictions/; give what `systems train --run` names"
        raise BadRequest(f"{run}: {message}, or a folder with predictions of your own")
    files: dict[str, Path] = {}
    findings: dict[str, Finding] = {}  # in a rehearsal, all sets are answered for one split
    for name, split in splits.items():
        similarities = run / "predictions" / f"{split}.npz"
        table = run / "predictions" / f"{split}.csv"
        if task.kind == "captioning":
            wanted, other = table, similarities
        else:
            wanted, other = similarities, table
        if wanted.is_file():
            files[name] = wanted
        elif task.kind == "retrieval" and table.is_file() and not _holds_captions(table):
            files[name] = table
        else:
            findings[split] = _missing_prediction(task, run, split, data, wanted, other)
    return files, list(findings.values())


def _holds_captions(table: Path) -> bool:
    """Return whether a table is the prediction of a captioning system."""
    with table.open("rb") as file:
        header = file.readline(SHOWN)
    return b"file_name" in header and b"caption_predicted" in header


def _missing_prediction(task: Task, run: Path, split: str, data: Path, wanted: Path, other: Path) -> Finding:
    """Make the finding about a prediction that is missing.

    Args:
        task: The task.
        run: The run folder.
        split: The split that is answered.
        data: The data folder.
        wanted: The file that is missing.
        other: The file of a prediction for tasks of the other kind, which may be there.
    """
    command = shlex.join(["python", "-m", "systems", "predict", str(run), "--data", str(data), "--split", split])
    if not other.is_file():
        own = OWN_PREDICTIONS[task.form.value].format(other=other.name)
        message = f"is not there, and {task.name} wants it; make it: {command}; or, of a system of your own, by {own}"
    elif task.kind == "captioning":
        message = f"is not there: {task.name} takes captions, and {other.name} holds a retriever's similarities; give "
        message += f"a captioner's run, or, where the system is both: {command} --as captioning"
    else:
        message = f"is not there: {task.name} takes similarities, and {other.name} holds a captioner's captions; give "
        message += f"a retriever's run, or, where the system is both: {command} --as retrieval"
    return Finding(str(wanted), message=message)


# Descriptions ---------------------------------------------------------------------------------------------------------


def describe(task: Task, run: Path, dataset: Dataset) -> tuple[dict[str, object], list[str], list[Finding]]:
    """Describe a system by the keys of the task's metadata, from its run folder and the data.

    `system.yaml` gives the keys below `system`, the score the results, and the data folder the lists of data sets. A
    key that may be null and has no value is null.

    Args:
        task: The task.
        run: The run folder.
        dataset: The data folder.

    Returns:
        The metadata; the paths of keys that may be null and have no value; and the findings.
    """
    findings: list[Finding] = []
    system = _read_system(run / "system.yaml", findings)
    results = _read_results(task, run, findings)
    description = _Description(task, run, dataset, system, results, findings)
    return description.fill(task.whole, {"system": system}, ""), description.without_value, findings


def _read_system(file: Path, findings: list[Finding]) -> dict[str, object]:
    if not file.is_file():
        message = "is not there (`systems train` writes it in the end): what the system is, the team file alone says"
        findings.append(Finding(str(file), message=message, severity=NOTE))
        return {}
    document = documents.read(file)
    findings += [finding for finding in document.findings if finding.severity == ERROR]
    return document.values or {}


def _read_results(task: Task, run: Path, findings: list[Finding]) -> dict[str, float]:
    """Return the metrics of the run's score on the evaluation split; none if there is no such score."""
    file = run / "scores" / f"{EVALUATION}.json"
    retrieval_file = file.with_stem(f"{EVALUATION}-retrieval")  # of a run that does both tasks
    if task.kind == "retrieval" and retrieval_file.is_file():
        file = retrieval_file
    if not file.is_file():
        command = f"python -m evaluation score … --json {shlex.quote(str(file))}"
        message = f"is not there: the metadata say no results; make it: {command}"
        findings.append(Finding(str(file), message=message, severity=NOTE))
        return {}
    try:
        score = scores.read(file)
    except Faulty as faulty:
        findings += faulty.findings
        return {}
    findings += scores.check(score, str(file))
    if f"|split:{EVALUATION}#" not in score.signature:
        message = f"must be a score on {EVALUATION}, which the results are of; found {cut(score.signature)}"
        findings.append(Finding(str(file), column="signature", message=f"{message}: score that split"))
    kind = "retrieval" if score.items.kind == "queries" else "captioning"
    if kind == task.kind:
        return {name: measured.estimate.value for name, measured in score.metrics.items()}
    advice = f"rename it {retrieval_file.name}, and score the captions into {file.name}"
    if kind == "captioning":
        advice = f"score the retrieval into {retrieval_file.name} beside it"
    message = f"is a score of {kind}, where {task.name} is {task.kind}: the metadata say no results; {advice}"
    findings.append(Finding(str(file), message=message, severity=WARNING))
    return {}


class _Description:
    """Fills the keys of a task's metadata with what a run and the data say.

    Attributes:
        without_value: The paths of keys that may be null and have no value.
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
            value: Its value in `system.yaml`, None if it is not there.
            path: Its path in the metadata.
        """
        if key.split:
            return self._describe_split(key, path)
        if key.keys and not key.many:
            return self._fill_mapping(key, value, path)
        if key.metric:
            if key.metric in self.results:
                return round(self.results[key.metric], 6)
            return None
        if key.need == "nullable" and metadata.value_at({"system": self.system}, tuple(path.split("."))) is ABSENT:
            self.without_value.append(path)
        return value

    def _fill_mapping(self, key: Key, value: object, path: str) -> dict[str, object]:
        file = str(self.run / "system.yaml")
        values = value if isinstance(value, dict) else {}
        if value is not None and not isinstance(value, dict):
            message = f"must be keys and values ({', '.join(key.keys)}); found {quoted(str(value))}{CORRECT}"
            self.findings.append(Finding(file, column=path.removeprefix("system."), message=message))
        absent = [name for name in key.keys if name not in values]
        for name in values:  # keys that the task does not ask for are allowed, unless they look misspelt
            if name in key.keys:
                meant = []
            else:
                meant = difflib.get_close_matches(str(name), absent, 1, 0.8)
            if meant:
                message = f"is no key of {self.task.name}, and left out; did you mean {meant[0]!r}?"
                self.findings.append(Finding(file, column=cut(str(name)), message=message, severity=WARNING))
        filled = {}
        for name, below in key.keys.items():
            inner = self.fill(below, values.get(name), f"{path}.{name}".lstrip("."))
            if inner is not None or below.need == "nullable":
                filled[name] = inner
        return filled

    def _describe_split(self, key: Key, path: str) -> list[dict[str, object]] | None:
        """Return the list of data sets that has the split; None if it is not known."""
        split = self.dataset.splits.get(key.split)
        if not split:
            return None
        if split.digest and self.trained_on.get(key.split, split.digest) != split.digest:
            message = f"was trained on another {key.split} split than {self.dataset.folder} has; describe it in the "
            message += "team file"
            self.findings.append(Finding(str(self.run / "config.yaml"), column=path, message=message, severity=WARNING))
            return None
        return [_split_description(key.keys, self.dataset.folder, split)]


def _training_digests(config: Path) -> dict[str, str]:
    """Return the digests of the splits that a run was trained on, by name; none if the config does not have them."""
    if not config.is_file():
        return {}
    values = documents.read(config).values or {}
    digests = values.get("data")
    if isinstance(digests, dict):
        return digests
    return {}


def _split_description(names: Sequence[str], folder: Path, split: Split) -> dict[str, object]:
    """Describe a split as a data set by the keys of the metadata; keys that are not known here are null."""
    captions = sum(len(clip.captions) for clip in split.clips)
    clips_of_captions = sum(len(clips) for clips in split.captions.values())
    known = {
        "name": f"{folder.resolve().name} {split.name}",
        "has_audio": True,
        "has_images": False,
        "has_video": False,
        "has_captions": captions > 0,
        "nb_captions_per_audio": _ratio(captions, len(split.clips)),
        "nb_clips_per_caption": _ratio(clips_of_captions, len(split.captions)),
        "total_audio_length": None if split.seconds is None else round(split.seconds),
        "total_captions": captions,
    }
    return {name: known.get(name) for name in names}


def _ratio(total: int, number: int) -> float | int:
    """Return a mean to two decimals, as an integer if it is one."""
    mean = total / max(number, 1)
    if mean == int(mean):
        return int(mean)
    return round(mean, 2)
