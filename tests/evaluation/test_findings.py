"""Findings: their text, their order, and the limit of findings of one kind."""

import pickle

import pytest

from evaluation.findings import ALIKE, ERROR, NOTE, WARNING, Faulty, Finding, bounded, count, limited


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (Finding("a.csv", message="is bad"), "a.csv: error: is bad"),
        (Finding("a.csv", 3, "caption_1", "is bad"), "a.csv:3: caption_1: error: is bad"),
        (Finding("a.csv", column="key", message="is odd", severity=NOTE), "a.csv: key: note: is odd"),
        (
            Finding("two\nlines\udce9.csv", 1, "\x1b[31m", "bell \x07"),
            r"two\nlines\udce9.csv:1: \x1b[31m: error: bell \x07",
        ),
    ],
)
def test_a_finding_is_one_line(finding, line):
    assert str(finding) == line


def test_findings_are_told_in_the_order_of_the_file():
    rest = Finding("a", message="and 7 more of this kind", rest=7)
    findings = [rest, Finding("b"), Finding("a", 10), Finding("a", 9, "z"), Finding("a", 9, "c")]
    assert Faulty(findings).findings == [findings[4], findings[3], findings[2], rest, findings[1]]


def many(number: int, message: str = "found {0!r}", file: str = "a.csv", line: int = 1, **more) -> list[Finding]:
    return [Finding(file.format(n), n * line, message=message.format(str(n)), **more) for n in range(1, number + 1)]


def test_twenty_of_a_kind_are_listed_and_the_rest_counted():
    findings = many(25)
    kept = limited(findings)
    assert kept[:ALIKE] == findings[:ALIKE]
    (rest,) = kept[ALIKE:]
    assert str(rest) == "a.csv: error: and 5 more of this kind: found '21'"
    assert rest.rest == 5
    assert limited(kept) == kept
    assert count(findings) == count(kept) == 25
    assert str(Faulty(findings)).splitlines() == list(map(str, kept))
    assert len(Faulty(findings).findings) == 25


def test_findings_come_from_another_process():
    faulty = pickle.loads(pickle.dumps(Faulty(many(3), status=2)))
    assert (faulty.findings, faulty.status) == (many(3), 2)
    assert str(faulty).count("\n") == 2


def test_twenty_of_a_kind_are_no_more_than_twenty():
    findings = many(20)
    assert limited(findings) == findings


def test_kinds_are_told_apart_by_severity_message_and_place():
    groups = [
        many(25),
        many(25, severity=WARNING),
        many(25, "is empty, {0!r}"),
        many(25, file="b.csv"),
        many(25, file="clips/{}.wav", line=0),
        many(25, file="clips/{}.wav", line=0, severity=NOTE),
        many(25, file="other/{}.wav", line=0),
        many(25, 'also "{0}" is one kind'),
        many(3, "is rare"),
    ]
    kept = limited(finding for each in zip(*(group for group in groups[:-1]), strict=True) for finding in each)
    assert len(kept) == 8 * 21
    assert [str(finding).split(": and")[0] for finding in kept if finding.rest] == [
        *("a.csv: error", "a.csv: warning", "a.csv: error", "b.csv: error"),
        *("clips/: error", "clips/: note", "other/: error", "a.csv: error"),
    ]
    everything = [finding for group in groups for finding in group]
    shown = limited(everything)
    assert [finding for finding in shown if "rare" in finding.message] == groups[-1]
    for severity in (ERROR, WARNING, NOTE):
        expected = sum(finding.severity == severity for finding in everything)
        assert count(shown, severity) == count(everything, severity) == expected


def test_bounded_findings():
    def endless():
        while True:
            yield Finding("a", message="bad")

    assert bounded(endless(), 3, "a.csv") == [
        *[Finding("a", message="bad")] * 3,
        Finding("a.csv", message="there are more than 3 findings; correct these first"),
    ]
    assert bounded(many(3), 3, "a.csv") == many(3)
