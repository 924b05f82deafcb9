"""Text encoders: transformers' models at any layer, sentence-transformers' models, word vectors.

    encode = texts.encoder("distilroberta-base", layer=-2)      # a hub name, a folder, or a file of word vectors
    sequences, lengths = encode(["a dog barks", "rain"])        # (texts, T, encode.size), (texts,)
    embeddings = texts.embed(captions, encode, Path(".cache"))  # a list of (T, size), each computed once

A name is looked for as a folder or file first, then as a folder in an installed package (PACKAGE/FOLDER), then as a
model in the hub's cache. Nothing is downloaded: what is missing is named with the command that fetches it.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from gensim.models import KeyedVectors
from torch import Tensor, nn
from tqdm import tqdm

from evaluation.assets import Asset, silence
from evaluation.findings import BadRequest
from systems.caching.store import Store
from systems.parts import words
from systems.parts.digests import digest, weights_digest
from systems.parts.encoders.weights import PARALLEL
from systems.parts.sequences import length_mask, masked_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ARITHMETIC = 2  # counts up when the same weights give other embeddings, so that no cache mixes the two
TOGETHER = 32  # texts that go through a model at once
LONGEST = 4096  # tokens of a text, where neither tokeniser nor model has a limit
WORDS = (".bin", ".txt", ".vec")  # files of word vectors: word2vec's, GloVe's, fastText's
WORDS_LIMIT = 200_000  # of a file's words, which lists the frequent ones first

OFFLINE = {"local_files_only": True, "trust_remote_code": False}  # a model's folder runs no code of its own

Output = Literal["tokens", "mean", "sentence"]

# What the configs here name; of others the hub knows the size. Models that have moved are in caches by both names.
PARTS = {
    "distilroberta-base": Asset("DistilRoBERTa", "distilbert/distilroberta-base", 331_000_000, "Apache 2.0"),
    "bert-base-uncased": Asset("BERT base", "google-bert/bert-base-uncased", 440_000_000, "Apache 2.0"),
    "roberta-large": Asset("RoBERTa", "FacebookAI/roberta-large", 1_420_000_000, "MIT"),
    "gpt2": Asset("GPT-2", "openai-community/gpt2", 548_000_000, "MIT"),
    "distilgpt2": Asset("DistilGPT-2", "distilbert/distilgpt2", 353_000_000, "Apache 2.0"),
}


class Transformer(nn.Module):
    """A transformers model, read at one of its layers.

    Args:
        folder: Where its config, weights and tokeniser lie.
        layer: Index into what it has from embeddings (0) to its last layer (-1): -2 is the penultimate one.
        pooled: Give the mean over a text's tokens instead of all of them.

    Raises:
        BadRequest: The folder is not that of such a model, or the model has no such layer.
    """

    def __init__(self, folder: Path, layer: int = -1, pooled: bool = False):
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        with loading(folder, "a text encoder"):
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **OFFLINE)
            self.model = pretrained(AutoModel, folder)
        if self.model.config.is_encoder_decoder:  # of T5, BART and the like the half that reads
            self.model = self.model.get_encoder()
        layers = getattr(self.model.config, "num_hidden_layers", None)
        if layers is None:
            kind = type(self.model).__name__
            raise BadRequest(f"{folder}: must be a model with layers to read, such as BertModel; its {kind} has none")
        if not -layers - 1 <= layer <= layers:
            raise BadRequest(f"{folder}: has layers 0 to {layers}, or -1 to {-layers - 1} from its end; found {layer}")
        if self.tokenizer.pad_token is None:  # GPT-2's has none; the mask says that it is nothing
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.layer, self.pooled = layer, pooled
        self.size = self.model.config.hidden_size
        self.longest = min(self.tokenizer.model_max_length, window(self.model), LONGEST)

    @property
    def identity(self) -> str:
        """What its embeddings follow from."""
        layer = self.layer % (self.model.config.num_hidden_layers + 1)
        tokens = tokenizer_digest(self.tokenizer)
        return repr((ARITHMETIC, "transformer", layer, self.pooled, tokens, weights_digest(self.model)))

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts; what is behind the model's longest text is left out.

        Returns:
            (texts, T, size), special tokens among them, and (texts,) int64 how many there are; T is 1 if pooled.
        """
        tokens, states = self.states(texts)
        if self.pooled:
            return masked_mean(states, tokens["attention_mask"])[:, None], _ones(texts, states)
        return states, tokens["attention_mask"].sum(1)

    def states(self, texts: Sequence[str], **asked: bool) -> tuple[Mapping[str, Tensor], Tensor]:
        """What the tokeniser makes of texts, with what else is asked of it, and the layer's (texts, T, size)."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
            padding_side="right",
            **asked,
        ).to(self.model.device)
        known = {name: value for name, value in tokens.items() if name != "offset_mapping"}
        return tokens, self.model(**known, output_hidden_states=True).hidden_states[self.layer]


def pretrained(kind: type, folder: Path) -> "PreTrainedModel":
    """Load a transformers model in single precision, with every weight that its layers' outputs follow from.

    transformers itself draws a weight at random where the file lacks it, and only warns. A pooler may be absent: it
    comes behind the layers, and files of language models have none. So may the decoder of T5 and the like, which is not
    used here. Names that begin with `module.`, as torch's DataParallel saves them, are read without it.

    Args:
        kind: The class of transformers that loads it, such as `AutoModel`.
        folder: Where its config and weights lie.

    Raises:
        ValueError: The file lacks weights; with how many, and the first. Others as `from_pretrained` raises them.
    """
    model, report = kind.from_pretrained(
        folder,
        **OFFLINE,
        dtype=torch.float32,
        key_mapping={rf"^{re.escape(PARALLEL)}": ""},
        output_loading_info=True,
    )
    optional = ("pooler.", "decoder.") if model.config.is_encoder_decoder else ("pooler.",)
    lacking = sorted(name for name in report["missing_keys"] if not name.startswith(optional))
    if lacking:
        raise ValueError(
            f"its weights must have all {len(model.state_dict())} tensors of {type(model).__name__}; "
            f"{len(lacking)} are missing, {lacking[0]} first"
        )
    return model


def window(model: nn.Module) -> int | float:
    """How many tokens a transformers model takes; infinity where it has no absolute positions, as T5 and XLNet."""
    names = ("max_position_embeddings", "max_seq_len")  # the latter MPT's, of its biases
    places = next((found for name in names if (found := getattr(model.config, name, None))), -1)
    if places < 0:
        return math.inf
    tables = [m for name, m in model.named_modules() if name.endswith("position_embeddings")]
    padding = [getattr(table, "padding_idx", None) for table in tables]
    return places - sum(index + 1 for index in padding[:1] if index is not None)  # RoBERTa's begin behind padding's


class Sentence(nn.Module):
    """A sentence-transformers model with its own pooling: one embedding a text.

    Raises:
        BadRequest: The folder is not that of such a model.
    """

    def __init__(self, folder: Path):
        super().__init__()
        from sentence_transformers import SentenceTransformer

        if not (folder / "modules.json").is_file():
            raise BadRequest(
                f"{folder}: is no sentence-transformers model (it has no modules.json); ask for tokens or mean"
            )
        with loading(folder, "a text encoder"):
            self.model = SentenceTransformer(str(folder), device="cpu", **OFFLINE)
        self.size = self.model.get_embedding_dimension()

    @property
    def identity(self) -> str:
        """What its embeddings follow from."""
        tokens = tokenizer_digest(self.model.tokenizer)
        return repr((ARITHMETIC, "sentence", repr(self.model), tokens, weights_digest(self.model)))

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts as (texts, 1, size), and (texts,) ones."""
        tokens = self.model.preprocess(list(texts))
        device = next(self.parameters()).device
        for name, value in tokens.items():
            if isinstance(value, Tensor):
                tokens[name] = value.to(device)
        found = self.model(tokens)["sentence_embedding"]
        return found[:, None], _ones(texts, found)


class Words(nn.Module):
    """Word vectors: a text is the sequence of its words', without those that have none."""

    def __init__(self, vectors: KeyedVectors, pooled: bool = False):
        super().__init__()
        self.index, self.pooled, self.size = vectors.key_to_index, pooled, vectors.vector_size
        self.embedding = nn.Embedding.from_pretrained(torch.tensor(vectors.vectors, dtype=torch.float32))

    @property
    def identity(self) -> str:
        """What its embeddings follow from."""
        known = digest(repr(list(self.index)).encode())
        return repr((ARITHMETIC, "words", self.pooled, known, weights_digest(self.embedding)))

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts as (texts, T, size), and (texts,) how many; a text without a known word is a vector of zeros."""
        device = self.embedding.weight.device
        found = []
        for text in texts:
            row = [self.index[word] for word in words.words_without_hyphens(text) if word in self.index]
            vectors = self.embedding(torch.tensor(row or [0], device=device))
            found.append(vectors * bool(row))  # zeros if no word has a vector
        lengths = torch.tensor([len(row) for row in found], device=device)
        sequences = nn.utils.rnn.pad_sequence(found, batch_first=True)
        if self.pooled:
            return masked_mean(sequences, length_mask(lengths, sequences.shape[1]))[:, None], torch.ones_like(lengths)
        return sequences, lengths


Encoder = Transformer | Sentence | Words


def encoder(name: str, layer: int = -1, output: Output = "tokens") -> Encoder:
    """Load a text encoder, in evaluation mode; no parameter wants a gradient.

    Args:
        name: A folder, a folder in an installed package, a hub name, or a file of word vectors.
        layer: Of a transformers model; of no account to the others.
        output: Of each text all `tokens`, their `mean`, or the `sentence` embedding of a sentence-transformers model.

    Raises:
        BadRequest: It is not on this machine, or is something else.
    """
    if name.endswith(WORDS):
        if output == "sentence":
            raise BadRequest(f"{name}: word vectors have no sentence embedding; ask for tokens or mean")
        found = Words(words.read(Path(name).expanduser(), size=None, limit=WORDS_LIMIT), output == "mean")
    elif output == "sentence":
        found = Sentence(find(name))
    else:
        found = Transformer(find(name), layer, output == "mean")
    return found.eval().requires_grad_(False)


def find(name: str) -> Path:
    """Find the folder of a model.

    Raises:
        BadRequest: There is none on this machine; with where to get it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise BadRequest(f"{name}: must be the folder of a model, or word vectors in a file named {', '.join(WORDS)}")
    package, _, rest = name.partition("/")
    if rest and package.isidentifier() and (spec := find_spec(package)):
        for place in spec.submodule_search_locations or []:
            if (Path(place) / rest).is_dir():
                return Path(place) / rest
    if rest and folder.parent.is_dir():
        raise BadRequest(f"{name}: no such folder in {folder.parent}; give that of a transformers model")
    part = PARTS.get(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with contextlib.suppress(HFValidationError):  # a path is no name on the hub
        for known in (name, part.source) if part else (name,):
            config = try_to_load_from_cache(known, "config.json")
            if isinstance(config, str):
                return Path(config).parent
        source = part.source if part else name
        size = f" ({part.size})" if part else ""
        installed = ""
        if rest and "_" in package and package.isidentifier():  # owners on the hub have hardly such names
            installed = f"; or install the Python package that holds it, if {package} is one"
        raise BadRequest(
            f"{name} is not on this machine: there is no such folder and no such model in the hub's cache; "
            f"fetch it{size} from https://huggingface.co/{source} with: .venv/bin/hf download {source}{installed}"
        )
    raise BadRequest(f"{name}: no such folder; give that of a transformers model, or its name on the hub")


def embed(texts: Sequence[str], encode: Encoder, cache: Path) -> list[np.ndarray]:
    """Return the embeddings of every text, (T, size) float32 each, computing those that the cache lacks.

    Texts go through the encoder one at a time, so that no embedding depends on another text or on padding.

    Args:
        texts: The texts.
        encode: The encoder, wherever it is.
        cache: Folder of the cache; several processes may share it.

    Returns:
        Read-only views into the memory-mapped file, in the order of `texts`.
    """

    def compute(missing: Sequence[str]) -> Iterator[np.ndarray]:
        with torch.inference_mode():
            for text in tqdm(missing, "embeddings of texts", leave=False, disable=None, unit="text"):
                sequences, (length,) = encode([text])
                yield sequences[0, :length].float().cpu().numpy()

    return Store(cache, "texts", encode.identity, encode.size).rows(texts, compute, _digests)


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Digest of how a tokeniser cuts texts: its vocabulary, and its rules where it is of the library tokenizers."""
    if not tokenizer.is_fast:
        return digest(repr(sorted(tokenizer.get_vocab().items())).encode())
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    return digest(repr({**rules, "truncation": None, "padding": None}).encode())  # which the last call leaves there


def _digests(texts: Sequence[str]) -> list[str]:
    return [digest(text.encode("utf-8", "surrogatepass")) for text in texts]


def _ones(texts: Sequence[str], like: Tensor) -> Tensor:
    return torch.ones(len(texts), dtype=torch.int64, device=like.device)


@contextlib.contextmanager
def loading(folder: Path, what: str) -> Iterator[None]:
    """Load a model of a folder in silence, and without a trace in the global random state.

    Raises:
        BadRequest: It fails: a damaged folder makes those libraries raise almost anything.
    """
    try:
        with silence():
            yield
    except (MemoryError, ImportError):
        raise
    except Exception as failure:
        reason = " ".join(str(failure).split())[:300] or type(failure).__name__
        message = f"{folder}: cannot be loaded as {what} ({reason}); it must hold config, weights and tokeniser"
        raise BadRequest(message) from failure
