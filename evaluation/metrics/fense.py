"""The two parts of FENSE: a sentence encoder, and a checker of fluency.

    sbert_similarity(["a dog barks"], [["a dog is barking"]])      # array([0.97])
    fluency_error(["a dog barks and", "a dog barks"])              # array([1., 0.])

Both models have to be fetched once (`evaluation.assets`, `fense`). The scores are those of aac-metrics 0.5.4, float64,
one for each caption.

Sources: Zhou et al. 2022 (FENSE); aac-metrics 0.5.4, `functional/sbert_sim.py` and `functional/fer.py`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluation import assets

if TYPE_CHECKING:
    from aac_metrics.functional.fer import BERTFlatClassifier
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerBase

THRESHOLD = 0.9  # a caption has an error where the probability of any error, the last class, is higher
BATCH = 32


def load_sentence_encoder() -> "SentenceTransformer":
    """Load FENSE's sentence encoder.

    Raises:
        Unavailable: It is not on this machine, or cannot be loaded.
    """
    with assets.loading("sbert") as folder:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False).eval()


def sbert_similarity(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the mean cosine similarity of each caption's embedding to those of its references.

    Args:
        candidates: The captions.
        references: For each caption, one or more references.

    Returns:
        (candidates,), in [-1, 1].

    Raises:
        Unavailable: As `load_sentence_encoder`.
    """
    model = load_sentence_encoder()
    if not candidates:
        return np.zeros(0)
    from aac_metrics.functional import sbert_sim

    _, scores = sbert_sim(list(candidates), [list(texts) for texts in references], sbert_model=model)
    return scores["sbert_sim"].numpy().astype(np.float64)


def load_fluency_checker() -> "tuple[BERTFlatClassifier, PreTrainedTokenizerBase]":
    """Load FENSE's fluency checker and its tokeniser.

    The checkpoint has every weight. Of the encoder that it was made from, only the configuration is read.

    Raises:
        Unavailable: It is not on this machine, cannot be loaded, or is another network than it says.
    """
    with assets.loading("fluency") as checkpoint:
        import torch
        from aac_metrics.functional.fer import BERTFlatClassifier
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights, classes = dict(saved["state_dict"]), saved["num_classes"]
        weights.pop("encoder.embeddings.position_ids", None)  # 0, 1, 2, …, which transformers keeps no longer
        folder = assets.model_folder(saved["model_type"], assets.ENCODER_FILES)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # Its own constructor would ask the hub for the encoder's weights, only to have them overwritten.
        model = BERTFlatClassifier.__new__(BERTFlatClassifier)
        torch.nn.Module.__init__(model)
        model.model_type, model.num_classes = saved["model_type"], classes
        model.encoder = AutoModel.from_config(config, trust_remote_code=False)
        model.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
        model.clf = torch.nn.Linear(config.hidden_size, classes)
        differences = _differences(model.state_dict(), weights)
        if differences:
            raise ValueError(f"its weights are not those of {saved['model_type']}: it {differences}")
        model.load_state_dict(weights)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return model.eval().requires_grad_(False), tokenizer


def _differences(expected: Mapping[str, object], weights: Mapping[str, object]) -> str:
    """Say which weights a checkpoint lacks, and which it has too many; empty where there are none."""
    differences = []
    lacking = sorted(expected.keys() - weights.keys())
    if lacking:
        differences.append(f"lacks {len(lacking)}, {lacking[0]} first")
    unexpected = sorted(weights.keys() - expected.keys())
    if unexpected:
        differences.append(f"has {len(unexpected)}, {unexpected[0]} first")
    return " and ".join(differences)


def fluency_error(candidates: Sequence[str]) -> np.ndarray:
    """Return whether each caption has an error of fluency, with a probability of over `THRESHOLD`.

    Args:
        candidates: The captions; the checker reads the first 64 tokens of each.

    Returns:
        (candidates,), 0 or 1.

    Raises:
        Unavailable: As `load_fluency_checker`.
    """
    model, tokenizer = load_fluency_checker()
    if not candidates:
        return np.zeros(0)
    import torch
    from aac_metrics.functional import fer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, errors = fer(
        list(candidates),
        echecker=model.to(device),
        echecker_tokenizer=tokenizer,
        error_threshold=THRESHOLD,
        device=device,
        batch_size=BATCH,
    )
    return errors["fer"].numpy().astype(np.float64)
