"""Metadata files: checked against what a task asks for.

Errors: a required key is missing or empty; a value is of another type, or too long; the label breaks the task's rule. A
key that is unknown, or missing although it may be null, is an error if the task's facts about its block are verified.
Otherwise the real template may differ, and it is a warning. Warnings, too: a number, date or yes-no where text is asked
for (put it in quotes); an unlikely e-mail address or result; a label that names another author than the corresponding
one.

A check has two steps. `Block` moves misspelt and misplaced keys to where they belong, so that their values are checked
too, and remembers where they were. A pydantic type, made from the task's keys, then checks all values.
"""

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, ValidationError, core_schema

from evaluation.findings import ERROR, WARNING, Finding, bounded
from evaluation.metrics import catalogue
from evaluation.text import SHOWN, cut, lookalike, quoted, unknown_key
from submission import tasks
from submission.documents import LISTED, Document, KeyPath, dotted, read, shown
from submission.metadata_text import ABSENT, HEAD, written
from submission.tasks import Key, Task

AUTHORS = ("submission", "authors")
LABEL = ("submission", "label")
SEVERAL = "affiliation"  # an author may have a list of them

_UNITS = {"": 1, "k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "b": 10**9, "billion": 10**9}
_YES, _NO = ("yes", "true", "y", "on"), ("no", "false", "n", "off")
_NO_NUMBER = ("", "-", "none", "null", "n/a", "na", "nan")
_TAGS = ("[one]", "[several]")  # pydantic adds them to the path of an error


def validate(task: Task, path: Path, file: str = "") -> tuple[dict[str, object] | None, list[Finding]]:
    """Check a metadata file against what the task asks for.

    Args:
        task: The task.
        path: The file.
        file: Its name in findings (default: its path).

    Returns:
        The values of the file, None if it cannot be read, and every finding in the order of the file.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    document = read(path, file)
    return document.values, check(task, document, file)


def check(task: Task, document: Document, file: str) -> list[Finding]:
    """Check metadata that were read from a file, or put together without one.

    Args:
        task: The task.
        document: The values, and their lines if there is a file.
        file: The file's name in findings.

    Returns:
        The findings of the document and of this check, in the order of the file.
    """
    if document.values is None:
        return sorted(document.findings)
    block = Block(task, document, file)
    block.check_values()
    block.check_authors()
    block.check_label()
    return sorted(bounded([*document.findings, *block.findings], LISTED, file))


def tasks_of(paths: Iterable[Path]) -> list[str]:
    """Return the tasks that metadata files were written for, by their first lines; other files name none."""
    first_lines = set()
    for path in paths:
        with path.open("rb") as file:
            first_lines.add(file.readline(SHOWN).decode("utf-8", "replace").partition(":")[0])
    return [name for name in tasks.names() if HEAD + name in first_lines]


def of_others(task: Task, paths: Iterable[Path], file: str) -> list[Finding]:
    """Warn about metadata files that were written for another task.

    Args:
        task: The task.
        paths: The metadata files of one package, or a single one.
        file: The name of the package or file in the finding.
    """
    others = [name for name in tasks_of(paths) if name != task.name]
    if not others:
        return []
    message = f"was written for {' and '.join(others)}, as the metadata's first line says; is --task {others[0]} meant?"
    return [Finding(file, message=message, severity=WARNING)]


# Blocks ---------------------------------------------------------------------------------------------------------------


class Block:
    """A block of metadata with every key where it belongs.

    Attributes:
        values: The values of the block. Misspelt and misplaced keys are where they belong.
        findings: The findings so far.
    """

    def __init__(
        self, task: Task, document: Document, file: str, root: KeyPath = (), values: Mapping[str, object] | None = None
    ):
        """Move the keys, and find those that were misspelt, misplaced or unknown.

        Args:
            task: The task.
            document: The file that holds the block.
            file: The file's name in findings.
            root: The path of the block in the file.
            values: The block (default: the whole document).
        """
        self.task, self.document, self.file, self.root = task, document, file, root
        self.findings: list[Finding] = []
        self._top = task.whole
        self._origins: dict[KeyPath, KeyPath] = {}  # by the path where a moved value belongs, its path in the file
        self._moves: list[tuple[Key, object, KeyPath, KeyPath]] = []  # key, value, origin, path
        self._unchecked: set[KeyPath] = set()
        self.values = self._move_within(self._top, document.values if values is None else values, (), ())
        while self._moves:
            self._move(*self._moves.pop(0))

    def origin(self, path: KeyPath) -> KeyPath:
        """Return where in the block of the file a value is that belongs at a path."""
        for length in range(len(path), 0, -1):
            moved_from = self._origins.get(path[:length])
            if moved_from is not None:
                return moved_from + path[length:]
        return path

    def find(self, origin: KeyPath, message: str, severity: str = ERROR) -> None:
        """Add a finding about a place in the block of the file."""
        self._add(self.document.line(self.root + origin), origin, message, severity)

    def _add(self, line: int, path: KeyPath, message: str, severity: str) -> None:
        self.findings.append(Finding(self.file, line, dotted(self.root + path), message, severity))

    def _severity(self, path: KeyPath) -> str:
        """Return how bad an unknown or missing key is: a template that was not seen may be different."""
        fact = self.task.metadata.get(path[0]) if path else None
        facts = [fact] if fact else self.task.metadata.values()
        if all(fact.certainty == "verified" for fact in facts):
            return ERROR
        return WARNING

    # Keys moved to where they belong

    def _move_within(self, key: Key, value: object, origin: KeyPath, path: KeyPath) -> Any:
        """Return the value of a key with all keys below it where they belong."""
        if not key.keys:
            return value
        if key.many and value and isinstance(value, Mapping):
            self.find(origin, "must be a list; put '- ' before its first key, and indent the others by 2 blanks more")
            self._origins[(*path, 0)] = origin
            return [self._move_in_mapping(key, value, origin, (*path, 0))]
        if isinstance(value, list) and (key.many or path[-1] == SEVERAL):
            entries = []
            for place, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    entry = self._move_in_mapping(key, entry, (*origin, place), (*path, place))
                entries.append(entry)
            return entries
        if isinstance(value, Mapping):
            return self._move_in_mapping(key, value, origin, path)
        return value

    def _move_in_mapping(
        self, key: Key, values: Mapping[str, object], origin: KeyPath, path: KeyPath
    ) -> dict[str, object]:
        placed: dict[str, object] = {}
        absent = [name for name in key.keys if name not in values]
        for name, value in values.items():
            if name in key.keys:
                placed[name] = self._move_within(key.keys[name], value, (*origin, name), (*path, name))
            elif len(self.findings) <= LISTED:  # more are not shown
                self._find_place(key, name, value, absent, origin, path)
        return placed

    def _find_place(
        self, key: Key, name: str, value: object, absent: Sequence[str], origin: KeyPath, path: KeyPath
    ) -> None:
        """Find where an unknown key belongs, and note to move it if only one place is possible."""
        here = (*origin, name)
        alike = lookalike(list(key.keys))(name)
        places = [] if alike else _nearest(_places(self._top, name), path)
        if not places:
            self.find(here, unknown_key(cut(name), list(key.keys)), self._severity(path))
            close = difflib.get_close_matches(name[:SHOWN], absent, n=1)
            meant = alike or next(iter(close), None)
            if meant in absent:
                self._moves.append((key.keys[meant], value, here, (*path, meant)))
            return
        free = [place for place in places if value_at(self.document.values, self.root + place) is ABSENT]
        parents = dict.fromkeys(place[:-1] for place in free or places)
        named = " or ".join(_place_name(parent) for parent in parents)
        if not free:
            self.find(here, f"belongs {named}, where it stands already; remove it here", self._severity(path))
            return
        self.find(here, f"belongs {named}; move it there, indented like the keys there", self._severity(path))
        if len(free) == 1 and "*" not in free[0]:
            self._moves.append((self._key(free[0]), value, here, free[0]))

    def _move(self, key: Key, value: object, origin: KeyPath, path: KeyPath) -> None:
        """Put a value where it belongs."""
        if not key.keys and isinstance(value, Mapping):  # its neighbours, indented deeper, look as if they were its own
            neighbours = self._key(path[:-1]).keys
            for name, inner in value.items():
                if name in neighbours:
                    self._moves.append((neighbours[name], inner, (*origin, name), (*path[:-1], name)))
            self._unchecked.add(path)
            value = None
        parent: Any = self.values
        for name in path[:-1]:
            if isinstance(name, int):
                if isinstance(parent, list) and name < len(parent):
                    parent = parent[name]
                else:
                    parent = None
            elif isinstance(parent, dict):
                if parent.get(name) is None:
                    parent[name] = {}
                parent = parent[name]
        if isinstance(parent, dict) and path[-1] not in parent:
            self._origins[path] = origin
            parent[path[-1]] = self._move_within(key, value, origin, path)

    def _key(self, path: KeyPath) -> Key:
        key = self._top
        for name in path:
            if not isinstance(name, int):
                key = key.keys[name]
        return key

    # Values

    def check_values(self, whole: bool = True) -> None:
        """Check the values by type, length and range.

        Args:
            whole: Whether missing keys are findings.
        """
        try:
            SchemaValidator(_mapping_schema(self._top)).validate_python(self.values)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_context=False):
                path = tuple(part for part in fault["loc"] if part not in _TAGS)
                origin = self.origin(path)
                if fault["type"] != "missing":
                    if self.root + origin not in self.document.broken and path not in self._unchecked:
                        self.find(origin, fault["msg"], fault["type"])
                elif whole:
                    self._find_missing(path)

    def _find_missing(self, path: KeyPath) -> None:
        key = self._key(path)
        severity = ERROR if key.need == "required" else self._severity(path)
        null = " (!!null where it does not apply)" if key.need == "nullable" else ""
        line = self.document.line(self.root + self.origin(path[:-1]))
        self._add(line, path, f"is missing; add it{null}{_hint(key)}", severity)

    def check_authors(self) -> None:
        """Check that exactly one author is the corresponding one."""
        authors = value_at(self.values, AUTHORS)
        if not isinstance(authors, list) or not authors or not all(isinstance(author, dict) for author in authors):
            return
        marks = [author.get("corresponding") for author in authors]
        chosen = [place for place, mark in enumerate(marks) if _is_yes(mark)]
        if not chosen and all(mark is None or mark is False for mark in marks):
            message = "one author must be the corresponding one; found none: add 'corresponding: true' to one of them"
            self.find(self.origin(AUTHORS), message)
        elif len(chosen) > 1:
            places = [self.origin((*AUTHORS, place, "corresponding")) for place in chosen]
            lines = [self.document.line(self.root + place) for place in places]
            *first, last = [str(line) for line in lines if line] or [""]
            where = f" (lines {', '.join(first)} and {last})" if first else ""
            message = f"only one author must be the corresponding one; found {len(chosen)}{where}: keep one of them"
            self.find(places[1], message)

    def check_label(self) -> None:
        """Check that the label follows the task's rule, and names the corresponding author."""
        label = value_at(self.values, LABEL)
        if not isinstance(label, str) or not label.strip():
            return
        names = self.task.label_fields(label)
        if names is None or not label.isprintable() or label != label.strip():
            self.find(self.origin(LABEL), label_fault(self.task, label))
        else:
            self.check_author_of_label(names["author"], self.origin(LABEL))

    def check_author_of_label(self, author: str, origin: KeyPath) -> None:
        """Warn if the author of the labels is clearly not the corresponding author.

        Args:
            author: The author of the labels.
            origin: The place in the block of the file that the warning is about.
        """
        authors = value_at(self.values, AUTHORS)
        for entry in authors if isinstance(authors, list) else []:
            if isinstance(entry, dict) and _is_yes(entry.get("corresponding")):
                last = entry.get("lastname")
                if isinstance(last, str) and _clearly_differ(author, last):
                    message = f"names the author {quoted(author)}; the corresponding author is {quoted(last)}"
                    self.find(origin, message, WARNING)
                return


def value_at(values: object, path: KeyPath) -> object:
    """Return the value at a path; `ABSENT` if there is none."""
    for name in path:
        inside = isinstance(values, list) and isinstance(name, int) and name < len(values)
        if not inside and not (isinstance(values, Mapping) and name in values):
            return ABSENT
        values = values[name]
    return values


def _places(key: Key, name: str, path: KeyPath = ()) -> list[KeyPath]:
    """Return every place of a key of this name; `*` is an entry of a list."""
    places = []
    for other, below in key.keys.items():
        here = (*path, other)
        if other == name:
            places.append(here)
        places += _places(below, name, (*here, "*") if below.many else here)
    return places


def _nearest(places: Sequence[KeyPath], here: KeyPath) -> list[KeyPath]:
    """Return the places within the list entries that `here` is in, or all places if there are none within them.

    A `*` that stands for an entry of `here` is replaced by its number.
    """
    aligned = []
    for place in places:
        numbered = list(place)
        for index, (part, own) in enumerate(zip(place, here, strict=False)):
            if part not in (own, "*"):
                break
            numbered[index] = own
        aligned.append(tuple(numbered))
    return [place for place in aligned if "*" not in place] or aligned


def _place_name(path: KeyPath) -> str:
    if not path:
        return "at the top level"
    names = dotted(tuple(name for name in path if name != "*"))
    if path[-1] == "*":
        return f"in an entry of {names}"
    return f"under {names}"


# Schema ---------------------------------------------------------------------------------------------------------------


def _mapping_schema(key: Key) -> CoreSchema:
    """Return pydantic's schema of a mapping with the keys below a key."""
    fields = {}
    for name, below in key.keys.items():
        fields[name] = core_schema.typed_dict_field(_field_schema(name, below), required=below.need != "optional")
    mapping = core_schema.typed_dict_schema(fields)
    return core_schema.no_info_before_validator_function(partial(_check_mapping, key), mapping)


def _field_schema(name: str, key: Key) -> CoreSchema:
    """Return pydantic's schema of a key's value."""
    if key.keys:
        one = _mapping_schema(key)
    else:
        one = core_schema.no_info_plain_validator_function(partial(_check_leaf, name, key))
    several = core_schema.list_schema(one)
    if key.many:
        return core_schema.no_info_wrap_validator_function(partial(_check_list, key), several)
    if not key.keys:
        return one
    if name == SEVERAL:
        one = core_schema.tagged_union_schema({"[one]": one, "[several]": several}, _number_of_values)
    return core_schema.no_info_wrap_validator_function(partial(_check_present, key), one)


def _number_of_values(value: object) -> str:
    if isinstance(value, list):
        return "[several]"
    return "[one]"


def _fault(message: str, severity: str = ERROR) -> PydanticCustomError:
    return PydanticCustomError(severity, "{message}", {"message": message})


def _hint(key: Key) -> str:
    if key.hint:
        return f": {key.hint}"
    return ""


def _check_present(key: Key, value: object, check: Callable[[object], object]) -> object:
    """Check a value, unless it is empty and may be."""
    if value is None or value in ({}, []):
        if key.need == "required":
            raise _fault(f"is empty; fill it in{_hint(key)}")
        return value
    return check(value)


def _check_list(key: Key, value: object, check: Callable[[object], object]) -> object:
    if value is not None and value != {} and not isinstance(value, list):
        raise _fault(f"must be a list, each entry in a line that starts with '- '; found {shown(value)}")
    return _check_present(key, value, check)


def _check_mapping(key: Key, value: object) -> object:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list):
        raise _fault("must be keys and values, not a list; take the '- ' out")
    names = ", ".join(name for name, below in key.keys.items() if below.need != "optional") or "its keys"
    raise _fault(f"must be keys and values ({names}); found {shown(value)}")


def _check_leaf(name: str, key: Key, value: object) -> object:
    if value is None:
        if key.need == "required":
            raise _fault(f"is empty; fill it in{_hint(key)}")
    elif isinstance(value, Mapping | list):
        raise _fault(_not_one_value(key, value))
    elif key.type == "text":
        _check_text(name, key, value)
    elif key.type == "yes-no":
        _check_yes_no(value)
    else:
        _check_number(key, value)
    return value


def _not_one_value(key: Key, value: Mapping[str, object] | list[object]) -> str:
    """Return what is wrong with keys or a list where one value is asked for."""
    nested = isinstance(value, Mapping) or any(isinstance(entry, Mapping | list) for entry in value)
    if key.type == "text" and not nested:
        return f"must be text, not a list; join them by commas: {quoted(', '.join(map(str, value)))}"
    wanted = {"text": "text", "yes-no": "yes or no"}.get(key.type, "a number")
    if isinstance(value, Mapping):
        quotes = "; a text that holds ': ' must be in quotes"
    else:
        quotes = ""
    return f"must be {wanted}; found {shown(value)}{quotes}"


def _check_text(name: str, key: Key, value: object) -> None:
    text = str(value)
    if not text.strip():
        if key.need == "required":
            raise _fault(f"is empty; fill it in{_hint(key)}")
        raise _fault("is an empty text; write !!null where it does not apply", WARNING)
    if key.most and len(text) > key.most:
        raise _fault(f"must not have more than {key.most} characters; found {len(text)}: {quoted(text)}")
    if not isinstance(value, str):
        kind = "yes or no" if isinstance(value, bool) else "a number"
        raise _fault(f"is read as {kind}, and must be text; put it in quotes; found {value!r}", WARNING)
    if name == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", text):
        raise _fault(f"is hardly an e-mail address; found {quoted(text)}", WARNING)


def _check_yes_no(value: object) -> None:
    if isinstance(value, str):
        word = value.strip().casefold()
        advice = ""
        if word in _YES:
            advice = "; write Yes, without quotes"
        elif word in _NO:
            advice = "; write No, without quotes"
        raise _fault(f"must be Yes or No, not text; found {quoted(value)}{advice}")
    if not isinstance(value, bool):
        raise _fault(f"must be Yes or No; found {value!r}")


def _check_number(key: Key, value: object) -> None:
    whole = key.type == "integer"
    wanted = "a whole number" if whole else "a number"
    if isinstance(value, str):
        raise _fault(f"must be {wanted}{_number_as_text(key, value, whole)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _fault(f"must be {wanted}; found {value!r}")
    if not math.isfinite(value):
        raise _fault(f"must be {wanted}, and finite; found {value!r}")
    if whole and not isinstance(value, int):
        advice = f": write {int(value)}" if value.is_integer() and value >= 0 else ""
        raise _fault(f"must be {wanted}; found {value!r}{advice}")
    if whole and value < 0:
        raise _fault(f"must not be negative; found {value}")
    if key.metric:
        metric = catalogue.find(key.metric)
        highest = metric.high if metric else 1
        if not 0 <= value <= highest:
            per_cent = 0 < value / 100 <= highest
            advice = f"; in per cent? write {value / 100:.6g}" if per_cent else ""
            raise _fault(f"must be between 0 and {highest:g}; found {value!r}{advice}", WARNING)


def _number_as_text(key: Key, text: str, whole: bool) -> str:
    """Return how the finding about a text goes on that is in the place of a number."""
    if text.strip().casefold() in _NO_NUMBER and key.need != "required":
        return f"; found {quoted(text)}: write !!null where it does not apply"
    number = _meant_number(text, whole)
    exponent = re.fullmatch(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)", text)
    if exponent and number and not whole:
        mantissa, fraction, sign, power = exponent.groups()
        return f"; YAML reads {text} as text: write {mantissa}{fraction or '.0'}e{sign or '+'}{power}"
    advice = f": write {number}" if number else ""
    if number == text:
        advice += ", without quotes"
    return f", not text; found {quoted(text)}{advice}"


def _meant_number(text: str, whole: bool) -> str:
    """Return the number that a text such as '140,000,000' or '12 M' means, as YAML; empty if it means none."""
    parts = re.fullmatch(r"([-+]?\d[\d.,' _]{0,30}(?:e[-+]?\d{1,3})?) ?([a-z]{0,8})", text.strip().casefold())
    if not parts or parts[2] not in _UNITS:
        return ""
    digits = parts[1].strip().replace("_", "")
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+|[-+]?\d{1,3}(\.\d{3}){2,}|[-+]?\d{1,3}([' ]\d{3})+", digits):
        digits = re.sub(r"\D", "", digits)
    try:
        number = float(digits.replace(",", ".")) * _UNITS[parts[2]]
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    has_no_fraction = number == round(number) and abs(number) < 1e15
    if has_no_fraction and (whole or not parts[1].startswith(f"{number:.0f}.")):
        return str(round(number))
    if whole:
        return ""
    return written(number)


def _is_yes(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().casefold() in _YES)


# Labels ---------------------------------------------------------------------------------------------------------------


def label_fault(task: Task, label: str) -> str:
    """Return why a label breaks the task's rule, and what to write if that is clear."""
    rule, most = task.label.value, task.systems.value
    wanted, parts = rule.split("_"), label.strip().split("_")
    faults = []
    if "/" in label:
        faults.append("it must not hold a '/'")
    if not label.isprintable() or label != label.strip():
        faults.append("it must not hold control characters, or blanks at its ends")
    corrected = ""
    if len(parts) != len(wanted):
        faults.append(f"it has {len(parts)} parts joined by '_', not {len(wanted)}: no part may hold a '_'")
    else:
        fixed = list(parts)
        for index, (want, part) in enumerate(zip(wanted, parts, strict=True)):
            if "{" not in want and part != want:
                fixed[index] = want
                faults.append(f"{cut(part)!r} must be {want!r}")
        if parts[-1] not in map(str, range(1, most + 1)):
            faults.append(f"the index {quoted(parts[-1])} must be 1 to {most}")
            fixed[-1] = parts[-1].lstrip("0")
        corrected = "_".join(fixed)
    advice = ""
    if corrected != label and task.label_fields(corrected):
        advice = f"; write {quoted(corrected)}"
    why = ", and ".join(faults) or "a part is empty"
    message = f"must read {rule}, the index 1 to {most}; found {quoted(label)}: {why}{advice}"
    return cut(message, 4 * SHOWN)


def _clearly_differ(one: str, other: str) -> bool:
    """Return whether two names are different whatever their case, accents and hyphens."""
    first, second = _plain_letters(one), _plain_letters(other)
    if not first or not second or first in second or second in first:
        return False
    return difflib.SequenceMatcher(None, first, second).ratio() < 0.6


def _plain_letters(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name[:SHOWN]).casefold()
    return "".join(letter for letter in letters if letter.isalnum() and letter.isascii())


def merged(*blocks: Mapping[str, object]) -> dict[str, object]:
    """Merge blocks of metadata: keys are joined; of single values and lists the last block's wins."""
    result: dict[str, object] = {}
    for block in blocks:
        for name, value in block.items():
            if isinstance(value, Mapping):
                before = result.get(name)
                value = merged(before if isinstance(before, Mapping) else {}, value)
            result[name] = value
    return result
