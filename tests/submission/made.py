"""Invented run folders and blind sets, from which the tests make packages."""

import json
import zipfile
from pathlib import Path

import numpy as np
import yaml

from evaluation.choice_formats import Answers, write_answers
from evaluation.data.dataset import Clip, Dataset, Split
from evaluation.data.questions import Question, Questions
from evaluation.data.recordings import MomentQuery, Recordings
from evaluation.findings import Finding
from evaluation.predictions import Similarity
from submission import package, tasks, teams
from submission.outputs.form import Asked, FileSplit
from submission.tasks import Task

AUTHOR = {
    "lastname": "Wu",
    "firstname": "Ada",
    "email": "ada@example.org",
    "corresponding": True,
    "affiliation": {"abbreviation": "Mila", "institute": "Mila", "department": "Sound", "location": "Montréal, Canada"},
}
TEAM = {
    "author": "Wu",
    "institute": "Mila",
    "report": "report.pdf",
    "metadata": {"submission": {"name": "A system: no. 1", "abbreviation": "Sys", "authors": [AUTHOR]}},
    "systems": [],
}
SYSTEM = {
    "description": {
        "input_sampling_rate": "44.1kHz",
        "acoustic_features": "log-mel energies",
        "audio_modelling": "CRNN",
        "word_modelling": "mean of word vectors",
        "loss_function": "triplet loss",
        "ensemble": False,
        "learning_rate": 1e-05,
    },
    "complexity": {"total_parameters": 732354, "trainable_parameters": 732354},
    "seed": 0,
}


def is_about_report(finding: Finding) -> bool:
    """Return whether a finding is about the technical report, which does not keep the systems from being ranked."""
    if finding.message.startswith("the report "):
        return True
    return finding.file.lower().endswith(".pdf") and "is not part of a submission" not in finding.message


def pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """Return a PDF of some objects, numbered from 1. The first one is the catalogue."""
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count, start = len(objects) + 1, len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n" % (count, table)
    return content + b"<< /Size %d /Root 1 0 R %b >>\nstartxref\n%d\n%%%%EOF\n" % (count, trailer, start)


CATALOGUE = b"<< /Type /Catalog /Pages 2 0 R >>"
PDF = pdf(  # a page with a line on it
    CATALOGUE,
    b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R >>",
    b"<< /Length 13 >>\nstream\n72 72 m 9 9 l\nendstream",
)
WORDS = ("rain", "birds", "a dog", "thunder", "steps", "water", "wind", "a bell")


def split(name: str, clips: int, queries: int = 0) -> Split:
    """Return a blind set with names as awkward as Clotho's, and with one query for each of the first clips."""
    awkward = (" leading.wav", "comma, name.wav", "l&#39;eau.wav", "dots.in.stem.wav")
    names = (*awkward, *(f"{name}_{number:04}.wav" for number in range(5, clips + 1)))
    asked = tuple(f"{WORDS[n % 8]} is heard, then {WORDS[n // 8 % 8]}, no. {n}." for n in range(queries))
    return Split(name, tuple(Clip(clip, (), Path(clip)) for clip in names), None, asked)


def questions(name: str, number: int, *, blind: bool = True) -> FileSplit:
    """Return questions with three options each. The right answer is the first option."""
    asked = []
    for n in range(1, number + 1):
        options = (f"{WORDS[n % 8]}, once", f"{WORDS[n % 8]}, twice", f'"{WORDS[n % 8]}"')
        answer = None if blind else options[0]
        asked.append(Question(f"{name}_{n:04}", f"What is heard in clip {n}?", options, answer, f"{name}/{n // 2}.wav"))
    return FileSplit(name, Questions(tuple(asked)))


def recordings(name: str, number: int, *, blind: bool = True) -> FileSplit:
    """Return queries about recordings of 60 s. The first 10 s of each number of seconds are right."""
    asked = []
    for n in range(1, number + 1):
        windows = () if blind else ((float(n % 40), n % 40 + 10.0),)
        asked.append(MomentQuery(f"{name}_q{n:03}", f"Sound {n} is heard", f"recording {n // 2}", 60.0, windows))
    return FileSplit(name, Recordings(tuple(asked)))


def asked(task: Task, name: str, clips: int, queries: int) -> Asked:
    """Return a blind set that systems of a task answer."""
    if task.kind == "choice":
        return questions(name, clips)
    if task.kind == "moments":
        return recordings(name, clips)
    return split(name, clips, queries)


def answer(task: Task, run: Path, asked: Asked, seed: int = 0) -> Path:
    """Write a prediction as `dcase-systems predict` does, and the other files of a run that a package uses."""
    rng = np.random.default_rng(seed)
    file = run / "predictions" / asked.name
    file.parent.mkdir(parents=True, exist_ok=True)
    if task.kind == "choice":
        answers = {each.id: each.options[rng.integers(0, 2)] for each in asked.content.questions}
        write_answers(file.with_suffix(".csv"), Answers.of(answers))
    elif task.kind == "moments":
        lines = []
        for number, query in enumerate(asked.content.queries, start=1):
            starts = rng.choice(50, 3, replace=False)
            windows = [[number % 40 + 0.5, number % 40 + 10.25, 0.9]]
            windows += [[float(start), start + 7.5, 0.5 - i / 10] for i, start in enumerate(starts)]
            lines.append(json.dumps({"qid": query.id, "pred_relevant_windows": windows[seed:]}))
        file.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
    elif task.kind == "captioning":
        rows = (
            f'"{name}","{WORDS[i]} and {WORDS[j]} are heard{"" if i else ", again"}"'
            for name, (i, j) in zip(asked.file_names, rng.integers(0, 8, (len(asked.clips), 2)), strict=True)
        )
        file.with_suffix(".csv").write_text("\n".join(["file_name,caption_predicted", *rows]) + "\n", encoding="utf-8")
    else:
        scores = rng.normal(size=(len(asked.queries), len(asked.clips))).astype(np.float32)
        scores[np.arange(len(scores)), np.arange(len(scores))] += (
            2  # the clip with the query's number is often near the top
        )
        Similarity(asked.queries, asked.file_names, scores).save(file.with_suffix(".npz"))
    (run / "system.yaml").write_text(yaml.safe_dump(SYSTEM), encoding="utf-8")
    return run


def described() -> Split:
    """Return a development split of two clips that share a caption."""
    captions = (("It rains.", "Rain."), ("It rains.", "Drops fall."))
    return Split("development", tuple(Clip(f"{i}.wav", both, Path(f"{i}.wav")) for i, both in enumerate(captions)))


def packaged(name: str, folder: Path) -> tuple[Task, dict[str, bytes], dict[str, Asked]]:
    """Return a task, the files of a valid package with two systems, and the sets of 12 clips that they answer."""
    task = tasks.read(name)
    splits = {key: asked(task, key, 12, 6) for key in task.sets}
    runs = [folder / "first", folder / "second"]
    for seed, run in enumerate(runs):
        for key in task.sets:
            answer(task, run, splits[key], seed)
    (folder / "report.pdf").write_bytes(PDF)
    (folder / "team.yaml").write_text(yaml.safe_dump(TEAM), encoding="utf-8")
    team, _ = teams.read(task, folder / "team.yaml")
    dataset = Dataset(folder, {"development": described(), **splits})
    package.make(task, runs, team, dataset, folder / "p.zip")
    with zipfile.ZipFile(folder / "p.zip") as file:
        return task, {name: file.read(name) for name in file.namelist()}, splits
