"""Files of embeddings and matrices: every form is read alike, and what cannot be read gets one clear line."""

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from evaluation.array_files import (
    AUDIO,
    MATRICES,
    TEXT,
    Given,
    is_other_matrix,
    read_embeddings,
    read_matrix,
    read_names,
)
from evaluation.data.dataset import Clip, Split
from evaluation.findings import BadRequest, Faulty
from evaluation.predictions import Similarity
from tests.evaluation.hostile_names import HOSTILE_NAMES

CLIPS = (" a, b.wav", "dog.wav", "rain &amp; wind.wav")
CAPTIONS = (("A dog barks.", "It barks, twice."), ("Rain.", "A dog barks."), ("Wind.", "Über den Wind."))
SPLIT = Split("evaluation", tuple(Clip(name, texts, Path(name)) for name, texts in zip(CLIPS, CAPTIONS, strict=True)))
TEXTS = tuple(SPLIT.captions)
ALL = SPLIT.all_captions
A = np.arange(1.0, 13).reshape(3, 4).astype(np.float32)
T = np.arange(20.0, 0, -1).reshape(5, 4).astype(np.float32)
T_ALL = T[[TEXTS.index(text) for text in ALL]]
IN_ORDER = Given(truth_order=True)


def read(audio, text, given=None):
    return read_embeddings(audio, text, SPLIT, SPLIT.truth, given=given or Given())


def messages(notes) -> list[str]:
    return [finding.message for finding in notes]


def refused(kind, read_file, *arguments) -> list[str]:
    with pytest.raises(kind) as error:
        read_file(*arguments)
    return str(error.value).splitlines()


def assert_whole(embeddings) -> None:
    assert (embeddings.file_names, embeddings.queries) == (CLIPS, TEXTS)
    assert (embeddings.clip_vectors.tolist(), embeddings.query_vectors.tolist()) == (A.tolist(), T.tolist())


# ------------------------------------------------------------------------------------------------ embeddings


def test_missing_names_of_both_files_are_reported_at_once(tmp_path):
    np.save(tmp_path / "audio.npy", A)
    np.save(tmp_path / "text.npy", T)
    with pytest.raises(Faulty) as refusal:
        read(tmp_path / "audio.npy", tmp_path / "text.npy")
    assert refusal.value.status == 2
    clips, texts = str(refusal.value).splitlines()
    assert clips.startswith(f"{tmp_path}/audio.npy: error: has no names for the clips; give --audio-names FILE")
    assert texts.startswith(f"{tmp_path}/text.npy: error: has no names for the texts; give --text-names FILE")


@pytest.mark.parametrize(
    ("audio_key", "audio_names"),
    [*((key, "file_names") for key in (*AUDIO.arrays, "z")), *(("embeddings", names) for names in AUDIO.names)],
)
def test_npz_with_any_usual_name_for_clips(audio_key, audio_names, tmp_path):
    np.savez(tmp_path / "a.npz", **{audio_key: A, audio_names: np.array(CLIPS), "epoch": 3})
    np.savez(tmp_path / "t.npz", embeddings=T, names=np.array(TEXTS))
    embeddings, notes = read(tmp_path / "a.npz", tmp_path / "t.npz")
    assert_whole(embeddings)
    assert notes == []


@pytest.mark.parametrize(
    ("key", "names"),
    [*((key, "captions") for key in TEXT.arrays), *(("text_embeddings", names) for names in TEXT.names)],
)
def test_one_npz_with_any_usual_name_for_texts(key, names, tmp_path):
    texts = np.frombuffer(json.dumps(TEXTS).encode(), np.uint8)
    arrays = {"audio_embeddings": A, "file_names": np.array([name.encode() for name in CLIPS]), key: T, names: texts}
    np.savez_compressed(tmp_path / "both.npz", **arrays)
    assert_whole(read(tmp_path / "both.npz", tmp_path / "both.npz")[0])


def test_npy_with_names_beside(tmp_path):
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "t.npy", np.asfortranarray(T.astype(np.float64)))
    (tmp_path / "a.txt").write_text("\n".join(CLIPS) + "\n", encoding="utf-8")
    with (tmp_path / "t.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["id", "caption"], *enumerate(TEXTS)])
    given = Given(tmp_path / "a.txt", tmp_path / "t.csv")
    embeddings, notes = read(tmp_path / "a.npy", tmp_path / "t.npy", given)
    assert_whole(embeddings)
    assert notes == []
    assert isinstance(embeddings.clip_vectors, np.memmap)


@pytest.mark.parametrize("texts", [T, T_ALL])
def test_order_of_the_truth(texts, tmp_path):
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "t.npy", texts)
    embeddings, notes = read(tmp_path / "a.npy", tmp_path / "t.npy", IN_ORDER)
    assert_whole(embeddings)
    what = "queries in the order of the truth"
    if len(texts) == len(ALL):
        what = "captions in the order of the truth: all captions of the first clip, then of the next"
    repeated = ["left out rows that repeat a text with the same embedding: 1"] * (len(texts) == len(ALL))
    expected = ["assumed that the clips are in the order of the truth", f"assumed that the texts are the {what}"]
    assert messages(notes) == expected + repeated


def test_names_are_verbatim(tmp_path):
    names = (" x.wav ", "\ty.wav", *(name for name in HOSTILE_NAMES if name.isprintable()))
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    assert read_names(tmp_path / "names.txt", AUDIO) == names
    (tmp_path / "names.txt").write_bytes("\r\n".join(names).encode())
    assert read_names(tmp_path / "names.txt", AUDIO) == names


def test_rows_repeated_with_equal_embeddings_are_one(tmp_path):
    """Some tools encode a clip once for each of its captions, which changes the last digits."""
    five = np.repeat(A, 5, axis=0) * np.float32(1 + 1e-6 * (np.arange(15)[:, None] % 5))
    np.savez(tmp_path / "a.npz", embeddings=five, names=np.repeat(CLIPS, 5))
    np.savez(tmp_path / "t.npz", embeddings=T, names=np.array(TEXTS))
    embeddings, notes = read(tmp_path / "a.npz", tmp_path / "t.npz")
    assert_whole(embeddings)
    assert messages(notes) == ["left out rows that repeat a clip with the same embedding: 12"]


NO_NAMES = "has no names for the clips; give --audio-names FILE (a clip on each line, or a CSV with the column file_nam"
PICKLED = "has Python objects, which are not loaded because they can run code; stack lists of vectors with np.stack, an"
TWO = "embeddings must be numbers in two dimensions, a row for each clip; found"
AUDIO_FILES = {  # the file with the clips' embeddings: its suffix, its array or arrays, and how the message begins
    "no names": (".npy", A, BadRequest, NO_NAMES),
    "no names in npz": (".npz", {"embeddings": A}, BadRequest, NO_NAMES),
    "objects": (".npy", np.array([A[0], None], object), Faulty, PICKLED),
    "dict": (".npy", np.array({"embeddings": A}, object), Faulty, PICKLED),
    "objects in npz": (".npz", {"embeddings": np.array([A, 1], object)}, Faulty, "the array 'embeddings' " + PICKLED),
    "names as objects": (
        ".npz",
        {"embeddings": A, "names": np.array(CLIPS, object)},
        Faulty,
        "the array 'names' " + PICKLED,
    ),
    "one dimension": (".npy", A[0], Faulty, f"{TWO} 4 of float32: save the array with np.save"),
    "one value": (".npy", np.float32(3), Faulty, f"{TWO} one value of float32"),
    "extra dimension": (".npy", A[:, None], Faulty, f"{TWO} 3 x 1 x 4 of float32: remove the dimension of length 1"),
    "frames": (".npy", np.ones((3, 9, 4)), Faulty, f"{TWO} 3 x 9 x 4 of float64: average over time"),
    "texts": (".npy", np.array([CLIPS]), Faulty, f"{TWO} 1 x 3 of <U19: save the array"),
    "complex": (".npy", A.astype(complex), Faulty, f"{TWO} 3 x 4 of complex128"),
    "other arrays": (
        ".npz",
        {"x": A, "y": A, "names": np.array(CLIPS)},
        Faulty,
        "must have an array 'audio_embeddings' with the embeddings; found x (3 x 4 float32), y (3 x 4 float32), names",
    ),
    "nothing": (".npz", {}, Faulty, "must have an array 'audio_embeddings' with the embeddings; found nothing: rename"),
    "no rows": (
        ".npz",
        {"embeddings": A[:0], "names": np.array([], dtype=str)},
        Faulty,
        "has no rows; give one for each clip",
    ),
    "too few names": (
        ".npz",
        {"embeddings": A, "names": np.array(CLIPS[:2])},
        Faulty,
        "must have a name for each of the 3 rows of",
    ),
    "different rows": (
        ".npz",
        {"embeddings": A, "names": np.array([CLIPS[0], CLIPS[1], CLIPS[0]])},
        Faulty,
        "clip ' a, b.wav' has different embeddings in rows 1 and 3; give each clip one row",
    ),
    "torch": (
        ".pt",
        b"PK",
        BadRequest,
        "must be .npy or .npz; write the embeddings with np.save('FILE.npy', tensor.cpu",
    ),
    "csv": (".csv", b"1,2", BadRequest, "must be .npy or .npz; write the embeddings with np.save"),
    "text as npy": (".npy", b"1 2 3", Faulty, "must be .npy as numpy writes it ("),
    "empty": (".npy", b"", Faulty, "must be .npy as numpy writes it ("),
    "text as npz": (".npz", b"1 2 3", Faulty, "must be .npz as numpy writes it (File is not a zip file)"),
    "pickle as npy": (".npy", pickle.dumps(A), Faulty, "must be .npy as numpy writes it ("),
}


@pytest.mark.parametrize("case", AUDIO_FILES)
def test_files_that_cannot_be_read(case, tmp_path):
    suffix, content, kind, message = AUDIO_FILES[case]
    path = tmp_path / f"a{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif suffix == ".npy":
        np.save(path, content)
    else:
        np.savez(path, **content)
    np.savez(tmp_path / "t.npz", embeddings=T, names=np.array(TEXTS))
    (line,) = refused(kind, read, path, tmp_path / "t.npz")
    assert line.removeprefix(f"{path}: ").removeprefix("error: ").startswith(message)


def test_a_truncated_file(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((1000, 4)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-100])
    line = refused(Faulty, read, tmp_path / "a.npy", tmp_path / "a.npy", IN_ORDER)[0]
    assert "must be .npy as numpy writes it (it ends too early); write the file again" in line


def test_files_that_do_not_exist(tmp_path):
    path = tmp_path / "no.npy"
    assert refused(BadRequest, read, path, path) == [f"{path}: no such file; give embeddings (.npy or .npz)"]
    assert refused(Faulty, read, tmp_path, path) == [
        f"{tmp_path}: error: is a folder; give embeddings (.npy or .npz)",
        f"{path}: error: no such file; give embeddings (.npy or .npz)",
    ]
    np.save(path, A)
    given = Given(tmp_path / "no.txt")
    no_clips, no_texts = refused(Faulty, read, path, path, given)
    assert no_clips == f"{path}: error: {tmp_path}/no.txt: no such file; give a file with a clip on each line"
    assert no_texts.startswith(f"{path}: error: has no names for the texts; give --text-names FILE")
    no_clips, _ = refused(Faulty, read, path, path, Given(tmp_path))
    assert no_clips == f"{path}: error: {tmp_path}: is a folder; give a file with a clip on each line"


def test_widths_that_differ(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=A, names=np.array(CLIPS))
    np.savez(tmp_path / "t.npz", embeddings=T[:, :3], names=np.array(TEXTS))
    (line,) = refused(Faulty, read, tmp_path / "a.npz", tmp_path / "t.npz")
    assert line == (
        f"{tmp_path}/t.npz: error: must have as many columns as the embeddings of the clips in {tmp_path}/a.npz, 4; "
        "found 3; give the outputs of both encoders after their projections into the shared space"
    )


def test_another_number_of_rows_than_the_truth(tmp_path):
    np.save(tmp_path / "a.npy", T)
    np.save(tmp_path / "t.npy", A)
    assert refused(Faulty, read, tmp_path / "a.npy", tmp_path / "t.npy", IN_ORDER) == [
        f"{tmp_path}/a.npy: error: must have a row for each of the 3 clips of the split, in their order; found 5 rows: "
        "give --audio-names FILE",
        f"{tmp_path}/t.npy: error: must have a row for each of the 6 captions of the split or the 5 queries of the "
        "truth, in their order; found 3 rows: give --text-names FILE",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "n.txt",
            b"\xff\xfe",
            "must be UTF-8 text with a clip on each line (invalid start byte at byte 0): save it as",
        ),
        ("n.csv", b"x,y\n1,2\n", "must have one column 'file_name' with the clips; found 'x', 'y': rename the column"),
        ("n.csv", b"files,file_name\n1,2\n", "must have one column 'file_name' with the clips; found 'files', 'file_"),
        ("n.csv", b"", "must have one column 'file_name' with the clips; found nothing"),
        ("n.csv", b"id,file_name\n1,a,b.wav\n", "must have 2 cells, as the header; found 3: quote a cell with a comma"),
        ("n.csv", b'file_name\n"a\n', "is not valid CSV"),
    ],
)
def test_names_that_cannot_be_read(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    (line,) = refused(Faulty, read_names, tmp_path / name, AUDIO)
    assert message in line


def test_large_arrays_in_npz_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.array_files.LARGEST", 40)
    np.savez_compressed(tmp_path / "a.npz", embeddings=A, names=np.array(CLIPS))
    line = refused(Faulty, read, tmp_path / "a.npz", tmp_path / "a.npz")[0]
    assert (
        "'embeddings' must not take more than 40 bytes in an .npz; found 3 x 4 float32: write it with np.save" in line
    )


# ------------------------------------------------------------------------------------------------ matrices

SCORES = T @ A.T  # (texts, clips)


@pytest.mark.parametrize("key", MATRICES)
@pytest.mark.parametrize("turned", [False, True])
def test_matrix_in_npz(key, turned, tmp_path):
    scores = SCORES.T if turned else SCORES
    path = tmp_path / "m.npz"
    np.savez(path, **{key: scores, "captions": np.array(TEXTS), "file_names": np.array(CLIPS)})
    assert is_other_matrix(path)
    matrix, notes = read_matrix(path, SPLIT, SPLIT.truth)
    assert (matrix.queries, matrix.file_names, matrix.scores.tolist()) == (TEXTS, CLIPS, SCORES.tolist())
    assert messages(notes) == ["its rows are the clips, and its columns the texts"] * turned


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_matrix_in_the_order_of_the_truth(turned, repeated, tmp_path):
    scores = T_ALL @ A.T if repeated else SCORES
    np.save(tmp_path / "m.npy", scores.T if turned else scores)
    matrix, notes = read_matrix(tmp_path / "m.npy", SPLIT, SPLIT.truth, IN_ORDER)
    assert (matrix.queries, matrix.file_names, matrix.scores.tolist()) == (TEXTS, CLIPS, SCORES.tolist())
    assert len(notes) == 2 + turned + repeated


def test_a_square_matrix_says_what_was_assumed(tmp_path):
    np.savez(tmp_path / "m.npz", scores=np.eye(3, dtype=int), captions=np.array(TEXTS[:3]), file_names=np.array(CLIPS))
    matrix, notes = read_matrix(tmp_path / "m.npz", SPLIT, SPLIT.truth)
    assert messages(notes) == ["is 3 x 3: assumed that its rows are the texts, and its columns the clips"]
    assert matrix.scores.dtype == np.float64


def test_matrices_that_do_not_fit_their_names(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, scores=SCORES[:, :2], captions=np.array(TEXTS), file_names=np.array(CLIPS))
    (line,) = refused(Faulty, read_matrix, path, SPLIT, SPLIT.truth)
    assert line == (
        f"{path}: error: must be 5 x 3 (texts by clips) or 3 x 5 (clips by texts), as there are names; found 5 x 2: "
        "give a name for each row"
    )
    np.savez(path, scores=SCORES, captions=np.array(["x", *TEXTS[:3], "x"]), file_names=np.array(CLIPS))
    (line,) = refused(Faulty, read_matrix, path, SPLIT, SPLIT.truth)
    assert line == f"{path}: error: text 'x' has rows with different scores; give each text one row"


def test_the_kits_own_files_are_not_other_matrices(tmp_path):
    Similarity(TEXTS, CLIPS, SCORES).save(tmp_path / "own.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    np.savez(tmp_path / "scores.npz", scores=SCORES, queries=TEXTS)
    for name in ("own.npz", "broken.npz", "scores.npz", "no.npz"):
        assert not is_other_matrix(tmp_path / name)
    np.savez(tmp_path / "matrix.npz", scores=SCORES)  # a matrix whose names are in other files
    assert is_other_matrix(tmp_path / "matrix.npz")
