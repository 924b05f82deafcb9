"""The writing of output files from predictions, and the check of output files before they are submitted.

A check uses less than 2 GB of memory, even for a hostile file. It accepts at most `LIMIT` bytes, `CELLS` cells, and ten
million characters in a cell (`evaluation.data.tables`). The check ends after `LISTED` findings. It keeps the first
findings of each kind and counts the others (`evaluation.findings.limited`). It cuts long texts in messages to `SHOWN`
characters.
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
from evaluation.data.dataset import Split, other_split_hint
from evaluation.files import replacing
from evaluation.findings import ALIKE, ERROR, WARNING, BadRequest, Faulty, Finding, bounded, limited
from evaluation.metrics import retrieval
from evaluation.names import closest, explain, hint
from evaluation.predictions import Captions, Ranking, Similarity, finite_numbers, not_finite
from evaluation.text import SHOWN, cut, plural, printable, quoted
from submission.tasks import SEPARATORS, Task

LIMIT = 128 * 2**20  # maximum size of a file in bytes
CELLS = 6_000_000  # maximum number of cells; Clotho's validation split has 5.5 million (5225 captions by 1045 clips)
LISTED = 10_000  # maximum number of findings, after which the check ends
CLOSE = 0.9  # minimum similarity (difflib's ratio) of a misspelt name and the right one
GUESSED = 100  # maximum number of misspelt names that are looked up, and of names to choose from, to limit the time
MANY = 10  # a file that has more than ten times the expected number of lines is probably the wrong file


# Writing --------------------------------------------------------------------------------------------------------------


def write(
    task: Task,
    prediction: Similarity | Ranking | Captions,
    split: Split,
    path: Path,
    file: str = "prediction",
) -> None:
    """Write a prediction in the task's form. If anything fails, no file is written.

    The same prediction always gives the same bytes.

    Args:
        task: The task.
        prediction: For the form "matrix", a score of every query for every clip; for the form "top-k", such scores or
            the best clips of each query; for the form "captions", a caption for each clip.
        split: The split that the prediction is for.
        path: The file to write.
        file: The prediction's name in findings.

    Raises:
        BadRequest: The split has fewer clips than the task asks for each query.
        Faulty: The prediction does not have the queries and clips of the split; its scores are not finite; it has only
            the best clips, but the task needs scores or more clips; or the file would not pass `validate`.
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
    """Return the header and the rows of an output file.

    Raises:
        BadRequest, Faulty: See `write`.
    """
    if isinstance(prediction, Captions):
        from evaluation.metrics import captioning  # imports scipy, which no other form needs

        captioning.validate(split, prediction, file)
        captions = dict(zip(prediction.file_names, prediction.captions, strict=True))
        return task.header(), [(name, captions[name]) for name in split.file_names]
    if task.k and len(split.clips) < task.k.value:
        message = f"{task.name} asks for {task.k.value} clips for each query; {split.name} has only {len(split.clips)}"
        raise BadRequest(f"{message}: give another split")
    retrieval.validate(dict.fromkeys(split.queries, frozenset()), split.file_names, prediction, file, split)
    if task.k:
        if isinstance(prediction, Ranking):
            ranking = _best(prediction, task.k.value, file)
        else:
            ranking = prediction.top(task.k.value)
        pairs = zip(ranking.queries, ranking.file_names, strict=True)
        return task.header(), [(query, *names) for query, names in pairs]
    if isinstance(prediction, Ranking):
        message = f"must have a score of every query for every clip, because {task.name} asks for all of them"
        advice = "give predictions/SPLIT.npz, or a CSV whose header names the clips"
        raise Faulty([Finding(file, message=f"{message}; found only the best clips of each query: {advice}")])
    # `tolist` gives Python floats. Their repr reads back as the same number, as float32 and as float64.
    scores = zip(prediction.queries, prediction.scores, strict=True)
    return task.header(prediction.file_names), ((query, *map(repr, row.tolist())) for query, row in scores)


def _best(ranking: Ranking, k: int, file: str) -> Ranking:
    """Return the first k clips of each query.

    Raises:
        Faulty: Some queries have fewer than k clips. The exception lists all of them.
    """
    findings = []
    lines = ranking.lines or (0,) * len(ranking.queries)
    for line, names in zip(lines, ranking.file_names, strict=True):
        if len(names) < k:
            message = f"must have {k} clips, best first; found {len(names)}: add the missing ones"
            findings.append(Finding(file, line, message=message))
    if findings:
        raise Faulty(findings)
    return Ranking(ranking.queries, tuple(names[:k] for names in ranking.file_names))


# Checking -------------------------------------------------------------------------------------------------------------


def validate(task: Task, path: Path, split: Split | str = "", file: str = "") -> list[Finding]:
    """Check an output file: its encoding, its header and its rows. Each query or clip must have exactly one row.

    Args:
        task: The task.
        path: The file.
        split: The split that the file is for. If the data are not available, give the split's name, or an empty text if
            the name is not known. The file is then not compared with the data. Instead, the number of rows is compared
            with the official number of rows of the split, or of any of the task's sets if the name is not known.
        file: The file's name in findings (default: its path).

    Returns:
        The findings in the order of the file: the first findings of each kind, and the number of the others.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give an output file of {task.name}")
    findings = bounded(_check(task, path, split, file), LISTED, file)
    return sorted(limited(sorted(findings)))


def _check(task: Task, path: Path, split: Split | str, file: str) -> Iterator[Finding]:
    """Yield all findings of `validate`, in any order."""
    expected = _expected_keys(task, split)
    try:
        layout = _layout(task, path, expected, file)
    except Faulty as faulty:
        yield from faulty.findings
        return
    if layout.bom:
        yield layout.bom
    unreadable: list[Finding] = []
    records, whole = tables.read_table(path, file, unreadable, layout.separator)
    header = records[0][1] if records else []
    if whole or records:
        faults, usable = _header(task, header, split, file, layout.separator)
        yield from faults
        if not usable:  # all other findings would only follow from the wrong header
            return
    yield from unreadable
    if layout.separator != task.separator.value:
        found, usual = SEPARATORS[layout.separator], SEPARATORS[task.separator.value]
        message = f"columns should be separated by {usual} in {task.name}; found {found}, which are accepted, too"
        yield Finding(file, 1, message=message, severity=WARNING)
    if not whole:  # otherwise the rows that cannot be read would be reported as missing
        return
    if layout.stray_line and not _has_carriage_return(records):
        message = "lines must end in LF or CRLF; found CR without LF: save the file with other line ends"
        yield Finding(file, layout.stray_line, message=message)
    column = task.columns.value[0]
    rows = records
    if header[0] == column or header[0] not in expected:  # otherwise the header is missing
        rows = records[1:]
    check_rows = {"captions": _captions, "top-k": _top_k, "matrix": _matrix}[task.form.value]
    keys: dict[str, int] = {}
    yield from check_rows(task, header, rows, split, file, keys)
    if isinstance(split, str):
        yield from _check_count(task, split, path.name, len(keys), file)
    else:
        yield from _compare(keys, expected, _row_term(task), split, file, lambda name: (keys.get(name, 0), column))


def _row_term(task: Task) -> str:
    """Return the key of `TERMS` for the first cell of each row: a clip or a query."""
    if task.form.value == "captions":
        return "clip"
    return "query"


def _expected_keys(task: Task, split: Split | str) -> Sequence[str]:
    """Return the clips or queries that must each have a row, or an empty tuple if only the split's name is known."""
    if isinstance(split, str):
        return ()
    if task.form.value == "captions":
        return split.file_names
    return split.queries


def _has_carriage_return(records: "Records") -> bool:
    return any("\r" in "".join(cells) for _, cells in records)


class Layout(NamedTuple):
    """The layout of a file. It is found in the bytes, before they are read as CSV.

    Attributes:
        separator: The separator of columns.
        stray_line: The first line that ends in CR without LF; 0 if there is no such line.
        bom: A warning about a byte order mark; None if the file does not have one.
    """

    separator: str
    stray_line: int
    bom: Finding | None


def _layout(task: Task, path: Path, expected: Sequence[str], file: str) -> Layout:
    """Return the layout of a file.

    Raises:
        Faulty: The file is too large, has far too many lines, is not text, or has a wrong separator.
    """
    size = path.stat().st_size
    if size > LIMIT:
        message = f"must not be larger than {LIMIT} bytes; found {size} bytes: is it an output file?"
        raise Faulty([Finding(file, message=message)])
    raw = path.read_bytes()
    first_line = re.split(rb"[\r\n]", raw, maxsplit=1)[0]
    accepted = (task.separator.value, *task.separators_accepted.value)
    separator = next((mark for mark in accepted if mark.encode() in first_line), task.separator.value)
    utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # `tables.read_table` reports it
    if not utf_16 and b"\0" in raw:
        message = "must be text; found a NUL byte: write the file again"
        raise Faulty([Finding(file, _line(raw, raw.index(b"\0")), message=message)])
    if raw.count(separator.encode()) + raw.count(b"\n") + raw.count(b"\r") > CELLS:
        raise Faulty([Finding(file, message=f"must not have more than {CELLS} cells; it does: is it an output file?")])
    lines = raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
    if expected and lines > MANY * len(expected) + 100:  # a finding about each surplus line would take minutes
        several = TERMS[_row_term(task)][1]
        message = f"must have one line for each of {len(expected)} {several}; found {lines} lines"
        raise Faulty([Finding(file, message=f"{message}: is it the right file?")])
    bom = None
    if raw.startswith(codecs.BOM_UTF8):
        bom = Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING)
    other = max(SEPARATORS, key=lambda mark: first_line.count(mark.encode()))
    if b'"' in first_line and separator.encode() not in first_line and other.encode() in first_line:
        # If the file were read with the wrong separator, its quotes would be reported as invalid CSV.
        usual = SEPARATORS[separator]
        message = f"columns must be separated by {usual}; found {SEPARATORS[other]}: save the file with {usual}"
        findings = [Finding(file, 1, message=message)]
        if bom:
            findings.insert(0, bom)
        raise Faulty(findings)
    stray_line = 0
    stray = re.search(rb"\r(?!\n)", raw)
    if stray and not utf_16:
        stray_line = _line(raw, stray.start())
    return Layout(separator, stray_line, bom)


def _header(
    task: Task, header: list[str], split: Split | str, file: str, separator: str
) -> tuple[Iterable[Finding], bool]:
    """Return the findings about the header, and whether the rows can be checked even so."""
    expected = task.header()
    if task.form.value == "matrix" and len(header) > 1:
        return _matrix_header(task, header, split, file), True
    if header == expected and expected[1:]:
        return (), True
    mark = task.separator.value
    shown = expected
    if task.form.value == "matrix":
        shown = [*expected, "name of a clip", "name of a clip"]
    found = printable(cut(separator.join(header), 2 * SHOWN)) or "nothing"
    message = f"the header must be {mark.join(shown)}; found {found}"
    other = mark
    if len(header) == 1:
        other = max(SEPARATORS, key=header[0].count)
    if other != mark and other in header[0]:
        message += f"; separate the columns by {SEPARATORS[mark]}, not {SEPARATORS[other]}"
    else:
        message += _header_hint(header, expected)
    return [Finding(file, 1, message=message)], len(header) == len(expected) > 1


def _header_hint(header: Sequence[str], expected: Sequence[str]) -> str:
    """Return the end of the message about a wrong header. It says what to do, or is empty if that is not clear."""
    if header[1:] == list(expected):
        return "; remove the first column, which only numbers the rows"
    if header[:1] and header[0].startswith("sep="):
        return "; remove this line, which only spreadsheet programs understand"
    if [name.strip().casefold() for name in header] == [name.casefold() for name in expected]:
        return "; blanks, and upper and lower case, must agree"
    if sorted(header) == sorted(expected):
        return "; put the columns in this order"
    if any(name.lower().endswith(SOUND_SUFFIXES) for name in header):
        return "; add the header line above this line"
    missing = [name for name in expected if name not in header]
    if missing and len(missing) < len(expected) and not set(header).difference(expected):
        return f"; add {' and '.join(missing)}"
    return ""


def _line(raw: bytes, position: int) -> int:
    """Return the line that contains a byte, from 1. Lines end in LF, CR or CRLF."""
    return 1 + raw.count(b"\n", 0, position) + raw.count(b"\r", 0, position) - raw.count(b"\r\n", 0, position)


def _check_width(
    task: Task, cells: Sequence[str], expected: int, content: str, file: str, line: int
) -> Iterator[Finding]:
    """Yield a finding if a row has a wrong number of cells.

    Args:
        task: The task.
        cells: The cells of the row.
        expected: The right number of cells.
        content: The words that describe the content of the cells, for the message.
        file: The file's name in findings.
        line: The line of the row.
    """
    if len(cells) == expected:
        return
    message = f"must have {expected} columns, {content}; found {len(cells)}"
    if len(cells) > expected:
        message += f"; quote a cell that holds a {SEPARATORS[task.separator.value][:-1]}"
    yield Finding(file, line, message=message)


def _name_fault(name: str) -> str | None:
    """Return a message if a name cannot be the name of a clip in any split, or None if it can."""
    if "/" in name or "\\" in name:
        return f"must be a file name, not a path; found {quoted(name)}"
    if not name.lower().endswith(SOUND_SUFFIXES):
        return f"must be the name of a sound file ({', '.join(SOUND_SUFFIXES)}); found {quoted(name)}"
    return None


def _add_key(keys: dict[str, int], key: str, line: int, task: Task, file: str) -> Iterator[Finding]:
    """Add the query or clip of a row to `keys`, with its line. Yield a finding if it is in `keys` already."""
    if key in keys:
        row_term = _row_term(task)
        message = f"must not repeat a {row_term}; {quoted(key)} is in line {keys[key]} already: keep one of the rows"
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
        if isinstance(split, str):
            fault = _name_fault(cells[0])
            if fault:
                yield Finding(file, line, name, fault)
        if len(cells) != 2:
            continue
        if not cells[1].strip():
            yield Finding(file, line, caption, "must not be empty; write a caption")
        elif len((cells[1] + ".").splitlines()) > 1:
            yield Finding(file, line, caption, f"must be one line; found {quoted(cells[1])}: remove the line break")
        elif not any(character.isalnum() for character in cells[1]):
            message = f"should have a word; found {quoted(cells[1])}, which scores 0"
            yield Finding(file, line, caption, message, WARNING)
        for _, remark in caption_text.caption_remarks(cells[1]):
            yield Finding(file, line, caption, remark, WARNING)


def _top_k(
    task: Task, header: list[str], records: Records, split: Split | str, file: str, keys: dict[str, int]
) -> Iterator[Finding]:
    header = task.header()  # the names that the columns should have
    width = len(header)
    fault_of: Callable[[str], str | None] = _name_fault
    if not isinstance(split, str):
        common, explained = _unknown_clips(records, split, file, header)
        yield from common
        fault_of = _fault_of_clip(split, explained)
    for line, (query, *names) in records:
        yield from _check_width(task, [query, *names], width, f"the query and {width - 1} clips", file, line)
        yield from _add_key(keys, query, line, task, file)
        ranks: dict[str, int] = {}
        for rank, name in enumerate(names, start=1):
            column = tables.column_name(header, rank)
            first = ranks.setdefault(name, rank)
            fault = fault_of(name)
            if fault:
                yield Finding(file, line, column, fault)
            elif first < rank:
                message = f"{quoted(name)} is in {tables.column_name(header, first)} already; give different clips"
                yield Finding(file, line, column, message)


def _unknown_clips(
    records: Records, split: Split, file: str, header: Sequence[str]
) -> tuple[list[Finding], Collection[str]]:
    """Find out whether the unknown clips of a file have a common cause.

    The names may all differ from the right ones in the same way, or be those of another split or data set.

    Returns:
        A finding about the common cause, in a list; and the names that it explains. Both are empty if there is no
        common cause.
    """
    clips = set(split.file_names)
    places: dict[str, tuple[int, str]] = {}  # line and column of the first occurrence of each name
    for line, (_, *names) in records:
        for rank, name in enumerate(names, start=1):
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
    given: Collection[str], expected: Collection[str], split: Split, several: str, noun: str
) -> str | None:
    """Return a message if a file is probably for another split or data set, or None if it is not.

    Args:
        given: The queries or clips in the file.
        expected: The queries or clips of the split.
        split: The split that the file should be for.
        several: The plural noun for the queries or clips in the message, such as "clips".
        noun: The plural noun for the texts that are compared: "queries" or "names".
    """
    expected = set(expected)
    shared = sum(name in expected for name in given)
    fault = f"has {shared or 'none'} of the {len(expected)} {several} of {split.name}"
    other = other_split_hint(split, given, noun)
    if other:
        return f"{fault}; {other}"
    lookup = closest(expected, texts=noun == "queries")
    sample = islice(given, MANY * len(expected) + 100)  # a look-up of millions of names would take minutes
    if not given or shared or any(lookup(name) for name in sample):
        return None
    return f"{fault}; is this the prediction of another split or data set?"


def _source(split: Split) -> str:
    """Return the name of the file that contains the names of a split, or an empty text if it is not known."""
    if split.source:
        return split.source.name
    return ""


def _fault_of_clip(split: Split, explained: Collection[str]) -> Callable[[str], str | None]:
    """Return a function that returns the message about a clip's name, or None if the name is valid or explained."""
    accepted = {*split.file_names, *explained}
    lookup = closest(split.file_names)
    faults: dict[str, str] = {}
    guesses = ALIKE  # a guess takes some milliseconds, and only so many findings are listed

    def fault(name: str) -> str | None:
        nonlocal guesses
        if name in accepted:
            return None
        if name not in faults:
            same, typo = lookup(name), None
            if not same and guesses:
                guesses -= 1
                typo = _misspelt(name, split.file_names)
            faults[name] = _unknown(name, same, typo, "clip", split.name)
        return faults[name]

    return fault


def _matrix_header(task: Task, header: list[str], split: Split | str, file: str) -> Iterator[Finding]:
    key, names = task.header()[0], header[1:]
    if header[0] != key:
        yield Finding(file, 1, message=f"the first column must be {key}; found {quoted(header[0])}")
    columns: dict[str, int] = {}
    for number, name in enumerate(names, start=2):
        if columns.setdefault(name, number) < number:
            message = f"must not repeat a clip; {quoted(name)} is column {columns[name]} already: keep one of the two"
            yield Finding(file, 1, f"column {number}", message)
        elif isinstance(split, str):
            fault = _name_fault(name)
            if fault:
                yield Finding(file, 1, f"column {number}", fault)
    if not isinstance(split, str):
        expected = task.header(split.file_names)[1:]

        def where(name: str) -> tuple[int, str]:
            if name in columns:
                return 1, f"column {columns[name]}"
            return 1, ""

        yield from _compare(columns, expected, "column", split, file, where)


def _matrix(
    task: Task, header: list[str], records: Records, split: Split | str, file: str, keys: dict[str, int]
) -> Iterator[Finding]:
    constant: list[int] = []
    for line, (query, *cells) in records:
        content = f"the query and {len(header) - 1} scores"
        yield from _check_width(task, [query, *cells], len(header), content, file, line)
        yield from _add_key(keys, query, line, task, file)
        scores = finite_numbers(cells)
        if scores is None:
            bad = [place + 1 for place in not_finite(cells)]
            message = f"must be a finite number; found {quoted(cells[bad[0] - 1])}"
            if len(bad) > 1:
                message += f", and others like it in {plural(len(bad) - 1, 'more column')}"
            yield Finding(file, line, cut(tables.column_name(header, bad[0])), message)
        elif len(scores) > 1 and (scores == scores[0]).all():
            constant.append(line)
    if constant:
        message = "all clips have the same score, so they have no order"
        if len(constant) > 1:
            message += f" (also in {plural(len(constant) - 1, 'more row')})"
        yield Finding(file, constant[0], message=f"{message}; is the model trained?", severity=WARNING)


TERMS = {  # singular, plural, plural of the texts that are compared, and message about a missing query or clip
    "query": ("query", "queries", "queries", "no row answers {}; add one"),
    "clip": ("clip", "clips", "names", "no row has a caption for {}; add one"),
    "column": ("clip", "clips", "names", "no column has the scores of {}; add one"),
}


def _misspelt(name: str, names: Iterable[str]) -> str | None:
    """Return the only name that differs from a misspelt name by a few letters, or None if there is no such name."""
    if len(name) > SHOWN:
        return None
    candidates = difflib.get_close_matches(name, names, 2, CLOSE)
    ratios = [difflib.SequenceMatcher(None, other, name).ratio() for other in candidates]
    if not candidates or (len(candidates) == 2 and ratios[0] <= ratios[1]):
        return None
    return candidates[0]


def _unknown(name: str, same: str | None, typo: str | None, term: str, split: str) -> str:
    """Return the message about an unknown name.

    Args:
        name: The unknown name.
        same: The right name, if the two differ only in blanks, case, a path or the like.
        typo: The right name, if the two differ by a few letters.
        term: A key of `TERMS`.
        split: The name of the split.
    """
    one, _, compared, _ = TERMS[term]
    advice = hint(name, same, compared)
    if not same and typo:
        advice = f"; did you mean {quoted(typo)}?"
    return f"{quoted(name)} is not a {one} of {split}{advice}"


def _compare(
    given: Mapping[str, int],
    expected: Iterable[str],
    term: str,
    split: Split,
    file: str,
    where: Callable[[str], tuple[int, str]],
) -> Iterator[Finding]:
    """Yield findings about unknown queries or clips, with the ones that were probably meant, and about missing ones.

    Args:
        given: The queries or clips in the file, as keys of a dict.
        expected: The queries or clips that the file must have.
        term: A key of `TERMS`.
        split: The split that the file is for.
        file: The file's name in findings.
        where: A function that returns the line and the column of a query or clip.
    """
    expected = dict.fromkeys(expected)
    unknown = dict.fromkeys(name for name in given if name not in expected)
    missing = dict.fromkeys(name for name in expected if name not in given)
    _, several, noun, missing_message = TERMS[term]
    match = explain(unknown, missing, texts=term == "query")
    if match:
        source = ""
        if term != "query" or split.captions:  # only queries that are captions are in the split's file
            source = _source(split)
        message = match.message(len(given), noun, source)
        yield Finding(file, *where(next(iter(match.pairs))), message)
        for wrong, right in match.pairs.items():
            del unknown[wrong], missing[right]
    elif not given:
        message = f"has none of the {len(expected)} {several} of {split.name}; add them"
        yield Finding(file, message=message)
        return
    else:
        fault = _other_split_fault(given, expected, split, several, noun)
        if fault:
            yield Finding(file, message=fault)  # all other findings would only repeat this one
            return
    lookup = closest(missing, texts=term == "query")
    guesses = GUESSED
    for name in unknown:
        same, typo = lookup(name), None
        if not same and guesses and len(missing) <= GUESSED:
            guesses -= 1
            typo = _misspelt(name, missing)
        meant = same or typo
        if meant:
            missing.pop(meant, None)  # a misspelt name is one finding, not also a missing one
        yield Finding(file, *where(name), _unknown(name, same, typo, term, split.name))
    for name in missing:
        yield Finding(file, *where(name), missing_message.format(quoted(name)))


def _check_count(task: Task, split: str, name: str, rows: int, file: str) -> Iterator[Finding]:
    """Yield a finding if the number of rows is not the official number.

    The finding is an error if all possible numbers are verified facts, and otherwise a warning. If one of the possible
    numbers is not known, the rows are not checked.

    Args:
        task: The task.
        split: The name of the split that the file is for; empty if it is not known.
        name: The file's name. If it fits the pattern of a set, only the number of this set is accepted.
        rows: The number of rows.
        file: The file's name in findings.
    """
    sets = task.sets
    if split:
        sets = {key: output for key, output in sets.items() if key == split}
    else:
        named = {key: output for key, output in sets.items() if output.is_named(name)}
        sets = named or sets
    official = {key: output.rows for key, output in sets.items() if output.rows}
    numbers = [fact.value for fact in official.values()]
    if not official or len(official) < len(sets) or rows in numbers:
        return
    severity = WARNING
    if all(fact.certainty == "verified" for fact in official.values()):
        severity = ERROR
    expected = " or ".join(f"{fact.value} ({key})" for key, fact in official.items())
    several = TERMS[_row_term(task)][1]
    message = f"must answer {expected} {several}; found {rows}"
    yield Finding(file, 0, task.columns.value[0], message, severity)
