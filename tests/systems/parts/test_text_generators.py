"""Models that generate text: their tokens, and what a model must have."""

import pytest

from evaluation.findings import BadRequest
from systems.parts.text_generators import TextGenerator
from tests.systems.tiny import causal_model


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    model = TextGenerator(str(causal_model(tmp_path_factory.mktemp("gpt"))), "decoder")
    model.set_ends(None)
    model.outputs = model.end + 3  # as if the model had two outputs more than the tokeniser has tokens
    return model


def test_a_text_becomes_tokens_and_a_text_again(generator):
    ids = generator.encode("A dog")
    assert len(ids) == 5
    assert generator.start == generator.end
    assert generator.decode([*ids, generator.end, *ids]) == "A dog"
    assert generator.decode([*ids, -100]) == "A dog"
    assert generator.decode(generator.encode("A\n dog ")) == "A dog"


def test_only_printable_tokens_and_the_end_may_be_generated(generator):
    forbidden = set(generator.unspeakable())
    assert not forbidden & {*generator.encode("Adog,"), generator.end}
    assert {*generator.encode(" \n"), generator.end + 1, generator.end + 2} <= forbidden


def test_what_a_model_lacks_is_named_with_the_key(generator, monkeypatch):
    with pytest.raises(BadRequest, match=r"^decoder: .*: must be BERT; its config names GPT2LMHeadModel: give another"):
        generator.require_architecture(["BertModel"], "BERT")
    monkeypatch.setattr(generator.pretrained_config, "eos_token_id", [1, 2])
    with pytest.raises(BadRequest, match=r"^decoder: .*: its config must name one eos_token_id; found \[1, 2\]: give"):
        generator.set_ends(0)
