"""Reading and writing the predictions of systems.

    captions = read_captions(Path("evaluation.csv"))                  # Captions: one for each clip
    similarity = Similarity.load(Path("evaluation.npz"))              # Similarity: a score for every query and clip
    ranking = read_retrieval(Path("best clips.csv"))                  # Ranking or Similarity, from .npz or .csv

This module checks the form of a file. `evaluation.metrics.captioning` and `evaluation.metrics.retrieval` check that a
prediction fits a split.

Files
-----
- Captions: a CSV with the columns `file_name` and `caption_predicted`, in any order; other columns are ignored.
  `evaluation.caption_formats` reads captions in the files of other code bases.
- Similarity: an NPZ with the array `scores`, of shape (queries, clips), and the lists `queries` and `file_names`, each
  as JSON text in an array of bytes. Or a CSV whose header names the clips; each row contains a query and its scores.
- Ranking: a CSV with a header; each row contains a query and its best clips, best first.

Columns of a CSV are separated by commas or tabs, because the organisers' baselines use both. All numbers are read as
Python's `float` reads them. In a matrix of regular form, pydantic's JSON parser reads each row. It gives the same
numbers in a third of the time. pandas is as fast, but importing it takes 0.5 s. Neither of them reports which cell is
wrong, so `csv` and `float` read all other files.
"""

import codecs
import csv
import json
import math
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic_core import from_json

from evaluation import npz
from evaluation.data import tables
from evaluation.files import no_file, replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import first_items, plural, quoted
from evaluation.values import numbers, texts

CAPTION_COLUMNS = ("file_name", "caption_predicted")
COLUMNS_SHOWN = 20  # number of column names in a message; the header of a matrix names thousands of clips
_AGAIN = "copy the file again, or predict again"
_CHECK_MODEL = "no file is written; check the model"

# Limits of a similarity matrix, because a small compressed file may need all memory when it is unpacked. If the caller
# does not give the expected size, the scores may have `LARGEST` bytes. Otherwise they may have `TIMES` the bytes of
# float64 scores of the expected size, plus `SPARE` bytes.
LARGEST = 2**30
TIMES = 10
SPARE = 2**23
LIST_BYTES = 2**25  # maximum size of the list of queries or clips in bytes
TEXT_BYTES = 2**12  # maximum mean size of a query or name in bytes


# Captions ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Captions:
    """A caption for each clip.

    Attributes:
        file_names: The file names of the clips, in the order of the file.
        captions: The caption of each clip.
        lines: The line number of each caption in its file; empty for captions that were not read from a file with a
            line for each caption.
        matched: How the names were matched with those of a split, such as `path+extension`, for the signature
            (`evaluation.caption_formats.match_names`); empty if the names are verbatim.
    """

    file_names: tuple[str, ...]
    captions: tuple[str, ...]
    lines: tuple[int, ...] = ()
    matched: str = ""

    def __repr__(self) -> str:
        """Describe the captions on one line."""
        return f"Captions({plural(len(self.captions), 'caption')})"


def read_captions(path: Path | str) -> Captions:
    """Read predicted captions from a CSV.

    Raises:
        BadRequest: There is no such file, or it is the prediction of a retrieval system.
        Faulty: The file is not a CSV of captions. The exception lists all findings.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, f"a CSV with the columns {' and '.join(CAPTION_COLUMNS)}")
    if path.suffix.lower() == ".npz":
        raise BadRequest(
            f"{path}: is the similarity matrix of a retrieval system; score it with `dcase-evaluation score retrieval`"
        )
    findings: list[Finding] = []
    separator = tables.separator(path, str(path))
    records, _ = tables.read_table(path, str(path), findings, separator)
    if findings and not records:  # the header could not be read
        raise Faulty(findings)
    header = records[0][1] if records else []
    rows = records[1:]
    for column in CAPTION_COLUMNS:
        if header.count(column) != 1:
            columns = first_items([quoted(name) for name in header], COLUMNS_SHOWN) or "no line"
            message = f"the header must have one column {column!r}; found {columns}"
            findings.append(Finding(str(path), 1, message=message))
    findings += width_findings(rows, len(header), separator, str(path))
    if findings:
        raise Faulty(findings)
    name, caption = (header.index(column) for column in CAPTION_COLUMNS)
    return Captions(
        tuple(cells[name] for _, cells in rows),
        tuple(cells[caption] for _, cells in rows),
        tuple(line for line, _ in rows),
    )


def width_findings(rows: Sequence[tables.Record], width: int, separator: str, file: str) -> list[Finding]:
    """Return a finding for each row that has more or fewer cells than the header.

    Args:
        rows: The rows below the header.
        width: The number of cells of the header.
        separator: The separator of the cells.
        file: The file's name in findings.
    """
    mark = "comma" if separator == "," else "tab"
    findings = []
    for line, cells in rows:
        if len(cells) != width:
            message = f"must have {width} cells, as the header; found {len(cells)}: quote a cell that contains a {mark}"
            findings.append(Finding(file, line, message=message))
    return findings


def write_captions(
    path: Path | str,
    file_names: Sequence[str],
    captions: Sequence[str],
    log_probabilities: Sequence[float] | None = None,
) -> None:
    """Write predicted captions as CSV, completely or not at all.

    Args:
        path: The file.
        file_names: The file names of the clips.
        captions: The caption of each clip.
        log_probabilities: The log-probability of each caption, for the column `log_probability` (default: no such
            column).

    Raises:
        BadRequest: A log-probability is NaN or infinite; no file is written.
    """
    columns: dict[str, Sequence[object]] = dict(zip(CAPTION_COLUMNS, (file_names, captions), strict=True))
    if log_probabilities is not None:
        wrong = [name for name, value in zip(file_names, log_probabilities, strict=True) if not math.isfinite(value)]
        if wrong:
            message = (
                f"{path}: log-probabilities must be finite; found NaN or infinity for {plural(len(wrong), 'clip')}"
            )
            raise BadRequest(f"{message}, for example {wrong[0]!r}; {_CHECK_MODEL}")
        columns["log_probability"] = [f"{value:.6f}" for value in log_probabilities]
    with replacing(Path(path)) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


# Retrieval -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Similarity:
    """A score for every query and clip.

    Attributes:
        queries: The texts of the queries.
        file_names: The file names of the clips.
        scores: (queries, clips) float32 or float64; a higher score means more similar.

    Lists, tensors of torch and nested lists of numbers are converted.

    Raises:
        ValueError: The scores are not numbers, or do not have a row for each query and a column for each clip; or the
            queries or names are not texts.
    """

    queries: tuple[str, ...]
    file_names: tuple[str, ...]
    scores: np.ndarray

    def __post_init__(self) -> None:
        """Convert the fields, and check the shape."""
        object.__setattr__(self, "queries", texts(self.queries, "queries"))
        object.__setattr__(self, "file_names", texts(self.file_names, "file names"))
        object.__setattr__(self, "scores", numbers(self.scores, "scores"))
        expected, shape = (len(self.queries), len(self.file_names)), self.scores.shape
        if shape != expected:
            raise ValueError(f"scores must have the shape (queries, clips), which is {expected}; found {shape}")

    def top(self, k: int) -> "Ranking":
        """Return the k best clips of each query, best first; clips with equal scores keep the order of `file_names`."""
        order = np.argsort(-self.scores, axis=1, kind="stable")  # (queries, clips)
        return Ranking.of(self.queries, self.file_names, order[:, :k])

    def reversed(self) -> "Similarity":
        """Return the matrix with the clips as queries, and the texts as the clips to rank."""
        return Similarity(self.file_names, self.queries, self.scores.T)

    def __repr__(self) -> str:
        """Describe the matrix on one line."""
        return f"Similarity({len(self.queries)} queries x {len(self.file_names)} clips, {self.scores.dtype})"

    def save(self, path: Path | str) -> None:
        """Write the similarities as .npz, completely or not at all.

        Raises:
            BadRequest: A score is NaN or infinite; no file is written.
        """
        finite = np.isfinite(self.scores).all(axis=1)
        if not finite.all():
            first = self.queries[int(np.argmin(finite))]
            number = int((~finite).sum())
            message = f"{path}: scores must be finite; found NaN or infinity for {number} of {len(finite)} queries"
            raise BadRequest(f"{message}, for example {first!r}; {_CHECK_MODEL}")
        with replacing(Path(path)) as part, part.open("wb") as file:
            np.savez(
                file,
                queries=_json_bytes(self.queries),
                file_names=_json_bytes(self.file_names),
                scores=self.scores,
            )

    @classmethod
    def load(cls, path: Path | str) -> "Similarity":
        """Read a matrix that `save` wrote, or a matrix from CSV.

        Raises:
            BadRequest: As `read_retrieval`, or the file contains lists of the best clips.
            Faulty: As `read_retrieval`.
        """
        prediction = read_retrieval(path)
        if isinstance(prediction, cls):
            return prediction
        raise BadRequest(f"{path}: contains lists of the best clips, not a matrix; read it with `read_retrieval`")


def _json_bytes(texts: Iterable[str]) -> np.ndarray:
    # In a numpy array of strings, each entry would take the space of the longest entry.
    return np.frombuffer(json.dumps(list(texts)).encode(), dtype=np.uint8)


@dataclass(frozen=True)
class Ranking:
    """The best clips of every query, best first.

    Attributes:
        queries: The texts of the queries.
        file_names: For each query, the file names of its best clips.
        lines: The line number of each query in its file; empty for a ranking that was not read from a file.

    Raises:
        ValueError: The number of lists of clips is not the number of queries.
    """

    queries: tuple[str, ...]
    file_names: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the lengths."""
        if len(self.file_names) != len(self.queries):
            message = f"there must be a list of clips for each of the {len(self.queries)} queries"
            raise ValueError(f"{message}; found {len(self.file_names)} lists")

    def __repr__(self) -> str:
        """Describe the ranking on one line."""
        return f"Ranking({len(self.queries)} queries)"

    @classmethod
    def of(cls, queries: Sequence[str], file_names: Sequence[str], indices: np.ndarray) -> "Ranking":
        """Make a ranking from indices of clips, an array of shape (queries, k) such as `retrieval.top_k` returns."""
        ranked = []
        for row in indices.tolist():
            ranked.append(tuple(file_names[clip] for clip in row))
        return cls(tuple(queries), tuple(ranked))

    def save(self, path: Path, header: tuple[str, str] = ("caption", "file_name")) -> None:
        """Write the ranking as CSV, completely or not at all.

        Args:
            path: The file.
            header: The heading of the queries, and the heading of the clips, which gets a number.
        """
        longest = max(map(len, self.file_names), default=0)
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([header[0], *(f"{header[1]}_{place}" for place in range(1, longest + 1))])
            for query, names in zip(self.queries, self.file_names, strict=True):
                writer.writerow([query, *names])


def read_retrieval(path: Path | str, expected: tuple[int, int] | None = None) -> Similarity | Ranking:
    """Read the prediction of a retrieval system: a `Similarity` from .npz, or a `Similarity` or `Ranking` from CSV.

    The first column of a CSV has the queries. If most of the other cells below the header are numbers, the file is a
    matrix of scores, whose header names the clips. Otherwise the cells are the names of clips, best first, and the
    header is not read (`dcase-submission validate` checks it).

    Args:
        path: The file.
        expected: The number of queries and the number of clips of the split (default: not known). An .npz whose scores
            need much more than ten times the memory of such a matrix is refused before it is unpacked. If the numbers
            are not known, scores of more than 1 GiB are refused.

    Raises:
        BadRequest: There is no such file, or it is a file of another kind.
        Faulty: The file is not valid. The exception lists all findings.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, "a prediction (.npz or .csv)")
    if path.suffix.lower() == ".npz":
        return _read_npz(path, expected)
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise BadRequest(f"{path}: must be .npz (a similarity matrix) or .csv (query and best clips, best first)")
    return read_retrieval_csv(path, str(path))


def read_retrieval_csv(path: Path, file: str) -> Similarity | Ranking:
    """Read a CSV file with any file extension as `read_retrieval` reads a .csv.

    Args:
        path: The file.
        file: Its name in findings.

    Raises:
        BadRequest: The file is the prediction of a captioning system.
        Faulty: The file is not valid. The exception lists all findings.
    """
    separator = tables.separator(path, file)
    regular = read_regular_matrix(path, separator)
    if regular:
        _, matrix = regular
        return matrix
    findings: list[Finding] = []
    records, _ = tables.read_table(path, file, findings, separator)
    if records and set(CAPTION_COLUMNS) <= set(records[0][1]):
        raise BadRequest(
            f"{file}: has the captions of a captioning system; score it with `dcase-evaluation score captions`"
        )
    if findings:
        raise Faulty(findings)
    rows = records[1:]
    scores = [finite_numbers(cells[1:]) for _, cells in rows]
    if _is_matrix(rows, scores):
        return _matrix(records, scores, file)
    return Ranking(
        tuple(cells[0] for _, cells in rows),
        tuple(tuple(cells[1:]) for _, cells in rows),
        tuple(line for line, _ in rows),
    )


def finite_numbers(cells: Sequence[str]) -> np.ndarray | None:
    """Return the numbers in n cells, (n,) float64, or None if a cell is not a finite number."""
    text = "".join(cells)
    if not text.isascii() or "_" in text:  # Python's `float` also reads digits of other scripts, and 1_000
        return None
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    if np.isfinite(values).all():
        return values
    return None


def not_finite(cells: Sequence[str]) -> list[int]:
    """Return the indices of the cells that `finite_numbers` refuses."""
    places = []
    for place, cell in enumerate(cells):
        value = _number(cell)
        if value is None or not math.isfinite(value):
            places.append(place)
    return places


def _number(cell: str) -> float | None:
    if not cell.isascii() or "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def read_regular_matrix(path: Path, separator: str) -> tuple[list[str], Similarity] | None:
    """Read a matrix of regular form, or return None if the file may have another form.

    In a regular file, each record is one line, only queries and names may be quoted, and all scores are finite.
    `tables.read_table` and `_matrix` give the same result for such a file, but take several times as long.

    Args:
        path: The file.
        separator: The separator of the columns.

    Returns:
        The cells of the header, and the matrix.
    """
    content = path.read_bytes()
    returns = content.count(b"\r")
    if returns and returns != content.count(b"\r\n"):
        return None
    first, *lines = content.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n").split(b"\n")
    del content
    if not lines or max(map(len, lines)) > tables.LONGEST_CELL:
        return None
    mark = re.escape(separator)
    first_cell = re.compile(f'("(?:[^"]|"")*"|[^"{mark}]*){mark}')
    queries, scores = [], []
    try:
        [header] = csv.reader([first.decode()], delimiter=separator, strict=True)
        width = len(header) - 1
        if width < 1:
            return None
        for raw_line in lines:
            line = raw_line.decode()
            query_cell = first_cell.match(line)
            if not query_cell:
                return None
            values = _numbers(line[query_cell.end() :], separator)
            if values is None or len(values) != width:
                return None
            [[query]] = csv.reader([query_cell[1]], delimiter=separator, strict=True)
            queries.append(query)
            scores.append(values)
    except (ValueError, csv.Error):
        return None
    matrix = np.array(scores)
    if not np.isfinite(matrix).all():
        return None
    return header, Similarity(tuple(queries), tuple(header[1:]), matrix)


def _numbers(text: str, separator: str) -> np.ndarray | None:
    """Return the numbers in a text such as "0.5,-1.25e-3", (n,) float64, or None if a cell is not a number.

    Infinity and NaN may be among the numbers.
    """
    if separator == ",":
        try:
            values = from_json(f"[{text}]")
        except ValueError:
            values = []
        # Python's `float` reads each float of JSON as the same number. It need not read other values of JSON.
        if set(map(type, values)) == {float}:
            return np.array(values)
    return finite_numbers(text.split(separator))


def _is_matrix(rows: Sequence[tables.Record], scores: Sequence[np.ndarray | None]) -> bool:
    """Return True if most cells after the queries are numbers; `scores` is as for `_matrix`."""
    answers = numbers = 0
    for (_, cells), values in zip(rows, scores, strict=True):
        answers += len(cells) - 1
        if values is None:
            numbers += sum(_number(cell) is not None for cell in cells[1:])
        else:
            numbers += len(values)
    return 2 * numbers > answers


def _matrix(records: Sequence[tables.Record], scores: Sequence[np.ndarray | None], file: str) -> Similarity:
    """Return the matrix of a CSV's records.

    For each row, `scores` has the array of its scores, or None if a cell is not a finite number.
    """
    (_, header), *rows = records
    findings = []
    for (line, cells), values in zip(rows, scores, strict=True):
        if len(cells) != len(header):
            message = f"must have {len(header)} cells, as the header: the query and a score for each clip"
            findings.append(Finding(file, line, message=f"{message}; found {len(cells)}"))
        if values is None:
            wrong = [place + 1 for place in not_finite(cells[1:])]
            others = [quoted(cells[place]) for place in wrong]
            message = f"must be a finite number; found {first_items(others, limit=1)}"
            if len(wrong) > 1:
                message += " in this row"
            findings.append(Finding(file, line, tables.column_name(header, wrong[0]), message))
    if findings:
        raise Faulty(findings)
    queries = tuple(cells[0] for _, cells in rows)
    # Different numbers in the file stay different in float64, whether they were written as float32 or float64.
    return Similarity(queries, tuple(header[1:]), np.array(scores, dtype=np.float64))


def _read_npz(path: Path, expected: tuple[int, int] | None) -> Similarity:
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {key: npz.read_header(archive, key) for key in ("queries", "file_names", "scores")}
            fault = _size_fault(headers, expected)
            if not fault:
                queries, names = (_read_texts(archive, key) for key in ("queries", "file_names"))
                fault = _shape_fault(headers["scores"], queries, names)
            if not fault:
                scores = npz.read_array(archive, "scores")
    except Exception as error:  # zipfile, zlib, json and numpy raise many exceptions for a damaged file
        fault = f"must have queries, file_names and scores as `dcase-systems predict` writes them ({error}); {_AGAIN}"
    if fault:
        raise Faulty([Finding(str(path), message=fault)])
    return Similarity(queries, names, scores)


def _size_fault(headers: Mapping[str, npz.Header], expected: tuple[int, int] | None) -> str | None:
    """Return a message if a prediction needs more memory than the limits above allow, or None."""
    scores = headers["scores"]
    most, requirement = LARGEST, f"must not take more than {LARGEST} bytes"
    if expected:
        queries, clips = expected
        most = TIMES * 8 * queries * clips + SPARE
        requirement = f"must be for {queries} queries and {clips} clips and not take more than {most} bytes"
    if scores.bytes > most:
        return f"scores {requirement}; found {scores}, {scores.bytes} bytes: is this the prediction of this split?"
    for key, length in zip(("queries", "file_names"), scores.shape, strict=False):
        texts = headers[key]
        most = min(LIST_BYTES, TEXT_BYTES * (length + 1))
        if texts.bytes > most:
            return f"{key} must not take more than {most} bytes; found {texts.bytes}: give a list of texts"
    return None


def _read_texts(archive: zipfile.ZipFile, key: str) -> tuple[str, ...]:
    texts = tuple(json.loads(npz.read_array(archive, key).tobytes()))
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("queries and file_names must be lists of texts")
    return texts


def _shape_fault(scores: npz.Header, queries: Sequence[str], names: Sequence[str]) -> str | None:
    """Return a message if the scores are not floats or do not have the shape (queries, clips), or None."""
    if scores.shape == (len(queries), len(names)) and scores.dtype.kind == "f":
        return None
    return f"scores must be {len(queries)} x {len(names)} floats, queries by clips; found {scores}"
