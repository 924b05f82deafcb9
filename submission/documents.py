"""YAML files of keys and values, read with the line of each key.

`evaluation.yamlfiles` says how YAML is read, and which limits keep hostile files from taking long or much memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from evaluation import yamlfiles
from evaluation.findings import ERROR, WARNING, BadRequest, Finding, bounded
from evaluation.text import cut, quoted
from evaluation.yamlfiles import DIGITS, TAG, Unreadable

LISTED = 100  # findings, after which the check ends
NOTES = {"abbreviation": "; the official template has it wrong"}  # of keys that are often indented wrongly

KINDS = {  # of values that a file may hold, by the type of their node
    yaml.MappingNode: ("map",),
    yaml.SequenceNode: ("seq",),
    yaml.ScalarNode: ("str", "null", "bool", "int", "float", "timestamp"),
}

KeyPath = tuple[str | int, ...]  # of a value; places in lists count from 0


@dataclass(frozen=True)
class Document:
    """A YAML file as it was read.

    Attributes:
        values: Its keys and values; None if it cannot be read, or holds no keys.
        lines: The line of each key and list entry, by its path.
        findings: The findings about its YAML.
        broken: The paths of values that YAML cannot read. They are None, and there are findings about them.
        nulls: The paths where null is written, and not only nothing.
    """

    values: dict[str, object] | None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)
    nulls: set[KeyPath] = field(default_factory=set)

    def line(self, path: KeyPath) -> int:
        """Return the line of a path, or of the nearest key above it; 0 if there is none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read(path: Path, file: str = "") -> Document:
    """Read a YAML file of keys and values.

    Args:
        path: The file.
        file: Its name in findings (default: its path).

    Returns:
        The document, with findings if it cannot be read.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give a YAML file")
    findings: list[Finding] = []
    try:
        text = yamlfiles.decode(yamlfiles.first_bytes(path), file, findings, "a metadata file")
        node = yamlfiles.compose(text, NOTES)
        if node is None:
            raise Unreadable(0, "is empty; it must hold keys and values")
        if not isinstance(node, yaml.MappingNode):
            raise Unreadable(node.start_mark.line + 1, "must hold keys and values, such as 'name: My system'")
    except Unreadable as fault:
        return Document(None, {}, [*findings, Finding(file, fault.line, message=fault.message)])
    lines: dict[KeyPath, int] = {}
    reader = _Values(file, lines, findings)
    values = reader.value(node, ())
    if not isinstance(values, dict):
        values = None
    return Document(values, lines, bounded(findings, LISTED, file), reader.broken, reader.nulls)


class _Values:
    """Turns the nodes of a YAML file into values, and finds what no metadata file may hold."""

    def __init__(self, file: str, lines: dict[KeyPath, int], findings: list[Finding]):
        self.file, self.lines, self.findings = file, lines, findings
        self.broken: set[KeyPath] = set()
        self.nulls: set[KeyPath] = set()
        self.constructor = yaml.constructor.SafeConstructor()

    def find(self, node: yaml.Node, path: KeyPath, message: str, severity: str = ERROR) -> None:
        self.findings.append(Finding(self.file, node.start_mark.line + 1, dotted(path), message, severity))

    def value(self, node: yaml.Node, path: KeyPath) -> object:
        """Return the value of a node at a path."""
        kind = node.tag.removeprefix(TAG)
        if kind in ("value", "merge") and isinstance(node, yaml.ScalarNode):
            self.find(node, path, f"'{node.value}' has a meaning of its own in YAML; put it in quotes")
            return node.value
        if kind not in KINDS[type(node)]:
            message = f"has the tag {quoted(node.tag)}, which has no meaning here; remove it"
            self.find(node, path, message)
            self.broken.add(path)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for place, item in enumerate(node.value):
                self.lines[*path, place] = item.start_mark.line + 1
            return [self.value(item, (*path, place)) for place, item in enumerate(node.value)]
        return self._scalar(node, kind, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for given, (name, value) in self._pairs(node, path):
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                self.find(name, path, "every key must be text; found a list or keys: put it in quotes, or remove it")
                continue
            if name.tag != f"{TAG}str":
                found = quoted(name.value)
                self.find(name, path, f"every key must be text; found {found}: put it in quotes, or remove it")
                continue
            here = (*path, name.value)
            if name.value in values:
                if given:
                    message = f"stands in line {self.lines[here]} already; keep one of them"
                    self.find(name, here, message)
                continue
            self.lines[here] = line
            values[name.value] = self.value(value, here)
        return values

    def _pairs(self, node: yaml.MappingNode, path: KeyPath) -> list[tuple[bool, tuple[yaml.Node, yaml.Node]]]:
        """Return the pairs of a mapping: first its own, marked True, then those that `<<` takes from others."""
        given, taken = [], []
        for name, value in node.value:
            if name.tag != f"{TAG}merge":
                given.append((True, (name, value)))
                continue
            others = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for other in others:
                if isinstance(other, yaml.MappingNode):
                    taken += [(False, pair) for _, pair in self._pairs(other, path)]
                else:
                    self.find(name, path, "'<<' takes keys from an alias, such as '<<: *other'")
        return given + taken

    def _scalar(self, node: yaml.ScalarNode, kind: str, path: KeyPath) -> object:
        text = node.value
        if kind == "null":
            if node.end_mark.index > node.start_mark.index:
                self.nulls.add(path)
            return None
        if kind == "str":
            if any("\ud800" <= character <= "\udfff" for character in text):
                self.find(node, path, f"holds half a character (a surrogate); write it out; found {quoted(text)}")
                self.broken.add(path)
                return None
            return text
        try:
            if len(text) > DIGITS:  # powers of 60 take quadratic time, and Python prints no number of 4301 digits
                raise ValueError
            value = getattr(self.constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError, IndexError, OverflowError, AttributeError):
            what = {"timestamp": "a date", "bool": "yes or no"}.get(kind, "a number")
            message = f"is read as {what}, and is none: {quoted(text)}; correct it, or put it in quotes"
            self.find(node, path, message)
            self.broken.add(path)
            return None
        if kind == "timestamp":  # a date has no place in a metadata file, so it is a text
            self.find(node, path, f"is read as a date, and must be text; put it in quotes: '{text}'", WARNING)
            return text
        return value


# Findings -------------------------------------------------------------------------------------------------------------


def dotted(path: KeyPath) -> str:
    """Return a path with dots between its keys, such as `submission.authors.1`; places in lists count from 1."""
    parts = [str(name + 1) if isinstance(name, int) else name for name in path]
    return cut(".".join(parts))


def shown(value: object) -> str:
    """Return a value as findings show it."""
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return quoted(value)
    return repr(value)
