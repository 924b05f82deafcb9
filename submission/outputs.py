"""Output files: written from a prediction, and checked before they are submitted.

A check takes less than 2 GB of memory, whatever the file holds: it may have `LIMIT` bytes, `CELLS` cells, and ten
million characters in a cell (`evaluation.data.tables`). The check ends after `LISTED` findings. Some of each kind are
kept (`evaluation.findings.limited`), each with `SHOWN` characters of a text.
"""

import codecs
import csv
import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from evaluation.data import caption_text, tables
from evaluation.data.cells import SOUND_SUFFIXES
from evaluation.data.dataset import Split, of_another_split
from evaluation.files import replacing
from evaluation.findings import ALIKE, ERROR, WARNING, BadRequest, Faulty, Finding, bounded, limited
from evaluation.metrics import retrieval
from evaluation.names import closest, explain, hint
from evaluation.predictions import Captions, Ranking, Similarity, finite_numbers, not_finite
from evaluation.text import SHOWN, cut, printable, quoted
from submission.tasks import SEPARATORS, Task

LIMIT = 128 * 2**20
CELLS = 6_000_000  # Clotho's validation split, 5225 captions by 1045 clips, has 5.5 million
LISTED = 10_000  # findings, after which the check ends
CLOSE = 0.9  # of difflib's ratio, between a name and what it may be a misspelling of
GUESSED = 100  # misspelt names at most, among as many, so that it takes no time
MANY = 10  # times as many lines as are asked for


# Writing --------------------------------------------------------------------------------------------------------------


def write(
    task: Task,
    prediction: Similarity | Ranking | Captions,
    split: Split,
    path: Path,
    file: str = "prediction",
) -> None:
    """Write a prediction in the task's form, whole or not at all; the same prediction gives the same bytes.

    Args:
        task: The task.
        prediction: For the form matrix a score of every query for every clip; for the form top-k such scores, or the
            best clips of each query; for the form captions a caption for each clip.
        split: The split with the queries and clips that are answered.
        path: The file to write.
        file: The prediction's name in findings.

    Raises:
        BadRequest: The split has fewer clips than the task wants for a query.
        Faulty: The prediction lacks a query or a clip, holds scores that are not finite, or has only the best clips
            where scores are wanted; or the file would not pass `validate`. Nothing is written.
    """
    header, rows = _rows(task, prediction, split, file)
    with replacing(path) as part:
        with part.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, delimiter=task.separator.value, lineterminator=task.line_end.value)
            writer.writerow(header)
            writer.writerows(rows)
        errors = [finding for finding in validate(task, part, split, str(path)) if finding.severity == ERROR]
        if errors:
            raise Faulty(errors)


def _rows(
    task: Task, prediction: Similarity | Ranking | Captions, split: Split, file: str
) -> tuple[list[str], Iterable[Sequence[str]]]:
    if task.kind == "captioning":
        from evaluation.metrics import captioning  # takes scipy along, which no other form needs

        captioning.validate(split, prediction, file)
        captions = dict(zip(prediction.file_names, prediction.captions, strict=True))
        return task.header(), [(name, captions[name]) for name in split.file_names]
    if task.k and len(split.clips) < task.k.value:
        raise BadRequest(f"{task.name} wants {task.k.value} clips for a query; {split.name} has {len(split.clips)}")
    retrieval.validate(dict.fromkeys(split.queries, frozenset()), split.file_names, prediction, file, split)
    if task.k:
        if isinstance(prediction, Ranking):
            ranking = _best(prediction, task.k.value, file)
        else:
            ranking = prediction.top(task.k.value)
        pairs = zip(ranking.queries, ranking.file_names, strict=True)
        return task.header(), [(query, *names) for query, names in pairs]
    if isinstance(prediction, Ranking):
        wanted = f"must have a score of every query for every clip, which {task.name} takes"
        advice = "give predictions/SPLIT.npz, or a CSV whose header names the clips"
        raise Faulty([Finding(file, message=f"{wanted}; found the best clips of each query alone: {advice}")])
    # Python's floats, whose repr reads back as the same number whether it is read as float32 or float64.
    scores = zip(prediction.queries, prediction.scores, strict=True)
    return task.header(prediction.file_names), ((query, *map(repr, row.tolist())) for query, row in scores)


def _best(ranking: Ranking, k: int, file: str) -> Ranking:
    """Return the first k clips of each query.

    Raises:
        Faulty: Some queries have fewer; with a finding for each.
    """
    findings = []
    lines = ranking.lines or (0,) * len(ranking.queries)
    for line, names in zip(lines, ranking.file_names, strict=True):
        if len(names) < k:
            findings.append(Finding(file, line, message=f"must have {k} clips, best first; found {len(names)}"))
    if findings:
        raise Faulty(findings)
    return Ranking(ranking.queries, tuple(names[:k] for names in ranking.file_names))


# Checking -------------------------------------------------------------------------------------------------------------


def validate(task: Task, path: Path, split: Split | str = "", file: str = "") -> list[Finding]:
    """Check an output file: its text, its header, that each query or clip has one row, and the answer in each row.

    Args:
        task: The task.
        path: The file.
        split: The split with the queries and clips that are answered. If it is not available, its name or an empty
            text: then the file is checked by itself, and its rows are counted against the task's official sets.
        file: The file's name in findings (default: its path).

    Returns:
        The findings in the order of the file: the first of each kind, and the number of others.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give an output file of {task.name}")
    findings = bounded(_check(task, path, split, file), LISTED, file)
    return sorted(limited(sorted(findings)))


def _check(task: Task, path: Path, split: Split | str, file: str) -> Iterator[Finding]:
    asked = _asked(task, split)
    try:
        layout = _layout(task, path, asked, file)
    except Faulty as refusal:
        yield from refusal.findings
        return
    if layout.bom:
        yield layout.bom
    unreadable: list[Finding] = []
    records, whole = tables.read_table(path, file, unreadable, layout.separator)
    header = records[0][1] if records else []
    if whole or records:
        faults, usable = _header(task, header, split, file, layout.separator)
        yield from faults
        if not usable:  # another separator, or another file: all else would only repeat it
            return
    yield from unreadable
    if layout.separator != task.separator.value:
        found, wanted = SEPARATORS[layout.separator], SEPARATORS[task.separator.value]
        message = f"columns are separated by {found}, which is accepted; {task.name} is written with {wanted}"
        yield Finding(file, 1, message=message, severity=WARNING)
    if not whole:  # rows that could not be read would be reported as missing
        return
    if layout.stray_line and not _has_carriage_return(records):
        message = "must end in LF or CRLF; found CR alone: save with other line ends"
        yield Finding(file, layout.stray_line, message=message)
    column = task.columns.value[0]
    has_header = header[0] == column or header[0] not in asked
    rows = records[1:] if has_header else records
    check_rows = {"captions": _captions, "top-k": _top_k, "matrix": _matrix}[task.form.value]
    keys: dict[str, int] = {}
    yield from check_rows(task, header, rows, split, file, keys)
    if isinstance(split, str):
        yield from _check_count(task, split, path.name, len(keys), file)
    else:
        yield from _compare(keys, asked, _row_term(task), split, file, lambda name: (keys.get(name, 0), column))


def _row_term(task: Task) -> str:
    """Return what each row answers, a key of `TERMS`."""
    if task.form.value == "captions":
        return "clip"
    return "query"


def _asked(task: Task, split: Split | str) -> Sequence[str]:
    """Return the clips or queries that must have a row; none if only the split's name is known."""
    if isinstance(split, str):
        return ()
    if task.form.value == "captions":
        return split.file_names
    return split.queries


def _has_carriage_return(records: "Records") -> bool:
    return any("\r" in "".join(cells) for _, cells in records)


class Layout(NamedTuple):
    """What the bytes of a file show before they are read as CSV.

    Attributes:
        separator: The separator of columns.
        stray_line: The first line that ends in CR alone; 0 if there is none.
        bom: A warning about a byte order mark, if there is one.
    """

    separator: str
    stray_line: int
    bom: Finding | None


def _layout(task: Task, path: Path, asked: Sequence[str], file: str) -> Layout:
    """Look at the bytes of a file.

    Raises:
        Faulty: It is too large to be read, no text, or has other separators.
    """
    size = path.stat().st_size
    if size > LIMIT:
        message = f"must not be larger than {LIMIT} bytes; found {size}: is it an output file?"
        raise Faulty([Finding(file, message=message)])
    raw = path.read_bytes()
    first_line = re.match(rb"[^\r\n]*", raw)[0]
    accepted = (task.separator.value, *task.separators_accepted.value)
    separator = next((mark for mark in accepted if mark.encode() in first_line), task.separator.value)
    utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # `tables.read_table` finds it
    if not utf_16 and b"\0" in raw:
        message = "must be text; found a NUL byte: write the file again"
        raise Faulty([Finding(file, _line(raw, raw.index(b"\0")), message=message)])
    if raw.count(separator.encode()) + raw.count(b"\n") + raw.count(b"\r") > CELLS:
        raise Faulty([Finding(file, message=f"must not have more than {CELLS} cells: is it an output file?")])
    lines = raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
    if asked and lines > MANY * len(asked) + 100:  # to name each that is too many would take minutes
        several = TERMS[_row_term(task)][1]
        message = f"must have a line for each of {len(asked)} {several}; found {lines}: is it the right file?"
        raise Faulty([Finding(file, message=message)])
    bom = None
    if raw.startswith(codecs.BOM_UTF8):
        bom = Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING)
    other = max(SEPARATORS, key=lambda mark: first_line.count(mark.encode()))
    if b'"' in first_line and separator.encode() not in first_line and other.encode() in first_line:
        # Read with the wrong separator, its quotes would be reported as invalid CSV.
        message = f"columns must be separated by {SEPARATORS[separator]}, not {SEPARATORS[other]}; save it so"
        findings = [Finding(file, 1, message=message)]
        raise Faulty([bom, *findings] if bom else findings)
    stray = None if utf_16 else re.search(rb"\r(?!\n)", raw)
    return Layout(separator, _line(raw, stray.start()) if stray else 0, bom)


def _header(
    task: Task, header: list[str], split: Split | str, file: str, separator: str
) -> tuple[Iterable[Finding], bool]:
    """Return what is wrong with the header, and whether the rows below can be read all the same."""
    wanted = task.header()
    if task.form.value == "matrix" and len(header) > 1:
        return _matrix_header(task, header, split, file), True
    if header == wanted and wanted[1:]:
        return (), True
    mark = task.separator.value
    if task.form.value == "matrix":
        shown = [*wanted, "name of a clip", "name of a clip"]
    else:
        shown = wanted
    found = printable(cut(separator.join(header), 2 * SHOWN)) or "nothing"
    message = f"the header must be {mark.join(shown)}; found {found}"
    other = max(SEPARATORS, key=header[0].count) if len(header) == 1 else mark
    if other != mark and other in header[0]:
        message += f"; separate the columns by {SEPARATORS[mark]}, not {SEPARATORS[other]}"
    else:
        message += _header_hint(header, wanted)
    return [Finding(file, 1, message=message)], len(header) == len(wanted) > 1


def _header_hint(header: Sequence[str], wanted: Sequence[str]) -> str:
    """Return what to do about a wrong header, to be added to the message; empty if that is not clear."""
    if header[1:] == list(wanted):
        return "; leave the first column out, which only counts the rows"
    if header[:1] and header[0].startswith("sep="):
        return "; take this line out, which is for spreadsheets only"
    if [name.strip().casefold() for name in header] == [name.casefold() for name in wanted]:
        return "; it is compared letter by letter"
    if sorted(header) == sorted(wanted):
        return "; put the columns in this order"
    if any(name.lower().endswith(SOUND_SUFFIXES) for name in header):
        return "; put the header line before this one"
    absent = [name for name in wanted if name not in header]
    if absent and len(absent) < len(wanted) and not set(header).difference(wanted):
        return f"; there is no column {' and no '.join(absent)}"
    return ""


def _line(raw: bytes, position: int) -> int:
    """Return the line of a byte, from 1; lines end in LF, CR or CRLF."""
    return 1 + raw.count(b"\n", 0, position) + raw.count(b"\r", 0, position) - raw.count(b"\r\n", 0, position)


def _check_width(task: Task, cells: Sequence[str], wanted: int, what: str, file: str, line: int) -> Iterator[Finding]:
    """Find that a row has another number of cells than it must."""
    if len(cells) == wanted:
        return
    message = f"must have {wanted} columns, {what}; found {len(cells)}"
    if len(cells) > wanted:
        message += f"; quote a cell that holds a {SEPARATORS[task.separator.value][:-1]}"
    yield Finding(file, line, message=message)


def _name_fault(name: str) -> str | None:
    """Return what is wrong with a clip's name in any split; None if nothing is."""
    if "/" in name or "\\" in name:
        return f"must be a file's name, not a path; found {quoted(name)}"
    if not name.lower().endswith(SOUND_SUFFIXES):
        return f"must be the name of a sound file ({', '.join(SOUND_SUFFIXES)}); found {quoted(name)}"
    return None


def _add_key(keys: dict[str, int], key: str, line: int, task: Task, file: str) -> Iterator[Finding]:
    """Add the query or clip of a row with its line; find that an earlier row has it."""
    if key in keys:
        verb, what = ("captions", "clip") if task.form.value == "captions" else ("answers", "query")
        message = f"{verb} a {what} that line {keys[key]} {verb} already: {quoted(key)}; keep one row a {what}"
        yield Finding(file, line, task.columns.value[0], message)
    keys.setdefault(key, line)


Records = Sequence[tables.Record]


def _captions(
    task: Task, header: list[str], records: Records, split: Split | str, file: str, keys: dict[str, int]
) -> Iterator[Finding]:
    name, caption = task.header()
    for line, cells in records:
        yield from _check_width(task, cells, 2, "the clip and its caption", file, line)
        yield from _add_key(keys, cells[0], line, task, file)
        fault = _name_fault(cells[0]) if isinstance(split, str) else None
        if fault:
            yield Finding(file, line, name, fault)
        if len(cells) != 2:
            continue
        if not cells[1].strip():
            yield Finding(file, line, caption, "is empty; write a caption")
        elif len((cells[1] + ".").splitlines()) > 1:
            yield Finding(file, line, caption, f"must be one line; found {quoted(cells[1])}: take the line break out")
        elif not any(character.isalnum() for character in cells[1]):
            message = f"has no word, and scores 0; found {quoted(cells[1])}"
            yield Finding(file, line, caption, message, WARNING)
        for _, remark in caption_text.caption_remarks(cells[1]):
            yield Finding(file, line, caption, remark, WARNING)


def _top_k(
    task: Task, header: list[str], records: Records, split: Split | str, file: str, keys: dict[str, int]
) -> Iterator[Finding]:
    wanted = task.header()
    width = len(wanted)
    fault_of: Callable[[str], str | None] = _name_fault
    if not isinstance(split, str):
        common, accounted = _unknown_clips(records, split, file, wanted)
        yield from common
        fault_of = _fault_of_clip(split, accounted)
    for line, (query, *names) in records:
        yield from _check_width(task, [query, *names], width, f"the query and {width - 1} clips", file, line)
        yield from _add_key(keys, query, line, task, file)
        ranks: dict[str, int] = {}
        for rank, name in enumerate(names, start=1):
            column = tables.column_name(wanted, rank)
            first = ranks.setdefault(name, rank)
            fault = fault_of(name)
            if fault:
                yield Finding(file, line, column, fault)
            elif first < rank:
                message = f"{quoted(name)} stands in {tables.column_name(wanted, first)} already; give distinct clips"
                yield Finding(file, line, column, message)


def _unknown_clips(
    records: Records, split: Split, file: str, header: Sequence[str]
) -> tuple[list[Finding], Collection[str]]:
    """Find what all unknown clips of a file have in common; return the findings and the names they account for."""
    clips = set(split.file_names)
    places: dict[str, tuple[int, str]] = {}  # line and column where each name stands first
    for line, (_, *given) in records:
        for rank, name in enumerate(given, start=1):
            places.setdefault(name, (line, tables.column_name(header, rank)))
    unknown = [name for name in places if name not in clips]
    match = explain(unknown, split.file_names)
    if match:
        message = match.message(len(places), "names", _source(split))
        return [Finding(file, *places[next(iter(match.pairs))], message)], match.pairs
    fault = _other_split_fault(places, clips, split, "clips", "names")
    if fault:
        return [Finding(file, message=fault)], unknown
    return [], ()


def _other_split_fault(
    given: Collection[str], asked: Collection[str], split: Split, several: str, noun: str
) -> str | None:
    """Return a message if a file answers another split or data set; None if it does not.

    Args:
        given: The queries or clips of the file.
        asked: The queries or clips of the split.
        split: The split that is answered.
        several: The word for them, such as "clips".
        noun: The word for what is compared, "queries" or "names".
    """
    asked = set(asked)
    known = sum(name in asked for name in given)
    fault = f"has {known or 'none'} of the {len(asked)} {several} of {split.name}"
    other = of_another_split(split, given, noun)
    if other:
        return f"{fault}; {other}"
    meant = closest(asked, texts=noun == "queries")
    some = islice(given, MANY * len(asked) + 100)  # to look up millions of names would take minutes
    if not given or known or any(meant(name) for name in some):
        return None
    return f"{fault}; is this the prediction of another split or data set?"


def _source(split: Split) -> str:
    if split.source:
        return split.source.name
    return ""


def _fault_of_clip(split: Split, accounted: Collection[str]) -> Callable[[str], str | None]:
    """Return a function that returns what is wrong with a clip's name; None for names that are accounted for."""
    right = {*split.file_names, *accounted}
    meant = closest(split.file_names)
    faults: dict[str, str] = {}
    left = ALIKE  # guesses, each of which takes some milliseconds; more findings are not listed

    def fault(name: str) -> str | None:
        nonlocal left
        if name in right:
            return None
        if name not in faults:
            close, typo = meant(name), None
            if not close and left:
                left -= 1
                typo = _misspelt(name, split.file_names)
            faults[name] = _unknown(name, close, typo, "clip", split.name)
        return faults[name]

    return fault


def _matrix_header(task: Task, header: list[str], split: Split | str, file: str) -> Iterator[Finding]:
    key, names = task.header()[0], header[1:]
    if header[0] != key:
        yield Finding(file, 1, message=f"the first column must be {key}; found {quoted(header[0])}")
    found: dict[str, int] = {}
    for number, name in enumerate(names, start=2):
        if found.setdefault(name, number) < number:
            message = f"{quoted(name)} is column {found[name]} already; keep one column a clip"
            yield Finding(file, 1, f"column {number}", message)
        elif isinstance(split, str):
            fault = _name_fault(name)
            if fault:
                yield Finding(file, 1, f"column {number}", fault)
    if not isinstance(split, str):
        asked = task.header(split.file_names)[1:]

        def where(name: str) -> tuple[int, str]:
            return 1, f"column {found[name]}" if name in found else ""

        yield from _compare(found, asked, "column", split, file, where)


def _matrix(
    task: Task, header: list[str], records: Records, split: Split | str, file: str, keys: dict[str, int]
) -> Iterator[Finding]:
    constant: list[int] = []
    for line, (query, *cells) in records:
        what = f"the query and {len(header) - 1} scores"
        yield from _check_width(task, [query, *cells], len(header), what, file, line)
        yield from _add_key(keys, query, line, task, file)
        scores = finite_numbers(cells)
        if scores is None:
            bad = [place + 1 for place in not_finite(cells)]
            more = f", and so in {len(bad) - 1} more columns" if len(bad) > 1 else ""
            message = f"must be a finite number; found {quoted(cells[bad[0] - 1])}{more}"
            yield Finding(file, line, cut(tables.column_name(header, bad[0])), message)
        elif len(scores) > 1 and (scores == scores[0]).all():
            constant.append(line)
    if constant:
        more = f" (so in {len(constant) - 1} more rows)" if len(constant) > 1 else ""
        message = f"gives every clip the same score, which ranks none{more}; is the model trained?"
        yield Finding(file, constant[0], message=message, severity=WARNING)


TERMS = {  # one, several, what is compared, and what to say of one that is missing
    "query": ("query", "queries", "queries", "no row answers {}; add one"),
    "clip": ("clip", "clips", "names", "no row gives a caption to {}; add one"),
    "column": ("clip", "clips", "names", "no column scores {}; add one"),
}


def _misspelt(name: str, names: Iterable[str]) -> str | None:
    """Return the name that differs by a letter or two; None if there is none, or several are as close."""
    if len(name) > SHOWN:
        return None
    alike = difflib.get_close_matches(name, names, 2, CLOSE)
    ratios = [difflib.SequenceMatcher(None, other, name).ratio() for other in alike]
    if not alike or (len(alike) == 2 and ratios[0] <= ratios[1]):
        return None
    return alike[0]


def _unknown(name: str, meant: str | None, typo: str | None, what: str, split: str) -> str:
    """Return the message about an unknown name; `meant` is the same but for blanks, case or a path."""
    one, _, compared, _ = TERMS[what]
    advice = hint(name, meant, compared)
    if not meant and typo:
        advice = f"; did you mean {quoted(typo)}?"
    return f"{quoted(name)} is no {one} of {split}{advice}"


def _compare(
    found: Mapping[str, int],
    asked: Iterable[str],
    what: str,
    split: Split,
    file: str,
    where: Callable[[str], tuple[int, str]],
) -> Iterator[Finding]:
    """Find the keys that are not asked for, with what may be meant, and those that are missing.

    Args:
        found: The keys of the file.
        asked: The keys that it must have.
        what: A key of `TERMS`.
        split: The split that is answered.
        file: The file's name in findings.
        where: Return the line and column of a key.
    """
    asked = dict.fromkeys(asked)
    unknown = dict.fromkeys(name for name in found if name not in asked)
    missing = dict.fromkeys(name for name in asked if name not in found)
    _, several, noun, add = TERMS[what]
    match = explain(unknown, missing, texts=what == "query")
    if match:
        of_captions = what != "query" or bool(split.captions)
        message = match.message(len(found), noun, _source(split) if of_captions else "")
        yield Finding(file, *where(next(iter(match.pairs))), message)
        for given, expected in match.pairs.items():
            del unknown[given], missing[expected]
    elif not found:
        message = f"has none of the {len(asked)} {several} of {split.name}; add them"
        yield Finding(file, message=message)
        return
    else:
        fault = _other_split_fault(found, asked, split, several, noun)
        if fault:
            yield Finding(file, message=fault)  # every other finding would only repeat it
            return
    meant = closest(missing, texts=what == "query")
    left = GUESSED
    for name in unknown:
        close, typo = meant(name), None
        if not close and left and len(missing) <= GUESSED:
            left -= 1
            typo = _misspelt(name, missing)
        missing.pop(close or typo, None)  # one slip, one finding
        yield Finding(file, *where(name), _unknown(name, close, typo, what, split.name))
    for name in missing:
        yield Finding(file, *where(name), add.format(quoted(name)))


def _check_count(task: Task, split: str, name: str, rows: int, file: str) -> Iterator[Finding]:
    """Find that a file has another number of rows than the task's sets; a number that is not verified only warns."""
    sets = task.sets
    if split:
        sets = {split: sets[split]} if split in sets else {}
    else:
        named = {key: output for key, output in sets.items() if output.is_named(name)}
        sets = named or sets
    official = {key: output.rows for key, output in sets.items() if output.rows}
    numbers = [fact.value for fact in official.values()]
    if not official or len(official) < len(sets) or rows in numbers:
        return
    verified = all(fact.certainty == "verified" for fact in official.values())
    wanted = " or ".join(f"{fact.value} ({key})" for key, fact in official.items())
    what = "clips" if task.form.value == "captions" else "queries"
    message = f"must answer {wanted} {what}; found {rows}"
    yield Finding(file, 0, task.columns.value[0], message, ERROR if verified else WARNING)
