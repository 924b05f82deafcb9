"""Outputs of models that break the contract are refused before anything is written."""

import pytest
import torch

from evaluation.findings import BadRequest
from systems.answering import predict
from systems.asked import read_data
from tests.systems.asked_data import make_questions, make_recordings


class Model:
    sample_rate = 8000

    def __init__(self, output):
        self.output = output

    def answer(self, audio, lengths, questions, options):
        return self.output

    def moments(self, audio, queries):
        return self.output


@pytest.mark.parametrize(
    ("make", "output", "message"),
    [
        (make_questions, ["A"] * 4, "an answer must be one of the options, verbatim; found 'A' for 'evaluation"),
        (make_questions, ["a low one"], "must give one answer to each question; found 1 answers to 4 questions"),
        (make_recordings, [], "moments must give windows for each query; found 0 for 2 queries"),
        (
            make_recordings,
            [torch.tensor([[3.0, 15, 1]])] * 2,
            r"in the recording of 14 s; found \[3, 15\] for the query",
        ),
        (make_recordings, [torch.tensor([[3.0, 4, 1], [3, 4, 0]])] * 2, "different windows; found equal ones for the"),
        (make_recordings, [torch.tensor([[3.0, 4, 1], [5, 6, 2]])] * 2, "the window with the highest score first"),
    ],
)
def test_outputs_that_break_the_contract(tmp_path, make, output, message):
    split = read_data(make(tmp_path / "data", ["evaluation"]), "evaluation")["evaluation"]
    with pytest.raises(BadRequest, match=message):
        predict(Model(output), split, tmp_path / "run", device=torch.device("cpu"))
    assert not (tmp_path / "run").exists()
