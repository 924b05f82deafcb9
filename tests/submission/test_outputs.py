import csv
import errno
import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation import predictions
from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics.retrieval import Similarity, evaluate
from submission import outputs, tasks
from submission.outputs import keys

REAL = Path(__file__).parents[3] / "shared/data"
TASK = tasks.read("dcase2022-6b")
NAMES = (
    *(" leading.wav", "comma, name.wav", "cours d&#39;eau.wav", "dots.in.stem.wav", "Capital.wav", 'quote".wav'),
    *("é.wav", "7.wav", "8.wav", "9.wav", "10.wav", "11.wav"),
)
QUERIES = ("A dog barks.", "Rain falls, then stops.", "Café noise.", 'A man says "hi".', " Wind & <rain>")
SPLIT = Split("evaluation", tuple(Clip(name, (QUERIES[i % 5],), Path(name)) for i, name in enumerate(NAMES)))
HEADER = ["caption", *(f"file_name_{rank}" for rank in range(1, 11))]
ROWS = [HEADER, *([query, *NAMES[:10]] for query in QUERIES)]  # the queries are in lines 2 to 6


def as_csv(rows, **dialect) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **{"lineterminator": "\n", **dialect}).writerows(rows)
    return file.getvalue()


VALID = as_csv(ROWS)


def said(content: str | bytes, folder: Path) -> list[str]:
    path = folder / "answers.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(finding) for finding in outputs.validate(TASK, path, SPLIT, "answers.csv")]


def rows_with(line: int, column: int, cell: str) -> str:
    rows = [list(row) for row in ROWS]
    rows[line - 1][column] = cell
    return as_csv(rows)


def rows_and(*more) -> str:
    return as_csv([*ROWS, *more])


# ------------------------------------------------------------------------------------------------ validate

CLEAN = {
    "as written": VALID,
    "CRLF": as_csv(ROWS, lineterminator="\r\n"),
    "everything quoted": as_csv(ROWS, quoting=csv.QUOTE_ALL),
    "rows in another order": as_csv([ROWS[0], *ROWS[:0:-1]]),
    "no newline at the end": VALID.rstrip("\n"),
    "blank lines at the end": VALID + "\n\n",
}


@pytest.mark.parametrize("content", CLEAN.values(), ids=CLEAN)
def test_nothing_to_say(content, tmp_path):
    assert said(content, tmp_path) == []


WANTED = f"error: the header must be {','.join(HEADER)}; found"
SLIPS = {  # every slip gives one finding
    # the header
    "other query column": (rows_with(1, 0, "query"), f":1: {WANTED} query,{','.join(HEADER[1:])}"),
    "2023's header": (
        VALID.replace("file_name_", "fname_"),
        f":1: {WANTED} {','.join(HEADER).replace('file_name', 'fname')}",
    ),
    "columns swapped": (
        as_csv([[HEADER[0], HEADER[2], HEADER[1], *HEADER[3:]], *ROWS[1:]]),
        f":1: {WANTED} caption,file_name_2,file_name_1,{','.join(HEADER[3:])}; put the columns in this order",
    ),
    "a blank in the header": (
        rows_with(1, 0, "caption "),
        f":1: {WANTED} caption ,{','.join(HEADER[1:])}; blanks, and upper and lower case, must agree",
    ),
    "separated by tabs": (
        as_csv(ROWS, delimiter="\t"),
        rf":1: {WANTED} " + r"\t".join(HEADER) + "; separate the columns by commas, not tabs",
    ),
    "separated by semicolons": (
        as_csv([[cell.replace(",", "") for cell in row] for row in ROWS], delimiter=";"),
        f":1: {WANTED} {';'.join(HEADER)}; separate the columns by commas, not semicolons",
    ),
    "pandas' index": (
        as_csv([["" if number == 0 else number - 1, *row] for number, row in enumerate(ROWS)]),
        f":1: {WANTED} ,{','.join(HEADER)}; remove the first column, which only numbers the rows",
    ),
    "empty": ("", f":1: {WANTED} nothing"),
    # the queries
    "row missing": (as_csv(ROWS[:2] + ROWS[3:]), ": caption: error: no row answers 'Rain falls, then stops.'; add one"),
    "row repeated": (
        rows_and(ROWS[2]),
        ":7: caption: error: must not repeat a query; 'Rain falls, then stops.' is in line 3 already: keep one "
        "of the rows",
    ),
    "query repeated with other clips": (
        rows_and([QUERIES[0], *NAMES[2:]]),
        ":7: caption: error: must not repeat a query; 'A dog barks.' is in line 2 already: keep one of the rows",
    ),
    "extra query": (
        rows_and(["A cat purrs.", *NAMES[:10]]),
        ":7: caption: error: 'A cat purrs.' is not a query of evaluation",
    ),
    "query in capitals": (
        rows_with(2, 0, "A DOG BARKS."),
        ":2: caption: error: 'A DOG BARKS.' is not a query of evaluation; there is 'A dog barks.', and queries are "
        "compared verbatim",
    ),
    "blank after a query": (
        rows_with(2, 0, "A dog barks. "),
        ":2: caption: error: 'A dog barks. ' is not a query of evaluation; there is 'A dog barks.', and queries are "
        "compared verbatim",
    ),
    "blank before a query lost, and escaped": (
        rows_with(6, 0, "Wind &amp; &lt;rain&gt;"),
        ":6: caption: error: 'Wind &amp; &lt;rain&gt;' is not a query of evaluation; there is ' Wind & <rain>', and "
        "queries are compared verbatim",
    ),
    # the clips
    "9 clips": (
        as_csv([*ROWS[:5], ROWS[5][:10]]),
        ":6: error: must have 11 columns, the query and 10 clips; found 10",
    ),
    "no clip": (as_csv([*ROWS[:5], ROWS[5][:1]]), ":6: error: must have 11 columns, the query and 10 clips; found 1"),
    "11 clips": (
        as_csv([*ROWS[:5], [*ROWS[5], NAMES[10]]]),
        ":6: error: must have 11 columns, the query and 10 clips; found 12; quote a cell that holds a comma",
    ),
    "repeated clip": (
        rows_with(3, 10, "Capital.wav"),
        ":3: file_name_10: error: 'Capital.wav' is in file_name_5 already; give different clips",
    ),
    "unknown clip": (
        rows_with(3, 10, "soundscape.wav"),
        ":3: file_name_10: error: 'soundscape.wav' is not a clip of evaluation",
    ),
    "letter of a query lost": (
        rows_with(3, 0, "Rain fals, then stops."),
        ":3: caption: error: 'Rain fals, then stops.' is not a query of evaluation; did you mean 'Rain falls, then "
        "stops.'?",
    ),
    "comma of a query lost": (
        rows_with(3, 0, "Rain falls then stops."),
        ":3: caption: error: 'Rain falls then stops.' is not a query of evaluation; there is 'Rain falls, then "
        "stops.', "
        "and queries are compared verbatim",
    ),
    "letter of a name lost": (
        rows_with(3, 4, "dots.in.stem.wv"),
        ":3: file_name_4: error: 'dots.in.stem.wv' is not a clip of evaluation; did you mean 'dots.in.stem.wav'?",
    ),
    "path": (
        rows_with(3, 10, "/data/clotho/evaluation/11.wav"),
        ":3: file_name_10: error: '/data/clotho/evaluation/11.wav' is not a clip of evaluation; there is '11.wav', and "
        "names are compared verbatim",
    ),
    "path of Windows": (
        rows_with(3, 10, "evaluation\\11.wav"),
        r":3: file_name_10: error: 'evaluation\\11.wav' is not a clip of evaluation; there is '11.wav', and names are "
        "compared verbatim",
    ),
    "no suffix": (
        rows_with(3, 10, "11"),
        ":3: file_name_10: error: '11' is not a clip of evaluation; there is '11.wav', and names are compared verbatim",
    ),
    "blank before a name lost": (
        rows_with(3, 1, "leading.wav"),
        ":3: file_name_1: error: 'leading.wav' is not a clip of evaluation; there is ' leading.wav', and names are "
        "compared verbatim",
    ),
    "name unescaped": (
        rows_with(3, 3, "cours d'eau.wav"),
        ":3: file_name_3: error: \"cours d'eau.wav\" is not a clip of evaluation; there is 'cours d&#39;eau.wav', and "
        "names are compared verbatim",
    ),
    "name in lower case": (
        rows_with(3, 5, "capital.wav"),
        ":3: file_name_5: error: 'capital.wav' is not a clip of evaluation; there is 'Capital.wav', and names are "
        "compared verbatim",
    ),
    "name decomposed, as macOS does": (
        rows_with(3, 7, "e\u0301.wav"),
        ":3: file_name_7: error: 'e\u0301.wav' is not a clip of evaluation; there is 'é.wav' in Unicode form NFC, "
        "where "
        "this is in NFD, and names are compared verbatim",
    ),
    "empty cell": (rows_with(3, 10, ""), ":3: file_name_10: error: '' is not a clip of evaluation"),
    # the text
    "BOM": (VALID.encode("utf-8-sig"), ":1: warning: starts with a BOM; save it as plain UTF-8"),
    "UTF-16": (VALID.encode("utf-16"), ": error: must be UTF-8; this is UTF-16: save it as UTF-8"),
    "a query in Latin-1": (
        VALID.encode().replace("Café".encode(), "Café".encode("latin-1")),
        ":4: caption: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8",
    ),
    "a name in Latin-1": (
        VALID.encode().replace("é.wav".encode(), "é.wav".encode("latin-1"), 1),
        ":2: file_name_7: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8",
    ),
    "blank line": (VALID.replace("\n", "\n\n", 1), ":2: error: is a blank line; remove it"),
    "quote left open": (
        VALID.replace('"Rain falls, then stops."', '"Rain falls, then stops.'),
        ":3: error: is not valid CSV (',' expected after '\"'); quote a cell that holds a comma or a quote, and "
        "double its quotes",
    ),
    "quote left open to the end": (
        VALID + '"A cat',
        ":7: error: is not valid CSV (unexpected end of data); quote a cell that holds a comma or a quote, and "
        "double its quotes",
    ),
}


def test_at_least_twenty_slips():
    assert len(SLIPS) >= 20
    assert all(content != VALID for content, _ in SLIPS.values())


@pytest.mark.parametrize(("content", "message"), SLIPS.values(), ids=SLIPS)
def test_one_slip_gives_one_finding(content, message, tmp_path):
    assert said(content, tmp_path) == [f"answers.csv{message}"]


def test_all_findings_at_once_in_the_order_of_the_file(tmp_path):
    rows = [list(row) for row in ROWS]
    rows[0][0] = "query"
    rows[1][1:3] = ["x.wav", "7.wav"]
    rows[2] = [
        QUERIES[1],
        *NAMES[:9],
        "7.wav",
        "11.wav",
        "11.wav",
    ]  # the last one repeats a name in a column without a header
    rows[3][0] = "café noise."
    assert said(as_csv(rows[:5]), tmp_path) == [
        "answers.csv: caption: error: no row answers ' Wind & <rain>'; add one",
        f"answers.csv:1: {WANTED} query,{','.join(HEADER[1:])}",
        "answers.csv:2: file_name_1: error: 'x.wav' is not a clip of evaluation",
        "answers.csv:2: file_name_8: error: '7.wav' is in file_name_2 already; give different clips",
        "answers.csv:3: error: must have 11 columns, the query and 10 clips; found 13; quote a cell that holds a comma",
        "answers.csv:3: column 13: error: '11.wav' is in column 12 already; give different clips",
        "answers.csv:3: file_name_10: error: '7.wav' is in file_name_8 already; give different clips",
        "answers.csv:4: caption: error: 'café noise.' is not a query of evaluation; there is 'Café noise.', and "
        "queries "
        "are compared verbatim",
    ]


def test_many_findings_of_a_kind_are_told_of_after_them(tmp_path):
    lines = said(as_csv([HEADER, *([query, "7.wav", *["x.wav"] * 9] for query in QUERIES)]), tmp_path)
    summary = "answers.csv: error: and 25 more of this kind: 'x.wav' is not a clip of "
    assert [line.startswith(summary) for line in lines] == [False] * 20 + [True]


ALIKE_NAMES = tuple(f"Clip, no. {number}.wav" for number in range(20))
ALIKE_QUERIES = tuple(f"A dog barks, and {number} cats purr." for number in range(30))


def alike(query=str, clip=str) -> tuple[Split, str]:
    """Return a split, and the best clips of all its queries, with queries and clips changed by two functions."""
    split = Split("test", tuple(Clip(name, (), Path(name)) for name in ALIKE_NAMES), None, ALIKE_QUERIES)
    rows = ([query(text), *map(clip, (ALIKE_NAMES * 2)[at % 20 :][:10])] for at, text in enumerate(ALIKE_QUERIES))
    return split, as_csv([HEADER, *rows])


CHANGED = {
    "queries in lower case without punctuation": (
        {"query": lambda text: text.lower().replace(",", "").rstrip(".")},
        ":2: caption: error: all 30 queries differ from the data's only in upper and lower case and punctuation: 'a "
        "dog barks and 0 cats purr' where the data have 'A dog barks, and 0 cats purr.'; write the queries as "
        "in the data",
    ),
    "another extension": (
        {"clip": lambda name: name.replace(".wav", ".mp3")},
        ":2: file_name_1: error: all 20 names differ from the data's only in their extension: .mp3 where the data have "
        ".wav; write the names as in the data",
    ),
    "full paths": (
        {"clip": lambda name: f"/data/{name}"},
        ":2: file_name_1: error: all 20 names differ from the data's only in the folder before the name: '/data/Clip, "
        "no. 0.wav' where the data have 'Clip, no. 0.wav'; write the names as in the data",
    ),
    "some paths": (
        {"clip": lambda name: name if name.endswith("1.wav") else f"/data/{name}"},
        ":2: file_name_1: error: 18 of 20 names differ from the data's only in the folder before the name: "
        "'/data/Clip, no. 0.wav' where the data have 'Clip, no. 0.wav'; write the names as in the data",
    ),
    "clips of another data set": (
        {"clip": lambda name: f"other {name}"},
        ": error: has none of the 20 clips of test; is this the prediction of another split or data set?",
    ),
}


@pytest.mark.parametrize(("changes", "message"), CHANGED.values(), ids=CHANGED)
def test_what_is_wrong_with_all_names_is_one_finding(changes, message, tmp_path):
    split, content = alike(**changes)
    (tmp_path / "out.csv").write_text(content)
    assert [str(finding) for finding in outputs.validate(TASK, tmp_path / "out.csv", split, "out.csv")] == [
        f"out.csv{message}"
    ]


def test_the_output_for_another_split_names_it(tmp_path):
    for name in ("validation", "evaluation"):
        rows = ([f"{name} {number}.wav", f"A sound of {name}, no. {number}."] for number in range(20))
        (tmp_path / f"captions_{name}.csv").write_text(as_csv([["file_name", "caption_1"], *rows]))
    dataset = read_dataset(tmp_path, sound=False)
    other = dataset["validation"]
    outputs.write(TASK, Similarity(other.queries, other.file_names, np.eye(20)), other, tmp_path / "out.csv")
    findings = outputs.validate(TASK, tmp_path / "out.csv", dataset["evaluation"], "out.csv")
    whose = "are of the split validation; give the prediction of evaluation, or give --split validation"
    assert [str(finding) for finding in findings] == [
        f"out.csv: error: has none of the 20 clips of evaluation; these names {whose}",
        f"out.csv: error: has none of the 20 queries of evaluation; these queries {whose}",
    ]


def test_what_may_be_misspelt():
    """The closest name is found if no other name is as close. The search is always fast."""
    names = [f"soundscape_{number:04}.wav" for number in range(1000)]
    assert keys.misspelt("soundscape_0605.wv", names) == "soundscape_0605.wav"
    assert keys.misspelt("soundscape_060.wav", names) is None  # ten names are as close
    assert keys.misspelt("", names) is None
    assert keys.misspelt("soundscape" * 10**6, names) is None


def test_a_name_with_a_comma_that_is_not_quoted(tmp_path):
    content = VALID.replace('"comma, name.wav"', "comma, name.wav", 1)
    assert said(content, tmp_path)[0] == (
        "answers.csv:2: error: must have 11 columns, the query and 10 clips; found 12; quote a cell that holds a comma"
    )


@pytest.mark.parametrize("name", ["absent.csv", "folder.csv"])
def test_no_such_file(name, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadRequest) as refusal:
        outputs.validate(TASK, tmp_path / name, SPLIT)
    assert str(refusal.value) == f"{tmp_path / name}: no such file; give an output file of dcase2022-6b"


def test_findings_name_the_path(tmp_path):
    (tmp_path / "mine.csv").write_text("")
    (finding,) = outputs.validate(TASK, tmp_path / "mine.csv", SPLIT)
    assert finding.file == str(tmp_path / "mine.csv")


# ------------------------------------------------------------------------------------------------ write


def matrix(split: Split, seed: int = 0) -> Similarity:
    scores = np.random.default_rng(seed).normal(size=(len(split.queries), len(split.clips))).astype(np.float32)
    return Similarity(split.queries, split.file_names, scores)


def test_written_as_the_organisers_sample_is(tmp_path):
    """As by pandas's to_csv(index=False): commas, LF, and quotes only where they are needed."""
    scores = np.tile(-np.arange(12, dtype=np.float32), (5, 1))
    outputs.write(TASK, Similarity(QUERIES, NAMES, scores), SPLIT, tmp_path / "out.csv")
    names = ' leading.wav,"comma, name.wav",cours d&#39;eau.wav,dots.in.stem.wav,Capital.wav,"quote"".wav",é.wav'
    queries = ["A dog barks.", '"Rain falls, then stops."', "Café noise.", '"A man says ""hi""."', " Wind & <rain>"]
    lines = [",".join(HEADER), *(f"{query},{names},7.wav,8.wav,9.wav" for query in queries)]
    assert (tmp_path / "out.csv").read_bytes() == "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.parametrize("seed", range(5))
def test_written_is_valid_and_scores_as_the_matrix_does(seed, tmp_path):
    similarity, path = matrix(SPLIT, seed), tmp_path / "new" / "out.csv"
    outputs.write(TASK, similarity, SPLIT, path)
    assert outputs.validate(TASK, path, SPLIT) == []
    assert [file.name for file in path.parent.iterdir()] == ["out.csv"]
    written = predictions.read_retrieval(path)
    assert written.queries == QUERIES
    assert written.file_names == similarity.top(10).file_names
    expected, score = (evaluate(SPLIT, prediction, metrics=TASK.metrics.value) for prediction in (similarity, written))
    assert score.metrics == expected.metrics
    assert score.findings == ()


GOOD = matrix(SPLIT)
NAN = np.where(np.arange(60).reshape(5, 12) == 30, np.nan, GOOD.scores)
REFUSED = {
    "fewer than ten clips": (
        replace(SPLIT, clips=SPLIT.clips[:9]),
        GOOD,
        BadRequest,
        "dcase2022-6b asks for 10 clips for each query; evaluation has only 9: give another split",
    ),
    "a query lacks": (
        SPLIT,
        Similarity(QUERIES[1:], NAMES, GOOD.scores[1:]),
        Faulty,
        "RUN.npz: error: query 'A dog barks.' is missing",
    ),
    "a query differs": (
        SPLIT,
        replace(GOOD, queries=("a dog barks.", *QUERIES[1:])),
        Faulty,
        "RUN.npz: error: query 'A dog barks.' is missing; there is 'a dog barks.'",
    ),
    "a query more": (
        SPLIT,
        Similarity((*QUERIES, "A cat purrs."), NAMES, np.zeros((6, 12))),
        Faulty,
        "OUT:7: caption: error: 'A cat purrs.' is not a query of evaluation",
    ),
    "a query twice": (
        SPLIT,
        Similarity((*QUERIES, QUERIES[1]), NAMES, np.zeros((6, 12))),
        Faulty,
        "RUN.npz: error: query 'Rain falls, then stops.' appears twice; give each query once",
    ),
    "scores that are no numbers": (
        SPLIT,
        replace(GOOD, scores=NAN),
        Faulty,
        "RUN.npz: error: scores must be finite; 1 of 5 queries have NaN or infinite scores, for example 'Café noise.'"
        "; check the model",
    ),
    "a matrix of fewer than ten clips": (
        SPLIT,
        Similarity(QUERIES[:5], NAMES[:9], GOOD.scores[:, :9]),
        Faulty,
        "OUT:2: error: must have 11 columns, the query and 10 clips; found 10",
    ),
    "an unknown clip among the best": (
        SPLIT,
        Similarity(QUERIES, ("11.WAV", *NAMES[:11]), np.tile(-np.arange(12.0), (5, 1))),
        Faulty,
        "OUT:2: file_name_1: error: '11.WAV' is not a clip of evaluation; there is '11.wav', and names are compared",
    ),
}


@pytest.mark.parametrize("before", [None, b"an older file\n"], ids=["new", "over an older file"])
@pytest.mark.parametrize(("split", "similarity", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_valid_is_not_written(split, similarity, kind, message, before, tmp_path):
    path = tmp_path / "out.csv"
    if before:
        path.write_bytes(before)
    with pytest.raises(kind) as refusal:
        outputs.write(TASK, similarity, split, path, "RUN.npz")
    assert str(refusal.value).replace(str(path), "OUT").startswith(message)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({"out.csv": before} if before else {})


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("submission.outputs.tables.csv.writer", full)
    with pytest.raises(OSError, match="No space left"):
        outputs.write(TASK, GOOD, SPLIT, tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ real names


def test_the_names_of_clotho_byte_for_byte(tmp_path):
    """Every name occurs once: the first caption of every tenth clip is a query, and its answers are ten clips."""
    if not (REAL / "clotho").is_dir():
        pytest.skip(f"{REAL / 'clotho'} is not here")
    dataset, total = read_dataset(REAL / "clotho", sound=False), 0
    for name in ("development", "validation", "evaluation"):
        clips = dataset[name].clips
        clips = tuple(replace(clip, captions=clips[i - i % 10].captions[:1]) for i, clip in enumerate(clips))
        split = Split(name, clips)
        rows, columns = len(split.queries), len(clips)
        assert rows == -(-columns // 10)
        scores = np.zeros((rows, columns), dtype=np.float32)
        scores[np.arange(columns) // 10, np.arange(columns)] = 2 - np.arange(columns) / columns
        outputs.write(TASK, Similarity(split.queries, split.file_names, scores), split, tmp_path / f"{name}.csv")
        assert outputs.validate(TASK, tmp_path / f"{name}.csv", split) == []
        written = predictions.read_retrieval(tmp_path / f"{name}.csv")
        names = tuple(itertools.chain(*written.file_names))[:columns]
        assert [name.encode() for name in names] == [name.encode() for name in split.file_names]
        assert written.queries == split.queries
        total += len(names)
    assert total == 5929
