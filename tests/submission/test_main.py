import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation import cli
from evaluation.predictions import Similarity
from submission import tasks
from submission.__main__ import parser
from submission.kinds import KINDS
from tests.submission import made

ROOT = Path(__file__).parents[2]
NAMES = (" leading.wav", "comma, name.wav", *(f"{clip}.wav" for clip in range(10)))
QUERIES = tuple(f"Sound {clip} is heard." for clip in range(12))
ANSWERS = ["--task", "dcase2022-6b", "--data", "data"]
REHEARSAL = [*ANSWERS, "--team", "team.yaml", "--split", "evaluation"]


def write_csv(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """Make a data folder without audio, run folders and output files in the working directory."""
    monkeypatch.chdir(tmp_path)
    captions = list(zip(NAMES, QUERIES, strict=True))
    write_csv(Path("data/captions_evaluation.csv"), [["file_name", "caption_1"], *captions])
    write_csv(Path("data/captions_development.csv"), [["file_name", "caption_1"], *captions])
    Path("team.yaml").write_text(yaml.safe_dump(made.TEAM), encoding="utf-8")
    Path("report.pdf").write_bytes(made.PDF)
    write_csv(Path("small/captions_evaluation.csv"), [["file_name", "caption_1"], *captions[:9]])
    write_csv(Path("bad/captions_evaluation.csv"), [["file_name", "caption_1"], *captions[:11], [NAMES[11], " "]])
    good = Similarity(QUERIES, NAMES, np.eye(12, dtype=np.float32))
    good.save(Path("run/predictions/evaluation.npz"))
    with np.load("run/predictions/evaluation.npz") as file:
        arrays = dict(file)
    Path("diverged/predictions").mkdir(parents=True)
    np.savez("diverged/predictions/evaluation.npz", **{**arrays, "scores": np.full((12, 12), np.nan)})
    Similarity(QUERIES[1:], NAMES, np.zeros((11, 12))).save(Path("short/predictions/evaluation.npz"))
    for run in ("run", "diverged", "short", "broken", "nothing", "said"):
        Path(run).mkdir(exist_ok=True)
        Path(run, "system.yaml").write_text(yaml.safe_dump(made.SYSTEM), encoding="utf-8")
    Path("broken/predictions").mkdir(parents=True)
    Path("broken/predictions/evaluation.npz").write_bytes(b"PK\x03\x04 and no more")
    best = good.top(10)
    rows = [tasks.read("dcase2022-6b").header(), *([q, *n] for q, n in zip(QUERIES, best.file_names, strict=True))]
    write_csv(Path("good.csv"), rows)
    write_csv(Path("one wrong.csv"), [*rows[:-1], [*rows[-1][:-1], "leading.wav"]])
    write_csv(Path("two wrong.csv"), rows[:-2])
    Path("bom.csv").write_bytes(b"\xef\xbb\xbf" + Path("good.csv").read_bytes())
    Path("my.zip").write_bytes(b"of mine")
    write_csv(Path("said/predictions/evaluation.csv"), [["file_name", "caption_predicted"], *captions])
    Path("folder").mkdir()
    Path("run/folder").mkdir()
    return tmp_path


def call(*arguments: str) -> int:
    """Run a command as the shell does. Any exception but argparse's exit would be a traceback."""
    try:
        return cli.command(parser(), arguments)
    except SystemExit as stop:
        return stop.code


MADE = "run/submission/Wu_Mila_task6b.zip"
NOTES = "run/scores/evaluation.json: note: is missing, so the metadata have no results; make it: dcase-evaluation"
DONE = [
    (["tasks"], "dcase2022-6b  Language-based audio retrieval          top-k     mAP@10\n", ""),
    (
        ["tasks", "--fields"],
        "\nk                            number of clips for each query in the form top-k, or maximum number of",
        "",
    ),
    (["tasks", "dcase2022-6b"], "\ncolumns\n    caption, file_name_{rank}\n    (verified: xieh97/dcase2022-audio", ""),
    (
        ["tasks", "dcase2024-6"],
        "\n    abbreviation: required, 10 characters at most – Use maximum 10 characters.\n",
        "",
    ),
    (["new", "--task", "dcase2022-6b", "--out", "our/team.yaml"], "our/team.yaml: written; fill it in, then run: ", ""),
    (["package", "run", *REHEARSAL], f"{MADE}: 1 system, valid for dcase2022-6b\nThis is a rehearsal: ", NOTES),
    (["package", "run", *REHEARSAL, "--out", "deep/er.zip"], "deep/er.zip: 1 system, valid for dcase2022-6b\n", NOTES),
    (["validate", "good.csv", *ANSWERS], "good.csv: valid for dcase2022-6b\n", ""),
    (["validate", "bom.csv", *ANSWERS], "bom.csv: valid for", "bom.csv:1: warning: starts with a BOM; save it as"),
]


@pytest.mark.parametrize(("arguments", "out", "err"), DONE)
def test_status_0(arguments, out, err, capsys):
    assert call(*arguments) == 0
    said = capsys.readouterr()
    assert out in said.out
    assert err in said.err
    assert bool(err) == bool(said.err)


DOES_NOT_HOLD = [
    (
        ["validate", "one wrong.csv", *ANSWERS],
        "one wrong.csv: not valid for dcase2022-6b, 1 error\n",
        "one wrong.csv:13: file_name_10: error: 'leading.wav' is not a clip of evaluation; there is ' leading.wav', "
        "and "
        "names are compared verbatim\n",
    ),
    (
        ["validate", "two wrong.csv", *ANSWERS],
        "two wrong.csv: not valid for dcase2022-6b, 2 errors\n",
        "two wrong.csv: caption: error: no row answers 'Sound 10 is heard.'; add one\n"
        "two wrong.csv: caption: error: no row answers 'Sound 11 is heard.'; add one\n",
    ),
    (
        ["package", "diverged", *REHEARSAL],
        "",
        "diverged/predictions/evaluation.npz: error: scores must be finite; 12 of 12 queries have NaN or infinite "
        "scores, for example 'Sound 0 is heard.'; check the model\n",
    ),
    (
        ["package", "short", *REHEARSAL],
        "",
        "short/predictions/evaluation.npz: error: query 'Sound 0 is heard.' is missing\n",
    ),
    (
        ["package", "broken", *REHEARSAL],
        "",
        "broken/predictions/evaluation.npz: error: must have queries, file_names and scores as `dcase-systems predict` "
        "writes them (File is not a zip file); copy the file again, or predict again\n",
    ),
    (
        ["package", "nothing", *REHEARSAL],
        "",
        "nothing/predictions/evaluation.npz: error: is missing, and dcase2022-6b needs it; make it: "
        "dcase-systems predict nothing --data data --split evaluation; for a system of your own, use "
        "predictions.Similarity(…).save, or write evaluation.csv, a CSV of each query and its best clips\n",
    ),
    (
        ["package", "run", *REHEARSAL, "--task", "dcase2023-6a"],
        "",
        "run/predictions/evaluation.csv: error: is missing: dcase2023-6a needs captions, and evaluation.npz has a "
        "retriever's similarities; give the run of a captioner, or, if the system does both tasks: dcase-systems "
        "predict run --data data --split evaluation --as captioning\n",
    ),
    (
        ["package", "said", *REHEARSAL],
        "",
        "said/predictions/evaluation.npz: error: is missing: dcase2022-6b needs similarities, and evaluation.csv "
        "has a captioner's captions; give the run of a retriever, or, if the system does both tasks: dcase-systems "
        "predict said --data data --split evaluation --as retrieval\n",
    ),
    (
        ["package", "run", *REHEARSAL, "--data", "bad"],
        "",
        "bad/captions_evaluation.csv:13: caption_1: error: is blank; write a caption\n",
    ),
]


@pytest.mark.parametrize(("arguments", "out", "err"), DOES_NOT_HOLD)
def test_status_1(arguments, out, err, capsys):
    assert call(*arguments) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == (out, err)
    assert not list(Path().glob("*/submission"))  # nothing was written


WRONG_REQUEST = [
    ([], "error: the following arguments are required: COMMAND"),
    (["valdiate"], "error: argument COMMAND: invalid choice: 'valdiate'"),
    (["validate", "good.csv"], "error: the following arguments are required: --task"),
    (["package", "run"], "error: the following arguments are required: --task, --team, --data"),
    (["package", *["run"] * 5, *REHEARSAL], "error: dcase2022-6b accepts 1 to 4 systems; found 5 runs: give 4 at most"),
    (
        ["package", "run", *REHEARSAL[:6]],
        "error: data: must have the sets of dcase2022-6b; these are missing: retrieval; for a rehearsal, give --split "
        "evaluation",
    ),
    (["package", "run", *REHEARSAL, "--team", "no.yaml"], "error: no.yaml: no such file"),
    (["package", "run", *REHEARSAL, "--out", "good.csv"], "error: good.csv: the package's name must end in .zip; "),
    (["package", "run", *REHEARSAL, "--out", "my.zip"], "error: my.zip: already exists, and is not a readable package"),
    (["package", "absent", *REHEARSAL], "error: absent: no such run folder; train a system: dcase-systems train"),
    (
        ["package", "folder", *REHEARSAL],
        "error: folder: must be a run folder, or have a folder predictions/; found neither",
    ),
    (
        ["package", "data", *REHEARSAL],
        "error: data: must be a run folder, or have a folder predictions/; found neither: give the",
    ),
    (
        ["leaderboard", "data", *ANSWERS[:2], "--truth", "data", "--split", "evaluation"],
        "error: data: must contain packages; found none: give a folder of zips",
    ),
    (["package", "run", *REHEARSAL, "--excluded", "x"], "error: --excluded needs lists of the training data; give"),
    (["validate", "good.csv", *ANSWERS[:2], "--json", "good.csv"], "error: --json good.csv: the file's name must end"),
    (["new", "--task", "dcase2022-6b"], "error: team.yaml already exists; give another name with --out"),
    (["validate", "run", *ANSWERS], "error: data: must have a set of dcase2022-6b (retrieval); found none of them;"),
    (
        ["validate", "good.csv", *REHEARSAL[:4], "--training", "x"],
        "error: --training needs the task's list of excluded sounds",
    ),
    (["validate", "good.csv", *ANSWERS[:2], "--excluded", "x"], "error: --excluded needs lists of the training data;"),
    (["validate", "good.csv", *ANSWERS[:2], "--split", "tset"], "error: unknown split 'tset'; did you mean 'test'?"),
    (["tasks", "dcase2022-6B"], "error: unknown task 'dcase2022-6B'; did you mean 'dcase2022-6b'? there are: "),
    (["validate", "good.csv", *ANSWERS, "--task", "x"], "error: unknown task 'x'; there are: "),
    (["validate", "absent.csv", *ANSWERS], "error: absent.csv: no such file; give an output file of dcase2022-6b"),
    (["validate", "good.csv", *ANSWERS, "--data", "nowhere"], "error: nowhere: no such folder; give a folder in"),
    (["validate", "good.csv", *ANSWERS, "--split", "evaluatoin"], "error: unknown split 'evaluatoin'; did you mean"),
    (["package", "run", *REHEARSAL, "--data", "small"], "error: dcase2022-6b asks for 10 clips for each query; eval"),
    (["package", "run", *REHEARSAL, "--out", "run/folder"], "error: run/folder: the package's name must end in .zip"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_REQUEST)
def test_status_2(arguments, message, capsys):
    assert call(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err.splitlines()[-1]
    assert not list(Path().glob("**/.*.part"))
    assert not list(Path("run/folder").iterdir())


def test_what_is_made_is_valid_and_reads_back(capsys):
    assert call("package", "run", *REHEARSAL) == 0
    assert call("validate", MADE, *ANSWERS, "--split", "evaluation") == 0
    with zipfile.ZipFile(MADE) as file:
        written = file.read("task6/Wu_Mila_task6b_1/Wu_Mila_task6b_submission_1_output.csv")
        file.extractall("out")
    assert written == Path("good.csv").read_bytes().replace(b"\r\n", b"\n")
    assert call("validate", "out", *ANSWERS, "--split", "evaluation") == 0
    file = "out/task6/Wu_Mila_task6b_1/Wu_Mila_task6b_submission_1_metadata.yaml"
    assert call("validate", file, *ANSWERS[:2]) == 0
    assert capsys.readouterr().out.endswith(f"{file}: valid for dcase2022-6b\n")


def test_packages_of_two_years_with_one_name(capsys):
    """The second does not replace the first, and the check recognises its task."""
    assert call("package", "said", *REHEARSAL, "--task", "dcase2022-6a") == 0
    made = Path("said/submission/Wu_Mila_task6a.zip")
    before = made.read_bytes()
    capsys.readouterr()
    assert call("package", "said", *REHEARSAL, "--task", "dcase2023-6a") == 2
    assert capsys.readouterr().err == (
        f"error: {made}: already exists, and is a package of dcase2022-6a; give another name with --out\n"
    )
    assert made.read_bytes() == before
    assert call("package", "said", *REHEARSAL, "--task", "dcase2022-6a") == 0  # a package of the same task is replaced
    assert made.read_bytes() == before
    with zipfile.ZipFile(made) as file:
        file.extractall("out")
    metadata = "out/task6/Wu_Mila_task6a_1/Wu_Mila_task6a_submission_1_metadata.yaml"
    for path in (str(made), "out", metadata):
        capsys.readouterr()
        call("validate", path, *ANSWERS, "--split", "evaluation", "--task", "dcase2023-6a")
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "2022-6a" in line]
        assert line == (
            f"{path}: warning: was written for dcase2022-6a, according to the first line of the metadata; did you mean "
            "--task dcase2022-6a?"
        )


def test_a_new_team_file_says_what_is_to_be_filled_in(capsys):
    assert call("new", "--task", "dcase2022-6b", "--out", "new.yaml") == 0
    assert call("package", "run", *REHEARSAL, "--team", "new.yaml") == 1
    said = capsys.readouterr().err
    for key in ("author", "institute", "report", "metadata.submission.name"):
        assert f": {key}: error: " in said, said


def test_without_data_the_official_numbers_count(capsys):
    assert call("validate", "good.csv", "--task", "dcase2022-6b") == 1
    assert capsys.readouterr().err == "good.csv: caption: error: must answer 1000 (retrieval) queries; found 12\n"
    assert call("validate", "good.csv", "--task", "dcase2022-6b", "--split", "evaluation") == 0


@pytest.mark.parametrize("name", tasks.names())
def test_blind_sets_from_a_run_to_a_valid_package(name, capsys):
    """The data folder has only audio, and the queries of retrieval tasks."""
    task = tasks.read(name)
    write_csv(Path("blind/captions_development.csv"), [["file_name", "caption_1"], [NAMES[0], "It rains."]])
    for split in task.sets:
        if task.kind in ("choice", "moments"):
            asked = made.asked(task, split, 12, 0)
            KINDS[task.kind].write_data(asked, False, Path("blind"))
            made.answer(task, Path("run"), asked)
            continue
        Path("blind", split).mkdir(parents=True)
        for clip in NAMES:
            Path("blind", split, clip).touch()
        if task.kind == "retrieval":
            write_csv(Path("blind", f"{split}_captions.csv"), [["caption"], *([query] for query in QUERIES)])
        answers = [["file_name", "caption_predicted"], *zip(NAMES, QUERIES, strict=True)]
        write_csv(Path("run/predictions", f"{split}.csv"), answers)
        Similarity(QUERIES, NAMES, np.eye(12, dtype=np.float32)).save(Path("run/predictions", f"{split}.npz"))
    assert call("package", "run", "--task", name, "--data", "blind", "--team", "team.yaml", "--out", "p.zip") == 0
    assert call("validate", "p.zip", "--task", name, "--data", "blind") == 0
    assert ": error: " not in capsys.readouterr().err


def test_findings_as_json(capsys):
    assert call("validate", "one wrong.csv", *ANSWERS, "--json", "deep/er.json") == 1
    said = json.loads(Path("deep/er.json").read_text())
    assert (said["task"], said["file"], said["valid"]) == ("dcase2022-6b", "one wrong.csv", False)
    (finding,) = said["findings"]
    assert (finding["line"], finding["column"], finding["severity"]) == (13, "file_name_10", "error")
    assert finding["message"] in capsys.readouterr().err
    assert call("validate", "good.csv", *ANSWERS, "--json", "deep/er.json") == 0
    assert json.loads(Path("deep/er.json").read_text())["findings"] == []


def test_a_captioner_that_leaves_a_clip_out(capsys):
    rows = [["file_name", "caption_predicted"], *zip(NAMES[1:], QUERIES[1:], strict=True)]
    write_csv(Path("run/predictions/evaluation.csv"), rows)
    assert call("package", "run", *REHEARSAL, "--task", "dcase2023-6a") == 1
    assert "no caption for clip ' leading.wav'" in capsys.readouterr().err
    assert not Path("run/submission").exists()


def blind_sets(*sets: str) -> None:
    """Make a data folder with these sets of twelve sounds, and no other split."""
    for name in sets:
        Path("blind", name).mkdir(parents=True)
        for clip in NAMES:
            Path("blind", name, clip).touch()
    if "retrieval" in sets:
        write_csv(Path("blind/retrieval_captions.csv"), [["caption"], *([query] for query in QUERIES)])


def test_a_folder_with_the_tasks_own_set_alone(capsys):
    """A file whose name gives no set is checked against the only one. Other splits need not be there."""
    blind_sets("retrieval")
    assert call("validate", "good.csv", "--task", "dcase2022-6b", "--data", "blind") == 0
    assert capsys.readouterr().out == "good.csv: valid for dcase2022-6b\n"
    assert call("validate", "one wrong.csv", "--task", "dcase2022-6b", "--data", "blind") == 1
    assert "is not a clip of retrieval" in capsys.readouterr().err


def test_a_folder_with_two_sets_that_may_be_meant(capsys):
    blind_sets("test", "analysis")
    captions = "said/predictions/evaluation.csv"
    assert call("validate", captions, "--task", "dcase2023-6a", "--data", "blind") == 2
    assert capsys.readouterr().err == (
        f"error: {captions}: must have the name of a dcase2023-6a output, because blind has the sets test and "
        "analysis; rename it, or give --split test or --split analysis\n"
    )
    assert call("validate", captions, "--task", "dcase2023-6a", "--data", "blind", "--split", "test") == 0
    assert call("validate", "good.csv", "--task", "dcase2022-6b", "--data", "blind") == 2
    assert "no captions_evaluation.csv; the splits in this folder: test, analysis" in capsys.readouterr().err


def test_a_csv_of_best_clips_is_packaged(capsys):
    """A retrieval team can write its own prediction, for tasks that ask for the best clips."""
    rows = list(csv.reader(Path("good.csv").read_text(encoding="utf-8").splitlines()))
    run = Path("best/predictions/evaluation.csv")
    write_csv(run, [[*rows[0], "one more"], *([*row, row[-2]] for row in rows[1:])])
    Path("best/system.yaml").write_text(yaml.safe_dump(made.SYSTEM), encoding="utf-8")
    assert call("package", "best", *REHEARSAL, "--out", "best.zip") == 0
    with zipfile.ZipFile("best.zip") as file:
        (name,) = (name for name in file.namelist() if name.endswith(".csv"))
        made_of = list(csv.reader(file.read(name).decode().splitlines()))
    assert made_of == rows
    capsys.readouterr()

    assert call("package", "best", *REHEARSAL, "--task", "dcase2025-6") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"{run}: error: must have a score of every query for every clip, because dcase2025-6 asks for all of them; "
        "found only the best clips of each query: give predictions/SPLIT.npz, or a CSV whose header names the clips"
    )
    write_csv(run, [rows[0][:10], *(row[:10] for row in rows[1:])])
    assert call("package", "best", *REHEARSAL) == 1
    assert f"{run}:2: error: must have 10 clips, best first; found 9: add the missing ones\n" in capsys.readouterr().err
    write_csv(run, [rows[0], *([row[0], row[1], *row[1:-1]] for row in rows[1:])])
    assert call("package", "best", *REHEARSAL) == 1
    assert "is in file_name_1 already; give different clips" in capsys.readouterr().err


def test_a_csv_of_scores_is_packaged(capsys):
    rng = np.random.default_rng(0)
    scores = rng.random((12, 12)).round(3)
    table = [["query", *NAMES], *([query, *row] for query, row in zip(QUERIES, scores.tolist(), strict=True))]
    write_csv(Path("best/predictions/evaluation.csv"), table)
    Path("best/system.yaml").write_text(yaml.safe_dump(made.SYSTEM), encoding="utf-8")
    for task in ("dcase2022-6b", "dcase2025-6"):
        assert call("package", "best", *REHEARSAL, "--task", task, "--out", f"{task}.zip") == 0


def test_validate_imports_little():
    """The answer within a second, which `make bench` measures, depends on it."""
    code = (
        "import sys; from submission.__main__ import parser; from evaluation.cli import command; "
        f"command(parser(), {['validate', 'good.csv', *ANSWERS, '--split', 'evaluation']}); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    verdict, modules = done.stdout.splitlines()
    assert verdict == "good.csv: valid for dcase2022-6b"
    loaded = {name.partition(".")[0] for name in modules.split()}
    heavy = {"torch", "torchaudio", "lightning", "transformers", "pandas", "scipy", "gensim", "aac_metrics", "systems"}
    heavy |= {"pypdf", "jinja2", "matplotlib", "seaborn"}
    assert not loaded & heavy
    ours = {name for name in modules.split() if name.partition(".")[0] in ("evaluation", "submission", "baseline")}
    others = {"submission.leaderboard", "submission.leaderboard_page", "submission.scoring", "baseline"}
    others |= {"evaluation.metrics.captioning", "evaluation.statistics.comparison"}
    assert not ours & others


def test_a_task_is_shown_with_its_sources(capsys):
    assert call("tasks", "dcase2022-6b") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dcase2022-6b: Language-based audio retrieval"
    assert [line for line in lines[1:] if line and line[0] != " "] == [
        path for path, _ in tasks.read("dcase2022-6b").facts()
    ]


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_is_readable_in_a_terminal(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert call("tasks", name) == 0
    said = capsys.readouterr().out
    words = [line for line in said.splitlines() if len(line) > 80]
    assert all(len(line.split()) <= 2 for line in words)  # a file name or an address may be longer than the line
    for path, fact in tasks.read(name).facts():
        assert f"\n{path}\n" in said
        assert fact.source.split()[0] in said


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["tasks"], 0),
        (["validate", "one wrong.csv", *ANSWERS], 1),
        (["validate", "nothing.zip", *ANSWERS, "--split", "evaluation"], 2),
    ],
)
def test_the_command_itself(arguments, status):
    done = subprocess.run(
        [sys.executable, "-m", "submission", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == (status > 0)
