"""Sound files that are cut off or damaged, and what of a file to give to the decoder so that all of it is read.

libsndfile decodes what is left of a file that was cut off as if the file were shorter. Every container says, each in
its own way, how much sound it holds. For each container there is one function here that compares this with the bytes
that are there. WAV, RF64, Wave64, AIFF, AU and CAF have sizes in their headers, and only headers are read. Ogg pages
and MP3 frames are walked through from header to header. FLAC has the number of samples, which the decoder compares.

Each function returns the sources to decode one after the other: the path itself, or bytes where the file on disk would
not be read whole (an MP3 that does not say how long it is, files that were joined, a WAV that was never finished).
"""

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

Source = Path | io.BytesIO
MOST_CHUNKS = 10_000  # of a file; one that has more was not written by an audio program
MOST_COMPRESSED = 2**31  # bytes of an Ogg, MP3 or FLAC file, which is read into memory


class UnusableSound(Exception):
    """A sound file that cannot be used; the docstring of `evaluation.data.audio` lists the reasons."""


def sources(path: Path) -> list[Source]:
    """Return what to decode, one after the other, to read the whole sound of a file.

    A file of an unknown kind is returned as it is: the decoder says what is wrong with it.

    Args:
        path: The sound file. Its content decides which container it is, not its name.

    Returns:
        The path, or the parts of the file as bytes.

    Raises:
        UnusableSound: The file is cut off or damaged.
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
    return UnusableSound(f"must be one {kind} file; another one follows after its end: split it, or convert both again")


def _unfinished(there: int) -> UnusableSound:
    message = f"was never finished: its header promises no sound, and {there} bytes follow"
    return UnusableSound(f"{message}; repair it with the program that recorded it")


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    if start >= os.fstat(file.fileno()).st_size:  # a damaged size may be larger than a file position can be
        return b""
    file.seek(start)
    return file.read(count)


def _number(content: bytes, start: int, count: int, order: str = "big") -> int:
    return int.from_bytes(content[start : start + count], order)


def _after_id3(file: BinaryIO) -> int:
    """Return where a file begins behind its ID3v2 tags, which libsndfile skips too."""
    start = 0
    while length := _id3_length(_read(file, start, 10)):
        start += length
    return start


def _id3_length(header: bytes) -> int:
    """Return the length of an ID3v2 tag in bytes; 0 where the ten bytes begin none.

    Source: ID3v2.4, section 3.1: a size of four bytes with seven bits each, which leaves the header of ten bytes out,
    and a footer of ten bytes where bit 4 of the flags says so.
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
    """A chunk of a file: its name, where its content begins, and how many bytes the header says that it has."""

    name: bytes
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


def _chunks(file: BinaryIO, start: int, order: str) -> Iterator[_Chunk]:
    """Walk the chunks of EA IFF 85 (1985), of which RIFF and AIFF are kinds: four bytes of name, four of size.

    A chunk of an odd number of bytes is followed by one byte more, which its size does not count.
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


# Programs that write to a pipe, and recorders before they stop, do not know the size: they write the greatest that the
# field holds (FFmpeg), or one about 2 GiB (SoX 0x7ffff000, arecord 0x80000000). libsndfile then reads to the end.
_PLACEHOLDER = 0x7FFF0000


def _wav(path: Path, file: BinaryIO, start: int, size: int) -> list[Source]:
    """Check a WAV file by the sizes of its RIFF header and its data chunk.

    Source: Multimedia Programming Interface and Data Specifications 1.0 (IBM and Microsoft, 1991), chapter 2. A data
    chunk of size 0 with bytes behind the end of the RIFF chunk is what a recorder leaves that stopped before it had
    entered the sizes: the sound then goes to the end of the file.
    """
    header = _read(file, start, 8)
    order = "little" if header[:4] == b"RIFF" else "big"
    riff = _Chunk(header[:4], start + 8, _number(header, 4, 4, order))
    riff_end = riff.end if riff.size < _PLACEHOLDER else 0
    data = _find(_chunks(file, start + 12, order), b"data")
    if data is None:
        if riff_end > size:
            raise _cut_off(size, riff_end)
        return [path]  # the decoder says what is wrong
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
    """Check an RF64 file: the sizes are 64 bits wide and stand in the chunk ds64, the first one.

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
    """Check a Wave64 file: names are GUIDs of 16 bytes, sizes 64 bits wide, and chunks begin at multiples of 8 bytes.

    A size counts the 24 bytes of name and size too. Source: Sony Wave64 specification (Sonic Foundry, 2003).
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
    if riff_end > size + 7:  # bytes that only fill up to a multiple of 8 may be missing
        raise _cut_off(size, riff_end)
    if _read(file, riff_end, 4) == b"riff":
        raise _joined("Wave64")


def _check_aiff(file: BinaryIO, start: int, size: int) -> None:
    """Check an AIFF or AIFF-C file by the sizes of its FORM header and its chunk SSND, which holds the sound.

    Source: Audio Interchange File Format 1.3 (Apple, 1989). SSND begins with eight bytes that are no sound.
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
    """Check an AU file: its header says where the sound begins and how many bytes it has, all ones for not known.

    Source: audio_filehdr of SunOS (Sun Microsystems, 1992); the magic is `.snd`, or `dns.` with all bytes swapped.
    """
    header = _read(file, start, 12)
    order = "big" if header[:4] == b".snd" else "little"
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
    """Check a CAF file: every chunk must be there in full; the size -1 is that of a sound that goes to the end.

    Source: Apple Core Audio Format Specification 1.0: after a header of 8 bytes, chunks of a name, a signed size of 64
    bits and content, the chunk `data` among them.
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
    """Check that a FLAC file says how many samples it has, as the decoder then makes sure of, and that it is one file.

    Source: RFC 9639, section 8.2: STREAMINFO is the first block, and ends its byte 18 with 36 bits of samples a
    channel, 0 for not known.
    """
    samples = _number(content, start + 18, 8) & (1 << 36) - 1
    if len(content) >= start + 26 and samples == 0:
        message = "does not say how many samples it has, as FLAC files do that were written to a pipe"
        raise UnusableSound(f"{message}; decode it and encode it again: flac -d, then flac")
    if content.find(b"fLaC\x00\x00\x00\x22", start + 4) > 0:
        raise _joined("FLAC")


_OGG_HEADER = 27  # bytes, before the table of segments
_OGG_FIRST, _OGG_LAST = 2, 4  # flags of a page: the first and the last one of its stream
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg(path: Path, content: bytes, start: int) -> list[Source]:
    """Check every page of an Ogg file, and split it where one stream follows another, of which one would be read.

    Source: RFC 3533, section 6: a page has the name OggS, flags, the stream's serial number, its own number, a
    checksum, and a table of the lengths of its segments. The last page of a stream is marked as such.
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
            raise UnusableSound("must hold one Ogg stream at a time; found several at once: extract the sound")
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
    """Return the CRC-32 of a page, whose own field counts as zero: the usual polynomial, the highest bit first.

    zlib takes the lowest bit first, and inverts the register before and after: bits are turned around, and both undone.
    """
    reversed_page = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED_BITS)
    checksum = zlib.crc32(reversed_page, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{checksum:032b}"[::-1], 2)


# MP3 -----------------------------------------------------------------------------------------------------------------
# Sources: ISO/IEC 11172-3 (1993), section 2.4.1.3, and 13818-3 (1995) for half the sample rates: the frame's header of
# four bytes. MPEG 2.5, with a quarter of them, is Fraunhofer's extension. The header that says how many frames follow
# is that of Xing's VBR SDK (1998), which LAME writes too, or Fraunhofer's VBRI; it lies in a frame without sound.

_MPEG_1, _MPEG_2, _MPEG_25 = 3, 2, 0
_LAYER_3 = 1
_MONO = 3
_KILOBITS = {  # of a second, by the header's index; index 0 leaves them open, 15 is forbidden
    _MPEG_1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    _MPEG_2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    _MPEG_25: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {  # Hz
    _MPEG_1: (44100, 48000, 32000),
    _MPEG_2: (22050, 24000, 16000),
    _MPEG_25: (11025, 12000, 8000),
}
# A LAME or FFmpeg header leaves its own frame out of the count; headers of other encoders may count it.
_COUNT_WITHOUT_OWN = (b"LAME", b"Lavf", b"Lavc", b"L3.9")


@dataclass(frozen=True)
class _Frame:
    """What the header of an MP3 frame says.

    Attributes:
        size: Bytes of the whole frame.
        stream: What all frames of a file have in common: MPEG version, sample rate in Hz, whether it is mono.
        side: Bytes of the side information, behind which a Xing header stands.
    """

    size: int
    stream: tuple[int, int, bool]
    side: int


@lru_cache(maxsize=4096)
def _mp3_frame(header: bytes) -> _Frame | None:
    """Read the four bytes of a frame's header; None where they are not those of MPEG Layer III."""
    if not _is_sync(header) or len(header) < 4:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bit_rate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version not in _RATES or layer != _LAYER_3 or bit_rate in (0, 15) or rate == 3:
        return None
    mono = header[3] >> 6 == _MONO
    hertz = _RATES[version][rate]
    slots = 144 if version == _MPEG_1 else 72  # an eighth of the samples of a frame, 1152 or 576
    size = slots * 1000 * _KILOBITS[version][bit_rate - 1] // hertz + padding
    stereo_side, mono_side = (32, 17) if version == _MPEG_1 else (17, 9)
    side = mono_side if mono else stereo_side
    return _Frame(size, (version, hertz, mono), side)


def _is_sync(content: bytes) -> bool:
    """Return whether bytes begin as a frame of any MPEG layer does, with eleven bits that are set."""
    return len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0


@dataclass
class _Mp3Part:
    """The frames of an MP3 that belong together.

    Attributes:
        header: The frame with a Xing header; empty where there is none.
        promised: How many frames of sound the header promises; None where it does not say.
        counts_itself: Whether the header's own frame may be among them.
        spans: Where frames lie, from byte to byte.
        frames: How many there are.
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
        """Whether all frames are there that the header promises."""
        if self.promised is None:
            return True
        return self.frames >= self.promised - self.counts_itself


def _mp3(path: Path, content: bytes, start: int) -> list[Source]:
    """Check that all frames of an MP3 are there, and make sure that the decoder reads as many.

    libsndfile reads as many frames as the first header promises; where there is none, as many as there would be if all
    were as long as the first. It is therefore given the file's own bytes only where the header is right. Otherwise it
    is given the frames behind a header that says how many there are, those of each joined file by themselves. It then
    has nothing to warn of, either: its warnings go to standard error and do not name the file.
    """
    position = _next_mp3_frame(content, start)
    if position is None:
        raise UnusableSound("does not decode (Format not recognised); replace the file")
    begin = position
    parts: list[_Mp3Part] = []
    missing = 0  # bytes of the last frame
    stream = None
    while position < len(content):
        frame = _mp3_frame(content[position : position + 4])
        if frame is None or (stream is not None and frame.stream != stream):
            rest = content[position:]
            position = _behind_tags(content, position, stream)
            if position is None:
                missing = 4 - len(rest) if len(rest) < 4 and rest[0] == 0xFF else 0
                break
            continue
        stream = frame.stream
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


def _next_mp3_frame(content: bytes, start: int) -> int | None:
    """Return where the next two frames of one stream follow each other, or one frame ends the file; None if nowhere."""
    position = content.find(b"\xff", start)
    while position >= 0:
        frame = _mp3_frame(content[position : position + 4])
        if frame is not None:
            end = position + frame.size
            after = _mp3_frame(content[end : end + 4])
            if end == len(content) or (after is not None and after.stream == frame.stream):
                return position
        position = content.find(b"\xff", position + 1)
    return None


def _behind_tags(content: bytes, position: int, stream: tuple[int, int, bool]) -> int | None:
    """Return where frames follow after tags or zeros that are no sound; None where no frames follow.

    Raises:
        UnusableSound: Frames of the same file follow after bytes that are neither, or frames of another kind.
    """
    length = _id3_length(content[position : position + 10])
    if content[position : position + 3] == b"TAG":  # ID3v1
        length = 128
    if content[position : position + 8] == b"APETAGEX":  # APEv2: the size leaves the header of 32 bytes out
        length = 32 + _number(content, position + 12, 4, "little")
    after = _next_mp3_frame(content, position + length)
    if after is None:
        return None
    if _mp3_frame(content[after : after + 4]).stream != stream:
        message = "changes its sample rate or its number of channels"
        raise UnusableSound(f"is damaged, or joined of several: it {message} at byte {after}; convert it again")
    if content[position + length : after].strip(b"\x00"):
        raise UnusableSound(f"is damaged: there is no MP3 frame at byte {position + length}; copy it again")
    return after


def _mp3_header(content: bytes, frame: _Frame) -> _Mp3Part | None:
    """Return the part of a file that begins with a frame, where the frame holds no sound but a header."""
    for place in (4 + frame.side, 6 + frame.side):  # the latter where the frame has a checksum
        if content[place : place + 4] in (b"Xing", b"Info"):
            has_frames = content[place + 7 : place + 8] and content[place + 7] & 1
            promised = _number(content, place + 8, 4) if has_frames else 0
            counts_itself = content[place + 120 : place + 124] not in _COUNT_WITHOUT_OWN
            return _Mp3Part(content, promised or None, counts_itself)
    if content[36:40] == b"VBRI":  # always behind 32 bytes of side information; the count is ten bytes further
        return _Mp3Part(content, _number(content, 36 + 14, 4) or None, counts_itself=True)
    return None


def _is_consistent(part: _Mp3Part, size: int) -> bool:
    """Return whether the header of a file's only part is right, in the number of frames and roughly in bytes.

    The decoder warns where the number of bytes is off by more than 1 %, as it is with long tags.
    """
    place = max(part.header.find(b"Xing"), part.header.find(b"Info"))
    if part.promised != part.frames or place < 0 or len(part.spans) != 1:
        return False
    has_bytes = part.header[place + 7] & 2
    promised_bytes = _number(part.header, place + 12, 4)
    return not has_bytes or abs(size - promised_bytes) < 0.005 * size


def _mp3_stream(part: _Mp3Part, content: bytes) -> bytes:
    """Return the frames of a part behind a header that is right: its own where that is, else one that is made."""
    frames = b"".join(content[start:end] for start, end in part.spans)
    own = max(part.header.find(b"Xing"), part.header.find(b"Info"))
    if own >= 0 and part.promised == part.frames:
        header = bytearray(part.header)
        if header[own + 7] & 2:
            header[own + 12 : own + 16] = (len(header) + len(frames)).to_bytes(4, "big")
        return bytes(header) + frames
    first = frames[:4]
    # The highest bit rate, so that the frame has room for the header; no checksum.
    start = bytes([first[0], first[1] | 1, 14 << 4 | first[2] & 0b1100, first[3]])
    frame = _mp3_frame(start)
    flags = 0b11  # the numbers of frames and of bytes
    numbers = [flags, part.frames, frame.size + len(frames)]
    header = start + bytes(frame.side) + b"Xing" + b"".join(number.to_bytes(4, "big") for number in numbers)
    return header.ljust(frame.size, b"\x00") + frames
