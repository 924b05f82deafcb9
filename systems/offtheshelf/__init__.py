"""Captioning with off-the-shelf models (Weck et al. 2021), to be read from top to bottom.

    python -m systems train systems.offtheshelf --config systems/offtheshelf/offtheshelf.yaml --data DIR --run RUN
    python -m systems predict RUN --data DIR --split evaluation

An audio encoder that others trained turns a clip into a sequence of embeddings, an adapter brings them to the decoder's
size, and a Transformer decoder says word after word what they hold. The words before come as vectors: learnt here, or
of a model that others trained. The paper compares four encoders at two overlaps, three adapters and eleven kinds of
words (`grid.yaml`); the defaults are the best of these.

Encoders are frozen (section 3.2): each is asked once for every clip, a model of words in context once for every
caption, and training reads what they said.
"""

from collections.abc import Sequence
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
from evaluation.findings import BadRequest
from systems.caching.embeddings import embed
from systems.offtheshelf.context import Context, View
from systems.parts import adapters, encoders, generation, texts, vocabulary, words
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.decoder import CachedSteps, Decoder, UncachedSteps
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.sequences import length_mask, stack_sequences
from systems.parts.vocabulary import PADDING, START, Vocabulary
from systems.training import Run, Schedule, metadata_name, read_checkpoint

PAPER = "Weck et al. 2021"
PARAMETERS = "10,385,408 and 513 a word (YAMNet, MHA, BERT), and the encoders'"
VECTORS = "model.words.weight"  # in a checkpoint


class Config(Schedule, generation.Decoding):
    """What can be chosen; the defaults are the paper's best setting, and where it is silent what the comment says.

    Two are not the paper's: `context` (why: README.md), and `words_limit`, which leaves out vectors of a file's rarer
    words to save time and memory (`grid.yaml` reads them all).
    """

    batch: int = Field(256, ge=1)  # pairs of a clip and a caption a step (3.1)
    monitor: Literal["loss"] = "loss"  # the validation value that chooses the best epoch (3.1)
    plateau: int = Field(10, ge=1)  # the paper changes no learning rate, and by its patience of 10 training stops then

    audio_encoder: str = "yamnet"  # one of `encoders.NAMES`, or any HEAR module (3.2)
    audio_weights: str = ""  # file or folder of its weights; where they are looked for by default
    # Keyword arguments for its load_model: vggish has post_activation, openl3 padding.
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)
    overlap: float = Field(0.5, ge=0, lt=1)  # share of a window that the next one repeats; the paper has 0 and .5 (3.2)
    adapter: Literal["identity", "mlp", "mha"] = "mha"  # (3.3)
    adapter_hidden: int = Field(256, ge=1)  # of the MLP (3.3)
    words: str = "bert-base-uncased"  # `random`, `train` (CBOW on the captions), a file of vectors, a text model (3.4)
    train_words: bool = False  # whether vectors of words are fine-tuned; a text model's stay (3.4)
    words_limit: int | None = 200_000  # how many words to read from a file, frequent ones first; the paper's: None
    # How a text model looks at a caption in training (`offtheshelf.context`); the paper's: caption.
    context: View = "prefix"
    text_layer: int = -2  # of a text model: the penultimate one (3.4)

    blocks: int = Field(3, ge=1)  # of the decoder (3.1)
    heads: int = Field(4, ge=1)  # of each attention, the adapter's too (3.1, 3.3)
    head_size: int = Field(128, ge=2, multiple_of=2)  # (3.1, 3.3)
    hidden: int = Field(512, ge=1)  # between the two linear layers of a block; silent: as wide as the decoder
    # Vaswani et al.'s Transformer (2, 3.3): positions on the word vectors, norms behind each part, ReLU, and a single
    # layer whose size depends on the sound; or positions behind the linear layer, norms before, GELU, and keys and
    # values of the sound's size in each block.
    original: bool = True
    dropout: float = Field(0.1, ge=0, lt=1)  # of decoder and MHA; silent: Vaswani et al.'s
    longest: int = Field(60, ge=1)  # words of a caption that are learnt; silent: Clotho's have 20 at most
    decoding: Literal["beam", "greedy", "sample"] = "greedy"  # section 2 says no more than word after word

    @property
    def static(self) -> bool:
        """Whether a word has one vector, whatever its context."""
        return self.words in ("random", "train") or self.words.endswith(texts.WORDS)

    @model_validator(mode="after")
    def _words(self) -> "Config":
        if self.train_words and not self.static:
            raise ValueError(f"train_words must be false for a text model, which stays as it is; words is {self.words}")
        return self


# The model ---------------------------------------------------------------------------------------------------------


class Captioner(nn.Module):
    """Says what sounds hold.

    Args:
        config: The config.
        known: The words that it can say.
        vectors: (words, size) that the words begin with; None where they come from a text model.

    Raises:
        BadRequest: An encoder is not on this machine, or has no windows that could overlap.
        Faulty: A file of weights holds others.
    """

    def __init__(self, config: Config, known: Vocabulary, vectors: Tensor | None):
        super().__init__()
        self.config, self.vocabulary = config, known
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
            len(known),
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
        """Begin training or end it; the audio encoder stays as it is."""
        super().train(mode)
        self.audio_encoder.eval()
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """The encoders by the prefix of their weights, and what their embeddings follow from."""
        if isinstance(self.words, Context):
            context = {"words.": self.words.identity}
        else:
            context = {}
        return {"audio_encoder.": self.audio.identity, **context}

    def adapt(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map what the audio encoder gives, (N, T, size) with (N,) lengths, to (N, T, the adapter's size)."""
        return self.adapter(sequences, length_mask(lengths, sequences.shape[1]))

    def embed_words(self, ids: Tensor) -> Tensor:
        """The vectors of (rows, L) words from the start on, as (rows, L, size); the start is zeros (equation 3)."""
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
        """The decoder a word at a time over (N, T, size) adapted clips of `lengths` (N,)."""
        if not isinstance(self.words, Context):
            return CachedSteps(self.decoder, memory, lengths, lambda ids: self.embed_words(ids[:, -1:]))
        if self.config.context == "prefix":
            return CachedSteps(self.decoder, memory, lengths, lambda ids: self.embed_words(ids)[:, -1:])
        return UncachedSteps(self.decoder, memory, lengths, self.embed_words)

    def caption_scored(self, audio: Tensor, lengths: Tensor) -> tuple[list[str], Tensor]:
        """Caption (N, samples) mono sounds at `sample_rate`, of `lengths` (N,) samples; with log-probabilities (N,)."""
        seeds = generation.seeds(audio, lengths, self.config.sample_seed)
        sequences, lengths = stack_sequences(self.audio(audio, lengths))
        steps = self.steps(self.adapt(sequences, lengths), lengths)
        found = generation.search(steps, seeds, self.rules, self.config, sequences.device)
        return [self.vocabulary.decode(ids) for ids in found.ids.tolist()], found.log_probability

    def caption(self, audio: Tensor, lengths: Tensor) -> list[str]:
        """Caption sounds as `caption_scored` does."""
        return self.caption_scored(audio, lengths)[0]


def overlapping(encoder: encoders.Encoder, overlap: float) -> encoders.Encoder:
    """An encoder of windows that overlap by a share of one.

    Raises:
        BadRequest: It has no `hop`, from window to window, that could be made shorter.
    """
    if not overlap:
        return encoder
    hop = getattr(encoder.model, "hop", None)
    if not isinstance(hop, int | float):
        raise BadRequest(f"overlap must be 0 for {encoder.name}, whose model has no hop (ms from window to window)")
    return replace(encoder, hop=hop * (1 - overlap))


def adapter(config: Config, inputs: int) -> nn.Module:
    """The adapter between embeddings of so many values and the decoder (section 3.3).

    MLP and MHA give embeddings of the decoder's width. With the identity, the decoder's first layer changes in size
    (`Decoder.enter_sound`); the paper says no more of it (README.md).
    """
    if config.adapter == "mlp":
        return adapters.MLP(inputs, config.heads * config.head_size, config.adapter_hidden)
    if config.adapter == "mha":
        return adapters.MHA(inputs, config.heads, config.head_size, config.dropout)
    return adapters.Identity(inputs)


def begin_words(config: Config, known: Vocabulary, split: Split, seed: int) -> Tensor | None:
    """The (words, size) vectors that training begins with (section 3.4); None where a text model gives them.

    All have the standard deviation of random ones, 1 (the paper is silent); a word that a file lacks begins at random,
    one with a hyphen with the mean of its parts.

    Raises:
        BadRequest: The file is not there, or is no file of word vectors.
    """
    if not config.static:
        return None
    generator = torch.Generator().manual_seed(seed)
    if config.words == "random":
        return torch.randn(len(known), words.SIZE, generator=generator)
    if config.words == "train":
        table = words.train_vectors(split.captions, seed=seed, cbow=True)
    else:
        table = words.read_vectors(Path(config.words).expanduser(), size=None, limit=config.words_limit)
    found = torch.from_numpy(words.mean_vectors(known.words, table))
    found[: len(vocabulary.SPECIAL)] = 0
    there = found.any(1)
    if not there.any():
        raise BadRequest(f"words: {config.words}: has a vector for none of the captions' words; give another file")
    vectors = torch.randn(found.shape, generator=generator)
    vectors[there] = found[there] / found[there].std()
    return vectors


# The training step ---------------------------------------------------------------------------------------------------


class Item(NamedTuple):
    """A clip and one of its captions, which are a training example (section 3.1)."""

    sound: np.ndarray  # (T, size) embeddings
    ids: list[int]  # from start to end
    vectors: np.ndarray | None  # (words, size) in their context; None where each word has its own


class Batch(NamedTuple):
    """Pairs of a clip and a caption."""

    sounds: Tensor  # (N, T, size)
    lengths: Tensor  # (N,)
    ids: Tensor  # (N, L), padded
    vectors: Tensor | None  # (N, L - 1, size) of all words but the last, the start's zeros among them


def make_items(split: Split, model: Captioner, cache: Path) -> list[Item]:
    """Every pair of a clip and a caption.

    Raises:
        Faulty: A sound cannot be used; with all that cannot.
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
    """Lay pairs side by side."""
    sounds, lengths = stack_sequences([torch.from_numpy(item.sound.copy()) for item in items])
    ids = nn.utils.rnn.pad_sequence([torch.tensor(item.ids) for item in items], True, PADDING)
    vectors = None
    if items[0].vectors is not None:
        vectors = torch.zeros(len(items), ids.shape[1] - 1, items[0].vectors.shape[1])
        for row, item in enumerate(items):
            said = torch.from_numpy(item.vectors[: len(item.ids) - 2].copy())
            vectors[row, 1 : 1 + len(said)] = said
    return Batch(sounds, lengths, ids, vectors)


class Training(SystemModule):
    """What lightning does with the model: one step of training, one of validation, the optimizer."""

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross-entropy of all words, and how many they are."""
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
        """Log the loss."""
        loss, size = self.loss(batch)
        self.log("validation_loss", loss, prog_bar=True, batch_size=size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published: betas .9 and .999, epsilon 1e-8."""
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learning, self.model.config.learning_rate, betas=(0.9, 0.999), eps=1e-8)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep beside the weights what `load_model` needs to understand them."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vocabulary"] = self.model.vocabulary.digest


# The three names of the contract -------------------------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split, choosing the best epoch on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    known = vocabulary.from_captions(development.all_captions)
    if run.last.exists():  # which holds the vectors, with what was learnt since
        vectors = read_checkpoint(run.last)["state_dict"].get(VECTORS)
    else:
        vectors = begin_words(config, known, development, run.seed)
    lightning.seed_everything(run.seed, verbose=False)
    model = Captioner(config, known, vectors)
    model.to(default_device())
    items = {split.name: make_items(split, model, run.cache) for split in (development, validation)}

    run.start()
    known.write(run.folder / vocabulary.FILE)
    run.fit(Training(model), items[DEVELOPMENT], items[VALIDATION], make_batch, config)
    said = {"random": "learned", "train": "CBOW"}.get(config.words, metadata_name(config.words))
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features=f"{config.audio_encoder} embeddings",
        word_embeddings=said,
        machine_learning_method="encoder-decoder",
        audio_modelling=config.audio_encoder,
        word_modelling="transformer",
        loss_function="cross-entropy",
    )
    run.describe(load_model(run.best), description)


def load_model(checkpoint: Path) -> Captioner:
    """Give back the model of a checkpoint in its run folder, where the vocabulary lies too.

    Raises:
        BadRequest: The vocabulary there is another than in training, or an encoder is not on this machine or another.
    """
    state = read_checkpoint(checkpoint, config=dict, frozen=dict, vocabulary=str)
    known = vocabulary.read_vocabulary(checkpoint, state["vocabulary"])
    model = Captioner(Config(**state["config"]), known, state["state_dict"].get(VECTORS))
    load_weights(model, state, checkpoint)
    return model.eval()
