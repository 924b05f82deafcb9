"""Reading YAML files of keys and values in bounded time and memory, whoever wrote them.

    values = read_yaml(Path("config.yaml"))         # a dict of plain values
    rate = parse_yaml_value("1e-4", "--set")        # a single value

PyYAML's own reader reads the text as YAML 1.1. It refuses more than libyaml does, such as a tab between key and value.
Both read `1e-5` as a text. A file may have at most `LIMIT` bytes, `NODES` values (with all aliases written out) and
`DEPTH` levels.
"""

import codecs
import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import yaml

from evaluation.findings import WARNING, BadRequest, Faulty, Finding
from evaluation.text import SHOWN, cut, plural, quoted

LIMIT = 2**18  # maximum bytes of a file; fifty times the size of a usual file
NODES = 10_000  # maximum number of values
DEPTH = 50  # maximum number of nested levels
DIGITS = 100  # of a number: base 60 takes quadratic time, and Python does not print 4301 digits
TAG = "tag:yaml.org,2002:"  # prefix of the names of YAML's own types


class Unreadable(Exception):
    """A text that cannot be read as YAML.

    Attributes:
        line: Line of the error, from 1; 0 if the error has no line.
        message: What must hold, what was found, and what to do.
    """

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.line, self.message = line, message


def read_yaml(file: Path) -> dict[str, object]:
    """Read a file of keys and plain values.

    Dates are returned as texts. An empty file gives an empty dict.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not UTF-8, not YAML, or not a mapping of keys to values; exit status 2.
    """
    if not file.is_file():
        raise BadRequest(f"{file}: no such file; give a YAML file")
    findings: list[Finding] = []
    values: dict[str, object] = {}
    try:
        text = decode(first_bytes(file), str(file), findings)
        content = _values(text)
        if isinstance(content, dict):
            values = content
        elif content is not None:
            raise Unreadable(0, f"must be a mapping of keys to values; found {_shown(content)}")
    except Unreadable as fault:
        findings.append(Finding(str(file), fault.line, message=fault.message))
    errors = [finding for finding in findings if finding.severity != WARNING]
    if errors:
        raise Faulty(errors, status=2)
    return values


def parse_yaml_value(text: str, source: str) -> object:
    """Read a single value, such as that of a setting.

    Args:
        text: The value.
        source: Where the value was given, for the message.

    Raises:
        BadRequest: The value is not YAML.
    """
    try:
        if len(text) > LIMIT:
            raise Unreadable(0, f"must not be longer than {LIMIT} characters")
        return _values(text)
    except Unreadable as fault:
        raise BadRequest(f"{source}: the value is not YAML: {fault.message}") from None


def first_bytes(file: Path) -> bytes:
    """Read a file, or the beginning of a file that is too long for `decode`."""
    with file.open("rb") as stream:
        return stream.read(LIMIT + 1)


def decode(raw: bytes, file: str, findings: list[Finding], kind: str = "a YAML file") -> str:
    """Decode UTF-8; if other bytes are found, add a finding and decode Windows-1252 (Latin-1), to check the rest too.

    Args:
        raw: The bytes that `first_bytes` returned.
        file: The file's name in findings.
        findings: The list to which findings are added.
        kind: The kind of file, for the message.

    Raises:
        Unreadable: The file is not text, or is too long.
    """
    if len(raw) > LIMIT:
        raise Unreadable(0, f"must not be larger than {LIMIT} bytes: is it {kind}?")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unreadable(0, "must be UTF-8; this is UTF-16: save it as UTF-8")
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise Unreadable(line, "must be text; found a NUL byte: save the file as UTF-8 text")
    if raw.startswith(codecs.BOM_UTF8):
        findings.append(Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING))
        raw = raw.removeprefix(codecs.BOM_UTF8)
    if raw.startswith(codecs.BOM_UTF8):
        raise Unreadable(1, "starts with two BOMs, and the second is read as a letter; save it as plain UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        letter = raw[error.start : error.start + 1].decode("cp1252", "replace")
        message = f"must be UTF-8; byte 0x{raw[error.start]:02X} is not (Latin-1 {letter!r}?): save the file as UTF-8"
        findings.append(Finding(file, raw.count(b"\n", 0, error.start) + 1, message=message))
        return raw.decode("cp1252", "replace")


def compose(text: str, notes: Mapping[str, str] | None = None) -> yaml.Node | None:
    """Parse a text into YAML's nodes; None if it is empty.

    Args:
        text: The text.
        notes: For top-level keys, by name, what to add to the message if the key has the wrong indentation.

    Raises:
        Unreadable: The text is not YAML, or has too many values or levels.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        except (ValueError, OverflowError):  # PyYAML raises these for an escape such as "\UFFFFFFFF"
            message = "has an escape sequence or number that does not exist; correct it"
            raise Unreadable(loader.line + 1, message) from None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise Unreadable(*_explained(error, text, notes or {})) from None


class _Loader(yaml.SafeLoader):
    """A loader that composes nodes, but no Python objects, and refuses too many values or levels."""

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = self.count = 0
        self.sizes: dict[int, tuple[int, int]] = {}  # number of values and of levels, by id of a composed node

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        line = self.peek_event().start_mark.line + 1
        self.depth += 1
        self.count += 1
        self._bounded(line, self.count, self.depth)
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias and id(node) not in self.sizes:
            raise Unreadable(line, "must not be an alias of a value that contains it; write the values out")
        if not alias:
            children = []
            if isinstance(node, yaml.SequenceNode):
                children = node.value
            elif isinstance(node, yaml.MappingNode):
                children = list(chain.from_iterable(node.value))  # keys and values
            sizes = [self.sizes[id(child)] for child in children]
            count = 1 + sum(count for count, _ in sizes)
            levels = 1 + max((levels for _, levels in sizes), default=0)
            self.sizes[id(node)] = count, levels
        self._bounded(line, *self.sizes[id(node)])
        return node

    @staticmethod
    def _bounded(line: int, count: int, depth: int) -> None:
        if count > NODES:
            raise Unreadable(line, f"must not hold more than {NODES} values, with aliases written out")
        if depth > DEPTH:
            raise Unreadable(line, f"must not be nested more than {DEPTH} levels deep")


def _values(text: str) -> object:
    """Read a text as plain values; None if it is empty."""
    node = compose(text)
    if node is None:
        return None
    _must_differ(node)
    try:
        return _Constructor().construct_document(node)
    except yaml.YAMLError as error:
        raise Unreadable(*_explained(error, text, {})) from None


class _Constructor(yaml.constructor.SafeConstructor):
    """A constructor that turns nodes into plain values; a date stays a text."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        line = node.start_mark.line + 1
        kind = node.tag.removeprefix(TAG)
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        if kind == "timestamp":
            return node.value
        try:
            if kind in ("int", "float") and len(node.value) > DIGITS:
                raise ValueError
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, OverflowError):
            fault = f"is read as {kind} but is not a valid {kind}: {quoted(node.value)}"
            message = f"{fault}; correct it, or put it in quotes"
            raise Unreadable(line, message) from None


def _must_differ(node: yaml.Node) -> None:
    """Refuse a mapping that has a key twice: PyYAML silently uses the last one."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _must_differ(child)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[tuple[str, str], int] = {}
    for name, child in node.value:
        if isinstance(name, yaml.ScalarNode) and name.tag != f"{TAG}merge":
            key = (name.tag, name.value)  # the number 1 and the text "1" are two keys
            line = name.start_mark.line + 1
            if key in lines:
                message = f"the key {quoted(name.value)} is already in line {lines[key]}; keep one of them"
                raise Unreadable(line, message)
            lines[key] = line
        _must_differ(child)


def _shown(values: object) -> str:
    if isinstance(values, list):
        return "a list"
    return cut(repr(values))


def _explained(error: yaml.YAMLError, text: str, notes: Mapping[str, str]) -> tuple[int, str]:
    """Return the line of an error of PyYAML, and a message that says what to do."""
    if isinstance(error, yaml.reader.ReaderError):
        line = len(text[: error.position].splitlines()) or 1
        return line, f"must be text; found the control character U+{ord(text[error.position]):04X}: remove it"
    problem, context = getattr(error, "problem", "") or "", getattr(error, "context", "") or ""
    mark, opened = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if mark is None:
        return 0, f"is not valid YAML ({cut(str(error))})"
    rows, row = text.splitlines(), mark.line
    here = rows[row] if row < len(rows) else ""
    before = here[: mark.column]
    if r"'\t'" in problem:
        if before.strip():
            return row + 1, "has a tab between key and value; use a space"
        indented_by_tab = re.compile(r" *\t\s*[^\s#]")
        more = sum(indented_by_tab.match(other) is not None for other in rows[row + 1 :])
        others = ""
        if more == 1:
            others = " (and so is a line below)"
        elif more:
            others = f" (and so are {more} lines below)"
        return row + 1, f"is indented by a tab{others}; YAML requires spaces: replace each tab by spaces"
    if "found character" in problem:
        return row + 1, f"a value must not start with {here[mark.column : mark.column + 1]!r}; put it in quotes"
    if "unexpected end of stream" in problem and opened:
        advice = "close it, or double it if it is part of the text"
        return opened.line + 1, f"a quotation mark is opened here and never closed; {advice}"
    if "flow" in context and opened:
        bracket = opened.buffer[opened.pointer] if opened.buffer else "["
        closing = "}" if bracket == "{" else "]"
        advice = f"add {closing!r} and put commas between the entries, or put the text in quotes"
        return opened.line + 1, f"the {bracket!r} here is never closed; {advice}"
    if "undefined alias" in problem:
        return row + 1, "a value that starts with '*' is an alias, but its anchor does not exist; put it in quotes"
    if "another document" in problem:
        return row + 1, "must be one document; found a second one after '---': remove it"
    if "found duplicate anchor" in context and opened:
        return row + 1, f"the anchor in line {opened.line + 1} has the same name; give each anchor its own name"
    if "sequence entries are not allowed" in problem:
        return row + 1, "a list must start in the line below its key; put the '-' there"
    if "mapping values are not allowed" in problem and re.search(r":\s", before):
        return row + 1, "the value contains ': '; put it in quotes"
    if "'<scalar>'" in problem and re.search("['\"]", before):
        advice = "put all of it in quotes, and double a mark inside it"
        return row + 1, f"there is text after the closing quotation mark; {advice}"
    if "mapping values are not allowed" in problem or "block" in problem + context or "simple key" in context:
        return _indentation(rows, row, notes)
    return row + 1, f"is not valid YAML: {cut(problem)}; check this line and the line above"


def _indentation(rows: list[str], row: int, notes: Mapping[str, str]) -> tuple[int, str]:
    """Return the line with the wrong indentation, at or above a row, and a message that says what to do."""
    open_levels: list[tuple[int, int]] = []  # indentation of each open level, and the line that opened it
    seen: list[tuple[int, int, list[tuple[int, int]]]] = []  # line, its indentation, and the levels open before it
    for number, text in enumerate(rows[: row + 1]):
        stripped = text.lstrip(" ")
        if not stripped.strip() or stripped.startswith(("#", "---")):
            continue
        indent = len(text) - len(stripped)
        seen.append((number, indent, open_levels))
        open_levels = [(level, line) for level, line in open_levels if level < indent]
        open_levels.append((indent, number))
        key = re.sub(r"(?:- +)*", "", stripped, count=1)
        key_indent = len(text) - len(key)
        if key_indent > indent:  # a key behind the dash of a list
            open_levels.append((key_indent, number))
    if len(seen) < 2 or seen[-1][0] != row:
        return row + 1, "is not valid YAML; check this line and the line above"
    (above, outer, open_before), (_, indent, open_here) = seen[-2:]
    entry = re.match(r"(?:- +)*(?:\"[^\"]*\"|'[^']*'|[^:#]+?):(?:\s+(\S.*))?$", rows[above].strip()[:SHOWN])
    if entry is None and indent == outer:  # YAML reads both lines as one text
        return above + 1, "must be a key, a colon, a space and a value, such as 'name: My system'"
    if indent > outer and entry and entry[1]:
        sibling = next((number for level, number in open_before if level == indent), None)
        if sibling is not None:
            name = rows[above].strip().partition(":")[0]
            sibling_name = rows[sibling].strip().lstrip("- ").partition(":")[0]
            note = notes.get(name, "") if outer == 0 else ""
            spaces = plural(indent - outer, "space")
            return above + 1, (
                f"{quoted(name)} must be indented like the keys around it: put {spaces} before it, as before "
                f"{quoted(sibling_name)} in line {sibling + 1}{note}"
            )
        message = f"is indented deeper than line {above + 1}, which already has a value; indent both lines equally"
        return row + 1, message
    levels = sorted({level for level, _ in open_here})
    if indent not in levels:
        choices = " or ".join(map(str, levels))
        spaces = plural(indent, "space")
        return row + 1, f"is indented by {spaces}, unlike every line above; indent it by {choices}"
    message = "is not valid YAML; check this line and the line above for wrong indentation and missing quotation marks"
    return row + 1, message
