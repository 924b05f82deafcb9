"""Machines with and without the models of the metrics."""

import socket
from pathlib import Path

import pytest

from evaluation import assets
from tests.evaluation.tiny_models import NETWORK, published, snapshot, tokenizer


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub cache with the sentence encoder, the fluency checker's encoder without weights, and BERTScore's model."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    root = tmp_path_factory.mktemp("home") / "hub"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = root.parent / "plain"
        tokenizer(plain)
        BertModel(BertConfig(**NETWORK)).save_pretrained(plain)
        transformer = Transformer(str(plain))
        sentence = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
        sentence.save(str(snapshot(root, assets.ASSETS["sbert"].source)))

        folder = snapshot(root, "bert-base-uncased")
        tokenizer(folder)
        BertConfig(**NETWORK).save_pretrained(folder)

        folder = snapshot(root, "roberta-large")
        tokenizer(folder)
        config = RobertaConfig(**NETWORK, pad_token_id=0, max_position_embeddings=140)
        RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)  # as in the published weights
    return root


@pytest.fixture
def home(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with all models and no network."""
    import torch
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("FENSE_DATA", str(tmp_path / "fense"))
    (tmp_path / "fense").mkdir()
    torch.save(published(), tmp_path / "fense" / "echecker_clotho_audiocaps_base.ckpt")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has none of the downloads; returns the cache folder."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("FENSE_DATA", str(tmp_path / "fense"))
    monkeypatch.setenv("AAC_METRICS_CACHE_PATH", str(tmp_path / "theirs"))
    monkeypatch.delenv("SENTENCE_TRANSFORMERS_HOME", raising=False)
    return tmp_path / "cache"
