"""Packages of all tasks, made and checked: their layout, their bytes, and the message about every single error."""

import csv
import io
import os
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation import predictions
from evaluation.data.dataset import Clip, Dataset, Split
from evaluation.findings import ERROR, NOTE, BadRequest, Faulty
from evaluation.metrics import captioning, retrieval
from submission import package, tasks, teams
from submission.kinds import KINDS
from tests.submission import made


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def laid(files: dict[str, bytes], folder: Path) -> Path:
    """Write files into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


# ------------------------------------------------------------------------------------------------ all tasks

LAYOUT = {
    "dcase2020-6": ("Wu_Mila_task6.zip", "task6", "task6", {"test": "testing_output"}),
    "dcase2021-6": ("Wu_Mila_task6.zip", "task6", "task6", {"test": "testing_output"}),
    "dcase2022-6a": (
        "Wu_Mila_task6a.zip",
        "task6",
        "task6a",
        {"test": "testing_output", "analysis": "analysis_output"},
    ),
    "dcase2022-6b": ("Wu_Mila_task6b.zip", "task6", "task6b", {"retrieval": "output"}),
    "dcase2023-6a": (
        "Wu_Mila_task6a.zip",
        "task6",
        "task6a",
        {"test": "testing_output", "analysis": "analysis_output"},
    ),
    "dcase2023-6b": ("Wu_Mila_task6b.zip", "task6", "task6b", {"retrieval": "output"}),
    "dcase2024-6": ("Wu_Mila_task6.zip", "task6", "task6", {"test": "testing_output", "analysis": "analysis_output"}),
    "dcase2024-8": ("Wu_Mila_task8.zip", "task8", "task8", {"retrieval": "output"}),
    "dcase2025-5": ("Wu_Mila_task5.zip", "task5", "task5", {"test": ".output.csv"}),
    "dcase2025-6": ("Wu_Mila_task6.zip", "task6", "task6", {"retrieval": "output"}),
    "dcase2026-5": ("Wu_Mila_task5.zip", "task5", "task5", {"test": ".output.csv"}),
    "dcase2026-6": ("Wu_Mila_task6.zip", "task6", "task6", {"test": ".output.jsonl"}),
}
SIZES = {"test": (1043, 0), "analysis": (8360, 0), "retrieval": (1000, 1000)}


def test_the_layout_of_every_task_is_tested():
    untested = set(tasks.names()) - set(LAYOUT)
    assert not untested, f"add to LAYOUT the files that the packages of these tasks hold: {untested}"


@pytest.mark.parametrize("name", LAYOUT)
def test_a_package_of_official_size(name, team_file, tmp_path):
    """The package is valid, unpacks to the documented layout, and has the same scores as the run."""
    task, (file, top, tag, outputs) = tasks.read(name), LAYOUT[name]
    splits = {"development": made.described()}
    for key, output in task.sets.items():
        rows = output.rows.value if output.rows else SIZES[key][0]
        splits[key] = made.asked(task, key, rows, SIZES[key][1])
    for key in task.sets:
        made.answer(task, tmp_path / "run", splits[key])
    dataset = Dataset(tmp_path / "clotho", splits)
    findings = package.make(task, [tmp_path / "run"], teams.read(task, team_file)[0], dataset, tmp_path / file)
    assert {finding.severity for finding in findings} == {NOTE}
    label, stem = f"Wu_Mila_{tag}_1", f"Wu_Mila_{tag}_submission_1"
    wanted = {f"{top}/{label}/{stem}_{end}.csv" for end in outputs.values()} | {f"{top}/{label}/{stem}_metadata.yaml"}
    if any(end.startswith(".") for end in outputs.values()):  # the generic names of DCASE
        wanted = {f"{top}/{label}/{label}{end}" for end in (*outputs.values(), ".meta.yaml")}
    assert set(unpacked(tmp_path / file)) == {
        *wanted,
        f"{top}/Wu_Mila_{tag}.technical_report.pdf",
    }
    blind = {key: splits[key] for key in task.sets}
    with package.checked(task, tmp_path / file, blind) as content:
        assert content.findings == []
        assert content.report.read_bytes() == made.PDF
        (system,) = content.systems
        assert system.label == label
        assert system.metadata["submission"]["label"] == label
        for key, path in system.outputs.items():
            assert score(task, splits[key], path) == score(
                task, splits[key], next((tmp_path / "run" / "predictions").glob(f"{key}.*"))
            )
    with package.checked(task, tmp_path / file, {}) as content:  # without data, with the official numbers
        assert (len(content.systems), content.findings) == (1, [])


def score(task, split: Split, path: Path) -> dict[str, float]:
    """Return the metrics of a prediction. The right clip of a query has the same number."""
    if task.kind in ("choice", "moments"):
        ask = {"choice": made.questions, "moments": made.recordings}[task.kind]
        truth = ask(split.name, next(iter(KINDS[task.kind].sizes(split).values())), blind=False)
        score = KINDS[task.kind].score(path, truth, task.metrics.value[:1], "jackknife", path.parent, "p")
    elif task.kind == "captioning":
        clips = tuple(replace(c, captions=(f"{made.WORDS[i % 8]} is heard", "rain")) for i, c in enumerate(split.clips))
        captions = predictions.read_captions(path)
        tokens = captioning.TOKENIZED  # the captions have only words, and Java would need seconds for the large set
        score = captioning.evaluate(captions, Split(split.name, clips), metrics=["cider_d"], tokenized=tokens)
    else:
        truth = {query: frozenset([name]) for query, name in zip(split.queries, split.file_names, strict=True)}
        score = retrieval.evaluate(split, predictions.read_retrieval(path), relevance=truth, metrics=task.metrics.value)
    values = {name: measured.estimate.value for name, measured in score.metrics.items()}
    assert all(value > 0 for value in values.values())
    return values


# ------------------------------------------------------------------------------------------------ making


def test_the_same_inputs_give_the_same_bytes(small, team_file, tmp_path):
    task, runs, dataset = small("dcase2022-6b")
    team = teams.read(task, team_file)[0]
    package.make(task, runs, team, dataset, tmp_path / "one.zip")
    umask = os.umask(0o077)
    try:
        package.make(task, runs, team, dataset, tmp_path / "other.zip")
    finally:
        os.umask(umask)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert file.namelist() == sorted(file.namelist())


def test_what_the_metadata_say(small, team_file, tmp_path):
    """They come from the run's system.yaml, its score, the data and the team file; the last one has precedence."""
    task, runs, dataset = small("dcase2022-6b")
    team = yaml.safe_load(team_file.read_text())
    team["systems"] = [{"system": {"description": {"optimizer": "Adam", "loss_function": "mine"}}}, {}]
    team_file.write_text(yaml.safe_dump(team))
    split = Split("evaluation", tuple(Clip(f"{i}.wav", (f"Sound {i}.",), Path()) for i in range(12)))
    score = retrieval.evaluate(split, predictions.Similarity(split.queries, split.file_names, np.eye(12)))
    score.save(runs[0] / "scores" / "evaluation.json")
    findings = package.make(task, runs, teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    first, second = (
        yaml.safe_load(
            unpacked(tmp_path / "p.zip")[f"task6/Wu_Mila_task6b_{i}/Wu_Mila_task6b_submission_{i}_metadata.yaml"]
        )
        for i in (1, 2)
    )
    assert first["submission"] == {"label": "Wu_Mila_task6b_1", **made.TEAM["metadata"]["submission"]}
    assert first["results"]["development_testing"] == {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0, "mAP@10": 1.0}
    description = first["system"]["description"]
    assert (description["optimizer"], description["loss_function"], description["learning_rate"]) == (
        "Adam",
        "mine",
        1e-5,
    )
    assert second["system"]["description"]["loss_function"] == "triplet loss"
    assert second["system"]["description"]["optimizer"] is None
    assert first["system"]["complexity"] == {"total_parameters": 732354}
    assert first["system"]["training_datasets"] == [
        {
            "name": "clotho development",
            "url": None,
            "has_audio": True,
            "has_images": False,
            "has_video": False,
            "has_captions": True,
            "nb_captions_per_audio": 2,
            "nb_clips_per_caption": 1.33,
            "total_audio_length": None,
            "total_captions": 4,
        }
    ]
    said = [str(finding).replace(f"{tmp_path}/", "") for finding in findings]
    assert len(said) == 3
    assert said[0].startswith("first/system.yaml: note: has no value for system.description.word_embeddings, ")
    assert "optimizer" not in said[0]
    assert said[1].startswith(
        "second/scores/evaluation.json: note: is missing, so the metadata have no results; make it:"
    )
    assert "optimizer" in said[2]


def test_what_cannot_be_made(small, team_file, tmp_path):
    task, runs, dataset = small("dcase2023-6a")
    team, target = teams.read(task, team_file)[0], tmp_path / "p.zip"
    with pytest.raises(BadRequest, match="accepts 1 to 4 systems; found 5 runs"):
        package.make(task, [*runs, *(tmp_path / str(i) for i in range(3))], team, dataset, target)
    with pytest.raises(BadRequest, match="every run must be a different folder; found one twice"):
        package.make(task, [runs[0], runs[0]], team, dataset, target)
    (runs[0] / "predictions" / "analysis.csv").unlink()
    (runs[1] / "system.yaml").unlink()
    answers = runs[1] / "predictions" / "test.csv"
    answers.write_text(answers.read_text().replace("test_0007.wav", "test_0077.wav"))
    with pytest.raises(Faulty) as refusal:
        package.make(task, runs, team, dataset, target)
    said = [str(finding).replace(f"{tmp_path}/", "") for finding in refusal.value.findings if finding.severity == ERROR]
    assert said == [
        "first/predictions/analysis.csv: error: is missing, and dcase2023-6a needs it; make it: dcase-systems "
        "predict first --data clotho --split analysis; for a system of your own, write a CSV with the columns "
        "file_name and caption_predicted",
        "second/predictions/test.csv: error: no caption for clip 'test_0007.wav'",
    ]
    assert not target.exists()


def test_a_system_of_ones_own_needs_no_run(small, team_file, tmp_path):
    """A folder with predictions is enough, if the team file has the values that `systems train` would have written."""
    task, runs, dataset = small("dcase2023-6a")
    (runs[0] / "system.yaml").unlink()
    with pytest.raises(
        Faulty, match=r"first/system.yaml: system.complexity.total_parameters: error: must not be empty"
    ):
        package.make(task, runs[:1], teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    team = yaml.safe_load(team_file.read_text())
    team["systems"] = [{"system": {"complexity": {"total_parameters": 5}}}]
    team_file.write_text(yaml.safe_dump(team))
    findings = package.make(task, runs[:1], teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    assert {finding.severity for finding in findings} == {NOTE}


def test_a_package_that_the_check_would_fault_is_not_made(small, team_file, tmp_path):
    task, runs, dataset = small("dcase2023-6a")
    team = yaml.safe_load(team_file.read_text())
    team["metadata"]["submission"]["abbreviation"] = "CarelessWhisperLarge"
    team_file.write_text(yaml.safe_dump(team))
    (tmp_path / "p.zip").write_bytes(b"what was there")
    with pytest.raises(Faulty, match=r"abbreviation: error: .*10 characters"):
        package.make(task, runs, teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    assert (tmp_path / "p.zip").read_bytes() == b"what was there"


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def of_others(content: bytes) -> bytes:
    """Return a zip with the right folder that this kit did not make."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"# Metadata of a system", b"# My own notes on a system"))
    return file.getvalue()


OVER = {
    "half a zip": (cut, "is not a readable package of dcase2022-6b"),
    "a damaged list": (
        lambda content: content.replace(b"PK\1\2", b"PK\1\3"),
        "is not a readable package of dcase2022-6b",
    ),
    "damaged data": (
        lambda content: content[:300] + bytes(40) + content[340:],
        "is not a readable package of dcase2022-6b",
    ),
    "a later version of zip": (
        lambda content: content.replace(b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\x5a"),
        "is not a readable package of dcase2022-6b",
    ),
    "an empty zip": (lambda _: b"PK\5\6" + bytes(18), "is not a readable package of dcase2022-6b"),
    "an empty file": (lambda _: b"", "is not a readable package of dcase2022-6b"),
    "another's package": (of_others, "is not a package of dcase2022-6b"),
}


@pytest.mark.parametrize(("change", "message"), OVER.values(), ids=OVER)
def test_only_a_package_that_was_made_here_is_replaced(change, message, small, team_file, tmp_path):
    task, runs, dataset = small("dcase2022-6b")
    team, target = teams.read(task, team_file)[0], tmp_path / "p.zip"
    package.make(task, runs, team, dataset, target)
    made_here = target.read_bytes()
    package.make(task, runs, team, dataset, target)  # it replaces itself
    assert target.read_bytes() == made_here
    before = change(made_here)
    target.write_bytes(before)
    with pytest.raises(BadRequest) as refusal:
        package.make(task, runs, team, dataset, target)
    assert str(refusal.value) == f"{target}: already exists, and {message}; give another name with --out"
    assert target.read_bytes() == before


def test_a_rehearsal_answers_another_split(small, team_file, tmp_path):
    task, runs, dataset = small("dcase2023-6a")
    evaluation = made.split("evaluation", 20)
    made.answer(task, runs[0], evaluation)
    dataset = Dataset(dataset.folder, {**dataset.splits, "evaluation": evaluation})
    package.make(task, runs[:1], teams.read(task, team_file)[0], dataset, tmp_path / "p.zip", "evaluation")
    with package.checked(task, tmp_path / "p.zip", dict.fromkeys(task.sets, evaluation)) as content:
        assert content.findings == []
        assert len({path.read_bytes() for path in content.systems[0].outputs.values()}) == 1


# ------------------------------------------------------------------------------------------------ single mutations


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Return a valid package for each of two tasks, and the sets that it answers."""
    names = ("dcase2023-6a", "dcase2022-6b")
    return {name: made.packaged(name, tmp_path_factory.mktemp(name)) for name in names}


A1, A2 = "task6/Wu_Mila_task6a_1", "task6/Wu_Mila_task6a_2"
TESTING, ANALYSIS, META = (
    f"{A1}/Wu_Mila_task6a_submission_1_{part}"
    for part in ("testing_output.csv", "analysis_output.csv", "metadata.yaml")
)
REPORT = "task6/Wu_Mila_task6a.technical_report.pdf"
B1 = "task6/Wu_Mila_task6b_1"
BEST = f"{B1}/Wu_Mila_task6b_submission_1_output.csv"


def renamed(old: str, new: str):
    def change(files: dict[str, bytes]) -> None:
        for name in [name for name in files if name.startswith(old)]:
            files[new + name.removeprefix(old)] = files.pop(name)

    return change


def changed(name: str, old: str, new: str):
    def change(files: dict[str, bytes]) -> None:
        assert old.encode() in files[name]
        files[name] = files[name].replace(old.encode(), new.encode(), 1)

    return change


def put(name: str, content: bytes | str):
    return lambda files: files.update({name: content if isinstance(content, bytes) else content.encode()})


def system(number: int):
    """Add a copy of the second system with another number."""

    def change(files: dict[str, bytes]) -> None:
        for name in [name for name in files if name.startswith(A2)]:
            other = name.replace("task6a_2", f"task6a_{number}").replace("submission_2", f"submission_{number}")
            files[other] = files[name].replace(b"task6a_2", b"task6a_%d" % number)
            if name.endswith(".csv"):  # so that no two systems have the same outputs
                files[other] = files[other].replace(b"are heard", b"are heard " + b"again " * number)

    return change


def both(*changes):
    def change(files: dict[str, bytes]) -> None:
        for one in changes:
            one(files)

    return change


def without(name: str, start: str):
    """Remove a line."""

    def change(files: dict[str, bytes]) -> None:
        lines = files[name].splitlines(keepends=True)
        kept = [line for line in lines if not line.strip().startswith(start.encode())]
        assert len(kept) == len(lines) - 1
        files[name] = b"".join(kept)

    return change


def line(name: str, start: str, text: str):
    """Replace the line with this start by another line."""

    def change(files: dict[str, bytes]) -> None:
        lines = files[name].decode().splitlines(keepends=True)
        assert sum(row.startswith(start) for row in lines) == 1
        files[name] = "".join(text + "\n" if row.startswith(start) else row for row in lines).encode()

    return change


def twice(name: str, start: str):
    def change(files: dict[str, bytes]) -> None:
        (row,) = [row for row in files[name].decode().splitlines() if row.startswith(start)]
        line(name, start, f"{row}\n{row}")(files)

    return change


def of_li(files: dict[str, bytes]) -> None:
    for name in [name for name in files if "Li_Mila" in name and name.endswith(".yaml")]:
        files[name] = files[name].replace(b"label: Wu", b"label: Li").replace(b"lastname: Wu", b"lastname: Li")


def second_row(change):
    """Change the cells of the first answer of 6B."""

    def edit(files: dict[str, bytes]) -> None:
        rows = list(csv.reader(io.StringIO(files[BEST].decode(), newline="")))
        change(rows[1])
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        files[BEST] = text.getvalue().encode()

    return edit


STRAY = "is not part of a submission; remove it"
LABEL = "the folder's name is the system's label; it"
MUTATIONS = {
    # missing and surplus files
    "no testing output": (lambda f: f.pop(TESTING), f"{A1}: error: {Path(TESTING).name} is missing; add it"),
    "no analysis output": (lambda f: f.pop(ANALYSIS), f"{A1}: error: {Path(ANALYSIS).name} is missing; add it"),
    "no metadata": (lambda f: f.pop(META), f"{A1}: error: {Path(META).name} is missing; add it"),
    "no report": (lambda f: f.pop(REPORT), f": error: the report {REPORT} is missing; add it"),
    "another CSV": (put(f"{A1}/old.csv", "x"), f"{A1}/old.csv: error: {STRAY}"),
    "another YAML": (put("task6/old.yaml", "x"), f"task6/old.yaml: error: {STRAY}"),
    "a file of another kind": (put(f"{A1}/notes.txt", "x"), f"{A1}/notes.txt: warning: {STRAY}"),
    "a deep file": (put(f"{A1}/code/a/b.py", "x"), f"{A1}/code/a/b.py: warning: {STRAY}"),
    "a file at the top": (put("README.md", "x"), f"README.md: warning: {STRAY}"),
    "two reports": (put("task6/report.pdf", made.PDF), f"task6/report.pdf: error: {STRAY}"),
    "five systems": (
        both(system(3), system(4), system(5)),
        ": error: must not contain more than 4 systems; found 5 ("
        + ", ".join(f"Wu_Mila_task6a_{i}" for i in range(1, 6))
        + "): remove some; only the first 4 were checked",
    ),
    "ten systems": (
        both(*(system(number) for number in range(3, 11))),
        ": error: must not contain more than 4 systems; found 10 ("
        + ", ".join(f"Wu_Mila_task6a_{i}" for i in range(1, 11))
        + "): remove some; only the first 4 were checked",
    ),
    "the same answers twice": (
        lambda files: files.update({name.replace("_1", "_2"): files[name] for name in (TESTING, ANALYSIS)}),
        ": warning: Wu_Mila_task6a_2 has the same outputs as Wu_Mila_task6a_1, byte for byte; is it the right run?",
    ),
    # the report
    "report empty": (
        put(REPORT, b""),
        f"{REPORT}: error: must be a PDF; found an empty file: export the report as PDF",
    ),
    "report in Word": (
        put(REPORT, b"PK\x03\x04 and more"),
        f"{REPORT}: error: must be a PDF; found a file that begins with b'PK\\x03\\x04 and': export the report as PDF",
    ),
    "report cut": (
        put(REPORT, made.PDF.removesuffix(b"%%EOF\n")),
        f"{REPORT}: error: must be a complete PDF; its end is missing: export the report again",
    ),
    "report of ten bytes": (
        put(REPORT, b"%PDF-%%EOF"),
        f"{REPORT}: error: must be a readable PDF; it cannot be read (startxref not found): export the report again",
    ),
    "report of another name": (
        renamed(REPORT, "task6/paper.pdf"),
        f"task6/paper.pdf: error: must be {REPORT}; move it there",
    ),
    "report with a system": (
        renamed(REPORT, f"{A1}/Wu_Mila_task6a.technical_report.pdf"),
        f"{A1}/Wu_Mila_task6a.technical_report.pdf: error: must be {REPORT}; move it there",
    ),
    # names
    "a folder around": (
        renamed("task6", "Wu_Mila_task6a/task6"),
        ": note: must contain task6/ at the top; found it inside Wu_Mila_task6a/, which is accepted",
    ),
    "no folder": (
        renamed("task6/", ""),
        ": error: must contain all files in a folder task6/; found Wu_Mila_task6a.technical_report.pdf, "
        "Wu_Mila_task6a_1, "
        "Wu_Mila_task6a_2: move them into task6/",
    ),
    "folder in capitals": (renamed("task6", "Task6"), "Task6: error: must be named task6; rename it"),
    "system's folder in lower case": (
        renamed(A1, "task6/wu_mila_task6a_1"),
        f"task6/wu_mila_task6a_1: error: {LABEL} must be Wu_Mila_task6a_1",
    ),
    "system's folder of another number": (
        renamed(A1, "task6/Wu_Mila_task6a_3"),
        f"task6/Wu_Mila_task6a_3: error: {LABEL} must be Wu_Mila_task6a_1",
    ),
    "system's folder of another task": (
        renamed(A1, "task6/Wu_Mila_task6b_1"),
        f"task6/Wu_Mila_task6b_1: error: {LABEL} ",
    ),
    "system's folder with a part more": (
        renamed(A1, "task6/Wu_Mi_la_task6a_1"),
        f"task6/Wu_Mi_la_task6a_1: error: {LABEL} ",
    ),
    "output in lower case": (
        renamed(TESTING, f"{A1}/wu_mila_task6a_submission_1_testing_output.csv"),
        f"{A1}/wu_mila_task6a_submission_1_testing_output.csv: error: must be named {Path(TESTING).name}; rename it",
    ),
    "output in capitals": (
        renamed(TESTING, f"{A1}/Wu_Mila_Task6A_submission_1_Testing_Output.CSV"),
        f"{A1}/Wu_Mila_Task6A_submission_1_Testing_Output.CSV: error: must be named {Path(TESTING).name}; rename it",
    ),
    "output of another number": (
        renamed(ANALYSIS, ANALYSIS.replace("submission_1", "submission_2")),
        f"{ANALYSIS.replace('submission_1', 'submission_2')}: error: must be named {Path(ANALYSIS).name}; rename it",
    ),
    "output of no such name": (
        renamed(TESTING, f"{A1}/predictions.csv"),
        f"{A1}/predictions.csv: error: must be named {Path(TESTING).name}; rename it",
    ),
    "metadata as .yml": (
        renamed(META, META.replace(".yaml", ".yml")),
        f"{META.replace('.yaml', '.yml')}: error: must be named {Path(META).name}; rename it",
    ),
    "metadata of another label": (
        changed(META, "Wu_Mila_task6a_1", "Wu_Mila_task6a_2"),
        f"{META}:6: submission.label: error: must be Wu_Mila_task6a_1, the label in the names of the files; found "
        "Wu_Mila_task6a_2",
    ),
    "another team": (
        both(system(3), renamed("task6/Wu_Mila_task6a_3/Wu", "task6/Li_Mila_task6a_3/Li"), of_li),
        "task6/Li_Mila_task6a_3: error: must belong to Wu_Mila, as the other systems do; found Li_Mila: rename it, or "
        "move it to that team's package",
    ),
    # in the outputs
    "a clip missing": (
        without(TESTING, "test_0007.wav"),
        f"{TESTING}: file_name: error: no row has a caption for 'test_0007.wav'; add one",
    ),
    "a clip twice": (
        twice(TESTING, "test_0007.wav"),
        f"{TESTING}:9: file_name: error: must not repeat a clip; 'test_0007.wav' is in line 8 already: keep one of the "
        "rows",
    ),
    "semicolons": (
        changed(TESTING, "file_name,caption_predicted", "file_name;caption_predicted"),
        f"{TESTING}:1: error: the header must be ",
    ),
    "a caption empty": (
        line(TESTING, "test_0007.wav", "test_0007.wav,"),
        f"{TESTING}:8: caption_predicted: error: must not be empty; write a caption",
    ),
    "a path for a name": (
        line(ANALYSIS, "analysis_0007.wav", "/data/analysis/analysis_0007.wav,Rain."),
        f"{ANALYSIS}:8: file_name: error: '/data/analysis/analysis_0007.wav' is not a clip of analysis; there is "
        "'analysis_0007.wav', and names are compared verbatim",
    ),
    "a name misspelt": (
        changed(TESTING, "\ntest_0007.wav", "\ntest_0007.wv"),
        f"{TESTING}:8: file_name: error: 'test_0007.wv' is not a clip of test; did you mean 'test_0007.wav'?",
    ),
    "a name stripped": (
        changed(TESTING, "\n leading.wav", "\nleading.wav"),
        f"{TESTING}:2: file_name: error: 'leading.wav' is not a clip of test; there is ' leading.wav', and names are "
        "compared verbatim",
    ),
    # in the metadata
    "abbreviation too long": (
        changed(META, "abbreviation: Sys", "abbreviation: CarelessWhisperLarge"),
        f"{META}:LINE: submission.abbreviation: error: ",
    ),
    "abbreviation at column 0": (changed(META, "  abbreviation: Sys", "abbreviation: Sys"), f"{META}:LINE: "),
    "tabs in YAML": (changed(META, "  abbreviation: Sys", "\tabbreviation: Sys"), f"{META}:LINE: "),
    "learning rate as text": (
        changed(META, "learning_rate: 1.0e-05", "learning_rate: 1e-5"),
        f"{META}:LINE: system.description.learning_rate: error: ",
    ),
    "no corresponding author": (
        changed(META, "corresponding: true", "corresponding: false"),
        f"{META}:LINE: submission.authors: error: ",
    ),
    "a key unknown": (
        changed(META, "optimizer:", "optimiser:"),
        f"{META}:LINE: system.description.optimiser: error: ",
    ),
    "parameters with commas": (
        changed(META, "total_parameters: 732354", "total_parameters: 732,354"),
        f"{META}:LINE: system.complexity.total_parameters: error: ",
    ),
    "metadata empty": (put(META, b""), f"{META}: error: "),
}
OF_6B = {
    "two equal clips in a row": (second_row(lambda row: row.__setitem__(2, row[1])), f"{BEST}:2: file_name_2: error: "),
    "nine clips in a row": (
        second_row(list.pop),
        f"{BEST}:2: error: must have 11 columns, the query and 10 clips; found 10",
    ),
    "a query missing": (
        without(BEST, '"thunder is heard'),
        f"{BEST}: caption: error: no row answers 'thunder is heard",
    ),
    "the header of 2023": (
        changed(BEST, "file_name_1,", "fname_1,"),
        f"{BEST}:1: error: the header must be caption,file_name_1,",
    ),
}


def said(task, files, splits, path) -> list[str]:
    with package.checked(task, path, splits) as content:
        errors = [finding for finding in content.findings if finding.severity == ERROR]
        report_errors = [finding for finding in errors if made.is_about_report(finding)]
        assert bool(content.systems) == (errors == report_errors)
        assert bool(content.report) or bool(errors)
        return [str(finding).removeprefix(str(path)).removeprefix("/") for finding in content.findings]


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("slip", [*MUTATIONS, *OF_6B])
def test_one_slip_gives_one_finding(slip, form, valid, tmp_path):
    task, files, splits = valid["dcase2023-6a" if slip in MUTATIONS else "dcase2022-6b"]
    files = dict(files)
    change, message = (MUTATIONS | OF_6B)[slip]
    change(files)
    path = laid(files, tmp_path / "P")
    if form == "zip":
        path = zipped(files, tmp_path / "P.zip")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    (finding,) = said(task, files, splits, path)
    assert re.match(re.escape(message).replace("LINE", r"\d+"), finding), finding
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_there_are_many_slips():
    assert len(MUTATIONS) + len(OF_6B) >= 40


def test_valid_packages_have_no_finding(valid, tmp_path):
    for task, files, splits in valid.values():
        assert said(task, files, splits, laid(files, tmp_path / "P")) == []
        assert said(task, files, {}, tmp_path / "P") != []  # twelve clips are not the official number
        assert said(task, files, splits, tmp_path / "P" / "task6") == []
        files = {name.removeprefix("task6/"): content for name, content in files.items()}
        assert said(task, files, splits, laid(files, tmp_path / "task6")) == []  # the task's folder itself


def test_macos_leaves_traces(valid, tmp_path):
    task, files, splits = valid["dcase2023-6a"]
    traces = {f"__MACOSX/._{Path(TESTING).name}": b"x", f"{A1}/._{Path(TESTING).name}": b"x", "task6/.DS_Store": b"x"}
    found = said(task, files, splits, laid({**files, **traces}, tmp_path / "P"))
    assert found
    assert all(": note: " in finding for finding in found)


def zipped(files: dict[str, bytes], path: Path, *entries) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
        for entry in entries:
            file.writestr(entry, b"x")
    return path


def test_what_cannot_be_read_is_not_called_missing_too(valid, tmp_path):
    task, files, splits = valid["dcase2023-6a"]
    for name in (TESTING, META, REPORT):
        path = zipped(files, tmp_path / "P.zip")
        raw = path.read_bytes()
        path.write_bytes(raw.replace(files[name], bytes(len(files[name])), 1))  # so that its checksum is wrong
        (finding,) = said(task, files, splits, path)
        assert finding.startswith(f"{name}: error: is damaged")
        link = zipfile.ZipInfo(name)
        link.external_attr = 0o120777 << 16
        (finding,) = said(task, files, splits, zipped({n: c for n, c in files.items() if n != name}, path, link))
        assert finding.startswith(f"{name}: error: must be a regular file; found a link")
    for content in (raw[: len(raw) // 2], b"Rar!\x1a\x07 and so on"):
        path.write_bytes(content)
        (finding,) = said(task, files, splits, path)
        assert finding.startswith(": error: ")


def test_a_label_that_is_wrong_everywhere(valid, tmp_path):
    """There is a message about each file that must be renamed."""
    task, files, splits = valid["dcase2023-6a"]
    wrong = {name.replace("task6a", "task6A"): text.replace(b"task6a", b"task6A") for name, text in files.items()}
    found = said(task, files, splits, laid(wrong, tmp_path / "P"))
    assert sum(": error: must be named Wu_Mila_task6a_" in finding for finding in found) == 6
    assert sum("write 'Wu_Mila_task6a_" in finding for finding in found) == 4  # two folders, two labels
    assert len(found) == 11  # and the report


def test_two_folders_of_one_system(valid, tmp_path):
    task, files, splits = valid["dcase2023-6a"]
    files = {name: text for name, text in files.items() if not name.startswith(A2)}
    copied = {name.replace(f"{A1}/", f"{A2}/"): text for name, text in files.items()}
    found = said(task, files, splits, laid({**files, **copied}, tmp_path / "P"))
    assert any(f"{A2}: error: {LABEL} must be Wu_Mila_task6a_1" in finding for finding in found)


def test_what_make_refuses_the_check_would_fault(small, team_file, tmp_path):
    """`make` also refuses faults that only the archive finds, such as names that no disk accepts."""
    task, runs, dataset = small("dcase2022-6b")
    team = replace(teams.read(task, team_file)[0], author="W" * 120, institute="M" * 110)
    with pytest.raises(Faulty, match="at most 255 bytes in a name"):
        package.make(task, runs, team, dataset, tmp_path / "p.zip")
    assert not (tmp_path / "p.zip").exists()


def test_a_null_that_is_written_is_said(small, team_file, tmp_path):
    """A null in the team file replaces the value of the run; a key that is left empty there does not."""
    task, runs, dataset = small("dcase2022-6b")
    asked = ("word_embeddings", "data_augmentation", "optimizer", "gradient_norm", "metric_monitored")
    for key in asked:
        assert task.key(f"system.description.{key}").need == "nullable"
    description = {**made.SYSTEM["description"], "data_augmentation": None, "optimizer": "Adam", "gradient_norm": "L2"}
    (runs[0] / "system.yaml").write_text(yaml.safe_dump({**made.SYSTEM, "description": description}))
    own = "\n      ".join(["description:", "  word_embeddings: !!null", "  optimizer: null", "  gradient_norm:"])
    team_file.write_text(team_file.read_text().replace("systems: []", f"systems:\n  - system:\n      {own}"))
    found = package.make(task, runs[:1], teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    (missing,) = [finding.message for finding in found if finding.message.startswith("has no value for")]
    assert [key for key in asked if key in missing] == ["metric_monitored"]
    (text,) = [text for name, text in unpacked(tmp_path / "p.zip").items() if name.endswith(".yaml")]
    written = yaml.safe_load(text)["system"]["description"]
    assert [written[key] for key in asked] == [None, None, None, "L2", None]


def test_what_a_run_says_wrongly(small, team_file, tmp_path):
    task, runs, dataset = small("dcase2022-6b")
    system = {**made.SYSTEM, "description": {**made.SYSTEM["description"], "optimiser": "Adam"}}
    (runs[0] / "system.yaml").write_text(yaml.safe_dump(system))
    (runs[1] / "system.yaml").write_text(yaml.safe_dump({**made.SYSTEM, "complexity": {"total_parameters": "many"}}))
    split = Split("validation", tuple(Clip(f"{i}.wav", (f"Sound {i}.",), Path()) for i in range(12)))
    score = retrieval.evaluate(split, predictions.Similarity(split.queries, split.file_names, np.eye(12)))
    score.save(runs[0] / "scores" / "evaluation.json")
    with pytest.raises(Faulty) as refusal:
        package.make(task, runs, teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    said = [str(finding).replace(f"{tmp_path}/", "") for finding in refusal.value.findings]
    assert said[0].startswith("first/scores/evaluation.json: signature: error: must be a score on evaluation, because")
    assert said[1].startswith(
        "first/system.yaml: optimiser: warning: is not a key of dcase2022-6b, and is ignored; did you"
    )
    (runs[0] / "scores" / "evaluation.json").unlink()
    with pytest.raises(Faulty) as refusal:
        package.make(task, runs, teams.read(task, team_file)[0], dataset, tmp_path / "p.zip")
    said = [str(finding).replace(f"{tmp_path}/", "") for finding in refusal.value.findings]
    assert said[1].startswith("second/system.yaml: system.complexity.total_parameters: error: must be a whole number")
    assert said[1].endswith("; correct it there or in the team file")


def test_hostile_entries_are_findings(valid, tmp_path):
    task, files, splits = valid["dcase2023-6a"]
    link = zipfile.ZipInfo(f"{A1}/link.csv")
    link.external_attr = (0o120777) << 16
    for entry in ("../../escape.csv", "/etc/escape.csv", link):
        (finding,) = said(task, files, splits, zipped(files, tmp_path / "P.zip", entry))
        assert ": error: " in finding
    assert not (tmp_path.parent / "escape.csv").exists()
