"""YAML files of keys and values, read with the line of each, whoever made them.

What YAML 1.1 makes of a text is judged as PyYAML's own reader does it, with which the organisers read: it refuses more
than libyaml does (a tab between key and value), and `1e-5` is a text to both. A file may have `LIMIT` bytes, `NODES`
values with every alias written out, and `DEPTH` levels, so that none takes long or much memory.
"""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from evaluation.findings import ERROR, SHOWN, WARNING, BadRequest, Finding, bounded, cut, quoted

LIMIT = 2**18  # fifty times what such a file has
NODES = 10_000
DEPTH = 50
DIGITS = 100
LISTED = 100  # findings, after which the check ends

KeyPath = tuple[str | int, ...]  # of a value; places in lists count from 0

_TAG = "tag:yaml.org,2002:"


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


class _UnreadableError(Exception):
    def __init__(self, line: int, message: str):
        self.line, self.message = line, message


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
    with path.open("rb") as stream:
        raw = stream.read(LIMIT + 1)
    findings: list[Finding] = []
    try:
        text = _decoded(raw, file, findings)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        except (ValueError, OverflowError):  # PyYAML's own, of an escape such as "\UFFFFFFFF"
            raise _UnreadableError(loader.line + 1, "holds an escape or a number that there is not; mend it") from None
        finally:
            loader.dispose()
        if node is None:
            raise _UnreadableError(0, "is empty; it must hold keys and values")
        if not isinstance(node, yaml.MappingNode):
            raise _UnreadableError(node.start_mark.line + 1, "must hold keys and values, such as 'name: My system'")
    except _UnreadableError as fault:
        return Document(None, {}, [*findings, Finding(file, fault.line, message=fault.message)])
    except yaml.YAMLError as error:
        line, message = _explained(error, text)
        return Document(None, {}, [*findings, Finding(file, line, message=message)])
    lines: dict[KeyPath, int] = {}
    maker = _Values(file, lines, findings)
    values = maker.of(node, ())
    return Document(
        values if isinstance(values, dict) else None, lines, bounded(findings, LISTED, file), maker.broken, maker.nulls
    )


def _decoded(raw: bytes, file: str, findings: list[Finding]) -> str:
    if len(raw) > LIMIT:
        raise _UnreadableError(0, f"must not be larger than {LIMIT} bytes: is it a metadata file?")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _UnreadableError(0, "must be UTF-8; this is UTF-16: save it as UTF-8")
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise _UnreadableError(line, "must be text; found a NUL byte: write the file anew, as UTF-8")
    if raw.startswith(codecs.BOM_UTF8):
        findings.append(Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING))
        raw = raw.removeprefix(codecs.BOM_UTF8)
    if raw.startswith(codecs.BOM_UTF8):
        raise _UnreadableError(1, "starts with two BOMs, one of which is read as a letter; save it as plain UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        meant = raw[error.start : error.start + 1].decode("cp1252", "replace")
        message = f"must be UTF-8; byte 0x{raw[error.start]:02X} is not (Latin-1 {meant!r}?): save the file as UTF-8"
        findings.append(Finding(file, raw.count(b"\n", 0, error.start) + 1, message=message))
        return raw.decode("cp1252", "replace")  # so that the rest is looked at too


class _Loader(yaml.SafeLoader):
    """Composes nodes, never objects, and stops at too many or too deep ones, aliases written out."""

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = self.count = 0
        self.sizes: dict[int, tuple[int, int]] = {}  # of a finished node, by its id: its values and its levels

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        line = self.peek_event().start_mark.line + 1
        self.depth += 1
        self.count += 1
        self._bounded(line, self.count, self.depth)
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias and id(node) not in self.sizes:
            raise _UnreadableError(line, "is an alias of what it stands in, which has no end; write the values out")
        if not alias:
            inner = []
            if isinstance(node, yaml.SequenceNode):
                inner = [self.sizes[id(child)] for child in node.value]
            elif isinstance(node, yaml.MappingNode):
                inner = [self.sizes[id(child)] for pair in node.value for child in pair]
            levels = 1 + max((levels for _, levels in inner), default=0)
            self.sizes[id(node)] = 1 + sum(count for count, _ in inner), levels
        self._bounded(line, *self.sizes[id(node)])
        return node

    @staticmethod
    def _bounded(line: int, count: int, depth: int) -> None:
        if count > NODES:
            raise _UnreadableError(line, f"must not hold more than {NODES} values, aliases written out")
        if depth > DEPTH:
            raise _UnreadableError(line, f"must not be nested more than {DEPTH} levels deep")


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
        kind = node.tag.removeprefix(_TAG)
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
            if not isinstance(name, yaml.ScalarNode) or name.tag != f"{_TAG}str":
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
            if name.tag != f"{_TAG}merge":
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
            message = f"is read as {what}, and is none: {quoted(text)}; mend it, or put it in quotes"
            self.find(node, path, message)
            self.broken.add(path)
            return None
        if kind == "timestamp":  # a date has no place in a metadata file, so it is a text
            self.find(node, path, f"is read as a date, and must be text; put it in quotes: '{text}'", WARNING)
            return text
        return value


def _explained(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line at fault where YAML cannot be read, and what to do about it."""
    if isinstance(error, yaml.reader.ReaderError):
        line = len(text[: error.position].splitlines()) or 1
        return line, f"must be text; found the control character U+{ord(text[error.position]):04X}: remove it"
    problem, context = getattr(error, "problem", "") or "", getattr(error, "context", "") or ""
    mark, opened = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if mark is None:
        return 0, f"is no YAML ({cut(str(error))})"
    rows, row = text.splitlines(), mark.line
    here = rows[row] if row < len(rows) else ""
    before = here[: mark.column]
    if r"'\t'" in problem:
        if before.strip():
            return row + 1, "has a tab between key and value; use a space"
        more = sum(re.match(r" *\t\s*[^\s#]", other) is not None for other in rows[row + 1 :])
        so = f" (and so are {more} lines below)" if more > 1 else " (and so is a line below)" if more else ""
        return row + 1, f"is indented by a tab{so}; YAML wants spaces: replace each tab by spaces, as many as the level"
    if "found character" in problem:
        return row + 1, f"a value must not start with {here[mark.column : mark.column + 1]!r}; put it in quotes"
    if "unexpected end of stream" in problem and opened:
        return opened.line + 1, "a quote is opened here and never closed; close it, or double a quote that is meant"
    if "flow" in context and opened:
        mark = opened.buffer[opened.pointer] if opened.buffer else "["
        advice = f"close it by {'}' if mark == '{' else ']'}, and put commas between its entries"
        return opened.line + 1, f"what {mark!r} opens here is not closed; {advice}, or put a text in quotes"
    if "undefined alias" in problem:
        return row + 1, "a value that starts with '*' is an alias, and there is no such anchor; put it in quotes"
    if "another document" in problem:
        return row + 1, "must be one document; found a second one after '---': remove it"
    if "anchor" in context + problem and "duplicate" in context + problem:
        return row + 1, f"the anchor in line {opened.line + 1} has the same name; give each its own"
    if "sequence entries are not allowed" in problem:
        return row + 1, "a list starts in the line below its key; put the '-' there"
    if "mapping values are not allowed" in problem and re.search(r":\s", before):
        return row + 1, "the value holds ': '; put it in quotes"
    if "'<scalar>'" in problem and re.search("['\"]", before):
        return row + 1, "text goes on after the closing quote; put the whole in quotes, and double a quote in it"
    if "mapping values are not allowed" in problem or "block" in problem + context or "simple key" in context:
        return _indentation(rows, row)
    return row + 1, f"is no YAML: {cut(problem)}; look at this line and the one above"


def _indentation(rows: list[str], row: int) -> tuple[int, str]:
    """Which of the lines above and this one is indented, or written, as it must not be."""
    known: list[tuple[int, int]] = []  # levels open at a line, with the line that opened them
    seen: list[tuple[int, int, list[tuple[int, int]]]] = []  # line, indentation, levels open before it
    for number, text in enumerate(rows[: row + 1]):
        stripped = text.lstrip(" ")
        if not stripped.strip() or stripped.startswith(("#", "---")):
            continue
        indent = len(text) - len(stripped)
        seen.append((number, indent, known))
        key = indent + len(re.match(r"(?:- +)*", stripped)[0])
        known = [(level, line) for level, line in known if level < indent] + [(indent, number)]
        known += [(key, number)] * (key > indent)
    if len(seen) < 2 or seen[-1][0] != row:
        return row + 1, "is no YAML; look at this line and the one above"
    (above, outer, open_before), (_, indent, open_here) = seen[-2:]
    entry = re.match(r"(?:- +)*(?:\"[^\"]*\"|'[^']*'|[^:#]+?):(?:\s+(\S.*))?$", rows[above].strip()[:SHOWN])
    if entry is None and indent == outer:  # to YAML both lines are one text
        return above + 1, "must be a key, a colon, a blank and a value, such as 'name: My system'"
    if indent > outer and entry and entry[1]:
        sibling = next((number for level, number in open_before if level == indent), None)
        if sibling is not None:
            name = rows[above].strip().partition(":")[0]
            like = rows[sibling].strip().lstrip("- ").partition(":")[0]
            template = "; the official template has it wrong" if name == "abbreviation" and not outer else ""
            blanks = f"{indent - outer} blank{'s' * (indent - outer > 1)}"
            return above + 1, (
                f"{quoted(name)} must be indented like the keys around it: put {blanks} before it, as "
                f"{quoted(like)} in line {sibling + 1} has{template}"
            )
        message = f"is indented deeper than line {above + 1}, which has its value already; indent both alike"
        return row + 1, message
    levels = sorted({level for level, _ in open_here})
    if indent not in levels:
        fit = " or ".join(map(str, levels))
        return (
            row + 1,
            f"is indented by {indent} blank{'s' * (indent != 1)}, unlike every line above; indent it by {fit}",
        )
    return row + 1, "is no YAML; look at this line and the one above: is the indentation right, is a quote missing?"


def pdf_fault(path: Path) -> str | None:
    """Say why a file is no PDF, or not all of one."""
    with path.open("rb") as file:
        begin = file.read(1024)  # where the header may stand, and the last mark at the end (ISO 32000, annex H.3.4)
        file.seek(max(0, path.stat().st_size - 2048))
        end = file.read()
    if b"%PDF-" not in begin:
        found = f"begins with {begin[:8]!r}" if begin else "is empty"
        return f"must be a PDF; it {found}: export the report as PDF"
    return None if b"%%EOF" in end else "must be a whole PDF; its end is missing: export the report again"


# Findings -------------------------------------------------------------------------------------------------------------


def dotted(path: KeyPath) -> str:
    return cut(".".join(str(name + 1) if isinstance(name, int) else name for name in path))


def shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "keys and values"
    return "a list" if isinstance(value, list) else quoted(value) if isinstance(value, str) else repr(value)
