"""Lists of Freesound ids."""

import pytest

from evaluation.data.freesound import read_ids
from evaluation.findings import BadRequest


def test_ids_are_read_from_a_column_or_from_lines(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("file_name;sound_id\na.wav;017.0\nb.wav;Not found\n")
    assert read_ids(file) == {"17": 2}
    file.write_text("sound,id\na,400\n")
    assert read_ids(file, 2) == {"400": 2}
    file.write_text("https://freesound.org/s/400/\n500\n400\n")
    assert read_ids(file) == {"400": 1, "500": 2}
    file.write_text("rain\n")
    with pytest.raises(BadRequest, match="must have Freesound ids; found none in links and lines"):
        read_ids(file)
