"""Packages are opened and packed: their files, the messages about faults, and the limits of time and memory."""

import bz2
import gzip
import io
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.findings import ERROR, NOTE, WARNING, BadRequest
from submission import archive
from submission.archive import opened, pack

FOLDER = "task6/X_Y_task6a_1"
FILES = {
    f"{FOLDER}/X_Y_task6a_1.csv": b"file_name,caption_predicted\nrain.wav,Rain falls.\n" * 40,
    f"{FOLDER}/X_Y_task6a_1.yaml": b"submission:\n  label: X_Y_task6a_1\n",
    "task6/X_Y_task6a.pdf": b"%PDF-1.5\n" + bytes(range(256)),
}
ZIP_AGAIN = "zip the folder again"
SAME_VALUE, IN_BOTH = "must have the same", "in the zip's list and in its own header"


@pytest.fixture(autouse=True)
def private(tmp_path_factory, monkeypatch):
    """The folder in which private folders are made; it must be empty after the test."""
    folder = tmp_path_factory.mktemp("private")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def made(entries, **options) -> bytes:
    """Return a zip of pairs of an entry (a name or a `ZipInfo`) and its content."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        warnings.simplefilter("ignore")  # about repeated names
        for name, content in entries:
            out.writestr(name, content, **options)
    return file.getvalue()


def entry(name: str, **attributes) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def special(name: str, kind: int) -> zipfile.ZipInfo:
    return entry(name, create_system=3, external_attr=(kind | 0o777) << 16)


VALID = made(FILES.items())


def look(path: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return the readable files and the findings, without the package's own name."""
    with opened(path) as package:
        contents = {name: where.read_bytes() for name, where in package.files.items()}
        return contents, [str(finding).removeprefix(str(path)) for finding in package.findings]


def states(folder: Path) -> list[tuple]:
    """Return the state of all files, which a check must not change. The time of the last access may change."""
    stats = sorted((str(path), path.lstat()) for path in folder.rglob("*"))
    return [(path, about.st_mode, about.st_size, about.st_mtime_ns, about.st_ctime_ns) for path, about in stats]


def zipped(content: bytes, folder: Path) -> tuple[dict[str, bytes], list[str]]:
    path = folder / "package.zip"
    path.write_bytes(content)
    return look(path)


# ------------------------------------------------------------------------------------------------ round trips


def write(files: dict[str, bytes], folder: Path) -> dict[str, Path]:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}


def test_what_is_packed_opens_as_it_was(tmp_path, private):
    files = {**FILES, "task6/Škoda.pdf": b"%PDF", "task6/empty": b"", "task6/large": os.urandom(2**21) + bytes(2**22)}
    paths = write(files, tmp_path / "in")
    pack(paths, tmp_path / "out" / "package.zip")
    assert look(tmp_path / "out" / "package.zip") == (files, [])
    assert look(tmp_path / "in") == (files, [])
    with zipfile.ZipFile(tmp_path / "out" / "package.zip") as package:
        assert package.testzip() is None
        assert package.namelist() == sorted(files)
    with opened(tmp_path / "out" / "package.zip") as package:
        (folder,) = private.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {path.parent for path in package.files.values()} == {folder}
        numbers = ["0.pdf", "1.csv", "2.yaml", "3", "4", "5.pdf"]  # in the order of the zip, which is that of the names
        assert sorted(path.name for path in package.files.values()) == numbers
        assert list(package.files) == sorted(files)


def test_the_suffix_is_kept_where_it_may_be_one(tmp_path):
    names = ["a.CSV", "b.tar.gz", "c", "d.é", "e.c_v", "f.suffixes", "g.suffixes9", ".yaml", "i.x y"]
    (tmp_path / "package.zip").write_bytes(made((name, b"") for name in names))
    with opened(tmp_path / "package.zip") as package:
        found = {name: package.files[name].name for name in names}
    kept = ["0.csv", "1.gz", "2", "3", "4", "5.suffixes", "6", "7.yaml", "8"]
    assert found == dict(zip(names, kept, strict=True))


def test_the_same_files_give_the_same_bytes(tmp_path, monkeypatch):
    pack(write(FILES, tmp_path / "a"), tmp_path / "a.zip")
    monkeypatch.chdir(tmp_path / "a")
    before = os.umask(0o077)
    try:
        paths = write(FILES, tmp_path / "b")
        for number, path in enumerate(paths.values()):
            os.utime(path, (10**9 + number, 10**9 + number))
            path.chmod(0o700)
        pack({name: paths[name] for name in reversed(paths)}, Path("b.zip"))
    finally:
        os.umask(before)
    content = Path("b.zip").read_bytes()
    assert content == (tmp_path / "a.zip").read_bytes()
    with zipfile.ZipFile("b.zip") as package:
        for info in package.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert (info.create_system, info.external_attr >> 16) == (3, stat.S_IFREG | 0o644)
    assert [path.name for path in Path().iterdir() if path.name.endswith(".part")] == []


def test_a_pack_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "package.zip").write_bytes(b"before")
    with pytest.raises(FileNotFoundError):
        pack({**write(FILES, tmp_path / "in"), "z": tmp_path / "nothing"}, tmp_path / "package.zip")
    assert (tmp_path / "package.zip").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "package.zip"]


def streamed(files: dict[str, bytes]) -> bytes:
    """Return a zip with data descriptors, as programs write it to a pipe."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    file = Pipe()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            with out.open(entry(name), "w") as member:
                member.write(content)
    return file.getvalue()


def zip64(files: dict[str, bytes]) -> bytes:
    """Return a zip with all possible 64-bit records."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            with out.open(entry(name), "w", force_zip64=True) as member:
                member.write(content)
    content = file.getvalue()
    sig, *_, count, length, offset, _ = struct.unpack("<4s4H2LH", content[-22:])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22, 1)
    end = struct.pack("<4s4H2LH", sig, 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    return content[:-22] + record + locator + end


def field(content: bytes, name: str, where: int, value: bytes) -> bytes:
    """Change a field in an entry's record in the list, `where` bytes from the start of the record."""
    at = content.rindex(name.encode()) - 46 + where
    assert content[at - where :].startswith(b"PK\1\2")
    return content[:at] + value + content[at + len(value) :]


def wide(files: dict[str, bytes]) -> bytes:
    """Return a zip whose sizes and positions are in the 64-bit fields."""
    entries, offset = [], 0
    for name, content in files.items():
        extra = struct.pack("<2H3Q", 1, 24, len(content), len(content), offset)
        entries.append((entry(name, compress_type=zipfile.ZIP_STORED, extra=extra), content))
        offset += 30 + len(name) + len(extra) + len(content)
    content = made(entries)
    for name in files:
        content = field(field(content, name, 20, b"\xff" * 8), name, 42, b"\xff" * 4)
    return content


FINE = {
    "deflated": VALID,
    "stored": made(FILES.items(), compress_type=zipfile.ZIP_STORED),
    "data descriptors": streamed(FILES),
    "zip64": zip64(FILES),
    "zip64 numbers": wide(FILES),
    "folders": made([("task6/", b""), (f"{FOLDER}/", b""), *FILES.items(), ("empty/", b"")]),
    "folders with Unix's mode": made([(special("task6/", stat.S_IFDIR), b""), *FILES.items()]),
    "a comment": VALID[:-2] + b"\7\0comment",
}


@pytest.mark.parametrize("content", FINE.values(), ids=FINE)
def test_nothing_is_found_in_what_programs_write(content, tmp_path):
    assert zipped(content, tmp_path) == (FILES, [])


# ------------------------------------------------------------------------------------------------ single faults


def adding(*entries) -> bytes:
    return made([*FILES.items(), *entries])


def patched(old: bytes, new: bytes, content: bytes = VALID, times: int = 1) -> bytes:
    assert content.count(old) == times, content.count(old)
    assert len(old) == len(new)
    return content.replace(old, new)


def overlapping() -> bytes:
    """Return a zip in which two entries share their bytes, as in bombs that unpack to a thousand times their size."""
    content = adding(("task6/x", b"123"), ("task6/x", b"123"))
    where = struct.pack("<L", content.index(b"PK\3\4" + content[content.index(b"task6/x") - 26 :][:22]))
    at = content.rindex(b"task6/x") - 46 + 42
    return content[:at] + where + content[at + 4 :]


def at_the_same_place() -> bytes:
    """Return a zip with an entry inside another: the content of one is the header and the content of the other."""
    inner = made([("b", b"123")])
    inner = inner[: inner.index(b"PK\1\2")]
    content = adding((entry("task6/a", compress_type=zipfile.ZIP_STORED), inner), ("b", b"123"))
    where = struct.pack("<L", content.index(inner))
    return field(content, "b", 42, where)


TEXT = "task6/X_Y_task6a.pdf"
SLASHED = "must not have an empty name, '.' or '..' between slashes; found"
LEAVES = f"{SLASHED} '..': {ZIP_AGAIN}"
BEGINS = f"must have a name inside the package, such as FOLDER/LABEL/FILE; found an absolute path: {ZIP_AGAIN}"
SLASHES = r"must have / between folders and no \ in its name: zip it with another program, or rename it"
DAMAGED = f"is damaged: copy the zip again, or {ZIP_AGAIN}"
GO_BY = f"which some programs use: {ZIP_AGAIN}"
UNLISTED = f"must be followed by the next entry of the zip's list; found an entry outside the list, {GO_BY}"
SHARES = f"must not overlap what comes next in the zip; it does: copy the zip again, or {ZIP_AGAIN}"
PLAIN = "must be stored or deflated, as in most zips; found"
DEFAULT = "zip it with default settings"
MEMBER = {
    "climbs": (adding(("../x", b"1")), "/../x: error: " + LEAVES),
    "climbs out of a folder": (adding(("task6/../../x", b"1")), "/task6/../../x: error: " + LEAVES),
    "climbs as a folder": (adding(("task6/../..", b"1")), "/task6/../..: error: " + LEAVES),
    "climbs as junk": (adding(("__MACOSX/../../x", b"1")), "/__MACOSX/../../x: error: " + LEAVES),
    "absolute": (adding(("/home/x", b"1")), "//home/x: error: " + BEGINS),
    "a drive": (adding(("C:/x", b"1")), "/C:/x: error: " + BEGINS),
    "a drive's folder": (adding(("c:x", b"1")), "/c:x: error: " + BEGINS),
    "backslashes": (adding(("task6\\x", b"1")), "/task6\\x: error: " + SLASHES),
    "climbs for Windows": (adding(("..\\x", b"1")), "/..\\x: error: " + SLASHES),
    "a device of Windows": (
        adding(("task6/nul.csv", b"1")),
        "/task6/nul.csv: error: must not have the name of a Windows device; found 'nul.csv': rename it",
    ),
    "a folder named as a device": (
        adding(("COM¹/x", b"1")),
        "/COM¹/x: error: must not have the name of a Windows device; found 'COM¹': rename it",
    ),
    "a device and a blank": (
        adding(("task6/aux .txt", b"1")),
        "/task6/aux .txt: error: must not have the name of a Windows device; found 'aux .txt': rename it",
    ),
    "a dot at its end": (
        adding((f"{TEXT}.", b"1")),
        f"/{TEXT}.: error: must not end with a dot or a blank, which Windows removes; found '{TEXT[6:]}.': rename it",
    ),
    "a blank at a folder's end": (
        adding(("task6 /x", b"1")),
        "/task6 /x: error: must not end with a dot or a blank, which Windows removes; found 'task6 ': rename it",
    ),
    "a stream of a file": (
        adding((f"{TEXT}:x", b"1")),
        f"/{TEXT}:x: error: must not have a character that Windows forbids in names; found ':': rename it",
    ),
    "a wildcard": (
        adding(("task6/*.csv", b"1")),
        "/task6/*.csv: error: must not have a character that Windows forbids in names; found '*': rename it",
    ),
    "a dot": (
        adding(("./x", b"1")),
        f"/./x: error: {SLASHED} '.': {ZIP_AGAIN}",
    ),
    "two slashes": (
        adding(("task6//x", b"1")),
        f"/task6//x: error: {SLASHED} '': {ZIP_AGAIN}",
    ),
    "a line feed": (
        adding(("task6/a\nb", b"1")),
        r"/task6/a\nb: error: must have only printable characters in its name; found '\n': rename it",
    ),
    "an escape": (
        adding(("task6/\x1b[2J", b"1")),
        r"/task6/\x1b[2J: error: must have only printable characters in its name; found '\x1b': rename it",
    ),
    "letters turned": (
        adding(("task6/a\u202egpj.exe", b"1")),
        r"/task6/a\u202egpj.exe: error: must have only printable characters in its name; found '\u202e': rename it",
    ),
    "NUL": (
        patched(b"task6/a_b", b"task6/a\0b", adding(("task6/a_b", b"1")), 2),
        r"/task6/a\x00b: error: must have only printable characters in its name; found '\x00': rename it",
    ),
    "Latin-1": (
        patched(b"task6/a_b", b"task6/a\xe9b", adding(("task6/a_b", b"1")), 2),
        r"/task6/a\xe9b: error: must have a name in UTF-8; byte 0xE9 is not: rename it in plain ASCII",
    ),
    "a long name": (
        adding(("task6/" + "é" * 128, b"1")),
        f"/task6/{'é' * 128}: error: must have at most 255 bytes in a name between slashes; found 256: shorten it",
    ),
    "a very long name": (
        adding(("x" * 65000, b"1")),
        f"/{'x' * 200}…: error: must have at most 255 bytes in a name between slashes; found 65000: shorten it",
    ),
    "very deep": (
        adding(("a/" * 30000 + "x", b"1")),
        f"/{'a/' * 100}…: error: must be at most 16 folders deep; found 30001: submit only the folder of the "
        "submission",
    ),
    "a link": (
        adding((special("task6/x", stat.S_IFLNK), b"/etc/passwd")),
        "/task6/x: error: must be a regular file; found a link: replace it by the file",
    ),
    "a link to a folder": (
        adding((special("task6/x/", stat.S_IFLNK), b"")),
        "/task6/x: error: must be a regular file; found a link: replace it by the file",
    ),
    "a pipe": (
        adding((special("task6/x", stat.S_IFIFO), b"")),
        "/task6/x: error: must be a regular file; found a pipe: replace it by the file",
    ),
    "a device": (
        adding((special("task6/x", stat.S_IFBLK), b"")),
        "/task6/x: error: must be a regular file; found a device: replace it by the file",
    ),
    "encrypted": (
        field(adding(("task6/x", b"1")), "task6/x", 8, b"\1"),
        "/task6/x: error: must not be encrypted: zip it without a password",
    ),
    "strongly encrypted": (
        field(adding(("task6/x", b"1")), "task6/x", 8, b"\x41"),
        "/task6/x: error: must not be encrypted: zip it without a password",
    ),
    "LZMA": (
        adding((entry("task6/x", compress_type=zipfile.ZIP_LZMA), b"1")),
        f"/task6/x: error: {PLAIN} method 14: {DEFAULT}",
    ),
    "bzip2": (
        adding((entry("task6/x", compress_type=zipfile.ZIP_BZIP2), b"1")),
        f"/task6/x: error: {PLAIN} method 12: {DEFAULT}",
    ),
    "another method": (
        field(adding(("task6/x", b"1")), "task6/x", 10, b"\x63"),
        f"/task6/x: error: {SAME_VALUE} method {IN_BOTH}; found 99 in the list and 8 in the header, {GO_BY}",
    ),
    "a patch": (
        field(adding(("task6/x", b"1")), "task6/x", 8, b"\x20"),
        f"/task6/x: error: {DAMAGED}",
    ),
    "twice": (adding((TEXT, b"other")), f"/{TEXT}: error: must be in the zip once; found twice: keep one"),
    "a file and a folder": (
        adding((f"{TEXT}/x", b"1")),
        f"/{TEXT}: error: is both a file and a folder; rename one of them",
    ),
    "a folder and a file": (
        adding((FOLDER, b"1")),
        f"/{FOLDER}: error: is both a file and a folder; rename one of them",
    ),
    "a zip": (
        adding(("task6/More.ZIP", VALID)),
        "/task6/More.ZIP: error: must not be a zip inside the package; replace it by the files in it",
    ),
    "another checksum": (
        field(adding(("task6/x", b"1")), "task6/x", 16, b"abcd"),
        f"/task6/x: error: {SAME_VALUE} checksum {IN_BOTH}; found 1684234849 in the list and 2212294583 in the header, "
        f"{GO_BY}",
    ),
    "more than declared": (
        field(adding(("task6/x", bytes(10**6))), "task6/x", 24, struct.pack("<L", 100)),
        f"/task6/x: error: {SAME_VALUE} size {IN_BOTH}; found 100 in the list and 1000000 in the header, {GO_BY}",
    ),
    "less than declared": (
        field(adding(("task6/x", b"1")), "task6/x", 24, struct.pack("<L", 100)),
        f"/task6/x: error: {SAME_VALUE} size {IN_BOTH}; found 100 in the list and 1 in the header, {GO_BY}",
    ),
    "too large": (
        field(adding(("task6/x", b"1")), "task6/x", 24, struct.pack("<L", 2**27 + 1)),
        "/task6/x: error: must not be larger than 134217728 bytes; found 134217729 bytes: does it belong to a "
        "submission?",
    ),
    "bytes that are not deflated": (
        field(adding((entry("task6/x", compress_type=zipfile.ZIP_STORED), b"\xff" * 8)), "task6/x", 10, b"\x08"),
        f"/task6/x: error: {SAME_VALUE} method {IN_BOTH}; found 8 in the list and 0 in the header, {GO_BY}",
    ),
    "packed bytes that end early": (
        field(adding(("task6/x", b"123")), "task6/x", 20, b"\3\0\0\0"),
        f"/task6/x: error: {SAME_VALUE} packed size {IN_BOTH}; found 3 in the list and 5 in the header, {GO_BY}",
    ),
    "longer than the zip": (
        field(adding(("task6/x", b"1")), "task6/x", 20, b"\xff\xff\0\0"),
        f"/task6/x: error: {SHARES}",
    ),
    "named otherwise": (
        adding(("task6/x", b"1")).replace(b"task6/x", b"task6/y", 1),
        f"/task6/x: error: {SAME_VALUE} name {IN_BOTH}; found 'task6/y' in the header, {GO_BY}",
    ),
}


@pytest.mark.parametrize(("content", "message"), MEMBER.values(), ids=MEMBER)
def test_a_faulty_entry_is_found_and_left_out(content, message, tmp_path):
    files, findings = zipped(content, tmp_path)
    assert findings == [message]
    assert files == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package.zip"]


def test_neither_of_two_at_one_place_is_read(tmp_path):
    messages = [f"/task6/x: error: {SHARES}", "/task6/x: error: must be in the zip once; found twice: keep one"]
    files, findings = zipped(overlapping(), tmp_path)
    assert (files, sorted(findings)) == (FILES, sorted(messages))


FIRST, *_, LAST = FILES
MISPLACED = {
    "within another": (
        field(adding(("task6/x", b"1")), "task6/x", 42, b"\1\0\0\0"),
        [f"/{LAST}: error: {UNLISTED}", f"/{FIRST}: error: {SHARES}", f"/task6/x: error: {DAMAGED}"],
    ),
    "nowhere": (
        field(adding(("task6/x", b"1")), "task6/x", 42, b"\xff\xff\xff\x7f"),
        [f"/{LAST}: error: {UNLISTED}", f"/task6/x: error: {SHARES}"],
    ),
    "at an entry in another": (
        at_the_same_place(),
        ["/b: error: " + UNLISTED, f"/task6/a: error: {SHARES}"],
    ),
}


@pytest.mark.parametrize(("content", "messages"), MISPLACED.values(), ids=MISPLACED)
def test_one_at_the_wrong_place_is_found_with_what_lies_there(content, messages, tmp_path):
    files, findings = zipped(content, tmp_path)
    assert sorted(findings) == messages
    assert files.keys() == FILES.keys() - {message[1:].partition(":")[0] for message in messages}


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as out:
        out.addfile(tarfile.TarInfo("x"))
    return file.getvalue()


WHOLE = {
    "empty file": (b"", "must be a zip; found an empty file: pack the folder as a zip"),
    "text": (b"file_name\n", "must be a zip; found another kind of file: pack the folder as a zip"),
    "gzip": (gzip.compress(tar()), "must be a zip; found what looks like gzip: pack the folder as a zip"),
    "tar": (tar(), "must be a zip; found another kind of file: pack the folder as a zip"),
    "PDF": (b"%PDF-1.5\n", "must be a zip; found what looks like a PDF: pack the folder as a zip"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "must be a zip; found what looks like 7z: pack the folder as a zip"),
    "rar": (b"Rar!\x1a\x07\1\0", "must be a zip; found what looks like RAR: pack the folder as a zip"),
    "bzip2": (bz2.compress(tar()), "must be a zip; found what looks like bzip2: pack the folder as a zip"),
    "truncated": (VALID[:-30], DAMAGED),
    "its mark is the last": (VALID[:-30] + b"PK\5\6", DAMAGED),
    "begins late": (VALID[100:], DAMAGED),
    "list damaged": (patched(b"PK\1\2", b"PK\1\3", times=3), DAMAGED),
    "list longer than the file": (VALID[:-10] + struct.pack("<L", 10**6) + VALID[-6:], DAMAGED),
    "list with a version that is not yet": (field(VALID, TEXT, 6, b"\x40"), DAMAGED),
    "list with a name marked as UTF-8 that is not": (
        patched(b"task6/a_b", b"task6/\xff_b", field(adding(("task6/a_b", b"1")), "task6/a_b", 8, b"\0\x08"), 2),
        DAMAGED,
    ),
    "extra field that ends early": (
        made([*FILES.items(), (entry("x", extra=b"\1\0\x08\0" + bytes(8)), b"1")]).replace(
            b"\1\0\x08\0", b"\1\0\x09\0"
        ),
        DAMAGED,
    ),
    "zip64 record missing": (patched(b"PK\6\6", b"PK\6\5", zip64(FILES)), DAMAGED),
    "zip64 locator alone": (zip64(FILES)[-42:], DAMAGED),
    "no entry": (made([]), "must contain the files of a submission; found none: pack them again"),
    "folders only": (made([("task6/", b"")]), "must contain the files of a submission; found none: pack them again"),
    "too many": (
        made((f"{number}.csv", b"") for number in range(1001)),
        "must have at most 1000 files and folders; found 1001: submit only the files of the submission",
    ),
}


@pytest.mark.parametrize(("content", "message"), WHOLE.values(), ids=WHOLE)
def test_what_cannot_be_read_at_all_is_one_finding(content, message, tmp_path):
    assert zipped(content, tmp_path) == ({}, [f": error: {message}"])


MORE = f"has other bytes before or after the zip, and some programs refuse it; {ZIP_AGAIN}"
WARNED = {
    "leading": (b"#!/bin/sh\n" + VALID, ": warning: " + MORE),
    "trailing": (VALID + b"\n", ": warning: " + MORE),
    "not marked as UTF-8": (
        patched(b"task6/a_b", "task6/aé".encode(), adding(("task6/a_b", b"1")), 2),
        "/task6/aé: warning: has a UTF-8 name that the zip does not mark as UTF-8, so other programs read 'task6/a├⌐'; "
        "rename it in plain ASCII",
    ),
}


SAME = "on Windows and macOS; rename one of them"
ALIKE = {
    "case": (
        adding((f"{TEXT.upper()}", b"1")),
        [
            f"/TASK6: error: is the same name as 'task6' {SAME}",
            f"/{TEXT.upper()}: error: is the same name as '{TEXT}' {SAME}",
        ],
    ),
    "accents": (
        adding(("é.csv", b"1"), ("e\u0301.csv", b"1")),
        [f"/e\u0301.csv: error: is the same name as 'é.csv' {SAME}"],
    ),
    "letters that fold to two": (
        adding(("straße.csv", b"1"), ("STRASSE.csv", b"1")),
        [f"/STRASSE.csv: error: is the same name as 'straße.csv' {SAME}"],
    ),
}


@pytest.mark.parametrize(("content", "messages"), ALIKE.values(), ids=ALIKE)
def test_names_that_are_one_to_other_systems(content, messages, tmp_path):
    _, findings = zipped(content, tmp_path)
    assert findings == messages


@pytest.mark.parametrize(("content", "messages"), WARNED.values(), ids=WARNED)
def test_what_can_be_read_all_the_same_is_a_warning(content, messages, tmp_path):
    files, findings = zipped(content, tmp_path)
    assert findings == ([messages] if isinstance(messages, str) else messages)
    assert FILES.items() <= files.items()


ADDS = "adds and the check ignores; remove it before you submit"
JUNK = ["__MACOSX/", "__MACOSX/task6/._x.csv", "task6/._x.csv", "task6/.DS_Store", ".DS_Store", "Desktop.ini"]


def test_junk_is_noted_and_left_out(tmp_path):
    files, findings = zipped(adding(*((name, b"junk") for name in JUNK)), tmp_path)
    assert files == FILES
    assert findings == [
        f": note: contains __MACOSX (2 times, first '__MACOSX'), which macOS {ADDS}",
        f": note: contains ._* (1 time, first 'task6/._x.csv'), which macOS {ADDS}",
        f": note: contains .DS_Store (2 times, first 'task6/.DS_Store'), which macOS {ADDS}",
        f": note: contains desktop.ini (1 time, first 'Desktop.ini'), which Windows {ADDS}",
    ]


def test_all_faults_at_once_and_no_flood(tmp_path):
    content = adding(
        *((f"../{number}", b"") for number in range(300)),
        (special("task6/link", stat.S_IFLNK), b"/etc/passwd"),
        ("task6/more.zip", b""),
        ("._x", b""),
    )
    files, findings = zipped(content, tmp_path)
    assert files == FILES
    assert len(findings) == 300 + 3
    assert findings[300:] == [
        "/task6/link: error: must be a regular file; found a link: replace it by the file",
        "/task6/more.zip: error: must not be a zip inside the package; replace it by the files in it",
        f": note: contains ._* (1 time, first '._x'), which macOS {ADDS}",
    ]


# ------------------------------------------------------------------------------------------------ folders


def test_a_folder_is_read_in_place_and_no_link_followed(tmp_path):
    package = tmp_path / "package"
    write(FILES, package)
    (tmp_path / "secret").write_text("secret")
    (package / "link").symlink_to(tmp_path / "secret")
    (package / "loop").symlink_to(package)
    (package / "nowhere").symlink_to("nothing")
    os.mkfifo(package / "pipe")  # a check that opened it would wait for ever
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(package / "socket"))  # the system limits the length of these names
    write({".DS_Store": b"", "__MACOSX/x": b"", "task6/new\nline": b"", "task6/a\\b": b"", "more.zip": b""}, package)
    (package / os.fsdecode(b"latin\xe9")).write_text("")
    write({"/".join(["d"] * 20) + "/x": b""}, package)
    os.truncate(write({"task6/zeros": b""}, package)["task6/zeros"], 10**10)
    before = states(package)
    files, findings = look(package)
    assert states(package) == before
    assert files == FILES
    link = "error: must be a regular file; found a link: replace it by the file"
    odd = "error: must have only printable characters in its name; found"
    assert sorted(findings) == sorted(
        [
            f"/link: {link}",
            f"/loop: {link}",
            f"/nowhere: {link}",
            "/pipe: error: must be a regular file; found a pipe: replace it by the file",
            "/socket: error: must be a regular file; found a socket: replace it by the file",
            "/more.zip: error: must not be a zip inside the package; replace it by the files in it",
            rf"/task6/new\nline: {odd} '\n': rename it",
            "/task6/a\\b: error: " + SLASHES,
            r"/latin\xe9: error: must have a name in UTF-8; byte 0xE9 is not: rename it in plain ASCII",
            f"/{'/'.join(['d'] * 17)}: error: must be at most 16 folders deep; found 17: submit only the folder of "
            "the submission",
            "/task6/zeros: error: must not be larger than 134217728 bytes; found 10000000000 bytes: does it belong to "
            "a "
            "submission?",
            f": note: contains .DS_Store (1 time, first '.DS_Store'), which macOS {ADDS}",
            f": note: contains __MACOSX (1 time, first '__MACOSX'), which macOS {ADDS}",
        ]
    )


def test_a_folder_of_too_much(tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(1001):
        (tmp_path / "many" / str(number)).touch()
    message = ": error: must have at most 1000 files and folders; found more: submit only the files of the submission"
    assert look(tmp_path / "many") == ({}, [message])
    (tmp_path / "many" / "7").unlink()
    assert len(look(tmp_path / "many")[0]) == 1000
    (tmp_path / "large").mkdir()
    for number in range(10, 30):
        (tmp_path / "large" / str(number)).touch()
        os.truncate(tmp_path / "large" / str(number), 2**27)
    with opened(tmp_path / "large") as package:
        assert list(package.files) == [str(number) for number in range(10, 14)]
        (finding,) = package.findings
    assert (
        finding.message
        == "must not have more than 536870912 bytes in all; it does: '14' and the files after it were not checked"
    )
    (tmp_path / "none" / "task6").mkdir(parents=True)
    message = ": error: must contain the files of a submission; found none: pack them again"
    assert look(tmp_path / "none") == ({}, [message])


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """The refusals are simulated, because the tests may run as root, who can read every file."""
    write(FILES, tmp_path / "package")
    (tmp_path / "package.zip").write_bytes(VALID)
    access, scan = os.access, os.scandir

    def refusing(path):
        if Path(path).name == "X_Y_task6a_1":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "access", lambda path, *mode: not str(path).endswith("pdf") and access(path, *mode))
    monkeypatch.setattr(os, "scandir", refusing)
    files, findings = look(tmp_path / "package")
    assert files == {}
    assert findings == [
        f"/{TEXT}: error: cannot be read (no permission); check its permissions",
        f"/{FOLDER}/: error: cannot be read (Permission denied); check its permissions",
    ]
    monkeypatch.undo()

    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)
    with opened(tmp_path / "package.zip") as package:
        (finding,) = package.findings
    assert finding.message == "cannot be read (Permission denied); check its permissions"


def test_what_is_no_package_at_all(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    absent = "no such file or folder; give a package (a zip or a folder)"
    special = "must be a package (a zip or a folder); found a special file"
    for name, message in (("nothing", absent), ("pipe", special), ("a\0b", absent)):
        with pytest.raises(BadRequest) as refusal, opened(tmp_path / name):
            pass
        assert str(refusal.value) == f"{tmp_path / name}: {message}"


# ------------------------------------------------------------------------------------------------ the private folder


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError, SystemExit])
def test_the_private_folder_is_gone_however_it_ends(end, tmp_path, private, monkeypatch):
    (tmp_path / "package.zip").write_bytes(VALID)
    with pytest.raises(end), opened(tmp_path / "package.zip") as package:
        assert all(path.is_file() for path in package.files.values())
        raise end
    assert list(private.iterdir()) == []

    def interrupted(*_):
        assert list(private.rglob("*"))
        raise end

    monkeypatch.setattr(archive, "unpacked", interrupted)
    with pytest.raises(end), opened(tmp_path / "package.zip"):
        pass
    assert list(private.iterdir()) == []


# ------------------------------------------------------------------------------------------------ hostile zips


def deflated(size: int) -> bytes:
    """Return deflated zeros. A full flush resets the compressor, so that one packed MB can be repeated."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = machine.compress(bytes(2**20)) + machine.flush(zlib.Z_FULL_FLUSH)
    return once * (size // 2**20) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def raw(name: bytes, packed: bytes, size: int, offset: int, crc: int = 0) -> tuple[bytes, bytes]:
    """Return an entry and its record in the list, with any declared size."""
    about = struct.pack("<5H3L2H", 20, 0, 8, 0, 33, crc, len(packed), size, len(name), 0)
    record = b"PK\1\2\x14\3" + about + struct.pack("<3H2L", 0, 0, 0, 0, offset) + name
    return b"PK\3\4" + about + name + packed, record


def joined(entries: list[tuple[bytes, bytes, int]]) -> bytes:
    body, records = [], []
    offset = 0
    for name, packed, size in entries:
        local, record = raw(name, packed, size, offset)
        body.append(local)
        records.append(record)
        offset += len(local)
    return b"".join(body) + ended(b"".join(records), len(entries), offset)


def ended(records: bytes, count: int, offset: int) -> bytes:
    count = min(count, 0xFFFF)
    return records + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(records), offset, 0)


def ten_gb(declared: int) -> Callable[[], bytes]:
    return lambda: joined([(b"task6/zeros", deflated(10 * 2**30), declared)])


def many_zeros() -> bytes:
    """Return the largest allowed zip, whose entries must all be unpacked, and are all damaged."""
    packed = deflated(2**27)
    return joined([(b"task6/%d" % number, packed, 2**27 - 1) for number in range(20)])


def better_bomb() -> bytes:
    """Return a zip with a thousand entries that share their bytes, each with an allowed size."""
    packed = deflated(2**27)
    local, _ = raw(b"x", packed, 2**27, 0)
    return local + ended(raw(b"x", packed, 2**27, 0)[1] * 1000, 1000, len(local))


def million_entries() -> bytes:
    return ended(raw(b"x", b"", 0, 0)[1] * 1_000_000, 1_000_000, 0)


def million_entries_unsaid() -> bytes:
    return ended(raw(b"x", b"", 0, 0)[1] * 200_000, 3, 0)


def many_entries() -> bytes:
    return ended(raw(b"x", b"", 0, 0)[1] * 22_000, 22_000, 0)


def extra_fields() -> bytes:
    """Return a zip with a MB of empty extra fields."""
    record = bytearray(raw(b"x", b"", 0, 0)[1])
    record[30:32] = b"\xfc\xff"
    return ended((bytes(record) + bytes(0xFFFC)) * 15, 15, 0)


def long_names() -> bytes:
    return joined([(b"%03d/" % number + b"a/" * 30_000, b"", 0) for number in range(16)])


def nothing_at_all() -> bytes:
    """Return a zip with 100 MB of empty blocks."""
    return joined([(b"x", b"\0\0\0\xff\xff" * 20_000_000, 1)])


def marks() -> bytes:
    return b"PK\3\4" + b"PK\5\6" * 20_000_000


HOSTILE = {
    "10 GB of zeros, declared small": (ten_gb(10), DAMAGED),
    "10 GB of zeros, declared as allowed": (ten_gb(2**27), DAMAGED),
    "10 GB of zeros, declared": (ten_gb(2**32 - 2), "must not be larger than 134217728 bytes; found 4294967294"),
    "many zeros": (
        many_zeros,
        "must not have more than 300000000 bytes in all; it does: 'task6/2' and the files after it were not checked",
    ),
    "entries of the same bytes": (better_bomb, "must be in the zip once; found twice: keep one"),
    "a million entries": (million_entries, "must have at most 1000 files and folders; found a list of 47000000 bytes"),
    "a million entries unsaid": (million_entries_unsaid, "files and folders; found a list of 9400000 bytes"),
    "as many entries as a list may hold": (many_entries, "files and folders; found 22000"),
    "extra fields": (extra_fields, "must be in the zip once; found twice: keep one"),
    "long names": (long_names, "must be at most 16 folders deep; found 30001"),
    "blocks of nothing": (nothing_at_all, DAMAGED),
    "marks": (marks, DAMAGED),
}


def test_hostile_zips_are_found_fast_and_in_bounded_memory(tmp_path, private):
    """The check runs in a separate process, which can use 150 MB of memory and write 129 MB to a file."""
    for number, (make, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.zip").write_bytes(make())
    before = states(tmp_path)
    code = f"""
import json, resource, sys, time
from pathlib import Path
from submission import archive
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 150_000_000,) * 2)
resource.setrlimit(resource.RLIMIT_FSIZE, ({129 * 2**20},) * 2)
for number in range({len(HOSTILE)}):
    archive.TOTAL = 300_000_000 if {[*HOSTILE].index("many zeros")} == number else 2**31  # the full size takes 10 s
    start = time.perf_counter()
    with archive.opened(Path(f"{{number}}.zip")) as package:
        print(json.dumps([time.perf_counter() - start, *map(str, package.findings)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "OPENBLAS_NUM_THREADS": "1",
            "TMPDIR": str(private),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    for line, (_, message) in zip(done.stdout.splitlines(), HOSTILE.values(), strict=True):
        seconds, *findings = json.loads(line)
        assert seconds < 20
        assert 1 <= len(findings) <= archive.ENTRIES  # all findings are kept; a command prints twenty of a kind
        assert max(map(len, findings)) < 1000
        assert any(message in finding for finding in findings), findings[:3]
    assert states(tmp_path) == before


def test_a_zip_of_100_gb_is_not_read(tmp_path):
    (tmp_path / "package.zip").write_bytes(VALID)
    os.truncate(tmp_path / "package.zip", 10**11)
    message = "must have at most 536870912 bytes; found 100000000000: submit only the files of the submission"
    assert look(tmp_path / "package.zip") == ({}, [f": error: {message}"])


# ------------------------------------------------------------------------------------------------ random edits

SEEDS = [*FINE.values(), adding(("__MACOSX/x", b""), ("task6/é", b"1"), (special("task6/l", stat.S_IFLNK), b"/"))]
ORIGINALS = {**FILES, "task6/é": b"1", "task6/l": b"/"}
EDITS = st.tuples(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(
            st.one_of(st.floats(0, 1), st.floats(0.8, 1)),  # more edits at the end, where the list is
            st.integers(0, 8),
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from([b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"../", b"/", b"\\", b"\0"]),
                st.sampled_from([b"\xff" * 4, b"\xff" * 8, bytes(4), b"\1\0", b"C:"]),
            ),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EDITS)
def test_random_edits_of_a_zip_never_break_it(tmp_path, private, edits):
    """No edit leads to an exception, a changed file, a leftover file, or a file with other content."""
    content, changes = edits
    for where, cut, text, over in changes:
        at = int(where * len(content))
        content = content[:at] + text + content[at + (len(text) if over else cut) :]
    path = tmp_path / "package.zip"
    path.write_bytes(content)
    with opened(path) as package:
        files = {name: where.read_bytes() for name, where in package.files.items()}
        assert all(where.parent.parent == private for where in package.files.values())
        findings = package.findings
    assert all(str(finding).isprintable() for finding in findings)
    assert files or any(finding.severity == ERROR for finding in findings)
    assert all(finding.severity in (ERROR, WARNING, NOTE) for finding in findings)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    assert list(private.iterdir()) == []
    assert all(files[name] == original for name, original in ORIGINALS.items() if name in files)
