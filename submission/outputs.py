"""Output files: written from a prediction, and checked before they are handed in.

What a file may take of the machine is bounded, whoever made it: `LIMIT` bytes, `CELLS` cells, ten million characters a
cell (`evaluation.data.tables`), and `LISTED` findings, of which some of each kind are kept
(`evaluation.findings.limited`), each with `SHOWN` characters of a text. That is less than 2 GB of memory, whatever
the file holds.
"""

import codecs
import csv
import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from evaluation.data import caption_text, tables
from evaluation.data.cells import SOUND_SUFFIXES
from evaluation.data.dataset import Split, of_another_split
from evaluation.files import replacing
from evaluation.findings import (
    ALIKE,
    ERROR,
    SHOWN,
    WARNING,
    BadRequest,
    Faulty,
    Finding,
    bounded,
    cut,
    limited,
    printable,
    quoted,
)
from evaluation.metrics import retrieval
from evaluation.names import closest, explain, hint
from evaluation.predictions import Captions, Ranking, Similarity, finite_numbers, not_finite
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
    """Write what a system answers for a split, in the task's form, whole or not at all; the same gives the same bytes.

    Args:
        task: What is asked for.
        prediction: For the form matrix a score of every query for every clip; for the form top-k such scores, or the
            best clips of each query; for the form captions a caption for each clip.
        split: Whose queries it answers, with whose clips.
        path: Where to.
        file: The prediction's name in findings.

    Raises:
        BadRequest: The split has fewer clips than the task wants for a query.
        Faulty: The prediction lacks a query or a clip, holds scores that are not finite, or has only the best clips
            where scores are wanted; or what would be written does not pass `validate`. Nothing is written.
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
    if task.k and isinstance(prediction, Ranking):
        ranking = _best(prediction, task.k.value, file)
        return task.header(), [(q, *names) for q, names in zip(ranking.queries, ranking.file_names, strict=True)]
    if isinstance(prediction, Ranking):
        wanted = f"must have a score of every query for every clip, which {task.name} takes"
        advice = "give predictions/SPLIT.npz, or a CSV whose header names the clips"
        raise Faulty([Finding(file, message=f"{wanted}; found the best clips of each query alone: {advice}")])
    if task.k:
        ranking = prediction.top(task.k.value)
        return task.header(), [(q, *names) for q, names in zip(ranking.queries, ranking.file_names, strict=True)]
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
    """Check an output file: its text, its header, every query or clip once, and what each row answers.

    Args:
        task: What is asked for.
        path: The file.
        split: Whose queries are answered, with whose clips. Of a split that is not there, its name or nothing: then
            only what the file itself shows is checked, and its rows are counted against the task's official sets.
        file: The file's name in findings; its path by default.

    Returns:
        The findings in the order of the file; of many findings of one kind the first ones, and their number.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give an output file of {task.name}")
    findings = bounded(_check(task, path, split, file), LISTED, file)
    return sorted(limited(sorted(findings)))


def _check(task: Task, path: Path, split: Split | str, file: str) -> Iterator[Finding]:
    if path.stat().st_size > LIMIT:
        message = f"must not be larger than {LIMIT} bytes; found {path.stat().st_size}: is it an output file?"
        yield Finding(file, message=message)
        return
    raw = path.read_bytes()
    first_line = re.match(rb"[^\r\n]*", raw)[0]
    accepted = (task.separator.value, *task.separators_accepted.value)
    separator = next((mark for mark in accepted if mark.encode() in first_line), task.separator.value)
    utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # `tables.read` says so
    if not utf_16 and b"\0" in raw:
        message = "must be text; found a NUL byte: write the file anew"
        yield Finding(file, _line(raw, raw.index(b"\0")), message=message)
        return
    if raw.count(separator.encode()) + raw.count(b"\n") + raw.count(b"\r") > CELLS:
        yield Finding(file, message=f"must not have more than {CELLS} cells: is it an output file?")
        return
    column, what = task.columns.value[0], "clip" if task.form.value == "captions" else "query"
    asked = () if isinstance(split, str) else split.file_names if what == "clip" else split.queries
    lines = raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
    if asked and lines > MANY * len(asked) + 100:  # to name each that is too many would take minutes
        message = f"must have a line for each of {len(asked)} {TERMS[what][1]}; found {lines}: is it the right file?"
        yield Finding(file, message=message)
        return
    if raw.startswith(codecs.BOM_UTF8):
        yield Finding(file, 1, message="starts with a BOM; save it as plain UTF-8", severity=WARNING)
    stray = None if utf_16 else re.search(rb"\r(?!\n)", raw)
    stray_line = _line(raw, stray.start()) if stray else 0
    del raw  # the records take room enough

    other = max(SEPARATORS, key=lambda mark: first_line.count(mark.encode()))
    if b'"' in first_line and separator.encode() not in first_line and other.encode() in first_line:
        message = f"columns must be separated by {SEPARATORS[separator]}, not {SEPARATORS[other]}; save it so"
        yield Finding(file, 1, message=message)  # the quotes would be what could not be read
        return
    unreadable: list[Finding] = []
    records, whole = tables.read(path, file, unreadable, separator)
    header = records[0][1] if records else []
    faults, usable = _header(task, header, split, file, separator)
    if whole or records:
        yield from faults
    if not usable and (whole or records):  # another separator, or another file: all else would only repeat it
        return
    yield from unreadable
    if separator != task.separator.value:
        found, wants = SEPARATORS[separator], SEPARATORS[task.separator.value]
        message = f"columns are separated by {found}, which is accepted; {task.name} is written with {wants}"
        yield Finding(file, 1, message=message, severity=WARNING)
    if not whole:  # the rows that could not be read would be missing below
        return
    if stray_line and not any("\r" in cell for _, cells in records for cell in cells):
        yield Finding(file, stray_line, message="must end in LF or CRLF; found CR alone: save with other line ends")
    read_rows = {"captions": _captions, "top-k": _top_k, "matrix": _matrix}[task.form.value]
    headless = header[0] != column and header[0] in asked  # then the first line answers too
    rows = records if headless else records[1:]
    keys: dict[str, int] = {}
    yield from read_rows(task, header, rows, split, file, keys)
    if isinstance(split, str):
        yield from _count(task, split, path.name, len(keys), file)
    else:
        yield from _compare(keys, asked, what, split, file, lambda name: (keys.get(name, 0), column))


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
    text = mark.join([*wanted, *(("name of a clip",) * 2 if task.form.value == "matrix" else ())])
    found = printable(cut(separator.join(header), 2 * SHOWN)) or "nothing"
    message = f"the header must be {text}; found {found}"
    other = max(SEPARATORS, key=header[0].count) if len(header) == 1 else mark
    if other != mark and other in header[0]:
        message += f"; separate the columns by {SEPARATORS[mark]}, not {SEPARATORS[other]}"
    else:
        message += _header_hint(header, wanted)
    return [Finding(file, 1, message=message)], len(header) == len(wanted) > 1


def _header_hint(header: Sequence[str], wanted: Sequence[str]) -> str:
    """What to do about a header that is not what it must be."""
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
    if len(absent) < len(wanted) and not set(header).difference(wanted):
        return f"; there is no column {' and no '.join(absent)}" if absent else ""
    return ""


def _line(raw: bytes, position: int) -> int:
    ends = (raw.count(mark, 0, position) for mark in (b"\n", b"\r", b"\r\n"))
    return next(ends) + next(ends) - next(ends) + 1


def _width(task: Task, cells: Sequence[str], wanted: int, what: str) -> str | None:
    """Say that a row has another number of cells than it must."""
    if len(cells) == wanted:
        return None
    hint = f"; quote a cell that holds a {SEPARATORS[task.separator.value][:-1]}" if len(cells) > wanted else ""
    return f"must have {wanted} columns, {what}; found {len(cells)}{hint}"


def _name_fault(name: str) -> str | None:
    """Say what is wrong with a clip's name wherever it belongs."""
    if "/" in name or "\\" in name:
        return f"must be a file's name, not a path; found {quoted(name)}"
    if not name.lower().endswith(SOUND_SUFFIXES):
        return f"must be the name of a sound file ({', '.join(SOUND_SUFFIXES)}); found {quoted(name)}"
    return None


def _keep(keys: dict[str, int], key: str, line: int, task: Task, file: str) -> Iterator[Finding]:
    """Keep what a row answers, and where; find that it was answered before."""
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
        if fault := _width(task, cells, 2, "the clip and its caption"):
            yield Finding(file, line, message=fault)
        yield from _keep(keys, cells[0], line, task, file)
        if isinstance(split, str) and (fault := _name_fault(cells[0])):
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
        for _, remark in caption_text.remarks(cells[1]):
            yield Finding(file, line, caption, remark, WARNING)


def _top_k(
    task: Task, header: list[str], records: Records, split: Split | str, file: str, keys: dict[str, int]
) -> Iterator[Finding]:
    wanted, width = task.header(), len(task.header())
    fault_of: Callable[[str], str | None] = _name_fault
    if not isinstance(split, str):
        common, accounted = _unknown_clips(records, split, file, wanted)
        yield from common
        fault_of = _fault_of_clip(split, accounted)
    for line, (query, *names) in records:
        if fault := _width(task, [query, *names], width, f"the query and {width - 1} clips"):
            yield Finding(file, line, message=fault)
        yield from _keep(keys, query, line, task, file)
        ranks: dict[str, int] = {}
        for rank, name in enumerate(names, start=1):
            column, first = tables.column_name(wanted, rank), ranks.setdefault(name, rank)
            if fault := fault_of(name):
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
    if fault := _of_nothing_asked(places, clips, split, "clips", "names"):
        return [Finding(file, message=fault)], unknown
    return [], ()


def _of_nothing_asked(
    given: Collection[str], asked: Collection[str], split: Split, several: str, noun: str
) -> str | None:
    """Say that a file answers another split, or something else altogether.

    Args:
        given: The queries or clips of the file.
        asked: Those of the split.
        split: The split that is answered.
        several: What they are, such as "clips".
        noun: What is compared, "queries" or "names".
    """
    asked = set(asked)
    known = sum(name in asked for name in given)
    fault = f"has {known or 'none'} of the {len(asked)} {several} of {split.name}"
    if other := of_another_split(split, given, noun):
        return f"{fault}; {other}"
    meant = closest(asked, texts=noun == "queries")
    some = islice(given, MANY * len(asked) + 100)  # to look up millions of names would take minutes
    if not given or known or any(meant(name) for name in some):
        return None
    return f"{fault}; is this the prediction of another split or data set?"


def _source(split: Split) -> str:
    return split.source.name if split.source else ""


def _fault_of_clip(split: Split, accounted: Collection[str]) -> Callable[[str], str | None]:
    """Return a function that says what is wrong with a clip's name; nothing where it is accounted for already."""
    clips, accounted, meant = set(split.file_names), set(accounted), closest(split.file_names)
    faults: dict[str, str] = {}
    left = ALIKE  # guesses, each of which takes some milliseconds; more findings are not listed

    def fault(name: str) -> str | None:
        nonlocal left
        if name in clips or name in accounted:
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
        elif isinstance(split, str) and (fault := _name_fault(name)):
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
        if fault := _width(task, [query, *cells], len(header), f"the query and {len(header) - 1} scores"):
            yield Finding(file, line, message=fault)
        yield from _keep(keys, query, line, task, file)
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
    """The name that differs by a letter or two; None where none does, or several as little."""
    if len(name) > SHOWN:
        return None
    alike = difflib.get_close_matches(name, names, 2, CLOSE)
    ratios = [difflib.SequenceMatcher(None, other, name).ratio() for other in alike]
    return alike[0] if alike and ratios[0] > max(ratios[1:], default=0) else None


def _unknown(name: str, meant: str | None, typo: str | None, what: str, split: str) -> str:
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
    elif fault := _of_nothing_asked(found, asked, split, several, noun):
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


def _count(task: Task, split: str, name: str, rows: int, file: str) -> Iterator[Finding]:
    """Find that a file has another number of rows than the task's sets; a number that is not verified only warns."""
    sets = task.sets
    if split:
        sets = {split: sets[split]} if split in sets else {}
    elif named := {key: output for key, output in sets.items() if output.is_named(name)}:
        sets = named
    known = {key: output.rows for key, output in sets.items() if output.rows}
    if len(known) < len(sets) or rows in [fact.value for fact in known.values()] or not known:
        return
    sure = all(fact.certainty == "verified" for fact in known.values())
    wanted = " or ".join(f"{fact.value} ({key})" for key, fact in known.items())
    column = task.columns.value[0]
    what = "clips" if task.form.value == "captions" else "queries"
    message = f"must answer {wanted} {what}; found {rows}"
    yield Finding(file, 0, column, message, ERROR if sure else WARNING)
