import os

import pytest

from evaluation.files import replacing
from evaluation.findings import BadRequest


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_a_device_or_a_folder_is_not_replaced(tmp_path, make):
    target = tmp_path / "target"
    make(target)
    kind = target.stat().st_mode
    with (
        pytest.raises(BadRequest, match="must be a file or not there; it is something else"),
        replacing(target) as part,
    ):
        part.write_text("x")
    assert target.stat().st_mode == kind
    assert list(tmp_path.iterdir()) == [target]


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    target = tmp_path / "new" / "target"
    with replacing(target) as part:
        part.write_text("one")
    with pytest.raises(ZeroDivisionError), replacing(target) as part:
        part.write_text("two")
        _ = 1 / 0
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]
