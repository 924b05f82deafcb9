"""The findings of a check."""

import pytest

from systems.checking.report import Report
from systems.modules import UntrustedModule


def test_a_rule_is_one_finding_that_names_three_inputs():
    report = Report("team")
    for place in ("a", "b", "a", "c", "d", "e"):
        report.add("embed_text", "accept any text", f"ValueError ({place})", "fix it", place)
    report.add("train", "be a function", "None", "write it")
    assert [str(finding) for finding in report.findings] == [
        "team: embed_text: error: must accept any text; found ValueError (a) for a, b, c, and 2 more: fix it",
        "team: train: error: must be a function; found None: write it",
    ]


def test_exceptions_are_reported_with_their_line():
    report = Report("team")
    with report.catching("train", "train"):
        raise SystemExit("no\n  data")
    (finding,) = report.findings
    assert finding.message.startswith(f"must train; found SystemExit (no data) at {__file__}:")
    with pytest.raises(UntrustedModule), report.catching("train", "train"):
        raise UntrustedModule("no")
