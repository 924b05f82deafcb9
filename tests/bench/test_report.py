"""Reports of a benchmark: what is printed and written while it runs, and the comparison of two reports."""

import json

import pytest

from bench import __main__ as bench_main
from bench.measuring import Row
from bench.report import Report, changes, read_report
from evaluation.findings import BadRequest

SEARCH = Row("search / faiss", "2 s", "3 s", "1.5x", "≥ 1x", True, "a million clips")
STORE = Row("store", "4 %")


def report(*rows):
    """Return a report of rows."""
    return Report(machine="2 cores", versions="python 3", rows=rows)


@pytest.fixture
def options(monkeypatch, tmp_path):
    """Replace the measures by two that take no time. Return the options of a request for both."""
    measures = {"search": lambda alone, folder: [SEARCH], "store": lambda alone, folder: [STORE]}
    monkeypatch.setattr(bench_main, "MEASURES", measures)
    return bench_main.parser().parse_args(["--json", str(tmp_path / "now.json")])


def test_saved_reports_are_read_back(tmp_path):
    report(SEARCH, STORE).save(tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report(SEARCH, STORE)


def test_rows_are_printed_and_written_when_they_are_measured(options, capsys, monkeypatch):
    def interrupted(alone, folder):
        raise KeyboardInterrupt

    monkeypatch.setitem(bench_main.MEASURES, "store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench_main.main(options)
    line = "search / faiss: 2 s, other 3 s, ratio 1.5x, target ≥ 1x met; a million clips"
    assert line in capsys.readouterr().out
    assert read_report(options.json).rows == (SEARCH,)


def test_an_earlier_report_is_compared(options, capsys, tmp_path):
    options.against = tmp_path / "before.json"
    report(SEARCH._replace(ours="6 s", ratio="0.5x"), Row("gone", "1 s")).save(options.against)
    bench_main.main(options)
    compared = capsys.readouterr().out.partition("before: 2 cores; python 3\n")[2]
    assert "6 s" in compared
    assert "0.5x" in compared
    assert "gone" not in compared


def test_changes_have_a_row_for_each_row_of_now():
    lines = changes(report(SEARCH), report(SEARCH, STORE)).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["search / faiss", "store"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; give a report that --json wrote"),
        ("{", "must be a report of `python -m bench --json`; Invalid JSON"),
        (json.dumps({"machine": "a", "versions": "b", "rows": [["a"]]}), "rows.0.1: Field required"),
        (json.dumps({"metrics": {}}), "machine: Field required"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadRequest) as refusal:
        read_report(path)
    assert message in str(refusal.value)


def test_the_earlier_report_is_not_overwritten(options):
    options.against = options.json
    report().save(options.json)
    with pytest.raises(BadRequest, match="must be another file than --against"):
        bench_main.main(options)
