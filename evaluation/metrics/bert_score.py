"""BERTScore: F1 between a caption and its best-matching reference.

    bert_score(["a dog barks"], [["a dog is barking", "rain falls"]])      # array([0.98])

The model must be downloaded once (`evaluation.assets`, `bert_score`). The definition is that of aac-metrics 0.5.4. It
uses the embeddings of the model's last layer, except those of the first and the last token. Tokens are not weighted by
rarity, scores are not rescaled, and no blank is added before the first word.

The kit does not compute BERTScore through aac-metrics, because aac-metrics calls torchmetrics 1.9.0. That version sorts
captions by length and restores their order with the wrong permutation, so it compares captions with other clips'
references. It also fails on captions of more than 64 tokens.

bert-score 0.3.13 requests a blank before the first word with `add_prefix_space=True`. With transformers 5 and newer
this argument has no effect, and bert-score tokenises as this module does.

Sources: Zhang et al. 2020 (BERTScore); aac-metrics 0.5.4, `functional/bert_score_mrefs.py`.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from evaluation import assets

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 32


def load_bert() -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load BERTScore's model and its tokeniser.

    Raises:
        Unavailable: The model is not on this machine, or cannot be loaded.
    """
    with assets.loading("bert") as folder:
        from transformers import AutoModel, AutoTokenizer

        model = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return model.eval().requires_grad_(False), tokenizer


def bert_score(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the F1 between each caption and its best-matching reference.

    Args:
        candidates: The captions. Tokens beyond the model's maximum length are ignored.
        references: One or more references for each caption.

    Returns:
        (candidates,) scores in [0, 1]. A caption without a word scores 0.

    Raises:
        Unavailable: As `load_bert`.
    """
    model, tokenizer = load_bert()
    embeddings = _embed({*candidates, *chain.from_iterable(references)}, model, tokenizer)
    scores = []
    for candidate, texts in zip(candidates, references, strict=True):
        scores.append(max(_f1(embeddings[candidate], embeddings[reference]) for reference in texts))
    return np.array(scores, dtype=np.float64)


def _f1(candidate: np.ndarray, reference: np.ndarray) -> float:
    """Return the F1 of two texts, given the (tokens, dimensions) embeddings of their tokens, which have length 1."""
    # Negative similarities count as 0, as if each text had one more token that is orthogonal to all others.
    similarity = (candidate @ reference.T).clip(min=0)
    if not similarity.size:
        return 0.0
    precision, recall = similarity.max(axis=1).mean(), similarity.max(axis=0).mean()
    if precision + recall == 0:
        return 0.0
    return float(2 * precision * recall / (precision + recall))


def _embed(
    texts: Iterable[str], model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, np.ndarray]:
    """Return a dict from each text to the (tokens, dimensions) embeddings of its tokens, scaled to length 1.

    The first and the last token, which are special tokens, are left out.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    # RoBERTa's positions begin after the position of its padding token.
    positions = model.config.max_position_embeddings - (model.config.pad_token_id or 0) - 1
    longest = min(tokenizer.model_max_length, positions)
    embeddings = {}
    ordered = sorted(sorted(texts), key=len)  # texts of the same length share a batch
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        inputs = tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(device)
        with torch.inference_mode():
            hidden = model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state  # (texts, tokens, size)
        hidden = torch.nn.functional.normalize(hidden.float(), dim=-1).cpu().numpy()
        lengths = inputs["attention_mask"].sum(1).tolist()
        for text, tokens, length in zip(batch, hidden, lengths, strict=True):
            embeddings[text] = tokens[1 : length - 1]
    return embeddings
