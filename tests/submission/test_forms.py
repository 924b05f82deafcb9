"""Output files of the forms captions and matrix, tests that all three forms share, and hostile files."""

import csv
import io
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation import predictions
from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.findings import Faulty, Finding
from evaluation.predictions import Similarity
from submission import outputs, tasks
from submission.outputs import rankings

NAMES = (
    *(" leading.wav", "comma, name.wav", "cours d&#39;eau.wav", "dots.in.stem.wav", "Capital.wav", 'quote".wav'),
    *("é.wav", "trailing .wav", "a &amp; b; c.wav", "tab\tname.wav", "10.wav", "11.wav"),
)
QUERIES = ("A dog barks.", "Rain falls, then stops.", "Café noise.", 'A man says "hi".', " Wind & <rain>")
SPLIT = Split("test", tuple(Clip(name, (QUERIES[i % 5],), Path(name)) for i, name in enumerate(NAMES)))
CAPTIONS = tuple(f'Sound {number}, which is heard; it\'s "loud"\tand &amp; long' for number in range(12))
ANSWER = predictions.Captions(NAMES, CAPTIONS)
SCORES = Similarity(QUERIES, NAMES, np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32))
TASKS = {
    "captions": tasks.read("dcase2023-6a"),
    "tabs": tasks.read("dcase2022-6a"),
    "top-k": tasks.read("dcase2024-8"),
    "matrix": tasks.read("dcase2025-6"),
}
PREDICTIONS = {"captions": ANSWER, "tabs": ANSWER, "top-k": SCORES, "matrix": SCORES}


def as_csv(rows, separator=",") -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows(rows)
    return file.getvalue()


def read_csv(path: Path, separator: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=separator, strict=True))


def said(form: str, content: str | bytes, folder: Path, split: Split | str = SPLIT) -> list[str]:
    path = folder / "out.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(finding) for finding in outputs.validate(TASKS[form], path, split, "out.csv")]


# ------------------------------------------------------------------------------------------------ round trips


def test_captions_round_trip(tmp_path):
    shuffled = predictions.Captions(NAMES[::-1], CAPTIONS[::-1])
    for form, separator, line_end in (("captions", ",", b"\n"), ("tabs", "\t", b"\r\n")):
        path = tmp_path / f"{form}.csv"
        outputs.write(TASKS[form], ANSWER, SPLIT, path)
        first = path.read_bytes()
        assert first.startswith(f"file_name{separator}caption_predicted".encode() + line_end)
        rows = read_csv(path, separator)
        assert rows[1:] == [list(row) for row in zip(NAMES, CAPTIONS, strict=True)]
        again = predictions.read_captions(path)  # with the reader that scoring uses
        assert (again.file_names, again.captions) == (NAMES, CAPTIONS)
        assert outputs.validate(TASKS[form], path, SPLIT) == []
        outputs.write(TASKS[form], shuffled, SPLIT, path)  # the file has the order of the split
        assert path.read_bytes() == first


def test_captions_of_other_clips_are_left_out(tmp_path):
    more = predictions.Captions(("x.wav", *NAMES), ("More.", *CAPTIONS))
    outputs.write(TASKS["captions"], more, SPLIT, tmp_path / "out.csv")
    assert len(read_csv(tmp_path / "out.csv")) == 13


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_matrix_reads_back_equal(kind, tmp_path):
    """All bits are equal, also of the smallest and largest numbers, negative zero, and equal scores."""
    limits = np.finfo(kind)
    scores = np.random.default_rng(1).normal(size=(5, 12)).astype(kind)
    scores[0, :6] = limits.tiny, limits.max, limits.min, -0.0, limits.smallest_subnormal, 1 / 3
    scores[1, :2] = scores[1, 2]
    outputs.write(TASKS["matrix"], Similarity(QUERIES, NAMES, scores), SPLIT, tmp_path / "out.csv")
    rows = read_csv(tmp_path / "out.csv")
    assert rows[0] == ["index", *NAMES]
    assert [row[0] for row in rows[1:]] == list(QUERIES)
    cells = [row[1:] for row in rows[1:]]
    assert np.array(cells, dtype=kind).tobytes() == scores.tobytes()
    assert np.array(cells, dtype=np.float64).tobytes() == scores.astype(np.float64).tobytes()
    assert outputs.validate(TASKS["matrix"], tmp_path / "out.csv", SPLIT) == []


def test_the_check_of_a_matrix_returns_its_prediction(tmp_path):
    """The prediction equals that of the reader, so that scoring need not read the file again."""
    names = tuple(name.replace("\t", " ") for name in NAMES)  # the reader takes a tab in the header for a separator
    split = Split("test", tuple(Clip(name, (QUERIES[i % 5],), Path(name)) for i, name in enumerate(names)))
    similarity = Similarity(QUERIES, names, SCORES.scores)
    path = tmp_path / "out.csv"
    outputs.write(TASKS["matrix"], similarity, split, path)
    findings, checked = outputs.validate_and_read(TASKS["matrix"], path, split)
    read = predictions.read_retrieval(path)
    assert findings == []
    assert (checked.queries, checked.file_names) == (read.queries, read.file_names) == (QUERIES, names)
    assert checked.scores.dtype == read.scores.dtype
    assert checked.scores.tobytes() == read.scores.tobytes()


@pytest.mark.parametrize("form", TASKS)
def test_the_names_of_clotho_byte_for_byte(form, shared, tmp_path):
    dataset, total = read_dataset(shared / "clotho", sound=False), 0
    for name in ("development", "validation", "evaluation"):
        clips = dataset[name].clips
        if TASKS[form].kind == "captioning":
            captions = tuple(clip.captions[0] for clip in clips)
            outputs.write(
                TASKS[form],
                predictions.Captions(dataset[name].file_names, captions),
                dataset[name],
                tmp_path / "out.csv",
            )
            written = [row[0] for row in read_csv(tmp_path / "out.csv", TASKS[form].separator.value)[1:]]
            split = dataset[name]
        else:  # enough queries that every name is among the ten best once
            clips = tuple(replace(clip, captions=clips[i - i % 10].captions[:1]) for i, clip in enumerate(clips))
            split, order = Split(name, clips), np.arange(len(clips))
            scores = np.zeros((len(split.queries), len(clips)), dtype=np.float32)
            scores[order // 10, order] = 2 - order / len(clips)
            if form == "matrix":  # ten queries are enough
                queries, scores = split.queries[:10], scores[:10]
                split = Split(name, tuple(replace(clip, captions=()) for clip in clips), None, queries)
            outputs.write(TASKS[form], Similarity(split.queries, split.file_names, scores), split, tmp_path / "out.csv")
            rows = read_csv(tmp_path / "out.csv")
            written = rows[0][1:] if form == "matrix" else [cell for row in rows[1:] for cell in row[1:]][: len(clips)]
        assert [name.encode() for name in written] == [name.encode() for name in split.file_names]
        assert outputs.validate(TASKS[form], tmp_path / "out.csv", split) == []
        total += len(written)
    assert total == 5929


REFUSED = {
    "a clip lacks": (predictions.Captions(NAMES[1:], CAPTIONS[1:]), "RUN: error: no caption for clip ' leading.wav'"),
    "a clip twice": (
        predictions.Captions((*NAMES, NAMES[0]), (*CAPTIONS, "x")),
        "RUN: error: clip ' leading.wav' has more than one caption; give each clip one caption",
    ),
    "an empty caption": (
        predictions.Captions(NAMES, (" ", *CAPTIONS[1:])),
        "OUT:2: caption_predicted: error: must not be empty; write a caption",
    ),
    "two lines": (
        predictions.Captions(NAMES, ("A dog\nbarks.", *CAPTIONS[1:])),
        r"OUT:2: caption_predicted: error: must be one line; found 'A dog\\nbarks.': remove the line break",
    ),
}


@pytest.mark.parametrize(("prediction", "message"), REFUSED.values(), ids=REFUSED)
def test_captions_that_are_not_valid_are_not_written(prediction, message, tmp_path):
    with pytest.raises(Faulty) as refusal:
        outputs.write(TASKS["captions"], prediction, SPLIT, tmp_path / "out.csv", "RUN")
    assert str(refusal.value).replace(str(tmp_path / "out.csv"), "OUT") == message.replace("\\\\", "\\")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (Similarity(QUERIES[1:], NAMES, SCORES.scores[1:]), "RUN: error: query 'A dog barks.' is missing"),
        (
            Similarity(QUERIES, NAMES[1:], SCORES.scores[:, 1:]),
            "OUT:1: error: no column has the scores of ' leading.wav'; add one",
        ),
        (
            Similarity(QUERIES, (*NAMES, "x.wav"), np.zeros((5, 13))),
            "OUT:1: column 14: error: 'x.wav' is not a clip of test",
        ),
        (
            Similarity(QUERIES, NAMES, SCORES.scores * np.float32(np.inf)),
            "RUN: error: scores must be finite; 5 of 5 queries have NaN or infinite scores, for example 'A dog barks.'"
            "; check the model",
        ),
    ],
)
def test_a_matrix_that_is_not_valid_is_not_written(similarity, message, tmp_path):
    with pytest.raises(Faulty) as refusal:
        outputs.write(TASKS["matrix"], similarity, SPLIT, tmp_path / "out.csv", "RUN")
    assert str(refusal.value).replace(str(tmp_path / "out.csv"), "OUT") == message
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ single mutations

CAPTION_ROWS = [["file_name", "caption_predicted"], *map(list, zip(NAMES, CAPTIONS, strict=True))]
TOP = SCORES.top(10)
TOP_ROWS = [TASKS["top-k"].header(), *([q, *n] for q, n in zip(QUERIES, TOP.file_names, strict=True))]
MATRIX_ROWS = [["index", *NAMES], *([q, *map(str, row)] for q, row in zip(QUERIES, SCORES.scores, strict=True))]
ROWS = {"captions": CAPTION_ROWS, "tabs": CAPTION_ROWS, "top-k": TOP_ROWS, "matrix": MATRIX_ROWS}
VALID = {form: as_csv(rows, TASKS[form].separator.value) for form, rows in ROWS.items()}


def cell(form: str, line: int, column: int, text: str) -> str:
    rows = [list(row) for row in ROWS[form]]
    rows[line - 1][column] = text
    return as_csv(rows)


def without(form: str, line: int) -> str:
    return as_csv([row for number, row in enumerate(ROWS[form], 1) if number != line])


def columns(form: str, change) -> str:
    return as_csv([change(list(row)) for row in ROWS[form]])


HEADER = ":1: error: the header must be file_name,caption_predicted; found "
INDEX = ":1: error: the first column must be index; found "
VERBATIM = "and names are compared verbatim"
FINITE = "error: must be a finite number; found"
MUTATIONS = {
    # captions
    "tabs": (
        "captions",
        as_csv(CAPTION_ROWS, "\t"),
        ":1: warning: columns should be separated by commas in dcase2023-6a; found tabs, which are accepted, too",
    ),
    "commas": (
        "tabs",
        VALID["captions"],
        ":1: warning: columns should be separated by tabs in dcase2022-6a; found commas, which are accepted, too",
    ),
    "semicolons": (
        "captions",
        as_csv(CAPTION_ROWS, ";"),
        HEADER + "file_name;caption_predicted; separate the columns by commas, not semicolons",
    ),
    "other header": ("captions", cell("captions", 1, 1, "caption"), HEADER + "file_name,caption"),
    "columns swapped": (
        "captions",
        as_csv([["caption_predicted", "file_name"], *CAPTION_ROWS[1:]]),
        HEADER + "caption_predicted,file_name; put the columns in this order",
    ),
    "no header": (
        "captions",
        without("captions", 1),
        HEADER + " leading.wav," + CAPTIONS[0].replace("\t", r"\t") + "; add the header line above this line",
    ),
    "an index": (
        "captions",
        columns("captions", lambda row: ["0", *row]),
        HEADER + "0,file_name,caption_predicted; remove the first column, which only numbers the rows",
    ),
    "empty file": ("captions", "", HEADER + "nothing"),
    "header only": (
        "captions",
        as_csv(CAPTION_ROWS[:1]),
        ": error: has none of the 12 clips of test; add them",
    ),
    "clip missing": (
        "captions",
        without("captions", 4),
        ": file_name: error: no row has a caption for 'cours d&#39;eau.wav'; add one",
    ),
    "clip repeated": (
        "captions",
        as_csv([*CAPTION_ROWS, CAPTION_ROWS[3]]),
        ":14: file_name: error: must not repeat a clip; 'cours d&#39;eau.wav' is in line 4 already: keep one of the "
        "rows",
    ),
    "clip unknown": (
        "captions",
        as_csv([*CAPTION_ROWS, ["x.wav", "More."]]),
        ":14: file_name: error: 'x.wav' is not a clip of test",
    ),
    "name stripped": (
        "captions",
        cell("captions", 2, 0, "leading.wav"),
        f":2: file_name: error: 'leading.wav' is not a clip of test; there is ' leading.wav', {VERBATIM}",
    ),
    "name unescaped": (
        "captions",
        cell("captions", 4, 0, "cours d'eau.wav"),
        f":4: file_name: error: \"cours d'eau.wav\" is not a clip of test; there is 'cours d&#39;eau.wav', {VERBATIM}",
    ),
    "name in capitals": (
        "captions",
        cell("captions", 12, 0, "10.WAV"),
        f":12: file_name: error: '10.WAV' is not a clip of test; there is '10.wav', {VERBATIM}",
    ),
    "path": (
        "captions",
        cell("captions", 12, 0, "/data/test/10.wav"),
        f":12: file_name: error: '/data/test/10.wav' is not a clip of test; there is '10.wav', {VERBATIM}",
    ),
    "caption empty": (
        "captions",
        cell("captions", 3, 1, ""),
        ":3: caption_predicted: error: must not be empty; write a caption",
    ),
    "caption blank": (
        "captions",
        cell("captions", 3, 1, " \t"),
        ":3: caption_predicted: error: must not be empty; write a caption",
    ),
    "caption without a word": (
        "captions",
        cell("captions", 3, 1, "..."),
        ":3: caption_predicted: warning: should have a word; found '...', which scores 0",
    ),
    "special token in a caption": (
        "captions",
        cell("captions", 3, 1, "a dog <eos>"),
        ":3: caption_predicted: warning: should be plain words; found the special token '<eos>': remove such tokens "
        "when decoding",
    ),
    "markup in a caption": (
        "captions",
        cell("captions", 3, 1, "<a href='x'>dog</a>"),
        ":3: caption_predicted: warning: should be plain words; found the markup \"<a href='x'>\": remove it",
    ),
    "caption too long": (
        "captions",
        cell("captions", 3, 1, "dog " * 501 + "bark"),
        ":3: caption_predicted: warning: should have at most 500 words and 3000 characters; found 502 words and 2008 "
        "characters: the rest is not read",
    ),
    "line feed in a caption": (
        "captions",
        cell("captions", 3, 1, "A dog\nbarks"),
        r":3: caption_predicted: error: must be one line; found 'A dog\nbarks': remove the line break",
    ),
    "line feed after a caption": (
        "captions",
        cell("captions", 3, 1, "A dog\n"),
        r":3: caption_predicted: error: must be one line; found 'A dog\n': remove the line break",
    ),
    "CR in a caption": (
        "captions",
        cell("captions", 3, 1, "A dog, CR, barks").replace(" CR, ", "\r"),
        r":3: caption_predicted: error: must be one line; found 'A dog,\rbarks': remove the line break",
    ),
    "three cells": (
        "captions",
        as_csv([*CAPTION_ROWS[:5], [*CAPTION_ROWS[5], "more"], *CAPTION_ROWS[6:]]),
        ":6: error: must have 2 columns, the clip and its caption; found 3; quote a cell that holds a comma",
    ),
    "one cell": (
        "captions",
        as_csv([*CAPTION_ROWS[:5], CAPTION_ROWS[5][:1], *CAPTION_ROWS[6:]]),
        ":6: error: must have 2 columns, the clip and its caption; found 1",
    ),
    "BOM": (
        "captions",
        VALID["captions"].encode("utf-8-sig"),
        ":1: warning: starts with a BOM; save it as plain UTF-8",
    ),
    "UTF-16": (
        "captions",
        VALID["captions"].encode("utf-16"),
        ": error: must be UTF-8; this is UTF-16: save it as UTF-8",
    ),
    "Latin-1": (
        "captions",
        VALID["captions"].encode().replace("é".encode(), b"\xe9"),
        ":8: file_name: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8",
    ),
    "NUL": (
        "captions",
        VALID["captions"].replace("Sound 3", "Sound\0 3"),
        ":5: error: must be text; found a NUL byte: write the file again",
    ),
    "CR alone": (
        "captions",
        VALID["captions"].replace("\n", "\r"),
        ":1: error: lines must end in LF or CRLF; found CR without LF: save the file with other line ends",
    ),
    "one CR alone": (
        "captions",
        VALID["captions"].replace("\nCapital", "\rCapital"),
        ":5: error: lines must end in LF or CRLF; found CR without LF: save the file with other line ends",
    ),
    "blank line": (
        "captions",
        VALID["captions"].replace("\nCapital", "\n\nCapital"),
        ":6: error: is a blank line; remove it",
    ),
    "quote left open": (
        "captions",
        VALID["captions"] + '"x.wav,',
        ":14: error: is not valid CSV (unexpected end of data); quote a cell that holds a comma or a quote, and double "
        "its quotes",
    ),
    # top-k; test_outputs.py has more
    "2022's header": (
        "top-k",
        VALID["top-k"].replace("fname", "file_name"),
        f":1: error: the header must be {','.join(TOP_ROWS[0])}; found "
        + ",".join(TOP_ROWS[0]).replace("fname", "file_name"),
    ),
    "answers of another split": (
        "top-k",
        as_csv([TOP_ROWS[0], *([f"Other {row[0]}", *row[1:]] for row in TOP_ROWS[1:])]),
        ": error: has none of the 5 queries of test; is this the prediction of another split or data set?",
    ),
    # the matrix
    "first column named otherwise": ("matrix", cell("matrix", 1, 0, "caption"), INDEX + "'caption'"),
    "first column without a name": ("matrix", cell("matrix", 1, 0, ""), INDEX + "''"),
    "matrix with semicolons": (
        "matrix",
        as_csv([[c.replace(",", "") for c in row] for row in MATRIX_ROWS], ";"),
        None,  # the message is long; the test below has it
    ),
    "clip without a column": (
        "matrix",
        columns("matrix", lambda row: row[:-1]),
        ":1: error: no column has the scores of '11.wav'; add one",
    ),
    "column of no clip": (
        "matrix",
        as_csv([[*row, "x.wav" if row[0] == "index" else "0.5"] for row in MATRIX_ROWS]),
        ":1: column 14: error: 'x.wav' is not a clip of test",
    ),
    "column twice": (
        "matrix",
        columns("matrix", lambda row: [*row, row[3]]),
        ":1: column 14: error: must not repeat a clip; 'cours d&#39;eau.wav' is column 4 already: keep one of the two",
    ),
    "column stripped": (
        "matrix",
        cell("matrix", 1, 1, "leading.wav"),
        f":1: column 2: error: 'leading.wav' is not a clip of test; there is ' leading.wav', {VERBATIM}",
    ),
    "column of a path": (
        "matrix",
        cell("matrix", 1, 12, "test/11.wav"),
        f":1: column 13: error: 'test/11.wav' is not a clip of test; there is '11.wav', {VERBATIM}",
    ),
    "query missing": ("matrix", without("matrix", 4), ": index: error: no row answers 'Café noise.'; add one"),
    "query twice": (
        "matrix",
        as_csv([*MATRIX_ROWS, MATRIX_ROWS[2]]),
        ":7: index: error: must not repeat a query; 'Rain falls, then stops.' is in line 3 already: keep one of the "
        "rows",
    ),
    "query in lower case": (
        "matrix",
        cell("matrix", 2, 0, "a dog barks."),
        ":2: index: error: 'a dog barks.' is not a query of test; there is 'A dog barks.', and queries are compared "
        "verbatim",
    ),
    "a score less": (
        "matrix",
        as_csv([*MATRIX_ROWS[:3], MATRIX_ROWS[3][:-1], *MATRIX_ROWS[4:]]),
        ":4: error: must have 13 columns, the query and 12 scores; found 12",
    ),
    "not a number": ("matrix", cell("matrix", 3, 2, "nan"), f":3: comma, name.wav: {FINITE} 'nan'"),
    "infinite": ("matrix", cell("matrix", 3, 2, "-inf"), f":3: comma, name.wav: {FINITE} '-inf'"),
    "overflow": ("matrix", cell("matrix", 3, 2, "1e999"), f":3: comma, name.wav: {FINITE} '1e999'"),
    "empty score": ("matrix", cell("matrix", 3, 2, ""), f":3: comma, name.wav: {FINITE} ''"),
    "decimal comma": ("matrix", cell("matrix", 3, 2, "0,5"), f":3: comma, name.wav: {FINITE} '0,5'"),
    "Python's underscore": ("matrix", cell("matrix", 3, 2, "1_0"), f":3: comma, name.wav: {FINITE} '1_0'"),
    "constant row": (
        "matrix",
        as_csv([*MATRIX_ROWS[:2], [QUERIES[1], *["0.5"] * 12], *MATRIX_ROWS[3:]]),
        ":3: warning: all clips have the same score, so they have no order; is the model trained?",
    ),
}


def test_valid_files_have_no_finding(tmp_path):
    for form, content in VALID.items():
        assert said(form, content, tmp_path) == []
        assert said(form, content.replace("\n", "\r\n"), tmp_path) == []
        assert said(form, content, tmp_path, "evaluation") == []
    assert len(MUTATIONS) >= 30


@pytest.mark.parametrize(("form", "content", "message"), MUTATIONS.values(), ids=MUTATIONS)
def test_one_mutation_gives_one_finding(form, content, message, tmp_path):
    assert content not in (VALID[form], VALID[form].encode())
    (finding,) = said(form, content, tmp_path)
    if message is None:
        assert (
            finding
            == "out.csv:1: error: columns must be separated by commas; found semicolons: save the file with commas"
        )
    else:
        assert finding == f"out.csv{message}"


# ------------------------------------------------------------------------------------------------ without data


def numbered(count: int) -> list[list[str]]:
    return [CAPTION_ROWS[0], *([f"test_{number:04}.wav", "A dog barks."] for number in range(count))]


@pytest.mark.parametrize(
    ("name", "count", "split", "message"),
    [
        ("out.csv", 1043, "", None),
        ("out.csv", 8360, "", None),
        ("out.csv", 400, "", "error: must answer 1043 (test) or 8360 (analysis) clips; found 400"),
        ("out.csv", 8360, "test", "error: must answer 1043 (test) clips; found 8360"),
        ("out.csv", 1045, "evaluation", None),
        ("K_J_task6a_submission_1_testing_output.csv", 1043, "", None),
        ("K_J_task6a_submission_1_testing_output.csv", 8360, "", "error: must answer 1043 (test) clips; found 8360"),
        (
            "K_J_task6a_submission_4_analysis_output.csv",
            1043,
            "",
            "error: must answer 8360 (analysis) clips; found 1043",
        ),
    ],
)
def test_official_numbers(name, count, split, message, tmp_path):
    (tmp_path / name).write_text(as_csv(numbered(count)))
    findings = outputs.validate(TASKS["captions"], tmp_path / name, split, "out.csv")
    assert [str(finding) for finding in findings] == ([f"out.csv: file_name: {message}"] if message else [])


def test_a_number_that_is_not_verified_only_warns(tmp_path):
    (finding,) = said("top-k", VALID["top-k"], tmp_path, "")
    assert finding == "out.csv: caption: warning: must answer 1000 (retrieval) queries; found 5"
    assert said("matrix", VALID["matrix"], tmp_path, "") == []  # the number of 2025 is not known


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        (
            "captions",
            cell("captions", 12, 0, "test/10.wav"),
            ":12: file_name: error: must be a file name, not a path; found 'test/10.wav'",
        ),
        (
            "captions",
            cell("captions", 12, 0, "10"),
            ":12: file_name: error: must end in .wav, .flac, .ogg, .mp3; found '10'",
        ),
        (
            "top-k",
            cell("top-k", 2, 3, "C:\\clotho\\10.wav"),
            r":2: fname_3: error: must be a file name, not a path; found 'C:\\clotho\\10.wav'",
        ),
        (
            "top-k",
            cell("top-k", 2, 10, TOP.file_names[0][0]),
            f":2: fname_10: error: {TOP.file_names[0][0]!r} is in fname_1 already; give different clips",
        ),
        (
            "matrix",
            cell("matrix", 1, 12, "test/11.wav"),
            ":1: column 13: error: must be a file name, not a path; found 'test/11.wav'",
        ),
        (
            "matrix",
            cell("matrix", 1, 12, " "),
            ":1: column 13: error: must end in .wav, .flac, .ogg, .mp3; found ' '",
        ),
        ("matrix", cell("matrix", 3, 2, "nan"), f":3: comma, name.wav: {FINITE} 'nan'"),
    ],
)
def test_what_the_file_itself_shows(form, content, message, tmp_path):
    assert said(form, content, tmp_path, "evaluation") == [f"out.csv{message}"]


# ------------------------------------------------------------------------------------------------ hostile files

HOSTILE = {
    "10 GB of zeros": (lambda file: os.truncate(file.name, 10**10), "must not be larger than 134217728 bytes; found"),
    "zeros": (lambda file: os.truncate(file.name, 10**8), "must be text; found a NUL byte"),
    "a million columns": (
        lambda file: file.write(b"index" + b",x" * 1_000_000 + b"\n"),
        "there are more than 10000 findings",
    ),
    "many million columns": (lambda file: file.write(b"index" + b"," * 50_000_000), "must not have more than 6000000"),
    "a million names": (
        lambda file: file.write(b"index" + b"".join(b",%d.wav" % number for number in range(1_000_000))),
        "has none of the 5 queries of test",
    ),
    "a great cell": (lambda file: file.write(b'index,a.wav\n"' + b"x" * 120_000_000 + b'",1\n'), "is not valid CSV"),
    "a million empty rows": (
        lambda file: file.write(b"index,a.wav\n" + b"x\n" * 2_000_000),
        "must have one line for each of 5 queries; found 2000001",
    ),
    "blank lines": (lambda file: file.write(b"\n" * 5_000_000), "must have one line for each of 5 queries"),
    "open quotes": (lambda file: file.write(b'index,a.wav\n"' + b'""' * 3_000_000), "is not valid CSV"),
    "bytes": (lambda file: file.write(np.random.default_rng(0).bytes(10_000_000)), "must be text; found a NUL byte"),
}


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_found_fast_and_in_bounded_memory(make, message, tmp_path):
    """The check runs in a separate process with 2 GB of memory. A file that needs more ends the process."""
    with (tmp_path / "out.csv").open("wb") as file:
        make(file)
    code = (
        "import resource; from pathlib import Path; resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9,) * 2);"
        "from evaluation.data.dataset import Split, Clip; from submission import outputs, tasks;"
        f"split = Split('test', (Clip('a.wav', (), Path()),), None, {QUERIES!r});"
        "found = outputs.validate(tasks.read('dcase2025-6'), Path('out.csv'), split);"
        "print(len(found), max(len(str(finding)) for finding in found)); print(*found, sep='\\n')"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    count, longest = map(int, done.stdout.splitlines()[0].split())
    assert 1 <= count <= outputs.LISTED + 1
    assert longest < 2000
    assert message in done.stdout
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("form", ["captions", "matrix"])
def test_clips_that_all_differ_alike_are_one_finding(form, tmp_path):
    rows = [[c.replace(".wav", ".mp3") for c in row] for row in (CAPTION_ROWS if form == "captions" else MATRIX_ROWS)]
    (finding,) = said(form, as_csv(rows), tmp_path)
    place = "2: file_name" if form == "captions" else "1: column 2"
    assert finding == (
        f"out.csv:{place}: error: all 12 names differ from the data's only in their extension: .mp3 where the data "
        "have .wav; write the names as in the data"
    )


# ------------------------------------------------------------------------------------------------ random edits

EDITS = st.tuples(
    st.sampled_from(sorted(TASKS)),
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.integers(0, 12),
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b",", b'"', b"\n", b"\r", b"\0", b"\t", b";", b"nan", b"\xff", b"\xef\xbb\xbf", b"/"]),
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EDITS)
def test_random_edits_never_break_the_check(tmp_path, edits):
    """No edit leads to an exception, a changed file, or a valid verdict for changed answers."""
    form, changes, with_data = edits
    raw = VALID[form].encode()
    for where, cut, text in changes:
        at = int(where * len(raw))
        raw = raw[:at] + text + raw[at + cut :]
    path = tmp_path / "out.csv"
    path.write_bytes(raw)
    findings = outputs.validate(TASKS[form], path, SPLIT if with_data else "evaluation")
    assert path.read_bytes() == raw
    assert all(isinstance(finding, Finding) and str(finding).isprintable() for finding in findings)
    with pytest.MonkeyPatch.context() as patch:  # a matrix that is read as text has the same findings
        patch.setattr(rankings, "read_regular_matrix", lambda path, separator: None)
        assert outputs.validate(TASKS[form], path, SPLIT if with_data else "evaluation") == findings
    if with_data and not findings:
        if TASKS[form].kind == "captioning":
            assert set(predictions.read_captions(path).file_names) == set(NAMES)
        else:
            rows = read_csv(path)
            assert {row[0] for row in rows[1:] if "".join(row).strip()} == set(QUERIES)  # a blank last line is harmless
        if form == "top-k":
            answers = predictions.read_retrieval(path)
            assert all(len(set(names)) == 10 and set(names) <= set(NAMES) for names in answers.file_names)
