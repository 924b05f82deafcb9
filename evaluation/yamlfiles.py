"""YAML files of keys and values, read within bounds, whoever wrote them.

    values = read(Path("config.yaml"))      # a dict of plain values
    rate = value("1e-4", "--set")           # a single value

What YAML 1.1 makes of a text is decided by PyYAML's own reader, which refuses more than libyaml does (a tab between key
and value); `1e-5` is a text to both. A text may have `LIMIT` bytes, `NODES` values with every alias written out, and
`DEPTH` levels, so that no file takes long or much memory.
"""

import codecs
import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import yaml

from evaluation.findings import WARNING, BadRequest, Faulty, Finding
from evaluation.text import SHOWN, cut, plural, quoted

LIMIT = 2**18  # bytes; fifty times what such a file has
NODES = 10_000
DEPTH = 50
DIGITS = 100  # of a number: powers of 60 take quadratic time, and Python prints no number of 4301 digits
TAG = "tag:yaml.org,2002:"  # begins the names of YAML's own types


class Unreadable(Exception):
    """A text that cannot be read as YAML.

    Attributes:
        line: Line at fault, from 1; 0 where there is none.
        message: What must hold, what was found, and what to do.
    """

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.line, self.message = line, message


def read_yaml(file: Path) -> dict[str, object]:
    """Read a file of keys and plain values.

    Dates are texts, as they are written. An empty file has no keys.

    Raises:
        BadRequest: There is no such file.
        Faulty: It is no UTF-8, no YAML, or no keys and values; exit status 2.
    """
    if not file.is_file():
        raise BadRequest(f"{file}: no such file; give a YAML file")
    findings: list[Finding] = []
    values: object = None
    try:
        text = decode(first_bytes(file), str(file), findings)
        values = _values(text)
        if not isinstance(values, dict | None):
            raise Unreadable(0, f"must be a mapping of keys to values; found {_shown(values)}")
    except Unreadable as fault:
        findings.append(Finding(str(file), fault.line, message=fault.message))
    errors = [finding for finding in findings if finding.severity != WARNING]
    if errors:
        raise Faulty(errors, status=2)
    return values or {}


def parse_yaml_value(text: str, source: str) -> object:
    """Read a single value, such as a setting's.

    Args:
        text: The value.
        source: Where it was given, for the message.

    Raises:
        BadRequest: It is no YAML.
    """
    try:
        if len(text) > LIMIT:
            raise Unreadable(0, f"must not be longer than {LIMIT} characters")
        return _values(text)
    except Unreadable as fault:
        raise BadRequest(f"{source}: the value is not YAML: {fault.message}") from None


def first_bytes(file: Path) -> bytes:
    """Read a file, but no more of it than `decode` needs to refuse it."""
    with file.open("rb") as stream:
        return stream.read(LIMIT + 1)


def decode(raw: bytes, file: str, findings: list[Finding], kind: str = "a YAML file") -> str:
    """Decode UTF-8. Other bytes are findings, and then read as Latin-1, so that the rest is looked at too.

    Args:
        raw: What `first_bytes` gave.
        file: The file's name in findings.
        findings: What is wrong is added here.
        kind: What the file must be.

    Raises:
        Unreadable: It is no text, or too long.
    """
    if len(raw) > LIMIT:
        raise Unreadable(0, f"must not be larger than {LIMIT} bytes: is it {kind}?")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unreadable(0, "must be UTF-8; this is UTF-16: save it as UTF-8")
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise Unreadable(line, "must be text; found a NUL byte: write the file anew, as UTF-8")
    if raw.startswith(codecs.BOM_UTF8):
        findings.append(Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING))
        raw = raw.removeprefix(codecs.BOM_UTF8)
    if raw.startswith(codecs.BOM_UTF8):
        raise Unreadable(1, "starts with two BOMs, one of which is read as a letter; save it as plain UTF-8")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        meant = raw[error.start : error.start + 1].decode("cp1252", "replace")
        message = f"must be UTF-8; byte 0x{raw[error.start]:02X} is not (Latin-1 {meant!r}?): save the file as UTF-8"
        findings.append(Finding(file, raw.count(b"\n", 0, error.start) + 1, message=message))
        return raw.decode("cp1252", "replace")


def compose(text: str, notes: Mapping[str, str] | None = None) -> yaml.Node | None:
    """Parse a text into YAML's nodes; None where it is empty.

    Args:
        text: The text.
        notes: What else to say of a top-level key that is indented wrongly, by its name.

    Raises:
        Unreadable: The text is no YAML, or holds too much.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        except (ValueError, OverflowError):  # PyYAML's own, of an escape such as "\UFFFFFFFF"
            raise Unreadable(loader.line + 1, "holds an escape or a number that there is not; mend it") from None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise Unreadable(*_explained(error, text, notes or {})) from None


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
            raise Unreadable(line, "is an alias of what it stands in, which has no end; write the values out")
        if not alias:
            inner = []
            if isinstance(node, yaml.SequenceNode):
                inner = [self.sizes[id(child)] for child in node.value]
            elif isinstance(node, yaml.MappingNode):
                inner = [self.sizes[id(child)] for child in chain.from_iterable(node.value)]
            levels = 1 + max((levels for _, levels in inner), default=0)
            self.sizes[id(node)] = 1 + sum(count for count, _ in inner), levels
        self._bounded(line, *self.sizes[id(node)])
        return node

    @staticmethod
    def _bounded(line: int, count: int, depth: int) -> None:
        if count > NODES:
            raise Unreadable(line, f"must not hold more than {NODES} values, aliases written out")
        if depth > DEPTH:
            raise Unreadable(line, f"must not be nested more than {DEPTH} levels deep")


def _values(text: str) -> object:
    """Read a text as plain values; None where it is empty."""
    node = compose(text)
    if node is None:
        return None
    _must_differ(node)
    try:
        return _Constructor().construct_document(node)
    except yaml.YAMLError as error:
        raise Unreadable(*_explained(error, text, {})) from None


class _Constructor(yaml.constructor.SafeConstructor):
    """Makes plain values of nodes; a date stays a text."""

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
            message = f"is read as {kind}, and is none: {quoted(node.value)}; correct it, or put it in quotes"
            raise Unreadable(line, message) from None


def _must_differ(node: yaml.Node) -> None:
    """Make sure that no mapping has a key twice: PyYAML would silently take the last one."""
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
                message = f"the key {quoted(name.value)} stands in line {lines[key]} already; keep one of them"
                raise Unreadable(line, message)
            lines[key] = line
        _must_differ(child)


def _shown(values: object) -> str:
    if isinstance(values, list):
        return "a list"
    return cut(repr(values))


def _explained(error: yaml.YAMLError, text: str, notes: Mapping[str, str]) -> tuple[int, str]:
    """Return the line at fault where YAML cannot be read, and what to do about it."""
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
        if more > 1:
            so = f" (and so are {more} lines below)"
        else:
            so = " (and so is a line below)" if more else ""
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
        return _indentation(rows, row, notes)
    return row + 1, f"is no YAML: {cut(problem)}; look at this line and the one above"


def _indentation(rows: list[str], row: int, notes: Mapping[str, str]) -> tuple[int, str]:
    """Return which of the lines above and this one is indented, or written, as it must not be."""
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
            note = notes.get(name, "") if outer == 0 else ""
            blanks = plural(indent - outer, "blank")
            return above + 1, (
                f"{quoted(name)} must be indented like the keys around it: put {blanks} before it, as "
                f"{quoted(like)} in line {sibling + 1} has{note}"
            )
        message = f"is indented deeper than line {above + 1}, which has its value already; indent both alike"
        return row + 1, message
    levels = sorted({level for level, _ in open_here})
    if indent not in levels:
        fit = " or ".join(map(str, levels))
        return (
            row + 1,
            f"is indented by {plural(indent, 'blank')}, unlike every line above; indent it by {fit}",
        )
    return row + 1, "is no YAML; look at this line and the one above: is the indentation right, is a quote missing?"
