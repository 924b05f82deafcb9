"""Arrays of NPZ files: headers of all versions of numpy's format, and the arrays themselves."""

import io
import zipfile

import numpy as np
import pytest

from evaluation import npz

ARRAYS = [
    np.zeros((3, 4), np.float32),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(5, dtype=">i2"),
    np.float64(3),
    np.array(["a", "bc"]),
    np.zeros((0, 7)),
    np.zeros(2, [("a", "i4"), ("b" * 70_000, "f8")]),  # its header has version 2, and is too long
]


@pytest.mark.filterwarnings("ignore:Stored array in format 2.0")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_headers_and_arrays(save):
    file = io.BytesIO()
    save(file, **{f"a{number}": array for number, array in enumerate(ARRAYS)})
    with zipfile.ZipFile(file) as archive:
        for number, array in enumerate(ARRAYS[:-1]):
            header = npz.read_header(archive, f"a{number}")
            assert (header.shape, header.dtype, header.bytes) == (array.shape, array.dtype, array.nbytes)
            np.testing.assert_array_equal(npz.read_array(archive, f"a{number}"), array)
        with pytest.raises(ValueError, match=r"has a header of version \(2, 0\)"):
            npz.read_header(archive, f"a{len(ARRAYS) - 1}")
        assert str(npz.read_header(archive, "a0")) == "3 x 4 float32"
        with pytest.raises(KeyError):
            npz.read_header(archive, "nothing")


def test_objects_are_not_unpickled():
    file = io.BytesIO()
    np.savez(file, a=np.array([{}]))
    with zipfile.ZipFile(file) as archive, pytest.raises(ValueError, match="allow_pickle=False"):
        npz.read_array(archive, "a")
