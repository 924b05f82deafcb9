"""The check of ids explains what many ids have in common, and reports each other id with its line."""

import pytest

from evaluation.metrics.answered import check_ids

IDS = [f"q{number}" for number in range(10)]
CASES = [
    (IDS, []),
    ([name.upper() for name in IDS], ["all 10 ids differ from the truth's only in upper and lower case"]),
    ([f"{name}.json" for name in IDS], ["all 10 ids differ from the truth's only in their extension"]),
    ([*IDS[:9], "q9 "], ["must be an id of the truth; found 'q9 '; there is 'q9'", "has no answer for the id 'q9'"]),
    (IDS[:8], ["has no answer for the id 'q8'", "has no answer for the id 'q9'"]),
    ([*IDS, "q0", "q0"], ["id 'q0' has two answers (first in line 2)"] * 2),
    (["x", "y"], ["answers none of the 10 ids of the truth, for example 'q0'; found 'x'"]),
    ([], ["has no answers; give one for each of the 10 ids"]),
]


@pytest.mark.parametrize(("given", "messages"), CASES)
def test_ids_are_checked(given, messages):
    lines = range(2, len(given) + 2)
    found = [finding.message for finding in check_ids(IDS, given, lines, "output.csv")]
    assert len(found) == len(messages)
    for message, expected in zip(found, messages, strict=True):
        assert message.startswith(expected)


def test_lines_may_be_unknown():
    (finding,) = check_ids(IDS, [*IDS, "q0"], (), "prediction")
    assert str(finding) == "prediction: error: id 'q0' has two answers; give each id one"
