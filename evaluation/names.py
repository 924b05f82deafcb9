"""Explanations of names and queries that differ from those of the data.

Names and queries are compared verbatim everywhere, unless the user asks for a rule (`score captions --match`). This
module finds a difference that many names share, such as another extension, so that one message explains a thousand
names.

    >>> match = explain([f"{n}.mp3" for n in range(999)], [f"{n}.wav" for n in range(1000)])
    >>> print(match.message(999, "names").partition("; ")[0])
    all 999 names differ from the data's only in their extension: .mp3 where the data have .wav

Each rule in `RULES` ignores one kind of difference. `match` pairs names that are equal under some rules. `explain`
finds the rules that explain nearly all names. `closest` finds the expected name that is similar to a single given name.
`find_clips` applies the rules that the user asks for.
"""

import html
import itertools
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.findings import BadRequest
from evaluation.text import quoted, unknown_key

NEARLY_ALL = 0.9  # minimum share of the names that an explanation must cover
FEW = 5  # minimum number of names to explain together; fewer names are reported one by one
EXTENSIONS = (
    *(".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aac", ".opus", ".aif", ".aiff", ".mp4", ".webm"),
    *(".npy", ".npz", ".pt", ".pth", ".pkl", ".h5", ".hdf5", ".json", ".txt", ".csv"),
)


@dataclass(frozen=True)
class Rule:
    """A kind of difference between a given and an expected name.

    Attributes:
        what: The noun for the difference that the rule ignores, as messages use it.
        ignore: Function that removes the difference from a name. Names that differ only in this become equal.
        example: Function that returns the part of a name that shows the difference in a message.
        of_files: True if the rule applies to file names but not to queries.
    """

    what: str
    ignore: Callable[[str], str]
    example: Callable[[str], str] = quoted
    of_files: bool = False


def _without_folder(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _extension(name: str) -> str:
    """Return the extension of a name if it is in `EXTENSIONS`, else "": a name may have dots anywhere."""
    _, dot, suffix = name.rpartition(".")
    extension = dot + suffix
    if extension.lower() in EXTENSIONS:
        return extension
    return ""


def _without_extension(name: str) -> str:
    return name.removesuffix(_extension(name))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _single_blanks(name: str) -> str:
    return " ".join(name.split())


def _letters_and_digits(name: str) -> str:
    return re.sub(r"[\W_]+", "", name)


def unicode_form(name: str) -> str:
    """Return the Unicode normalisation form of a name, which is invisible."""
    for form in ("NFC", "NFD"):
        if unicodedata.is_normalized(form, name):
            return form
    return "neither NFC nor NFD"


# The order matters: HTML entities contain punctuation, and a folder comes before an extension.
RULES = {
    "entities": Rule("HTML entities", html.unescape),
    "unicode": Rule("their Unicode form", _composed, unicode_form),
    "path": Rule("the folder before the name", _without_folder, of_files=True),
    "extension": Rule("their extension", _without_extension, lambda name: _extension(name) or "none", of_files=True),
    "blanks": Rule("blanks", _single_blanks),
    "case": Rule("upper and lower case", str.casefold),
    "punctuation": Rule("punctuation", _letters_and_digits),
}

STEM = ("path", "extension")  # the rules that leave the stem of a file name


@dataclass(frozen=True)
class Match:
    """Pairs of a given and an expected name that differ only in what some rules ignore.

    Attributes:
        rules: Names of the rules.
        pairs: Dict from given names to expected names; never empty.
    """

    rules: tuple[str, ...]
    pairs: Mapping[str, str]

    def message(self, total: int, noun: str, source: str = "", owner: str = "the data") -> str:
        """Return a message that states how the paired names differ, and what to do.

        Args:
            total: Number of given names, including the correct ones.
            noun: The plural noun for the names, such as "names" or "queries".
            source: The file or folder with the expected names; "" if it is not known.
            owner: The plural noun for the things that have the expected names, such as "the data".
        """
        given, expected = next(iter(self.pairs.items()))
        rules = [RULES[name] for name in self.rules]
        example: Callable[[str], str] = quoted
        if len(rules) == 1:
            example = rules[0].example
        if len(self.pairs) == total:
            share = f"all {total}"
        else:
            share = f"{len(self.pairs)} of {total}"
        possessive = f"{owner}'s"
        if owner.endswith("s"):
            possessive = f"{owner}'"
        what = " and ".join(rule.what for rule in rules)
        difference = f"{what}: {example(given)} where {owner} have {example(expected)}"
        return f"{share} {noun} differ from {possessive} only in {difference}; write the {noun} as in {source or owner}"


def match(given: Iterable[str], expected: Iterable[str], rules: Sequence[str]) -> dict[str, str]:
    """Pair each given name with the expected name that is equal to it under some rules.

    Args:
        given: The given names.
        expected: The expected names.
        rules: Names of `RULES`.

    Returns:
        A dict from given names to expected names, in the order of the given names. Ambiguous names are left out:
        several given names that fit one expected name, or a given name that fits several expected names.
    """
    given_by_key, expected_by_key = _by_key(given, rules), _by_key(expected, rules)
    pairs = {}
    for key, names in given_by_key.items():
        candidates = expected_by_key.get(key, [])
        if len(names) == len(candidates) == 1:
            pairs[names[0]] = candidates[0]
    return pairs


def explain(given: Iterable[str], expected: Collection[str], *, texts: bool = False) -> Match | None:
    """Find the rules that explain nearly all given names.

    Single rules, pairs of rules and all rules together are tried. The combination that pairs the largest number of
    names is chosen. If several combinations pair the same number, the one with the smallest number of rules is chosen.

    Args:
        given: The given names that are not among the expected ones.
        expected: The expected names.
        texts: True if the names are queries, False if they are file names.

    Returns:
        The explanation; None if the rules do not explain a share of `NEARLY_ALL` of the names, or if there are fewer
        than `FEW` names.
    """
    given = list(dict.fromkeys(given))
    enough = NEARLY_ALL * len(given)
    if len(given) < FEW or len(expected) < enough:
        return None
    every_rule = _applicable(texts)
    expected_keys = _by_key(expected, every_rule)
    if sum(_key(name, every_rule) in expected_keys for name in given) < enough:
        return None  # all rules together pair too few names, so fewer rules do too
    best: dict[str, str] = {}
    chosen: tuple[str, ...] = ()
    for rules in _combinations(texts):
        pairs = match(given, expected, rules)
        if len(pairs) > len(best):
            best, chosen = pairs, rules
        if len(best) == len(given):
            break
    if len(best) >= enough:
        return Match(chosen, best)
    return None


def parse_rules(text: str) -> tuple[str, ...]:
    """Return the rules that a request names: names of `RULES` separated by commas, or `stem`.

    Raises:
        BadRequest: There is no such rule.

    >>> parse_rules("stem"), parse_rules("case,path")
    (('path', 'extension'), ('path', 'case'))
    """
    requested: set[str] = set()
    for name in text.split(","):
        if name == "stem":
            requested.update(STEM)
        elif name in RULES:
            requested.add(name)
        else:
            message = unknown_key(name, ["stem", *RULES], "rule for names")
            raise BadRequest(f"--match: {message}; or order, without other rules")
    return tuple(name for name in RULES if name in requested)


def format_rules(rules: Collection[str]) -> str:
    """Return the text that `parse_rules` reads as these rules."""
    if set(rules) == set(STEM):
        return "stem"
    return ",".join(name for name in RULES if name in rules)


def find_clips(given: Iterable[str], expected: Iterable[str], rules: Sequence[str]) -> dict[str, list[str]]:
    """Find the expected names that each given name means, if some rules apply.

    In contrast to `match`, ambiguous names are not left out, and several given names may mean one expected name.

    Args:
        given: The given names.
        expected: The expected names.
        rules: Names of `RULES`.

    Returns:
        A dict from each given name to the expected names that are equal to it under the rules. A name that is among the
        expected names means only itself.

    >>> find_clips(["dog.wav", "cat", "cow"], ["dog.wav", "Dog.wav", "cat.wav", "cat.mp3"], ["extension", "case"])
    {'dog.wav': ['dog.wav'], 'cat': ['cat.wav', 'cat.mp3'], 'cow': []}
    """
    verbatim = set(expected)
    expected_by_key = _by_key(expected, rules)
    found = {}
    for name in given:
        if name in verbatim:
            found[name] = [name]
        else:
            found[name] = expected_by_key.get(_key(name, rules), [])
    return found


def closest(expected: Iterable[str], *, texts: bool = False) -> Callable[[str], str | None]:
    """Return a function that finds the expected name which is equal to a given name under some rules.

    The function tries each rule, and then the rules together. It returns None if no attempt leads to exactly one name.

    >>> closest([" Dog.wav", "cat.wav"])("sounds/dog.WAV")
    ' Dog.wav'
    """
    names = list(expected)
    applicable = _applicable(texts)
    without_punctuation = tuple(name for name in applicable if name != "punctuation")
    attempts = [*((name,) for name in applicable), without_punctuation, applicable]
    tables: dict[tuple[str, ...], dict[str, list[str]]] = {}

    def look_up(name: str) -> str | None:
        for rules in attempts:
            if rules not in tables:
                tables[rules] = _by_key(names, rules)
            candidates = tables[rules].get(_key(name, rules), [])
            if len(candidates) == 1:
                return candidates[0]
        return None

    return look_up


def hint(name: str, other: str | None, noun: str = "names") -> str:
    """Return the end of a message that tells the user about a similar name.

    Args:
        name: The given name.
        other: The similar name. If it is None, the result is an empty text.
        noun: The plural noun for the names.

    >>> hint("dog.WAV", "dog.wav")
    "; there is 'dog.wav', and names are compared verbatim"
    """
    if other is None:
        return ""
    form = ""
    if _composed(name) == _composed(other):  # the two names look the same
        form = f" in Unicode form {unicode_form(other)}, where this is in {unicode_form(name)}"
    return f"; there is {quoted(other)}{form}, and {noun} are compared verbatim"


def _applicable(texts: bool) -> tuple[str, ...]:
    return tuple(name for name, rule in RULES.items() if not (texts and rule.of_files))


def _combinations(texts: bool) -> Iterator[tuple[str, ...]]:
    """Yield each rule, each pair of rules, and all rules together."""
    names = _applicable(texts)
    for size in (1, 2, len(names)):
        yield from itertools.combinations(names, size)


def _key(name: str, rules: Sequence[str]) -> str:
    for rule in rules:
        name = RULES[rule].ignore(name)
    return name


def _by_key(names: Iterable[str], rules: Sequence[str]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        table.setdefault(_key(name, rules), []).append(name)
    table.pop("", None)  # an empty key fits any name
    return table
