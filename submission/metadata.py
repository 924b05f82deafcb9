"""The check of metadata files against the keys that a task asks for.

These faults are errors:

- A required key is missing or empty.
- A value has a wrong type, or is too long.
- The label breaks the task's rule.
- The number of corresponding authors is not one.

These faults are errors if the task's facts about the block are verified. They are warnings if the facts are not
verified, because the official template may then differ:

- A key is unknown or in a wrong place.
- A key that may be null is missing.

These faults are warnings:

- A number, a date or a yes-no value is in the place of a text, and must be put in quotes.
- A text that is not required is empty.
- An e-mail address or a result is unlikely.
- The label names an author who is not the corresponding author.

A check has two steps. First, `Block` moves misspelt and misplaced keys to their right places, so that their values are
checked too. `Block` also stores the original places for the findings. Then a pydantic schema, which is made from the
task's keys, checks all values.
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
SEVERAL = "affiliation"  # key whose value may be a list: an author may have several affiliations

_UNITS = {"": 1, "k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "b": 10**9, "billion": 10**9}
_YES, _NO = ("yes", "true", "y", "on"), ("no", "false", "n", "off")
_NO_NUMBER = ("", "-", "none", "null", "n/a", "na", "nan")
_TAGS = ("[one]", "[several]")  # pydantic adds them to the path of an error


def validate(task: Task, path: Path, file: str = "") -> tuple[dict[str, object] | None, list[Finding]]:
    """Check a metadata file against the keys that the task asks for.

    Args:
        task: The task.
        path: The file.
        file: The file's name in findings (default: its path).

    Returns:
        The values of the file (None if it cannot be read or has no keys), and the findings in the order of the file.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    document = read(path, file)
    return document.values, check(task, document, file)


def check(task: Task, document: Document, file: str) -> list[Finding]:
    """Check metadata, which may be read from a file or made by a program.

    Args:
        task: The task.
        document: The values. If they are from a file, the document also has their lines.
        file: The file's name in findings.

    Returns:
        The findings of the document and of this check, in the order of the file. The check ends after `LISTED`
        findings.
    """
    if document.values is None:
        return sorted(document.findings)
    block = Block(task, document, file)
    block.check_values()
    block.check_authors()
    block.check_label()
    block.check_track()
    return sorted(bounded([*document.findings, *block.findings], LISTED, file))


def tasks_of(paths: Iterable[Path]) -> list[str]:
    """Return the tasks for which this kit wrote metadata files, according to their first lines.

    Files that this kit did not write are skipped: their first lines do not name a task.
    """
    first_lines = set()
    for path in paths:
        with path.open("rb") as file:
            first_lines.add(file.readline(SHOWN).decode("utf-8", "replace").partition(":")[0])
    return [name for name in tasks.names() if HEAD + name in first_lines]


def of_others(task: Task, paths: Iterable[Path], file: str) -> list[Finding]:
    """Warn about metadata files that were written for another task.

    Args:
        task: The task.
        paths: The metadata files of one package, or a single file.
        file: The name of the package or file in the finding.
    """
    others = [name for name in tasks_of(paths) if name != task.name]
    if not others:
        return []
    message = f"was written for {' and '.join(others)}, according to the first line of the metadata; "
    message += f"did you mean --task {others[0]}?"
    return [Finding(file, message=message, severity=WARNING)]


# Blocks ---------------------------------------------------------------------------------------------------------------


class Block:
    """A block of metadata with every key in its right place.

    Attributes:
        values: The values of the block, with misspelt and misplaced keys moved to their right places.
        findings: The findings so far.
    """

    def __init__(
        self, task: Task, document: Document, file: str, root: KeyPath = (), values: Mapping[str, object] | None = None
    ):
        """Move the keys to their right places, and find misspelt, misplaced and unknown ones.

        Args:
            task: The task.
            document: The file that contains the block.
            file: The file's name in findings.
            root: The path of the block in the file.
            values: The block (default: the whole document).
        """
        self.task, self.document, self.file, self.root = task, document, file, root
        self.findings: list[Finding] = []
        self._top = task.whole
        self._origins: dict[KeyPath, KeyPath] = {}  # from the right path of each moved value to its path in the file
        self._moves: list[tuple[Key, object, KeyPath, KeyPath]] = []  # key, value, path in the file, right path
        self._unchecked: set[KeyPath] = set()
        self.values = self._move_within(self._top, document.values if values is None else values, (), ())
        while self._moves:
            self._move(*self._moves.pop(0))

    def origin(self, path: KeyPath) -> KeyPath:
        """Return the path where the file has the value that belongs at `path`. Both paths begin at the block."""
        for length in range(len(path), 0, -1):
            moved_from = self._origins.get(path[:length])
            if moved_from is not None:
                return moved_from + path[length:]
        return path

    def find(self, origin: KeyPath, message: str, severity: str = ERROR) -> None:
        """Add a finding about a path in the file (`origin`), which begins at the block."""
        self._add(self.document.line(self.root + origin), origin, message, severity)

    def _add(self, line: int, path: KeyPath, message: str, severity: str) -> None:
        self.findings.append(Finding(self.file, line, dotted(self.root + path), message, severity))

    def _severity(self, path: KeyPath) -> str:
        """Return the severity of a finding about an unknown or missing key.

        It is an error if the task's facts about the block of the key are verified. Otherwise it is a warning, because
        the official template may differ from the facts.
        """
        facts = list(self.task.metadata.values())
        if path and path[0] in self.task.metadata:
            facts = [self.task.metadata[path[0]]]
        if all(fact.certainty == "verified" for fact in facts):
            return ERROR
        return WARNING

    # Moving keys to their right places

    def _move_within(self, key: Key, value: object, origin: KeyPath, path: KeyPath) -> Any:
        """Return the value of a key, with the keys below it in their right places.

        The keys that belong elsewhere are left out, and planned to be moved there.

        Args:
            key: The key.
            value: The key's value in the file.
            origin: The key's path in the file.
            path: The key's right path.
        """
        if not key.keys:
            return value
        if key.many and value and isinstance(value, Mapping):
            advice = "put '- ' before the first key, and indent the others by 2 more blanks"
            self.find(origin, f"must be a list; found keys and values: {advice}")
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
            elif len(self.findings) <= LISTED:  # more findings are not shown
                self._find_place(key, name, value, absent, origin, path)
        return placed

    def _find_place(
        self, key: Key, name: str, value: object, absent: Sequence[str], origin: KeyPath, path: KeyPath
    ) -> None:
        """Add a finding about an unknown key. If only one right place is possible, plan to move the key there.

        Args:
            key: The key above it.
            name: The unknown key.
            value: Its value.
            absent: The keys below `key` that the file does not have.
            origin: The path of `key` in the file.
            path: The right path of `key`.
        """
        here = (*origin, name)
        same_but_case = lookalike(list(key.keys))(name)
        places: list[KeyPath] = []
        if not same_but_case:
            places = _nearest(_places(self._top, name), path)
        if not places:
            self.find(here, unknown_key(cut(name), list(key.keys)), self._severity(path))
            close = difflib.get_close_matches(name[:SHOWN], absent, n=1)
            meant = same_but_case or next(iter(close), None)
            if meant is not None and meant in absent:
                self._moves.append((key.keys[meant], value, here, (*path, meant)))
            return
        free = [place for place in places if value_at(self.document.values, self.root + place) is ABSENT]
        parents = dict.fromkeys(place[:-1] for place in free or places)
        named = " or ".join(_place_name(parent) for parent in parents)
        if not free:
            self.find(here, f"belongs {named}, where the file has it already; remove this one", self._severity(path))
            return
        self.find(here, f"belongs {named}; move it there, indented like the keys there", self._severity(path))
        if len(free) == 1 and "*" not in free[0]:
            self._moves.append((self._key(free[0]), value, here, free[0]))

    def _move(self, key: Key, value: object, origin: KeyPath, path: KeyPath) -> None:
        """Move a value from its path in the file (`origin`) to its right path."""
        if not key.keys and isinstance(value, Mapping):  # keys that belong next to it are indented too far
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
        """Return the key at a path of the task's metadata."""
        key = self._top
        for name in path:
            if not isinstance(name, int):
                key = key.keys[name]
        return key

    # Values

    def check_values(self, whole: bool = True) -> None:
        """Check the type, length and range of the values.

        Args:
            whole: Whether the block must be complete, so that missing keys are reported.
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
        severity = ERROR
        if key.need != "required":
            severity = self._severity(path)
        null = ""
        if key.need == "nullable":
            null = ", or write !!null if it does not apply"
        line = self.document.line(self.root + self.origin(path[:-1]))
        self._add(line, path, f"is missing; add it{null}{_hint(key)}", severity)

    def check_authors(self) -> None:
        """Check that exactly one author is the corresponding author."""
        authors = value_at(self.values, AUTHORS)
        if not isinstance(authors, list) or not authors or not all(isinstance(author, dict) for author in authors):
            return
        marks = [author.get("corresponding") for author in authors]
        chosen = [place for place, mark in enumerate(marks) if _is_yes(mark)]
        if not chosen and all(mark is None or mark is False for mark in marks):
            message = "must have a corresponding author; found none: add 'corresponding: true' to one author"
            self.find(self.origin(AUTHORS), message)
        elif len(chosen) > 1:
            places = [self.origin((*AUTHORS, place, "corresponding")) for place in chosen]
            lines = [self.document.line(self.root + place) for place in places]
            *first, last = [str(line) for line in lines if line] or [""]
            where = ""
            if first:
                where = f" (lines {', '.join(first)} and {last})"
            message = f"must have only one corresponding author; found {len(chosen)}{where}: keep one of them"
            self.find(places[1], message)

    def check_label(self) -> None:
        """Check that the label follows the task's rule and names the corresponding author."""
        label = value_at(self.values, LABEL)
        if not isinstance(label, str) or not label.strip():
            return
        fields = self.task.label_fields(label)
        if fields is None or not label.isprintable() or label != label.strip():
            self.find(self.origin(LABEL), label_fault(self.task, label))
        else:
            self.check_author_of_label(fields["author"], self.origin(LABEL))

    def check_track(self) -> None:
        """Warn if the number that decides the system's track is above all limits."""
        if not self.task.tracks:
            return
        path = tuple(self.task.tracks.key.value.split("."))
        number = value_at(self.values, path)
        if isinstance(number, int) and number > 0 and not self.task.tracks.track_with(str(number)):
            message = f"{self.task.tracks.no_track(str(number))}; correct the number"
            self.find(self.origin(path), message, severity=WARNING)

    def check_author_of_label(self, author: str, origin: KeyPath) -> None:
        """Warn if the author in the labels is clearly not the corresponding author.

        Args:
            author: The author in the labels.
            origin: The path, from the start of the block, that the warning is about.
        """
        authors = value_at(self.values, AUTHORS)
        if not isinstance(authors, list):
            return
        for entry in authors:
            if isinstance(entry, dict) and _is_yes(entry.get("corresponding")):
                last = entry.get("lastname")
                if isinstance(last, str) and _clearly_differ(author, last):
                    message = f"should name the corresponding author, {quoted(last)}; found {quoted(author)}"
                    self.find(origin, message, WARNING)
                return


def value_at(values: object, path: KeyPath) -> object:
    """Return the value at a path in nested mappings and lists, or `ABSENT` if there is no such value."""
    value: Any = values
    for name in path:
        inside = isinstance(value, list) and isinstance(name, int) and name < len(value)
        if not inside and not (isinstance(value, Mapping) and name in value):
            return ABSENT
        value = value[name]
    return value


def _places(key: Key, name: str, path: KeyPath = ()) -> list[KeyPath]:
    """Return the path of every key with this name below `key`. In a path, `*` stands for any entry of a list."""
    places = []
    for other, below in key.keys.items():
        here = (*path, other)
        if other == name:
            places.append(here)
        if below.many:
            places += _places(below, name, (*here, "*"))
        else:
            places += _places(below, name, here)
    return places


def _nearest(places: Sequence[KeyPath], here: KeyPath) -> list[KeyPath]:
    """Return the places that are in the same list entries as `here`, or all places if there are no such places.

    In a place that shares a list with `here`, the `*` is replaced by the index of the entry that contains `here`.
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
    """Return the words that describe a place for keys, such as `under system.description`."""
    if not path:
        return "at the top level"
    names = dotted(tuple(name for name in path if name != "*"))
    if path[-1] == "*":
        return f"in an entry of {names}"
    return f"under {names}"


# Schema ---------------------------------------------------------------------------------------------------------------


def _mapping_schema(key: Key) -> CoreSchema:
    """Return the pydantic schema of the keys below a key."""
    fields = {}
    for name, below in key.keys.items():
        fields[name] = core_schema.typed_dict_field(_field_schema(name, below), required=below.need != "optional")
    mapping = core_schema.typed_dict_schema(fields)
    return core_schema.no_info_before_validator_function(partial(_check_mapping, key), mapping)


def _field_schema(name: str, key: Key) -> CoreSchema:
    """Return the pydantic schema of a key's value."""
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
    """Return the tag that selects the schema of a value: that of a list, or that of a single value."""
    if isinstance(value, list):
        return "[several]"
    return "[one]"


def _fault(message: str, severity: str = ERROR) -> PydanticCustomError:
    """Return an exception with the message of a finding. A validator raises it, and pydantic reports it."""
    return PydanticCustomError(severity, "{message}", {"message": message})


def _hint(key: Key) -> str:
    """Return the task's hint about a key as the end of a message, or an empty text if the key does not have a hint."""
    if key.hint:
        return f": {key.hint}"
    return ""


def _check_present(key: Key, value: object, check: Callable[[object], object]) -> object:
    """Check a value. An empty value is accepted if the key is not required."""
    if value is None or value in ({}, []):
        if key.need == "required":
            raise _fault(f"must not be empty; fill it in{_hint(key)}")
        return value
    return check(value)


def _check_list(key: Key, value: object, check: Callable[[object], object]) -> object:
    if value is not None and value != {} and not isinstance(value, list):
        raise _fault(f"must be a list; found {shown(value)}: write each entry in a line that starts with '- '")
    return _check_present(key, value, check)


def _check_mapping(key: Key, value: object) -> object:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list):
        raise _fault("must be keys and values; found a list: remove the '- '")
    names = ", ".join(name for name, below in key.keys.items() if below.need != "optional") or "its keys"
    raise _fault(f"must be keys and values ({names}); found {shown(value)}")


def _check_leaf(name: str, key: Key, value: object) -> object:
    """Check the value of a key that has no keys below it."""
    if value is None:
        if key.need == "required":
            raise _fault(f"must not be empty; fill it in{_hint(key)}")
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
    """Return the message about keys or a list in the place of a single value."""
    nested = isinstance(value, Mapping) or any(isinstance(entry, Mapping | list) for entry in value)
    if key.type == "text" and not nested:
        return f"must be text; found a list: join the entries with commas: {quoted(', '.join(map(str, value)))}"
    expected = {"text": "text", "yes-no": "yes or no"}.get(key.type, "a number")
    message = f"must be {expected}; found {shown(value)}"
    if isinstance(value, Mapping):
        message += ": put a text that contains ': ' in quotes"
    return message


def _check_text(name: str, key: Key, value: object) -> None:
    text = str(value)
    if not text.strip():
        if key.need == "required":
            raise _fault(f"must not be empty; fill it in{_hint(key)}")
        raise _fault("should not be an empty text; fill it in, or write !!null if it does not apply", WARNING)
    if key.most and len(text) > key.most:
        raise _fault(f"must not have more than {key.most} characters; found {len(text)}: {quoted(text)}")
    if not isinstance(value, str):
        kind = "a number"
        if isinstance(value, bool):
            kind = "yes or no"
        raise _fault(f"must be text; found {value!r}, which YAML reads as {kind}: put it in quotes", WARNING)
    if name == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", text):
        raise _fault(f"should be an e-mail address; found {quoted(text)}", WARNING)


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
    expected = "a number"
    if whole:
        expected = "a whole number"
    if isinstance(value, str):
        raise _fault(f"must be {expected}{_number_as_text(key, value, whole)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _fault(f"must be {expected}; found {value!r}")
    if not math.isfinite(value):
        raise _fault(f"must be {expected}, and finite; found {value!r}")
    if whole and not isinstance(value, int):
        message = f"must be {expected}; found {value!r}"
        if value.is_integer() and value >= 0:
            message += f": write {int(value)}"
        raise _fault(message)
    if whole and value < 0:
        raise _fault(f"must not be negative; found {value}")
    if key.metric:
        _check_metric(key.metric, value)


def _check_metric(name: str, value: float) -> None:
    """Warn about a value outside the range of a metric (0 to 1 if the catalogue of metrics does not have it)."""
    metric = catalogue.find(name)
    highest = 1.0
    if metric:
        highest = metric.high
    if 0 <= value <= highest:
        return
    message = f"must be between 0 and {highest:g}; found {value!r}"
    if 0 < value / 100 <= highest:
        message += f": if it is in per cent, write {value / 100:.6g}"
    raise _fault(message, WARNING)


def _number_as_text(key: Key, text: str, whole: bool) -> str:
    """Return the end of the message about a text in the place of a number. It suggests the number that was meant.

    Args:
        key: The key.
        text: The text.
        whole: Whether the number must be a whole number.
    """
    if text.strip().casefold() in _NO_NUMBER and key.need != "required":
        return f"; found {quoted(text)}: write !!null if it does not apply"
    number = _meant_number(text, whole)
    exponent = re.fullmatch(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)", text)
    if exponent and number and not whole:
        mantissa, fraction, sign, power = exponent.groups()
        return f"; found {text}, which YAML reads as text: write {mantissa}{fraction or '.0'}e{sign or '+'}{power}"
    advice = ""
    if number:
        advice = f": write {number}"
    if number == text:
        advice += ", without quotes"
    return f"; found the text {quoted(text)}{advice}"


def _meant_number(text: str, whole: bool) -> str:
    """Return the number that a text such as '140,000,000' or '12 M' probably means, written as YAML.

    The result is empty if the text does not look like a number, or if the number must be whole but is not.
    """
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
    """Return whether a value is true, or a text such as 'Yes' that means it."""
    return value is True or (isinstance(value, str) and value.strip().casefold() in _YES)


# Labels ---------------------------------------------------------------------------------------------------------------


def label_fault(task: Task, label: str) -> str:
    """Return the message about a label that breaks the task's rule. It suggests a correct label if that is clear."""
    rule, most = task.label.value, task.systems.value
    rule_parts, parts = rule.split("_"), label.strip().split("_")
    faults = []
    if "/" in label:
        faults.append("it must not contain '/'")
    if not label.isprintable() or label != label.strip():
        faults.append("it must not contain control characters, or start or end with a blank")
    corrected = ""
    if len(parts) != len(rule_parts):
        faults.append(f"it has {len(parts)} parts joined by '_', not {len(rule_parts)}: no part may contain '_'")
    else:
        corrected_parts = list(parts)
        for index, (rule_part, part) in enumerate(zip(rule_parts, parts, strict=True)):
            if "{" not in rule_part and part != rule_part:
                corrected_parts[index] = rule_part
                faults.append(f"{cut(part)!r} must be {rule_part!r}")
        if parts[-1] not in map(str, range(1, most + 1)):
            faults.append(f"the index {quoted(parts[-1])} must be 1 to {most}")
            corrected_parts[-1] = parts[-1].lstrip("0")
        corrected = "_".join(corrected_parts)
    advice = ""
    if corrected != label and task.label_fields(corrected):
        advice = f"; write {quoted(corrected)}"
    reasons = ", and ".join(faults) or "a part is empty"
    message = f"must have the form {rule} with an index from 1 to {most}; found {quoted(label)}: {reasons}{advice}"
    return cut(message, 4 * SHOWN)


def _clearly_differ(one: str, other: str) -> bool:
    """Return whether two names differ in more than case, accents, hyphens and a few letters."""
    first, second = _plain_letters(one), _plain_letters(other)
    if not first or not second or first in second or second in first:
        return False
    return difflib.SequenceMatcher(None, first, second).ratio() < 0.6


def _plain_letters(name: str) -> str:
    """Return the ASCII letters and digits of a name, in lower case and without accents."""
    letters = unicodedata.normalize("NFKD", name[:SHOWN]).casefold()
    return "".join(letter for letter in letters if letter.isalnum() and letter.isascii())


def merged(*blocks: Mapping[str, object]) -> dict[str, object]:
    """Merge blocks of metadata key by key.

    If several blocks have a value for the same key, that of the last block is kept; but mappings are merged in turn.
    """
    result: dict[str, object] = {}
    for block in blocks:
        for name, value in block.items():
            if isinstance(value, Mapping):
                earlier = result.get(name)
                if isinstance(earlier, Mapping):
                    value = merged(earlier, value)
                else:
                    value = merged({}, value)
            result[name] = value
    return result
