"""Writing of metadata as YAML, with the keys in the task's order and with the task's hints as comments.

Programs that read YAML 1.1 or YAML 1.2 get the same values that were written.
"""

import math
import re
import textwrap
from collections.abc import Mapping

import yaml

from evaluation.text import printable, quoted, unknown_key
from submission.documents import KeyPath, dotted, shown
from submission.tasks import Key, Task

WIDTH = 120
HEAD = "# Metadata of a system for "  # beginning of every text that `text` returns; the task's name and a colon follow
ABSENT = object()  # marks a key that is missing; None is an explicit null

_PLAIN = re.compile(r"[^\W\d_](?:[\w .,@/+()'%&=?~*;!-]|:(?=\S)|(?<=\S)#)*")
_RESOLVER = yaml.resolver.Resolver()


def text(task: Task, values: Mapping[str, object]) -> str:
    """Return the content of a metadata file: keys in the task's order, hints as comments, and the values.

    A key without a value is written in one of three ways:

    - as `!!null` if the key may be null;
    - with an empty value if the key is required, or is the result of a metric;
    - as a comment if it is any other optional key.

    Args:
        task: The task.
        values: The metadata, as nested dicts and lists.

    Raises:
        ValueError: A key is unknown, or a value does not fit its key.
    """
    top = task.whole
    lines = [f"{HEAD}{task.name}: {task.title}"]
    for name, key in top.keys.items():
        lines += ["", *key_lines(name, key, values.get(name, ABSENT), "", (name,), template=False)]
    _refuse_unknown(top, values, ())
    return "\n".join(lines) + "\n"


def _refuse_unknown(key: Key, values: Mapping[str, object], path: KeyPath) -> None:
    """Raise ValueError if a name in `values` is not the name of a key below `key`."""
    for name in values:
        if name not in key.keys:
            raise ValueError(f"{dotted(path)}: {unknown_key(str(name), list(key.keys))}".removeprefix(": "))


def key_lines(name: str, key: Key, value: object, indent: str, path: KeyPath, template: bool) -> list[str]:
    """Return the lines of a key and of the keys below it.

    Args:
        name: The key's name.
        key: The key.
        value: The key's value; `ABSENT` if the key has no value.
        indent: The blanks before the key.
        path: The key's path, for messages.
        template: Whether the lines are a template that a user fills in. Keys that have no value are then left empty,
            also those that may be null.

    Raises:
        ValueError: A key is unknown, or a value does not fit its key.
    """
    if value is ABSENT:
        if template and name == "corresponding":
            value = True
        elif key.need == "optional" and not has_metric(key):
            return _commented_lines(name, key, indent, path, template)
        elif key.need == "nullable" and not key.keys and not template:
            value = None
    head = f"{indent}{written(name)}:"
    if value is None and not key.metric:
        head += " !!null"
    if value is None or (value is ABSENT and not key.keys):
        return hinted(head, key.hint, indent)
    if key.many or (isinstance(value, list) and name == "affiliation"):
        entries = value
        if value is ABSENT:
            entries = [{}]
        if not isinstance(entries, list):
            raise ValueError(f"{dotted(path)}: must be a list; found {shown(entries)}")
        if not entries:
            head += " []"
        lines = hinted(head, key.hint, indent)
        for place, entry in enumerate(entries):
            lines += _entry_lines(key, entry, indent + "  ", (*path, place), template)
        return lines
    if not key.keys:
        return hinted(f"{head} {_leaf_text(value, path)}", key.hint, indent)
    if value is ABSENT:
        value = {}
    return [*hinted(head, key.hint, indent), *_lines_below(key, value, indent + "  ", path, template)]


def _commented_lines(name: str, key: Key, indent: str, path: KeyPath, template: bool) -> list[str]:
    """Return the lines of an optional key as comments. A template also has the lines of the keys below it."""
    changes: dict[str, object] = {"need": "required"}
    if not template:
        changes["keys"] = {}
    lines = key_lines(name, key.model_copy(update=changes), ABSENT, indent, path, template)
    return [f"{indent}# {line.removeprefix(indent)}" for line in lines]


def _lines_below(key: Key, values: object, indent: str, path: KeyPath, template: bool) -> list[str]:
    """Return the lines of the keys below a key."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{dotted(path)}: must be keys and values; found {shown(values)}")
    _refuse_unknown(key, values, path)
    lines = []
    for name, below in key.keys.items():
        lines += key_lines(name, below, values.get(name, ABSENT), indent, (*path, name), template)
    return lines


def _entry_lines(key: Key, entry: object, indent: str, path: KeyPath, template: bool) -> list[str]:
    """Return the lines of an entry of a list, with a dash before its first key."""
    if not key.keys:
        return [f"{indent}- {_leaf_text(entry, path)}"]
    lines = _lines_below(key, entry, indent + "  ", path, template)
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("#"):
            lines[number] = f"{indent}- {line.lstrip()}"
            return lines
    return [f"{indent}- {{}}", *lines]


def has_metric(key: Key) -> bool:
    """Return whether the value of a key, or of a key below it, is the value of a metric."""
    return bool(key.metric) or any(map(has_metric, key.keys.values()))


def hinted(line: str, hint: str, indent: str) -> list[str]:
    """Return a line with a hint as a comment. The comment is above the line if the line would be too long."""
    hint = printable(hint)
    if not hint:
        return [line]
    if len(line) + 4 + len(hint) <= WIDTH:
        return [f"{line}  # {hint}"]
    return [*comment(hint, indent), line]


def comment(words: str, indent: str = "") -> list[str]:
    """Return a text as comment lines."""
    return textwrap.wrap(words, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _leaf_text(value: object, path: KeyPath) -> str:
    """Return a single value as YAML.

    Raises:
        ValueError: The value is a list or a mapping, or YAML cannot contain it. The message begins with the path.
    """
    if value is None or isinstance(value, str | bool | int | float):
        try:
            return written(value)
        except ValueError as error:
            raise ValueError(f"{dotted(path)}: {error}") from None
    raise ValueError(f"{dotted(path)}: must be a single value; found {shown(value)}")


def written(value: str | float | bool | None) -> str:
    """Return a value as YAML that has the same meaning in YAML 1.1 and in YAML 1.2.

    Raises:
        ValueError: The value is a text that contains half a character (a surrogate).
    """
    if value is None:
        return "!!null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _written_float(value)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"must not contain half a character (a surrogate); found {quoted(value)}")
    if _is_plain(value):
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _written_float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        if value < 0:
            return "-.inf"
        return ".inf"
    mantissa, _, power = repr(value).partition("e")
    if "." not in mantissa:
        mantissa += ".0"  # YAML 1.1 reads a number with an exponent, but without a point, as text
    if power:
        return f"{mantissa}e{power}"
    return mantissa


def _is_plain(text: str) -> bool:
    """Return whether a text needs no quotes."""
    if not _PLAIN.fullmatch(text) or not text.isprintable() or text[-1] == " " or text.casefold() in ("y", "n"):
        return False
    return _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str"


def _escaped(character: str) -> str:
    """Return a character as YAML writes it between double quotes."""
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code < 256:
        return f"\\x{code:02x}"
    if code < 65536:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"
