import csv
import io
import itertools
import json
import math
import pickle
import time
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import predictions
from evaluation.findings import BadRequest, Faulty
from evaluation.predictions import (
    CAPTION_COLUMNS,
    Captions,
    Ranking,
    Similarity,
    read_captions,
    read_retrieval,
    write_captions,
)
from tests.evaluation.hostile_names import HOSTILE_NAMES

# ------------------------------------------------------------------------------------------------ captions


@pytest.mark.parametrize(
    "text",
    [
        "file_name,caption_predicted\na.wav,A dog barks.\nb.wav,\n",
        "file_name,caption_predicted\r\na.wav,A dog barks.\r\nb.wav,\r\n",
        '\ufeff"file_name","caption_predicted"\n"a.wav","A dog barks."\n"b.wav",""\n',
        "file_name\tcaption_predicted\na.wav\tA dog barks.\nb.wav\t\n",
        "log_probability,caption_predicted,file_name\n-1.5,A dog barks.,a.wav\n-2,,b.wav\n",
    ],
)
def test_read(tmp_path, text):
    path = tmp_path / "it.csv"
    path.write_bytes(text.encode())
    assert read_captions(path) == Captions(("a.wav", "b.wav"), ("A dog barks.", ""), (2, 3))


def test_what_is_written_is_read(tmp_path):
    path, names = tmp_path / "run" / "prediction.csv", (" a, b.wav", "c.wav")
    captions = ('a dog, "rex", barks', "rain")
    write_captions(path, names, captions, [-1.5, -2.25])
    assert path.read_text().splitlines()[0] == "file_name,caption_predicted,log_probability"
    found = read_captions(path)
    assert (found.file_names, found.captions) == (names, captions)
    write_captions(path, names, captions)
    assert path.read_text().splitlines()[0] == "file_name,caption_predicted"


def test_names_and_captions_are_verbatim(tmp_path):
    names = HOSTILE_NAMES[:4]
    path = tmp_path / "it.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [CAPTION_COLUMNS, *zip(names, ["two\nlines", " blank ", 'a "b"', "🐕,"], strict=True)]
        )
    prediction = read_captions(path)
    assert prediction.file_names == names
    assert prediction.captions == ("two\nlines", " blank ", 'a "b"', "🐕,")


SEMICOLONS = "it.csv:1: error: columns must be separated by commas or tabs; found semicolons: save the file with commas"


def test_what_cannot_be_read_says_nothing_of_its_header(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes("file_name,caption_predicted\na.wav,Rain.\n".encode("utf-16"))
    with pytest.raises(Faulty) as faulty:
        read_captions(path)
    assert str(faulty.value) == f"{path}: error: must be UTF-8; this is UTF-16: save it as UTF-8"


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        (
            "",
            ["one column 'caption_predicted'; found no line", ":1: error: the header must have one column 'file_name'"],
        ),
        ("file_name;caption_predicted\na.wav;A dog, barking.\nb.wav;A; b\n", [SEMICOLONS]),
        ('"file_name";"caption_predicted"\n"a.wav";"A dog, barking."\n', [SEMICOLONS]),
        ("file_name,caption\na.wav,b\n", ["one column 'caption_predicted'; found 'file_name', 'caption'"]),
        (  # such as a matrix of scores, whose header names every clip
            ",".join(["file_name", *map(str, range(1000)), "caption"]) + "\n",
            [
                "one column 'caption_predicted'; found 'file_name', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', "
                "'10', '11', '12', '13', '14', '15', '16', '17', '18', and 982 more"
            ],
        ),
        ("file_name,file_name,caption_predicted\n", ["one column 'file_name'; found 'file_name', 'file_name'"]),
        (
            "file_name,caption_predicted\na.wav,A dog, barking.\nb.wav\n",
            [
                ":2: error: must have 2 cells, as the header; found 3: quote a cell that contains a comma",
                ":3: error: must have 2 cells, as the header; found 1: quote a cell that contains a comma",
            ],
        ),
        ('file_name,caption_predicted\na.wav,"A dog\n', ["is not valid CSV"]),
        ("file_name,caption_predicted\na.wav,A\n\nb.wav,B\n", [":3: error: is a blank line; remove it"]),
    ],
)
def test_files_that_do_not_hold(tmp_path, text, findings):
    path = tmp_path / "it.csv"
    path.write_text(text)
    with pytest.raises(Faulty) as faulty:
        read_captions(path)
    assert len(faulty.value.findings) == len(findings)
    for finding, message in zip(faulty.value.findings, findings, strict=True):
        assert message in str(finding)


def test_no_such_file(tmp_path):
    with pytest.raises(BadRequest, match="no such file; give a CSV with the columns file_name and caption_predicted"):
        read_captions(tmp_path / "none.csv")
    with pytest.raises(BadRequest, match="is a folder; give a CSV with the columns file_name and caption_predicted"):
        read_captions(tmp_path)


def test_a_retriever_s_prediction(tmp_path):
    (tmp_path / "it.npz").write_bytes(b"PK\x03\x04\xff")
    with pytest.raises(
        BadRequest, match=r"it.npz: is the similarity matrix of a retrieval system; score it with `dcase-evaluation"
    ):
        read_captions(tmp_path / "it.npz")


def test_infinite_log_probabilities_are_not_written(tmp_path):
    with pytest.raises(BadRequest, match=r"found NaN or infinity for 1 clip, for example 'b\.wav'; no file is written"):
        write_captions(tmp_path / "x.csv", ["a.wav", "b.wav"], ["a dog", "a cat"], [-1.0, math.nan])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_never_written(value, tmp_path):
    scores = np.array([[1, 2], [3, value], [value, value]], dtype=np.float32)
    with pytest.raises(BadRequest) as refusal:
        Similarity(("q", "r", "s"), ("a.wav", "b.wav"), scores).save(tmp_path / "x.npz")
    message = "scores must be finite; found NaN or infinity for 2 of 3 queries, for example 'r'; no file is written"
    assert message in str(refusal.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(4, 19), (3, 20), (20, 4), (80,), (4, 20, 1), ()])
def test_scores_of_another_shape_than_their_names(shape):
    message = r"scores must have the shape \(queries, clips\), which is \(4, 20\); found \("
    with pytest.raises(ValueError, match=message):
        Similarity(tuple("qrst"), tuple("abcdefghijklmnopqrst"), np.zeros(shape))


def test_a_similarity_of_what_a_notebook_has(tmp_path):
    similarity = Similarity(["q", "r"], np.array(["a.wav"]), [[1], [0]])
    assert (similarity.queries, similarity.file_names) == (("q", "r"), ("a.wav",))
    assert repr(similarity) == "Similarity(2 queries x 1 clips, float64)"
    assert repr(similarity.top(1)) == "Ranking(2 queries)"
    assert repr(Captions(("a.wav",), ("A dog.",))) == "Captions(1 caption)"
    similarity.save(str(tmp_path / "it.npz"))
    loaded = Similarity.load(str(tmp_path / "it.npz"))
    assert (loaded.queries, loaded.scores.tolist()) == (("q", "r"), [[1], [0]])
    with pytest.raises(ValueError, match="file names must be a list of texts; found the text"):
        Similarity(["q"], "a.wav", [[1]])
    with pytest.raises(ValueError, match="scores must be numbers; found texts"):
        Similarity(["q"], ["a.wav"], [["1"]])


def test_lists_of_clips_are_no_similarity(tmp_path):
    (tmp_path / "it.csv").write_text("query,best\nA dog.,a.wav\n")
    with pytest.raises(BadRequest, match="contains lists of the best clips, not a matrix; read it with `read_retr"):
        Similarity.load(tmp_path / "it.csv")


def test_a_ranking_without_a_list_for_each_query():
    with pytest.raises(ValueError, match="a list of clips for each of the 4 queries; found 3 lists"):
        Ranking(tuple("qrst"), (("a.wav",),) * 3)


# ------------------------------------------------------------------------------------------------ retrieval


def test_npz_holds_texts_and_scores_verbatim(tmp_path):
    scores = np.random.default_rng(0).normal(size=(len(HOSTILE_NAMES), len(HOSTILE_NAMES))).astype(np.float32)
    scores[0, :2] = [-0.0, 1e-45]
    Similarity(HOSTILE_NAMES, HOSTILE_NAMES[::-1], scores).save(tmp_path / "new" / "it.npz")
    for again in (read_retrieval(tmp_path / "new" / "it.npz"), Similarity.load(tmp_path / "new" / "it.npz")):
        assert (again.queries, again.file_names) == (HOSTILE_NAMES, HOSTILE_NAMES[::-1])
        assert again.scores.dtype == np.float32
        assert again.scores.tobytes() == scores.tobytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["it.npz"]


def test_load_reads_only_what_save_wrote(tmp_path):
    with pytest.raises(BadRequest, match=r"no.npz: no such file; give a prediction \(.npz or .csv\)"):
        Similarity.load(tmp_path / "no.npz")
    np.savez(tmp_path / "other.npz", scores=np.eye(2))
    with pytest.raises(Faulty, match="must have queries, file_names and scores as `dcase-systems predict` writes them"):
        Similarity.load(tmp_path / "other.npz")


def test_a_ranking_that_is_saved_is_read(tmp_path):
    names = tuple(name for name in HOSTILE_NAMES if "\ud83d" not in name and "\0" not in name)
    ranking = Ranking(names, tuple((name, "a.wav") for name in names))
    ranking.save(tmp_path / "best.csv")
    again = read_retrieval(tmp_path / "best.csv")
    assert (again.queries, again.file_names) == (ranking.queries, ranking.file_names)


def texts(*values) -> np.ndarray:
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)


class Bomb:
    def __reduce__(self):
        return (warnings.warn, ("a pickle was run",))


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(
        file, **({"queries": texts("q"), "file_names": texts("a", "b"), "scores": np.zeros((1, 2), "f4")} | arrays)
    )
    return file.getvalue()


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


WRITES = "must have queries, file_names and scores as `dcase-systems predict` writes them"
FLOATS = "scores must be 1 x 2 floats, queries by clips; found"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", WRITES),
        (b"not a zip file", WRITES),
        (npz()[:-30], f"{WRITES} (File is not a zip file)"),
        (npz().replace(b"\x00" * 8, b"\x01" * 8), WRITES),
        (npy(np.zeros((1, 2))), WRITES),
        (pickle.dumps(Bomb()), f"{WRITES} (File is not a zip file)"),
        (npz(scores=np.array([[Bomb(), 0]])), f"{FLOATS} 1 x 2 object"),
        (npz(queries=np.array([Bomb()])), f"{WRITES} (Object arrays cannot be loaded when allow_pickle=False)"),
        (npz(queries=np.array(["q"])), WRITES),  # a plain array of strings
        (npz(queries=texts(1)), f"{WRITES} (queries and file_names must be lists of texts)"),
        (npz(file_names=texts("a", ["b"])), f"{WRITES} (queries and file_names must be lists of texts)"),
        (npz(queries=np.frombuffer(b"1", np.uint8)), WRITES),
        (npz(queries=np.frombuffer(b'["\xe9"]', np.uint8)), WRITES),
        (
            npz().replace(b"scores.npy", b"others.npy"),
            f"{WRITES} (\"There is no item named 'scores.npy' in the archive\")",
        ),
        (npz(scores=np.zeros((2, 1), "f4")), f"{FLOATS} 2 x 1 float32"),
        (npz(scores=np.zeros(2)), f"{FLOATS} 2 float64"),
        (npz(scores=np.zeros((1, 2, 1), "f4")), f"{FLOATS} 1 x 2 x 1 float32"),
        (npz(scores=np.zeros((1, 2), "i8")), f"{FLOATS} 1 x 2 int64"),
        (npz(scores=np.array([["0", "1"]])), f"{FLOATS} 1 x 2 <U1"),
    ],
    ids=itertools.count(),
)
def test_npz_that_does_not_hold(content, message, tmp_path, recwarn):
    path = tmp_path / "it.npz"
    path.write_bytes(content)
    with pytest.raises(Faulty) as refusal:
        read_retrieval(path)
    assert str(refusal.value).startswith(f"{path}: error: {message}")
    assert not [warning for warning in recwarn if "a pickle was run" in str(warning.message)]


def packed(method: int = zipfile.ZIP_DEFLATED, **arrays) -> bytes:
    """A compressed npz of headers, with up to 100 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in ({"queries": texts("q"), "file_names": texts("a", "b")} | arrays).items():
            if isinstance(array, tuple):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array_header_2_0(
                        member, {"shape": array, "fortran_order": False, "descr": "<f4"}
                    )
                    member.write(bytes(10**6))
            else:
                archive.writestr(f"{name}.npy", npy(array))
    return file.getvalue()


def long_header() -> bytes:
    """An array whose header says that it has 4 GB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("queries.npy", b"\x93NUMPY\2\0" + b"\xff" * 4 + b" " * 10**6)
    return file.getvalue()


ASKED = (5, 7)
MOST = 10 * 8 * 5 * 7 + 2**23
HUGE = {
    "many scores": (
        packed(scores=(20_000, 20_000)),
        f"scores must be for 5 queries and 7 clips and not take more than {MOST} bytes; found 20000 x 20000 float32, "
        "1600000000 bytes: is this the prediction of this split?",
    ),
    "more than any memory": (
        packed(scores=(2**40, 2**40)),
        f"scores must be for 5 queries and 7 clips and not take more than {MOST} bytes; found {2**40} x {2**40} "
        f"float32, {2**82} bytes: is this the prediction of this split?",
    ),
    "many dimensions": (
        packed(scores=(2**20,) * 4),
        f"scores must be for 5 queries and 7 clips and not take more than {MOST} bytes; found",
    ),
    "many queries and no clip": (packed(scores=(2**40, 0)), f"{FLOATS} {2**40} x 0 float32"),
    "long texts": (
        packed(queries=np.zeros(10**7, np.uint8), scores=(1, 2)),
        "queries must not take more than 8192 bytes; found 10000000: give a list of texts",
    ),
    "texts of any shape": (
        packed(file_names=(10**6, 10**6), scores=(1, 2)),
        "file_names must not take more than 12288 bytes; found 4000000000000: give a list of texts",
    ),
    "LZMA": (
        packed(zipfile.ZIP_LZMA, scores=np.zeros((1, 2), "f4")),
        f"{WRITES} (queries is compressed with zip method 14; write it with np.savez)",
    ),
    "a header without end": (long_header(), f"{WRITES} (queries has a header of version (2, 0) and 4294967295 bytes)"),
    "a shape below zero": (packed(scores=(-1, 2)), f"{WRITES} (scores has a negative length in its shape)"),
}


@pytest.mark.parametrize(("content", "message"), HUGE.values(), ids=HUGE)
def test_npz_that_would_take_all_memory_is_refused_unread(content, message, tmp_path, monkeypatch):
    path = tmp_path / "it.npz"
    path.write_bytes(content)
    reading = predictions.npz.read_array

    def small(archive, name):
        assert name != "scores"
        array = reading(archive, name)
        assert array.nbytes < 100
        return array

    monkeypatch.setattr(predictions.npz, "read_array", small)
    with pytest.raises(Faulty) as refusal:
        read_retrieval(path, ASKED)
    assert str(refusal.value).startswith(f"{path}: error: {message}")


def test_npz_may_hold_more_than_is_asked(tmp_path):
    """Unknown queries are ignored and unknown clips count as wrong; they do not make a file too large."""
    more = Similarity(tuple(map(str, range(50))), tuple(map(str, range(70))), np.zeros((50, 70)))
    more.save(tmp_path / "it.npz")
    assert read_retrieval(tmp_path / "it.npz", ASKED).scores.shape == (50, 70)
    (tmp_path / "zeros.npz").write_bytes(packed(scores=np.zeros((1, 2), "f4")))
    assert read_retrieval(tmp_path / "zeros.npz").scores.tolist() == [[0, 0]]


def test_npz_damaged_anywhere_is_refused_or_read(tmp_path):
    whole, path, random = npz(), tmp_path / "it.npz", np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 17)]
    for place in random.integers(0, len(whole), 200):
        damaged.append(whole[:place] + bytes([whole[place] ^ random.integers(1, 256)]) + whole[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert read_retrieval(path).scores.shape == (1, 2)
        except Faulty:
            refused += 1
    assert refused > len(damaged) / 2


SEMICOLONS = ":1: error: columns must be separated by commas or tabs; found semicolons: save the file with commas"
RANKED_ROWS = [
    ["caption", "file_name_1", "file_name_2"],
    ["It rains, a lot.", " rain.wav", "a, b.wav"],
    ['"Hi"', "é.wav", ""],
]


def as_csv(separator=",", end="\n") -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=end).writerows(RANKED_ROWS)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("it.csv", as_csv().encode()),
        ("IT.CSV", as_csv().encode()),
        ("tab.csv", as_csv("\t").encode()),
        ("tab.tsv", as_csv("\t").encode()),
        ("bom.csv", as_csv().encode("utf-8-sig")),
        ("tab bom.csv", as_csv("\t").encode("utf-8-sig")),
        ("crlf.csv", as_csv(end="\r\n").encode()),
        ("cr.csv", as_csv(end="\r").encode()),
        ("no last newline.csv", as_csv().rstrip("\n").encode()),
        ("blank lines at the end.csv", as_csv().encode() + b"\n\n"),
    ],
)
def test_csv(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    names = ((" rain.wav", "a, b.wav"), ("é.wav", ""))
    assert read_retrieval(tmp_path / name) == Ranking(("It rains, a lot.", '"Hi"'), names, (2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            as_csv().encode("latin-1"),
            ":3: file_name_1: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?): save the file as UTF-8",
        ),
        (as_csv().encode("utf-16"), ": error: must be UTF-8; this is UTF-16: save it as UTF-8"),
        (
            b'caption,file_name_1\nIt rains.,"a" b.wav\n',
            ":2: error: is not valid CSV (',' expected after '\"'); quote a cell that holds a comma or a quote, and "
            "double its quotes",
        ),
        (
            b'caption,file_name_1\nIt rains.,"a.wav\n',
            ":2: error: is not valid CSV (unexpected end of data); quote a cell that holds a comma or a quote, and "
            "double its quotes",
        ),
        (b"caption,file_name_1\n\nIt rains.,a.wav\n", ":2: error: is a blank line; remove it"),
        (as_csv(";").encode(), SEMICOLONS),
        (as_csv(";", "\r\n").encode("utf-8-sig"), SEMICOLONS),
        (b'"caption";"file_name_1"\n"It rains, a lot.";"a.wav"\n', SEMICOLONS),
        (b"index;a, b.wav;c, d.wav;e.wav\nIt rains, a lot.;1,5;2;3\n", SEMICOLONS),
    ],
)
def test_csv_that_does_not_hold(content, message, tmp_path):
    path = tmp_path / "it.csv"
    path.write_bytes(content)
    with pytest.raises(Faulty) as refusal:
        read_retrieval(path)
    assert str(refusal.value) == f"{path}{message}"


@pytest.mark.parametrize(
    "text",
    [
        "caption,file_name_1\nIt rains; a lot.,a;b.wav\n",
        "index,a;b;c.wav\nIt; rains,1\n",
        "It rains; a lot.,a.wav,b.wav\nIt; snows.,a.wav,b.wav\n",  # without a header
        '"It rains; a lot."\n"It; snows."\n',
        "It rains; a lot.\nIt snows.\n",
    ],
)
def test_semicolons_that_part_no_columns(text, tmp_path):
    (tmp_path / "it.csv").write_text(text)
    read_retrieval(tmp_path / "it.csv")


def test_a_captioner_s_prediction(tmp_path):
    path = tmp_path / "it.csv"
    path.write_text("log_probability,file_name,caption_predicted\n-1,a.wav,A dog, barking.\n\n")
    with pytest.raises(
        BadRequest, match=r"it.csv: has the captions of a captioning system; score it with `dcase-evaluation score"
    ):
        read_retrieval(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.npz", "no such file; give a prediction (.npz or .csv)"),
        ("folder.npz", "is a folder; give a prediction (.npz or .csv)"),
        ("it.txt", "must be .npz (a similarity matrix) or .csv (query and best clips, best first)"),
        ("it", "must be .npz (a similarity matrix) or .csv (query and best clips, best first)"),
    ],
)
def test_no_prediction(name, message, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "it.txt").touch()
    (tmp_path / "it").touch()
    with pytest.raises(BadRequest) as refusal:
        read_retrieval(tmp_path / name)
    assert str(refusal.value) == f"{tmp_path / name}: {message}"


# ------------------------------------------------------------------------------------------------ a matrix as CSV


def matrix_csv(scores, separator=",", end="\n", first="index", names=None, texts=repr) -> str:
    names = names or (" a, b.wav", "é.wav", '"c".wav', "d'eau &amp; 1.0.wav")[: scores.shape[1]]
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter=separator, lineterminator=end)
    table.writerow([first, *names])
    table.writerows([f'It rains, "{row}".', *map(texts, cells)] for row, cells in enumerate(scores.tolist()))
    return out.getvalue()


LIMITS = [np.finfo(kind) for kind in (np.float32, np.float64)]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    "dialect",
    [{}, {"separator": "\t"}, {"end": "\r\n"}, {"first": ""}, {"first": "anything, at all"}, {"end": "\r"}],
    ids=str,
)
def test_a_matrix(kind, dialect, tmp_path):
    """Every number is read bit for bit, in every CSV dialect."""
    scores = np.random.default_rng(0).normal(size=(7, 4)).astype(kind)
    limits = np.finfo(kind)
    scores[0], scores[1] = (limits.max, limits.min, limits.smallest_subnormal, -0.0), scores[1, 0]
    for name, written in (("it.csv", matrix_csv(scores, **dialect)), ("it.tsv", matrix_csv(scores, **dialect)[:-1])):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" * (name == "it.tsv") + written.encode())
        again = read_retrieval(tmp_path / name)
        assert again.file_names == (" a, b.wav", "é.wav", '"c".wav', "d'eau &amp; 1.0.wav")
        assert again.queries == tuple(f'It rains, "{row}".' for row in range(7))
        assert again.scores.dtype == np.float64
        assert again.scores.astype(kind).tobytes() == scores.tobytes()


def test_a_matrix_of_short_numbers_ranks_alike(tmp_path):
    """A float32 is written with few digits, which are another number in float64, but order and ties stay the same."""
    scores = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32).round(1)
    (tmp_path / "it.csv").write_text(matrix_csv(scores, texts=lambda x: str(np.float32(x))))
    again = read_retrieval(tmp_path / "it.csv")
    assert (again.scores.astype(np.float32) == scores).all()
    for one, other in itertools.product(range(4), repeat=2):
        assert ((again.scores[:, one] > again.scores[:, other]) == (scores[:, one] > scores[:, other])).all()


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            ("2.5,", ""),
            [":3: error: must have 4 cells, as the header: the query and a score for each clip; found 3"],
        ),
        (
            ("2.5", "2.5,7"),
            [":3: error: must have 4 cells, as the header: the query and a score for each clip; found 5"],
        ),
        (("2.5", "much"), [":3: b.wav: error: must be a finite number; found 'much'"]),
        (("2.5", ""), [":3: b.wav: error: must be a finite number; found ''"]),
        (("2.5", "nan"), [":3: b.wav: error: must be a finite number; found 'nan'"]),
        (("2.5", "1e999"), [":3: b.wav: error: must be a finite number; found '1e999'"]),
        (("2.5", "1_0"), [":3: b.wav: error: must be a finite number; found '1_0'"]),
        (("2.5", "٣"), [":3: b.wav: error: must be a finite number; found '٣'"]),
        (("2.5,3.5", "x,-inf"), [":3: b.wav: error: must be a finite number; found 'x', and 1 more in this row"]),
        (
            ("2.5,3.5", "x"),
            [
                ":3: error: must have 4 cells, as the header: the query and a score for each clip; found 3",
                ":3: b.wav: error: must be a finite number; found 'x'",
            ],
        ),
        ((",c.wav", ""), [f":{line}: error: must have 3 cells, as the header: the query and a score for each clip; "
                          "found 4" for line in (2, 3, 4)]),
        (("q2", '"q2'), [":4: error: is not valid CSV (unexpected end of data); quote a cell that holds a comma or a "
                         "quote, and double its quotes"]),
        (("\nq1", "\n\nq1"), [":3: error: is a blank line; remove it"]),
    ],
)  # fmt: skip
def test_a_matrix_that_does_not_hold(change, messages, tmp_path):
    text = "index,a.wav,b.wav,c.wav\nq0,1,2,3\nq1,1.5,2.5,3.5\nq2,1,2,3\n"
    path = tmp_path / "it.csv"
    assert text.count(change[0]) == 1
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(Faulty) as refusal:
        read_retrieval(path)
    assert [str(finding).removeprefix(str(path)) for finding in refusal.value.findings] == messages


@pytest.mark.parametrize(
    "text",
    [
        "caption,fname_1,fname_2\nq,a.wav,1.wav\n",
        "caption,fname_1,fname_2\nq,12,a.wav\n",
        "caption,fname_1\nq,1_0\n",
        "caption,fname_1\nq,\n",
        "caption\nq\n",
        "caption,fname_1\n",
        "1.0\n",
    ],
)
def test_rankings_are_no_matrix(text, tmp_path):
    (tmp_path / "it.csv").write_text(text)
    assert isinstance(read_retrieval(tmp_path / "it.csv"), Ranking)


CELL = st.sampled_from(
    [
        *("1", "-2.5", "1e3", " 7", "nan", "inf", "x", "", "1_0", '"1"', '"a', "1\r", "٣", "\n", "1.5\t"),
        *(
            "-0",
            "-0.0",
            "1e999",
            "NaN",
            "Infinity",
            "true",
            "null",
            "[1.5",
            "2.5]",
            "{}",
            "0.5,1.5",
            "1.",
            ".5",
            "01.5",
        ),
    ]
)
NAME = st.sampled_from(
    ["q", '"q, r"', '"q ""r"""', "", '"a\nb"', '"a', 'a"b', "a\rb", "é", " ", "1", "\0", "\x0b", "\x85"]
)
ROWS = st.lists(st.tuples(NAME, st.lists(CELL, min_size=0, max_size=3)), min_size=0, max_size=4)


@settings(max_examples=400, deadline=None, database=None)
@given(ROWS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_the_fast_way_reads_as_the_slow_one(tmp_path_factory, rows, end, last):
    """The fast and the slow reader return or refuse the same, for any file."""
    path = tmp_path_factory.getbasetemp() / "fast.csv"
    lines = [",".join([name, *cells]) for name, cells in [("index", ["a.wav", '"b, c.wav"']), *rows]]
    path.write_bytes((end.join(lines) + end * last).encode())

    def outcome():
        try:
            found = read_retrieval(path)
        except Faulty as faulty:
            return str(faulty)
        if isinstance(found, Ranking):
            return found
        return found.queries, found.file_names, found.scores.tolist()

    fast = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "read_regular_matrix", lambda path, separator: None)
        assert outcome() == fast


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20), st.integers(1, 40))
def test_numbers_read_as_python_reads_them(tmp_path_factory, numbers, digits):
    """All bits of the scores are equal, with any number of digits."""
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    for texts in (list(map(repr, numbers)), [f"{number:.{digits}e}" for number in numbers]):
        names = [f"{column}.wav" for column in range(len(texts))]
        path.write_text(f"index,{','.join(names)}\nq,{','.join(texts)}\n", encoding="utf-8")
        expected = np.array(list(map(float, texts)))
        if np.isfinite(expected).all():  # with few digits, the largest number may become infinite
            assert read_retrieval(path).scores.tobytes() == expected.tobytes()


def test_a_matrix_reads_fast(tmp_path):
    """Reading many scores takes at most 1.5 times as long as Python's `csv` and `float` alone."""
    scores = np.random.default_rng(0).normal(size=(600, 600))
    path = tmp_path / "it.csv"
    path.write_text(matrix_csv(scores, names=[f"{n}.wav" for n in range(600)]), encoding="utf-8")

    def plain():
        with path.open(encoding="utf-8", newline="") as file:
            return [[float(cell) for cell in cells[1:]] for cells in itertools.islice(csv.reader(file), 1, None)]

    best = {}
    for _ in range(3):
        for way in (plain, lambda: read_retrieval(path)):
            began = time.process_time()
            way()
            name = way.__name__
            best[name] = min(best.get(name, math.inf), time.process_time() - began)
    assert best["<lambda>"] < 1.5 * best["plain"]
    assert (read_retrieval(path).scores == scores).all()
