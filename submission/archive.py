"""Packages: opened without trust in what they hold, and packed so that the same files give the same bytes.

What a package may take of the machine is bounded, whoever made it: `ENTRIES` entries, `LIMIT` bytes a file, `TOTAL`
bytes in all, `DEPTH` folders one in the other. `zipfile` reads the zips; what it does not bound is bounded here. A zip
that other programs may unpack to other files is refused (`submission.zip_records`).
"""

import io
import os
import re
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path

from evaluation.files import replacing
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Finding
from evaluation.text import cut
from submission.outputs import LIMIT
from submission.zip_records import (
    DAMAGED,
    UTF_8,
    ZIP_AGAIN,
    Broken,
    check_list,
    entry_data,
    list_places,
    listed_name,
    unpacked,
)

ENTRIES = 1000
TOTAL = 2**29  # ten times what four systems of 1000 queries by 1000 clips have
DEPTH = 16
PART = 255  # bytes; what file systems take
DIRECTORY = 2**20  # bytes of a zip's list of entries; a thousand take a tenth of that

JUNK = {"__MACOSX": "macOS", "._*": "macOS", ".DS_Store": "macOS", "Thumbs.db": "Windows", "desktop.ini": "Windows"}
WINDOWS_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
WINDOWS_DEVICES |= {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
SPECIAL = {stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
SPECIAL |= {stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
LOOKS = {  # of what is no zip, by its first bytes
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"%PDF": "a PDF",
}
CLOSED = "cannot be read ({}); check its permissions"
UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Opened:
    """A package that can be read.

    Attributes:
        files: By its path inside the package, with "/" between folders, where each file can be read. The names on disk
            may differ, except for the suffix. Files with an error are left out, and so are those that macOS and Windows
            add.
        findings: The findings about the package itself. If an error names the package and no file in it, the package
            could not be read to its end, and files that are not in `files` may be in it.
    """

    files: Mapping[str, Path]
    findings: tuple[Finding, ...]


def junk_kind(name: str) -> str | None:
    """Return the key of `JUNK` that fits the name of a file or folder; None if macOS or Windows did not add it."""
    for kind in JUNK:
        if fnmatchcase(name.lower(), kind.lower()):
            return kind
    return None


def is_one(path: Path) -> bool:
    """Return whether a file is a zip or another archive, by its name or its content."""
    if path.suffix.lower() == ".zip":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8).startswith((b"PK\3\4", *LOOKS))


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a package, a folder or a zip, for as long as the block lasts.

    A folder is read in place; no link in it is followed and no file opened. A zip is unpacked into a private folder,
    under numbers with the names' suffixes; the folder is removed when the block ends, however it ends.

    Raises:
        BadRequest: There is no such file or folder.
    """
    if path.is_dir():
        yield _folder(path)
    elif path.is_file():
        with tempfile.TemporaryDirectory(prefix="submission-") as private:  # which only its owner may enter
            yield _zip(path, Path(private))
    else:
        found = "something else" if path.exists() else "nothing there"
        raise BadRequest(f"{path}: must be a package, a zip or a folder; found {found}")


def pack(folder_files: Mapping[str, Path], target: Path) -> None:
    """Write a zip, whole or not at all; the same names and contents give the same bytes.

    Args:
        folder_files: Where each file is, by its path inside the zip, with "/" between folders.
        target: The zip.
    """
    with replacing(target) as part, zipfile.ZipFile(part, "w") as out:
        for name in sorted(folder_files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            out.writestr(entry, folder_files[name].read_bytes(), zipfile.ZIP_DEFLATED, 6)


# Names ----------------------------------------------------------------------------------------------------------------


class _Package:
    """The state of reading a package: findings by their kind, names, junk, and how many bytes may still be read."""

    def __init__(self, path: Path):
        self.path, self.room = path, TOTAL
        self.findings: dict[str, list[Finding]] = {}
        self.junk: dict[str, list[str]] = {}
        self.is_file: dict[str, bool] = {}  # every name and every folder in one
        self.folded: dict[str, str] = {}  # the first of the names that some file systems take for one

    def find(self, kind: str, name: str, message: str, severity: str = ERROR) -> None:
        """Add a finding about an entry, or about the package if the name is empty; `kind` is a plural noun."""
        file = f"{self.path}/{cut(name)}" if name else str(self.path)
        self.findings.setdefault(kind, []).append(Finding(file, message=message, severity=severity))

    def result(self, files: Mapping[str, Path]) -> Opened:
        """Return what can be read, with all findings."""
        errors = [finding for finding in chain.from_iterable(self.findings.values()) if finding.severity == ERROR]
        if not files and not errors:
            self.find("packages", "", "must hold the files of a submission; found none: pack them again")
        for kind, names in self.junk.items():
            times = "once" if len(names) == 1 else f"{len(names)} times"
            message = f"{kind} is there {times}, first {cut(names[0])!r}; {JUNK[kind]} adds it, and it is not looked at"
            message += ": take it out before you hand in"
            self.find(f"{kind} files", "", message, NOTE)
        findings = tuple(chain.from_iterable(self.findings.values()))
        return Opened({name: files[name] for name in sorted(files)}, findings)

    def admits(self, raw: bytes, mode: int, folder: bool, marked: bool = True) -> str | None:
        """Return the name of an entry if it may be read; None if it may not, after a finding.

        Args:
            raw: The bytes of the name.
            mode: The file's mode, as `stat` has it; 0 if it is not known.
            folder: Whether the entry is a folder.
            marked: Whether the zip marks the name as UTF-8.
        """
        try:
            name = raw.decode()
        except UnicodeDecodeError as failure:
            message = f"must have a name in UTF-8; byte 0x{raw[failure.start]:02X} is not: rename it in plain ASCII"
            return self.find("names that are not UTF-8", raw.decode("utf-8", "backslashreplace"), message)
        parts = name.split("/")
        fault = _name_fault(name, parts)
        if fault:
            return self.find("such names", name or "/", fault)
        for junk in filter(None, map(junk_kind, parts)):
            self.junk.setdefault(junk, []).append(name)
            return None
        if not self._distinct(name, parts, folder):
            return None
        if not marked and not name.isascii():
            other = cut(raw.decode("cp437"))
            message = f"has a name in UTF-8 that is not marked as such, which other programs read as {other!r}"
            self.find("names that are not marked as UTF-8", name, f"{message}: rename it in plain ASCII", WARNING)
        special = SPECIAL.get(stat.S_IFMT(mode))
        if stat.S_ISDIR(mode) and not folder:
            special = "folder"
        if special:
            return self.find(f"{special}s", name, f"must be a plain file; found a {special}: put the file in its place")
        if name.lower().endswith(".zip") and not folder:
            return self.find("zips", name, "must not be a zip in the package: put the files that it holds in its place")
        return name

    def _distinct(self, name: str, parts: list[str], folder: bool) -> bool:
        """Return whether a name is not there yet, and add it with the folders in it."""
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            is_file = depth == len(parts) and not folder
            if prefix not in self.is_file:
                self.is_file[prefix] = is_file
                first = self.folded.setdefault(unicodedata.normalize("NFC", prefix).casefold(), prefix)
                if first != prefix:
                    message = f"is the same name as {cut(first)!r} to Windows and macOS, which keep one; rename one"
                    self.find("names that are the same to some systems", prefix, message)
            elif self.is_file[prefix] != is_file:
                self.find("names of a file and a folder", prefix, "is both a file and a folder; rename one")
                return False
            elif is_file:
                self.find("names that are there twice", name, "is in the zip twice; keep one")
                return False
        return True

    def takes(self, name: str, size: int) -> bool:
        """Return whether a file of this size may be read."""
        if size > LIMIT:
            message = f"must not be larger than {LIMIT} bytes; found {size}: does it belong to a submission?"
            self.find("files that are too large", name, message)
            return False
        self.room -= size
        if self.room < 0 and self.room + size >= 0:
            message = f"must not hold more than {TOTAL} bytes in all; {cut(name)!r} and what comes after is left out"
            self.find("packages", "", message)
        return self.room >= 0


def _name_fault(name: str, parts: list[str]) -> str | None:
    """Return what is wrong with a name; None if nothing is. The first three lead out of the package on some systems."""
    if "\\" in name:
        return r"must have / between folders and no \ in its name: zip it with another program, or rename it"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return f"must have a name that begins in the package, as FOLDER/LABEL/FILE; this begins elsewhere: {ZIP_AGAIN}"
    dots = {"..", ".", ""}.intersection(parts)
    if dots:
        return f"must have names between slashes, none of them empty, '.' or '..'; found {max(dots)!r}: {ZIP_AGAIN}"
    for character in name:
        if not character.isprintable():
            return f"must have printable characters only in its name; found {character!a}: rename it"
    for fault in filter(None, map(_windows_fault, parts)):
        return f"{fault}: rename it"
    if len(parts) > DEPTH:
        return f"must be at most {DEPTH} folders deep; found {len(parts)}: hand in the folder of the submission only"
    longest = max(len(part.encode()) for part in parts)
    if longest > PART:
        return f"must have at most {PART} bytes in a name between slashes; found {longest}: shorten it"
    return None


def _windows_fault(part: str) -> str | None:
    """Return why Windows would unpack a file or folder under another name, or not at all; None if it would not."""
    if part.partition(".")[0].rstrip(" ").upper() in WINDOWS_DEVICES:
        return f"must not be named as a device of Windows; found {cut(part)!r}"
    if part.endswith((".", " ")):
        return f"must not end with a dot or blank, which Windows leaves out; found {cut(part)!r}"
    signs = re.search('[<>:"|?*]', part)
    if signs:
        return f"must hold no sign that Windows does not allow in names; found {signs[0]!r}"
    return None


# Folders and zips -----------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Opened:
    package = _Package(path)
    files: dict[str, Path] = {}
    folders, count = [""], 0
    while folders:
        inside = folders.pop()
        try:
            with os.scandir(path / inside) as listing:  # no more of it than is allowed: there may be millions
                some = islice(listing, ENTRIES + 1 - count)
                entries = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in some)
        except OSError as failure:
            package.find("folders that cannot be read", inside, CLOSED.format(failure.strerror))
            continue
        count += len(entries)
        if count > ENTRIES:
            package.find("packages", "", _too_many("more"))
            return package.result({})
        for last, about in entries:
            folder = stat.S_ISDIR(about.st_mode)
            name = package.admits(os.fsencode(inside + last), about.st_mode, folder)
            if name and folder:
                folders.append(f"{inside}{last}/")
            elif name and package.takes(name, about.st_size):
                files[name] = path / inside / last
                if not os.access(files[name], os.R_OK):
                    package.find("files that cannot be read", name, CLOSED.format("no permission"))
                    del files[name]
    return package.result(files)


def _too_many(found: str) -> str:
    return f"must hold at most {ENTRIES} files and folders; found {found}: hand in the files of the submission only"


class _Source(io.BufferedReader):
    """A zip's bytes; `zipfile` reads the list of entries at once, however long it says it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY:
            raise Broken(_too_many(f"a list of {size} bytes"))
        return super().read(size)


def _zip(path: Path, private: Path) -> Opened:
    package = _Package(path)
    files: dict[str, Path] = {}
    try:
        with _listed(path, package) as (archive, places):
            entries = archive.infolist()
            by_place = sorted(entries, key=lambda info: info.header_offset)
            following = [*(info.header_offset for info in by_place[1:]), archive.start_dir]
            ends = dict(zip(by_place, following, strict=False))
            for number, (info, place) in enumerate(zip(entries, places, strict=False)):
                raw = listed_name(info)
                folder = raw.endswith(b"/")
                name = package.admits(raw.removesuffix(b"/"), _mode(info), folder, bool(info.flag_bits & UTF_8))
                if not name or (not folder and not package.takes(name, info.file_size)):
                    continue
                try:
                    start = entry_data(archive.fp, info, place, ends[info])
                    if not folder:
                        suffix = re.search(r"\.[a-z0-9]{1,8}$", name.lower())  # readers go by it
                        target = private / f"{number}{suffix[0] if suffix else ''}"
                        with target.open("xb") as out:
                            out.writelines(unpacked(archive.fp, info, start))
                        files[name] = target
                except Broken as fault:
                    package.find("such files", name, str(fault))
    except Broken as fault:
        package.find("packages", "", str(fault))
    return package.result(files)


@contextmanager
def _listed(path: Path, package: _Package) -> Iterator[tuple[zipfile.ZipFile, list[int]]]:
    """Open a zip that has one list of entries, and give it with the places of the list's records."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as failure:
        raise Broken(CLOSED.format(failure.strerror)) from failure
    with _Source(file) as source:
        size = source.seek(0, os.SEEK_END)
        if size > TOTAL:
            raise Broken(f"must be at most {TOTAL} bytes; found {size}: hand in the files of the submission only")
        try:
            archive = zipfile.ZipFile(source)
        except UNREADABLE as failure:
            source.seek(0)
            head = source.read(8)
            if head.startswith(b"PK"):
                raise Broken(DAMAGED) from failure
            looks = "is none" if head else "is an empty file"
            for mark, kind in LOOKS.items():
                if head.startswith(mark):
                    looks = f"looks like {kind}"
            raise Broken(f"must be a zip; this {looks}: pack the folder as a zip") from failure
        entries = archive.infolist()
        if len(entries) > ENTRIES:
            raise Broken(_too_many(str(len(entries))))
        first = min((info.header_offset for info in entries), default=0)
        if first < 0:
            raise Broken(DAMAGED)
        places = list_places(source, archive)
        check_list(source, archive, places[-1])
        source.seek(max(size - 22 - len(archive.comment), 0))  # where the last record is when nothing comes after
        if first or source.read(4) != b"PK\5\6":
            message = f"has other bytes before or after the zip, which some programs refuse: {ZIP_AGAIN}"
            package.find("packages with more in them", "", message, WARNING)
        yield archive, places


def _mode(info: zipfile.ZipInfo) -> int:
    """Return an entry's Unix mode; 0 where it has none."""
    return info.external_attr >> 16
