"""YAML files of keys and values, read with the line of each, whoever made them.

`evaluation.yamlfiles` says how YAML is read, and within which bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from evaluation import yamlfiles
from evaluation.findings import ERROR, WARNING, BadRequest, Finding, bounded, cut, quoted
from evaluation.yamlfiles import DIGITS, TAG, Unreadable

LISTED = 100  # findings, after which the check ends
NOTES = {"abbreviation": "; the official template has it wrong"}  # of keys that are often indented wrongly

KeyPath = tuple[str | int, ...]  # of a value; places in lists count from 0


@dataclass(frozen=True)
class Document:
    """A YAML file as it was read.

    Attributes:
        values: What it holds; None where it cannot be read, or holds no keys.
        lines: The line of each key and list entry, by its path.
        findings: What is wrong with it as YAML.
        broken: Paths of values that YAML cannot give, which the findings speak of; they are None.
        nulls: Paths of values that are null in so many letters, and not only left empty.
    """

    values: dict[str, object] | None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)
    nulls: set[KeyPath] = field(default_factory=set)

    def line(self, path: KeyPath) -> int:
        """The line of a path, or of what it would stand in; 0 where there is none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read(path: Path, file: str = "") -> Document:
    """Read a YAML file of keys and values, whoever made it.

    Args:
        path: The file.
        file: Its name in findings; its path by default.

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
    maker = _Values(file, lines, findings)
    values = maker.of(node, ())
    return Document(
        values if isinstance(values, dict) else None, lines, bounded(findings, LISTED, file), maker.broken, maker.nulls
    )


class _Values:
    """Turns nodes into values, and finds what no metadata file may hold."""

    def __init__(self, file: str, lines: dict[KeyPath, int], findings: list[Finding]):
        self.file, self.lines, self.findings = file, lines, findings
        self.broken: set[KeyPath] = set()
        self.nulls: set[KeyPath] = set()
        self.make = yaml.constructor.SafeConstructor()

    def find(self, node: yaml.Node, path: KeyPath, message: str, severity: str = ERROR) -> None:
        self.findings.append(Finding(self.file, node.start_mark.line + 1, dotted(path), message, severity))

    def of(self, node: yaml.Node, path: KeyPath) -> object:
        kinds = {yaml.MappingNode: ("map",), yaml.SequenceNode: ("seq",)}
        scalars = ("str", "null", "bool", "int", "float", "timestamp")
        kind = node.tag.removeprefix(TAG)
        if kind in ("value", "merge") and isinstance(node, yaml.ScalarNode):
            self.find(node, path, f"'{node.value}' has a meaning of its own in YAML; put it in quotes")
            return node.value
        if kind not in kinds.get(type(node), scalars):
            message = f"has the tag {quoted(node.tag)}, which has no meaning here; remove it"
            self.find(node, path, message)
            self.broken.add(path)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for place, item in enumerate(node.value):
                self.lines[*path, place] = item.start_mark.line + 1
            return [self.of(item, (*path, place)) for place, item in enumerate(node.value)]
        return self._scalar(node, kind, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for given, (name, value) in self._pairs(node, path):
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode) or name.tag != f"{TAG}str":
                found = quoted(name.value) if isinstance(name, yaml.ScalarNode) else "a list or keys"
                self.find(name, path, f"every key must be text; found {found}: put it in quotes, or remove it")
                continue
            here = (*path, name.value)
            if name.value in values:
                if given:
                    message = f"stands in line {self.lines[here]} already; keep one of them"
                    self.find(name, here, message)
                continue
            self.lines[here] = line
            values[name.value] = self.of(value, here)
        return values

    def _pairs(self, node: yaml.MappingNode, path: KeyPath) -> list[tuple[bool, tuple[yaml.Node, yaml.Node]]]:
        """The pairs of a mapping and whether they stand there; after them those that `<<` takes from others."""
        given, taken = [], []
        for name, value in node.value:
            if name.tag != f"{TAG}merge":
                given.append((True, (name, value)))
                continue
            for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
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
            value = getattr(self.make, f"construct_yaml_{kind}")(node)
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
    return cut(".".join(str(name + 1) if isinstance(name, int) else name for name in path))


def shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "keys and values"
    return "a list" if isinstance(value, list) else quoted(value) if isinstance(value, str) else repr(value)
