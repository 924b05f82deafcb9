"""Numbers, intervals and tables as text, CSV, LaTeX and JSON."""

import csv
import io
import json
import math
import subprocess
import sys

import pandas as pd
import pytest

from evaluation import report

SPECIAL = "a&b%c_d#e$f{g}h~i^j\\k<l>m|n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.12345,), "0.123"),
        ((9.9994,), "9.999"),
        ((12.345,), "12.3"),
        ((-25.06,), "-25.1"),
        ((0.5, 4), "0.5000"),
        ((None,), "–"),
        ((math.nan,), "–"),
        ((-math.inf, 4), "–"),
    ],
)
def test_number(arguments, expected):
    assert report.number(*arguments) == expected


def test_signed_number_never_has_a_negative_zero():
    assert report.number(-0.00001, signed=True) == "+0.000"
    assert report.number(-0.25, 4, signed=True) == "-0.2500"


@pytest.mark.parametrize(
    ("form", "expected"),
    [(report.DASH, "0.100 – 12.3"), (report.BRACKETS, "[0.100, 12.3]"), (report.PARENTHESES, "(0.100–12.3)")],
)
def test_interval(form, expected):
    assert report.interval(0.1, 12.34, form) == expected
    for low, high in ((None, 0.2), (0.1, math.nan), (-math.inf, 0.2)):
        assert report.interval(low, high, form) == "–"


def test_interval_with_signs_and_decimals():
    assert report.interval(-0.05, 0.1, report.BRACKETS, 2, signed=True) == "[-0.05, +0.10]"


def test_p_value_and_marks():
    assert [report.p_value(p) for p in (1, 0.0312, 0.0001, 0.00009)] == ["1.0000", "0.0312", "0.0001", "<0.0001"]
    limits = {0.05: "", 0.0499: "*", 0.01: "*", 0.0099: "**", 0.001: "**", 0.0009: "***", 1: ""}
    assert {p: report.marks(p) for p in limits} == limits


@pytest.fixture
def table():
    """A table with a text for spreadsheets to evaluate, a line break, NaN and half a surrogate pair."""
    index = pd.Index(["=1+1", "two\nlines", "half \ud800"], name="name", dtype=object)
    columns = {"value": [0.1 + 0.2, math.nan, 3.0], "runs": [1, 2, 3], "mark": ["", "*", "**"]}
    return pd.DataFrame(columns, index=index)


def test_text(table):
    assert report.text(table, {"value": report.number, "runs": str}).splitlines() == [
        "name           value    runs  mark",
        "-----------  -------  ------  ------",
        "=1+1           0.300       1",
        r"two\nlines         –       2  *",
        r"half \ud800    3.000       3  **",
    ]


def test_text_of_an_empty_table():
    assert report.text(pd.DataFrame({"a": [], "b": []}), {"b": str}).split() == ["a", "b", "---", "---"]


def test_csv_has_full_precision_and_safe_texts(table):
    text = report.csv(table)
    assert list(csv.reader(io.StringIO(text))) == [
        ["name", "value", "runs", "mark"],
        ["'=1+1", "0.30000000000000004", "1", ""],
        [r"two\nlines", "", "2", "*"],
        [r"half \ud800", "3.0", "3", "**"],
    ]


def test_index_and_columns_may_have_the_same_name():
    """A factor may be called `mean`."""
    table = pd.DataFrame({"mean": [0.25]}, index=pd.MultiIndex.from_tuples([("x", "y")], names=["mean", "b"]))
    assert report.csv(table) == "mean,b,mean\nx,y,0.25\n"
    assert report.text(table, {"mean": report.number}).splitlines()[-1].split() == ["x", "y", "0.250"]


def test_latex():
    table = pd.DataFrame(
        {"metric": ["R@1", "", "R@5"], "system": ["a", SPECIAL, "b"], "difference": ["", "+0.1^{*}", "–"]},
    )
    assert report.latex(table, {"difference": str}, formulas=["difference"]).splitlines() == [
        r"\begin{tabular}{llr}",
        r"\hline",
        r"metric & system & difference \\",
        r"\hline",
        r"R@1 & a &  \\",
        r" & a\&b\%c\_d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k$<$l$>$m$|$n & $+0.1^{*}$ \\",
        r"\hline",
        r"R@5 & b & – \\",
        r"\hline",
        r"\end{tabular}",
    ]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.json"
    report.save_json({"name": "half \ud800", "value": 0.1}, path)
    assert json.loads(path.read_bytes().decode("utf-8")) == {"name": "half \ud800", "value": 0.1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.save_json({"value": math.nan}, path)
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_commands_without_a_table_import_no_pandas():
    code = "import sys, evaluation.__main__; print(sys.modules.keys() & {'pandas', 'scipy', 'matplotlib'})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
