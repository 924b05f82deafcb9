"""The check that a prediction answers each question or query of the ground truth exactly once."""

from collections.abc import Collection, Iterator, Sequence

from evaluation.findings import Finding
from evaluation.names import closest, explain, hint


def check_ids(
    expected: Collection[str], given: Sequence[str], lines: Sequence[int], file: str, *, is_whole: bool = True
) -> list[Finding]:
    """Return a finding for each id that is missing, unknown or repeated.

    Args:
        expected: The ids of the ground truth.
        given: The ids of the prediction.
        lines: The line of each given id; empty if the lines are not known.
        file: The prediction's name in findings.
        is_whole: Whether `given` has all ids of the prediction. If not, missing ids are not reported.
    """
    if not given and not is_whole:
        return []
    if not given:
        return [Finding(file, message=f"has no answers; give one for each of the {len(expected)} ids")]
    line_of: dict[str, int] = {}
    findings = []
    for index, name in enumerate(given):
        line = lines[index] if lines else 0
        if name in line_of:
            first = f" (first in line {line_of[name]})" if line else ""
            findings.append(Finding(file, line, message=f"id {name!r} has two answers{first}; give each id one"))
        line_of.setdefault(name, line)
    known = set(expected)
    unknown = dict.fromkeys(name for name in line_of if name not in known)
    missing = dict.fromkeys(name for name in expected if name not in line_of)
    if len(unknown) == len(line_of) and not any(map(closest(expected), unknown)):  # others would only repeat it
        message = f"answers none of the {len(known)} ids of the truth, for example {next(iter(expected))!r}; found"
        message += f" {given[0]!r}: is this the prediction of another data set?"
        return [Finding(file, message=message)]
    match = explain(unknown, missing)
    if match:
        line = line_of[next(iter(match.pairs))]
        message = match.message(len(line_of), "ids", owner="the truth")
        findings.append(Finding(file, line, message=message))
        for name, other in match.pairs.items():
            del unknown[name], missing[other]
    findings += _unknown(unknown, missing, line_of, file)
    if is_whole:
        findings += [Finding(file, message=f"has no answer for the id {name!r}; add one") for name in missing]
    return findings


def _unknown(
    unknown: Collection[str], missing: Collection[str], line_of: dict[str, int], file: str
) -> Iterator[Finding]:
    meant = closest(missing)
    for name in unknown:
        near = meant(name)
        advice = "use that id" if near else "remove it"
        message = f"must be an id of the truth; found {name!r}{hint(name, near, 'ids')}: {advice}"
        yield Finding(file, line_of[name], message=message)
