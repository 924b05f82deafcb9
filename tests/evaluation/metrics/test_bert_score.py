"""BERTScore compared with torchmetrics, with a tiny model and without network access."""

import shutil

import numpy as np
import pytest
from huggingface_hub import constants

from evaluation.metrics import bert_score
from tests.evaluation.tiny_models import ODD, SENTENCES, refused


def test_bert_score_is_that_of_torchmetrics_pair_by_pair(home):
    from torchmetrics.functional.text.bert import bert_score as torchmetrics_bert_score

    model, words = bert_score.load_bert()

    def f1(sentence: str, text: str) -> float:
        return float(
            torchmetrics_bert_score([sentence], [text], model=model, user_tokenizer=words, max_length=20)["f1"]
        )

    references = [SENTENCES[index + 1 : index + 2 + index % 3] for index in range(12)]
    found = bert_score.bert_score(SENTENCES[:12], references)
    expected = [
        max(f1(sentence, text) for text in texts) for sentence, texts in zip(SENTENCES, references, strict=False)
    ]
    assert len({len(sentence) for sentence in SENTENCES[:12]}) > 3
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_figures_of_aac_metrics_belong_to_other_clips(home):
    from aac_metrics.functional import bert_score_mrefs

    model, words = bert_score.load_bert()
    captions, references = SENTENCES[:12], [[text] for text in SENTENCES[1:13]]
    _, theirs = bert_score_mrefs(captions, references, model=model, tokenizer=words)
    ours = bert_score.bert_score(captions, references)
    assert np.abs(theirs["bert_score.f1"].numpy() - ours).max() > 0.01, "mended there: the kit may use it again"


@pytest.mark.parametrize("count", [0, 1, len(ODD)])
def test_odd_captions_and_few_of_them(count, home):
    captions, references = ODD[:count], [ODD[: index + 1] for index in range(count)]
    scores = bert_score.bert_score(captions, references)
    assert scores.shape == (count,)
    assert ((scores >= 0) & (scores <= 1 + 1e-6)).all()
    if count > 3:
        assert scores[0] == 0, "no word"
        np.testing.assert_allclose(scores[3], 1, atol=1e-5)


def test_a_damaged_model(home, hub, monkeypatch):
    shutil.copytree(hub, home / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    for weights in (home / "hub").rglob("model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    message = refused(bert_score.load_bert)
    assert message.startswith(str(home / "hub" / "models--roberta-large" / "snapshots" / "0123abcd"))
    assert message.endswith("fetch it with: dcase-evaluation download bert_score")
