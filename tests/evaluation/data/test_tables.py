"""CSV files for spreadsheets: no text is a formula, and numbers stay numbers."""

import csv
import io

import pytest

from evaluation.data.tables import parse_table, read_table, spreadsheet, spreadsheet_cell

FORMULAS = {
    "equals": ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
    "plus": ("+A1", "'+A1"),
    "minus": ("-A1", "'-A1"),
    "at": ("@SUM(A1)", "'@SUM(A1)"),
    "leading blank": (" =1+1", "' =1+1"),
    "leading blanks": ("   -A1", "'   -A1"),
    "tab": ("\t=1+1", r"\t=1+1"),
    "carriage return": ("\r=1+1", r"\r=1+1"),
    "line feed": ("\n=1+1", r"\n=1+1"),
    "no-break space": ("\u00a0=1+1", r"\xa0=1+1"),
    "ideographic space": ("\u3000=1+1", r"\u3000=1+1"),
    "byte order mark": ("\ufeff=1+1", r"\ufeff=1+1"),
    "zero width space": ("\u200b=1+1", r"\u200b=1+1"),
    "full-width equals": ("＝cmd", "'＝cmd"),
    "full-width plus": ("＋1+cmd", "'＋1+cmd"),
    "full-width minus": ("－cmd", "'－cmd"),
    "full-width at": ("＠cmd", "'＠cmd"),
    "full-width after a blank": (" ＝cmd", "' ＝cmd"),
    "small plus": ("\ufe62cmd", "'\ufe62cmd"),
    "raised minus": ("⁻cmd", "'⁻cmd"),
    "minus sign": ("−cmd", "'−cmd"),
    "after a semicolon": ("x; =cmd", "x;' =cmd"),
    "after two semicolons": (";;@cmd", ";;'@cmd"),
    "a number and more": ("-0.5 dB", "'-0.5 dB"),
    "minus infinity": ("-inf", "'-inf"),
    "a sign alone": ("-", "'-"),
}
UNCHANGED = ["", "rain", "-0.5", "+1", "-1e-05", "1e5", "-.5", "-3.", " -0.5 ", "a=b", "x-y", "x; -0.5", "'=x", "5 - 3"]


@pytest.mark.parametrize(("text", "safe"), FORMULAS.values(), ids=FORMULAS)
def test_no_text_is_a_formula(text, safe):
    assert spreadsheet_cell(text) == safe


@pytest.mark.parametrize("text", UNCHANGED)
def test_numbers_and_plain_texts_are_as_they_were(text):
    assert spreadsheet_cell(text) == text


def test_rows():
    text = spreadsheet([["=name", "value"], ["a,b", -0.5], ["-0.5", None]])
    assert text.endswith("\n")
    assert list(csv.reader(io.StringIO(text))) == [["'=name", "value"], ["a,b", "-0.5"], ["-0.5", ""]]


def test_long_cells_leave_other_readers_limit():
    before = csv.field_size_limit()
    findings = []
    records, whole = parse_table(f"name\n{'x' * 200_000}\n", "it.csv", findings)
    assert (len(records[1][1][0]), whole, findings) == (200_000, True, [])
    assert csv.field_size_limit() == before == 131_072


def test_binary_data_have_one_finding(tmp_path):
    (tmp_path / "it.csv").write_bytes(bytes(range(256)) * 10)
    findings = []
    assert read_table(tmp_path / "it.csv", "it.csv", findings) == ([], False)
    assert [str(finding) for finding in findings] == [
        "it.csv: error: must be text in UTF-8; found binary data: save the table as CSV"
    ]
