"""Reading the arrays of an NPZ file from an unknown source, with a check of their sizes before they are unpacked.

An NPZ file is a zip file whose entries may be compressed a thousandfold: one megabyte can contain a gigabyte of zeros.
Each array begins with a header that states its shape and type. `read_header` reads only this header, so that the caller
can refuse a large array. `read_array` then reads the array.
"""

import io
import struct
import warnings
import zipfile
from typing import NamedTuple

import numpy as np

HEADER = 10_000  # maximum size of a header in bytes; numpy's own reader has the same limit
METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
)  # other compression methods may need gigabytes of memory


class Header(NamedTuple):
    """The shape and type of an array, from its header."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Memory that the array takes, in bytes."""
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
        Exception: There is no such array, its compression or its header is not supported, or the file is damaged.
            zipfile, zlib and numpy raise exceptions of many types for a damaged file.
    """
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in METHODS:
        raise ValueError(f"{name} is compressed with zip method {entry.compress_type}; write it with np.savez")
    with archive.open(entry) as file:
        begin = file.read(12)
        version = tuple(begin[6:8])
        length_format = "<L"
        if begin[6:7] == b"\1":
            length_format = "<H"
        (length,) = struct.unpack_from(length_format, begin, 8)
        if version not in ((1, 0), (2, 0)) or length > HEADER:
            raise ValueError(f"{name} has a header of version {version} and {length} bytes")
        start = io.BytesIO(begin + file.read(length))
    np.lib.format.read_magic(start)
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    else:
        read = np.lib.format.read_array_header_2_0
    with warnings.catch_warnings(action="ignore"):  # numpy warns about headers of Python 2 and about damaged ones
        shape, _, dtype = read(start)
    if any(length < 0 for length in shape):
        raise ValueError(f"{name} has a negative length in its shape")
    return Header(shape, dtype)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array whose header was checked before. It raises exceptions as `read_header` does."""
    with archive.open(f"{name}.npy") as file, warnings.catch_warnings(action="ignore"):
        return np.lib.format.read_array(file, allow_pickle=False)
