"""Captions in the files of other code bases: CSV with other column names, JSON, JSON lines and COCO's files.

    prediction, notes = read_captions("outputs.csv", split)                    # finds the columns fname and cands
    prediction, notes = read_captions("results.jsonl", split, match="stem")    # names without extension
    score = captioning.evaluate(prediction, split)

A file in the kit's own form, a CSV with the columns `file_name` and `caption_predicted`, is read by
`evaluation.predictions`. All other files are read by this module. A note says what was assumed about the file.
`submission validate` accepts the kit's own form only.

Files
-----
- CSV: separated by commas or tabs. The names are in one column of `NAMES`, and the captions in one column of
  `CAPTIONS`. `columns` names other columns. A caption that is the text of a Python list with one entry, as pandas
  writes lists, is read as this entry.
- JSON: a list of objects, whose keys are used like columns; an object that maps each name to its caption; or a list of
  captions, which needs `match="order"`. COCO's results are a list of objects with `image_id` (or `audio_id`) and
  `caption`.
- COCO's annotations: an object with the list `annotations`, and with the list `images` or `audios`, which has the file
  name of each id. `ids` names such a file for results that have ids in place of names.
- JSON lines: an object on each line, with keys as above.

Conventions
-----------
- **Names are verbatim**, unless `match` asks for something else: rules of `evaluation.names`, such as `stem`, or
  `order`, which pairs the captions with the clips of the split in their order. The signature of the score contains it.
- **Nothing is guessed silently.** If two columns may have the captions, or the names, the user must choose.
- **A missing caption is an error**: null, NaN, or a text such as `nan` that programs write for a missing value. An
  empty caption is allowed, and scores 0.

Sources: COCO's results format (cocodataset.org, "Results Format"); aac-metrics 0.5.4, `eval.py` (`index` and
`candidate`, without names); the outputs of CoNeTTE (`fname` and `cands`).
"""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluation import json_objects, names, predictions
from evaluation.data import tables
from evaluation.data.dataset import Split
from evaluation.files import no_file
from evaluation.findings import NOTE, BadRequest, Faulty, Finding, raise_errors
from evaluation.json_objects import JSON_LINES
from evaluation.predictions import CAPTION_COLUMNS, COLUMNS_SHOWN, Captions
from evaluation.text import first_items, quoted, unknown_key

CAPTIONS = (
    *("caption_predicted", "caption", "caption_prediction", "candidates", "candidate", "cands"),
    *("prediction", "pred"),
)
# A column of an earlier group is preferred: an id is only used if there is no file name.
NAMES = (("file_name", "fname", "filename"), ("audio", "audio_id", "image_id"), ("key", "id"))
COCO_IDS = (("audio_id", "image_id"),)
COCO_CLIPS = ("images", "audios")  # lists with the file name of each id
KEYS = ("name", "caption")  # what `columns` can name
ORDER = "order"
MISSING = ("nan", "NaN", "None", "null")  # texts that programs write for a missing value
_NO_COLUMNS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Row:
    """A row of a file, before its columns are chosen.

    Attributes:
        cells: A dict from columns (or keys) to their contents.
        line: The line of the row; 0 if the file does not have a line for each row.
        place: The place of the row in a JSON file, such as `[3]`; empty if the row has a line.
    """

    cells: Mapping[str, Any]
    line: int = 0
    place: str = ""


@dataclass(frozen=True)
class Table:
    """The content of a file, before its columns are chosen.

    Attributes:
        file: The file's name in findings.
        kind: The noun for the kind of file.
        columns: The columns of a CSV; or all keys of the rows, each once.
        rows: The rows.
        names_by_id: A dict from the ids of clips to their file names, from COCO's annotations; None for other files.
    """

    file: str
    kind: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    names_by_id: Mapping[str, str] | None = None

    @property
    def is_csv(self) -> bool:
        """True if each cell is a text."""
        return self.kind == "CSV"


@dataclass
class Texts:
    """The names and captions of a table, in the order of its rows.

    Attributes:
        names: The name in each row; empty if the names are not read.
        captions: The captions in each row.
        rows: The rows.
        findings: Errors.
    """

    names: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def parse_columns(text: str) -> dict[str, str]:
    """Return the columns that a request names; an empty dict for an empty text.

    Raises:
        BadRequest: The request has another form.

    >>> parse_columns("name=fname,caption=cands")
    {'name': 'fname', 'caption': 'cands'}
    """
    columns: dict[str, str] = {}
    if not text:
        return columns
    for part in text.split(","):
        key, _, column = part.partition("=")
        if key not in KEYS:
            raise BadRequest(f"--columns: {unknown_key(key, KEYS)}; write --columns name=COLUMN,caption=COLUMN")
        if not column or key in columns:
            found = "no column" if not column else "two columns"
            message = f"--columns must name one column for {key}; found {found}"
            raise BadRequest(f"{message}: write --columns name=COLUMN,caption=COLUMN")
        if column in columns.values():
            message = f"--columns must name different columns; found {quoted(column)} twice"
            raise BadRequest(f"{message}: write --columns name=COLUMN,caption=COLUMN")
        columns[key] = column
    return columns


# Predictions ----------------------------------------------------------------------------------------------------------


def read_captions(
    path: Path | str,
    split: Split,
    *,
    columns: Mapping[str, str] = _NO_COLUMNS,
    ids: Path | str | None = None,
    match: str = "",
) -> tuple[Captions, list[Finding]]:
    """Read predicted captions from a file in any of the module's forms.

    Args:
        path: The file.
        split: The split that the captions are for.
        columns: The column of the `name` or the `caption` (default: the columns are found by their names).
        ids: A JSON file with COCO's list `images` or `audios`, for files whose names are ids (default: names are
            verbatim).
        match: How names are matched with those of the split: rules such as `stem` or `extension,case`
            (`evaluation.names.parse_rules`), or `order` (default: names are verbatim).

    Returns:
        The captions, and notes that say what was assumed about the file.

    Raises:
        BadRequest: There is no such file, or the request is wrong.
        Faulty: The file is not valid, or a name means several clips. The exception lists all findings.
    """
    path = Path(path)
    rules: tuple[str, ...] = ()
    if match and match != ORDER:
        rules = names.parse_rules(match)
    if not path.is_file() or path.suffix.lower() == ".npz":
        return predictions.read_captions(path), []  # raises the error
    table = load(path)
    kit_form = table.is_csv and all(table.columns.count(column) == 1 for column in CAPTION_COLUMNS)
    if kit_form and not columns and not ids:
        prediction = predictions.read_captions(path)
        notes = _notes_about_other_captions(table)
    else:
        prediction, notes = _predictions(table, columns, _read_ids(ids), in_order=match == ORDER)
    if match == ORDER:
        _check_index(table)
        prediction = _in_order(prediction, split, str(path))
        message = f"the captions are in the order of {_source(split)}, as --match order says; names are not read"
        notes.append(Finding(str(path), message=message, severity=NOTE))
    elif rules:
        prediction = _match_names(prediction, split, rules, str(path))
    return prediction, notes


def _notes_about_other_captions(table: Table) -> list[Finding]:
    others = [quoted(column) for column in table.columns if column in CAPTIONS and column != CAPTION_COLUMNS[1]]
    if not others:
        return []
    message = f"the captions are read from {CAPTION_COLUMNS[1]!r}; not from {first_items(others, COLUMNS_SHOWN)}"
    return [Finding(table.file, message=message, severity=NOTE)]


def _predictions(
    table: Table, columns: Mapping[str, str], names_by_id: Mapping[str, str] | None, *, in_order: bool
) -> tuple[Captions, list[Finding]]:
    """Return the captions of a table with one caption in each row, and the note about its columns.

    With `in_order`, names are not read, and all names are empty.
    """
    name_column = None
    if not in_order:
        name_column = choose_name(table, columns, ", or give --match order if the captions are in the split's order")
    caption_column = choose_column(table, (CAPTIONS,), "caption", columns)
    texts = read_texts(table, name_column, (caption_column,), names_by_id)
    findings = texts.findings
    for row, captions in zip(texts.rows, texts.captions, strict=True):
        if len(captions) != 1:
            message = f"must have one caption for each clip; found a list of {len(captions)}: choose another column"
            findings.append(Finding(table.file, row.line, _cell(row, caption_column), message))
    if findings:
        raise Faulty(findings)
    lines = tuple(row.line for row in texts.rows)
    prediction = Captions(
        tuple(texts.names) or ("",) * len(texts.rows),
        tuple(caption for [caption] in texts.captions),
        lines if any(lines) else (),
    )
    note = describe_columns(table, name_column, (caption_column,))
    if names_by_id is not None:
        note = replace(note, message=f"{note.message}; the names are ids, whose file names are in --ids")
    elif name_column in COCO_IDS[0] and table.names_by_id is None:
        note = replace(note, message=f"{note.message}; if the names are ids, give COCO's annotations with --ids")
    return prediction, [note]


def _in_order(prediction: Captions, split: Split, file: str) -> Captions:
    """Return the prediction with the names of the split's clips, in their order."""
    expected, found = len(split.clips), len(prediction.captions)
    if found != expected:
        message = f"must have a caption for each of the {expected} clips in {_source(split)}; found {found}"
        raise Faulty([Finding(file, message=f"{message}: with --match order, no clip may be left out")])
    return replace(prediction, file_names=split.file_names, matched=ORDER)


def _check_index(table: Table) -> None:
    """Check that a column `index`, as aac-metrics writes it, counts the rows from 0 or 1."""
    if "index" not in table.columns:
        return
    for start in (0, 1):
        expected = [str(start + number) for number in range(len(table.rows))]
        if [str(row.cells.get("index")) for row in table.rows] == expected:
            return
    message = "must count the rows from 0 or 1, in this order, for --match order; it does not: sort the rows"
    raise Faulty([Finding(table.file, column="index", message=message)])


def _match_names(prediction: Captions, split: Split, rules: Sequence[str], file: str) -> Captions:
    """Return the prediction with the names of the clips that its names mean under some rules."""
    request = names.format_rules(rules)
    found = names.find_clips(prediction.file_names, split.file_names, rules)
    findings = []
    file_names = []
    for index, name in enumerate(prediction.file_names):
        clips = found[name]
        if len(clips) > 1:
            several = first_items([quoted(clip) for clip in clips], 3)
            message = f"{quoted(name)} means {len(clips)} clips with --match {request}: {several}"
            line = prediction.lines[index] if prediction.lines else 0
            findings.append(Finding(file, line, message=f"{message}; write the name as in {_source(split)}"))
        file_names.append(clips[0] if clips else name)
    if findings:
        raise Faulty(findings)
    return replace(prediction, file_names=tuple(file_names), matched="+".join(rules))


def _source(split: Split) -> str:
    if split.source:
        return split.source.name
    return f"the split {split.name}"


# Columns --------------------------------------------------------------------------------------------------------------


def choose_name(table: Table, columns: Mapping[str, str], advice: str = "") -> str:
    """Return the column with the names; `advice` is as for `choose_column`."""
    groups: Sequence[Sequence[str]] = NAMES
    if table.names_by_id is not None:
        groups = COCO_IDS
    return choose_column(table, groups, "name", columns, advice)


def choose_column(
    table: Table, groups: Sequence[Sequence[str]], key: str, columns: Mapping[str, str], advice: str = ""
) -> str:
    """Return the column of the names or captions: the one that the user names, or the only known one in the table.

    Args:
        table: The table.
        groups: Groups of known columns. The first group that occurs in the table is used.
        key: One of `KEYS`.
        columns: The columns that the user names.
        advice: What else the user can do if there is no such column, for the message.

    Raises:
        BadRequest: The user names a column for something that is not in `KEYS`.
        Faulty: There is no such column, or there are several.
    """
    for name in columns:
        if name not in KEYS:
            raise BadRequest(unknown_key(name, KEYS))
    if not table.columns:
        raise Faulty([Finding(table.file, message="has no captions; give one for each clip")])
    what = {"name": "names of the clips", "caption": "captions"}[key]
    line = 1 if table.is_csv else 0
    shown = first_items([quoted(column) for column in dict.fromkeys(table.columns)], COLUMNS_SHOWN) or "no column"
    if key in columns:
        count = table.columns.count(columns[key])
        if count == 1:
            return columns[key]
        found = f"it occurs {count} times" if count else f"found {shown}"
        message = f"must have one column {columns[key]!r}, which --columns names for the {what}; {found}"
        raise Faulty([Finding(table.file, line, message=message)])
    for group in groups:
        found_columns = [column for column in table.columns if column in group]
        if len(found_columns) == 1:
            return found_columns[0]
        if found_columns:
            several = " and ".join(quoted(column) for column in found_columns)
            message = f"must have one column with the {what}; found {several}: choose one with --columns {key}=COLUMN"
            raise Faulty([Finding(table.file, line, message=message)])
    expected = ", ".join(column for group in groups for column in group)
    message = f"must have a column with the {what} ({expected}); found {shown}: name the column with --columns"
    raise Faulty([Finding(table.file, line, message=f"{message} {key}=COLUMN{advice}")])


def describe_columns(table: Table, name_column: str | None, caption_columns: Sequence[str]) -> Finding:
    """Return the note that says how a table is read."""
    captions = " and ".join(quoted(column) for column in caption_columns)
    if len(caption_columns) > 2:
        captions = f"{quoted(caption_columns[0])} to {quoted(caption_columns[-1])}"
    parts = f"the captions in {captions}"
    if name_column is not None:
        parts = f"the names in {quoted(name_column)} and {parts}"
    return Finding(table.file, message=f"read as {table.kind}, with {parts}", severity=NOTE)


def read_texts(
    table: Table,
    name_column: str | None,
    caption_columns: Sequence[str],
    names_by_id: Mapping[str, str] | None = None,
) -> Texts:
    """Read the names and captions in the columns of a table.

    Args:
        table: The table.
        name_column: The column with the names; None if names are not read.
        caption_columns: The columns with captions.
        names_by_id: A dict from ids to file names (default: that of the table).
    """
    if names_by_id is None:
        names_by_id = table.names_by_id
    texts = Texts()
    for row in table.rows:
        faults = []
        name = ""
        if name_column is not None:
            try:
                name = _read_name(row, name_column, names_by_id)
            except ValueError as fault:
                faults.append(Finding(table.file, row.line, _cell(row, name_column), str(fault)))
        captions: list[str] = []
        for column in caption_columns:
            try:
                captions += _read_cell(row, column, table.is_csv)
            except ValueError as fault:
                faults.append(Finding(table.file, row.line, _cell(row, column), str(fault)))
        if faults:
            texts.findings += faults
            continue
        if name_column is not None:
            texts.names.append(name)
        texts.captions.append(captions)
        texts.rows.append(row)
    if not table.rows:
        texts.findings.append(Finding(table.file, message="has no captions; give one for each clip"))
    return texts


def _cell(row: Row, column: str) -> str:
    """Return the place of a cell for a finding."""
    if row.place:
        return f"{row.place}.{column}"
    return column


def _read_name(row: Row, column: str, names_by_id: Mapping[str, str] | None) -> str:
    """Return the name in a row.

    Raises:
        ValueError: The row does not have a name. The message says why.
    """
    value = row.cells.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"must be a name, a text or a whole number; found {_shown(row, column)}")
    _check_unicode(value)
    if names_by_id is None:
        return value
    if value not in names_by_id:
        raise ValueError(f"must be the id of a clip; {quoted(value)} is not in {' or '.join(COCO_CLIPS)}")
    return names_by_id[value]


def _read_cell(row: Row, column: str, is_csv: bool) -> list[str]:
    """Return the captions in a cell: the text, or the texts of a list.

    Raises:
        ValueError: The cell does not have captions. The message says why.
    """
    value = row.cells.get(column)
    if is_csv and isinstance(value, str):
        if value.strip() in MISSING:
            advice = "write a caption, or leave the cell empty to score 0"
            raise ValueError(f"must be a caption; found {value!r}, which stands for a missing value: {advice}")
        value = _parse_list(value)
    entries = value if isinstance(value, list) else [value]
    texts = []
    for text in entries:
        if not isinstance(text, str):
            raise ValueError(f"must be a caption, which is a text; found {_shown(row, column)}")
        _check_unicode(text)
        texts.append(text)
    return texts


def _parse_list(text: str) -> Any:
    """Return the list that a text is in Python's syntax, or the text if it is not a list."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    if isinstance(value, list):
        return value
    return text


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"must be valid Unicode; found {quoted(text)}, which has half a surrogate pair") from None


def _shown(row: Row, column: str) -> str:
    """Return the beginning of a cell's content as JSON, for a message."""
    if column not in row.cells:
        return "no such key"
    value = row.cells[column]
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


# Files ----------------------------------------------------------------------------------------------------------------


def load(path: Path) -> Table:
    """Read a file: JSON or JSON lines by its extension, and CSV otherwise.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not valid. The exception lists all findings.
    """
    if not path.is_file():
        raise no_file(path, "a CSV, JSON or JSON lines file with captions")
    suffix = path.suffix.lower()
    if suffix == ".json" or suffix in JSON_LINES:
        return _load_json(path)
    return _load_csv(path)


def _load_csv(path: Path) -> Table:
    findings: list[Finding] = []
    separator = tables.separator(path, str(path))
    records, _ = tables.read_table(path, str(path), findings, separator)
    if not records:
        raise Faulty(findings or [Finding(str(path), 1, message="is empty; the first line must name the columns")])
    header = tuple(records[0][1])
    findings += predictions.width_findings(records[1:], len(header), separator, str(path))
    if findings:
        raise Faulty(findings)
    rows = tuple(Row(dict(zip(header, cells, strict=True)), line) for line, cells in records[1:])
    return Table(str(path), "CSV", header, rows)


def _load_json(path: Path) -> Table:
    file = str(path)
    text = json_objects.decode(path)
    if path.suffix.lower() in JSON_LINES or _begins_with_line_of_json(text):
        return _read_json_lines(text, file)
    content = json_objects.parse(text, file)
    if isinstance(content, dict) and "annotations" in content:
        return _coco_table(content, file)
    if isinstance(content, dict):
        rows = []
        for name, caption in content.items():
            rows.append(Row({"file_name": name, "caption": caption}, place=f"[{quoted(name)}]"))
        return Table(file, "JSON from names to captions", ("file_name", "caption"), tuple(rows))
    if isinstance(content, list) and content and all(isinstance(entry, str) for entry in content):
        rows = [Row({"caption": entry}, place=f"[{index}]") for index, entry in enumerate(content)]
        return Table(file, "JSON with a list of captions", ("caption",), tuple(rows))
    return _table_of_objects(content, "JSON", file)


def _begins_with_line_of_json(text: str) -> bool:
    """Return True if the first line is a complete JSON object, and more lines follow."""
    first, _, others = text.strip().partition("\n")
    if not first.startswith("{") or not others:
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _read_json_lines(text: str, file: str) -> Table:
    findings: list[Finding] = []
    entries = json_objects.parse_lines(text, file, _EXAMPLE, findings)
    raise_errors(findings)
    rows = tuple(Row(entry.content, entry.line) for entry in entries)
    return Table(file, "JSON lines", _keys(rows), rows)


_EXAMPLE = '{"file_name": "a.wav", "caption": "A dog barks."}'


def _table_of_objects(content: Any, kind: str, file: str, list_name: str = "") -> Table:
    """Return a list of objects as a table.

    Args:
        content: The list.
        kind: The noun for the kind of file.
        file: The file's name in findings.
        list_name: The key of the list in its file; empty if the list is the whole file.
    """
    findings: list[Finding] = []
    entries = json_objects.parse_list(content, file, _EXAMPLE, findings, list_name)
    raise_errors(findings)
    rows = tuple(Row(entry.content, place=entry.place) for entry in entries)
    return Table(file, kind, _keys(rows), rows)


def _keys(rows: Sequence[Row]) -> tuple[str, ...]:
    keys: dict[str, None] = {}
    for row in rows:
        keys.update(dict.fromkeys(row.cells))
    return tuple(keys)


def _coco_table(content: Mapping[str, Any], file: str) -> Table:
    table = _table_of_objects(content["annotations"], "COCO annotations", file, "annotations")
    return replace(table, names_by_id=_names_by_id(content, file))


def _read_ids(path: Path | str | None) -> Mapping[str, str] | None:
    """Read a dict from ids to file names, or return None if no file is given."""
    if path is None:
        return None
    path = Path(path)
    if not path.is_file():
        raise no_file(path, f"--ids a JSON file with the list {' or '.join(COCO_CLIPS)}")
    return _names_by_id(json_objects.parse(json_objects.decode(path), str(path)), str(path))


def _names_by_id(content: Any, file: str) -> dict[str, str]:
    """Return a dict from the ids of COCO's clips to their file names.

    Raises:
        Faulty: There is no list of clips, a clip lacks its id or file name, or an id is repeated.
    """
    present = []
    if isinstance(content, dict):
        present = [name for name in COCO_CLIPS if name in content]
    if len(present) != 1:
        message = f"must have one list {' or '.join(COCO_CLIPS)}, with the id and file_name of each clip"
        raise Faulty([Finding(file, message=f"{message}; found {' and '.join(present) or 'none'}")])
    table = _table_of_objects(content[present[0]], "COCO annotations", file, present[0])
    name_columns = [column for column in table.columns if column in NAMES[0]]
    if len(name_columns) != 1:
        message = f"every clip must have an id and a name in file_name; found {' and '.join(name_columns) or 'no name'}"
        raise Faulty([Finding(file, column=present[0], message=message)])
    texts = read_texts(table, "id", name_columns)
    findings = texts.findings
    names_by_id: dict[str, str] = {}
    for row, number, file_names in zip(texts.rows, texts.names, texts.captions, strict=True):
        if number in names_by_id or len(file_names) != 1:
            message = f"must have an id of its own and one file name; found the id {number!r}"
            findings.append(Finding(file, column=row.place, message=message))
        else:
            names_by_id[number] = file_names[0]
    if findings:
        raise Faulty(findings)
    return names_by_id
