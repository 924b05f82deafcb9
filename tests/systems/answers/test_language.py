"""Log-probabilities of options equal those that transformers computes for each option alone."""

import pytest
import torch

from evaluation.findings import BadRequest
from systems.answers.language import OptionReader, prompt
from tests.systems.tiny import causal_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return causal_model(tmp_path_factory.mktemp("language"), n_positions=200)


def test_log_probabilities_equal_those_of_transformers(folder):
    from transformers import AutoModelForCausalLM

    reader = OptionReader(str(folder))
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = [prompt("What is it?", caption) for caption in ("rain falls", None, "a dog")] * 7
    options = ["rain", "a bell rings", "x"] * 7
    read = reader.read(prompts, options)
    for before, option, found in list(zip(prompts, options, read, strict=True))[:3]:
        first = [reader.language.start, *reader.language.encode(before)]
        tokens = reader.language.encode(f" {option}")
        with torch.inference_mode():
            scores = whole(torch.tensor([first + tokens])).logits[0].log_softmax(1)
        values = [float(scores[len(first) - 1 + place, token]) for place, token in enumerate(tokens)]
        assert found.total == pytest.approx(sum(values), abs=1e-4)
        assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_a_prompt_that_is_too_long_is_refused(folder):
    with pytest.raises(BadRequest, match="must fit into the window of 200 tokens; found "):
        OptionReader(str(folder)).read(["x" * 200], ["y"])
