"""The baseline captioner, to be read from top to bottom.

    python -m systems train baseline.captioner --config baseline/captioner.yaml --data DIR --run RUN
    python -m systems predict RUN --data DIR --split evaluation

The retriever's CRNN turns the log-mel energies of a clip into a vector every four frames; a Transformer decoder, which
begins with word2vec's vectors, says word after word what they hold (Weck et al. 2021 in its sizes, with an encoder that
learns). Training maximises the probability of the next word of the captions (cross-entropy); beam search makes a
caption of a new clip.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baseline.crnn import CRNN, SIZE
from baseline.retriever import Item, by_caption, make_items, pad
from evaluation.data.audio import LogMel
from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset, Split
from evaluation.findings import BadRequest
from systems.parts import generation, vocabulary, words
from systems.parts.augmentation import mixing, spec_augment
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.decoder import CachedSteps, Decoder
from systems.parts.descriptions import describe_system
from systems.parts.generation import Decoding
from systems.parts.vocabulary import PADDING, Vocabulary
from systems.training import Run, Schedule, metadata_name, read_checkpoint

PAPER = "Weck et al. 2021 (decoder), Xie et al. 2022 (encoder)"
PARAMETERS = "8,125,122 and 813 a word"


class Config(Schedule, Decoding):
    """The settings; how captions are decoded (`decoding`, `beams` …) is `generation.Decoding`'s.

    The defaults are what captions better here; baseline/captioner-published.yaml trains the decoder as published.
    """

    batch: int = Field(16, ge=1)  # clips a step, or with `sampler: caption` captions; on several devices, of each
    learning_rate: float = Field(5e-4, gt=0)  # of Adam
    monitor: Literal["loss", "CIDEr-D"] = "loss"  # the validation value that chooses the best epoch
    init_from: str | None = None  # run folder of the baseline's retriever or captioner, whose encoder is begun with
    words: str = "train"  # a file of word vectors (word2vec .bin, or text), or `train`: on the development captions
    words_limit: int | None = 200_000  # how many words to read from a file, frequent ones first
    words_epochs: int = Field(50, ge=1)  # of training word vectors
    slope: float = 0.1  # of the encoder's leaky ReLU
    dropout: float = Field(0.3, ge=0, lt=1)  # of the encoder
    blocks: int = Field(3, ge=1)  # of the decoder
    original: bool = False  # norms behind each part, and ReLU (Vaswani et al. 2017); or before it, and GELU
    heads: int = Field(4, ge=1)  # of each attention
    head_size: int = Field(128, ge=2, multiple_of=2)
    hidden: int = Field(512, ge=1)  # between the two linear layers of a block
    decoder_dropout: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)  # this share is spread over all words; .1 and 0 score alike here
    spec_augment: int = Field(0, ge=0)  # stretches of time and of frequency blotted out; 2 learn slower here
    mixup: float = Field(0.0, ge=0)  # alpha of mixup's beta distribution; 0: none
    gradient_norm: float | None = Field(1.0, gt=0)  # a longer gradient is cut to this; None: none is; published: None
    sampler: Literal["clip", "caption"] = "clip"  # encode a clip once a step with all its captions, or once a caption
    longest: int = Field(60, ge=1)  # words of a caption that are learnt; what a longer one goes on to say is left out


# The model ---------------------------------------------------------------------------------------------------------


class Captioner(nn.Module):
    """Says what sounds hold.

    Args:
        config: The config.
        known: The words that it can say.
        vectors: (words, 300) vectors that the words begin with; zeros where there is none. Random by default.
    """

    def __init__(self, config: Config, known: Vocabulary, vectors: np.ndarray | None = None):
        super().__init__()
        self.config, self.vocabulary = config, known
        self.log_mel = LogMel()
        self.sample_rate = self.log_mel.sample_rate
        self.audio_encoder = CRNN(config.slope, config.dropout)
        self.embedding = nn.Embedding(len(known), words.SIZE, padding_idx=PADDING)
        if vectors is not None:
            there = torch.from_numpy(vectors).any(1)
            # Random vectors have a standard deviation of 1: those of all words begin alike.
            self.embedding.weight.data[there] = torch.from_numpy(vectors)[there] / float(vectors[there].std())
        self.decoder = Decoder(
            len(known),
            words.SIZE,
            SIZE,
            blocks=config.blocks,
            heads=config.heads,
            head_size=config.head_size,
            hidden=config.hidden,
            dropout=config.decoder_dropout,
            original=config.original,
        )
        self.rules = vocabulary.rules(config.min_words, config.max_words, config.no_repeat)

    def steps(self, memory: Tensor, lengths: Tensor) -> CachedSteps:
        """The decoder a word at a time over (N, T, 300) encoded clips of `lengths` (N,) frames."""
        return CachedSteps(self.decoder, memory, lengths, lambda ids: self.embedding(ids[:, -1:]))

    def say(self, memory: Tensor, lengths: Tensor, seeds: Sequence[int]) -> generation.Generated:
        """Caption (N, T, 300) encoded clips of `lengths` (N,) frames as the config says; a seed each, for sampling."""
        return generation.search(self.steps(memory, lengths), seeds, self.rules, self.config, memory.device)

    def caption_scored(self, audio: Tensor, lengths: Tensor) -> tuple[list[str], Tensor]:
        """Caption (N, samples) mono sounds at `sample_rate`, of `lengths` (N,) samples; with log-probabilities (N,)."""
        clips = [sound[:length].cpu().numpy() for sound, length in zip(audio, lengths, strict=True)]
        encoded = self.audio_encoder(*pad([self.log_mel(clip) for clip in clips], audio.device))
        found = self.say(*encoded, generation.seeds(audio, lengths, self.config.sample_seed))
        return [self.vocabulary.decode(ids) for ids in found.ids.tolist()], found.log_probability

    def caption(self, audio: Tensor, lengths: Tensor) -> list[str]:
        """Caption sounds as `caption_scored` does."""
        return self.caption_scored(audio, lengths)[0]


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Clips, and their captions in numbers from start to end, those of a clip together."""

    mels: Tensor  # (N, T, 64)
    lengths: Tensor  # (N,)
    ids: Tensor  # (captions, L), padded


def make_batch(items: Sequence[Item], known: Vocabulary, longest: int) -> Batch:
    """Lay clips side by side, each with all its captions; what one says behind `longest` words is left out."""
    captions = chain.from_iterable(item.captions for item in items)
    sequences = [torch.tensor(known.sequence(caption, longest)) for caption in captions]
    mels, lengths = pad([item.mels for item in items])
    return Batch(mels, lengths, nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PADDING))


class Training(SystemModule):
    """What lightning does with the model: one step of training, one of validation, the optimizer."""

    def __init__(self, model: Captioner, validation: Split):
        super().__init__(model)
        self.split = validation

    def loss(self, vectors: Tensor, ids: Tensor, memory: Tensor, lengths: Tensor, smoothing: float = 0) -> Tensor:
        """Mean cross-entropy of all words of (captions, L) `ids`, given the (captions, L - 1, 300) vectors before."""
        logits = self.model.decoder(vectors, memory, lengths)  # (captions, L - 1, words)
        return F.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PADDING, label_smoothing=smoothing
        )

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Encode the batch's clips, and return the loss."""
        model, config, mels = self.model, self.model.config, batch.mels
        if config.spec_augment:
            mels = spec_augment(mels, batch.lengths, config.spec_augment)
        memory, lengths = model.audio_encoder(mels, batch.lengths)
        vectors = model.embedding(batch.ids[:, :-1])
        if config.mixup:  # of what was heard and what was said so far; what comes next stays the first clip's
            other, share = mixing(len(memory), config.mixup, memory.device)
            memory = torch.lerp(memory[other], memory, share[:, None, None])
            lengths = torch.maximum(lengths, lengths[other])
            said = vectors.unflatten(0, (len(memory), -1))  # (N, captions of a clip, L - 1, 300)
            vectors = torch.lerp(said[other], said, share[:, None, None, None]).flatten(0, 1)
        loss = self.loss(vectors, batch.ids, memory, lengths, config.label_smoothing)
        size = int((batch.ids[:, 1:] != PADDING).sum())
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Cut a gradient that is too long."""
        longest = self.model.config.gradient_norm
        if longest is not None:
            nn.utils.clip_grad_norm_(self.parameters(), longest)

    def on_validation_epoch_start(self) -> None:
        """Forget the captions of the last time."""
        self.captions: list[str] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Caption the clips greedily, and log the loss."""
        model = self.model
        memory, lengths = model.audio_encoder(batch.mels, batch.lengths)
        found = generation.greedy(model.steps(memory, lengths), len(memory), model.rules, memory.device)
        self.captions += [model.vocabulary.decode(ids) for ids in found.ids.tolist()]
        loss = self.loss(model.embedding(batch.ids[:, :-1]), batch.ids, memory, lengths)
        size = int((batch.ids[:, 1:] != PADDING).sum())
        self.log("validation_loss", loss, prog_bar=True, batch_size=size)

    def on_validation_epoch_end(self) -> None:
        """Log CIDEr-D of the captions."""
        self.log("validation_CIDEr-D", vocabulary.cider(self.split, self.captions), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        return torch.optim.Adam(self.model.parameters(), lr=self.model.config.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the digest of the vocabulary to the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vocabulary"] = self.model.vocabulary.digest


# The three names of the contract -------------------------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split, choosing the best epoch on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    known = vocabulary.from_captions(development.all_captions)
    vectors = encoder = None
    if not run.last.exists():  # which else holds them, with what was learnt since
        if config.init_from:
            encoder = encoder_of(Path(config.init_from), config.slope)
        else:
            encoder = None
        if config.words == "train":
            table = words.train_vectors(development.captions, epochs=config.words_epochs, seed=run.seed)
        else:
            table = words.read_vectors(Path(config.words), limit=config.words_limit)
        vectors = words.mean_vectors(known.words, table)  # a word with a hyphen has the mean of its parts
        vectors[: len(vocabulary.SPECIAL)] = 0
    lightning.seed_everything(run.seed, verbose=False)
    model = Captioner(config, known, vectors)
    if encoder:
        model.audio_encoder.load_state_dict(encoder)
    clips = {split.name: make_items(split, model.log_mel, run.cache) for split in (development, validation)}
    to_train = clips[DEVELOPMENT]
    if config.sampler == "caption":
        to_train = by_caption(to_train)

    run.start()
    known.write(run.folder / vocabulary.FILE)
    module = Training(model, validation)
    collate = partial(make_batch, known=known, longest=config.longest)
    run.fit(module, to_train, clips[VALIDATION], collate, config)
    augmentation = [name for name, on in (("SpecAugment", config.spec_augment), ("mixup", config.mixup)) if on]
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features="log-mel energies",
        word_embeddings="Word2Vec" if config.words == "train" else metadata_name(config.words),
        data_augmentation=", ".join(augmentation) or None,
        machine_learning_method="encoder-decoder",
        audio_modelling="CRNN",
        word_modelling="transformer",
        loss_function="cross-entropy",
        gradient_clipping=config.gradient_norm or 0,
        gradient_norm="L2" if config.gradient_norm else None,
    )
    run.describe(load_model(run.best), description)


def encoder_of(folder: Path, slope: float) -> dict[str, Tensor]:
    """The weights of the CRNN of another run's best epoch.

    Raises:
        BadRequest: The folder is no run, or its encoder is none with this slope.
    """
    checkpoint, advice = (
        folder / "checkpoints" / "best.ckpt",
        "give that of the baseline's retriever or captioner, trained",
    )
    if not checkpoint.is_file():
        raise BadRequest(f"init_from: {folder}: is no trained run (it has no checkpoints/best.ckpt); {advice}")
    try:
        state = read_checkpoint(checkpoint)
        prefix = "model.audio_encoder."
        weights = {name[len(prefix) :]: value for name, value in state["state_dict"].items() if name.startswith(prefix)}
        CRNN().load_state_dict(weights)
        found = state["config"]["slope"]
    except (BadRequest, RuntimeError, KeyError, TypeError, AttributeError):
        raise BadRequest(f"init_from: {checkpoint}: does not hold this kit's CRNN; {advice}") from None
    if found != slope:
        raise BadRequest(f"slope must be {found:g} as in init_from's run, {folder}; found {slope:g}")
    return weights


def load_model(checkpoint: Path) -> Captioner:
    """Give back the model of a checkpoint in its run folder, where the vocabulary lies too.

    Raises:
        BadRequest: The vocabulary there is another than the one that the checkpoint was trained with.
    """
    state = read_checkpoint(checkpoint, config=dict, vocabulary=str)
    known = vocabulary.read_vocabulary(checkpoint, state["vocabulary"])
    model = Captioner(Config(**state["config"]), known)
    load_weights(model, state, checkpoint)
    return model.eval()
