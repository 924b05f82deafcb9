"""Outputs of moment retrieval: every single mutation of a valid file gives one finding."""

import json
from dataclasses import replace

import pytest

from evaluation.data.recordings import MomentQuery, Recordings
from evaluation.findings import Faulty
from evaluation.moment_formats import Moments, read_moments
from submission import outputs, tasks
from submission.outputs.form import FileSplit
from submission.tasks import Fact

TASK = tasks.read("dcase2026-6")
QUERIES = tuple(MomentQuery(f"dcase2026_evaluation_q00{n}", f"Sound {n}", f"rec{n}", 60.0, ()) for n in range(1, 5))
SPLIT = FileSplit("test", Recordings(QUERIES))
WINDOWS = [[4.0, 10.5], [20, 30], [0, 60]]


def row(number: int, **changes: object) -> dict[str, object]:
    content = {"qid": QUERIES[number - 1].id, "query": f"Sound {number}", "vid": f"rec{number}"}
    return {**content, "pred_relevant_windows": WINDOWS, **changes}


def lines(*changed: dict[str, object]) -> str:
    """Return a file in which the first rows are changed."""
    rows = [*changed, *(row(number) for number in range(len(changed) + 1, 5))]
    return "".join(json.dumps(each) + "\n" for each in rows)


def windows(*given: object) -> str:
    """Return a file in which the windows of the first query are changed."""
    return lines(row(1, pred_relevant_windows=list(given)))


def check(content: str | bytes, folder, split=SPLIT, task=TASK) -> list[str]:
    path = folder / "out.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(finding) for finding in outputs.validate(task, path, split, "out.jsonl")]


GOOD = lines()
PLACE = "out.jsonl:1: pred_relevant_windows"


def test_windows_are_written_best_first(tmp_path):
    """The development form becomes the blind form: sorted by score, at most ten windows, the same times."""
    many = [(n, n + 1.25, n / 20) for n in range(12, 0, -1)]
    given = {query.id: [(4, 10, 0.5), (20.1, 1 / 3 + 30, 0.5), (1, 2, 0.9)] for query in QUERIES[:3]}
    prediction = Moments.of({QUERIES[3].id: many, **given})
    outputs.write(TASK, prediction, SPLIT, tmp_path / "out.jsonl")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [list(each) for each in written] == [["qid", "query", "vid", "pred_relevant_windows"]] * 4
    assert written[0] == row(1, pred_relevant_windows=[[1, 2], [4, 10], [20.1, 1 / 3 + 30]])
    assert written[3]["pred_relevant_windows"] == [[n, n + 1.25] for n in range(12, 2, -1)]
    assert read_moments(tmp_path / "out.jsonl").windows[0].tolist() == written[0]["pred_relevant_windows"]
    assert check((tmp_path / "out.jsonl").read_bytes(), tmp_path) == []


def test_a_prediction_that_does_not_fit_is_not_written(tmp_path):
    prediction = Moments.of({query.id: [(4, 2)] for query in QUERIES})
    with pytest.raises(Faulty, match="must end after their start"):
        outputs.write(TASK, prediction, SPLIT, tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        GOOD.replace("\n", "\r\n"),
        GOOD.rstrip("\n"),
        GOOD.replace("\n", "\n\n"),
        "".join(sorted(GOOD.splitlines(keepends=True), reverse=True)),
        windows([0, 62]),  # the data round the length of a recording down
        windows(*([n, n + 1] for n in range(10))),
        windows([0.1, 1e1]),
    ],
)
def test_valid_files(content, tmp_path):
    assert check(content, tmp_path) == []


MUTATIONS = {
    "end before start": (windows([9, 4]), f"{PLACE}[0]: error: must end after its start; exchange the two times; fou"),
    "no length": (windows([9, 9]), f"{PLACE}[0]: warning: has no length, so it counts as wrong; found [9, 9]"),
    "negative start": (windows([-1, 9]), f"{PLACE}[0]: warning: begins before the recording; begin at 0 s; found"),
    "before the recording": (windows([-9, -1]), f"{PLACE}[0]: error: must be inside the recording, which begins at 0"),
    "ends too late": (windows([9, 63]), f"{PLACE}[0]: warning: ends after the recording, which is 60 s long; found [9"),
    "after the recording": (windows([70, 80]), f"{PLACE}[0]: error: must be inside the recording, which is 60 s long"),
    "eleven windows": (
        windows(*([n, n + 1] for n in range(11))),
        f"{PLACE}: error: must have 10 windows at most; found 11: keep the best 10",
    ),
    "no windows": (windows(), f"{PLACE}: error: must be a list of 1 to 10 windows, best first; found []"),
    "null": (lines(row(1, pred_relevant_windows=None)), f"{PLACE}: error: must be a list of 1 to 10 windows, best fi"),
    "one window without a list": (
        lines(row(1, pred_relevant_windows=[4, 9])),
        f"{PLACE}: error: must be a list of windows, each [start, end] in seconds; found [4, 9]: put the window into a",
    ),
    "one time": (windows([4]), f"{PLACE}[0]: error: must be [start, end] in seconds; found [4]"),
    "four numbers": (windows([4, 9, 1, 1]), f"{PLACE}[0]: error: must be [start, end] in seconds; found [4, 9, 1, 1]"),
    "a text": (windows(["4", 9]), f'{PLACE}[0]: error: every number must be a number; found "4"'),
    "yes": (windows([True, 9]), f"{PLACE}[0]: error: every number must be a number; found true"),
    "a null in a window": (windows([None, 9]), f"{PLACE}[0]: error: every number must be a number; found null"),
    "NaN": (windows([float("nan"), 9]), f"{PLACE}[0]: error: every number must be a finite number; found NaN"),
    "infinity": (
        windows([4, float("inf")]),
        f"{PLACE}[0]: error: every number must be a finite number; found Infinity",
    ),
    "1e400": (
        GOOD.replace("4.0", "1e400", 1),
        f"{PLACE}[0]: error: every number must be a finite number; found Infini",
    ),
    "a huge integer": (
        GOOD.replace("4.0", "9" * 400, 1),
        f"{PLACE}[0]: error: every number must be a finite number; found 999",
    ),
    "too many digits": (GOOD.replace("4.0", "9" * 9999, 1), "out.jsonl:1: error: must be JSON; a number or list in it"),
    "a repeated window": (
        windows([4, 9], [20, 30], [4, 9]),
        f"{PLACE}[2]: warning: repeats [4, 9], and each truth window counts only once; remove it",
    ),
    "one score": (
        windows([4, 9, 0.9], [20, 30]),
        f"{PLACE}[0]: error: must be [start, end] in seconds, as other windows of the file; found [4, 9, 0.9]",
    ),
    "the development form": (
        GOOD.replace("10.5]", "10.5, 0.9]").replace("30]", "30, 0.8]").replace("60]", "60, 0.7]"),
        f"{PLACE}[0]: error: all windows of a dcase2026-6 output must be [start, end] in seconds; found [4.0, 10.5",
    ),
    "deep lists": (GOOD.replace("4.0", "[" * 10**5, 1), "out.jsonl:1: error: must be JSON; "),
    "a long line": (
        GOOD.replace("Sound 1", "x" * 2**20, 1),
        "out.jsonl:1: error: must not be longer than 1048576 byte",
    ),
    "repeated key": (
        GOOD.replace('{"qid"', '{"vid": "rec1", "qid"', 1),
        "out.jsonl:1: error: must not repeat a key; found 'vid' twice: keep one of them",
    ),
    "a list": (
        "[" + GOOD.replace("\n", "]\n", 1),
        "out.jsonl:1: error: must be a JSON object with qid and query and vid",
    ),
    "cut": (GOOD[:-20], "out.jsonl:4: error: must be JSON; "),
    "no quotes": (GOOD.replace('"qid"', "qid", 1), "out.jsonl:1: error: must be JSON; "),
    "a comment": ("# windows\n" + GOOD, "out.jsonl:1: error: must be JSON; "),
    "missing id": (
        lines({key: value for key, value in row(1).items() if key != "qid"}),
        "out.jsonl:1: qid: error: is missing; add it",
    ),
    "missing recording": (
        lines({key: value for key, value in row(1).items() if key != "vid"}),
        "out.jsonl:1: vid: error: is missing; add it",
    ),
    "misspelt key": (
        GOOD.replace("pred_relevant_windows", "pred_relevant_window", 1),
        "out.jsonl:1: pred_relevant_window: error: must be named pred_relevant_windows; rename it",
    ),
    "key in upper case": (GOOD.replace('"qid"', '"QID"', 1), "out.jsonl:1: QID: error: must be named qid; rename it"),
    "further key": (
        lines(row(1, pred_saliency_scores=[1])),
        "out.jsonl:1: pred_saliency_scores: warning: is not a key of dcase2026-6; remove it",
    ),
    "blank id": (lines(row(1, qid=" ")), "out.jsonl:1: qid: error: must not be blank; write the query's id"),
    "id that is a list": (
        lines(row(1, qid=[1])),
        "out.jsonl:1: qid: error: must be a text or a whole number; found [1]",
    ),
    "missing query": (
        "".join(GOOD.splitlines(keepends=True)[:-1]),
        "out.jsonl: qid: error: no line answers the query 'dcase2026_evaluation_q004'; add one",
    ),
    "repeated query": (
        GOOD + json.dumps(row(1)),
        "out.jsonl:5: qid: error: must not repeat a query; 'dcase2026_evaluation_q001' is in line 1 already",
    ),
    "unknown query": (
        GOOD + json.dumps(row(1, qid="q77")),
        "out.jsonl:5: qid: error: 'q77' is not a query of test",
    ),
    "id in upper case": (
        GOOD.replace("dcase2026_evaluation_q001", "DCASE2026_evaluation_q001"),
        "out.jsonl:1: qid: error: 'DCASE2026_evaluation_q001' is not a query of test; there is 'dcase2026_eval",
    ),
    "of another set": (
        GOOD.replace("dcase2026_evaluation", "castella"),
        "out.jsonl: error: has none of the 4 queries of test; is this the prediction of another split or data set?",
    ),
    "another recording": (
        lines(row(1, vid="rec9")),
        "out.jsonl:1: vid: error: must be 'rec1', as in the data; found \"rec9\": is this the prediction",
    ),
    "another text": (
        lines(row(1, query="sound")),
        "out.jsonl:1: query: error: must be 'Sound 1', as in the data; found",
    ),
    "BOM": ("\ufeff" + GOOD, "out.jsonl:1: warning: starts with a BOM; save it as plain UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "out.jsonl: error: must be UTF-8; this is UTF-16: save it as UTF-8"),
    "Latin-1": (
        GOOD.replace("Sound 1", "é").encode("latin-1"),
        "out.jsonl:1: error: must be UTF-8; it is not: save the",
    ),
    "CR without LF": (
        GOOD.replace("\n", "\r"),
        "out.jsonl:1: error: lines must end in LF or CRLF; found CR without LF",
    ),
    "empty file": ("", "out.jsonl: error: has none of the 4 queries of test; add them"),
    "far too many lines": (
        GOOD + "{}\n" * 200,
        "out.jsonl: error: must have one line for each of 4 queries; found 204",
    ),
}


@pytest.mark.parametrize(("content", "message"), MUTATIONS.values(), ids=MUTATIONS)
def test_one_mutation_gives_one_finding(content, message, tmp_path):
    (finding,) = check(content, tmp_path)
    assert finding.startswith(message)


def test_without_the_data(tmp_path):
    assert check(GOOD, tmp_path, "test") == []  # the number of queries is not known
    assert len(check(windows([9, 4]), tmp_path, "")) == 1


def test_a_task_that_asks_for_scores(tmp_path):
    """In the development form, every window has its score, and the scores fall."""
    scores = Fact[bool](value=True, source="invented", certainty="recalled")
    task = TASK.model_copy(update={"scores": scores})
    content = GOOD.replace("10.5]", "10.5, 0.9]").replace("30]", "30, 0.8]").replace("60]", "60, 0.7]")
    assert check(content, tmp_path, task=task) == []
    (finding,) = check(content.replace("0.9", "0.1", 1), tmp_path, task=task)
    assert finding == f"{PLACE}: error: must be sorted by falling scores; sort the windows"
    (finding,) = check(GOOD, tmp_path, task=task)
    assert finding.endswith("give the development form, with a score in each window")
    given = Moments.of({query.id: [(1, 2), (3, 4)] for query in QUERIES})
    outputs.write(task, given, SPLIT, tmp_path / "out.jsonl")
    assert read_moments(tmp_path / "out.jsonl").scores[0].tolist() == [0, -1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 10**6 + b"\n", "must be JSON"),
        (b"[0," * 3 * 10**6, "must not be longer than"),
        (b"\n" * 10**7, "must not have more than 1000000 lines"),
        (b'{"qid": 1, "pred_relevant_windows": [' + b"[]," * 10**5 + b"[]]}\n", "must have 10 windows at most"),
    ],
    ids=["deep", "long line", "lines", "many windows"],
)
def test_hostile_files_without_the_data(content, message, tmp_path):
    findings = check(content, tmp_path, "")
    assert any(message in finding for finding in findings)
    assert len(findings) < 20


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("submission.outputs.tables.LIMIT", 100)
    (finding,) = check(GOOD, tmp_path)
    assert "must not be larger than 100 bytes" in finding


def test_queries_without_a_text_of_ascii(tmp_path):
    query = replace(QUERIES[0], text="Un café ☕")
    split = FileSplit("test", Recordings((query,)))
    outputs.write(TASK, Moments.of({query.id: [(0, 1)]}), split, tmp_path / "out.jsonl")
    assert "Un café ☕" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")
