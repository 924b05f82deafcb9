"""Metadata files: checked and written as a task has them.

What is missing or empty though required, of a wrong type, too long, or against the label's rule is an error. So is a
key that is unknown, or that is not there though it may be null, unless the task's facts about that block are not
verified: then the real template may differ, and it is a warning. Warnings too: a number, date or yes-no where text is
asked for (it reads as text in a table, and quotes mend it), an e-mail address or result that is hardly one, and a label
of another name than the corresponding author's.
"""

import contextlib
import difflib
import math
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from evaluation.findings import ERROR, SHOWN, WARNING, Finding, bounded, cut, lookalike, printable, quoted, unknown_key
from submission import tasks
from submission.documents import LISTED, Document, KeyPath, dotted, read, shown
from submission.tasks import Key, Task

WIDTH = 120

_PLAIN = re.compile(r"[^\W\d_](?:[\w .,@/+()'%&=?~*;!-]|:(?=\S)|(?<=\S)#)*")
_MOST = {"cider_d": 10, "spider": 5.5, "spider_fl": 5.5, "vocab": math.inf}  # every other metric's is 1
_UNITS = {"": 1, "k": 10**3, "thousand": 10**3, "m": 10**6, "million": 10**6, "b": 10**9, "billion": 10**9}
ABSENT = object()
HEAD = "# Metadata of a system for "  # and the task's name, before a colon, is how `text` begins


# Checking -------------------------------------------------------------------------------------------------------------


def validate(task: Task, path: Path, file: str = "") -> tuple[dict[str, object] | None, list[Finding]]:
    """Check a metadata file against what the task asks for.

    Returns:
        What the file holds, None where it cannot be read, and every finding in the order of the file.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    document = read(path, file)
    return document.values, check(task, document, file)


def tasks_of(paths: Iterable[Path]) -> list[str]:
    """The tasks that metadata files were written for by `text`; other files say none."""
    heads = set()
    for path in paths:
        with path.open("rb") as file:
            heads.add(file.readline(SHOWN).decode("utf-8", "replace").partition(":")[0])
    return [name for name in tasks.names() if HEAD + name in heads]


def of_others(task: Task, paths: Iterable[Path], file: str) -> list[Finding]:
    """Say of metadata files, or of the package that they are all of, that they were written for another task."""
    others = [name for name in tasks_of(paths) if name != task.name]
    if not others:
        return []
    message = f"was written for {' and '.join(others)}, as the metadata's first line says; is --task {others[0]} meant?"
    return [Finding(file, message=message, severity=WARNING)]


def check(task: Task, document: Document, file: str) -> list[Finding]:
    """Check metadata that were read, or that were put together and have no lines."""
    if document.values is None:
        return sorted(document.findings)
    checks = Checks(task, document, file)
    return checks.run(checks.whole)


class _EnoughError(Exception):
    pass


class Checks:
    """What is wrong with values; where a key is misplaced or misspelt, its value is checked as where it belongs.

    `found` has every value by the path where it belongs, with the path where it stands.
    """

    def __init__(self, task: Task, document: Document, file: str, root: KeyPath = ()):
        self.task, self.document, self.file, self.root = task, document, file, root
        self.top = task.whole
        self.findings: list[Finding] = []
        self.found: dict[KeyPath, tuple[object, KeyPath]] = {}
        self.missing: list[tuple[KeyPath, KeyPath, Key]] = []

    def run(self, look: Callable[[], None]) -> list[Finding]:
        """Give what the document and the look at its values find."""
        self.findings = list(self.document.findings)
        with contextlib.suppress(_EnoughError):
            look()
        return sorted(bounded(self.findings, LISTED, self.file))

    def whole(self) -> None:
        """Check a system's metadata."""
        self.block(self.document.values)
        for right, at, key in self.missing:
            if not any(other[: len(right)] == right for other in self.found):
                severity = ERROR if key.need == "required" else self._severity(right)
                null = " (!!null where it does not apply)" if key.need == "nullable" else ""
                message = f"is missing; add it{null}{_hint(key)}"
                self._add(self.document.line(self.root + at), right, message, severity)
        self.authors()
        self.label()

    def block(self, values: Mapping[str, object]) -> None:
        """Check what stands in one block of metadata, and remember what is missing."""
        self._mapping(self.top, values, (), ())

    def find(self, path: KeyPath, message: str, severity: str = ERROR) -> None:
        self._add(self.document.line(self.root + path), path, message, severity)

    def _add(self, line: int, path: KeyPath, message: str, severity: str) -> None:
        self.findings.append(Finding(self.file, line, dotted(self.root + path), message, severity))
        if len(self.findings) > LISTED:
            raise _EnoughError

    def _severity(self, path: KeyPath) -> str:
        """Of a key that is or is not in a block: a template that was not seen may be another."""
        fact = self.task.metadata.get(path[0]) if path else None
        sure = [fact] if fact else self.task.metadata.values()
        return ERROR if all(fact.certainty == "verified" for fact in sure) else WARNING

    def _value(self, key: Key, value: object, at: KeyPath, right: KeyPath) -> None:
        self.found[right] = value, at
        if self.root + at in self.document.broken:
            return
        if value is None or (key.many and value == []) or (key.keys and value == {}):
            if key.need == "required":
                self.find(at, f"is empty; fill it in{_hint(key)}")
        elif key.many and not isinstance(value, list):
            if key.keys and isinstance(value, Mapping):
                self.find(at, "must be a list; put '- ' before its first key, and indent the others by 2 blanks more")
                self._entry(key, value, at, (*right, 0))
            else:
                self.find(at, f"must be a list, each entry in a line that starts with '- '; found {shown(value)}")
        elif key.many or (isinstance(value, list) and right[-1] == "affiliation"):  # an author may have several
            for place, entry in enumerate(value):
                self._entry(key, entry, (*at, place), (*right, place))
        else:
            self._entry(key, value, at, right)

    def _entry(self, key: Key, value: object, at: KeyPath, right: KeyPath) -> None:
        self.found[right] = value, at
        if self.root + at in self.document.broken:
            return
        if not key.keys:
            self._leaf(key, value, at)
        elif isinstance(value, Mapping):
            self._mapping(key, value, at, right)
        elif isinstance(value, list):
            self.find(at, "must be keys and values, not a list; take the '- ' out")
        else:
            names = ", ".join(name for name, below in key.keys.items() if below.need != "optional") or "its keys"
            self.find(at, f"must be keys and values ({names}); found {shown(value)}")

    def _mapping(self, key: Key, values: Mapping[str, object], at: KeyPath, right: KeyPath) -> None:
        absent = [name for name in key.keys if name not in values]
        for name, value in values.items():
            if name in key.keys:
                self._value(key.keys[name], value, (*at, name), (*right, name))
            else:
                self._unknown(key, name, value, absent, at, right)
        for name in absent:
            if key.keys[name].need != "optional":
                self.missing.append(((*right, name), at, key.keys[name]))

    def _unknown(self, key: Key, name: str, value: object, absent: Sequence[str], at: KeyPath, right: KeyPath) -> None:
        here, known = (*at, name), list(key.keys)
        alike = lookalike(known)(name)
        places = [] if alike else _nearest(_places(self.top, name), right)
        if places:
            free = [place for place in places if value_at(self.document.values, self.root + place) is ABSENT]
            named = " or ".join(_place(place) for place in dict.fromkeys(p[:-1] for p in free or places))
            if not free:
                message = f"belongs {named}, where it stands already; remove it here"
                self.find(here, message, self._severity(right))
                return
            message = f"belongs {named}; move it there, indented like the keys there"
            self.find(here, message, self._severity(right))
            if len(free) == 1 and "*" not in free[0]:
                spec = self._spec(free[0])
                if not spec.keys and isinstance(value, Mapping):  # its neighbours, indented deeper, look like its own
                    self.found[free[0]] = None, here
                    for below, inner in value.items():
                        if below in (parent := self._spec(free[0][:-1])).keys:
                            self._value(parent.keys[below], inner, (*here, below), (*free[0][:-1], below))
                else:
                    self._value(spec, value, here, free[0])
            return
        self.find(here, unknown_key(cut(name), known), self._severity(right))
        meant = alike or next(iter(difflib.get_close_matches(name[:SHOWN], absent, n=1)), None)
        if meant in absent:
            self._value(key.keys[meant], value, here, (*right, meant))

    def _spec(self, path: KeyPath) -> Key:
        key = self.top
        for name in path:
            key = key if isinstance(name, int) else key.keys[name]
        return key

    def _leaf(self, key: Key, value: object, at: KeyPath) -> None:
        if isinstance(value, Mapping | list):
            wanted = {"text": "text", "yes-no": "yes or no"}.get(key.type, "a number")
            if key.type == "text" and isinstance(value, list) and not any(isinstance(v, Mapping | list) for v in value):
                joined = quoted(", ".join(map(str, value)))
                self.find(at, f"must be text, not a list; join them by commas: {joined}")
            else:
                quotes = "; a text that holds ': ' must be in quotes" if isinstance(value, Mapping) else ""
                self.find(at, f"must be {wanted}; found {shown(value)}{quotes}")
        elif key.type == "text":
            self._text(key, value, at)
        elif key.type == "yes-no":
            if isinstance(value, str):
                truth = _truth(value)
                meant = "" if truth is None else f"; write {'Yes' if truth else 'No'}, without quotes"
                self.find(at, f"must be Yes or No, not text; found {quoted(value)}{meant}")
            elif not isinstance(value, bool):
                self.find(at, f"must be Yes or No; found {value!r}")
        else:
            self._number(key, value, at)

    def _text(self, key: Key, value: object, at: KeyPath) -> None:
        text = value if isinstance(value, str) else str(value)
        if not text.strip():
            if key.need == "required":
                self.find(at, f"is empty; fill it in{_hint(key)}")
            else:
                self.find(at, "is an empty text; write !!null where it does not apply", WARNING)
        elif key.most and len(text) > key.most:
            self.find(at, f"must not have more than {key.most} characters; found {len(text)}: {quoted(text)}")
        elif not isinstance(value, str):
            what = "yes or no" if isinstance(value, bool) else "a number"
            self.find(at, f"is read as {what}, and must be text; put it in quotes; found {value!r}", WARNING)
        elif at[-1] == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", text):
            self.find(at, f"is hardly an e-mail address; found {quoted(text)}", WARNING)

    def _number(self, key: Key, value: object, at: KeyPath) -> None:
        whole = key.type == "integer"
        wanted = "a whole number" if whole else "a number"
        if isinstance(value, str):
            if value.strip().casefold() in ("", "-", "none", "null", "n/a", "na", "nan") and key.need != "required":
                self.find(at, f"must be {wanted}; found {quoted(value)}: write !!null where it does not apply")
                return
            meant = _meant(value, whole)
            exponent = re.fullmatch(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)", value)
            if exponent and meant and not whole:
                mantissa, rest, sign, power = exponent.groups()
                meant = f"{mantissa}{rest or '.0'}e{sign or '+'}{power}"
                self.find(at, f"must be {wanted}; YAML reads {value} as text: write {meant}")
            else:
                so = f": write {meant}" if meant else ""
                quotes = ", without quotes" if meant == value else ""
                self.find(at, f"must be {wanted}, not text; found {quoted(value)}{so}{quotes}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            self.find(at, f"must be {wanted}; found {value!r}")
        elif not math.isfinite(value):
            self.find(at, f"must be {wanted}, and finite; found {value!r}")
        elif whole and not isinstance(value, int):
            so = f": write {int(value)}" if value.is_integer() and value >= 0 else ""
            self.find(at, f"must be {wanted}; found {value!r}{so}")
        elif whole and value < 0:
            self.find(at, f"must not be negative; found {value}")
        elif key.metric:
            most = _MOST.get(key.metric, 1)
            if not 0 <= value <= most:
                cent = f"; in per cent? write {value / 100:.6g}" if 0 < value / 100 <= most else ""
                self.find(at, f"must be between 0 and {most:g}; found {value!r}{cent}", WARNING)

    def authors(self) -> None:
        """Exactly one author must be the corresponding one; the others' keys are looked at elsewhere."""
        authors = ("submission", "authors")
        listed = [path for path in self.found if path[:2] == authors and len(path) == 3]
        marks = {path: self.found.get((*path, "corresponding"), (None, path)) for path in listed}
        if not listed or not all(isinstance(self.found[path][0], Mapping) for path in listed):
            return
        chosen = [at for value, at in marks.values() if _true(value)]
        if not chosen and all(value is None or value is False for value, _ in marks.values()):
            message = "one author must be the corresponding one; found none: add 'corresponding: true' to one of them"
            self.find(self.found[authors][1], message)
        elif len(chosen) > 1:
            lines = [str(line) for at in chosen if (line := self.document.line(self.root + at))]
            where = f" (lines {', '.join(lines[:-1])} and {lines[-1]})" if len(lines) > 1 else ""
            message = f"only one author must be the corresponding one; found {len(chosen)}{where}: keep one of them"
            self.find(chosen[1], message)

    def label(self) -> None:
        """Whether the label follows the task's rule, and names the corresponding author."""
        label, at = self.found.get(("submission", "label"), (None, ()))
        if not isinstance(label, str) or not label.strip():
            return
        names = self.task.names(label)
        if names is None or not label.isprintable() or label != label.strip():
            self.find(at, label_fault(self.task, label))
        else:
            self.agree(names["author"], at)

    def agree(self, author: str, at: KeyPath) -> None:
        """Whether the author of the labels is the corresponding one."""
        for path, (value, _) in self.found.items():
            if path[:2] == ("submission", "authors") and path[3:] == ("corresponding",) and _true(value):
                last, _ = self.found.get((*path[:3], "lastname"), (None, ()))
                if isinstance(last, str) and _differ(author, last):
                    message = f"names the author {quoted(author)}; the corresponding author is {quoted(last)}"
                    self.find(at, message, WARNING)
                return


def label_fault(task: Task, label: str) -> str:
    rule, count = task.label.value, task.systems.value
    wanted, parts = rule.split("_"), label.strip().split("_")
    faults, made = [], ""
    if "/" in label:
        faults.append("it must not hold a '/'")
    if not label.isprintable() or label != label.strip():
        faults.append("it must not hold control characters, or blanks at its ends")
    if len(parts) != len(wanted):
        faults.append(f"it has {len(parts)} parts joined by '_', not {len(wanted)}: no part may hold a '_'")
    else:
        fixed = [part if "{" in want else want for want, part in zip(wanted, parts, strict=True)]
        faults += [
            f"{part!r} must be {want!r}" for want, part in zip(fixed, map(cut, parts), strict=True) if part != want
        ]
        index = parts[-1]
        if index not in map(str, range(1, count + 1)):
            faults.append(f"the index {quoted(index)} must be 1 to {count}")
            fixed[-1] = index.lstrip("0")
        made = "_".join(fixed)
    so = f"; write {quoted(made)}" if made and made != label and task.names(made) else ""
    why = ", and ".join(faults) or "a part is empty"
    message = f"must read {rule}, the index 1 to {count}; found {quoted(label)}: {why}{so}"
    return cut(message, 4 * SHOWN)


def _differ(one: str, other: str) -> bool:
    """Whether two names are clearly not the same, whatever case, accents and hyphens make of them."""

    def plain(name: str) -> str:
        letters = unicodedata.normalize("NFKD", name[:SHOWN]).casefold()
        return "".join(c for c in letters if c.isalnum() and c.isascii())

    a, b = plain(one), plain(other)
    return bool(a and b and a not in b and b not in a) and difflib.SequenceMatcher(None, a, b).ratio() < 0.6


def _truth(text: str) -> bool | None:
    word = text.strip().casefold()
    return True if word in ("yes", "true", "y", "on") else False if word in ("no", "false", "n", "off") else None


def _true(value: object) -> bool:
    return value is True or (isinstance(value, str) and _truth(value) is True)


def _meant(text: str, whole: bool) -> str:
    """The number that a text such as '140,000,000' or '12 M' means, as it is to be written; empty where it is none."""
    found = re.fullmatch(r"([-+]?\d[\d.,' _]{0,30}(?:e[-+]?\d{1,3})?) ?([a-z]{0,8})", text.strip().casefold())
    if not found or found[2] not in _UNITS:
        return ""
    digits = found[1].strip().replace("_", "")
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+|[-+]?\d{1,3}(\.\d{3}){2,}|[-+]?\d{1,3}([' ]\d{3})+", digits):
        digits = re.sub(r"\D", "", digits)
    try:
        number = float(digits.replace(",", ".")) * _UNITS[found[2]]
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    if number == round(number) and abs(number) < 1e15 and (whole or not found[1].startswith(f"{number:.0f}.")):
        return str(round(number))
    return "" if whole else written(number)


def _places(key: Key, name: str, path: KeyPath = ()) -> list[KeyPath]:
    """Every place of a key of this name; `*` is an entry of a list."""
    places = []
    for other, below in key.keys.items():
        here = (*path, other)
        places += [here] if other == name else []
        places += _places(below, name, (*here, "*") if below.many else here)
    return places


def _nearest(places: list[KeyPath], here: KeyPath) -> list[KeyPath]:
    """Those of the places that need no other entry of a list than the one that `here` is in, or all where none is."""
    aligned = []
    for place in places:
        same = next((n for n, (a, b) in enumerate(zip(place, here, strict=False)) if a != b and a != "*"), len(here))
        aligned.append(tuple(here[n] if part == "*" and n < same else part for n, part in enumerate(place)))
    return [place for place in aligned if "*" not in place] or aligned


def _place(path: KeyPath) -> str:
    if not path:
        return "at the top level"
    names = dotted(tuple(name for name in path if name != "*"))
    return f"in an entry of {names}" if path[-1] == "*" else f"under {names}"


def value_at(values: object, path: KeyPath) -> object:
    for name in path:
        inside = isinstance(values, list) and isinstance(name, int) and name < len(values)
        if not inside and not (isinstance(values, Mapping) and name in values):
            return ABSENT
        values = values[name]
    return values


def _hint(key: Key) -> str:
    return f": {key.hint}" if key.hint else ""


# Writing --------------------------------------------------------------------------------------------------------------


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


_RESOLVER = yaml.resolver.Resolver()


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def merged(*blocks: Mapping[str, object]) -> dict[str, object]:
    """Put blocks of metadata together: the later wins, keys are joined, lists and single values replaced."""
    result: dict[str, object] = {}
    for block in blocks:
        for name, value in block.items():
            if isinstance(value, Mapping):
                before = result.get(name)
                value = merged(before if isinstance(before, Mapping) else {}, value)
            result[name] = value
    return result
