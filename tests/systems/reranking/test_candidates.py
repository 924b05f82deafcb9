"""The file of candidates."""

import numpy as np
import pytest

from evaluation.findings import BadRequest, Faulty
from systems.reranking.candidates import Candidates, candidates_file, read_candidates

SCORED = [[('a "dog", and rain', -1.25), ("rain", -2.5), ("rain", -2.5)], [("a bell", -3.0)]]


def test_what_is_written_is_read(tmp_path):
    written = Candidates.of([" a, 1.wav", "b.wav"], SCORED)
    file = candidates_file(tmp_path, "evaluation")
    written.write(file, [np.array([0.5, 0.25, 0.25]), np.array([1.0])])
    assert file.read_text().splitlines()[:2] == [
        "file_name,rank,caption,log_probability,similarity",
        '" a, 1.wav",1,"a ""dog"", and rain",-1.250000,0.500000',
    ]
    found = read_candidates(file)
    assert (found.file_names, found.captions) == (written.file_names, written.captions)
    np.testing.assert_allclose(np.concatenate(found.log_probabilities), [-1.25, -2.5, -2.5, -3.0])
    assert found.first() == (['a "dog", and rain', "a bell"], [-1.25, -3.0])
    assert found.chosen([2, 0]) == (["rain", "a bell"], [-2.5, -3.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,caption_predicted\na.wav,rain\n", "the header must begin with file_name, rank, caption, log_prob"),
        ("", "the header must begin with"),
        ("file_name,rank,caption,log_probability\na.wav,1,rain\n", "must have 4 cells, as the header; found 3"),
        ("file_name,rank,caption,log_probability\na.wav,1,rain,nan\n", "must be a finite number; found 'nan'"),
        (
            "file_name,rank,caption,log_probability\na.wav,1,x,-1\nb.wav,1,x,-1\na.wav,2,x,-1\n",
            "the rows of a clip must be consecutive; found other rows between those of 'a.wav'",
        ),
    ],
)
def test_damaged_files(tmp_path, text, message):
    (tmp_path / "evaluation.csv").write_text(text)
    with pytest.raises(Faulty) as caught:
        read_candidates(tmp_path / "evaluation.csv")
    assert message in str(caught.value.findings[0])


def test_a_missing_file(tmp_path):
    with pytest.raises(BadRequest, match="no such file; give the candidates that"):
        read_candidates(tmp_path / "evaluation.csv")
