"""Reading of YAML files that contain keys and values, with the line of each key.

`evaluation.yamlfiles` explains how YAML is read, and limits the time and memory that a hostile file can use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from evaluation import yamlfiles
from evaluation.findings import ERROR, WARNING, BadRequest, Finding, bounded
from evaluation.text import cut, quoted
from evaluation.yamlfiles import DIGITS, TAG, Unreadable

LISTED = 100  # maximum number of findings, after which the check ends
NOTES = {"abbreviation": "; the official template indents it wrongly"}  # notes about keys that are often misplaced

KINDS = {  # for each type of YAML node, the kinds of values that a file may have
    yaml.MappingNode: ("map",),
    yaml.SequenceNode: ("seq",),
    yaml.ScalarNode: ("str", "null", "bool", "int", "float", "timestamp"),
}

KeyPath = tuple[str | int, ...]  # path of a value: the keys above it and its own key; for list entries, indices from 0


@dataclass(frozen=True)
class Document:
    """The content of a YAML file.

    Attributes:
        values: A dict of the keys and values; None if the file cannot be read, or has no keys.
        lines: A dict from the path of each key and list entry to its line.
        findings: Findings about the YAML.
        broken: Paths of values that YAML cannot read. These values are None and have findings.
        nulls: Paths of values that are written as null. Values that are left empty are not included.
    """

    values: dict[str, object] | None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)
    nulls: set[KeyPath] = field(default_factory=set)

    def line(self, path: KeyPath) -> int:
        """Return the line of a path, or of the nearest key above it that has a line, or 0 if none of them has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read(path: Path, file: str = "") -> Document:
    """Read a YAML file of keys and values.

    Args:
        path: The file.
        file: The file's name in findings (default: its path).

    Returns:
        The document. It has findings if the file cannot be read, or has content that metadata must not have.

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
            raise Unreadable(0, "must have keys and values; found nothing")
        if not isinstance(node, yaml.MappingNode):
            raise Unreadable(node.start_mark.line + 1, "must have keys and values, such as 'name: My system'")
    except Unreadable as fault:
        return Document(None, {}, [*findings, Finding(file, fault.line, message=fault.message)])
    lines: dict[KeyPath, int] = {}
    reader = _Values(file, lines, findings)
    values = reader.value(node, ())
    if not isinstance(values, dict):
        values = None
    return Document(values, lines, bounded(findings, LISTED, file), reader.broken, reader.nulls)


class _Values:
    """Converter of YAML nodes to values.

    It adds a finding for each part of the YAML that a metadata file must not have, such as a tag or a repeated key.
    """

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
            self.find(node, path, f"'{node.value}' has a special meaning in YAML; put it in quotes")
            return node.value
        if kind not in KINDS[type(node)]:
            self.find(node, path, f"must not have the tag {quoted(node.tag)}; remove it")
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
        """Return the keys and values of a mapping. Repeated keys, and keys that are not text, are left out."""
        values: dict[str, object] = {}
        for own, (name, value) in self._pairs(node, path):
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
                if own:
                    message = f"must not be repeated; it is in line {self.lines[here]} already: keep one of the two"
                    self.find(name, here, message)
                continue
            self.lines[here] = line
            values[name.value] = self.value(value, here)
        return values

    def _pairs(self, node: yaml.MappingNode, path: KeyPath) -> list[tuple[bool, tuple[yaml.Node, yaml.Node]]]:
        """Return the keys and values of a mapping: first its own, then those that `<<` copies from other mappings.

        Each pair of a key and a value comes with True if it is the mapping's own, and False if it is copied.
        """
        own, copied = [], []
        for name, value in node.value:
            if name.tag != f"{TAG}merge":
                own.append((True, (name, value)))
                continue
            sources = [value]
            if isinstance(value, yaml.SequenceNode):
                sources = value.value
            for source in sources:
                if isinstance(source, yaml.MappingNode):
                    copied += [(False, pair) for _, pair in self._pairs(source, path)]
                else:
                    self.find(name, path, "'<<' must be followed by an alias of keys, such as '<<: *other'")
        return own + copied

    def _scalar(self, node: yaml.ScalarNode, kind: str, path: KeyPath) -> object:
        """Return the value of a scalar node. If YAML cannot read it, add a finding and return None."""
        text = node.value
        if kind == "null":
            if node.end_mark.index > node.start_mark.index:
                self.nulls.add(path)
            return None
        if kind == "str":
            if any("\ud800" <= character <= "\udfff" for character in text):
                message = f"must not contain half a character (a surrogate); found {quoted(text)}: write all of it"
                self.find(node, path, message)
                self.broken.add(path)
                return None
            return text
        try:
            if len(text) > DIGITS:  # numbers to the base 60 take quadratic time, and Python prints 4300 digits at most
                raise ValueError
            value = getattr(self.constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError, IndexError, OverflowError, AttributeError):
            expected = {"timestamp": "a date", "bool": "yes or no"}.get(kind, "a number")
            message = f"must be {expected}, because YAML reads it as one; found {quoted(text)}"
            self.find(node, path, f"{message}: correct it, or put it in quotes")
            self.broken.add(path)
            return None
        if kind == "timestamp":  # metadata files have no keys whose values are dates, so this must be a text
            message = f"must be text; found {text}, which YAML reads as a date: put it in quotes: '{text}'"
            self.find(node, path, message, WARNING)
            return text
        return value


# Findings -------------------------------------------------------------------------------------------------------------


def dotted(path: KeyPath) -> str:
    """Return a path with dots between its keys, such as `submission.authors.1`, with list indices from 1."""
    parts = [str(name + 1) if isinstance(name, int) else name for name in path]
    return cut(".".join(parts))


def shown(value: object) -> str:
    """Return a short text for a value in a message."""
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return quoted(value)
    return repr(value)
