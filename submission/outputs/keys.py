"""The comparison of the clips, queries or questions in an output file with those of its split."""

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from evaluation.data.dataset import Split, other_split_hint
from evaluation.findings import ERROR, WARNING, Finding
from evaluation.names import closest, explain, hint
from evaluation.text import SHOWN, quoted
from submission.outputs.form import MANY, Asked

if TYPE_CHECKING:
    from submission.tasks import Task

CLOSE = 0.9  # minimum similarity (difflib's ratio) of a misspelt name and the right one
GUESSED = 100  # maximum number of misspelt names that are looked up, and of names to choose from, to limit the time


@dataclass(frozen=True)
class Term:
    """The words that messages use for what a file answers, such as clips or queries.

    Attributes:
        one: The singular, such as "clip".
        several: The plural.
        compared: The plural noun for the texts that are compared, such as "names".
        missing: The message about a missing one. `{}` stands for its text.
        line: The noun for the part of a file that answers one of them: "row" or "line".
        is_text: True if the texts are sentences and not names.
    """

    one: str
    several: str
    compared: str
    missing: str
    line: str = "row"
    is_text: bool = False


CLIP = Term("clip", "clips", "names", "no row has a caption for {}; add one")
QUERY = Term("query", "queries", "queries", "no row answers {}; add one", is_text=True)
COLUMN = Term("clip", "clips", "names", "no column has the scores of {}; add one")
QUESTION = Term("question", "questions", "ids", "no row answers the question {}; add one")
MOMENT = Term("query", "queries", "ids", "no line answers the query {}; add one", line="line")


def add_key(keys: dict[str, int], key: str, line: int, term: Term, file: str, column: str) -> Iterator[Finding]:
    """Add the clip, query or question of a line to `keys`. Yield a finding if `keys` has it already.

    Args:
        keys: A dict from each clip, query or question to its line.
        key: The clip, query or question.
        line: The line.
        term: The words for it.
        file: The file's name in findings.
        column: The column or key that contains it.
    """
    if key in keys:
        message = f"must not repeat a {term.one}; {quoted(key)} is in line {keys[key]} already"
        yield Finding(file, line, column, f"{message}: keep one of the {term.line}s")
    keys.setdefault(key, line)


def source_of(split: Asked) -> str:
    """Return the name of the file that contains the names of a split, or an empty text if it is not known."""
    source = getattr(split, "source", None)
    if source:
        return str(source.name)
    return ""


def other_split_fault(given: Collection[str], expected: Collection[str], split: Asked, term: Term) -> str | None:
    """Return a message if a file is probably for another split or data set, or None if it is not.

    Args:
        given: The clips, queries or questions in the file.
        expected: Those of the split.
        split: The split that the file should be for.
        term: The words for them.
    """
    expected = set(expected)
    shared = sum(name in expected for name in given)
    fault = f"has {shared or 'none'} of the {len(expected)} {term.several} of {split.name}"
    if isinstance(split, Split):
        other = other_split_hint(split, given, term.compared)
        if other:
            return f"{fault}; {other}"
    lookup = closest(expected, texts=term.is_text)
    sample = islice(given, MANY * len(expected) + 100)  # a look-up of millions of names would take minutes
    if not given or shared or any(lookup(name) for name in sample):
        return None
    return f"{fault}; is this the prediction of another split or data set?"


def misspelt(name: str, names: Iterable[str]) -> str | None:
    """Return the only name that differs from a misspelt name by a few letters, or None if there is no such name."""
    if len(name) > SHOWN:
        return None
    candidates = difflib.get_close_matches(name, names, 2, CLOSE)
    ratios = [difflib.SequenceMatcher(None, other, name).ratio() for other in candidates]
    if not candidates or (len(candidates) == 2 and ratios[0] <= ratios[1]):
        return None
    return candidates[0]


def unknown(name: str, same: str | None, typo: str | None, term: Term, split: str) -> str:
    """Return the message about an unknown name.

    Args:
        name: The unknown name.
        same: The right name, if the two differ only in blanks, case, a path or the like.
        typo: The right name, if the two differ by a few letters.
        term: The words for what it names.
        split: The name of the split.
    """
    advice = hint(name, same, term.compared)
    if not same and typo:
        advice = f"; did you mean {quoted(typo)}?"
    return f"{quoted(name)} is not a {term.one} of {split}{advice}"


def compare(
    given: Mapping[str, int],
    expected: Iterable[str],
    term: Term,
    split: Asked,
    file: str,
    where: Callable[[str], tuple[int, str]],
) -> Iterator[Finding]:
    """Yield findings about unknown names, with the names that were probably meant, and about missing ones.

    Args:
        given: The clips, queries or questions in the file, as keys of a dict.
        expected: The ones that the file must have.
        term: The words for them.
        split: The split that the file is for.
        file: The file's name in findings.
        where: A function that returns the line and the column of a clip, query or question.
    """
    expected = dict.fromkeys(expected)
    unexpected = dict.fromkeys(name for name in given if name not in expected)
    missing = dict.fromkeys(name for name in expected if name not in given)
    match = explain(unexpected, missing, texts=term.is_text)
    if match:
        source = source_of(split)
        if term is QUERY and not getattr(split, "captions", ()):  # only queries that are captions are in the file
            source = ""
        message = match.message(len(given), term.compared, source)
        yield Finding(file, *where(next(iter(match.pairs))), message)
        for wrong, right in match.pairs.items():
            del unexpected[wrong], missing[right]
    elif not given:
        message = f"has none of the {len(expected)} {term.several} of {split.name}; add them"
        yield Finding(file, message=message)
        return
    else:
        fault = other_split_fault(given, expected, split, term)
        if fault:
            yield Finding(file, message=fault)  # all other findings would only repeat this one
            return
    lookup = closest(missing, texts=term.is_text)
    guesses = GUESSED
    for name in unexpected:
        same, typo = lookup(name), None
        if not same and guesses and len(missing) <= GUESSED:
            guesses -= 1
            typo = misspelt(name, missing)
        meant = same or typo
        if meant:
            missing.pop(meant, None)  # a misspelt name is one finding, not also a missing one
        yield Finding(file, *where(name), unknown(name, same, typo, term, split.name))
    for name in missing:
        yield Finding(file, *where(name), term.missing.format(quoted(name)))


def check_count(
    task: "Task", split: str, name: str, number: int, term: Term, file: str, column: str
) -> Iterator[Finding]:
    """Yield a finding if the number of answers is not the official number.

    The finding is an error if all possible numbers are verified facts, and otherwise a warning. If one of the possible
    numbers is not known, the answers are not counted.

    Args:
        task: The task.
        split: The name of the split that the file is for; empty if it is not known.
        name: The file's name. If it fits the pattern of a set, only the number of this set is accepted.
        number: The number of answers.
        term: The words for what is answered.
        file: The file's name in findings.
        column: The column or key of the finding.
    """
    sets = task.sets
    if split:
        sets = {key: output for key, output in sets.items() if key == split}
    else:
        named = {key: output for key, output in sets.items() if output.is_named(name)}
        sets = named or sets
    official = {key: output.rows for key, output in sets.items() if output.rows}
    numbers = [fact.value for fact in official.values()]
    if not official or len(official) < len(sets) or number in numbers:
        return
    severity = WARNING
    if all(fact.certainty == "verified" for fact in official.values()):
        severity = ERROR
    expected = " or ".join(f"{fact.value} ({key})" for key, fact in official.items())
    yield Finding(file, 0, column, f"must answer {expected} {term.several}; found {number}", severity)
