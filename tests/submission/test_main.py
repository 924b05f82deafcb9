import csv
import json
import os
import subprocess
import sys
import time
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
    rows = [tasks.read("dcase2022-6b").header(), *([q, *n] for q, n in zip(QUERIES, best.file_names, strict=True))]
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
    (["tasks"], "dcase2022-6b  Language-based audio retrieval  top-k     mAP@10\n", ""),
    (["tasks", "dcase2022-6b"], "\ncolumns\n    caption, file_name_{rank}\n    (verified: xieh97/dcase2022-audio", ""),
    (
        ["tasks", "dcase2024-6"],
        "\n    abbreviation: required, 10 characters at most – Use maximum 10 characters.\n",
        "",
    ),
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
    (["validate", "good.csv"], "error: the following arguments are required: --task"),
    (["write", "run"], "error: the following arguments are required: --task, --data"),
    (["validate", "good.csv", *ANSWERS[:2], "--split", "tset"], "error: unknown split 'tset'; did you mean 'test'?"),
    (["tasks", "dcase2022-6B"], "error: unknown task 'dcase2022-6B'; did you mean 'dcase2022-6b'? there are: "),
    (["validate", "good.csv", *ANSWERS, "--task", "x"], "error: unknown task 'x'; there are: "),
    (["validate", "absent.csv", *ANSWERS], "error: absent.csv: no such file; give an output file of dcase2022-6b"),
    (["validate", "folder", *ANSWERS], "error: folder: no such file; give an output file of dcase2022-6b"),
    (["validate", "good.csv", *ANSWERS, "--data", "nowhere"], "error: nowhere: no such folder; give a folder in"),
    (["validate", "good.csv", *ANSWERS, "--split", "evaluatoin"], "error: unknown split 'evaluatoin'; did you mean"),
    (["write", "nothing", *ANSWERS], "error: nothing/predictions/evaluation.npz: no such file; give a prediction"),
    (["write", "run", *ANSWERS, "--data", "small"], "error: dcase2022-6b wants 10 clips for a query; evaluation has 9"),
    (["write", "run", *ANSWERS, "--out", "run/folder"], "error: run/folder: must be a file or not there;"),
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


def test_without_data_the_official_numbers_count(capsys):
    assert call("validate", "good.csv", "--task", "dcase2022-6b") == 1
    assert capsys.readouterr().err == "good.csv: caption: error: must answer 1000 (retrieval) queries; found 12\n"
    assert call("validate", "good.csv", "--task", "dcase2022-6b", "--split", "evaluation") == 0


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for name in tasks.names() for split in tasks.read(name).sets]
)
def test_every_blind_set_from_a_run_to_a_valid_file(name, split, capsys):
    """A folder of sound alone, and for retrievers its queries."""
    Path("blind", split).mkdir(parents=True)
    for clip in NAMES:
        Path("blind", split, clip).touch()
    write_csv(Path("blind", f"{split}_captions.csv"), [["caption"], *([query] for query in QUERIES)])
    answers = [["file_name", "caption_predicted"], *zip(NAMES, QUERIES, strict=True)]
    write_csv(Path("run/predictions", f"{split}.csv"), answers)
    Similarity(QUERIES, NAMES, np.eye(12, dtype=np.float32)).save(Path("run/predictions", f"{split}.npz"))
    arguments = ["--task", name, "--data", "blind", "--split", split]
    assert call("write", "run", *arguments) == 0
    assert call("validate", f"run/submission/{name}_{split}.csv", *arguments) == 0
    assert capsys.readouterr().err == ""


def test_findings_as_json(capsys):
    assert call("validate", "one wrong.csv", *ANSWERS, "--json", "deep/er.json") == 1
    said = json.loads(Path("deep/er.json").read_text())
    assert (said["task"], said["file"], said["valid"]) == ("dcase2022-6b", "one wrong.csv", False)
    (finding,) = said["findings"]
    assert (finding["line"], finding["column"], finding["severity"]) == (13, "file_name_10", "error")
    assert finding["message"] in capsys.readouterr().err
    assert call("validate", "good.csv", *ANSWERS, "--json", "deep/er.json") == 0
    assert json.loads(Path("deep/er.json").read_text())["findings"] == []


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_from_a_run_to_a_valid_file(name, capsys):
    write_csv(
        Path("run/predictions/evaluation.csv"),
        [["file_name", "caption_predicted"], *zip(NAMES, QUERIES, strict=True)],
    )
    written = f"run/submission/{name}_evaluation.csv"
    assert call("write", "run", "--task", name, "--data", "data") == 0
    before = Path(written).read_bytes()
    assert call("write", "run", "--task", name, "--data", "data", "--split", "evaluation") == 0
    assert Path(written).read_bytes() == before
    assert call("validate", written, "--task", name, "--data", "data", "--split", "evaluation") == 0
    assert call("validate", written, "--task", name, "--split", "evaluation") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"12 {'clips' if tasks.read(name).kind == 'captioning' else 'queries'}, valid for {name}\n" in said.out


def test_a_captioner_that_leaves_a_clip_out(capsys):
    rows = [["file_name", "caption_predicted"], *zip(NAMES[1:], QUERIES[1:], strict=True)]
    write_csv(Path("run/predictions/evaluation.csv"), rows)
    assert call("write", "run", "--task", "dcase2023-6a", "--data", "data") == 1
    assert "no caption for clip ' leading.wav'" in capsys.readouterr().err
    assert not Path("run/submission").exists()


def test_validate_starts_fast_and_imports_little():
    code = (
        "import sys; from submission.__main__ import parser; from evaluation.findings import command; "
        f"command(parser(), {['validate', 'good.csv', *ANSWERS]}); print(*sys.modules)"
    )
    for _ in range(5):  # a busy machine may be slow once
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - start
        if seconds < 1:
            break
    verdict, modules = done.stdout.splitlines()
    assert verdict == "good.csv: valid for dcase2022-6b"
    loaded = {name.partition(".")[0] for name in modules.split()}
    heavy = {"torch", "torchaudio", "lightning", "transformers", "pandas", "scipy", "gensim", "aac_metrics", "systems"}
    assert not loaded & heavy
    ours = {name for name in modules.split() if name.partition(".")[0] in ("evaluation", "submission", "baseline")}
    assert ours == {
        "submission",
        *(f"submission.{name}" for name in ("__main__", "outputs", "tasks")),
        "evaluation",
        *(f"evaluation.{name}" for name in ("audio", "data", "files", "findings")),
        *(f"evaluation.{name}" for name in ("intervals", "retrieval", "scores", "tables")),
    }
    assert seconds < 1


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
    assert all(len(line.split()) <= 2 for line in words)  # a file's name or an address that is longer than the line
    for path, fact in tasks.read(name).facts():
        assert f"\n{path}\n" in said
        assert fact.source.split()[0] in said


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
