"""The check of a model's answers: each broken rule is one finding."""

import pytest
import torch

from tests.systems.checking.conftest import AUDIO, CAPTIONER, CAPTIONS, END, PLAIN, RETRIEVER, START, TEXT, broken_rules

CASES = {
    # Its kind.
    "half a retriever": ("def embed_text", "def text", "load_model: must return a retriever, with embed_audio"),
    "no sample rate": ("sample_rate = 8000", "rate = 8000", "sample_rate: must be a whole number above 0; found None"),
    "a broken sample rate": ("= 8000", "= 8000.0", "sample_rate: must be a whole number above 0; found 8000.0"),
    # Its answers to sounds.
    "no tensor": (
        AUDIO,
        "return (values @ self.weight).numpy()",
        "embed_audio: must return a torch.Tensor; found ndarr",
    ),
    "shape": (
        AUDIO,
        "return (values @ self.weight)[0]",
        "embed_audio: must return a tensor of (clips, size); found (3,)",
    ),
    "size": (AUDIO, "return values", "embed_text: must return embeddings of the same size for all clips and"),
    "type": (AUDIO, "return (values @ self.weight).double()", "embed_audio: must return float32; found torch.float64"),
    "gradients": (
        AUDIO,
        "with torch.inference_mode(False): return (values.clone() @ self.weight.clone())",
        "embed_audio: must return values without gradients in inference mode; found requires_grad for 0.1 s, 1.07",
    ),
    "NaN": (
        AUDIO,
        "return (values / values) @ self.weight",
        "embed_audio: must return finite values; found NaN for 1 s of",
    ),
    "infinity": (
        AUDIO,
        "return values.log()[:, [0, 1, 1]]",
        "embed_audio: must return finite values; found infinity for",
    ),
    "short": (
        AUDIO,
        "assert audio.shape[1] > 8000; return values @ self.weight",
        "embed_audio: must accept clips of any length, also silence; found AssertionError at",
    ),
    "one at a time": (
        AUDIO,
        "assert len(audio) < 5; return values @ self.weight",
        "embed_audio: must accept batches of 1, 2 and 5 clips; found AssertionError",
    ),
    "random answers": (
        AUDIO,
        "return torch.rand(len(audio), 3)",
        "embed_audio: must give the same output for the same clip",
    ),
    "batch": (
        AUDIO,
        "return (values - (values.mean(0) if len(values) > 1 else 0)) @ self.weight",
        "embed_audio: must give a clip the same output in a batch as alone; found a difference of",
    ),
    "padding": (
        "/ lengths,",
        "/ audio.shape[1],",
        "embed_audio: must give a clip the same output with zeros after its end; found a difference of",
    ),
    # Its answers to texts.
    "an empty text": (
        TEXT,
        "[text[0] for text in texts]; " + TEXT,
        "embed_text: must accept any text; found IndexError (string index out of range)",
    ),
    "mean of no words": (
        TEXT,
        "return (values / values[:, :1]) @ self.weight",
        "embed_text: must return finite values; found NaN for '': look for",
    ),
    "batch of texts": (
        TEXT,
        "return (values / len(values)) @ self.weight",
        "embed_text: must give a text the same embedding in a batch as alone; found a difference of",
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_each_broken_rule_is_one_finding(team, old, new, expected):
    assert RETRIEVER.count(old) == 1 or old == "import torch"
    (finding,) = broken_rules(team(RETRIEVER.replace(old, new, 1) + PLAIN))
    assert finding.startswith(expected)


CAPTIONER_CASES = {
    "no list": ("return tuple(texts)", "caption: must return a list of one caption for each clip; found tuple"),
    "too few": (
        "return texts[:1]",
        "caption: must return a list of one caption for each clip; found 1 for a batch of 2",
    ),
    "empty": ("return ['' for _ in texts]", "caption: must return captions of one line that are not empty; found ''"),
    "two lines": (r"return [s + '\n.' for s in texts]", "caption: must return captions of one line that are not empty"),
    "batch": (
        "return [s + str(len(texts)) for s in texts]",
        "caption: must give a clip the same output in a batch as alone",
    ),
    "padding": ("return [str(audio.shape[1])] * len(texts)", "caption: must give a clip the same output with zeros"),
    "constant log-probability": (
        "return [s + str(len(texts)) for s in texts]\n"
        "    def caption_scored(self, *sounds): return self.caption(*sounds), torch.zeros(len(sounds[1]))",
        "caption_scored: must give a clip the same output in a batch as alone",
    ),
    "no pair": (
        "return texts\n    caption_scored = caption",
        "caption_scored: must return captions and a tensor of (c",
    ),
    "NaN": (
        "return texts\n    def caption_scored(self, *sounds): return self.caption(*sounds), sounds[1] / 0 * 0",
        "caption_scored: must return a finite log-probability for each clip; found [nan]",
    ),
}


@pytest.mark.parametrize(("new", "expected"), CAPTIONER_CASES.values(), ids=CAPTIONER_CASES)
def test_each_broken_rule_of_a_captioner_is_one_finding(team, new, expected):
    (finding,) = broken_rules(team(CAPTIONER.replace(CAPTIONS, new)))
    assert finding.startswith(expected)


NEAREST = """
    def caption(self, audio, lengths):
        return [self.captions[i] for i in torch.randint(len(self.captions), (len(audio),)).tolist()]

"""


def test_captions_differ_enough_to_notice_a_random_choice(team):
    """The captioner draws one of the first captions of the training clips."""
    source = RETRIEVER[:START] + NEAREST + RETRIEVER[END:]
    source = source.replace(
        "    model = Model()\n    run.best",
        "    model = Model()\n    captions = [clip.captions[0] for clip in dataset['development'].clips]\n    run.best",
    )
    source = source.replace(
        "torch.save(model.state_dict(), run.best)", "torch.save([model.state_dict(), captions], run.best)"
    )
    source = source.replace(
        '    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))',
        "    state, model.captions = torch.load(checkpoint, map_location='cpu', weights_only=True)\n"
        "    model.load_state_dict(state)",
    )
    torch.manual_seed(0)
    (finding,) = broken_rules(team(source))
    assert finding.startswith(
        "caption: must give the same output for the same clip; found a different output the second time"
    )
