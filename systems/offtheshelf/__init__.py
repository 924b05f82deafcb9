"""Captioning with off-the-shelf models (Weck et al. 2021). Read this module from top to bottom.

    dcase-systems train systems.offtheshelf --config systems/offtheshelf/offtheshelf.yaml --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

A pretrained audio encoder maps a clip to a sequence of embeddings. An adapter maps these to the decoder's size, and a
Transformer decoder predicts the caption word by word from them. The decoder reads the previous words as vectors, which
are random, trained on the captions, or those of a pretrained model. The paper compares four encoders with two overlaps,
three adapters and eleven kinds of word embeddings (`grid.yaml`). The defaults are the best of these settings.

Encoders are frozen (section 3.2). The audio encoder encodes each clip once, and a text model encodes each caption
once. Training reads these embeddings from the cache.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset, Split
from evaluation.downloads import Download
from evaluation.findings import BadRequest
from systems.caching.embeddings import embed
from systems.offtheshelf.context import Context, View
from systems.parts import adapters, encoders, generation, texts, vocabulary, words
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.decoder import CachedSteps, Decoder, UncachedSteps
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.extra import ExtraCaptions, WithExtra, choose_extra
from systems.parts.sequences import length_mask, stack_sequences
from systems.parts.vocabulary import PADDING, START, Vocabulary
from systems.training import Run, Schedule, metadata_name, read_checkpoint

PAPER = "Weck et al. 2021"
PARAMETERS = "10,385,408 + 513 per word (YAMNet, MHA, BERT) + encoders"
VECTORS = "model.words.weight"  # in a checkpoint


class Config(Schedule, generation.Decoding, ExtraCaptions):
    """The settings; the defaults are the paper's best setting.

    Numbers in parentheses are sections of the paper. "Not in the paper" marks values that the paper does not give. Two
    defaults differ from the paper. README.md gives the reason for `context`. `words_limit` leaves out the vectors of
    rarer words in a file, to save time and memory (`grid.yaml` reads all words).
    """

    batch: int = Field(256, ge=1)  # pairs of a clip and a caption in a training step (3.1)
    monitor: Literal["loss"] = "loss"  # the validation value that chooses the best epoch (3.1)
    plateau: int = Field(10, ge=1)  # the paper's rate is constant: training stops (`patience`) before the rate falls

    audio_encoder: str = "yamnet"  # one of `encoders.NAMES`, or any HEAR module (3.2)
    audio_weights: str = ""  # file or folder of its weights; empty: the encoder's default place
    # Keyword arguments for the encoder's load_model, such as vggish's post_activation or openl3's padding.
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)
    overlap: float = Field(0.5, ge=0, lt=1)  # share of a window that the next one repeats; the paper: 0 and 0.5 (3.2)
    adapter: Literal["identity", "mlp", "mha"] = "mha"  # between audio encoder and decoder (3.3)
    adapter_hidden: int = Field(256, ge=1)  # width of the MLP's hidden layer (3.3)
    words: str = "bert-base-uncased"  # `random`, `train` (CBOW on the captions), a file of vectors, a text model (3.4)
    train_words: bool = False  # fine-tune word vectors; a text model is always frozen (3.4)
    words_limit: int | None = 200_000  # maximum number to read from a file, frequent words first; the paper: None (all)
    # What a text model reads of a caption in training (`offtheshelf.context`); the paper: caption.
    context: View = "prefix"
    text_layer: int = -2  # index of a text model's layer; -2 is the penultimate one (3.4)

    blocks: int = Field(3, ge=1)  # number of blocks of the decoder (3.1)
    heads: int = Field(4, ge=1)  # number of heads of each attention layer, also in the adapter (3.1, 3.3)
    head_size: int = Field(128, ge=2, multiple_of=2)  # number of values of a head (3.1, 3.3)
    hidden: int = Field(512, ge=1)  # width between a block's two linear layers; not in the paper: the decoder's width
    # True: the Transformer of Vaswani et al., as in the paper (2, 3.3). Positions are added to the word vectors, norms
    # come after each sublayer, and the activation is ReLU. If the audio embeddings do not have the decoder's size, a
    # linear layer maps them to it. False: positions are added after the linear layer for words, norms come before each
    # sublayer, and the activation is GELU. Each block computes keys and values from the adapter's output itself.
    original: bool = True
    dropout: float = Field(0.1, ge=0, lt=1)  # in decoder and MHA adapter; not in the paper: Vaswani et al.'s value
    longest: int = Field(60, ge=1)  # maximum number of words in a training caption; not in the paper; Clotho's have 20
    decoding: Literal["beam", "greedy", "sample"] = "greedy"  # not in the paper: section 2 only says "word by word"

    @property
    def static(self) -> bool:
        """True if a word has the same vector in every context."""
        return self.words in ("random", "train") or self.words.endswith(texts.WORDS)

    @model_validator(mode="after")
    def _words(self) -> "Config":
        if self.train_words and not self.static:
            raise ValueError(
                f"train_words must be false for a text model, which is frozen; found true with words={self.words}"
            )
        return self


def downloads(config: Config) -> list[Download]:
    """Return the published files and models that a config needs."""
    needed = encoders.downloads(config.audio_encoder, config.audio_weights)
    if config.words not in ("random", "train"):
        needed.append(texts.download(config.words))
    return needed


# The model ---------------------------------------------------------------------------------------------------------


class Captioner(nn.Module):
    """A model that captions audio.

    Args:
        config: The config.
        vocab: The vocabulary.
        vectors: (words, size) initial word embeddings; None if a text model gives the embeddings.

    Raises:
        BadRequest: An encoder is not on this machine, or its windows cannot overlap.
        Faulty: A file of weights does not hold the encoder's weights.
    """

    def __init__(self, config: Config, vocab: Vocabulary, vectors: Tensor | None):
        super().__init__()
        self.config, self.vocabulary = config, vocab
        audio = encoders.load_encoder(config.audio_encoder, config.audio_weights, options=config.audio_options)
        self.audio = overlapping(audio, config.overlap)
        self.audio_encoder, self.sample_rate = self.audio.model.requires_grad_(False), self.audio.sample_rate
        if vectors is None:
            self.words = Context(config.words, config.text_layer, config.context)
            word_size = self.words.size
        else:
            self.words = nn.Embedding.from_pretrained(vectors, freeze=not config.train_words)
            word_size = vectors.shape[1]
        self.adapter = adapter(config, self.audio.size)
        self.decoder = Decoder(
            len(vocab),
            word_size,
            self.adapter.size,
            blocks=config.blocks,
            heads=config.heads,
            head_size=config.head_size,
            hidden=config.hidden,
            dropout=config.dropout,
            original=config.original,
        )
        self.rules = vocabulary.rules(config.min_words, config.max_words, config.no_repeat)
        self.train()

    def train(self, mode: bool = True) -> "Captioner":
        """Set training or evaluation mode; the audio encoder stays in evaluation mode."""
        super().train(mode)
        self.audio_encoder.eval()
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """A dict from the prefix of each frozen encoder's weights to its identity (`systems.parts.checkpoints`)."""
        identities = {"audio_encoder.": self.audio.identity}
        if isinstance(self.words, Context):
            identities["words."] = self.words.identity
        return identities

    def adapt(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map the audio encoder's output, (N, T, size) with (N,) lengths, to (N, T, the adapter's size)."""
        return self.adapter(sequences, length_mask(lengths, sequences.shape[1]))

    def embed_words(self, ids: Tensor) -> Tensor:
        """Embed (rows, L) word indices, which begin with the start, as (rows, L, size).

        The vector of the start is zeros (equation 3).
        """
        if not isinstance(self.words, Context):
            return self.words(ids) * (ids != START)[..., None]
        start = torch.zeros(len(ids), 1, self.words.size, device=ids.device)
        if ids.shape[1] == 1:
            return start
        captions = []
        for row in ids[:, 1:].tolist():
            captions.append(" ".join(self.vocabulary.words[number] for number in row))
        return torch.cat([start, self.words(captions)], dim=1)

    def steps(self, memory: Tensor, lengths: Tensor) -> generation.Step:
        """Return the function that predicts the next word.

        Args:
            memory: (N, T, size) embeddings of the clips, from `adapt`.
            lengths: (N,) number of embeddings of each clip.
        """
        if not isinstance(self.words, Context):
            return CachedSteps(self.decoder, memory, lengths, lambda ids: self.embed_words(ids[:, -1:]))
        if self.config.context == "prefix":
            return CachedSteps(self.decoder, memory, lengths, lambda ids: self.embed_words(ids)[:, -1:])
        return UncachedSteps(self.decoder, memory, lengths, self.embed_words)

    def caption_scored(self, audio: Tensor, lengths: Tensor) -> tuple[list[str], Tensor]:
        """Caption audio.

        Args:
            audio: (N, samples) mono audio at `sample_rate`.
            lengths: (N,) number of samples of each clip.

        Returns:
            The caption of each clip, and the captions' log-probabilities, (N,).
        """
        seeds = generation.seeds(audio, lengths, self.config.sample_seed)
        steps = self.encode(audio, lengths)
        generated = generation.search(steps, seeds, self.rules, self.config, audio.device)
        return [self.vocabulary.decode(ids) for ids in generated.ids.tolist()], generated.log_probability

    def encode(self, audio: Tensor, lengths: Tensor) -> generation.Step:
        """Encode (N, samples) audio, and return the function that predicts the next word."""
        sequences, lengths = stack_sequences(self.audio(audio, lengths))
        return self.steps(self.adapt(sequences, lengths), lengths)

    def caption_alternatives(self, audio: Tensor, lengths: Tensor, number: int) -> list[list[tuple[str, float]]]:
        """Return several captions of each clip with their log-probabilities, best first.

        Args:
            audio: As for `caption_scored`.
            lengths: As for `caption_scored`.
            number: Maximum number of captions of a clip.
        """
        seeds = generation.seeds(audio, lengths, self.config.sample_seed)
        steps = self.encode(audio, lengths)
        generated = generation.search_alternatives(steps, seeds, self.rules, self.config, number, audio.device)
        return generation.scored_captions(generated, self.vocabulary.decode)

    def caption(self, audio: Tensor, lengths: Tensor) -> list[str]:
        """Caption audio as `caption_scored` does, and return the captions only."""
        return self.caption_scored(audio, lengths)[0]


def overlapping(encoder: encoders.Encoder, overlap: float) -> encoders.Encoder:
    """Return an encoder whose windows overlap.

    Args:
        encoder: The encoder.
        overlap: The share of a window that the next one repeats.

    Raises:
        BadRequest: The encoder's model does not define `hop`, the time between its windows in ms.
    """
    if not overlap:
        return encoder
    hop = getattr(encoder.model, "hop", None)
    if not isinstance(hop, int | float):
        raise BadRequest(
            f"overlap must be 0 for {encoder.name}, because its model has no hop (ms between windows); "
            f"found {overlap:g}: set overlap=0"
        )
    return replace(encoder, hop=hop * (1 - overlap))


def adapter(config: Config, inputs: int) -> nn.Module:
    """Make the adapter between the audio encoder and the decoder (section 3.3).

    MLP and MHA give embeddings of the decoder's width. The identity does not change the size of the embeddings. With
    it, the size of the decoder's first layer changes instead (`Decoder.enter_sound`). README.md explains why.

    Args:
        config: The config.
        inputs: Number of values of the audio encoder's embeddings.
    """
    if config.adapter == "mlp":
        return adapters.MLP(inputs, config.heads * config.head_size, config.adapter_hidden)
    if config.adapter == "mha":
        return adapters.MHA(inputs, config.heads, config.head_size, config.dropout)
    return adapters.Identity(inputs)


def begin_words(config: Config, vocab: Vocabulary, captions: Iterable[str], seed: int) -> Tensor | None:
    """Return the initial word vectors (section 3.4).

    The values are scaled to a standard deviation of 1, which is that of random vectors (not in the paper). A word gets
    a random vector if the file does not contain it. A word with a hyphen gets the mean of its parts' vectors.

    Args:
        config: The config.
        vocab: The vocabulary.
        captions: The captions to train vectors on.
        seed: Seed of random vectors and of training.

    Returns:
        (words, size); None if a text model gives the vectors.

    Raises:
        BadRequest: There is no such file, it is not a file of word vectors, or it does not contain any word of the
            captions.
    """
    if not config.static:
        return None
    generator = torch.Generator().manual_seed(seed)
    if config.words == "random":
        return torch.randn(len(vocab), words.SIZE, generator=generator)
    if config.words == "train":
        table = words.train_vectors(captions, seed=seed, cbow=True)
    else:
        table = words.read_vectors(config.words, size=None, limit=config.words_limit)
    from_table = torch.from_numpy(words.mean_vectors(vocab.words, table))
    from_table[: len(vocabulary.SPECIAL)] = 0
    has_vector = from_table.any(1)
    if not has_vector.any():
        raise BadRequest(
            f"words: {config.words}: must contain vectors for words of the captions; found only vectors for other "
            "words: give another file"
        )
    vectors = torch.randn(from_table.shape, generator=generator)
    vectors[has_vector] = from_table[has_vector] / from_table[has_vector].std()
    return vectors


# The training step ---------------------------------------------------------------------------------------------------


class Item(NamedTuple):
    """A training example: a clip and one of its captions (section 3.1)."""

    sound: np.ndarray  # (T, size) embeddings of the clip
    ids: list[int]  # word indices of the caption, from start to end
    vectors: np.ndarray | None  # (words, size) vectors of words in context; None if the words have static vectors


class Batch(NamedTuple):
    """N pairs of a clip and a caption."""

    sounds: Tensor  # (N, T, size) embeddings of the clips
    lengths: Tensor  # (N,) number of embeddings of each clip
    ids: Tensor  # (N, L) word indices of the captions, from start to end, padded
    vectors: Tensor | None  # (N, L - 1, size) vectors of all words but the last, zeros for the start; None as in `Item`


def make_items(split: Split, model: Captioner, cache: Path) -> list[Item]:
    """Return an item for each pair of a clip and a caption of a split.

    Raises:
        Faulty: Some audio files cannot be used. The findings name all of them.
    """
    sounds = embed(split.paths, model.audio, cache)
    pairs = []
    for sound, clip in zip(sounds, split.clips, strict=True):
        pairs += [(sound, caption) for caption in clip.captions]
    vectors: Sequence[np.ndarray | None] = [None] * len(pairs)
    if isinstance(model.words, Context):
        vectors = model.words.embed([" ".join(vocabulary.words_with_hyphens(caption)) for _, caption in pairs], cache)
    longest = model.config.longest
    return [
        Item(sound, model.vocabulary.sequence(caption, longest), own)
        for (sound, caption), own in zip(pairs, vectors, strict=True)
    ]


def make_batch(items: Sequence[Item]) -> Batch:
    """Make a batch of pairs."""
    sounds, lengths = stack_sequences([torch.from_numpy(item.sound.copy()) for item in items])
    ids = nn.utils.rnn.pad_sequence([torch.tensor(item.ids) for item in items], True, PADDING)
    vectors = None
    in_context = [item.vectors for item in items if item.vectors is not None]
    if in_context:
        vectors = torch.zeros(len(items), ids.shape[1] - 1, in_context[0].shape[1])
        for row, (item, word_vectors) in enumerate(zip(items, in_context, strict=True)):
            caption_vectors = torch.from_numpy(word_vectors[: len(item.ids) - 2].copy())
            vectors[row, 1 : 1 + len(caption_vectors)] = caption_vectors
    return Batch(sounds, lengths, ids, vectors)


class Training(SystemModule):
    """The model's training under lightning: training step, validation step and optimizer."""

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Return the mean cross-entropy over all words of a batch, and the number of words."""
        model = self.model
        if batch.vectors is None:
            vectors = model.embed_words(batch.ids[:, :-1])
        else:
            vectors = batch.vectors
        logits = model.decoder(vectors, model.adapt(batch.sounds, batch.lengths), batch.lengths)  # (N, L - 1, words)
        next_words = batch.ids[:, 1:]
        loss = F.cross_entropy(logits.flatten(0, 1), next_words.flatten(), ignore_index=PADDING)
        return loss, int((next_words != PADDING).sum())

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss."""
        loss, size = self.loss(batch)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the validation loss."""
        loss, size = self.loss(batch)
        self.log("validation_loss", loss, prog_bar=True, batch_size=size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam as published: betas 0.9 and 0.999, epsilon 1e-8."""
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trainable, self.model.config.learning_rate, betas=(0.9, 0.999), eps=1e-8)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the digest of the vocabulary to the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vocabulary"] = self.model.vocabulary.digest


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split and choose the best epoch on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    extra = choose_extra(config, development)
    run = replace(run, data={**run.data, **extra.digests})
    vocab = vocabulary.from_captions([*development.all_captions, *extra.captions])
    if run.last.exists():  # the last checkpoint holds the vectors, which training may have changed
        vectors = read_checkpoint(run.last)["state_dict"].get(VECTORS)
    else:
        vectors = begin_words(config, vocab, [*development.captions, *extra.captions], run.seed)
    lightning.seed_everything(run.seed, verbose=False)
    model = Captioner(config, vocab, vectors)
    model.to(default_device())
    items = {split.name: make_items(split, model, run.cache) for split in (development, validation)}
    to_train: Sequence[Item] | WithExtra = items[DEVELOPMENT]
    if extra.pairs:
        extra_items = make_items(extra.as_split(), model, run.cache)
        to_train = WithExtra(items[DEVELOPMENT], extra_items, config.extra_share)

    run.start()
    vocab.write(run.folder / vocabulary.FILE)
    run.fit(Training(model), to_train, items[VALIDATION], make_batch, config)
    if config.words == "random":
        word_embeddings = "learned"
    elif config.words == "train":
        word_embeddings = "CBOW"
    else:
        word_embeddings = metadata_name(config.words)
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features=f"{config.audio_encoder} embeddings",
        word_embeddings=word_embeddings,
        machine_learning_method="encoder-decoder",
        audio_modelling=config.audio_encoder,
        word_modelling="transformer",
        loss_function="cross-entropy",
    )
    run.describe(load_model(run.best), description)


def load_model(checkpoint: Path) -> Captioner:
    """Load the model from a checkpoint in a run folder. The folder also contains the vocabulary, vocabulary.json.

    Raises:
        BadRequest: The vocabulary or an encoder differs from that of training or is not on this machine.
    """
    state = read_checkpoint(checkpoint, config=dict, frozen=dict, vocabulary=str)
    vocab = vocabulary.read_vocabulary(checkpoint, state["vocabulary"])
    model = Captioner(Config(**state["config"]), vocab, state["state_dict"].get(VECTORS))
    load_weights(model, state, checkpoint)
    return model.eval()
