"""Explain why names or queries that were given are not those of the data.

Names and queries are compared verbatim everywhere. Nothing here makes two of them equal: it finds what was done to
them on the way, so that one message explains a thousand names.

    >>> match = explain([f"{n}.mp3" for n in range(999)], [f"{n}.wav" for n in range(1000)])
    >>> print(match.message(999, "names"))
    all 999 names differ from the data's only in their extension: .mp3 where the data have .wav; write the names so

Each rule in `RULES` ignores one kind of difference. `match` pairs names by any of the rules, `explain` finds the rules
that explain nearly all names, and `closest` looks a single name up.
"""

import html
import itertools
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.text import quoted

NEARLY_ALL = 0.9  # share of the names that one explanation must cover
FEW = 5  # fewer names are reported one by one
EXTENSIONS = (
    *(".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aac", ".opus", ".aif", ".aiff", ".mp4", ".webm"),
    *(".npy", ".npz", ".pt", ".pth", ".pkl", ".h5", ".hdf5", ".json", ".txt", ".csv"),
)


@dataclass(frozen=True)
class Rule:
    """A kind of difference between a given and an expected name.

    Attributes:
        what: What the rule ignores, as a message says it.
        ignore: Return a name without it: names that differ in nothing else become equal.
        example: Return what a given and an expected name show of it.
        of_files: Whether the rule is about names of files only, and not about queries.
    """

    what: str
    ignore: Callable[[str], str]
    example: Callable[[str], str] = quoted
    of_files: bool = False


def _without_folder(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


def _extension(name: str) -> str:
    """Return the extension of a name, where it is a known one: names may hold dots anywhere."""
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
    """Return the Unicode normalisation form of a name, which cannot be seen."""
    for form in ("NFC", "NFD"):
        if unicodedata.is_normalized(form, name):
            return form
    return "neither NFC nor NFD"


# In the order in which they are applied: entities hold punctuation, and extensions follow a folder.
RULES = {
    "entities": Rule("HTML entities", html.unescape),
    "unicode": Rule("their Unicode form", _composed, unicode_form),
    "path": Rule("the folder before the name", _without_folder, of_files=True),
    "extension": Rule("their extension", _without_extension, lambda name: _extension(name) or "none", of_files=True),
    "blanks": Rule("blanks", _single_blanks),
    "case": Rule("upper and lower case", str.casefold),
    "punctuation": Rule("punctuation", _letters_and_digits),
}


@dataclass(frozen=True)
class Match:
    """Given names, each with the expected name from which it differs by some rules only.

    Attributes:
        rules: Names of the rules.
        pairs: The expected name by the given one; never empty.
    """

    rules: tuple[str, ...]
    pairs: Mapping[str, str]

    def message(self, total: int, noun: str, source: str = "", owner: str = "the data") -> str:
        """Say in one sentence how all the names differ, and what to do.

        Args:
            total: Number of names that were given, right ones too.
            noun: What they are, in the plural, such as "names" or "queries".
            source: The file or folder that has them as they must be; "" where it is not known.
            owner: What has the expected names, in the plural.
        """
        given, expected = next(iter(self.pairs.items()))
        rules = [RULES[name] for name in self.rules]
        example = rules[0].example if len(rules) == 1 else quoted
        if len(self.pairs) == total:
            share = f"all {total}"
        else:
            share = f"{len(self.pairs)} of {total}"
        whose = f"{owner}'" if owner.endswith("s") else f"{owner}'s"
        what = " and ".join(rule.what for rule in rules)
        difference = f"{what}: {example(given)} where {owner} have {example(expected)}"
        advice = f"as {source} has them" if source else "so"
        return f"{share} {noun} differ from {whose} only in {difference}; write the {noun} {advice}"


def match(given: Iterable[str], expected: Iterable[str], rules: Sequence[str]) -> dict[str, str]:
    """Pair every given name with the expected name that differs from it by nothing but some rules.

    Args:
        given: Names that were given.
        expected: Names that they may stand for.
        rules: Names of `RULES`.

    Returns:
        The expected name by the given one, in the order of the given ones. A name that several others may stand for, or
        that may stand for several, is left out.
    """
    theirs, ours = _by_key(given, rules), _by_key(expected, rules)
    pairs = {}
    for key, names in theirs.items():
        candidates = ours.get(key, [])
        if len(names) == len(candidates) == 1:
            pairs[names[0]] = candidates[0]
    return pairs


def explain(given: Iterable[str], expected: Collection[str], *, texts: bool = False) -> Match | None:
    """Find the rule that explains nearly all given names; else the two rules that do, else all rules together.

    Args:
        given: Names that were given, and are none of the expected ones.
        expected: Names that they may stand for.
        texts: Whether they are queries, and not names of files.

    Returns:
        The explanation; None where there is none, or where there are too few names to need one.
    """
    given = list(dict.fromkeys(given))
    enough = NEARLY_ALL * len(given)
    if len(given) < FEW or len(expected) < enough:
        return None
    every_rule = _applicable(texts)
    expected_keys = _by_key(expected, every_rule)
    if sum(_key(name, every_rule) in expected_keys for name in given) < enough:
        return None  # and so no rule explains them
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


def closest(expected: Iterable[str], *, texts: bool = False) -> Callable[[str], str | None]:
    """Return a look-up of the expected name for a given one that differs by some rules only; None where there is none.

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
    """Say which other name a name is close to; nothing where there is none.

    >>> hint("dog.WAV", "dog.wav")
    "; there is 'dog.wav', and names are compared verbatim"
    """
    if other is None:
        return ""
    form = ""
    if _composed(name) == _composed(other):  # both look the same
        form = f" in Unicode form {unicode_form(other)}, where this is in {unicode_form(name)}"
    return f"; there is {quoted(other)}{form}, and {noun} are compared verbatim"


def _applicable(texts: bool) -> tuple[str, ...]:
    return tuple(name for name, rule in RULES.items() if not (texts and rule.of_files))


def _combinations(texts: bool) -> Iterator[tuple[str, ...]]:
    """Give each rule, each two rules, and all rules."""
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
    table.pop("", None)  # where nothing is left of a name, it could be any
    return table
