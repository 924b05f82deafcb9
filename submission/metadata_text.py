"""Metadata written as YAML: the keys in the task's order, with hints as comments, and values that read back equal."""

import math
import re
import textwrap
from collections.abc import Mapping

import yaml

from evaluation.findings import printable, quoted, unknown_key
from submission.documents import KeyPath, dotted, shown
from submission.tasks import Key, Task

WIDTH = 120
HEAD = "# Metadata of a system for "  # and the task's name, before a colon, is how `text` begins
ABSENT = object()

_PLAIN = re.compile(r"[^\W\d_](?:[\w .,@/+()'%&=?~*;!-]|:(?=\S)|(?<=\S)#)*")
_RESOLVER = yaml.resolver.Resolver()


def text(task: Task, values: Mapping[str, object]) -> str:
    """The task's metadata file: keys in its order, hints as comments, and values that read back equal.

    A key that may be null and has no value is `!!null`, a required one is left empty, a result too, and any other
    optional one is a comment.

    Raises:
        ValueError: A key is unknown, or a value cannot stand where it does.
    """
    top = task.whole
    lines = [f"{HEAD}{task.name}: {task.title}"]
    for name, key in top.keys.items():
        lines += ["", *key_lines(name, key, values.get(name, ABSENT), "", (name,), template=False)]
    _refuse_unknown(top, values, ())
    return "\n".join(lines) + "\n"


def _refuse_unknown(key: Key, values: Mapping[str, object], path: KeyPath) -> None:
    for name in values:
        if name not in key.keys:
            raise ValueError(f"{dotted(path)}: {unknown_key(str(name), list(key.keys))}".removeprefix(": "))


def key_lines(name: str, key: Key, value: object, indent: str, path: KeyPath, template: bool) -> list[str]:
    """The lines of a key and what is below it; in a template, what has no value is left empty for it."""
    if value is ABSENT:
        if template and name == "corresponding":
            value = True
        elif key.need == "optional" and not has_metric(key):
            empty = key.model_copy(update={"need": "required"} if template else {"need": "required", "keys": {}})
            commented = key_lines(name, empty, ABSENT, indent, path, template)
            return [f"{indent}# {line.removeprefix(indent)}" for line in commented]
        elif key.need == "nullable" and not key.keys and not template:
            value = None
    head = f"{indent}{written(name)}:"
    if value is None:
        return hinted(head if key.metric else f"{head} !!null", key.hint, indent)
    several = key.many or (isinstance(value, list) and name == "affiliation")
    if several and key.keys:
        if value is ABSENT:
            value = [{}]
        if not isinstance(value, list):
            raise ValueError(f"{dotted(path)}: must be a list; found {shown(value)}")
        if not value:
            return hinted(f"{head} []", key.hint, indent)
        lines = hinted(head, key.hint, indent)
        for place, entry in enumerate(value):
            lines += _listed(_below(key, entry, indent + "    ", (*path, place), template), indent + "  ")
        return lines
    if key.keys:
        below = _below(key, {} if value is ABSENT else value, indent + "  ", path, template)
        return [*hinted(head, key.hint, indent), *below]
    if value is ABSENT:
        return hinted(head, key.hint, indent)
    if key.many:
        if not isinstance(value, list):
            raise ValueError(f"{dotted(path)}: must be a list; found {shown(value)}")
        return hinted(head if value else f"{head} []", key.hint, indent) + [
            f"{indent}  - {_leaf_text(entry, (*path, place))}" for place, entry in enumerate(value)
        ]
    return hinted(f"{head} {_leaf_text(value, path)}", key.hint, indent)


def _below(key: Key, values: object, indent: str, path: KeyPath, template: bool) -> list[str]:
    if not isinstance(values, Mapping):
        raise ValueError(f"{dotted(path)}: must be keys and values; found {shown(values)}")
    _refuse_unknown(key, values, path)
    return [
        line
        for name, below in key.keys.items()
        for line in key_lines(name, below, values.get(name, ABSENT), indent, (*path, name), template)
    ]


def _listed(lines: list[str], indent: str) -> list[str]:
    """The lines of a list's entry, a dash before the first key."""
    first = next((n for n, line in enumerate(lines) if not line.lstrip().startswith("#")), None)
    if first is None:
        return [f"{indent}- {{}}", *lines]
    return [*lines[:first], f"{indent}- {lines[first].lstrip()}", *lines[first + 1 :]]


def has_metric(key: Key) -> bool:
    return bool(key.metric) or any(map(has_metric, key.keys.values()))


def hinted(line: str, hint: str, indent: str) -> list[str]:
    """A line with its hint beside it, or above where that has no room."""
    hint = printable(hint)
    if not hint:
        return [line]
    if len(line) + 4 + len(hint) <= WIDTH:
        return [f"{line}  # {hint}"]
    return [*comment(hint, indent), line]


def comment(words: str, indent: str = "") -> list[str]:
    return textwrap.wrap(words, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _leaf_text(value: object, path: KeyPath) -> str:
    if value is None or isinstance(value, str | bool | int | float):
        try:
            return written(value)
        except ValueError as error:
            raise ValueError(f"{dotted(path)}: {error}") from None
    raise ValueError(f"{dotted(path)}: must be one value; found {shown(value)}")


def written(value: str | float | bool | None) -> str:
    """A value as YAML that every reader, of YAML 1.1 or 1.2, takes for the same."""
    if value is None:
        return "!!null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return ".nan" if math.isnan(value) else "-.inf" if value < 0 else ".inf"
        mantissa, _, power = repr(value).partition("e")
        return (mantissa if "." in mantissa else f"{mantissa}.0") + (f"e{power}" if power else "")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"holds half a character (a surrogate): {quoted(value)}")
    if (
        _PLAIN.fullmatch(value)
        and value.isprintable()
        and value[-1] != " "
        and value.casefold() not in ("y", "n")
        and _RESOLVER.resolve(yaml.ScalarNode, value, (True, False)) == "tag:yaml.org,2002:str"
    ):
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
