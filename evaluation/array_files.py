"""Reading embeddings and matrices of scores from the files that numpy writes.

    embeddings, notes = read_embeddings("audio.npz", "text.npz", split)
    similarity, notes = read_matrix("scores.npz", split)

Files
-----
- `.npy`: one array, as `np.save` writes it. It is not read at once, but mapped into memory, so it may be larger than
  the memory. The names of its rows come from another file, or from the order of the truth.
- `.npz`: arrays with names, as `np.savez` writes them. `AUDIO` and `TEXT` list the names of arrays that are read. If
  none of these is in the file, the only array of numbers with two dimensions is read.

Names are an array of texts in the .npz, a text file with a name on each line, or a column of a CSV. Python objects are
never loaded, because loading them can run code.

A name may be given more than once, for example if a clip was encoded once for each of its captions. If the embeddings
are equal except for rounding, the first row counts. Otherwise this is an error.
"""

import io
import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation import npz
from evaluation.data import tables
from evaluation.data.dataset import Split
from evaluation.embeddings import Embeddings, repeated_rows
from evaluation.files import no_file
from evaluation.findings import NOTE, BadRequest, Faulty, Finding
from evaluation.predictions import LARGEST, LIST_BYTES, Similarity
from evaluation.text import first_items, quoted

NUMBERS = "fiu"  # the kinds of numpy types that embeddings and scores may have: floats and whole numbers
PICKLED = "has Python objects, which are not loaded because they can run code"
OTHER_FORMATS = (".pt", ".pth", ".pkl", ".pickle", ".h5", ".hdf5", ".safetensors", ".mat", ".json", ".parquet")


@dataclass(frozen=True)
class Side:
    """The names of the arrays of one kind of rows in an .npz, and of columns in a CSV of names.

    Attributes:
        noun: The noun for a row.
        option: The option of the command line that gives the file with the names of the rows.
        column: The usual name of the column in this file, if it is a CSV.
        arrays: Names of arrays of embeddings. The first that is in the file is read.
        names: Names of arrays of texts, and of columns in a CSV, that name the rows.
    """

    noun: str
    option: str
    column: str
    arrays: tuple[str, ...]
    names: tuple[str, ...]


_ANY = ("embeddings", "embedding", "embeds", "features", "vectors", "emb", "arr_0")
AUDIO = Side(
    "clip",
    "--audio-names",
    "file_name",
    (
        *("audio_embeddings", "audio_embeds", "audio_features", "audio_embedding", "audio_emb", "clip_vectors"),
        *(*_ANY, "audio"),
    ),
    (
        *("file_names", "file_name", "filenames", "filename", "fnames", "fname", "audio_names", "audio_files"),
        *("audio_filenames", "audio_paths", "clip_names", "clips", "files", "paths", "names", "ids"),
    ),
)
TEXT = Side(
    "text",
    "--text-names",
    "caption",
    (
        *("text_embeddings", "text_embeds", "text_features", "text_embedding", "text_emb", "caption_embeddings"),
        *("query_embeddings", "query_vectors", *_ANY, "text", "texts"),
    ),
    ("captions", "caption", "texts", "text", "queries", "query", "sentences", "text_names", "names"),
)
MATRICES = (
    *("scores", "similarity", "similarities", "similarity_matrix", "sim", "sims", "sim_matrix", "matrix"),
    *("logits", "logits_per_text", "logits_per_audio", "arr_0"),
)


@dataclass(frozen=True)
class Given:
    """What a user gives to name the rows of arrays.

    Attributes:
        audio: A file with the names of the clips, or None.
        text: A file with the texts, or None.
        truth_order: True if rows without names are in the order of the truth.
    """

    audio: Path | None = None
    text: Path | None = None
    truth_order: bool = False

    def file(self, side: Side) -> Path | None:
        """Return the file with the names of a side."""
        return self.audio if side is AUDIO else self.text


@dataclass
class _Contents:
    """The array of a file, and the lists of names in it."""

    path: Path
    array: np.ndarray
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # from the name of an array to its texts

    def of(self, side: Side) -> tuple[str, ...] | None:
        """Return the names of a side; None if the file does not have them."""
        for name in side.names:
            if name in self.names:
                return self.names[name]
        return None


# Embeddings ----------------------------------------------------------------------------------------------------------


def read_embeddings(
    audio: Path | str,
    text: Path | str,
    split: Split,
    truth: Collection[str] | None = None,
    similarity: str = "cosine",
    given: Given = Given(),
) -> tuple[Embeddings, list[Finding]]:
    """Read the embeddings of clips and of texts from two files, which may be the same .npz.

    Args:
        audio: The file with the clips' embeddings.
        text: The file with the texts' embeddings.
        split: The split, for the order of its clips and captions.
        truth: The queries of the truth, in order (default: the split's own).
        similarity: One of `embeddings.SIMILARITIES`.
        given: The files with names.

    Returns:
        The embeddings, and notes about what was assumed.

    Raises:
        BadRequest: A file is missing or is of another format, or the rows have no names.
        Faulty: A file is not valid, or the files do not fit together. Or both files cannot be used. The exception lists
            the findings of both files.
    """
    truth = split.truth if truth is None else truth
    notes: list[Finding] = []
    errors: list[Finding] = []
    refusals: dict[str, Path] = {}  # from each message to its file; both files may be the same
    sides = []
    for side, path in ((AUDIO, Path(audio)), (TEXT, Path(text))):
        try:
            contents = _read(path, side.arrays, "embeddings", f"a row for each {side.noun}")
            names = _names_of_rows(contents, side, split, truth, given, notes)
            sides.append(_once(path, side, names, contents.array, notes))
        except Faulty as faulty:
            errors += faulty.findings
        except BadRequest as refusal:
            refusals[str(refusal)] = path
    if len(refusals) == 1 and not errors:
        raise BadRequest(*refusals)
    for message, path in refusals.items():
        errors.append(Finding(str(path), message=message.removeprefix(f"{path}: ")))
    if errors:
        raise Faulty(errors, status=2 if refusals else 1)
    (clips, clip_vectors), (queries, query_vectors) = sides
    widths = clip_vectors.shape[1], query_vectors.shape[1]
    if widths[0] != widths[1]:
        message = f"must have as many columns as the embeddings of the clips in {audio}, {widths[0]}; found {widths[1]}"
        advice = "give the outputs of both encoders after their projections into the shared space"
        raise Faulty([Finding(str(text), message=f"{message}; {advice}")])
    return Embeddings(queries, clips, query_vectors, clip_vectors, similarity), notes


def _once(
    path: Path, side: Side, names: tuple[str, ...], vectors: np.ndarray, notes: list[Finding]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the first row of each name, with its name.

    Raises:
        Faulty: The rows of a name differ.
    """
    kept, different = repeated_rows(names, vectors)
    findings = []
    for first, row in different:
        message = f"{side.noun} {quoted(names[row])} has different embeddings in rows {first + 1} and {row + 1}"
        findings.append(Finding(str(path), message=f"{message}; give each {side.noun} one row"))
    if findings:
        raise Faulty(findings)
    if len(kept) == len(names):
        return names, vectors
    message = f"left out rows that repeat a {side.noun} with the same embedding: {len(names) - len(kept)}"
    notes.append(Finding(str(path), message=message, severity=NOTE))
    return tuple(names[row] for row in kept), vectors[kept]


# Matrices ------------------------------------------------------------------------------------------------------------


def read_matrix(
    path: Path | str,
    split: Split,
    truth: Collection[str] | None = None,
    given: Given = Given(),
) -> tuple[Similarity, list[Finding]]:
    """Read a matrix of scores of texts and clips from .npy or .npz; its rows may be the texts or the clips.

    Args:
        path: The file.
        split: The split, for the order of its clips and captions.
        truth: The queries of the truth, in order (default: the split's own).
        given: The files with names.

    Returns:
        The matrix with texts as rows, and notes about what was assumed.

    Raises:
        BadRequest: The file is missing or is of another format, or there are no names.
        Faulty: The file is not valid. The exception lists all findings.
    """
    path = Path(path)
    truth = split.truth if truth is None else truth
    contents = _read(path, MATRICES, "scores", "a row for each text and a column for each clip")
    notes: list[Finding] = []
    rows, columns = contents.array.shape
    names: dict[str, tuple[str, ...]] = {}
    for side, lengths in ((TEXT, (rows, columns)), (AUDIO, (columns, rows))):
        own = _own_names(contents, side, given)
        if own is None:
            own = _names_in_order(path, side, split, truth, given, lengths)
            notes.append(_assumed(path, side, own, split))
        names[side.noun] = own
    texts, clips = names["text"], names["clip"]
    scores = contents.array
    if scores.shape != (len(texts), len(clips)):
        if scores.shape != (len(clips), len(texts)):
            shape = f"{len(texts)} x {len(clips)} (texts by clips) or {len(clips)} x {len(texts)} (clips by texts)"
            message = f"must be {shape}, as there are names; found {rows} x {columns}: give a name for each row"
            raise Faulty([Finding(str(path), message=message)])
        scores = scores.T
        notes.append(Finding(str(path), message="its rows are the clips, and its columns the texts", severity=NOTE))
    elif rows == columns:
        message = f"is {rows} x {columns}: assumed that its rows are the texts, and its columns the clips"
        notes.append(Finding(str(path), message=message, severity=NOTE))
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)
    kept, different = repeated_rows(texts, scores)
    if different:
        row = different[0][1]
        message = f"text {quoted(texts[row])} has rows with different scores; give each text one row"
        raise Faulty([Finding(str(path), message=message)])
    if len(kept) < len(texts):
        message = f"left out rows that repeat a text with the same scores: {len(texts) - len(kept)}"
        notes.append(Finding(str(path), message=message, severity=NOTE))
        texts, scores = tuple(texts[row] for row in kept), scores[kept]
    return Similarity(texts, clips, scores), notes


def is_other_matrix(path: Path) -> bool:
    """Return True for an .npz with a matrix of scores that `Similarity.save` did not write."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            stored = {name.removesuffix(".npy") for name in archive.namelist()}
            if {"scores", "queries", "file_names"} <= stored:
                return npz.read_header(archive, "queries").dtype.kind == "U"
            if len(stored) == 1:  # only a matrix; its names are given in other files, or are missing
                return not stored.isdisjoint(MATRICES)
    except Exception:  # zipfile, zlib and numpy raise many exceptions for a damaged file, which is reported later
        return False
    return not any(stored.isdisjoint(names) for names in (MATRICES, AUDIO.names, TEXT.names))


def texts_as_rows(
    similarity: Similarity, truth: Collection[str], split: Split, file: str
) -> tuple[Similarity, list[Finding]]:
    """Return a matrix with texts as rows, if its rows are clips and its columns are texts.

    Args:
        similarity: The matrix.
        truth: The queries of the truth.
        split: The split.
        file: The file's name in the note.

    Returns:
        The matrix, and a note if rows and columns were exchanged.
    """
    clips, queries = set(split.file_names), set(truth)
    rows_are_texts = not queries.isdisjoint(similarity.queries)
    if rows_are_texts or clips.isdisjoint(similarity.queries) or queries.isdisjoint(similarity.file_names):
        return similarity, []
    note = Finding(file, message="its rows are the clips, and its columns the texts", severity=NOTE)
    return similarity.reversed(), [note]


# Names ---------------------------------------------------------------------------------------------------------------


def _names_of_rows(
    contents: _Contents, side: Side, split: Split, truth: Collection[str], given: Given, notes: list[Finding]
) -> tuple[str, ...]:
    """Return the names of the rows of embeddings."""
    rows = len(contents.array)
    if not rows:
        raise Faulty([Finding(str(contents.path), message=f"has no rows; give one for each {side.noun}")])
    own = _own_names(contents, side, given)
    if own is None:
        own = _names_in_order(contents.path, side, split, truth, given, (rows,))
        notes.append(_assumed(contents.path, side, own, split))
    if len(own) != rows:
        source = given.file(side) or contents.path
        message = f"must have a name for each of the {rows} rows of {contents.path}; found {len(own)} names"
        raise Faulty([Finding(str(source), message=f"{message}: give the names that belong to these rows")])
    return own


def _own_names(contents: _Contents, side: Side, given: Given) -> tuple[str, ...] | None:
    """Return the names from the file that the user gives, or from the .npz; None if there are none."""
    file = given.file(side)
    if file:
        return read_names(file, side)
    return contents.of(side)


def _names_in_order(
    path: Path, side: Side, split: Split, truth: Collection[str], given: Given, lengths: Sequence[int]
) -> tuple[str, ...]:
    """Return the names of rows that are in the order of the truth.

    Raises:
        BadRequest: The user does not say that the rows are in this order.
        Faulty: The number of rows, which must be one of `lengths`, is not that of the truth.
    """
    if side is AUDIO:
        choices = {f"{len(split.file_names)} clips of the split": split.file_names}
    else:
        choices = {
            f"{len(split.all_captions)} captions of the split": split.all_captions,
            f"{len(truth)} queries of the truth": tuple(truth),
        }
    if not given.truth_order:
        file = f"{side.option} FILE (a {side.noun} on each line, or a CSV with the column {side.column})"
        raise BadRequest(
            f"{path}: has no names for the {side.noun}s; give {file}, or --order truth if they are {_ORDER}"
        )
    for names in choices.values():
        if names and len(names) in lengths:
            return names
    found = " x ".join(map(str, dict.fromkeys(lengths)))
    needed = " or the ".join(dict.fromkeys(choices))
    message = f"must have a row for each of the {needed}, in their order; found {found} rows: give {side.option} FILE"
    raise Faulty([Finding(str(path), message=message)])


_ORDER = "in the order of the truth"


def _assumed(path: Path, side: Side, names: tuple[str, ...], split: Split) -> Finding:
    """Return the note about rows whose names were taken from the order of the truth."""
    source = split.source.name if split.source else "the truth"
    if side is AUDIO:
        what = f"the clips are in the order of {source}"
    elif names == split.all_captions:
        what = f"the texts are the captions in the order of {source}: all captions of the first clip, then of the next"
    else:
        what = "the texts are the queries in the order of the truth"
    return Finding(str(path), message=f"assumed that {what}", severity=NOTE)


def read_names(path: Path, side: Side) -> tuple[str, ...]:
    """Read names from a text file with a name on each line, or from a column of a CSV.

    Args:
        path: The file.
        side: `AUDIO` or `TEXT`, which lists the names of the column. The only column of a CSV may have any name.

    Raises:
        BadRequest: There is no such file.
        Faulty: The file is not valid. The exception lists all findings.
    """
    if not path.is_file():
        raise no_file(path, f"a file with a {side.noun} on each line")
    if path.suffix.lower() not in (".csv", ".tsv"):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            message = f"must be UTF-8 text with a {side.noun} on each line ({error.reason} at byte {error.start})"
            raise Faulty([Finding(str(path), message=f"{message}: save it as UTF-8")]) from None
        return tuple(text.removesuffix("\n").split("\n")) if text else ()
    findings: list[Finding] = []
    records, _ = tables.read_table(path, str(path), findings, tables.separator(path, str(path)))
    if findings:
        raise Faulty(findings)
    header = records[0][1] if records else []
    columns = [index for index, name in enumerate(header) if name in side.names]
    if len(columns) != 1 and len(header) == 1:
        columns = [0]
    if len(columns) != 1:
        found = first_items([quoted(name) for name in header], 10) or "nothing"
        message = f"must have one column {side.column!r} with the {side.noun}s; found {found}: rename the column"
        raise Faulty([Finding(str(path), 1, message=message)])
    names = []
    for line, cells in records[1:]:
        if len(cells) != len(header):
            message = f"must have {len(header)} cells, as the header; found {len(cells)}: quote a cell with a comma"
            findings.append(Finding(str(path), line, message=message))
            continue
        names.append(cells[columns[0]])
    if findings:
        raise Faulty(findings)
    return tuple(names)


# Arrays --------------------------------------------------------------------------------------------------------------


def _read(path: Path, arrays: Sequence[str], noun: str, shape: str) -> _Contents:
    """Read the array of a file, and the lists of names in it.

    Args:
        path: The file.
        arrays: The names of the array in an .npz.
        noun: The plural noun for the content of the array.
        shape: The meaning of its rows and columns.

    Raises:
        BadRequest: There is no such file, or it is of another format.
        Faulty: The file is damaged, or the array has another shape or type.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "no such file"
        raise BadRequest(f"{path}: {kind}; give {noun} (.npy or .npz)")
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        example = "np.save('FILE.npy', tensor.cpu().numpy())" if suffix in OTHER_FORMATS else "np.save"
        raise BadRequest(f"{path}: must be .npy or .npz; write the {noun} with {example}")
    try:
        contents = _read_npy(path) if suffix == ".npy" else _read_npz(path, arrays, noun)
    except (Faulty, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many exceptions for a damaged file
        message = f"must be {suffix} as numpy writes it ({error}); write the file again"
        raise Faulty([Finding(str(path), message=message)]) from None
    array = contents.array
    if array.dtype.kind not in NUMBERS or array.ndim != 2:
        found = f"{' x '.join(map(str, array.shape)) or 'one value'} of {array.dtype}"
        message = f"{noun} must be numbers in two dimensions, {shape}; found {found}"
        advice = "save the array with np.save"
        if array.ndim == 3 and 1 in array.shape:
            advice = "remove the dimension of length 1 with .squeeze()"
        elif array.ndim == 3:
            advice = "average over time, so that each row is one vector"
        raise Faulty([Finding(str(path), message=f"{message}: {advice}")])
    return contents


def _pickled(path: Path, name: str = "") -> Faulty:
    what = f"the array {name!r} {PICKLED}" if name else PICKLED
    advice = "stack lists of vectors with np.stack, and save texts with np.array(texts, dtype=str)"
    return Faulty([Finding(str(path), message=f"{what}; {advice}")])


def _read_npy(path: Path) -> _Contents:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read(file)
    if dtype.hasobject:
        raise _pickled(path)
    if path.stat().st_size == 0 or dtype.itemsize == 0:
        raise ValueError("it is empty")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "greater than file size" not in str(error):
            raise
        raise ValueError("it ends too early") from None
    return _Contents(path, array)


def _read_npz(path: Path, arrays: Sequence[str], noun: str) -> _Contents:
    with zipfile.ZipFile(path) as archive:
        stored = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        headers = {name: npz.read_header(archive, name) for name in stored}
        tables_of_numbers = []
        for name, header in headers.items():
            if header.dtype.kind in NUMBERS and len(header.shape) == 2:
                tables_of_numbers.append(name)
        chosen = [name for name in arrays if name in tables_of_numbers] or [
            name for name in arrays if name in headers and headers[name].dtype.kind in NUMBERS
        ]
        if not chosen and len(tables_of_numbers) == 1:
            chosen = tables_of_numbers
        if not chosen:
            for name in arrays:
                if name in headers and headers[name].dtype.hasobject:
                    raise _pickled(path, name)
            described = [f"{name} ({header})" for name, header in headers.items()]
            message = (
                f"must have an array {arrays[0]!r} with the {noun}; found {first_items(described, 10) or 'nothing'}"
            )
            raise Faulty([Finding(str(path), message=f"{message}: rename the array")])
        header = headers[chosen[0]]
        if header.bytes > LARGEST:
            message = f"{chosen[0]!r} must not take more than {LARGEST} bytes in an .npz; found {header}"
            advice = "write it with np.save to an .npy, which is read in parts, and the names to a text file"
            raise Faulty([Finding(str(path), message=f"{message}: {advice}")])
        contents = _Contents(path, npz.read_array(archive, chosen[0]))
        for name in (*AUDIO.names, *TEXT.names):
            if name in headers and name not in contents.names:
                texts = _read_texts(archive, path, name, headers)
                if texts is not None:
                    contents.names[name] = texts
    return contents


def _read_texts(
    archive: zipfile.ZipFile, path: Path, name: str, headers: Mapping[str, npz.Header]
) -> tuple[str, ...] | None:
    """Read a list of texts: an array of texts, or JSON text in an array of bytes. Return None for other arrays."""
    header = headers[name]
    if header.dtype.hasobject:
        raise _pickled(path, name)
    is_json = header.dtype == np.uint8 and len(header.shape) == 1
    if not is_json and (header.dtype.kind not in "US" or len(header.shape) != 1):
        return None
    # numpy gives each text the space of the longest one, four bytes for each character.
    if header.bytes > (LIST_BYTES if is_json else LARGEST):
        message = f"{name!r} must not take more than {LARGEST} bytes; found {header}"
        raise Faulty([Finding(str(path), message=f"{message}: give the names in a text file")])
    array = npz.read_array(archive, name)
    if is_json:
        texts = json.load(io.BytesIO(array.tobytes()))
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name} must be a list of texts")
        return tuple(texts)
    if array.dtype.kind == "S":
        return tuple(text.decode() for text in array.tolist())
    return tuple(array.tolist())
