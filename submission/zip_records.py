"""The records of a zip compared with each other, so that every program that unpacks it sees the same files.

A zip names each entry twice: in a header before the entry's data, and in a list (the central directory) at the end.
`zipfile` goes by the list; other programs go by the headers, or by fields that `zipfile` leaves out. Where the two
disagree, a check of the one says nothing about the other, so a package whose records disagree is refused.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 (records), 4.5 and 4.6.9 (extra fields).
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from evaluation.text import quoted

ZIP_AGAIN = "zip the folder again"
DAMAGED = f"is damaged: copy the zip again, or {ZIP_AGAIN}"
ENCRYPTED = "must not be encrypted: zip it without a password"
SHARES = f"must not share bytes with what comes next in the zip; it does: copy the zip again, or {ZIP_AGAIN}"
DEFAULT = "zip it with default settings"
GO_BY = f"which some programs go by: {ZIP_AGAIN}"

HEADER, LISTED, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
END_64, LOCATOR_64, DESCRIPTOR = b"PK\6\6", b"PK\6\7", b"PK\7\x08"
RECORDS = (HEADER, LISTED, END, END_64)  # none of these may lie between entries, or around the zip

ENCRYPTION = 0x1 | 0x40 | 0x2000  # flags: encrypted, strongly encrypted, header encrypted
SIZES_FOLLOW = 0x8  # flag: checksum and sizes are in a descriptor behind the data
PATCH = 0x20  # flag: the data are a patch of another file
UTF_8 = 0x800  # flag: the name is UTF-8
ZIP_64, UNICODE_PATH = 0x0001, 0x7075  # extra fields
MASK_16, MASK_32 = 0xFFFF, 0xFFFFFFFF  # in place of a number that has its own field of 64 bits
VERSION = 45  # times ten; what numbers of 64 bits need
CHUNK = 2**18


class Broken(Exception):
    """A zip, or an entry of one, cannot be read; says what must hold, what was found, and what to do."""


class Header(NamedTuple):
    """A record of an entry: its header before the data, or its record in the list.

    Attributes:
        flags: What holds for the entry, bit by bit.
        method: The compression method.
        numbers: The data's checksum, packed size and size; in a header 0 where these follow the data.
        name: The name's bytes.
        extra: Further fields.
        end: Where the record ends in the zip.
    """

    flags: int
    method: int
    numbers: dict[str, int]
    name: bytes
    extra: bytes
    end: int


# Entries --------------------------------------------------------------------------------------------------------------


def entry_data(source: BinaryIO, info: zipfile.ZipInfo, place: int, end: int) -> int:
    """Return where the data of an entry begin, once its records agree.

    Args:
        source: The zip.
        info: The entry as `zipfile` has read it from the list.
        place: Where its record begins in the list.
        end: Where the next entry or the list begins.

    Raises:
        Broken: It is encrypted, packed in an uncommon way, reaches into what comes next, or its records disagree.
    """
    if info.flag_bits & ENCRYPTION:
        raise Broken(ENCRYPTED)
    if info.header_offset + 30 + len(info.orig_filename) + info.compress_size > end:
        raise Broken(SHARES)
    header = _header(source, info.header_offset)
    if header is None:
        raise Broken(DAMAGED)
    fault = _list_fault(source, info, place) or _header_fault(header, info)
    if fault:
        raise Broken(fault)
    data_end = header.end + info.compress_size
    if data_end > end:
        raise Broken(SHARES)
    if header.flags & SIZES_FOLLOW:
        length = _descriptor_length(source, info, data_end, end)
        if length is None:
            wanted = "must have the checksum and sizes of the list in the record behind its data"
            raise Broken(f"{wanted}; found others, {GO_BY}")
        data_end += length
    if _has_record(source, data_end, end):
        raise Broken(f"must be followed by the next entry of the list; found one that the list leaves out, {GO_BY}")
    return header.end


def unpacked(source: BinaryIO, info: zipfile.ZipInfo, place: int) -> Iterator[bytes]:
    """Unpack the data of an entry, which begin at a place; give at most a chunk more than the entry declares.

    `zipfile` stops at the declared size; data that go on, or end early, are found here.

    Raises:
        Broken: The data are not what the entry declares.
    """
    source.seek(place)
    left, size, checksum = info.compress_size, 0, 0
    if info.compress_type == zipfile.ZIP_DEFLATED:
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
    else:
        machine = None
    waiting = b""  # packed bytes that were read and not unpacked
    while size <= info.file_size and (left or waiting):
        packed = waiting or source.read(min(CHUNK, left))
        if not waiting:
            left -= len(packed)
        if not packed or (machine and machine.eof):
            raise Broken(DAMAGED)
        try:
            chunk = machine.decompress(packed, CHUNK) if machine else packed
        except zlib.error as failure:
            raise Broken(DAMAGED) from failure
        waiting = machine.unconsumed_tail or machine.unused_data if machine else b""
        size += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if size != info.file_size or checksum != info.CRC or (machine and not machine.eof):
        raise Broken(DAMAGED)


def listed_name(info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of an entry's name.

    `ZipInfo.filename` is not these: it ends at a NUL, and an extra field may put another name in its place.
    """
    return info.orig_filename.encode("utf-8" if info.flag_bits & UTF_8 else "cp437")


def _header(source: BinaryIO, place: int) -> Header | None:
    source.seek(place)
    fixed = source.read(30)
    if len(fixed) < 30 or not fixed.startswith(HEADER):
        return None
    _, flags, method, _, _, checksum, packed, size, name_length, extra_length = struct.unpack("<5H3L2H", fixed[4:])
    name, extra = source.read(name_length), source.read(extra_length)
    if len(name) < name_length or len(extra) < extra_length:
        return None
    numbers = {"checksum": checksum, "packed size": packed, "size": size}
    wide = _field(extra, ZIP_64)
    masked = [packed, size].count(MASK_32)
    if masked:
        if masked == 1 or len(wide) < 16:  # of one alone, programs disagree about which of the two comes first
            return None
        numbers["size"], numbers["packed size"] = struct.unpack_from("<2Q", wide)
    return Header(flags, method, numbers, name, extra, place + 30 + name_length + extra_length)


def _header_fault(header: Header, info: zipfile.ZipInfo) -> str | None:
    """Return how an entry's header differs from the list; None if it does not."""
    name = listed_name(info)
    if header.name != name:
        other = quoted(header.name.decode("utf-8", "backslashreplace"))
        return f"must have one name; its own header says {other}, {GO_BY}"
    if header.flags & ENCRYPTION:
        return ENCRYPTED
    if not name.isascii() and (header.flags ^ info.flag_bits) & UTF_8:
        return f"must have one name; only one of its records marks it as UTF-8: {ZIP_AGAIN}"
    if header.method != info.compress_type:
        return f"must have one method; the list says {info.compress_type} and its own header {header.method}, {GO_BY}"
    # No others, though Python knows them: LZMA takes what memory the zip asks for, and many programs read neither.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        found = f"method {info.compress_type}"
        return f"must be stored or deflated, as zips commonly are; found {found}: {DEFAULT}"
    if info.extract_version > VERSION:
        return f"must need version {VERSION / 10} of the format at most; found {info.extract_version / 10}: {DEFAULT}"
    fault = _extra_fault(header.extra, name)
    if fault:
        return fault
    numbers = [header.numbers]
    wide = _field(header.extra, ZIP_64)
    if len(wide) >= 16:
        numbers.append(dict(zip(("size", "packed size"), struct.unpack_from("<2Q", wide), strict=True)))
    listed = {"checksum": info.CRC, "packed size": info.compress_size, "size": info.file_size}
    for own in numbers:
        for what, number in own.items():
            follows = header.flags & SIZES_FOLLOW and number == 0
            if number != listed[what] and not follows:
                return f"must have one {what}; the list says {listed[what]} and its own header {number}, {GO_BY}"
    return None


def _list_fault(source: BinaryIO, info: zipfile.ZipInfo, place: int) -> str | None:
    """Return what is wrong with an entry's record in the list; None if nothing is."""
    if info.volume not in (0, MASK_16):
        return f"must lie in this zip; the list says that it lies on disk {info.volume}: {ZIP_AGAIN}"
    if info.flag_bits & PATCH:
        return DAMAGED
    fault = _extra_fault(info.extra, listed_name(info))
    if fault:
        return fault
    source.seek(place)
    packed, size = struct.unpack("<2L", source.read(46)[20:28])
    source.seek(place + 42)
    offset = struct.unpack("<L", source.read(4))[0]
    masked = [packed, size, offset].count(MASK_32)
    length = len(_field(info.extra, ZIP_64))
    if length not in (8 * masked, 8 * masked + 4):  # four more bytes name the disk
        found = f"one of {length} bytes for {masked}"
        return f"must have a field of 64 bits for just the numbers that need it; found {found}, {GO_BY}"
    return None


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the extra fields; a rest of fewer than four bytes is padding."""
    place = 0
    while len(extra) - place >= 4:
        kind, length = struct.unpack_from("<2H", extra, place)
        yield kind, extra[place + 4 : place + 4 + length]
        place += 4 + length


def _field(extra: bytes, wanted: int) -> bytes:
    return next((content for kind, content in _fields(extra) if kind == wanted), b"")


def _extra_fault(extra: bytes, name: bytes) -> str | None:
    """Return what is wrong with the extra fields that change how programs read an entry; None if nothing is."""
    seen = set()
    for kind, content in _fields(extra):
        if kind not in (ZIP_64, UNICODE_PATH):
            continue
        if kind in seen:
            return f"must have each extra field once; found 0x{kind:04x} twice: {ZIP_AGAIN}"
        seen.add(kind)
        if kind == UNICODE_PATH and content[5:] != name:  # after a version and a checksum
            other = quoted(content[5:].decode("utf-8", "backslashreplace"))
            return f"must have one name; its field for Unicode names says {other}, {GO_BY}"
    return None


def _descriptor_length(source: BinaryIO, info: zipfile.ZipInfo, place: int, end: int) -> int | None:
    """Return the length of the record behind an entry's data; None if none agrees with the list."""
    source.seek(place)
    found = source.read(min(24, max(0, end - place)))
    numbers = (info.CRC, info.compress_size, info.file_size)
    for mark in (DESCRIPTOR, b""):  # the mark may be left out
        for form in ("<3L", "<L2Q"):
            wanted = mark + struct.pack(form, *numbers)
            if found.startswith(wanted):
                return len(wanted)
    return None


def _has_record(source: BinaryIO, start: int, end: int) -> bool:
    """Return whether a record of a zip begins between two places."""
    source.seek(start)
    place, before = start, b""
    while place < end:
        chunk = source.read(min(CHUNK, end - place))
        if not chunk:
            return False
        place += len(chunk)
        if any(record in before + chunk for record in RECORDS):
            return True
        before = chunk[-3:]
    return False


# The whole ------------------------------------------------------------------------------------------------------------


def list_places(source: BinaryIO, archive: zipfile.ZipFile) -> list[int]:
    """Return where the record of each entry begins in the list, and where the list ends."""
    places = [archive.start_dir]
    for _ in archive.infolist():
        source.seek(places[-1] + 28)
        lengths = struct.unpack("<3H", source.read(6))  # of the name, the extra fields and the comment
        places.append(places[-1] + 46 + sum(lengths))
    return places


def check_list(source: BinaryIO, archive: zipfile.ZipFile, list_end: int) -> None:
    """Make sure that no program takes another list of entries than `zipfile` does.

    Args:
        source: The zip.
        archive: The same, as `zipfile` has opened it.
        list_end: Where the list ends.

    Raises:
        Broken: There is more than one zip in the file, or the records at its end disagree.
    """
    size = source.seek(0, os.SEEK_END)
    if list_end > size:
        raise Broken(DAMAGED)
    first = min((info.header_offset for info in archive.infolist()), default=archive.start_dir)
    if _has_record(source, 0, first):
        raise Broken(f"must hold one zip; found another one before it: {ZIP_AGAIN}")
    fault = _tail_fault(source, archive, list_end, size, counted=first == 0)
    if fault:
        raise Broken(fault)


def _tail_fault(source: BinaryIO, archive: zipfile.ZipFile, list_end: int, size: int, counted: bool) -> str | None:
    """Return what is wrong with the bytes after the list; None if nothing is.

    Args:
        source: The zip.
        archive: The same, as `zipfile` has opened it.
        list_end: Where the list ends.
        size: The size of the zip in bytes.
        counted: Whether places are counted from the beginning of the file.
    """
    entries = len(archive.infolist())
    source.seek(list_end)
    tail = source.read(min(size - list_end, 2**17))  # three records, and a comment of 65,535 bytes at most
    numbers = {
        "disk": 0,
        "disk of the list": 0,
        "entries": entries,
        "entries in all": entries,
        "bytes of the list": list_end - archive.start_dir,
    }
    if counted:
        numbers["place of the list"] = archive.start_dir
    wide = tail.startswith(END_64)
    if wide:
        end_64 = tail[:56]
        if len(end_64) < 56:
            return DAMAGED
        length = 12 + struct.unpack_from("<Q", tail, 4)[0]
        locator = tail[length : length + 20]
        tail = tail[length + 20 :]
        if len(locator) < 20 or not locator.startswith(LOCATOR_64):
            return f"must end with its list of entries; found other bytes after the list: {ZIP_AGAIN}"
        disk, place, disks = struct.unpack_from("<LQL", locator, 4)
        if disk != 0 or disks != 1:
            return f"must be on one disk; the record at its end says {disks}: {ZIP_AGAIN}"
        if counted and place != list_end:
            return f"must say at its end where its record of 64 bits is, at {list_end}; found {place}, {GO_BY}"
        fault = _end_fault(numbers, struct.unpack_from("<2L4Q", end_64, 16), [])
        if fault:
            return fault
    if len(tail) < 22 or not tail.startswith(END):
        return f"must end with its list of entries; found other bytes after the list: {ZIP_AGAIN}"
    if any(record in tail[4:] for record in RECORDS):
        return f"must hold one zip; found another one in its comment or after it: {ZIP_AGAIN}"
    return _end_fault(numbers, struct.unpack_from("<4H2L", tail, 4), [MASK_16, MASK_32] if wide else [])


def _end_fault(numbers: Mapping[str, int], found: Sequence[int], masks: Sequence[int]) -> str | None:
    """Return which number of the record at the end differs from the list's; a mask stands for any number."""
    for (what, wanted), number in zip(numbers.items(), found, strict=False):
        if number != wanted and number not in masks:
            return f"must say at its end what its list holds, {what} {wanted}; found {number}, {GO_BY}"
    return None
