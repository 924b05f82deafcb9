"""Pretrained decoders that read audio: equal to transformers' own forward, cached, and trained in three ways."""

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model_state_dict
from transformers import AutoModelForCausalLM, BartForConditionalGeneration, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from evaluation.findings import BadRequest
from systems.parts import generation
from systems.parts.pretrained_decoder import Lora, PretrainedDecoder, PretrainedSteps
from tests.systems.tiny import bart_model, causal_model, llama_model, text_model

AUDIO = 5  # number of values of an element of the audio
KINDS = [("bart", "cross-attention"), ("gpt", "cross-attention"), ("gpt", "prefix"), ("llama", "prefix")]
LENGTHS = torch.tensor([4, 2, 1])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoders")
    bart_model(folder / "bart")
    causal_model(folder / "gpt")
    llama_model(folder / "llama")
    text_model(folder / "bert")
    return folder


@pytest.fixture
def make(place):
    def make(name, fusion, tuning="frozen", dropout=0.0, seed=0):
        torch.manual_seed(seed)
        return PretrainedDecoder(str(place / name), AUDIO, fusion, tuning, Lora(2, 4, dropout))

    return make


def audio():
    return torch.randn(3, 4, AUDIO, generator=torch.Generator().manual_seed(1))


def captions(decoder):
    rows = [[decoder.start, *decoder.encode(text), decoder.end] for text in ("a dog", "rain falls", "a")]
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, -100)


def loss(decoder, ids):
    logits = decoder(ids[:, :-1], audio(), LENGTHS)
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-100)


def transformers_loss(decoder, place, name, fusion, ids):
    """Return the sum of the losses of transformers' own forward, one clip at a time and without padding, and the count.

    The model is loaded here by transformers; only the new layers are the decoder's.
    """
    total, count = 0.0, 0
    if name == "bart":
        model = BartForConditionalGeneration.from_pretrained(place / name)
    elif fusion == "prefix":
        model = AutoModelForCausalLM.from_pretrained(place / name)
    else:
        model = AutoModelForCausalLM.from_pretrained(place / name, add_cross_attention=True)
        state = decoder.language.state_dict()
        new = {key.removeprefix("base_model.model."): value for key, value in state.items() if "cross" in key}
        model.load_state_dict(new, strict=False)
    model.eval()
    for row, sound, length in zip(ids, audio(), LENGTHS, strict=True):
        tokens, entered = row[row >= 0][None], decoder.enter(sound[:length])[None]
        number = tokens.shape[1] - 1
        if name == "bart":  # transformers puts </s> before the labels; its loss for <s> is left out
            labels = tokens.clone()
            labels[:, 0] = -100
            reading = torch.cat([torch.tensor([[1]]), tokens[:, :-1]], 1)
            encoded = BaseModelOutput(last_hidden_state=entered)
            output = model(encoder_outputs=encoded, decoder_input_ids=reading, labels=labels)
        elif fusion == "prefix":
            embeddings = torch.cat([entered, model.get_input_embeddings()(tokens)], 1)
            labels = torch.cat([torch.full((1, int(length) + 1), -100), tokens[:, 1:]], 1)
            output = model(inputs_embeds=embeddings, labels=labels)
        else:
            output = model(input_ids=tokens, encoder_hidden_states=entered, labels=tokens)
        total, count = total + float(output.loss) * number, count + number
    return total / count


@pytest.mark.parametrize(("name", "fusion"), KINDS)
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_the_loss_is_that_of_transformers_own_forward(make, place, name, fusion, tuning):
    """With LoRA, this also shows that the initial LoRA changes nothing."""
    decoder = make(name, fusion, tuning).eval()
    ids = captions(decoder)
    with torch.no_grad():
        assert float(loss(decoder, ids)) == pytest.approx(
            transformers_loss(decoder, place, name, fusion, ids), abs=1e-5
        )


@pytest.mark.parametrize(("name", "fusion"), KINDS)
def test_cached_decoding_equals_uncached(make, name, fusion):
    """Beam search with the cache finds the captions, and the log-probabilities, of a search without cache."""
    decoder = make(name, fusion, "lora").eval()
    with torch.no_grad():
        decoder.enter.weight *= 20  # random weights of this size make the captions depend on the audio
        for parameter in decoder.language.parameters():
            parameter *= 3
    rules = generation.Rules(decoder.start, decoder.end, -100, tuple(decoder.unspeakable()), 1, 7)

    class Uncached:
        def __call__(self, ids, rows):
            self.clips = rows if ids.shape[1] == 1 else self.clips[rows]
            return decoder(ids, audio()[self.clips], LENGTHS[self.clips])[:, -1]

    with torch.no_grad():
        cached = generation.beam_alternatives(PretrainedSteps(decoder, audio(), LENGTHS), 3, rules, 2, width=3)
        uncached = generation.beam_alternatives(Uncached(), 3, rules, 2, width=3)
    for one, other in zip(cached, uncached, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        torch.testing.assert_close(one.log_probability, other.log_probability, rtol=1e-4, atol=1e-4)
    assert len(set(cached[0].log_probability.tolist())) == 3  # the captions depend on the audio


@pytest.mark.parametrize(("name", "fusion"), KINDS)
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_only_what_is_tuned_changes(make, name, fusion, tuning):
    decoder = make(name, fusion, tuning, dropout=0.1)
    assert decoder.language.training is (tuning != "frozen")
    before = {key: value.clone() for key, value in decoder.named_parameters()}
    trained = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 0.01)
    for _ in range(2):  # in the first step, the matrices A of LoRA get no gradient, because B is zero
        optimizer.zero_grad()
        loss(decoder, captions(decoder)).backward()
        optimizer.step()
    changed = {key for key, value in decoder.named_parameters() if not torch.equal(value, before[key])}
    entering = {"enter.weight", "enter.bias"}
    new = {key for key in before if "cross" in key and name == "gpt"}
    assert entering <= changed
    if tuning == "full":
        assert {key for key in before if "attn" in key and key.endswith("weight")} <= changed
        assert not list(decoder.trained_inside())
        return
    adapters = {key for key in before if "lora_" in key}
    assert changed <= entering | new | adapters
    assert adapters <= changed
    assert bool(adapters) is (tuning == "lora")
    assert not any("cross" in key for key in adapters if name == "gpt")
    assert set(decoder.trained_inside()) == new | adapters
    assert bool(new) is (name == "gpt" and fusion == "cross-attention")


def test_loras_weights_have_pefts_names(make):
    decoder = make("llama", "prefix", "lora")
    names = {key.replace(".default.", ".") for key in decoder.trained_inside()}
    assert names == {f"language.{key}" for key in get_peft_model_state_dict(decoder.language)}
    assert "language.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names


def test_the_identity_is_that_of_the_pretrained_weights(make, place, tmp_path):
    """New cross-attention and LoRA do not change it; other pretrained weights and another tokeniser do."""
    first = make("gpt", "cross-attention", "lora")
    assert first.identity == make("gpt", "cross-attention", "frozen", seed=1).identity
    causal_model(tmp_path / "gpt", seed=1)
    other = PretrainedDecoder(str(tmp_path / "gpt"), AUDIO, "cross-attention", "frozen", Lora(2, 4, 0.0))
    assert other.identity != first.identity


def test_bart_reads_its_two_first_tokens_and_has_no_encoder(make):
    decoder = make("bart", "cross-attention")
    assert (decoder.before, decoder.start, decoder.end) == ([1], 0, 1)
    assert not any("encoder.layers" in key.replace("decoder.layers", "") for key, _ in decoder.named_parameters())
    assert 0 in decoder.unspeakable()
    assert 1 not in decoder.unspeakable()
    assert isinstance(decoder.new_cache(), EncoderDecoderCache)
    assert isinstance(make("llama", "prefix").new_cache(), DynamicCache)


@pytest.mark.parametrize(
    ("name", "fusion", "message"),
    [
        (
            "bart",
            "prefix",
            "fusion must be cross-attention for .*bart, which is an encoder-decoder model",
        ),
        (
            "llama",
            "cross-attention",
            "fusion must be prefix for .*llama, because transformers cannot",
        ),
        (
            "bert",
            "prefix",
            "decoder: .*bert: must be a model that generates text, .*; its config names BertModel",
        ),
    ],
)
def test_a_model_that_cannot_read_audio_in_this_way_is_refused(make, name, fusion, message):
    with pytest.raises(BadRequest, match=message):
        make(name, fusion)


def test_audio_and_caption_must_fit_into_the_window(make):
    decoder = make("llama", "prefix")
    ids = torch.full((3, 93), decoder.start)
    with pytest.raises(BadRequest, match="must fit into the decoder's window of 96 positions; found 97: lower longest"):
        decoder(ids, audio(), LENGTHS)
