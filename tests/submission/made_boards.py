"""Invented leaderboards and packages."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from evaluation.data.dataset import Dataset, Split
from evaluation.findings import ERROR, NOTE, Finding
from evaluation.metrics import retrieval
from evaluation.predictions import CAPTION_COLUMNS, Similarity
from submission import package, tasks, teams
from submission.ranking import rank
from submission.scoring import ScoredPackage, ScoredSystem
from submission.tasks import Task
from tests.submission import made

TASK = tasks.read("dcase2022-6b")
CLIPS = made.split("retrieval", 24).clips
SPLIT = Split("retrieval", tuple(replace(clip, captions=(f"Sound {n}.",)) for n, clip in enumerate(CLIPS)))


def knowing(much: float, seed: int = 0, split: Split = SPLIT) -> Similarity:
    """Return the scores of a system that finds the right clip more or less often."""
    scores = np.random.default_rng(seed).normal(size=(len(split.queries), len(split.clips))).astype(np.float32)
    scores += np.float32(much) * np.eye(*scores.shape, dtype=np.float32)
    return Similarity(split.queries, split.file_names, scores)


def hand_in(
    folder: Path, author: str, *predictions: object, task: Task = TASK, splits=None, answered="", **said
) -> Path:
    """Write a team's package into the folder `in`, with a system for each prediction, the same one for every set."""
    splits = splits or {"retrieval": SPLIT}
    runs = []
    for number, prediction in enumerate(predictions):
        runs.append(folder / "runs" / author / str(number))
        for split in splits.values():
            path = runs[-1] / "predictions" / split.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(prediction, Similarity):
                prediction.save(path.with_suffix(".npz"))
            else:
                rows = [CAPTION_COLUMNS, *zip(split.file_names, prediction, strict=True)]
                with path.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerows(rows)
        system = {**made.SYSTEM, "description": {**made.SYSTEM["description"], **said}}
        (runs[-1] / "system.yaml").write_text(yaml.safe_dump(system), encoding="utf-8")
    person = {**made.AUTHOR, "lastname": author}
    block = {"submission": {**made.TEAM["metadata"]["submission"], "authors": [person]}}
    (folder / "report.pdf").write_bytes(made.PDF)
    (folder / "team.yaml").write_text(yaml.safe_dump({**made.TEAM, "author": author, "metadata": block}))
    team, _ = teams.read(task, folder / "team.yaml")
    path = folder / "in" / task.package.file.value.format(author=author, institute="Mila")
    path.parent.mkdir(exist_ok=True)
    package.make(task, runs, team, Dataset(folder, {"development": made.described(), **splits}), path, answered)
    return path


def entry(label: str, prediction: Similarity | None = None, package: str = "", **changes) -> ScoredSystem:
    score = retrieval.evaluate(SPLIT, prediction or knowing(1))
    team = label.rsplit("_", 2)[0]
    metadata = {
        "system.description.acoustic_features": "log-mel",
        "system.description.audio_modelling": "CRNN",
        "system.description.loss_function": "triplet",
        "system.complexity.total_parameters": "7",
    }
    return ScoredSystem(label, team, package or f"{team}.zip", metadata, replace(score, **changes))


def ranked(*entries: ScoredSystem, task: Task = TASK, split: Split = SPLIT):
    """Rank systems, grouped by their packages."""
    packages: dict[str, tuple[ScoredSystem, ...]] = {}
    for system in entries:
        packages[system.package] = (*packages.get(system.package, ()), system)
    scored = [ScoredPackage(name, systems, ()) for name, systems in packages.items()]
    return rank(task, scored, split, "retrieval")


EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></svg></table><iframe src=//evil>",
    "&lt;script&gt; &#60;b>",
    "]]><!-- <a href='javascript:x'>",
    "a\u202eb\0\x1b[31m\n\r\t\udc80é王 =1+1",
    "=HYPERLINK(1)",
    " =cmd",
    "＝cmd",
)


HOSTILE_KEYS = (
    "submission.name",
    "submission.authors.1.lastname",
    "submission.authors.1.affiliation.institute",
    "system.description.audio_modelling",
    "system.description.loss_function",
    "system.external_datasets.1.name",
    "system.<b>key</b>",
)


def hostile_board():
    entries = [
        replace(
            entry(
                f"A{n}_x_task6b_1", knowing(n), package=f"{text}.zip".translate({0: None, ord("/"): "|"})
            ),  # a file name has neither
            label=text,
            team=text,
            metadata=dict.fromkeys(HOSTILE_KEYS, text),
        )
        for n, text in enumerate(EVIL)
    ]
    findings = (Finding(EVIL[0], 1, EVIL[1], " ".join(EVIL), ERROR), Finding(EVIL[2], message=EVIL[3], severity=NOTE))
    score = replace(entries[0].score, unavailable={"spice": EVIL[0]}, signature=EVIL[1])
    entries[0] = replace(entries[0], score=score)
    packages = [ScoredPackage(e.package, (e,), findings, Path(__file__)) for e in entries]
    return rank(TASK, packages, replace(SPLIT, name="evaluation"), "retrieval", findings=findings)
