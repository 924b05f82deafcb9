import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation import findings, retrieval
from evaluation.retrieval import Similarity
from submission import tasks
from submission.__main__ import parser

ROOT = Path(__file__).parents[2]
NAMES = (" leading.wav", "comma, name.wav", *(f"{clip}.wav" for clip in range(10)))
QUERIES = tuple(f"Sound {clip} is heard." for clip in range(12))
ANSWERS = ["--task", "dcase2022-6b", "--data", "data"]


def write_csv(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A data folder without sound, some run folders and some output files, in the working directory."""
    monkeypatch.chdir(tmp_path)
    captions = list(zip(NAMES, QUERIES, strict=True))
    write_csv(Path("data/captions_evaluation.csv"), [["file_name", "caption_1"], *captions])
    write_csv(Path("small/captions_evaluation.csv"), [["file_name", "caption_1"], *captions[:9]])
    write_csv(Path("bad/captions_evaluation.csv"), [["file_name", "caption_1"], *captions[:11], [NAMES[11], " "]])
    good = Similarity(QUERIES, NAMES, np.eye(12, dtype=np.float32))
    good.save(Path("run/predictions/evaluation.npz"))
    Similarity(QUERIES, NAMES, np.full((12, 12), np.nan)).save(Path("diverged/predictions/evaluation.npz"))
    Similarity(QUERIES[1:], NAMES, np.zeros((11, 12))).save(Path("short/predictions/evaluation.npz"))
    Path("broken/predictions").mkdir(parents=True)
    Path("broken/predictions/evaluation.npz").write_bytes(b"PK\x03\x04 and no more")
    best = good.top(10)
    rows = [tasks.read("dcase2022-6b").header, *([q, *n] for q, n in zip(QUERIES, best.file_names, strict=True))]
    write_csv(Path("good.csv"), rows)
    write_csv(Path("one wrong.csv"), [*rows[:-1], [*rows[-1][:-1], "leading.wav"]])
    write_csv(Path("two wrong.csv"), rows[:-2])
    Path("bom.csv").write_bytes(b"\xef\xbb\xbf" + Path("good.csv").read_bytes())
    Path("folder").mkdir()
    Path("run/folder").mkdir()
    return tmp_path


def call(*arguments: str) -> int:
    """As the shell does; an exception other than argparse's exit would be a traceback."""
    try:
        return findings.command(parser(), arguments)
    except SystemExit as stop:
        return stop.code


WRITTEN = "run/submission/dcase2022-6b_evaluation.csv"
DONE = [
    (["tasks"], "dcase2022-6b  Language-based audio retrieval  mAP@10, R@1, R@5, R@10", ""),
    (["tasks", "dcase2022-6b"], "answer_column  file_name_{rank}                  verified ", ""),
    (["write", "run", *ANSWERS], f"{WRITTEN}: 12 queries, valid for dcase2022-6b\n", ""),
    (["write", "run", *ANSWERS, "--out", "deep/er/out.csv"], "deep/er/out.csv: 12 queries, valid for", ""),
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
        "one wrong.csv:13: file_name_10: error: 'leading.wav' is no clip of evaluation; there is ' leading.wav', and "
        "names are compared verbatim\n",
    ),
    (
        ["validate", "two wrong.csv", *ANSWERS],
        "two wrong.csv: not valid for dcase2022-6b, 2 errors\n",
        "two wrong.csv: caption: error: no row answers 'Sound 10 is heard.'; add one\n"
        "two wrong.csv: caption: error: no row answers 'Sound 11 is heard.'; add one\n",
    ),
    (
        ["write", "diverged", *ANSWERS],
        "",
        "diverged/predictions/evaluation.npz: error: scores must be finite; 12 of 12 queries have others, first "
        "'Sound 0 is heard.'\n",
    ),
    (
        ["write", "short", *ANSWERS],
        "",
        "short/predictions/evaluation.npz: error: no query 'Sound 0 is heard.'\n",
    ),
    (
        ["write", "broken", *ANSWERS],
        "",
        "broken/predictions/evaluation.npz: error: must hold queries, file_names and scores as `systems predict` "
        "writes them (File is not a zip file)\n",
    ),
    (
        ["write", "run", *ANSWERS[:2], "--data", "bad"],
        "",
        "captions_evaluation.csv:13: caption_1: error: is blank; write a caption\n",
    ),
]


@pytest.mark.parametrize(("arguments", "out", "err"), DOES_NOT_HOLD)
def test_status_1(arguments, out, err, capsys):
    assert call(*arguments) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == (out, err)
    assert not list(Path().glob("*/submission"))  # nothing was written


WRONG_REQUEST = [
    ([], "error: the following arguments are required: VERB"),
    (["valdiate"], "error: argument VERB: invalid choice: 'valdiate'"),
    (["validate", "good.csv"], "error: the following arguments are required: --task, --data"),
    (["tasks", "dcase2022-6B"], "error: unknown task 'dcase2022-6B'; did you mean 'dcase2022-6b'? there are: "),
    (["validate", "good.csv", *ANSWERS, "--task", "x"], "error: unknown task 'x'; there are: "),
    (["validate", "absent.csv", *ANSWERS], "error: absent.csv: no such file; give an output file of dcase2022-6b"),
    (["validate", "folder", *ANSWERS], "error: folder: no such file; give an output file of dcase2022-6b"),
    (["validate", "good.csv", *ANSWERS, "--data", "nowhere"], "error: nowhere: no such folder; give a folder in"),
    (["validate", "good.csv", *ANSWERS, "--split", "evaluatoin"], "error: unknown split 'evaluatoin'; did you mean"),
    (["write", "nothing", *ANSWERS], "error: nothing/predictions/evaluation.npz: no such file; give a prediction"),
    (["write", "run", *ANSWERS, "--data", "small"], "error: dcase2022-6b wants 10 clips for a query; evaluation has 9"),
    (["write", "run", *ANSWERS, "--out", "run/folder"], "error: run/folder: Is a directory"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_REQUEST)
def test_status_2(arguments, message, capsys):
    assert call(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err.splitlines()[-1]
    assert not list(Path().glob("**/.*.part"))
    assert not list(Path("run/folder").iterdir())


def test_what_is_written_is_valid_and_reads_back(capsys):
    assert call("write", "run", *ANSWERS) == 0
    assert call("validate", WRITTEN, *ANSWERS) == 0
    assert Path(WRITTEN).read_bytes() == Path("good.csv").read_bytes().replace(b"\r\n", b"\n")
    assert retrieval.read(Path(WRITTEN)).queries == QUERIES


def test_a_task_is_shown_with_its_sources(capsys):
    assert call("tasks", "dcase2022-6b") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dcase2022-6b: Language-based audio retrieval"
    facts = [key for key, value in tasks.read("dcase2022-6b") if isinstance(value, tasks.Fact)]
    assert [line.split()[0] for line in lines[3:]] == facts


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["tasks"], 0), (["validate", "one wrong.csv", *ANSWERS], 1), (["write", "nothing", *ANSWERS], 2)],
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
