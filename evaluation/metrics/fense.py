"""The two components of FENSE: sentence similarity and fluency errors.

    sbert_similarity(["a dog barks"], [["a dog is barking"]])      # array([0.97])
    fluency_error(["a dog barks and", "a dog barks"])              # array([1., 0.])

Both models must be downloaded once (`evaluation.assets`, `fense`). The scores equal those of aac-metrics 0.5.4. Both
functions return a float64 array with one number for each caption.

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

THRESHOLD = 0.9  # a caption has an error if the probability of the checker's last class (any error) is higher
BATCH = 32


def load_sentence_encoder() -> "SentenceTransformer":
    """Load FENSE's sentence encoder.

    Raises:
        Unavailable: The model is not on this machine, or cannot be loaded.
    """
    with assets.loading("sbert") as folder:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False).eval()


def sbert_similarity(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the mean cosine similarity between each caption's embedding and those of its references.

    Args:
        candidates: The captions.
        references: One or more references for each caption.

    Returns:
        (candidates,) similarities in [-1, 1].

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

    The checkpoint contains all weights. Only the configuration and the tokeniser are those of the pretrained encoder
    that the checker is based on.

    Raises:
        Unavailable: The checker or its encoder's configuration is not on this machine or cannot be loaded, or the
            checker's weights do not fit its network.
    """
    with assets.loading("fluency") as checkpoint:
        import torch
        from aac_metrics.functional.fer import BERTFlatClassifier
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights, classes = dict(saved["state_dict"]), saved["num_classes"]
        weights.pop("encoder.embeddings.position_ids", None)  # 0, 1, 2, …; no longer part of transformers' models
        folder = assets.model_folder(saved["model_type"], assets.ENCODER_FILES)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # The class's own constructor would download the encoder's weights, which are then overwritten.
        model = BERTFlatClassifier.__new__(BERTFlatClassifier)
        torch.nn.Module.__init__(model)
        model.model_type, model.num_classes = saved["model_type"], classes
        model.encoder = AutoModel.from_config(config, trust_remote_code=False)
        model.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
        model.clf = torch.nn.Linear(config.hidden_size, classes)
        differences = _differences(model.state_dict(), weights)
        if differences:
            raise ValueError(f"its weights must fit the network {saved['model_type']}, but it {differences}")
        model.load_state_dict(weights)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return model.eval().requires_grad_(False), tokenizer


def _differences(expected: Mapping[str, object], weights: Mapping[str, object]) -> str:
    """Describe missing and unexpected weights of a checkpoint, or return "" if the names of all weights match."""
    differences = []
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        differences.append(f"lacks {len(missing)} (for example {missing[0]})")
    unexpected = sorted(weights.keys() - expected.keys())
    if unexpected:
        differences.append(f"has {len(unexpected)} unknown ones (for example {unexpected[0]})")
    return " and ".join(differences)


def fluency_error(candidates: Sequence[str]) -> np.ndarray:
    """Return 1 for each caption with a fluency error, otherwise 0.

    A caption has an error if the checker's probability of any error is above `THRESHOLD`.

    Args:
        candidates: The captions. The checker reads the first 64 tokens of each.

    Returns:
        (candidates,) values, 0 or 1.

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
