"""Checks that the records of a zip agree, so that every program unpacks the same files from it.

A zip names each entry twice: in a header before the entry's data, and in a list (the central directory) at the end.
`zipfile` uses the list. Other programs use the headers, or fields that `zipfile` ignores. If they disagree, other
programs may unpack files that were not checked. Such a package is therefore refused.

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
SHARES = f"must not overlap what comes next in the zip; it does: copy the zip again, or {ZIP_AGAIN}"
DEFAULT = "zip it with default settings"
GO_BY = f"which some programs use: {ZIP_AGAIN}"

HEADER, LISTED, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
END_64, LOCATOR_64, DESCRIPTOR = b"PK\6\6", b"PK\6\7", b"PK\7\x08"
RECORDS = (HEADER, LISTED, END, END_64)  # must not be between entries, or before or after the zip

ENCRYPTION = 0x1 | 0x40 | 0x2000  # flags: encrypted, strongly encrypted, header encrypted
SIZES_FOLLOW = 0x8  # flag: checksum and sizes are in a descriptor after the data
PATCH = 0x20  # flag: the data are a patch of another file
UTF_8 = 0x800  # flag: the name is UTF-8
ZIP_64, UNICODE_PATH = 0x0001, 0x7075  # types of extra fields
MASK_16, MASK_32 = 0xFFFF, 0xFFFFFFFF  # values which mean that the real number is in a separate 64-bit field
VERSION = 45  # the version of the zip format that 64-bit numbers need, 4.5, times ten
CHUNK = 2**18  # maximum number of bytes that are read or unpacked at once


class Broken(Exception):
    """A zip, or one of its entries, is refused.

    The message usually says what must hold, what was found instead, and what to do.
    """


class Header(NamedTuple):
    """The header of an entry, before its data.

    Attributes:
        flags: Flags of the entry, one per bit.
        method: Compression method.
        numbers: A dict with the checksum (CRC-32) of the data, and their packed size and size in bytes. The values are
            0 if the numbers follow the data.
        name: Bytes of the name.
        extra: Bytes of the extra fields.
        end: Position in the zip where the header ends.
    """

    flags: int
    method: int
    numbers: dict[str, int]
    name: bytes
    extra: bytes
    end: int


# Entries --------------------------------------------------------------------------------------------------------------


def entry_data(source: BinaryIO, info: zipfile.ZipInfo, place: int, end: int) -> int:
    """Check that the records of an entry agree, and return the position of its data.

    Args:
        source: The zip.
        info: The entry, as `zipfile` read it from the list.
        place: Position of its record in the list.
        end: Position of the next entry, or of the list.

    Raises:
        Broken: The entry is damaged, encrypted, or packed in an uncommon way; it overlaps the next entry or the list;
            its records disagree; or an entry that is not in the list follows it.
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
            message = "must have the same checksum and sizes in the zip's list and in the record after its data"
            raise Broken(f"{message}; found others in the record, {GO_BY}")
        data_end += length
    if _has_record(source, data_end, end):
        raise Broken(f"must be followed by the next entry of the zip's list; found an entry outside the list, {GO_BY}")
    return header.end


def unpacked(source: BinaryIO, info: zipfile.ZipInfo, place: int) -> Iterator[bytes]:
    """Yield the unpacked data of an entry, at most one chunk more than the entry declares.

    `zipfile` stops at the declared size. This function also finds data that are longer or shorter than declared.

    Args:
        source: The zip.
        info: The entry.
        place: Position of its data.

    Raises:
        Broken: The data cannot be unpacked, or their size or checksum is not the declared one.
    """
    source.seek(place)
    unread, size, checksum = info.compress_size, 0, 0
    decompressor = None
    if info.compress_type == zipfile.ZIP_DEFLATED:
        decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    waiting = b""  # packed bytes that were read, but not unpacked yet
    while size <= info.file_size and (unread or waiting):
        packed = waiting
        if not waiting:
            packed = source.read(min(CHUNK, unread))
            unread -= len(packed)
        if not packed or (decompressor and decompressor.eof):
            raise Broken(DAMAGED)
        chunk, waiting = packed, b""
        if decompressor:
            try:
                chunk = decompressor.decompress(packed, CHUNK)
            except zlib.error as failure:
                raise Broken(DAMAGED) from failure
            waiting = decompressor.unconsumed_tail or decompressor.unused_data
        size += len(chunk)
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if size != info.file_size or checksum != info.CRC or (decompressor and not decompressor.eof):
        raise Broken(DAMAGED)


def listed_name(info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of an entry's name in the list.

    `ZipInfo.filename` may be another name: it ends at the first NUL, and an extra field can replace it.
    """
    if info.flag_bits & UTF_8:
        return info.orig_filename.encode("utf-8")
    return info.orig_filename.encode("cp437")


def _header(source: BinaryIO, place: int) -> Header | None:
    """Read the header of an entry. Return None if the header is damaged, or if only one of its sizes has 64 bits."""
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
    # A size of 0xFFFFFFFF means that the real size is in the ZIP64 field. If only one of the two sizes has this value,
    # programs disagree about which size is first in that field.
    masked = [packed, size].count(MASK_32)
    if masked:
        if masked == 1 or len(wide) < 16:
            return None
        numbers["size"], numbers["packed size"] = struct.unpack_from("<2Q", wide)
    return Header(flags, method, numbers, name, extra, place + 30 + name_length + extra_length)


def _header_fault(header: Header, info: zipfile.ZipInfo) -> str | None:
    """Return a message if the header of an entry is not valid or disagrees with the list, or None if all is well."""
    name = listed_name(info)
    if header.name != name:
        other = quoted(header.name.decode("utf-8", "backslashreplace"))
        return f"{_same('name')}; found {other} in the header, {GO_BY}"
    if header.flags & ENCRYPTION:
        return ENCRYPTED
    if not name.isascii() and (header.flags ^ info.flag_bits) & UTF_8:
        return f"{_same('name')}; only one of them marks it as UTF-8: {ZIP_AGAIN}"
    if header.method != info.compress_type:
        return f"{_same('method')}; found {info.compress_type} in the list and {header.method} in the header, {GO_BY}"
    # Python can unpack other methods too. But LZMA uses as much memory as the zip asks for, and many programs cannot
    # unpack these methods.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"must be stored or deflated, as in most zips; found method {info.compress_type}: {DEFAULT}"
    if info.extract_version > VERSION:
        found = info.extract_version / 10
        return f"must need at most version {VERSION / 10} of the zip format; found {found}: {DEFAULT}"
    fault = _extra_fault(header.extra, name)
    if fault:
        return fault
    sources = [header.numbers]
    wide = _field(header.extra, ZIP_64)
    if len(wide) >= 16:
        sources.append(dict(zip(("size", "packed size"), struct.unpack_from("<2Q", wide), strict=True)))
    listed = {"checksum": info.CRC, "packed size": info.compress_size, "size": info.file_size}
    for numbers in sources:
        for name_of_number, number in numbers.items():
            expected = listed[name_of_number]
            follows = header.flags & SIZES_FOLLOW and number == 0
            if number != expected and not follows:
                return f"{_same(name_of_number)}; found {expected} in the list and {number} in the header, {GO_BY}"
    return None


def _same(value: str) -> str:
    """Return the start of a message about a value that the list and the header must agree on."""
    return f"must have the same {value} in the zip's list and in its own header"


def _list_fault(source: BinaryIO, info: zipfile.ZipInfo, place: int) -> str | None:
    """Return a message if an entry's record in the list is not valid, or None if it is valid."""
    if info.volume not in (0, MASK_16):
        return f"must be in this zip; found disk {info.volume} in the zip's list: {ZIP_AGAIN}"
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
    if length not in (8 * masked, 8 * masked + 4):  # four more bytes are the number of the disk
        message = f"must have 64-bit fields only for the numbers that need them; found {length} bytes for {masked} of "
        return f"{message}these numbers, {GO_BY}"
    return None


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of each extra field. Fewer than four bytes at the end are padding."""
    place = 0
    while len(extra) - place >= 4:
        kind, length = struct.unpack_from("<2H", extra, place)
        yield kind, extra[place + 4 : place + 4 + length]
        place += 4 + length


def _field(extra: bytes, wanted: int) -> bytes:
    """Return the content of the first extra field of a type, or empty bytes if there is no such field."""
    return next((content for kind, content in _fields(extra) if kind == wanted), b"")


def _extra_fault(extra: bytes, name: bytes) -> str | None:
    """Return a message if the extra fields make programs read an entry differently, or None if they do not."""
    seen = set()
    for kind, content in _fields(extra):
        if kind not in (ZIP_64, UNICODE_PATH):
            continue
        if kind in seen:
            return f"must not repeat an extra field; found 0x{kind:04x} twice: {ZIP_AGAIN}"
        seen.add(kind)
        if kind == UNICODE_PATH and content[5:] != name:  # a version and a checksum are before the name
            other = quoted(content[5:].decode("utf-8", "backslashreplace"))
            message = "must have the same name in the zip's list and in its field for Unicode names"
            return f"{message}; found {other} in the field, {GO_BY}"
    return None


def _descriptor_length(source: BinaryIO, info: zipfile.ZipInfo, place: int, end: int) -> int | None:
    """Return the length of the record after an entry's data, or None if the record does not agree with the list."""
    source.seek(place)
    found = source.read(min(24, max(0, end - place)))
    numbers = (info.CRC, info.compress_size, info.file_size)
    for mark in (DESCRIPTOR, b""):  # the mark may be missing
        for form in ("<3L", "<L2Q"):
            expected = mark + struct.pack(form, *numbers)
            if found.startswith(expected):
                return len(expected)
    return None


def _has_record(source: BinaryIO, start: int, end: int) -> bool:
    """Return whether a record of a zip begins between two positions."""
    source.seek(start)
    place, previous = start, b""
    while place < end:
        chunk = source.read(min(CHUNK, end - place))
        if not chunk:
            return False
        place += len(chunk)
        if any(record in previous + chunk for record in RECORDS):
            return True
        previous = chunk[-3:]  # a mark of four bytes may begin in this chunk and end in the next one
    return False


# The list of entries --------------------------------------------------------------------------------------------------


def list_places(source: BinaryIO, archive: zipfile.ZipFile) -> list[int]:
    """Return the position of each entry's record in the list, and the position where the list ends."""
    places = [archive.start_dir]
    for _ in archive.infolist():
        source.seek(places[-1] + 28)
        lengths = struct.unpack("<3H", source.read(6))  # lengths of the name, the extra fields and the comment
        places.append(places[-1] + 46 + sum(lengths))
    return places


def check_list(source: BinaryIO, archive: zipfile.ZipFile, list_end: int) -> None:
    """Check that every program finds the same list of entries as `zipfile`.

    Args:
        source: The zip.
        archive: The same zip, opened by `zipfile`.
        list_end: Position where the list ends.

    Raises:
        Broken: The file is damaged or contains more than one zip, or the records at its end disagree.
    """
    size = source.seek(0, os.SEEK_END)
    if list_end > size:
        raise Broken(DAMAGED)
    first = min((info.header_offset for info in archive.infolist()), default=archive.start_dir)
    if _has_record(source, 0, first):
        raise Broken(f"must be a single zip; found another one before it: {ZIP_AGAIN}")
    fault = _tail_fault(source, archive, list_end, size, counted=first == 0)
    if fault:
        raise Broken(fault)


def _tail_fault(source: BinaryIO, archive: zipfile.ZipFile, list_end: int, size: int, counted: bool) -> str | None:
    """Return a message if the bytes after the list are not valid, or None if they are valid.

    Args:
        source: The zip.
        archive: The same zip, opened by `zipfile`.
        list_end: Position where the list ends.
        size: Size of the zip in bytes.
        counted: Whether the zip begins at the start of the file, so that the positions in it can be checked.
    """
    entries = len(archive.infolist())
    source.seek(list_end)
    tail = source.read(min(size - list_end, 2**17))  # three records, and a comment of at most 65,535 bytes
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
            return f"must be on one disk; found {disks} in the record at its end: {ZIP_AGAIN}"
        if counted and place != list_end:
            message = f"must give the right position of its 64-bit record, {list_end}, at its end"
            return f"{message}; found {place}, {GO_BY}"
        fault = _end_fault(numbers, struct.unpack_from("<2L4Q", end_64, 16), [])
        if fault:
            return fault
    if len(tail) < 22 or not tail.startswith(END):
        return f"must end with its list of entries; found other bytes after the list: {ZIP_AGAIN}"
    if any(record in tail[4:] for record in RECORDS):
        return f"must be a single zip; found another one in its comment or after it: {ZIP_AGAIN}"
    masks: list[int] = []
    if wide:
        masks = [MASK_16, MASK_32]
    return _end_fault(numbers, struct.unpack_from("<4H2L", tail, 4), masks)


def _end_fault(numbers: Mapping[str, int], found: Sequence[int], masks: Sequence[int]) -> str | None:
    """Return a message if a number in the record at the end is wrong, or None if all numbers are right.

    Args:
        numbers: A dict from the name of each number to its right value.
        found: The numbers in the record, in the same order.
        masks: Values which mean that the real number is in the 64-bit record.
    """
    for (name, expected), number in zip(numbers.items(), found, strict=False):
        if number != expected and number not in masks:
            return f"must have the right numbers in the record at its end: {name} {expected}; found {number}, {GO_BY}"
    return None
