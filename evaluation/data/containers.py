"""Checks of audio containers, which refuse damaged files and make the decoder read the whole file.

libsndfile reports no error for a file that was cut off: it decodes the file as if it were shorter. Each container has
its own record of its length. This module has one function for each container, which compares this record with the bytes
of the file. WAV, RF64, Wave64, AIFF, AU and CAF have sizes in their headers, so only headers are read. In Ogg and MP3
files, the headers of all pages or frames are read. The header of a FLAC file states its number of samples, which the
decoder compares with the audio.

The functions for WAV, Ogg and MP3 also return the sources to decode one after the other. A source is the path of the
file, or bytes if the decoder would not read the whole file: an MP3 without its length, joined files, or a WAV that was
never finished.
"""

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias, cast

Source: TypeAlias = Path | io.BytesIO
ByteOrder: TypeAlias = Literal["big", "little"]
MOST_CHUNKS = 10_000  # maximum number of chunks to read of a file; audio programs write far fewer
MOST_COMPRESSED = 2**31  # maximum size of an Ogg, MP3 or FLAC file in bytes; such files are read into memory


class UnusableSound(Exception):
    """An audio file that cannot be used; the docstring of `evaluation.data.audio` lists the reasons."""


def sources(path: Path) -> list[Source]:
    """Check a file, and return the sources to decode one after the other to read the whole file.

    The path of an unknown container is returned without a check, because the decoder reports the error.

    Args:
        path: The audio file. The container is recognised from its content, not from its name.

    Returns:
        The path, or the parts of the file as bytes.

    Raises:
        UnusableSound: The file is cut off, damaged, was never finished, or is too large, or it consists of joined files
            that the decoder cannot read one after the other.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = _after_id3(file)
        magic = _read(file, start, 12)
        kind = magic[:4]
        if kind in (b"RIFF", b"RIFX") and magic[8:] == b"WAVE":
            return _wav(path, file, start, size)
        if kind == b"RF64":
            _check_rf64(file, start, size)
        elif kind == b"riff":
            _check_wave64(file, start, size)
        elif kind == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
            _check_aiff(file, start, size)
        elif kind in (b".snd", b"dns."):
            _check_au(file, start, size)
        elif kind == b"caff":
            _check_caf(file, start, size)
        elif kind in (b"fLaC", b"OggS") or path.suffix.lower() == ".mp3" or _is_sync(magic):
            if size > MOST_COMPRESSED:
                raise UnusableSound(f"must have at most {MOST_COMPRESSED:,} bytes; found {size:,}: cut it into clips")
            content = _read(file, 0, size)
            if kind == b"fLaC":
                _check_flac(content, start)
            elif kind == b"OggS":
                return _ogg(path, content, start)
            elif size:
                return _mp3(path, content, start)
    return [path]


def _cut_off(there: int, promised: int) -> UnusableSound:
    return UnusableSound(f"is cut off: {there} of the {promised} bytes that its header promises; copy it again")


def _joined(kind: str) -> UnusableSound:
    return UnusableSound(f"must be one {kind} file; another file follows after its end: split it or convert both again")


def _unfinished(there: int) -> UnusableSound:
    message = f"was never finished: its header promises no audio, but {there} bytes follow"
    return UnusableSound(f"{message}; repair it with the program that recorded it")


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    if start >= os.fstat(file.fileno()).st_size:  # a damaged size may be larger than any file position
        return b""
    file.seek(start)
    return file.read(count)


def _number(content: bytes, start: int, count: int, order: ByteOrder = "big") -> int:
    return int.from_bytes(content[start : start + count], order)


def _after_id3(file: BinaryIO) -> int:
    """Return the position after the ID3v2 tags of a file, which libsndfile also skips."""
    start = 0
    while length := _id3_length(_read(file, start, 10)):
        start += length
    return start


def _id3_length(header: bytes) -> int:
    """Return the length of an ID3v2 tag in bytes from its header of ten bytes, or 0 if the bytes are another header.

    Source: ID3v2.4, section 3.1: the size has four bytes with seven bits each and does not include the ten bytes of the
    header. If bit 4 of the flags is set, there is a footer of ten bytes.
    """
    if len(header) < 10 or header[:3] != b"ID3" or max(header[6:10]) > 127:
        return 0
    size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
    has_footer = header[5] & 0x10
    if has_footer:
        return size + 20
    return size + 10


# Containers of chunks ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chunk:
    """A chunk of a file: its name, the position of its content, and the number of bytes according to its header."""

    name: bytes
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


def _chunks(file: BinaryIO, start: int, order: ByteOrder) -> Iterator[_Chunk]:
    """Yield the chunks of a file in the form of EA IFF 85 (1985), such as RIFF and AIFF.

    Each chunk begins with four bytes for its name and four bytes for its size. A chunk with an odd number of bytes is
    followed by a padding byte, which its size does not include.
    """
    for _ in range(MOST_CHUNKS):
        header = _read(file, start, 8)
        if len(header) < 8:
            return
        chunk = _Chunk(header[:4], start + 8, _number(header, 4, 4, order))
        yield chunk
        start = chunk.end + chunk.size % 2


def _find(chunks: Iterator[_Chunk], name: bytes) -> _Chunk | None:
    return next((chunk for chunk in chunks if chunk.name == name), None)


# Programs that write to a pipe, and recorders before they stop, do not know the size of the file. They write the
# largest possible size (FFmpeg), or one of about 2 GiB (SoX 0x7ffff000, arecord 0x80000000). libsndfile then reads to
# the end.
_PLACEHOLDER = 0x7FFF0000


def _wav(path: Path, file: BinaryIO, start: int, size: int) -> list[Source]:
    """Check a WAV file with the sizes in its RIFF header and in its data chunk.

    Source: Multimedia Programming Interface and Data Specifications 1.0 (IBM and Microsoft, 1991), chapter 2. If a
    recorder stops before it writes the sizes, the data chunk has size 0 and bytes follow after the end of the RIFF
    chunk. The audio then extends to the end of the file.
    """
    header = _read(file, start, 8)
    order: ByteOrder = "little" if header[:4] == b"RIFF" else "big"
    riff = _Chunk(header[:4], start + 8, _number(header, 4, 4, order))
    riff_end = riff.end if riff.size < _PLACEHOLDER else 0
    data = _find(_chunks(file, start + 12, order), b"data")
    if data is None:
        if riff_end > size:
            raise _cut_off(size, riff_end)
        return [path]  # the decoder reports the error
    if data.size == 0 and size > max(riff_end, data.start):
        content = bytearray(_read(file, 0, size))
        content[data.start - 4 : data.start] = b"\xff\xff\xff\xff"
        return [io.BytesIO(content)]
    if data.size >= _PLACEHOLDER:
        return [path]
    if data.end > size or riff_end > size + 1:  # a byte that only makes the size even may be missing
        raise _cut_off(size, max(data.end, riff_end))
    if _read(file, riff_end, 4) == riff.name and riff_end > data.start:
        raise _joined("WAV")
    return [path]


def _check_rf64(file: BinaryIO, start: int, size: int) -> None:
    """Check an RF64 file with the sizes in its first chunk, ds64, which have 64 bits.

    Source: EBU Tech 3306 (2009), section 3.
    """
    sizes = _find(_chunks(file, start + 12, "little"), b"ds64")
    data = _find(_chunks(file, start + 12, "little"), b"data")
    if sizes is None or data is None:
        raise UnusableSound("is cut off or damaged: it has no ds64 or no data chunk; copy it again")
    content = _read(file, sizes.start, 16)
    riff_end = start + 8 + _number(content, 0, 8, "little")
    data_size = data.size
    if data_size == 0xFFFFFFFF:
        data_size = _number(content, 8, 8, "little")
    if data_size == 0 and size > max(riff_end, data.start):
        raise _unfinished(size - data.start)
    if data.start + data_size > size or riff_end > size + 1:
        raise _cut_off(size, max(data.start + data_size, riff_end))
    if _read(file, riff_end, 4) == b"RF64":
        raise _joined("RF64")


def _check_wave64(file: BinaryIO, start: int, size: int) -> None:
    """Check a Wave64 file with the sizes of its chunks.

    Chunks begin at multiples of 8 bytes. A chunk has a header of 24 bytes: a name (a GUID) of 16 bytes and a size of 8
    bytes. The size of a chunk includes this header. Source: Sony Wave64 specification (Sonic Foundry, 2003).
    """
    riff_end = start + _number(_read(file, start + 16, 8), 0, 8, "little")
    position = start + 40
    for _ in range(MOST_CHUNKS):
        header = _read(file, position, 24)
        length = _number(header, 16, 8, "little")
        if header[:4] == b"data" or length < 24:
            break
        position += -(-length // 8) * 8
    if header[:4] == b"data":
        sound_start, sound_end = position + 24, position + length
        if length <= 24 and size > max(riff_end, sound_start):
            raise _unfinished(size - sound_start)
        if sound_end > size:
            raise _cut_off(size, max(riff_end, sound_end))
    if riff_end > size + 7:  # padding bytes up to a multiple of 8 may be missing
        raise _cut_off(size, riff_end)
    if _read(file, riff_end, 4) == b"riff":
        raise _joined("Wave64")


def _check_aiff(file: BinaryIO, start: int, size: int) -> None:
    """Check an AIFF or AIFF-C file with the sizes in its FORM header and in its chunk SSND, which contains the audio.

    Source: Audio Interchange File Format 1.3 (Apple, 1989). SSND begins with eight bytes that are not audio.
    """
    form_end = start + 8 + _number(_read(file, start, 8), 4, 4)
    sound = _find(_chunks(file, start + 12, "big"), b"SSND")
    sound_end = 0
    if sound is not None:
        sound_end = sound.end
        if sound.size <= 8 and size > max(form_end, sound.start + 8):
            raise _unfinished(size - sound.start - 8)
    if sound_end > size or form_end > size + 1:  # a byte that only makes the size even may be missing
        raise _cut_off(size, max(sound_end, form_end))
    if _read(file, form_end, 4) == b"FORM":
        raise _joined("AIFF")


def _check_au(file: BinaryIO, start: int, size: int) -> None:
    """Check an AU file, whose header states the start of the audio and its number of bytes.

    If all bits of the number are ones, the number is not known. Source: audio_filehdr of SunOS (Sun Microsystems,
    1992). The magic is `.snd`, or `dns.` with all bytes swapped.
    """
    header = _read(file, start, 12)
    order: ByteOrder = "big" if header[:4] == b".snd" else "little"
    begin = start + _number(header, 4, 4, order)
    length = _number(header, 8, 4, order)
    if length == 0 and size > begin:
        raise _unfinished(size - begin)
    if length == 0xFFFFFFFF:
        return
    if begin + length > size:
        raise _cut_off(size, begin + length)
    if _read(file, begin + length, 4) == header[:4]:
        raise _joined("AU")


def _check_caf(file: BinaryIO, start: int, size: int) -> None:
    """Check that every chunk of a CAF file is complete.

    Audio of size -1 extends to the end of the file. Source: Apple Core Audio Format Specification 1.0. A header of 8
    bytes is followed by chunks, which have a name, a signed size of 64 bits and content. The chunk `data` contains the
    audio.
    """
    position = start + 8
    has_sound = False
    for _ in range(MOST_CHUNKS):
        if position >= size:
            break
        header = _read(file, position, 12)
        length = int.from_bytes(header[4:], "big", signed=True)
        if header[:4] == b"caff":
            raise _joined("CAF")
        if header[:4] == b"data":
            has_sound = True
            if length == -1:
                return
        if length < 0:
            break
        position += 12 + length
        if len(header) < 12 or position > size:
            raise _cut_off(size, max(position, size + 12 - len(header)))
    if not has_sound:
        raise UnusableSound("is cut off or damaged: it has no data chunk; copy it again")


# Containers of frames and pages --------------------------------------------------------------------------------------


def _check_flac(content: bytes, start: int) -> None:
    """Check that a FLAC file has its number of samples, which the decoder compares, and that it is a single file.

    Source: RFC 9639, section 8.2. STREAMINFO is the first block. It has the number of samples per channel in 36 bits,
    which begin in the middle of the file's byte 21 (counted from 0). A number of 0 means that it is not known.
    """
    samples = _number(content, start + 18, 8) & (1 << 36) - 1
    if len(content) >= start + 26 and samples == 0:
        message = "must have its number of samples in its header; found 0, as in FLAC files that were written to a pipe"
        raise UnusableSound(f"{message}; decode it and encode it again: flac -d, then flac")
    if content.find(b"fLaC\x00\x00\x00\x22", start + 4) > 0:
        raise _joined("FLAC")


_OGG_HEADER = 27  # bytes, before the table of segments
_OGG_FIRST, _OGG_LAST = 2, 4  # flags of a page: the first and the last one of its stream
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg(path: Path, content: bytes, start: int) -> list[Source]:
    """Check every page of an Ogg file, and split a file of several streams, because the decoder reads only one.

    Source: RFC 3533, section 6. A page has the name OggS, flags, the serial number of its stream, its own number, a
    checksum, and a table of the lengths of its segments. A flag marks the last page of a stream.
    """
    begins: list[int] = []
    position, number, serial, flags = start, 0, b"", _OGG_LAST
    while content[position : position + 4] == b"OggS":
        header = content[position : position + _OGG_HEADER]
        if len(header) < _OGG_HEADER:
            raise UnusableSound("is cut off in the middle of an Ogg page; copy it again")
        body = position + _OGG_HEADER + header[26]
        end = body + sum(content[position + _OGG_HEADER : body])
        if end > len(content) or body > len(content):
            raise UnusableSound("is cut off in the middle of an Ogg page; copy it again")
        first, ended = header[5] & _OGG_FIRST, flags & _OGG_LAST
        if first and ended:
            begins.append(position)
            number, serial = _number(header, 18, 4, "little"), header[14:18]
        elif first:
            raise UnusableSound("must have one Ogg stream at a time; found several at once: extract the audio stream")
        elif header[14:18] != serial or _number(header, 18, 4, "little") != number:
            raise UnusableSound(f"is damaged: Ogg pages are missing before byte {position}; copy it again")
        if _ogg_checksum(content[position:end]) != _number(header, 22, 4, "little"):
            raise UnusableSound(f"is damaged: the Ogg page at byte {position} has another checksum; copy it again")
        position, number, flags = end, (number + 1) % 2**32, header[5]
    if content.find(b"OggS", position) >= 0:
        raise UnusableSound(f"is damaged: there is no Ogg page at byte {position}; copy it again")
    if not flags & _OGG_LAST:
        raise UnusableSound("is cut off: its last Ogg page is not marked as the end; copy it again")
    if len(begins) < 2:
        return [path]
    ends = [*begins[1:], position]
    return [io.BytesIO(content[begin:end]) for begin, end in zip(begins, ends, strict=True)]


def _ogg_checksum(page: bytes) -> int:
    """Return the CRC-32 of a page with zeros in its checksum field.

    The polynomial is the usual one, but Ogg reads the highest bit of a byte first. zlib reads the lowest bit first and
    inverts the register before and after. So this function reverses the bits and undoes both inversions.
    """
    reversed_page = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED_BITS)
    checksum = zlib.crc32(reversed_page, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{checksum:032b}"[::-1], 2)


# MP3 -----------------------------------------------------------------------------------------------------------------
# Sources: The four bytes of a frame's header are defined in ISO/IEC 11172-3 (1993), section 2.4.1.3, and for half the
# sample rates in 13818-3 (1995). MPEG 2.5, with a quarter of the sample rates, is Fraunhofer's extension. The number of
# frames is in the header of Xing's VBR SDK (1998), which LAME also writes, or in Fraunhofer's VBRI header. Both headers
# are in a frame without audio.

_MPEG_1, _MPEG_2, _MPEG_25 = 3, 2, 0
_LAYER_3 = 1
_MONO = 3
_KILOBITS = {  # kbit/s for the header's indices 1 to 14; index 0 means free format, and 15 is forbidden
    _MPEG_1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    _MPEG_2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    _MPEG_25: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {  # Hz
    _MPEG_1: (44100, 48000, 32000),
    _MPEG_2: (22050, 24000, 16000),
    _MPEG_25: (11025, 12000, 8000),
}
# The headers of LAME and FFmpeg do not count their own frame; headers of other encoders may count it.
_COUNT_WITHOUT_OWN = (b"LAME", b"Lavf", b"Lavc", b"L3.9")


@dataclass(frozen=True)
class _Frame:
    """The content of the header of an MP3 frame.

    Attributes:
        size: Number of bytes of the whole frame.
        stream: The properties that all frames of a file share: MPEG version, sample rate in Hz, and True for mono.
        side: Number of bytes of the side information, which a Xing header follows.
    """

    size: int
    stream: tuple[int, int, bool]
    side: int


@lru_cache(maxsize=4096)
def _mp3_frame(header: bytes) -> _Frame | None:
    """Read the four bytes of a frame's header, or return None if they are not a header of MPEG Layer III."""
    if not _is_sync(header) or len(header) < 4:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bit_rate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version not in _RATES or layer != _LAYER_3 or bit_rate in (0, 15) or rate == 3:
        return None
    mono = header[3] >> 6 == _MONO
    hertz = _RATES[version][rate]
    slots = 144 if version == _MPEG_1 else 72  # an eighth of the number of samples in a frame, 1152 or 576
    size = slots * 1000 * _KILOBITS[version][bit_rate - 1] // hertz + padding
    stereo_side, mono_side = (32, 17) if version == _MPEG_1 else (17, 9)
    side = mono_side if mono else stereo_side
    return _Frame(size, (version, hertz, mono), side)


def _is_sync(content: bytes) -> bool:
    """Return True if the first eleven bits are set, as in a frame of any MPEG layer."""
    return len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0


@dataclass
class _Mp3Part:
    """The frames of one of the MP3 files that are joined in a file.

    Attributes:
        header: The frame with a Xing or VBRI header; empty if there is no such frame.
        promised: Number of frames with audio according to the header; None if the header does not state it.
        counts_itself: True if `promised` may include the header's own frame.
        spans: Start and end positions of the frames in bytes; successive frames share a span.
        frames: Number of frames that were found.
    """

    header: bytes = b""
    promised: int | None = None
    counts_itself: bool = False
    spans: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0

    def add(self, start: int, end: int) -> None:
        if self.spans and self.spans[-1][1] == start:
            start = self.spans.pop()[0]
        self.spans.append((start, end))
        self.frames += 1

    @property
    def whole(self) -> bool:
        """True if the part has all frames that its header promises."""
        if self.promised is None:
            return True
        return self.frames >= self.promised - self.counts_itself


def _mp3(path: Path, content: bytes, start: int) -> list[Source]:
    """Check that an MP3 has all its frames, and make the decoder read all of them.

    libsndfile reads the number of frames that the first header states. Without a header, it assumes that all frames are
    as long as the first. So libsndfile gets the path of the file only if the header is correct. Otherwise it gets the
    frames, after a header with their correct number. If several MP3 files were joined into this one, it gets each of
    them in this form. This also avoids libsndfile's warnings, which go to standard error and do not name the file.
    """
    first = _next_mp3_frame(content, start)
    if first is None:
        raise UnusableSound("does not decode (Format not recognised); replace the file")
    begin, first_frame = first
    position, stream = begin, first_frame.stream
    parts: list[_Mp3Part] = []
    missing = 0  # number of missing bytes of the last frame
    while position < len(content):
        frame = _mp3_frame(content[position : position + 4])
        if frame is None or frame.stream != stream:
            after = _after_tags(content, position, stream)
            if after is None:
                remaining = content[position:]
                if len(remaining) < 4 and remaining[0] == 0xFF:  # the beginning of a frame's header
                    missing = 4 - len(remaining)
                else:
                    missing = 0
                break
            position = after
            continue
        end = position + frame.size
        part = _mp3_header(content[position:end], frame)
        if part is not None:
            parts.append(part)
        elif end > len(content):
            missing = end - len(content)
        else:
            if not parts:
                parts.append(_Mp3Part())
            parts[-1].add(position, end)
        position = end
    for part in parts:
        if not part.whole:
            message = f"is cut off: {part.frames} of the {part.promised} MP3 frames that its header promises"
            raise UnusableSound(f"{message}; copy it again")
    if missing and (not parts or parts[-1].promised is None):
        raise UnusableSound(f"is cut off: its last MP3 frame lacks {missing} bytes; copy it again")
    if len(parts) == 1 and begin == start and _is_consistent(parts[0], len(content)):
        return [path]
    return [io.BytesIO(_mp3_stream(part, content)) for part in parts if part.frames]


def _next_mp3_frame(content: bytes, start: int) -> tuple[int, _Frame] | None:
    """Return the position and the header of the next frame, or None if no frame follows.

    Other bytes may look like a header. So the frame must be followed by another frame of its stream, or by the end of
    the file.
    """
    position = content.find(b"\xff", start)
    while position >= 0:
        frame = _mp3_frame(content[position : position + 4])
        if frame is not None:
            end = position + frame.size
            after = _mp3_frame(content[end : end + 4])
            if end == len(content) or (after is not None and after.stream == frame.stream):
                return position, frame
        position = content.find(b"\xff", position + 1)
    return None


def _after_tags(content: bytes, position: int, stream: tuple[int, int, bool]) -> int | None:
    """Return the position of the next frames after tags or zeros, or None if no frames follow.

    Raises:
        UnusableSound: The bytes before the next frames are neither tags nor zeros, or the frames have another MPEG
            version, sample rate or number of channels.
    """
    length = _id3_length(content[position : position + 10])
    if content[position : position + 3] == b"TAG":  # ID3v1
        length = 128
    if content[position : position + 8] == b"APETAGEX":  # APEv2: the size does not include the 32 bytes of the header
        length = 32 + _number(content, position + 12, 4, "little")
    following = _next_mp3_frame(content, position + length)
    if following is None:
        return None
    after, frame = following
    if frame.stream != stream:
        message = "changes its sample rate or its number of channels"
        raise UnusableSound(f"is damaged, or joined of several: it {message} at byte {after}; convert it again")
    if content[position + length : after].strip(b"\x00"):
        raise UnusableSound(f"is damaged: there is no MP3 frame at byte {position + length}; copy it again")
    return after


def _mp3_header(content: bytes, frame: _Frame) -> _Mp3Part | None:
    """Return a new part of a file if a frame has a Xing or VBRI header instead of audio, or None."""
    for place in (4 + frame.side, 6 + frame.side):  # the second if the frame has a checksum
        if content[place : place + 4] in (b"Xing", b"Info"):
            has_frames = content[place + 7 : place + 8] and content[place + 7] & 1
            promised = _number(content, place + 8, 4) if has_frames else 0
            counts_itself = content[place + 120 : place + 124] not in _COUNT_WITHOUT_OWN
            return _Mp3Part(content, promised or None, counts_itself)
    if content[36:40] == b"VBRI":  # always after 32 bytes; the count is at byte 14
        return _Mp3Part(content, _number(content, 36 + 14, 4) or None, counts_itself=True)
    return None


def _is_consistent(part: _Mp3Part, size: int) -> bool:
    """Return True if the header of a file's only part states the correct numbers of frames and, roughly, bytes.

    The decoder warns if the number of bytes differs by more than 1 %. Long tags cause such a difference.
    """
    place = max(part.header.find(b"Xing"), part.header.find(b"Info"))
    if part.promised != part.frames or place < 0 or len(part.spans) != 1:
        return False
    has_bytes = part.header[place + 7] & 2
    promised_bytes = _number(part.header, place + 12, 4)
    return not has_bytes or abs(size - promised_bytes) < 0.005 * size


def _mp3_stream(part: _Mp3Part, content: bytes) -> bytes:
    """Return a correct header and the frames of a part; the header is the part's own if that is correct."""
    frames = b"".join(content[start:end] for start, end in part.spans)
    own = max(part.header.find(b"Xing"), part.header.find(b"Info"))
    if own >= 0 and part.promised == part.frames:
        own_header = bytearray(part.header)
        if own_header[own + 7] & 2:
            own_header[own + 12 : own + 16] = (len(own_header) + len(frames)).to_bytes(4, "big")
        return bytes(own_header) + frames
    first = frames[:4]
    # No checksum, and the highest bit rate, so that the frame is large enough for the header.
    start = bytes([first[0], first[1] | 1, 14 << 4 | first[2] & 0b1100, first[3]])
    frame = cast(_Frame, _mp3_frame(start))  # not None: `start` differs from a valid header only in its bit rate
    flags = 0b11  # the header has both numbers: of frames (bit 0) and of bytes (bit 1)
    numbers = [flags, part.frames, frame.size + len(frames)]
    header = start + bytes(frame.side) + b"Xing" + b"".join(number.to_bytes(4, "big") for number in numbers)
    return header.ljust(frame.size, b"\x00") + frames
