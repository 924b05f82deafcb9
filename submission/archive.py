"""Opening of packages, which may be hostile, and packing, which always gives the same bytes for the same files.

A package may have at most `ENTRIES` files and folders, `LIMIT` bytes in each file, `TOTAL` bytes in all, and `DEPTH`
nested folders. `zipfile` reads the zips; this module adds these limits, which `zipfile` does not have.
`submission.zip_records` refuses a zip from which other programs may unpack other files.
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
from typing import BinaryIO

from evaluation.files import replacing
from evaluation.findings import ERROR, NOTE, WARNING, BadRequest, Finding
from evaluation.text import cut, plural
from submission.outputs.form import LIMIT
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

ENTRIES = 1000  # maximum number of files and folders
TOTAL = 2**29  # maximum number of bytes; four systems of 1000 queries by 1000 clips need a tenth of it
DEPTH = 16  # maximum number of nested folders
PART = 255  # maximum number of bytes of a name, as in common file systems
DIRECTORY = 2**20  # maximum number of bytes of a zip's list of entries; a thousand entries need a tenth of it

JUNK = {"__MACOSX": "macOS", "._*": "macOS", ".DS_Store": "macOS", "Thumbs.db": "Windows", "desktop.ini": "Windows"}
WINDOWS_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
WINDOWS_DEVICES |= {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
SPECIAL = {stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
SPECIAL |= {stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
LOOKS = {  # other kinds of files; the keys are their first bytes
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
    """An open package.

    Attributes:
        files: A dict from the path of each file inside the package (with "/" between folders) to a path where the file
            can be read. The file names of the two paths may differ, except for the suffix. Most files with an error are
            left out, and so are the files that macOS and Windows add.
        findings: Findings about the package and the entries in it, but not about the content of files. If an error has
            the package as its file, the package could not be read completely, and `files` may lack some of its files.
    """

    files: Mapping[str, Path]
    findings: tuple[Finding, ...]


def junk_kind(name: str) -> str | None:
    """Return the key of `JUNK` that matches the name of a file or folder, or None if no key matches it."""
    for kind in JUNK:
        if fnmatchcase(name.lower(), kind.lower()):
            return kind
    return None


def is_one(path: Path) -> bool:
    """Return whether a file should be opened as a package.

    This is the case if its name ends in `.zip`, or if its first bytes are those of a zip or of a kind in `LOOKS`.
    `opened` adds an error for the kinds in `LOOKS`.
    """
    if path.suffix.lower() == ".zip":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8).startswith((b"PK\3\4", *LOOKS))


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a package, a folder or a zip, until the `with` block ends.

    A folder is read in place. No link in it is followed, and no file in it is opened. A zip is unpacked into a private
    folder, where the name of each file is a number with the original suffix. The private folder is always removed at
    the end.

    Raises:
        BadRequest: There is no such file or folder, or it is a special file such as a device.
    """
    if path.is_dir():
        yield _folder(path)
    elif path.is_file():
        with tempfile.TemporaryDirectory(prefix="submission-") as private:  # only its owner can enter it
            yield _zip(path, Path(private))
    elif path.exists():
        raise BadRequest(f"{path}: must be a package (a zip or a folder); found a special file")
    else:
        raise BadRequest(f"{path}: no such file or folder; give a package (a zip or a folder)")


def pack(folder_files: Mapping[str, Path], target: Path) -> None:
    """Write a zip. If anything fails, no file is written.

    The same names and contents always give the same bytes.

    Args:
        folder_files: A dict from the path of each file inside the zip (with "/" between folders) to the file to pack.
        target: The zip to write.
    """
    with replacing(target) as part, zipfile.ZipFile(part, "w") as out:
        for name in sorted(folder_files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix; the default depends on the operating system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            out.writestr(entry, folder_files[name].read_bytes(), zipfile.ZIP_DEFLATED, 6)


# Names ----------------------------------------------------------------------------------------------------------------


class _Package:
    """The state of reading a package: the findings and names so far, and the number of bytes that are still allowed."""

    def __init__(self, path: Path):
        self.path, self.remaining = path, TOTAL
        self.findings: dict[str, list[Finding]] = {}  # the findings of each kind
        self.junk: dict[str, list[str]] = {}  # for each key of JUNK, the names that match it
        self.is_file: dict[str, bool] = {}  # for each path: True for a file, False for a folder
        self.folded: dict[str, str] = {}  # the first of the paths that are equal on Windows and macOS

    def find(self, kind: str, name: str, message: str, severity: str = ERROR) -> None:
        """Add a finding about an entry, or about the package if `name` is empty. A `kind` groups similar findings."""
        file = str(self.path)
        if name:
            file = f"{self.path}/{cut(name)}"
        self.findings.setdefault(kind, []).append(Finding(file, message=message, severity=severity))

    def result(self, files: Mapping[str, Path]) -> Opened:
        """Return the open package with all findings."""
        errors = [finding for finding in chain.from_iterable(self.findings.values()) if finding.severity == ERROR]
        if not files and not errors:
            self.find("packages", "", "must contain the files of a submission; found none: pack them again")
        for kind, names in self.junk.items():
            message = (
                f"contains {kind} ({plural(len(names), 'time')}, first {cut(names[0])!r}), which {JUNK[kind]} adds "
            )
            self.find(f"{kind} files", "", f"{message}and the check ignores; remove it before you submit", NOTE)
        findings = tuple(chain.from_iterable(self.findings.values()))
        return Opened({name: files[name] for name in sorted(files)}, findings)

    def admits(self, raw: bytes, mode: int, folder: bool, marked: bool = True) -> str | None:
        """Return the name of an entry, or None if the entry must not be read.

        Findings about the name and the type of the entry are added. An entry that macOS or Windows adds must not be
        read either; its name is added to `junk` instead.

        Args:
            raw: The bytes of the name.
            mode: The mode bits of the entry (see `stat`); 0 if they are not known.
            folder: Whether the entry is a folder.
            marked: Whether the zip marks the name as UTF-8.
        """
        try:
            name = raw.decode()
        except UnicodeDecodeError as failure:
            message = f"must have a name in UTF-8; byte 0x{raw[failure.start]:02X} is not: rename it in plain ASCII"
            self.find("names that are not UTF-8", raw.decode("utf-8", "backslashreplace"), message)
            return None
        parts = name.split("/")
        fault = _name_fault(name, parts)
        if fault:
            self.find("such names", name or "/", fault)
            return None
        for junk in filter(None, map(junk_kind, parts)):
            self.junk.setdefault(junk, []).append(name)
            return None
        if not self._distinct(name, parts, folder):
            return None
        if not marked and not name.isascii():
            other = cut(raw.decode("cp437"))
            message = f"has a UTF-8 name that the zip does not mark as UTF-8, so other programs read {other!r}"
            self.find("names that are not marked as UTF-8", name, f"{message}; rename it in plain ASCII", WARNING)
        special = SPECIAL.get(stat.S_IFMT(mode))
        if stat.S_ISDIR(mode) and not folder:
            special = "folder"
        if special:
            self.find(f"{special}s", name, f"must be a regular file; found a {special}: replace it by the file")
            return None
        if name.lower().endswith(".zip") and not folder:
            self.find("zips", name, "must not be a zip inside the package; replace it by the files in it")
            return None
        return name

    def _distinct(self, name: str, parts: list[str], folder: bool) -> bool:
        """Register a name and the folders above it, and return whether the entry may be read.

        It must not be read if it repeats a file, or if a name is both a file and a folder. These cases have findings,
        and so have names that are the same on Windows and macOS.
        """
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            is_file = depth == len(parts) and not folder
            if prefix not in self.is_file:
                self.is_file[prefix] = is_file
                first = self.folded.setdefault(unicodedata.normalize("NFC", prefix).casefold(), prefix)
                if first != prefix:
                    message = f"is the same name as {cut(first)!r} on Windows and macOS; rename one of them"
                    self.find("names that are the same to some systems", prefix, message)
            elif self.is_file[prefix] != is_file:
                self.find("names of a file and a folder", prefix, "is both a file and a folder; rename one of them")
                return False
            elif is_file:
                self.find("names that are there twice", name, "must be in the zip once; found twice: keep one")
                return False
        return True

    def takes(self, name: str, size: int) -> bool:
        """Return whether a file of this size may be read, and count its bytes towards `TOTAL`.

        A finding is added for a file that is larger than `LIMIT`, and for the first file that exceeds `TOTAL`. The
        files after the latter must not be read either, but have no findings.
        """
        if size > LIMIT:
            message = f"must not be larger than {LIMIT} bytes; found {size} bytes: does it belong to a submission?"
            self.find("files that are too large", name, message)
            return False
        self.remaining -= size
        if self.remaining < 0 and self.remaining + size >= 0:
            message = f"must not have more than {TOTAL} bytes in all; it does: {cut(name)!r} and the files after it"
            self.find("packages", "", f"{message} were not checked")
        return self.remaining >= 0


def _name_fault(name: str, parts: list[str]) -> str | None:
    """Return a message if a name is not allowed, or None if it is allowed.

    The first three checks find names that lead out of the package on some systems.
    """
    if "\\" in name:
        return r"must have / between folders and no \ in its name: zip it with another program, or rename it"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return f"must have a name inside the package, such as FOLDER/LABEL/FILE; found an absolute path: {ZIP_AGAIN}"
    dots = {"..", ".", ""}.intersection(parts)
    if dots:
        return f"must not have an empty name, '.' or '..' between slashes; found {max(dots)!r}: {ZIP_AGAIN}"
    for character in name:
        if not character.isprintable():
            return f"must have only printable characters in its name; found {character!a}: rename it"
    for fault in filter(None, map(_windows_fault, parts)):
        return f"{fault}: rename it"
    if len(parts) > DEPTH:
        return f"must be at most {DEPTH} folders deep; found {len(parts)}: submit only the folder of the submission"
    longest = max(len(part.encode()) for part in parts)
    if longest > PART:
        return f"must have at most {PART} bytes in a name between slashes; found {longest}: shorten it"
    return None


def _windows_fault(part: str) -> str | None:
    """Return a message if Windows would change or refuse the name of a file or folder, or None if it accepts it."""
    if part.partition(".")[0].rstrip(" ").upper() in WINDOWS_DEVICES:
        return f"must not have the name of a Windows device; found {cut(part)!r}"
    if part.endswith((".", " ")):
        return f"must not end with a dot or a blank, which Windows removes; found {cut(part)!r}"
    signs = re.search('[<>:"|?*]', part)
    if signs:
        return f"must not have a character that Windows forbids in names; found {signs[0]!r}"
    return None


# Folders and zips -----------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Opened:
    """Open a package that is a folder."""
    package = _Package(path)
    files: dict[str, Path] = {}
    folders, count = [""], 0
    while folders:
        inside = folders.pop()
        try:
            with os.scandir(path / inside) as listing:  # there may be millions of entries; read only the allowed number
                allowed = islice(listing, ENTRIES + 1 - count)
                entries = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in allowed)
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
    return f"must have at most {ENTRIES} files and folders; found {found}: submit only the files of the submission"


class _Source(io.BufferedReader):
    """The bytes of a zip. A read of more than `DIRECTORY` bytes is refused.

    Without this limit, `zipfile` would read a list of entries of any size at once.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY:
            raise Broken(_too_many(f"a list of {size} bytes"))
        return super().read(size)


def _zip(path: Path, private: Path) -> Opened:
    """Open a package that is a zip, by unpacking it into a private folder."""
    package = _Package(path)
    files: dict[str, Path] = {}
    try:
        with _listed(path, package) as (source, archive, places):
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
                    start = entry_data(source, info, place, ends[info])
                    if not folder:
                        target = private / str(number)
                        suffix = re.search(r"\.[a-z0-9]{1,8}$", name.lower())  # later checks look at the suffix
                        if suffix:
                            target = private / f"{number}{suffix[0]}"
                        with target.open("xb") as out:
                            out.writelines(unpacked(source, info, start))
                        files[name] = target
                except Broken as fault:
                    package.find("such files", name, str(fault))
    except Broken as fault:
        package.find("packages", "", str(fault))
    return package.result(files)


@contextmanager
def _listed(path: Path, package: _Package) -> Iterator[tuple[BinaryIO, zipfile.ZipFile, list[int]]]:
    """Open a zip, and check its list of entries.

    Yields:
        The file; the zip; and the position of each record in the list, followed by the position where the list ends.

    Raises:
        Broken: The file cannot be read, is too large, is not a zip, has too many entries, or is damaged; or other
            programs may find another list of entries in it.
    """
    try:
        file = path.open("rb", buffering=0)
    except OSError as failure:
        raise Broken(CLOSED.format(failure.strerror)) from failure
    with _Source(file) as source:
        size = source.seek(0, os.SEEK_END)
        if size > TOTAL:
            raise Broken(f"must have at most {TOTAL} bytes; found {size}: submit only the files of the submission")
        try:
            archive = zipfile.ZipFile(source)
        except UNREADABLE as failure:
            source.seek(0)
            head = source.read(8)
            if head.startswith(b"PK"):
                raise Broken(DAMAGED) from failure
            found = "another kind of file"
            if not head:
                found = "an empty file"
            for mark, kind in LOOKS.items():
                if head.startswith(mark):
                    found = f"what looks like {kind}"
            raise Broken(f"must be a zip; found {found}: pack the folder as a zip") from failure
        entries = archive.infolist()
        if len(entries) > ENTRIES:
            raise Broken(_too_many(str(len(entries))))
        first = min((info.header_offset for info in entries), default=0)
        if first < 0:
            raise Broken(DAMAGED)
        places = list_places(source, archive)
        check_list(source, archive, places[-1])
        source.seek(max(size - 22 - len(archive.comment), 0))  # position of the last record if no other bytes follow
        if first or source.read(4) != b"PK\5\6":
            message = f"has other bytes before or after the zip, and some programs refuse it; {ZIP_AGAIN}"
            package.find("packages with more in them", "", message, WARNING)
        yield source, archive, places


def _mode(info: zipfile.ZipInfo) -> int:
    """Return the Unix mode bits of an entry, or 0 if it does not have any."""
    return info.external_attr >> 16
