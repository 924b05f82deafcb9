"""Arrays of an NPZ file, read without trust: what they need is known before anything of them is unpacked.

An NPZ is a zip whose entries may be compressed a thousandfold: a file of a megabyte can hold a gigabyte of zeros. Each
array begins with a header that says its shape and type, which is read alone first.
"""

import io
import struct
import warnings
import zipfile
from typing import NamedTuple

import numpy as np

HEADER = 10_000  # bytes of a header at most, as of numpy's own reader
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may take gigabytes to unpack a little


class Header(NamedTuple):
    """What an array is, by its header."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """How much memory the array takes."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size

    def __str__(self) -> str:
        return f"{' x '.join(map(str, self.shape))} {self.dtype}"


def read_header(archive: zipfile.ZipFile, name: str) -> Header:
    """Read the header of an array.

    Args:
        archive: The NPZ file.
        name: The array's name.

    Raises:
        Exception: There is no such array, or the file is damaged: zipfile, zlib and numpy raise almost anything.
    """
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in METHODS:
        raise ValueError(f"{name} is packed by method {entry.compress_type}; write it with np.savez")
    with archive.open(entry) as file:
        begin = file.read(12)
        version, form = tuple(begin[6:8]), "<H" if begin[6:7] == b"\1" else "<L"
        (length,) = struct.unpack_from(form, begin, 8)
        if version not in ((1, 0), (2, 0)) or length > HEADER:
            raise ValueError(f"{name} has a header of version {version} and {length} bytes")
        start = io.BytesIO(begin + file.read(length))
    np.lib.format.read_magic(start)
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    else:
        read = np.lib.format.read_array_header_2_0
    with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote, or that are damaged
        shape, _, dtype = read(start)
    if any(length < 0 for length in shape):
        raise ValueError(f"{name} has a shape below zero")
    return Header(shape, dtype)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array whose header was read before and found fit; raises as `header`."""
    with archive.open(f"{name}.npy") as file, warnings.catch_warnings(action="ignore"):
        return np.lib.format.read_array(file, allow_pickle=False)
