"""The runs that an ensemble combines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import yamlfiles
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import quoted
from systems import contract

SUFFIXES = {"retrieval": ".npz", "captioning": ".csv"}  # for each task, the suffix of a prediction file
MISSING = {  # for each file of a run folder, what to do if it is missing
    "config.yaml": "give a run folder, as `dcase-systems train` writes it",
    "system.yaml": "its training has not ended: run the same training command again",
}


@dataclass(frozen=True)
class Member:
    """A run of the ensemble.

    Attributes:
        folder: The run folder, as the user gave it.
        config: The content of its config.yaml.
        system: The content of its system.yaml.
    """

    folder: Path
    config: contract.RunConfig
    system: dict[str, object]

    def prediction(self, split: str, task: str) -> Path:
        """Return the path of the prediction for a split. The file may be missing."""
        return self.folder / "predictions" / f"{split}{SUFFIXES[task]}"

    def splits(self, task: str) -> set[str]:
        """Return the names of the splits for which the run has predictions."""
        return {file.stem for file in (self.folder / "predictions").glob(f"*{SUFFIXES[task]}")}


def read_members(folders: Sequence[Path]) -> list[Member]:
    """Read the descriptions of two or more runs.

    Raises:
        BadRequest: There is only one run, or a run is given twice.
        Faulty: Folders are not run folders, or their files are damaged. The exception lists all findings.
    """
    if len(folders) < 2:
        raise BadRequest("an ensemble must have two runs or more; found one: give more run folders")
    resolved = [folder.resolve() for folder in folders]
    repeated = [folder for folder in folders if resolved.count(folder.resolve()) > 1]
    if repeated:
        raise BadRequest(
            f"each run must be given once; found {repeated[0]} twice: use --weights to give it more weight"
        )
    members, findings = [], []
    for folder in folders:
        try:
            members.append(read_member(folder))
        except Faulty as faulty:
            findings += faulty.findings
    if findings:
        raise Faulty(findings, status=2)
    return members


def read_member(folder: Path) -> Member:
    """Read the description of a run.

    Raises:
        Faulty: The folder is not a run folder, or its files are damaged. The exception lists all findings.
    """
    missing = [file for file in MISSING if not (folder / file).is_file()]
    if missing:
        raise Faulty([Finding(str(folder / missing[0]), message=f"is missing; {MISSING[missing[0]]}")], status=2)
    return Member(folder, contract.read_run(folder), yamlfiles.read_yaml(folder / "system.yaml"))


def common_task(members: Sequence[Member]) -> tuple[str, list[str]]:
    """Return the task of the ensemble, and the splits for which all runs have predictions, sorted by name.

    Raises:
        BadRequest: The runs do not have predictions for a common split, or all runs have predictions for both tasks.
    """
    splits = {task: sorted(set.intersection(*(member.splits(task) for member in members))) for task in SUFFIXES}
    possible = [task for task, names in splits.items() if names]
    if len(possible) == 1:
        return possible[0], splits[possible[0]]
    if possible:
        message = "the runs must have predictions for one task; found both: move the .npz or the .csv files away"
        raise BadRequest(message)
    found = []
    for member in members:
        names = sorted(file.name for file in (member.folder / "predictions").glob("*.*"))
        found.append(f"{member.folder} has {', '.join(map(quoted, names)) or 'no prediction'}")
    message = "all runs must have predictions for the same split (predictions/SPLIT.npz or predictions/SPLIT.csv)"
    command = "dcase-systems predict RUN --data DIR --split SPLIT"
    raise BadRequest(f"{message}; {'; '.join(found)}: predict with {command}")


def joined_description(members: Sequence[Member]) -> dict[str, object]:
    """Return the content of the ensemble's system.yaml, which contains entries of a submission's metadata.

    An entry of `description` that is equal in all runs is kept. If an entry differs, texts are joined with commas, and
    other values become None. The numbers of parameters of all runs are added.
    """
    descriptions = [_mapping(member.system.get("description")) for member in members]
    names = dict.fromkeys(name for description in descriptions for name in description)
    joined = {name: _joined([description.get(name) for description in descriptions]) for name in names}
    complexities = [_mapping(member.system.get("complexity")) for member in members]
    complexity = {}
    for name in ("total_parameters", "trainable_parameters"):
        counts = [count for values in complexities if isinstance(count := values.get(name), int)]
        if len(counts) == len(members):
            complexity[name] = sum(counts)
    return {"description": joined | {"ensemble": True}, "complexity": complexity, "members": len(members)}


def _mapping(value: object) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    return {}


def _joined(values: Sequence[object]) -> object:
    """Return the value that all runs have. If the values differ, join texts with commas; other values become None."""
    different = [value for index, value in enumerate(values) if value not in values[:index]]
    if len(different) == 1:
        return different[0]
    if all(isinstance(value, str) for value in different):
        return ", ".join(map(str, different))
    return None


def common_digests(members: Sequence[Member]) -> dict[str, str]:
    """Return the digests of the splits that are equal in the configs of all runs, for the ensemble's config.yaml."""
    first, *others = (member.config.data for member in members)
    return {split: digest for split, digest in first.items() if all(data.get(split) == digest for data in others)}
