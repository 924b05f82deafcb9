"""Packages of each kind of task: a new kind needs an entry in the table, and nothing else."""

import csv
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation import kinds as evaluation_kinds
from evaluation.data.dataset import Dataset
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics.catalogue import Metric
from evaluation.scores import Items, Score, measure
from submission import leaderboard, package, tasks, teams
from submission.codabench import bundle, score
from submission.families import FAMILIES, read_families
from submission.kinds import KINDS
from submission.kinds.kind import Kind
from submission.outputs import keys
from submission.outputs.tables import Table
from tests.submission import made

# ------------------------------------------------------------------------------------------------ an invented kind

FACTS = """
{name: dcase2031-9, extends: dcase2025-5, title: Is there a dog, kind: yes-no,
 form: {value: verdicts, source: invented, certainty: recalled},
 metrics: {value: [right], source: invented, certainty: recalled}, metadata: {results: null}}
"""


@dataclass(frozen=True)
class Clips:
    """A split whose clips have a dog or not."""

    name: str
    dogs: dict[str, str]
    source: Path | None = None

    @property
    def fingerprint(self) -> str:
        return str(sorted(self.dogs.items()))


class Verdicts(Table):
    """A table with yes or no for each clip."""

    term = keys.CLIP
    content = "the clip and a verdict"
    submitted = "yes or no for each clip"
    own_prediction = "write {split}.csv"

    def expected(self, split):
        return list(split.dogs)

    def rows(self, task, prediction, split, file):
        return task.header(), [(name, prediction[name]) for name in split.dogs]

    def check_rows(self, task, header, records, split, file, lines):
        for line, cells in records:
            yield from self.check_width(task, cells, 2, file, line)
            yield from self.add_key(lines, cells[0], line, task, file)

    def describe(self, task):
        return "The output has yes or no for each clip."


class YesNo(Kind):
    """Is there a dog?"""

    name = "yes-no"
    forms = {"verdicts": Verdicts()}  # noqa: RUF012
    memory = 2**30
    suffixes = (".csv",)
    answers, of_system, system, scored = "verdicts", "verdicts", "judge", "verdicts"
    truth = "yes or no for each clip"
    about = "Judges listen for dogs. You submit {submitted}."
    metrics = {"right": Metric("right verdicts", "mean", 0, 1)}  # noqa: RUF012

    def read_data(self, folder, name=""):
        raise BadRequest(f"{folder}: not needed")

    def has_truth(self, split):
        return "?" not in split.dogs.values()

    def sizes(self, split):
        return {"clips": len(split.dogs)}

    def write_data(self, split, truth, folder):
        raise BadRequest(f"{folder}: not needed")

    def holds(self, path):
        return False

    def read_prediction(self, path, split):
        with path.open(newline="") as file:
            return dict(list(csv.reader(file))[1:])

    def score(self, output, split, metrics, interval, cache, file):
        verdicts = self.read_prediction(output, split)
        right = np.array([float(verdicts[name] == dog) for name, dog in split.dogs.items()])
        items = Items("clips", tuple(split.dogs), tuple(range(len(split.dogs))))
        return Score({"right": measure(right, items, interval)}, items, f"dogs:{split.fingerprint}")


@pytest.fixture
def yes_no(tmp_path, monkeypatch) -> tasks.Task:
    """A task of the invented kind, whose file of facts has three lines."""
    monkeypatch.setitem(KINDS, "yes-no", YesNo())
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("dcase2020-6", "dcase2025-5"):
        (folder / f"{name}.yaml").write_bytes((tasks.FOLDER / f"{name}.yaml").read_bytes())
    (folder / "dcase2031-9.yaml").write_text(FACTS)
    monkeypatch.setattr(tasks, "FOLDER", folder)
    return tasks.read("dcase2031-9")


def test_a_new_kind_needs_only_an_entry(yes_no, team_file, tmp_path):
    """A package of the invented kind is made, checked, scored and ranked."""
    dogs = {f"{n}.wav": "yes" if n % 3 else "no" for n in range(9)}
    runs = []
    for number in range(2):
        runs.append(tmp_path / f"run {number}")
        (runs[-1] / "predictions").mkdir(parents=True)
        (runs[-1] / "system.yaml").write_text(yaml.safe_dump(made.SYSTEM))
        rows = [f"{name},{['yes', dog][number]}" for name, dog in dogs.items()]
        (runs[-1] / "predictions" / "test.csv").write_text("\n".join(["clip,dog", *rows]) + "\n")
    split = Clips("test", dogs)
    (tmp_path / "in").mkdir()
    zipped = tmp_path / "in" / "Wu.zip"
    package.make(yes_no, runs, teams.read(yes_no, team_file)[0], Dataset(tmp_path, {"test": split}), zipped)
    with package.checked(yes_no, zipped, {"test": split}) as content:
        assert content.findings == []
        assert [system.label for system in content.systems] == ["Wu_Mila_task5_1", "Wu_Mila_task5_2"]
    assert leaderboard.ranked_set(yes_no, {"test": split}) == "test"
    with pytest.raises(BadRequest, match="must have yes or no for each clip for the set test"):
        leaderboard.ranked_set(yes_no, {"test": Clips("test", dict.fromkeys(dogs, "?"))})
    board = board_in_this_process(yes_no, zipped, split, tmp_path)
    assert [(rank, system.label) for rank, system in board.systems.rows] == [
        (1, "Wu_Mila_task5_2"),
        (2, "Wu_Mila_task5_1"),
    ]
    assert [system.value("right") for system in board.entries] == [1, pytest.approx(6 / 9)]
    assert "ranked by right on the set test" in str(board)
    leaderboard.save(board, tmp_path / "out")
    assert "Is there a dog" in (tmp_path / "out" / "board.html").read_text()


def board_in_this_process(task, zipped, split, folder):
    """Score and rank a package without another process, which would not have the invented kind."""
    from submission import ranking, scoring

    scored = scoring.score_package(task, zipped, {"test": split}, "test", folder)
    assert not scored.findings, scored.findings
    return ranking.rank(task, [scored], split, "test", {})


def test_a_prediction_of_another_kind_is_named(team_file, tmp_path):
    task = tasks.read("dcase2026-6")
    run = made.answer(tasks.read("dcase2025-5"), tmp_path / "run", made.questions("test", 3))
    dataset = Dataset(tmp_path, {"test": made.recordings("test", 3)})
    with pytest.raises(Faulty) as refusal:
        package.make(task, [run], teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    command = f"dcase-systems predict {run} --data {tmp_path} --split test"
    message = (
        "is missing: dcase2026-6 needs windows of recordings, and test.csv has answers to questions; give the run of a "
        f"moment retrieval system, or, if the system does both tasks: {command} --as moments"
    )
    assert [finding.message for finding in refusal.value.findings] == [message]
    (run / "predictions" / "test.csv").unlink()
    advice = f"make it: {command}; for a system of your own, write test.jsonl, with"
    with pytest.raises(Faulty, match=f"test.jsonl: error: is missing, and dcase2026-6 needs it; {advice}"):
        package.make(task, [run], teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")


# ------------------------------------------------------------------------------------------------ questions, moments


def test_every_kind_has_an_entry_in_evaluation():
    assert set(KINDS) == set(evaluation_kinds.KINDS)
    for name, kind in KINDS.items():
        assert kind.metrics is evaluation_kinds.KINDS[name].metrics
    aspects = read_families(FAMILIES)
    for name in tasks.names():
        assert [aspect for aspect, content in aspects.items() if content.is_of(tasks.read(name))]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder with questions and queries, whose ground truth is known."""
    folder = tmp_path_factory.mktemp("data")
    for kind, ask in (("choice", made.questions), ("moments", made.recordings)):
        for name in ("validation", "evaluation"):
            KINDS[kind].write_data(ask(name, 12, blind=False), True, folder)
        KINDS[kind].write_data(ask("test", 12, blind=False), False, folder)
    return folder


@pytest.mark.parametrize("kind", ["choice", "moments"])
def test_a_data_folder_has_a_file_for_each_split(kind, data, tmp_path):
    dataset = KINDS[kind].read_data(data)
    assert list(dataset.splits) == ["validation", "evaluation", "test"]
    assert [KINDS[kind].has_truth(split) for split in dataset.splits.values()] == [True, True, False]
    assert list(KINDS[kind].read_data(data, "test").splits) == ["test"]
    with pytest.raises(BadRequest, match=r"no \w+_retrieval.jsonl; the splits in this folder: validation, evaluation"):
        KINDS[kind].read_data(data, "retrieval")
    with pytest.raises(BadRequest, match=r"unknown split 'tset'; did you mean 'test'"):
        KINDS[kind].read_data(data, "tset")
    with pytest.raises(BadRequest, match=r"no \w+_SPLIT.jsonl in this folder"):
        KINDS[kind].read_data(tmp_path)
    with pytest.raises(BadRequest, match="no such folder"):
        KINDS[kind].read_data(tmp_path / "nowhere")


def test_a_folder_of_json_files_is_a_split(tmp_path):
    """DCASE 2025 task 5 has a JSON file for each question."""
    folder = tmp_path / "questions_evaluation" / "BQA"
    folder.mkdir(parents=True)
    for name in ("q1", "q2"):
        content = {"question": "What?", "choice": ["A. rain", "B. wind"], "answer": "A. rain", "audio_url": "a.wav"}
        (folder / f"{name}.json").write_text(json.dumps({**content, "question_type": "x"}))
    split = KINDS["choice"].read_data(tmp_path)["evaluation"]
    assert list(split.content.by_id) == ["q1", "q2"]
    assert KINDS["choice"].sizes(split) == {"questions": 2}


@pytest.fixture(params=["dcase2025-5", "dcase2026-6"])
def rehearsal(request, data, team_file, tmp_path):
    """A task, a rehearsal package with two systems for the evaluation split, the runs, and the data."""
    task = tasks.read(request.param)
    dataset = KINDS[task.kind].read_data(data)
    runs = [tmp_path / "first", tmp_path / "second"]
    for seed, run in enumerate(runs):
        made.answer(task, run, dataset["evaluation"], seed)
    (tmp_path / "in").mkdir()
    zipped = tmp_path / "in" / "Wu.zip"
    package.make(task, runs, teams.read(task, team_file)[0], dataset, zipped, "evaluation")
    return task, zipped, runs, dataset


def test_a_leaderboard_has_the_scores_of_the_runs(rehearsal, tmp_path):
    task, zipped, runs, dataset = rehearsal
    board = leaderboard.run(task, zipped.parent, {"test": dataset["evaluation"]}, tmp_path / "out")
    assert not board.errors
    truth = dataset["evaluation"].content
    for system in board.entries:
        (file,) = (runs[int(system.label[-1]) - 1] / "predictions").iterdir()
        direct = evaluation_kinds.KINDS[task.kind].score_file(file, truth, metrics=task.metrics.value)
        for name, measured in direct.metrics.items():
            assert system.score.metrics[name].estimate == measured.estimate
    unit = {"choice": "clip", "moments": "recording"}[task.kind]
    assert f"that share a {unit} together" in " ".join(board.notes)
    aspects = {"choice": "audio-language model", "moments": "detector of moments"}
    assert [name for name in aspects.values() if name in board.aspects] == [aspects[task.kind]]


def test_the_metadata_have_the_scores(data, team_file, tmp_path):
    """The results come from scores/evaluation-KIND.json or scores/evaluation.json, if they are of this split."""
    from submission import run_folders

    task = tasks.read("dcase2026-6")
    dataset = KINDS["moments"].read_data(data)
    run = made.answer(task, tmp_path / "run", dataset["evaluation"])
    file = run / "predictions" / "evaluation.jsonl"
    right = evaluation_kinds.KINDS["moments"].score_file(file, dataset["evaluation"].content)
    made.answer(task, tmp_path / "other", made.recordings("validation", 12))
    other = evaluation_kinds.KINDS["moments"].score_file(
        tmp_path / "other" / "predictions" / "validation.jsonl", dataset["validation"].content
    )
    other.save(run / "scores" / "evaluation.json")
    _, _, findings = run_folders.describe(task, run, dataset)
    assert any("must be a score on evaluation" in str(finding) for finding in findings)
    right.save(run / "scores" / "evaluation-moments.json")
    described, _, findings = run_folders.describe(task, run, dataset)
    assert described["results"]["development"]["R1@0.7"] == right.metrics["R1@0.7"].estimate.value
    assert not any("scores" in str(finding) for finding in findings)
    right.save(run / "scores" / "evaluation.json")
    choice = tasks.read("dcase2026-5")
    described, _, findings = run_folders.describe(choice, run, KINDS["choice"].read_data(data))
    assert any(
        "is the score of a moment retrieval system, but dcase2026-5 is for a question answering system, so the "
        "metadata have no results; score the answers into "
        "evaluation-choice.json" in str(finding)
        for finding in findings
    )


def test_a_competition_scores_a_package(rehearsal, tmp_path, capsys):
    """The scoring program on Codabench gives the scores of the best system, and does not show the ground truth."""
    task, zipped, _, dataset = rehearsal
    splits = {"test": dataset["evaluation"]}
    bundle.write(task, splits, bundle.Options(bundle.date(2026, 6, 1)), tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as file:
        file.extractall(tmp_path / "bundle")
    with zipfile.ZipFile(zipped) as file:
        file.extractall(tmp_path / "res")
    (tmp_path / "output").mkdir()
    assert score.score(tmp_path / "bundle" / "reference_data", tmp_path / "res", tmp_path / "output") == 0
    scores = json.loads((tmp_path / "output" / "scores.json").read_text())
    assert scores[bundle.columns(task)[0].key] > 0
    pages = "".join(path.read_text() for path in sorted((tmp_path / "bundle" / "pages").iterdir()))
    assert {"choice": "the text of one of the options", "moments": "up to 10 windows"}[task.kind] in " ".join(
        pages.split()
    )
    assert ("CC-BY" in pages) == (task.publication is not None)
