"""What systems answered, read from files and written to them.

    captions = read_captions(Path("evaluation.csv"))                  # Captions: one for each clip
    similarity = read_retrieval(Path("evaluation.npz"))               # Similarity: a score for every query and clip
    ranking = read_retrieval(Path("best clips.csv"))                  # Ranking: the best clips of every query

Whether a prediction answers a split, `evaluation.metrics.captioning` and `evaluation.metrics.retrieval` check.

Files
-----
- Captions: a CSV with the columns `file_name` and `caption_predicted`, in any order; other columns are ignored.
- Similarity: an NPZ with `scores` (queries, clips) and the lists `queries` and `file_names` as JSON in bytes; or a CSV
  whose header names the clips and whose rows have a query and its scores.
- Ranking: a CSV whose rows have a query and its best clips, best first.

CSV files are separated by commas or tabs, because the organisers' own baselines disagree. Numbers in them are read by
Python's `float`, digit for digit. pandas and `numpy.loadtxt` read a matrix of 1000 x 1000 in 0.4 s and 0.5 s instead of
0.7 s, but importing pandas takes 0.5 s, and neither names the cell at fault.
"""

import csv
import json
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation import npz
from evaluation.data import tables
from evaluation.files import no_file, replacing
from evaluation.findings import BadRequest, Faulty, Finding
from evaluation.text import first_items, quoted

CAPTION_COLUMNS = ("file_name", "caption_predicted")
COLUMNS_SHOWN = 20  # in a message: the header of a matrix names thousands of clips

# The most that a similarity matrix may hold, so that a small file cannot take all memory.
LARGEST = 2**30  # bytes of scores, where the caller does not say how many are expected
TIMES = 10  # times the bytes of the expected scores as float64 …
SPARE = 2**23  # … and these bytes
LIST_BYTES = 2**25  # bytes of the list of queries, or of clips
TEXT_BYTES = 2**12  # bytes of a query or name, on average


# Captions ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Captions:
    """A caption for each clip.

    Attributes:
        file_names: The clips, in the order of the file.
        captions: Their captions.
        lines: The line of each in its file; empty for captions that were not read from a file.
    """

    file_names: tuple[str, ...]
    captions: tuple[str, ...]
    lines: tuple[int, ...] = ()


def read_captions(path: Path) -> Captions:
    """Read predicted captions from a CSV.

    Raises:
        BadRequest: There is no such file, or it is a retriever's.
        Faulty: The file is not such a CSV; with every finding.
    """
    if not path.is_file():
        raise no_file(path, f"a CSV with the columns {' and '.join(CAPTION_COLUMNS)}")
    if path.suffix.lower() == ".npz":
        raise BadRequest(f"{path}: is a similarity matrix of a retriever; score it with `evaluation score retrieval`")
    findings: list[Finding] = []
    separator = tables.separator(path, str(path))
    records, _ = tables.read_table(path, str(path), findings, separator)
    if findings and not records:  # nothing could be read: the header is not known
        raise Faulty(findings)
    header = records[0][1] if records else []
    rows = records[1:]
    for column in CAPTION_COLUMNS:
        if header.count(column) != 1:
            columns = first_items([quoted(name) for name in header], COLUMNS_SHOWN) or "no line"
            message = f"the header must have one column {column!r}; found {columns}"
            findings.append(Finding(str(path), 1, message=message))
    mark = "comma" if separator == "," else "tab"
    for line, cells in rows:
        if len(cells) != len(header):
            message = f"must have {len(header)} cells as the header has, found {len(cells)}; quote a cell with a {mark}"
            findings.append(Finding(str(path), line, message=message))
    if findings:
        raise Faulty(findings)
    name, caption = (header.index(column) for column in CAPTION_COLUMNS)
    return Captions(
        tuple(cells[name] for _, cells in rows),
        tuple(cells[caption] for _, cells in rows),
        tuple(line for line, _ in rows),
    )


def write_captions(
    path: Path, file_names: Sequence[str], captions: Sequence[str], log_probabilities: Sequence[float] | None = None
) -> None:
    """Write predicted captions as CSV, whole or not at all.

    Args:
        path: The file.
        file_names: The clips.
        captions: Their captions.
        log_probabilities: Their log-probabilities, for a third column, `log_probability` (default: no such column).

    Raises:
        BadRequest: A log-probability is NaN or infinite; nothing is written.
    """
    columns: dict[str, Sequence[object]] = dict(zip(CAPTION_COLUMNS, (file_names, captions), strict=True))
    if log_probabilities is not None:
        wrong = [name for name, value in zip(file_names, log_probabilities, strict=True) if not math.isfinite(value)]
        if wrong:
            message = f"{path}: log-probabilities must be finite; found NaN or infinity for {len(wrong)} clips"
            raise BadRequest(f"{message}, first {wrong[0]!r}. Nothing is written; look at the model that made them")
        columns["log_probability"] = [f"{value:.6f}" for value in log_probabilities]
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


# Retrieval -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Similarity:
    """A score for every query and clip.

    Attributes:
        queries: The texts.
        file_names: The clips.
        scores: (queries, clips) float32 or float64; higher is more similar.

    Raises:
        ValueError: The scores do not have a row for each query and a column for each clip.
    """

    queries: tuple[str, ...]
    file_names: tuple[str, ...]
    scores: np.ndarray

    def __post_init__(self) -> None:
        """Check the shape."""
        expected, shape = (len(self.queries), len(self.file_names)), np.shape(self.scores)
        if shape != expected:
            raise ValueError(f"scores must be (queries, clips), here {expected}, but have the shape {shape}")

    def top(self, k: int) -> "Ranking":
        """Return the k best clips of every query, best first; equal scores in the order of `file_names`."""
        return Ranking.of(self.queries, self.file_names, np.argsort(-self.scores, axis=1, kind="stable")[:, :k])

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all.

        Raises:
            BadRequest: A score is NaN or infinite; nothing is written.
        """
        finite = np.isfinite(self.scores).all(axis=1)
        if not finite.all():
            first = self.queries[int(np.argmin(finite))]
            number = int((~finite).sum())
            message = f"{path}: scores must be finite; found NaN or infinity for {number} of {len(finite)} queries"
            raise BadRequest(f"{message}, first {first!r}. Nothing is written; look at the model that made them")
        with replacing(path) as part, part.open("wb") as file:
            np.savez(
                file,
                queries=_json_bytes(self.queries),
                file_names=_json_bytes(self.file_names),
                scores=self.scores,
            )


def _json_bytes(texts: Iterable[str]) -> np.ndarray:
    # JSON rather than an array of strings, whose every entry would take the space of the longest.
    return np.frombuffer(json.dumps(list(texts)).encode(), dtype=np.uint8)


@dataclass(frozen=True)
class Ranking:
    """The best clips of every query, best first.

    Attributes:
        queries: The texts.
        file_names: The clips of each query.
        lines: The line of each query in its file; empty for a ranking that was not read from a file.

    Raises:
        ValueError: There is not one list of clips for each query.
    """

    queries: tuple[str, ...]
    file_names: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the lengths."""
        if len(self.file_names) != len(self.queries):
            message = f"there must be a list of clips for each of the {len(self.queries)} queries"
            raise ValueError(f"{message}, but {len(self.file_names)} were given")

    @classmethod
    def of(cls, queries: Sequence[str], file_names: Sequence[str], indices: np.ndarray) -> "Ranking":
        """Make a ranking of (queries, k) indices of clips, such as `retrieval.top_k` returns."""
        ranked = []
        for row in indices.tolist():
            ranked.append(tuple(file_names[clip] for clip in row))
        return cls(tuple(queries), tuple(ranked))


def read_retrieval(path: Path, expected: tuple[int, int] | None = None) -> Similarity | Ranking:
    """Read a retriever's prediction: a `Similarity` from .npz, or either kind from a CSV.

    In a CSV the first column is the query. Where most of the other cells below the header are numbers, it is a matrix
    of scores, whose header names the clips; else the cells are clips, best first, and the header is not looked at
    (`submission validate` checks it).

    Args:
        path: The file.
        expected: The number of queries and clips of the split. An .npz that takes more than ten times the memory of
            such a matrix is refused before it is unpacked (default: one of more than 1 GiB is).

    Raises:
        BadRequest: There is no such file, or it is of another kind.
        Faulty: The file does not hold; with every finding.
    """
    if not path.is_file():
        raise no_file(path, "a prediction (.npz or .csv)")
    if path.suffix.lower() == ".npz":
        return _read_npz(path, expected)
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise BadRequest(f"{path}: must be .npz (a similarity matrix) or .csv (query and best clips, best first)")
    return read_retrieval_csv(path, str(path))


def read_retrieval_csv(path: Path, file: str) -> Similarity | Ranking:
    """Read a CSV as `read_retrieval` does, whatever its name ends in.

    Args:
        path: The file.
        file: Its name in findings.

    Raises:
        BadRequest: It is a captioner's.
        Faulty: The file does not hold; with every finding.
    """
    separator = tables.separator(path, file)
    matrix = _read_regular_matrix(path, separator)
    if matrix:
        return matrix
    findings: list[Finding] = []
    records, _ = tables.read_table(path, file, findings, separator)
    if records and set(CAPTION_COLUMNS) <= set(records[0][1]):
        raise BadRequest(f"{file}: holds the captions of a captioner; score it with `evaluation score captions`")
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
    """Read finite numbers, (n,) float64; None where a cell is anything else."""
    text = "".join(cells)
    if not text.isascii() or "_" in text:  # Python's float takes digits of other scripts, and 1_000
        return None
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    if np.isfinite(values).all():
        return values
    return None


def not_finite(cells: Sequence[str]) -> list[int]:
    """Return the places of the cells that `finite_numbers` refuses."""
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


def _read_regular_matrix(path: Path, separator: str) -> Similarity | None:
    """Read a matrix without any irregularity, in half the time; None where the file may be anything else.

    A record is a line, and only queries and names may be quoted: what this reads, `tables.read_table` reads alike.
    """
    content = path.read_bytes()
    if content.count(b"\r") != content.count(b"\r\n"):
        return None
    queries, scores = [], []
    try:
        first, *lines = content.decode("utf-8-sig").rstrip("\r\n").split("\n")
        del content
        [header] = csv.reader([first], delimiter=separator, strict=True)
        width = len(header) - 1
        if width < 1:
            return None
        for line in lines:
            query, *cells = line.rsplit(separator, width)
            if len(cells) != width:
                return None
            values = finite_numbers(cells)
            if values is None:
                return None
            [[query]] = csv.reader([query], delimiter=separator, strict=True)
            queries.append(query)
            scores.append(values)
    except (ValueError, csv.Error):
        return None
    if not queries:
        return None
    return Similarity(tuple(queries), tuple(header[1:]), np.array(scores))


def _is_matrix(rows: Sequence[tables.Record], scores: Sequence[np.ndarray | None]) -> bool:
    """Return whether most cells after the queries are numbers; `scores` are those of the rows of numbers alone."""
    answers = numbers = 0
    for (_, cells), values in zip(rows, scores, strict=True):
        answers += len(cells) - 1
        if values is None:
            numbers += sum(_number(cell) is not None for cell in cells[1:])
        else:
            numbers += len(values)
    return 2 * numbers > answers


def _matrix(records: Sequence[tables.Record], scores: Sequence[np.ndarray | None], file: str) -> Similarity:
    """Return the matrix of a CSV's records; `scores` are the numbers of each row, None where a cell is none."""
    (_, header), *rows = records
    findings = []
    for (line, cells), values in zip(rows, scores, strict=True):
        if len(cells) != len(header):
            message = f"must have {len(header)} cells as the header has, the query and a score for each clip"
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
    # float64, so that different numbers stay different, whether float32 or float64 was written.
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
    except Exception as error:  # at a broken file zipfile, zlib, json and numpy raise almost anything
        fault = f"must hold queries, file_names and scores as `systems predict` writes them ({error})"
    if fault:
        raise Faulty([Finding(str(path), message=fault)])
    return Similarity(queries, names, scores)


def _size_fault(headers: Mapping[str, npz.Header], expected: tuple[int, int] | None) -> str | None:
    """Say that a prediction would take more memory than the expected one can need; None where it would not."""
    scores = headers["scores"]
    most, wanted = LARGEST, f"must not take more than {LARGEST} bytes"
    if expected:
        queries, clips = expected
        most = TIMES * 8 * queries * clips + SPARE
        wanted = f"must be of {queries} queries and {clips} clips, and not take more than {most} bytes"
    if scores.bytes > most:
        return f"scores {wanted}; found {scores}, {scores.bytes} bytes: is this the prediction of this split?"
    for key, length in zip(("queries", "file_names"), scores.shape, strict=False):
        texts = headers[key]
        most = min(LIST_BYTES, TEXT_BYTES * (length + 1))
        if texts.bytes > most:
            return f"{key} must not take more than {most} bytes; found {texts.bytes}: give the texts themselves"
    return None


def _read_texts(archive: zipfile.ZipFile, key: str) -> tuple[str, ...]:
    texts = tuple(json.loads(npz.read_array(archive, key).tobytes()))
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("queries and file_names must be lists of texts")
    return texts


def _shape_fault(scores: npz.Header, queries: Sequence[str], names: Sequence[str]) -> str | None:
    """Say that the scores do not belong to the queries and clips; None where they do."""
    if scores.shape == (len(queries), len(names)) and scores.dtype.kind == "f":
        return None
    return f"scores must be {len(queries)} x {len(names)} floats, queries by clips; found {scores}"
