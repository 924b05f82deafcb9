"""Output files: written from a prediction, and checked before they are handed in.

What a file may take of the machine is bounded, whoever made it: `LIMIT` bytes, `CELLS` cells, ten million characters a
cell (`evaluation.tables`), and `LISTED` findings, of which `ALIKE` of a kind are kept, each with `SHOWN` characters of
a text. That is less than 2 GB of memory, whatever the file holds.
"""

import codecs
import csv
import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation import retrieval, tables
from evaluation.data import SOUND_SUFFIXES, Split
from evaluation.files import replacing
from evaluation.findings import (
    ERROR,
    SHOWN,
    WARNING,
    BadRequest,
    Faulty,
    Finding,
    cut,
    lookalike,
    printable,
    quoted,
    shortened,
)
from evaluation.retrieval import Ranking, Similarity
from submission.tasks import SEPARATORS, Task

if TYPE_CHECKING:
    from evaluation import captioning

LIMIT = 128 * 2**20
CELLS = 6_000_000  # Clotho's validation split, 5225 captions by 1045 clips, has 5.5 million
LISTED = 10_000
ALIKE = 20
CLOSE = 0.9  # of difflib's ratio, between a name and what it may be a misspelling of
GUESSED = 100  # misspelt names at most, among as many, so that it takes no time
MANY = 10  # times as many lines as are asked for


# Writing --------------------------------------------------------------------------------------------------------------


def write(
    task: Task,
    prediction: "Similarity | Ranking | captioning.Prediction",
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
    task: Task, prediction: "Similarity | Ranking | captioning.Prediction", split: Split, file: str
) -> tuple[list[str], Iterable[Sequence[str]]]:
    if task.kind == "captioning":
        from evaluation import captioning  # takes scipy along, which no other form needs

        captioning.validate(split, prediction, file)
        captions = dict(zip(prediction.file_names, prediction.captions, strict=True))
        return task.header(), [(name, captions[name]) for name in split.file_names]
    if task.k and len(split.clips) < task.k.value:
        raise BadRequest(f"{task.name} wants {task.k.value} clips for a query; {split.name} has {len(split.clips)}")
    retrieval.validate(dict.fromkeys(split.queries, frozenset()), split.file_names, prediction, file)
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
        raise Faulty(shortened(findings, "queries with too few clips"))
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
        Every finding, in the order of the file; of more than `ALIKE` of one kind the first, and how many there are.

    Raises:
        BadRequest: There is no such file.
    """
    file = file or str(path)
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; give an output file of {task.name}")
    kinds: dict[str, list[Finding]] = {}
    more = Counter[str]()
    for finding in islice(_check(task, path, split, file), LISTED):
        kind = finding.severity + re.sub(r"""'[^']*'|"[^"]*"|\d+""", "", finding.message)
        if len(kinds.setdefault(kind, [])) < ALIKE:
            kinds[kind].append(finding)
        else:
            more[kind] += 1
    if sum(map(len, kinds.values())) + more.total() == LISTED:
        kinds["more"] = [Finding(file, message=f"there are {LISTED} findings or more; mend these first")]
    for kind, count in more.items():
        message = f"and so in {count} more places, as: {kinds[kind][0].message}"
        kinds[kind].append(replace(kinds[kind][0], line=0, column="", message=message, rest=True))
    return sorted(finding for found in kinds.values() for finding in found)


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
        yield from _compare(keys, asked, what, split.name, file, lambda name: (keys.get(name, 0), column))


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


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


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


def _top_k(
    task: Task, header: list[str], records: Records, split: Split | str, file: str, keys: dict[str, int]
) -> Iterator[Finding]:
    wanted, width = task.header(), len(task.header())
    clips = () if isinstance(split, str) else split.file_names
    known, near = set(clips), lookalike(clips)
    typos: dict[str, str | None] = {}
    for line, (query, *names) in records:
        if fault := _width(task, [query, *names], width, f"the query and {width - 1} clips"):
            yield Finding(file, line, message=fault)
        yield from _keep(keys, query, line, task, file)
        ranks: dict[str, int] = {}
        for rank, name in enumerate(names, start=1):
            column, first = tables.column_name(wanted, rank), ranks.setdefault(name, rank)
            if isinstance(split, str):
                fault = _name_fault(name)
            elif name in known:
                fault = None
            else:
                meant = _meant(name, near)
                if not meant and name not in typos and len(typos) < ALIKE:
                    typos[name] = _misspelt(name, clips)
                fault = _unknown(name, meant, typos.get(name), "clip", split.name)
            if fault:
                yield Finding(file, line, column, fault)
            elif first < rank:
                message = f"{quoted(name)} stands in {tables.column_name(wanted, first)} already; give distinct clips"
                yield Finding(file, line, column, message)


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

        yield from _compare(found, asked, "column", split.name, file, where)


def _matrix(
    task: Task, header: list[str], records: Records, split: Split | str, file: str, keys: dict[str, int]
) -> Iterator[Finding]:
    constant: list[int] = []
    for line, (query, *cells) in records:
        if fault := _width(task, [query, *cells], len(header), f"the query and {len(header) - 1} scores"):
            yield Finding(file, line, message=fault)
        yield from _keep(keys, query, line, task, file)
        scores = retrieval.numbers(cells)
        if scores is None:
            bad = [place + 1 for place in retrieval.unfinite(cells)]
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


def _meant(name: str, near: Callable[[str], str | None]) -> str | None:
    """The name that may be meant, with a path before it or without a suffix."""
    base = _base(name)
    return next(filter(None, map(near, (name, base, *(base + suffix for suffix in SOUND_SUFFIXES)))), None)


def _misspelt(name: str, names: Iterable[str]) -> str | None:
    """The name that differs by a letter or two; None where none does, or several as little."""
    if len(name) > SHOWN:
        return None
    alike = difflib.get_close_matches(name, names, 2, CLOSE)
    ratios = [difflib.SequenceMatcher(None, other, name).ratio() for other in alike]
    return alike[0] if alike and ratios[0] > max(ratios[1:], default=0) else None


def _unknown(name: str, meant: str | None, typo: str | None, what: str, split: str) -> str:
    one, _, compared, _ = TERMS[what]
    hint = f"; did you mean {quoted(typo)}?" if typo else ""
    hint = f"; there is {quoted(meant)}, and {compared} are compared verbatim" if meant else hint
    return f"{quoted(name)} is no {one} of {split}{hint}"


def _compare(
    found: Iterable[str],
    asked: Iterable[str],
    what: str,
    split: str,
    file: str,
    where: Callable[[str], tuple[int, str]],
) -> Iterator[Finding]:
    """Find the keys that are not asked for, with what may be meant, and those that are missing; `where` each stands."""
    asked = dict.fromkeys(asked)
    missing = dict.fromkeys(name for name in asked if name not in found)
    near = lookalike(missing)
    if len(missing) == len(asked) and not any(_meant(name, near) for name in found):
        message = f"has none of the {len(asked)} {TERMS[what][1]} of {split}; is it the output for another split?"
        yield Finding(file, message=message)  # all else would only repeat it
        return
    left = GUESSED
    for name in found:
        if name not in asked:
            meant, typo = _meant(name, near), None
            if not meant and left and len(missing) <= GUESSED:
                left -= 1
                typo = _misspelt(name, missing)
            missing.pop(meant or typo, None)  # one slip, one finding
            yield Finding(file, *where(name), _unknown(name, meant, typo, what, split))
    for name in missing:
        yield Finding(file, *where(name), TERMS[what][3].format(quoted(name)))


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
