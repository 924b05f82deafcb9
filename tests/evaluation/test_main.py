"""The command line: exit statuses, standard output and standard error, and no traceback."""

import csv
import functools
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evaluation.__main__ import parser
from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from evaluation.data.soundscapes import generate, questions, recordings
from evaluation.predictions import Similarity

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(capsys):
    """Run a command line in this process; return exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = command(parser(), [str(argument) for argument in arguments])
        except SystemExit as usage:  # argparse refuses a command line this way
            status = usage.code
        return status, *capsys.readouterr()

    return run


def shell(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evaluation", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


# ------------------------------------------------------------------------------------------------ data


def test_check_of_good_data(run, clotho_like):
    folder = clotho_like()
    status, out, err = run("data", "check", folder)
    assert (status, err) == (0, "")
    *table, verdict = out.splitlines()
    assert " ".join(table[0].split()) == "split clips captions queries audio files h:mm:ss seconds Hz findings"
    rows = [line.split() for line in table[2:]]
    assert [row[:5] + row[-2:] for row in rows] == [
        ["development", "6", "30", "30", "6", "44100", "none"],
        ["validation", "3", "15", "15", "3", "44100", "none"],
        ["evaluation", "3", "15", "15", "3", "44100", "none"],
    ]
    assert verdict == f"{folder}: no errors"


def test_check_of_bad_data_lists_every_finding_and_the_table(run, clotho_like):
    folder = clotho_like()
    (folder / "evaluation" / "evaluation_1.wav").write_bytes(b"junk")
    (folder / "validation" / "validation_2.wav").unlink()
    (folder / "captions_dev.csv").touch()
    status, out, err = run("data", "check", folder)
    assert status == 1
    assert err.splitlines() == [
        "captions_dev.csv: warning: is not read: unknown split 'dev'; did you mean 'development'? "
        "there are: development, validation, evaluation, test, analysis, retrieval",
        "captions_validation.csv:4: file_name: error: no audio file 'validation_2.wav' in validation/",
        "evaluation/evaluation_1.wav: error: does not decode (Format not recognised); replace the file",
    ]
    assert [line.split()[-2:] for line in out.splitlines()[2:5]] == [["44100", "none"], ["1", "error"], ["1", "error"]]
    assert out.splitlines()[-1] == f"{folder}: 2 errors"


def test_a_warning_is_no_failure(run, clotho_like):
    folder = clotho_like({"development": 2})
    (folder / "development" / "notes.txt").touch()
    status, out, err = run("data", "check", folder)
    assert status == 0
    assert err == "development/notes.txt: warning: is not an audio file (.wav, .flac, .ogg, .mp3); ignored\n"
    assert out.splitlines()[2].endswith("1 warning")
    assert out.endswith(": no errors\n")


def test_check_as_a_process(clotho_like):
    folder = clotho_like({"development": 2})
    (folder / "captions_development.csv").write_bytes("file_name,caption_1\né.wav,Été.\n".encode("latin-1"))
    done = shell("data", "check", folder)
    assert done.returncode == 1
    assert [line.partition(": error: ")[0] for line in done.stderr.splitlines()] == [
        "captions_development.csv:2: caption_1",
        "captions_development.csv:2: file_name",
        "captions_development.csv:2: file_name",
        *(f"development/{path.name}" for path in sorted((folder / "development").iterdir())),
    ]
    assert done.stdout.endswith(f"{folder}: 5 errors\n")


def test_a_terminal_without_dashes(tmp_path):
    (tmp_path / "captions_development.csv").write_text("file_name,caption_1\nä.wav,A dog.\n", encoding="utf-8")
    done = shell("data", "check", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "\\u2013" in done.stdout


def test_a_reader_that_leaves(clotho_like):
    folder = clotho_like({"development": 1})
    with subprocess.Popen(
        [sys.executable, "-m", "evaluation", "data", "check", folder],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == (b"", 0)


def test_files_are_written_before_anything_is_printed(scored):
    """They are written even if printing fails, as on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    one, other, both = (scored / name for name in ("one.json", "other.json", "both.json"))
    prediction = ["score", "retrieval", "--truth", scored, "--prediction", scored / "p.npz"]
    commands = [[*prediction, "--json", one], [*prediction, "--json", other], ["compare", one, other, "--json", both]]
    before = sys.stdout
    for words in commands:
        with Path("/dev/full").open("w") as full:
            sys.stdout = full
            try:
                assert command(parser(), [str(word) for word in words]) == 2
            finally:
                sys.stdout = before
        assert words[-1].is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "check", "nowhere"], "error: nowhere: no such folder; give a folder in Clotho's layout"),
        (["data", "make", "there"], "error: there: must not exist or must be an empty folder"),
        (["data", "make", "new", "--seed", "-1"], "error: the seed must be 0 or more; found -1"),
        (["data", "make", "new", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["data", "download", "clotoh", "new"], "invalid choice: 'clotoh'"),
        (["data", "chek", "new"], "invalid choice: 'chek'"),
        (["data"], "the following arguments are required: COMMAND"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/mine.txt").touch()
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "there"]


def test_make(run, tmp_path, monkeypatch):
    few = functools.partial(
        generate.make_soundscapes, clips={"development": 2, "evaluation": 20}, workers=1, progress=False
    )
    monkeypatch.setattr(generate, "make_soundscapes", few)
    status, out, err = run("data", "make", tmp_path / "new", "--seed", "3")
    assert (status, err) == (0, "")
    title, header, _, *rows = out.splitlines()
    queries = len(read_dataset(tmp_path / "new")["evaluation"].queries)
    assert title == f"{tmp_path / 'new'}: 20 evaluation clips, {queries} queries; reference scores:"
    assert header.split() == ["mAP@10", "R@1", "R@5", "R@10"]
    chance, kinds, scene = (np.array(row.split()[-4:], float) for row in rows)
    assert chance[1:].tolist() == [1 / 20, 5 / 20, 10 / 20]
    assert (chance < kinds).all()
    assert (kinds <= scene).all()
    assert kinds[0] < scene[0] <= 1


def test_make_for_other_answers(run, tmp_path, monkeypatch):
    few = functools.partial(questions.make_questions, sets={"evaluation": 1}, workers=1, progress=False)
    monkeypatch.setattr(questions, "make_questions", few)
    status, out, err = run("data", "make", tmp_path / "questions", "--answers", "choice")
    assert (status, err) == (0, "")
    counts = "10 evaluation questions (3 about count, 3 about order, 4 about presence)"
    assert out == f"{tmp_path / 'questions'}: {counts}; accuracy by chance 0.300\n"
    few = functools.partial(recordings.make_recordings, recordings={"evaluation": 1}, workers=1, progress=False)
    monkeypatch.setattr(recordings, "make_recordings", few)
    status, out, err = run("data", "make", tmp_path / "recordings", "--answers", "moments")
    assert (status, err) == (0, "")
    assert "1 evaluation recording, " in out
    assert "; 4 queries with " in out


# ------------------------------------------------------------------------------------------------ score


@pytest.fixture
def scored(tmp_path):
    """Four clips with a caption each and one in common, and a prediction that ranks them 1st, 2nd, 3rd and 4th."""
    folder = tmp_path / "data"
    folder.mkdir()
    names = [" a, 1.wav", "b.wav", "c.wav", "d.wav"]
    queries = ["A dog barks.", "Rain, and wind.", "A bell rings.", "A door creaks.", "Something is heard."]
    lines = [f'"{name}","{query}",Something is heard.' for name, query in zip(names, queries, strict=False)]
    (folder / "captions_evaluation.csv").write_text("\n".join(["file_name,caption_1,caption_2", *lines]))
    scores = np.array([[4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [0, 0, 0, 0]], np.float32)
    Similarity(tuple(queries), tuple(names), scores).save(folder / "p.npz")
    (folder / "relevance.csv").write_text("query,audio_filenames\nA dog barks.,\"['b.wav', 'c.wav']\"\n")
    return folder


def score(run, folder, *more: object) -> tuple[int, str, str]:
    return run("score", "retrieval", "--truth", folder, "--prediction", folder / "p.npz", *more)


def test_score(run, scored):
    status, out, err = score(run, scored, "--json", scored / "new" / "scores.json")
    assert (status, err) == (0, "")
    header, _, *rows, signature = out.splitlines()
    assert re.split("  +", header) == ["metric", "value", "95 % interval", "by clip", "chance", "queries"]
    # AP: 1, 1/2, 1/3, 1/4 and 1; the interval: 1.96 standard deviations over the root of 5.
    values = {"mAP@10": [1, 1 / 2, 1 / 3, 1 / 4, 1], "R@1": [1, 0, 0, 0, 1 / 4], "R@5": [1] * 5, "R@10": [1] * 5}
    content = json.loads((scored / "new" / "scores.json").read_text())
    assert content.keys() == {"signature", "metrics", "items"}
    assert signature == f"signature: {content['signature']}"
    assert content["metrics"].keys() == values.keys()
    for row, (name, each) in zip(rows, values.items(), strict=True):
        figures = content["metrics"][name]
        error = np.std(each, ddof=1) / np.sqrt(5)
        assert figures["value"] == pytest.approx(np.mean(each), rel=1e-15)
        assert figures["std_error"] == pytest.approx(error, rel=1e-14)
        assert figures["low"] == pytest.approx(np.mean(each) - 1.959963984540054 * error, rel=1e-14)
        assert figures["high"] == pytest.approx(np.mean(each) + 1.959963984540054 * error, rel=1e-14)
        assert (figures["n"], figures["interval"]) == (5, "jackknife-95")
        assert row.split()[:2] == [name, f"{np.mean(each):.3f}"]
    for part in ("split:evaluation#", "truth:captions", "queries:5", "clips:4", "interval:jackknife-95"):
        assert part in content["signature"]


def test_score_against_another_truth(run, scored):
    status, out, err = score(run, scored, "--relevance", scored / "relevance.csv", "--metrics", "mAP@16", "R@2")
    assert status == 0
    assert err.count("\n") == 1
    assert "note" in err  # four queries are not in that truth
    # b.wav is second and c.wav third: (1/2 + 2/3) / 2, and one of the two in the first two.
    assert [line.split()[:2] for line in out.splitlines()[2:4]] == [["mAP@16", "0.583"], ["R@2", "0.500"]]
    assert "|truth:relevance#" in out


def test_score_with_a_set_of_metrics_and_another_interval(run, scored):
    status, out, err = score(run, scored, "--metrics", "dcase2025", "MRR", "medR", "--interval", "jackknife-t")
    assert (status, err) == (0, "")
    rows = [line.split()[:2] for line in out.splitlines()[2:-1]]
    assert [name for name, _ in rows] == ["mAP@16", "mAP@10", "R@1", "R@5", "R@10", "MRR", "medR"]
    # First ranks: 1, 2, 3, 4, and 1 for the query for which all four clips are relevant.
    assert [value for _, value in rows[-2:]] == [f"{(1 + 1 / 2 + 1 / 3 + 1 / 4 + 1) / 5:.3f}", "2.000"]
    assert "|interval:jackknife-t-95|" in out


def test_score_against_grades(run, scored):
    lines = ["query,audio_filenames,grades", "A dog barks.,\"['b.wav', 'c.wav', 'd.wav']\",\"[1, 2.5, 0]\""]
    (scored / "graded.csv").write_text("\n".join(lines))
    metrics = "nDCG@10", "success@2", "R@3"
    status, out, _ = score(run, scored, "--relevance", scored / "graded.csv", "--metrics", *metrics)
    assert status == 0
    ndcg = (1 / np.log2(3) + 2.5 / np.log2(4)) / (2.5 + 1 / np.log2(3))
    rows = [["nDCG@10", f"{ndcg:.3f}"], ["success@2", "1.000"], ["R@3", "1.000"]]
    assert [line.split()[:2] for line in out.splitlines()[2:-1]] == rows
    assert "|relevant:2-2|" in out


def test_the_folders_relevance_is_the_default_truth(run, scored):
    (scored / "relevance.csv").rename(scored / "relevance_evaluation.csv")
    _, listed, _ = score(run, scored, "--metrics", "R@1")
    _, captions, _ = score(run, scored, "--metrics", "R@1", "--relevance", "captions")
    assert ("|truth:relevance#" in listed, "queries:1|" in listed) == (True, True)
    assert ("|truth:captions" in captions, "queries:5|" in captions) == (True, True)


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--metrics", "MAP@10"], 2, "error: unknown metric 'MAP@10'; there are mAP@k, R@k, nDCG@k, success"),
        (["--metrics", "dcase2025", "mrr"], 2, "error: unknown metric 'mrr'; there are mAP@k, R@k, nDCG@k, success"),
        (["--split", "eval"], 2, "error: unknown split 'eval'; did you mean 'evaluation'? there are: development, "),
        (["--split", "test"], 2, "error: {0}: no captions_test.csv; the splits in this folder: evaluation"),
        (["--truth", "{0}/no"], 2, "error: {0}/no: no such folder; give a folder in Clotho's layout"),
        (["--prediction", "{0}/no.npz"], 2, "error: {0}/no.npz: no such file; give a prediction"),
        (["--prediction", "{0}"], 2, "error: {0}: is a folder; give a prediction (.npz or .csv)\n"),
        (
            ["--prediction", "{0}/run"],
            2,
            "error: {0}/run: is a folder; give {0}/run/predictions/evaluation.npz or {0}/",
        ),
        (["--prediction", "{0}/notes.txt"], 2, "error: {0}/notes.txt: must be a run in TREC's format"),
        (["--prediction", "{0}/broken.npz"], 1, "{0}/broken.npz: error: must have queries, file_names and scores"),
        (["--prediction", "{0}/huge.npz"], 1, "{0}/huge.npz: error: scores must be for 5 queries and 4 clips and not"),
        (["--relevance", "{0}/no.csv"], 2, "error: {0}/no.csv: no such file; give a relevance file or `captions`"),
        (["--relevance", "{0}/notes.txt"], 1, "{0}/notes.txt:1: error: the header must be query,audio_filenames; "),
        (["--json", "{0}/notes.txt/x.json"], 2, "error: {0}/notes.txt: must be a folder; it is a file: give another"),
        (["--json", "{0}"], 2, "error: {0}: must be a file or not exist; it is neither: give another name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_score(run, scored, more, status, message):
    (scored / "notes.txt").write_text("notes\n")
    (scored / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (20_000, 20_000), (0, 0))
    header = io.BytesIO()  # a header of 1.6 GB of scores, without the scores
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(huge))
    with zipfile.ZipFile(scored / "huge.npz", "w") as file:
        for name in ("queries", "file_names", "scores"):
            file.writestr(f"{name}.npy", header.getvalue())
    (scored / "run" / "predictions").mkdir(parents=True)
    for name in ("evaluation.npz", "validation.csv", "notes.txt"):
        (scored / "run" / "predictions" / name).touch()
    before = sorted(scored.parent.rglob("*"))
    got, out, err = score(run, scored, *(word.format(scored) for word in more))
    assert got == status
    assert err.count("\n") == 1
    assert err.startswith(message.format(scored))
    assert out == "" or "--json" in more
    assert sorted(scored.parent.rglob("*")) == before


# ------------------------------------------------------------------------------------------------ embeddings


@pytest.fixture
def encoded(scored):
    """Embeddings of the data of `scored`: each query is nearest to its first clip."""
    clips = np.eye(4, dtype=np.float32) + np.float32(0.01) * np.arange(16, dtype=np.float32).reshape(4, 4)
    np.save(scored / "a.npy", clips)
    np.save(scored / "t.npy", clips[[0, 0, 1, 2, 3]])  # the queries, in the order in which the captions name them
    np.savez(scored / "all.npz", clips[[0, 0, 1, 0, 2, 0, 3, 0]])  # all captions
    (scored / "clips.txt").write_text(" a, 1.wav\nb.wav\nc.wav\nd.wav\n")
    (scored / "texts.csv").write_text(
        'caption\nA dog barks.\nSomething is heard.\n"Rain, and wind."\nA bell rings.\nA door creaks.\n'
    )
    return scored


def embeddings(run, folder, *more: object, text="t.npy") -> tuple[int, str, str]:
    files = ["--audio-embeddings", folder / "a.npy", "--text-embeddings", folder / text]
    return run("score", "retrieval", "--truth", folder, *files, *more)


def rows(out: str) -> dict[str, str]:
    return dict(line.split()[:2] for line in out.splitlines() if "@" in line or "MRR" in line)


def test_embeddings_with_names(run, encoded):
    names = ["--audio-names", encoded / "clips.txt", "--text-names", encoded / "texts.csv"]
    status, out, err = embeddings(run, encoded, *names, "--metrics", "R@1", "MRR")
    assert (status, err) == (0, "")
    assert rows(out) == {"R@1": "0.850", "MRR": "1.000"}
    assert "|similarity:cosine-26-bits|" in out
    status, out, err = embeddings(run, encoded, *names, "--metrics", "R@1", "--similarity", "dot")
    assert "|similarity:dot-26-bits|" in out


@pytest.mark.parametrize("text", ["t.npy", "all.npz"])
def test_embeddings_in_the_order_of_the_truth(text, run, encoded):
    status, out, err = embeddings(run, encoded, "--order", "truth", "--metrics", "R@1", "MRR", text=text)
    assert (status, rows(out)) == (0, {"R@1": "0.850", "MRR": "1.000"})
    assert "a.npy: note: assumed that the clips are in the order of captions_evaluation.csv" in err
    assert f"{text}: note: assumed that the texts are " in err


def test_both_directions(run, encoded):
    options = ["--order", "truth", "--direction", "both", "--metrics", "R@1", "success@1"]
    status, out, _ = embeddings(run, encoded, *options, "--json", encoded / "s.json")
    assert status == 0
    assert [line for line in out.splitlines() if line.endswith(":")] == ["text-to-audio:", "audio-to-text:"]
    other = json.loads((encoded / "s.audio-to-text.json").read_text())
    assert other["items"]["kind"] == "clips"
    assert other["metrics"]["success@1"]["value"] == 1
    assert json.loads((encoded / "s.text-to-audio.json").read_text())["items"]["kind"] == "queries"
    assert not (encoded / "s.json").exists()
    status, alone, _ = score(run, encoded, "--direction", "audio-to-text")
    assert [*rows(alone)] == ["mAP@10", "R@1", "R@5", "R@10", "success@1", "success@5", "success@10"]
    assert "|direction:audio-to-text|" in alone


def test_a_ranking_of_the_best_clips(run, encoded):
    options = ["--order", "truth", "--depth", 2, "--ranking", encoded / "best.csv"]
    assert embeddings(run, encoded, *options)[0] == 0
    lines = (encoded / "best.csv").read_text().splitlines()
    assert lines[0] == "caption,file_name_1,file_name_2"
    assert lines[1].startswith('A dog barks.," a, 1.wav",')
    status, out, _ = run(
        "score", "retrieval", "--truth", encoded, "--prediction", encoded / "best.csv", "--metrics", "R@1"
    )
    assert (status, rows(out)) == (0, {"R@1": "0.850"})
    assert embeddings(run, encoded, *options, "--direction", "audio-to-text")[0] == 0
    assert (encoded / "best.csv").read_text().startswith("file_name,caption_1,caption_2\n")


def test_matrices_of_any_form_score_alike(run, encoded):
    split = read_dataset(encoded, "evaluation", sound=False)["evaluation"]
    similarity = Similarity(split.queries, split.file_names, np.random.default_rng(0).random((5, 4)))
    similarity.save(encoded / "p.npz")
    np.save(encoded / "m.npy", similarity.scores.T)
    np.savez(encoded / "m.npz", sim=similarity.scores, texts=similarity.queries, files=similarity.file_names)
    with (encoded / "m.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", *similarity.queries])
        table.writerows(
            [name, *scores] for name, scores in zip(similarity.file_names, similarity.scores.T, strict=True)
        )
    for direction in ("text-to-audio", "audio-to-text"):
        _, expected, _ = score(run, encoded, "--direction", direction)
        for name, more in (("m.npy", ["--order", "truth"]), ("m.npz", []), ("m.csv", [])):
            options = ["--prediction", encoded / name, "--direction", direction, *more]
            assert run("score", "retrieval", "--truth", encoded, *options)[:2] == (0, expected)


def test_a_trec_run_with_qrels(run, tmp_path):
    (tmp_path / "qrels.txt").write_text("q1 0 a 1\nq1 0 b 0\nq2 0 b 2\nq3 0 a 0\n")
    (tmp_path / "s.run").write_text("q1 Q0 x 1 0.9 t\nq1 Q0 a 2 0.8 t\nq2 Q0 b 1 0.7 t\n")
    words = ["score", "retrieval", "--truth", tmp_path / "qrels.txt", "--prediction", tmp_path / "s.run"]
    status, out, err = run(*words, "--metrics", "MRR@10", "R@1", "--json", tmp_path / "s.json")
    assert (status, rows(out)) == (0, {"MRR@10": "0.750", "R@1": "0.500"})
    assert "chance" not in out
    assert err.splitlines()[0] == f"{tmp_path}/qrels.txt: warning: 1 query has no clip with a grade above 0; left out"
    (tmp_path / "back.run").write_text("a Q0 q2 1 0.9 t\na Q0 q1 2 0.8 t\nb Q0 q2 1 0.7 t\n")
    words[-1] = tmp_path / "back.run"
    status, out, _ = run(*words, "--metrics", "MRR@10", "--direction", "audio-to-text")
    assert (status, rows(out)) == (0, {"MRR@10": "0.750"})
    words[-1] = tmp_path / "short.run"
    words[-1].write_text("q1 Q0 x 1 0.9\n")
    must = f"{words[-1]}: must be a run in TREC's format (query Q0 clip rank score tag); or give .npz, .npy or .csv"
    assert run(*words) == (2, "", f"error: {must}\n")


PAIR = ["--audio-embeddings", "{0}/a.npy", "--text-embeddings", "{0}/t.npy"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "error: give --prediction FILE, or both --audio-embeddings and --text-embeddings"),
        (PAIR[:2], 2, "error: give both --audio-embeddings and --text-embeddings"),
        (
            [*PAIR, "--prediction", "x"],
            2,
            "error: give either --prediction, or --audio-embeddings and --text-embeddings",
        ),
        (
            PAIR,
            2,
            "{0}/a.npy: error: has no names for the clips; give --audio-names FILE (a clip on each line, or a CSV",
        ),
        (
            [*PAIR, "--audio-names", "{0}/no"],
            2,
            "{0}/a.npy: error: {0}/no: no such file; give a file with a clip on each line",
        ),
        (["--prediction", "{0}/p.npz", "--similarity", "dot"], 2, "error: --similarity is only for embeddings: the"),
        (
            ["--prediction", "{0}/p.csv", "--order", "truth"],
            2,
            "error: --audio-names, --text-names and --order are only",
        ),
        (["--prediction", "{0}/a.npy"], 2, "error: {0}/a.npy: has no names for the texts; give --text-names FILE"),
        (["--prediction", "{0}/best.csv", "--direction", "both"], 2, "error: {0}/best.csv: has lists, which have one"),
        (
            ["--prediction", "{0}/best.csv", "--ranking", "r.csv"],
            2,
            "error: --ranking is for a matrix and embeddings; ",
        ),
        (["--prediction", "{0}/p.npz", "--direction", "both", "--ranking", "r"], 2, "error: --ranking writes one dir"),
        (["--prediction", "{0}/p.npz", "--depth", "3"], 2, "error: --depth is for --ranking FILE; give a file for"),
        (
            ["--prediction", "{0}/p.npz", "--ranking", "{0}/p.npz"],
            2,
            "error: --ranking {0}/p.npz: must be another file than --prediction; give another name",
        ),
        (
            ["--prediction", "{0}/p.npz", "--ranking", "{0}/new", "--json", "{0}/new"],
            2,
            "error: --json {0}/new: must be another file than --ranking; give another name",
        ),
        (
            ["--prediction", "{0}/best.csv", "--truth", "{0}/p.npz"],
            2,
            "error: {0}/p.npz: must be a data folder, or qrels",
        ),
        (["--prediction", "{0}/p.npz", "--truth", "{0}/q", "--relevance", "captions"], 2, "error: --relevance is only"),
        (["--prediction", "{0}/p.npz", "--depth", "0"], 2, "usage: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_of_embeddings(run, encoded, options, status, message):
    (encoded / "q").write_text("q 0 a 1\n")
    (encoded / "best.csv").write_text(
        'query,1\nA dog barks.," a, 1.wav"\n"Rain, and wind.",b.wav\nA bell rings.,b.wav\n'
        "A door creaks.,b.wav\nSomething is heard.,b.wav\n"
    )
    before = sorted(encoded.parent.rglob("*"))
    words = ["score", "retrieval", "--truth", encoded, *(word.format(encoded) for word in options)]
    got, out, err = run(*words)
    assert (got, out) == (status, "")
    assert err.startswith(message.format(encoded))
    assert all("error: " in line for line in err.splitlines()) or err.startswith("usage")
    assert sorted(encoded.parent.rglob("*")) == before


def test_faulty_truth(run, scored):
    (scored / "captions_evaluation.csv").write_text("file_name,caption_1\na.wav,\nb.wav, \n")
    status, out, err = score(run, scored)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"{scored}/captions_evaluation.csv:{line}: caption_1: error: is blank; write a caption" for line in (2, 3)
    ]


# ------------------------------------------------------------------------------------------------ start-up


def test_nothing_heavy_is_imported_to_read_tables():
    heavy = ["torch", "torchaudio", "lightning", "transformers", "pandas", "scipy", "gensim", "librosa", "matplotlib"]
    code = f"import sys, evaluation.__main__, submission.__main__; print(*[n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
