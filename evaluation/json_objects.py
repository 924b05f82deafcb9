"""Strict reading of JSON and JSON lines, with the line or the place of each object.

    findings = []
    entries = read_objects(Path("questions.jsonl"), '{"id": "q1", …}', findings)      # other lines are left out
    for row, entry in valid_rows(QuestionRow, entries, findings):      # objects that are not valid are left out

A file is JSON lines (an object on each line) or JSON (one object, or a list of objects). Repeated keys are errors,
because Python's json module would silently keep the last value.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

from evaluation.findings import Faulty, Finding
from evaluation.text import first_items, quoted

JSON_LINES = (".jsonl", ".ndjson")
JSON_FILES = (".json", *JSON_LINES)
SHOWN = 60  # number of characters of a value to show in a message
KEYS_SHOWN = 8  # number of keys of an object to show in a message

Row = TypeVar("Row", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """An object of a file.

    Attributes:
        content: The keys and values.
        file: The file's name in findings.
        line: The line of the object, from 1; 0 if the file does not have a line for each object.
        place: The place of the object in a JSON file, such as `[3]`; empty if the object has a line or is the file.
    """

    content: Mapping[str, Any]
    file: str
    line: int = 0
    place: str = ""

    def finding(self, key: str, message: str) -> Finding:
        """Return a finding about a key of the object; an empty key stands for the object itself."""
        column = ".".join(part for part in (self.place, key) if part)
        return Finding(self.file, self.line, column, message)


def decode(path: Path) -> str:
    """Return the text of a file in UTF-8, with or without BOM.

    Raises:
        Faulty: The file is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Faulty([Finding(str(path), message="must be UTF-8; it is not: save it as UTF-8")]) from None


def parse(text: str, file: str, line: int = 0) -> Any:
    """Parse JSON.

    Args:
        text: The text.
        file: The file's name in findings.
        line: The line of the text in the file; 0 if it is the whole file.

    Raises:
        Faulty: The text is not JSON, or an object repeats a key.
    """
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.extend(key for key in content if keys.count(key) > 1)
        return content

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        fault = error.msg.removesuffix(" at")
        message = f"must be JSON; {fault} in column {error.colno}: write the file again"
        raise Faulty([Finding(file, line or error.lineno, message=message)]) from None
    except (ValueError, RecursionError):  # an integer of thousands of digits, or thousands of brackets
        message = "must be JSON; a number or list in it is too long to read: write the file again"
        raise Faulty([Finding(file, line, message=message)]) from None
    if repeated:
        raise Faulty(
            Finding(file, line, message=f"must not repeat a key; found {quoted(key)} twice: keep one of them")
            for key in repeated
        )
    return content


def parse_lines(text: str, file: str, example: str, findings: list[Finding]) -> list[Entry]:
    """Parse JSON lines, and return the objects; blank lines are skipped.

    Args:
        text: The text.
        file: The file's name in findings.
        example: An example of an object, for messages.
        findings: The list to which a finding for each line that is not an object is added.

    Raises:
        Faulty: There are several lines, and none of them is a JSON object.
    """
    entries, wrong = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = parse(line, file, number)
        except Faulty as faulty:
            wrong += faulty.findings
            continue
        if isinstance(content, dict):
            entries.append(Entry(content, file, number))
        else:
            message = f"must be a JSON object, such as {example}; found {shown(content)}"
            wrong.append(Finding(file, number, message=message))
    if len(wrong) > 1 and not entries:
        message = f"must be JSON lines, such as {example}; found no line that is an object: give another file"
        raise Faulty([Finding(file, message=message)])
    findings += wrong
    return entries


def parse_list(content: Any, file: str, example: str, findings: list[Finding], list_name: str = "") -> list[Entry]:
    """Return the objects of a list.

    Args:
        content: The list, as `parse` returns it.
        file: The file's name in findings.
        example: An example of an object, for messages.
        findings: The list to which a finding for each element that is not an object is added.
        list_name: The key of the list in its file; empty if the list is the whole file.

    Raises:
        Faulty: The content is not a list.
    """
    if not isinstance(content, list):
        message = f"must be a list of objects, such as [{example}, …]; found {shown(content)}"
        raise Faulty([Finding(file, column=list_name, message=message)])
    entries = []
    for index, element in enumerate(content):
        place = f"{list_name}[{index}]"
        if isinstance(element, dict):
            entries.append(Entry(element, file, place=place))
        else:
            message = f"must be an object, such as {example}; found {shown(element)}"
            findings.append(Finding(file, column=place, message=message))
    return entries


def read_objects(path: Path, example: str, findings: list[Finding]) -> list[Entry]:
    """Read the objects of a file: JSON lines according to its extension, otherwise a JSON list of objects.

    Args:
        path: The file.
        example: An example of an object, for messages.
        findings: The list to which a finding for each line or element that is not an object is added.

    Raises:
        Faulty: The file is not UTF-8, or contains neither JSON lines nor a JSON list.
    """
    text = decode(path)
    if path.suffix.lower() in JSON_LINES:
        return parse_lines(text, str(path), example, findings)
    return parse_list(parse(text, str(path)), str(path), example, findings)


def require_keys(entries: Sequence[Entry], keys: Sequence[str], what: str) -> None:
    """Check that a file has the expected kind of objects, so that one finding reports a file of another kind.

    Args:
        entries: The objects of the file.
        keys: Keys of the expected objects.
        what: The plural noun for the objects.

    Raises:
        Faulty: There are objects, and none of them has any of the keys.
    """
    if not entries or any(key in entry.content for entry in entries for key in keys):
        return
    first = entries[0]
    message = f"must have {what}, which are objects with the keys {', '.join(keys)}; found {_keys(first)}"
    raise Faulty([Finding(first.file, first.line, message=f"{message}: give another file")])


def _keys(entry: Entry) -> str:
    """Return the first keys of an object, for a message."""
    return first_items([quoted(key) for key in entry.content], KEYS_SHOWN) or "no keys"


def shown(value: object) -> str:
    """Return the beginning of a value as JSON, for a message."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


# Types of values ------------------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text; found {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"must be valid Unicode; found {quoted(value)}, which has half a surrogate pair") from None
    return value


def _filled_text(value: object) -> str:
    text = _text(value)
    if not text.strip():
        raise ValueError("must not be blank; fill it in")
    return text


def _identifier(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"must be a text or a whole number; found {shown(value)}")
    return _filled_text(value)


def finite_number(value: object) -> float:
    """Return a value of a file as a float.

    Raises:
        ValueError: The value is not a finite number. The message says what was found.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number; found {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number; found {shown(value)}")
    return number


def _list(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError(f"must be a list; found {shown(value)}")
    return value


Text = Annotated[str, BeforeValidator(_text)]
FilledText = Annotated[str, BeforeValidator(_filled_text)]
Identifier = Annotated[str, BeforeValidator(_identifier)]  # a whole number is read as its digits
Number = Annotated[float, BeforeValidator(finite_number)]
IsList = BeforeValidator(_list)


def valid_rows(schema: type[Row], entries: Sequence[Entry], findings: list[Finding]) -> list[tuple[Row, Entry]]:
    """Return the objects of a file that have the form of a schema, each in this form and as it is in the file.

    A key that all objects lack is one finding, which lists the keys of the first object: one of them may be misspelt.

    Args:
        schema: The schema.
        entries: The objects.
        findings: The list to which a finding for each wrong key is added.
    """
    rows = []
    without: dict[str, list[Entry]] = {}  # for each required key, the objects that lack it
    for entry in entries:
        try:
            rows.append((schema.model_validate(entry.content), entry))
        except ValidationError as invalid:
            for error in invalid.errors(include_url=False):
                key = _key(error["loc"])
                if error["type"] == "missing":
                    without.setdefault(key, []).append(entry)
                else:
                    findings.append(entry.finding(key, _message(error)))
    for key, lacking in without.items():
        if len(lacking) == len(entries):
            where = " to every object" if len(entries) > 1 else ""
            message = f"is missing; add it{where}, or correct its name; found {_keys(lacking[0])}"
            findings.append(lacking[0].finding(key, message))
        else:
            findings += [entry.finding(key, "is missing; add it") for entry in lacking]
    return rows


def _key(location: Iterable[int | str]) -> str:
    """Return the place of a value in an object, such as `relevant_windows[2]`."""
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return key.removeprefix(".")


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{error['msg']}; found {shown(error['input'])}"
