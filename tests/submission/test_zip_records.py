"""Zips whose records disagree, written byte by byte, are refused; the zips of common programs are not."""

import struct
import tempfile
import zlib
from pathlib import Path

import pytest

from submission.archive import opened

TEXT = b"It rains. " * 20
ZIP_AGAIN = "zip the folder again"
SAME_VALUE, IN_BOTH = "must have the same", "in the zip's list and in its own header"
GO_BY = f"which some programs use: {ZIP_AGAIN}"


@pytest.fixture(autouse=True)
def private(tmp_path_factory, monkeypatch):
    """The folder in which private folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("private")))


def deflated(content: bytes) -> bytes:
    machine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return machine.compress(content) + machine.flush()


PACKED = deflated(TEXT)
CRC = zlib.crc32(TEXT)
PLAIN = {
    "flags": 0,
    "method": 8,
    "crc": CRC,
    "packed": len(PACKED),
    "size": len(TEXT),
    "name": b"task6/x",
    "extra": b"",
}


def extra(kind: int, content: bytes) -> bytes:
    return struct.pack("<2H", kind, len(content)) + content


def unicode_path(name: bytes, header: bytes = b"task6/x") -> bytes:
    return extra(0x7075, struct.pack("<BL", 1, zlib.crc32(header)) + name)


def header(of: dict) -> bytes:
    """Return the header of an entry, before its data."""
    numbers = (20, of["flags"], of["method"], 0, 33, of["crc"], of["packed"], of["size"])
    return struct.pack("<4s5H3L2H", b"PK\3\4", *numbers, len(of["name"]), len(of["extra"])) + of["name"] + of["extra"]


def record(of: dict, offset: int) -> bytes:
    """Return the record of an entry in the list."""
    numbers = (788, of.get("version", 20), of["flags"], of["method"], 0, 33, of["crc"], of["packed"], of["size"])
    lengths = (len(of["name"]), len(of["extra"]), 0, of.get("disk", 0), 0, of.get("attributes", 0))
    offset = of.get("offset", offset)
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", *numbers, *lengths, offset) + of["name"] + of["extra"]


def end(count: int, list_bytes: int, start: int, comment: bytes = b"", **other: int) -> bytes:
    numbers = {"disk": 0, "list_disk": 0, "here": count, "all": count, "length": list_bytes, "offset": start} | other
    return struct.pack("<4s4H2LH", b"PK\5\6", *numbers.values(), len(comment)) + comment


def end_64(count: int, list_bytes: int, start: int, place: int, disks: int = 1, **other: int) -> bytes:
    """Return the 64-bit record, and the record that gives its position."""
    numbers = {"disk": 0, "list_disk": 0, "here": count, "all": count, "length": list_bytes, "offset": start}
    found_at = other.pop("found_at", place)
    made = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, *(numbers | other).values())
    return made + struct.pack("<4sLQL", b"PK\6\7", 0, found_at, disks)


def zipped(
    own: dict | None = None, listed: dict | None = None, behind: bytes = b"", wide: dict | None = None, **at_end
) -> bytes:
    """Return a zip of a valid entry, an entry whose two records are changed, and another valid entry.

    Args:
        own: Changes to the header before the data.
        listed: Changes to the record in the list.
        behind: Bytes after the data.
        wide: Changes to the 64-bit record at the end; None for a zip without this record.
        at_end: Changes to the record at the end.
    """
    content, records = b"", b""
    for name in (b"task6/a", b"task6/x", b"task6/z"):
        same = {**PLAIN, "name": name}
        changed = name == b"task6/x"
        records += record(same | (listed or {}) if changed else same, len(content))
        content += header(same | (own or {}) if changed else same) + PACKED + (behind if changed else b"")
    place = len(content)
    content += records
    if wide is not None:
        content += end_64(3, len(records), place, len(content), **wide)
        at_end = {"here": 0xFFFF, "all": 0xFFFF, "length": 0xFFFFFFFF, "offset": 0xFFFFFFFF} | at_end
    return content + end(3, len(records), place, **at_end)


def both(**other) -> dict:
    return {"own": other, "listed": other}


def look(content: bytes, folder: Path) -> tuple[dict[str, bytes], list[str]]:
    path = folder / "package.zip"
    path.write_bytes(content)
    with opened(path) as package:
        contents = {name: where.read_bytes() for name, where in package.files.items()}
        return contents, [str(finding).removeprefix(str(path)) for finding in package.findings]


SIZES_64 = struct.pack("<2Q", len(TEXT), len(PACKED))
FOLLOWING = struct.pack("<3L", CRC, len(PACKED), len(TEXT))
FOLLOWING_64 = struct.pack("<L2Q", CRC, len(PACKED), len(TEXT))
LATER = {"flags": 8, "crc": 0, "packed": 0, "size": 0}
MASKED = {"packed": 0xFFFFFFFF, "size": 0xFFFFFFFF}
FINE = {
    "plain": zipped(),
    "descriptor": zipped(own=LATER, listed={"flags": 8}, behind=b"PK\7\x08" + FOLLOWING),
    "descriptor without a mark": zipped(own=LATER, listed={"flags": 8}, behind=FOLLOWING),
    "descriptor of 64 bits": zipped(own=LATER, listed={"flags": 8}, behind=b"PK\7\x08" + FOLLOWING_64),
    "descriptor though the header says all": zipped(**both(flags=8), behind=b"PK\7\x08" + FOLLOWING),
    "descriptor, sizes in a field of zeros": zipped(
        own=LATER | MASKED | {"extra": extra(1, bytes(16))},
        listed={"flags": 8},
        behind=b"PK\7\x08" + FOLLOWING_64,
    ),
    "sizes of 64 bits in the header": zipped(own=MASKED | {"extra": extra(1, SIZES_64)}),
    "sizes of 64 bits twice": zipped(own={"extra": extra(1, SIZES_64)}),
    "sizes of 64 bits in the list": zipped(listed=MASKED | {"extra": extra(1, SIZES_64)}),
    "size of 64 bits in the list": zipped(listed={"size": 0xFFFFFFFF, "extra": extra(1, SIZES_64[:8])}),
    "end of 64 bits": zipped(wide={}),
    "end of 64 bits, nothing masked": zipped(wide={}, here=3, all=3),
    "Unicode name": zipped(**both(extra=unicode_path(b"task6/x"))),
    "other fields": zipped(own={"extra": extra(0x5455, b"\3" + bytes(8))}, listed={"extra": extra(0x5455, bytes(5))}),
    "padded field": zipped(own={"extra": extra(0x5455, bytes(5)) + b"\0\0\0"}),
    "level of compression": zipped(own={"flags": 2}),
    "bytes between entries": zipped(behind=b"padding" * 9),
    "comment": zipped(comment=b"PK, a comment"),
}


@pytest.mark.parametrize("content", FINE.values(), ids=FINE)
def test_what_programs_write_is_read(content, tmp_path):
    files, findings = look(content, tmp_path)
    assert findings == []
    assert files == dict.fromkeys(("task6/a", "task6/x", "task6/z"), TEXT)


HIDDEN = header({**PLAIN, "name": b"task6/hidden"}) + PACKED
ENTRY = {
    "Unicode name in both": (
        zipped(**both(extra=unicode_path(b"../../.bashrc"))),
        f"{SAME_VALUE} name in the zip's list and in its field for Unicode names; found '../../.bashrc' in the field, "
        f"{GO_BY}",
    ),
    "Unicode name in the header": (
        zipped(own={"extra": unicode_path(b"/etc/passwd")}),
        f"{SAME_VALUE} name in the zip's list and in its field for Unicode names; found '/etc/passwd' in the field, "
        f"{GO_BY}",
    ),
    "Unicode name in the list": (
        zipped(listed={"extra": unicode_path(b"task6/y")}),
        f"{SAME_VALUE} name in the zip's list and in its field for Unicode names; found 'task6/y' in the field, "
        f"{GO_BY}",
    ),
    "Unicode name of another header": (
        zipped(**both(extra=unicode_path(b"task6/y", header=b"task6/was"))),
        f"{SAME_VALUE} name in the zip's list and in its field for Unicode names; found 'task6/y' in the field, "
        f"{GO_BY}",
    ),
    "two Unicode names": (
        zipped(**both(extra=unicode_path(b"task6/x") + unicode_path(b"task6/y"))),
        f"must not repeat an extra field; found 0x7075 twice: {ZIP_AGAIN}",
    ),
    "name": (
        zipped(own={"name": b"../../x"}),
        f"{SAME_VALUE} name {IN_BOTH}; found '../../x' in the header, {GO_BY}",
    ),
    "longer name": (
        zipped(own={"name": b"task6/xx"}),
        f"{SAME_VALUE} name {IN_BOTH}; found 'task6/xx' in the header, {GO_BY}",
    ),
    "name that is no text": (
        zipped(own={"name": b"task6/\x1b\xff"}),
        rf"{SAME_VALUE} name {IN_BOTH}; found 'task6/\x1b\\xff' in the header, {GO_BY}",
    ),
    "encrypted in the header": (
        zipped(own={"flags": 1}),
        "must not be encrypted: zip it without a password",
    ),
    "strongly encrypted in the header": (
        zipped(own={"flags": 0x40}),
        "must not be encrypted: zip it without a password",
    ),
    "encrypted in the list": (
        zipped(listed={"flags": 1}),
        "must not be encrypted: zip it without a password",
    ),
    "method": (
        zipped(own={"method": 0}),
        f"{SAME_VALUE} method {IN_BOTH}; found 8 in the list and 0 in the header, {GO_BY}",
    ),
    "size": (
        zipped(own={"size": 10}),
        f"{SAME_VALUE} size {IN_BOTH}; found 200 in the list and 10 in the header, {GO_BY}",
    ),
    "packed size": (
        zipped(own={"packed": 2}),
        f"{SAME_VALUE} packed size {IN_BOTH}; found {len(PACKED)} in the list and 2 in the header, {GO_BY}",
    ),
    "no sizes and none to follow": (
        zipped(own={"packed": 0, "size": 0}),
        f"{SAME_VALUE} packed size {IN_BOTH}; found {len(PACKED)} in the list and 0 in the header, {GO_BY}",
    ),
    "checksum": (
        zipped(own={"crc": 5}),
        f"{SAME_VALUE} checksum {IN_BOTH}; found {CRC} in the list and 5 in the header, {GO_BY}",
    ),
    "size of 64 bits": (
        zipped(own=MASKED | {"extra": extra(1, struct.pack("<2Q", 2**40, len(PACKED)))}),
        f"{SAME_VALUE} size {IN_BOTH}; found 200 in the list and {2**40} in the header, {GO_BY}",
    ),
    "size of 64 bits beside that of 32": (
        zipped(own={"extra": extra(1, struct.pack("<2Q", 199, len(PACKED)))}),
        f"{SAME_VALUE} size {IN_BOTH}; found 200 in the list and 199 in the header, {GO_BY}",
    ),
    "size of 64 bits in the list beside that of 32": (
        zipped(listed={"extra": extra(1, struct.pack("<2Q", 199, len(PACKED)))}),
        f"must have 64-bit fields only for the numbers that need them; found 16 bytes for 0 of these numbers, {GO_BY}",
    ),
    "sizes of 64 bits that are not there": (
        zipped(own=MASKED),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "one of two sizes of 64 bits": (
        zipped(own={"packed": 0xFFFFFFFF, "extra": extra(1, SIZES_64)}),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "two fields of 64 bits": (
        zipped(own={"extra": 2 * extra(1, SIZES_64)}),
        f"must not repeat an extra field; found 0x0001 twice: {ZIP_AGAIN}",
    ),
    "descriptor that is not there": (
        zipped(own=LATER, listed={"flags": 8}),
        f"{SAME_VALUE} checksum and sizes in the zip's list and in the record after its data; found others in the "
        f"record, {GO_BY}",
    ),
    "descriptor of another size": (
        zipped(own=LATER, listed={"flags": 8}, behind=b"PK\7\x08" + struct.pack("<3L", CRC, len(PACKED), 10)),
        f"{SAME_VALUE} checksum and sizes in the zip's list and in the record after its data; found others in the "
        f"record, {GO_BY}",
    ),
    "descriptor of another checksum": (
        zipped(own=LATER, listed={"flags": 8}, behind=b"PK\7\x08" + struct.pack("<3L", 1, len(PACKED), 200)),
        f"{SAME_VALUE} checksum and sizes in the zip's list and in the record after its data; found others in the "
        f"record, {GO_BY}",
    ),
    "an entry that is not in the list": (
        zipped(behind=HIDDEN),
        f"must be followed by the next entry of the zip's list; found an entry outside the list, {GO_BY}",
    ),
    "an entry that is not in the list, behind a descriptor": (
        zipped(own=LATER, listed={"flags": 8}, behind=FOLLOWING + b"some bytes" + HIDDEN),
        f"must be followed by the next entry of the zip's list; found an entry outside the list, {GO_BY}",
    ),
    "a version that is not yet": (
        zipped(listed={"version": 57}),
        "must need at most version 4.5 of the zip format; found 5.7: zip it with default settings",
    ),
    "another disk": (
        zipped(listed={"disk": 3}),
        f"must be in this zip; found disk 3 in the zip's list: {ZIP_AGAIN}",
    ),
    "a folder by its mode alone": (
        zipped(listed={"attributes": 0o40755 << 16}),
        "must be a regular file; found a folder: replace it by the file",
    ),
    "damaged data": (
        zipped(**both(crc=5)),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "more data than both say": (
        zipped(**both(size=100)),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "fewer data than both say": (
        zipped(**both(size=201)),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "data behind the end of what is packed": (
        zipped(**both(packed=len(PACKED) + 3), behind=b"abc"),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "packed data that never end": (
        zipped(**both(packed=len(PACKED) + 4, method=8, size=0, crc=0), behind=b"abcd").replace(
            header({**PLAIN, "packed": len(PACKED) + 4, "size": 0, "crc": 0}) + PACKED + b"abcd",
            header({**PLAIN, "packed": len(PACKED) + 4, "size": 0, "crc": 0})
            + b"\0\0\0\xff\xff"
            + bytes(len(PACKED) - 1),
        ),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "stored, of two sizes": (
        zipped(**both(method=0)),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "no header": (
        zipped().replace(
            b"PK\3\4" + zipped()[4:26] + b"\7\0\0\0task6/x", b"PK\3\5" + zipped()[4:26] + b"\7\0\0\0task6/x"
        ),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
}


@pytest.mark.parametrize(("content", "message"), ENTRY.values(), ids=ENTRY)
def test_an_entry_whose_records_disagree(content, message, tmp_path):
    files, findings = look(content, tmp_path)
    assert findings == [f"/task6/x: error: {message}"]
    assert files == dict.fromkeys(("task6/a", "task6/z"), TEXT)


def test_a_name_that_only_one_record_marks_as_utf_8(tmp_path):
    name = "task6/é".encode()
    files, findings = look(zipped(own={"name": name}, listed={"name": name, "flags": 0x800}), tmp_path)
    assert findings == [
        f"/task6/é: error: {SAME_VALUE} name {IN_BOTH}; only one of them marks it as UTF-8: {ZIP_AGAIN}"
    ]
    assert "task6/é" not in files


ONE_ZIP = "must be a single zip; found"
AT_END = "must have the right numbers in the record at its end:"
WHOLE = {
    "another zip before it": (zipped() + zipped(), f"{ONE_ZIP} another one before it: {ZIP_AGAIN}"),
    "another zip before it, places counted on": (
        zipped() + zipped()[:-6] + struct.pack("<LH", len(zipped()), 0),
        f"{ONE_ZIP} another one before it: {ZIP_AGAIN}",
    ),
    "an entry before it": (HIDDEN + zipped(), f"{ONE_ZIP} another one before it: {ZIP_AGAIN}"),
    "a zip in its comment": (
        zipped(comment=zipped()),
        f"{ONE_ZIP} another one before it: {ZIP_AGAIN}",  # because the last end record is in the comment
    ),
    "an end in its comment": (
        zipped(comment=end(3, 159, 0) + b" more"),
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "half a zip behind it": (
        zipped() + zipped()[:100],
        f"{ONE_ZIP} another one in its comment or after it: {ZIP_AGAIN}",
    ),
    "half a zip in its comment": (
        zipped(comment=zipped()[:100]),
        f"{ONE_ZIP} another one in its comment or after it: {ZIP_AGAIN}",
    ),
    "bytes between list and end": (
        zipped()[:-22] + b"some bytes" + zipped()[-22:],
        f"is damaged: copy the zip again, or {ZIP_AGAIN}",
    ),
    "fewer entries at its end": (zipped(here=2, all=2), f"{AT_END} entries 3; found 2, {GO_BY}"),
    "fewer entries on this disk": (zipped(here=2), f"{AT_END} entries 3; found 2, {GO_BY}"),
    "more entries at its end": (zipped(all=4), f"{AT_END} entries in all 3; found 4, {GO_BY}"),
    "a mask without a record of 64 bits": (zipped(all=0xFFFF), f"{AT_END} entries in all 3; found 65535, {GO_BY}"),
    "another disk": (zipped(disk=1), f"{AT_END} disk 0; found 1, {GO_BY}"),
    "a list on another disk": (zipped(list_disk=1), f"{AT_END} disk of the list 0; found 1, {GO_BY}"),
    "other entries in the record of 64 bits": (
        zipped(wide={"here": 2, "all": 2}),
        f"{AT_END} entries 3; found 2, {GO_BY}",
    ),
    "other entries beside the record of 64 bits": (
        zipped(wide={}, here=2),
        f"{AT_END} entries 3; found 2, {GO_BY}",
    ),
    "another place of the record of 64 bits": (
        zipped(wide={"found_at": 7}),
        f"must give the right position of its 64-bit record, {len(zipped()) - 22}, at its end; found 7, {GO_BY}",
    ),
    "no disk with the record of 64 bits": (
        zipped(wide={"disks": 0}),
        f"must be on one disk; found 0 in the record at its end: {ZIP_AGAIN}",
    ),
    "another place beside the record of 64 bits": (
        zipped(wide={}, offset=0),
        f"{AT_END} place of the list {len(zipped()) - 22 - 159}; found 0, {GO_BY}",
    ),
}


@pytest.mark.parametrize(("content", "message"), WHOLE.values(), ids=WHOLE)
def test_a_zip_of_two_lists(content, message, tmp_path):
    assert look(content, tmp_path) == ({}, [f": error: {message}"])
