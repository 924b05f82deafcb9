"""The baseline captioner. Read this module from top to bottom.

    dcase-systems train baseline.captioner --config baseline/captioner.yaml --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

The retriever's CRNN maps the log-mel energies of a clip to one vector every four frames. A Transformer decoder predicts
the caption word by word from these vectors. The decoder has the sizes of Weck et al. 2021, and its word embeddings are
initialised with word2vec vectors. Unlike in Weck et al. 2021, the encoder is trained too. Training maximises the
probability of each word of a caption, given the previous words (cross-entropy). Beam search generates the caption of a
new clip.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from baseline.crnn import CRNN, SIZE
from baseline.retriever import Item, by_caption, make_items, pad
from evaluation.data.audio import LogMel
from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset
from evaluation.downloads import Download
from evaluation.findings import BadRequest
from systems.parts import generation, vocabulary, words
from systems.parts.augmentation import mixing, spec_augment
from systems.parts.checkpoints import load_initial_weights, load_weights
from systems.parts.decoder import CachedSteps, Decoder
from systems.parts.descriptions import describe_system
from systems.parts.extra import ExtraCaptions, WithExtra, choose_extra
from systems.parts.generation import Decoding, WordByWord
from systems.parts.self_critical import CaptionerModule, Rewards, SelfCritical, SelfCriticalSettings
from systems.parts.vocabulary import PADDING, Vocabulary
from systems.training import Run, Schedule, metadata_name, read_checkpoint

PAPER = "Weck et al. 2021 (decoder), Xie et al. 2022 (encoder)"
PARAMETERS = "8,125,122 + 813 per word"


class Config(ExtraCaptions, SelfCriticalSettings, Schedule, Decoding):
    """The settings. The base classes define further ones, such as `epochs`.

    In our tests, the defaults gave better captions than the published settings. To train the decoder as published, use
    baseline/captioner-published.yaml.
    """

    batch: int = Field(16, ge=1)  # clips (with `sampler: caption`, captions) in a training step on each device
    learning_rate: float = Field(5e-4, gt=0)  # of Adam
    monitor: Literal["loss", "CIDEr-D"] = "loss"  # the validation value that chooses the best epoch
    # Run folder of a baseline retriever or captioner; its encoder is the initial one. With `loss: self_critical`, run
    # folder of a captioner; all of its weights are the initial ones.
    init_from: str | None = None
    words: str = "train"  # `train` (on the development captions), or a file of word vectors (word2vec's .bin or text)
    words_limit: int | None = 200_000  # maximum number of words to read from a file, frequent ones first; None: all
    words_epochs: int = Field(50, ge=1)  # epochs of training word vectors
    slope: float = 0.1  # of the encoder's leaky ReLU for negative values
    dropout: float = Field(0.3, ge=0, lt=1)  # in the encoder
    blocks: int = Field(3, ge=1)  # number of blocks of the decoder
    original: bool = False  # norms after each sublayer and ReLU (Vaswani et al. 2017); false: norms before it and GELU
    heads: int = Field(4, ge=1)  # number of heads of each attention layer
    head_size: int = Field(128, ge=2, multiple_of=2)  # values of each head
    hidden: int = Field(512, ge=1)  # values between the two linear layers of a block
    decoder_dropout: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)  # share that is spread over all words; 0 and 0.1 score alike
    spec_augment: int = Field(0, ge=0)  # number of masks in time, and also in frequency; 2 slows learning down
    mixup: float = Field(0.0, ge=0)  # alpha of mixup's beta distribution; 0: no mixup
    gradient_norm: float | None = Field(1.0, gt=0)  # clip gradients to this norm; None: no clipping, as published
    sampler: Literal["clip", "caption"] = "clip"  # encode a clip once, with all its captions; or once for each caption
    longest: int = Field(60, ge=1)  # maximum number of words in a caption in training; further words are left out

    @model_validator(mode="after")
    def _items_of_one_caption(self) -> "Config":
        if self.extra_share and self.sampler == "clip":
            raise ValueError(
                "sampler must be caption with extra_share above 0, because all items of a batch must have the same "
                "number of captions; found clip: set sampler=caption"
            )
        return self


def downloads(config: Config) -> list[Download]:
    """Return the published files that a config needs."""
    if config.words == "train":
        return []
    return [words.download(config.words)]


# The model ---------------------------------------------------------------------------------------------------------


class Captioner(WordByWord, nn.Module):
    """A model that captions audio.

    Args:
        config: The config.
        vocab: The vocabulary.
        vectors: (words, 300) initial word embeddings. A row of zeros marks a word without a vector; it gets a random
            embedding. If None, all embeddings are random.
    """

    def __init__(self, config: Config, vocab: Vocabulary, vectors: np.ndarray | None = None):
        super().__init__()
        self.config, self.vocabulary = config, vocab
        self.log_mel = LogMel()
        self.sample_rate = self.log_mel.sample_rate
        self.audio_encoder = CRNN(config.slope, config.dropout)
        self.embedding = nn.Embedding(len(vocab), words.SIZE, padding_idx=PADDING)
        if vectors is not None:
            has_vector = torch.from_numpy(vectors).any(1)
            # Random embeddings have a standard deviation of 1, so the vectors are scaled to the same.
            scale = float(vectors[has_vector].std())
            self.embedding.weight.data[has_vector] = torch.from_numpy(vectors)[has_vector] / scale
        self.decoder = Decoder(
            len(vocab),
            words.SIZE,
            SIZE,
            blocks=config.blocks,
            heads=config.heads,
            head_size=config.head_size,
            hidden=config.hidden,
            dropout=config.decoder_dropout,
            original=config.original,
        )
        self.decoding = Decoding.of(config)
        self.rules = vocabulary.rules(config.min_words, config.max_words, config.no_repeat)

    def steps(self, memory: Tensor, lengths: Tensor) -> CachedSteps:
        """Return the decoder's steps, word by word, for (N, T, 300) encoded clips of `lengths` (N,) frames."""
        return CachedSteps(self.decoder, memory, lengths, lambda ids: self.embedding(ids[:, -1:]))

    def encode(self, audio: Tensor, lengths: Tensor) -> CachedSteps:
        """Encode (N, samples) audio with (N,) lengths, and return the function that predicts the next word."""
        clips = [samples[:length].cpu().numpy() for samples, length in zip(audio, lengths, strict=True)]
        return self.steps(*self.audio_encoder(*pad([self.log_mel(clip) for clip in clips], audio.device)))

    def decode(self, ids: list[int]) -> str:
        """Return the text of a caption's word indices."""
        return self.vocabulary.decode(ids)


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Clips and the indices of the words of their captions. The captions of a clip are consecutive rows."""

    mels: Tensor  # (N, T, 64)
    lengths: Tensor  # (N,) number of frames of each clip
    ids: Tensor  # (captions, L) from the start token to the end token, padded
    names: list[str]  # the name of each clip
    words: int  # number of words in the captions, with their ends


def make_batch(items: Sequence[Item], vocab: Vocabulary, longest: int) -> Batch:
    """Make a batch.

    Args:
        items: The items of the batch.
        vocab: The vocabulary.
        longest: Maximum number of words in a caption; further words are left out.
    """
    captions = chain.from_iterable(item.captions for item in items)
    sequences = [torch.tensor(vocab.sequence(caption, longest)) for caption in captions]
    mels, lengths = pad([item.mels for item in items])
    ids = nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PADDING)
    number_of_words = sum(len(sequence) - 1 for sequence in sequences)
    return Batch(mels, lengths, ids, [item.name for item in items], number_of_words)


class Training(CaptionerModule):
    """The model's training under lightning: training step, validation step and optimizer."""

    def loss(self, vectors: Tensor, ids: Tensor, memory: Tensor, lengths: Tensor, smoothing: float = 0) -> Tensor:
        """Return the mean cross-entropy over all words of the captions.

        Args:
            vectors: (captions, L - 1, 300) embeddings of all words except the last one.
            ids: (captions, L) indices of the words, from the start token to the end token, padded.
            memory: (N, T, 300) encoded clips.
            lengths: (N,) number of frames of each clip.
            smoothing: Label smoothing: the share of the target probability that is spread over all words.
        """
        logits = self.model.decoder(vectors, memory, lengths)  # (captions, L - 1, words)
        return F.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PADDING, label_smoothing=smoothing
        )

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Encode the batch's clips and return the loss."""
        model, config, mels = self.model, self.model.config, batch.mels
        if config.spec_augment:
            mels = spec_augment(mels, batch.lengths, config.spec_augment)
        memory, lengths = model.audio_encoder(mels, batch.lengths)
        if self.critical:
            loss = self.self_critical_loss(
                self.critical,
                lambda ids: model.decoder(model.embedding(ids), memory, lengths),
                memory,
                lengths,
                batch.names,
            )
            size = len(batch.names)
        else:
            loss = self.cross_entropy(batch, memory, lengths)
            size = batch.words
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def cross_entropy(self, batch: Batch, memory: Tensor, lengths: Tensor) -> Tensor:
        """Return the loss of cross-entropy training, with mixup if the config asks for it.

        Args:
            batch: The batch.
            memory: (N, T, 300) encoded clips.
            lengths: (N,) number of frames of each clip.
        """
        model, config = self.model, self.model.config
        vectors = model.embedding(batch.ids[:, :-1])
        if config.mixup:  # mixes the audio and previous words of two clips; the target is the first clip's next word
            other, share = mixing(len(memory), config.mixup, memory.device)
            memory = torch.lerp(memory[other], memory, share[:, None, None].to(memory.dtype))
            lengths = torch.maximum(lengths, lengths[other])
            by_clip = vectors.unflatten(0, (len(memory), -1))  # (N, captions of a clip, L - 1, 300)
            vectors = torch.lerp(by_clip[other], by_clip, share[:, None, None, None]).flatten(0, 1)
        return self.loss(vectors, batch.ids, memory, lengths, config.label_smoothing)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient to the config's norm."""
        gradient_norm = self.model.config.gradient_norm
        if gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_norm)

    def on_validation_epoch_start(self) -> None:
        """Drop the captions of the previous validation."""
        self.captions: list[str] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Caption the clips by greedy decoding and log the loss."""
        model = self.model
        memory, lengths = model.audio_encoder(batch.mels, batch.lengths)
        generated = generation.greedy(model.steps(memory, lengths), len(memory), model.rules, memory.device)
        self.captions += [model.vocabulary.decode(ids) for ids in generated.ids.tolist()]
        loss = self.loss(model.embedding(batch.ids[:, :-1]), batch.ids, memory, lengths)
        self.log("validation_loss", loss, prog_bar=True, batch_size=batch.words)

    def on_validation_epoch_end(self) -> None:
        """Log the CIDEr-D of the captions."""
        self.log("validation_CIDEr-D", vocabulary.validation_cider_d(self.split, self.captions), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, the published optimizer."""
        return torch.optim.Adam(self.model.parameters(), lr=self.model.config.learning_rate)

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
    vectors = encoder = None
    if not run.last.exists():  # a resumed run reads the encoder and word embeddings from its last checkpoint
        if config.init_from:
            encoder = encoder_of(Path(config.init_from), config.slope)
        if config.words == "train":
            captions = [*development.captions, *extra.captions]
            table = words.train_vectors(captions, epochs=config.words_epochs, seed=run.seed)
        else:
            table = words.read_vectors(Path(config.words), limit=config.words_limit)
        vectors = words.mean_vectors(vocab.words, table)  # a word with a hyphen gets the mean of its parts
        vectors[: len(vocabulary.SPECIAL)] = 0
    lightning.seed_everything(run.seed, verbose=False)
    model = Captioner(config, vocab, vectors)
    if encoder:
        model.audio_encoder.load_state_dict(encoder)
        if config.loss == "self_critical":
            load_initial_weights(model, Path(str(config.init_from)), vocab.digest)
    clips = {split.name: make_items(split, model.log_mel, run.cache) for split in (development, validation)}
    regular = clips[DEVELOPMENT]
    critical = None
    if config.loss == "self_critical":
        critical = SelfCritical(config, Rewards(development, config.reward), model.rules, model.decode, run.seed)
    elif config.sampler == "caption":
        regular = by_caption(regular)
    to_train: Sequence[Item] | WithExtra = regular
    if extra.pairs and critical is None:  # otherwise, extra captions only add their words to the vocabulary
        extra_items = by_caption(make_items(extra.as_split(), model.log_mel, run.cache))
        to_train = WithExtra(regular, extra_items, config.extra_share)

    run.start()
    vocab.write(run.folder / vocabulary.FILE)
    module = Training(model, validation, critical)
    collate = partial(make_batch, vocab=vocab, longest=config.longest)
    run.fit(module, to_train, clips[VALIDATION], collate, config)
    augmentation = []
    if config.spec_augment:
        augmentation.append("SpecAugment")
    if config.mixup:
        augmentation.append("mixup")
    if config.words == "train":
        word_embeddings = "Word2Vec"
    else:
        word_embeddings = metadata_name(config.words)
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features="log-mel energies",
        word_embeddings=word_embeddings,
        data_augmentation=", ".join(augmentation) or None,
        machine_learning_method="encoder-decoder",
        audio_modelling="CRNN",
        word_modelling="transformer",
        loss_function=config.loss_name,
        gradient_clipping=config.gradient_norm or 0,
        gradient_norm="L2" if config.gradient_norm else None,
    )
    run.describe(load_model(run.best), description)


def encoder_of(folder: Path, slope: float) -> dict[str, Tensor]:
    """Read the CRNN's weights from the best checkpoint of another run.

    Args:
        folder: The run folder.
        slope: The slope of the leaky ReLU, which must be that of the run.

    Raises:
        BadRequest: The folder is not a trained run, its checkpoint is damaged or has no CRNN of this kit, or the slope
            differs.
    """
    checkpoint = folder / "checkpoints" / "best.ckpt"
    advice = "give the run folder of a trained baseline retriever or captioner"
    if not checkpoint.is_file():
        raise BadRequest(
            f"init_from: {folder}: must be the folder of a trained run, but it has no checkpoints/best.ckpt; {advice}"
        )
    weights = {}
    try:
        state = read_checkpoint(checkpoint)
        prefix = "model.audio_encoder."
        for name, value in state["state_dict"].items():
            if name.startswith(prefix):
                weights[name.removeprefix(prefix)] = value
        CRNN().load_state_dict(weights)
        trained_slope = state["config"]["slope"]
    except (BadRequest, RuntimeError, KeyError, TypeError, AttributeError):
        raise BadRequest(
            f"init_from: {checkpoint}: must contain this kit's CRNN, but the file is damaged or holds another model; "
            f"{advice}"
        ) from None
    if trained_slope != slope:
        raise BadRequest(
            f"slope must be {trained_slope:g}, as in the run of init_from, {folder}; found {slope:g}: set "
            f"slope={trained_slope:g}"
        )
    return weights


def load_model(checkpoint: Path) -> Captioner:
    """Load the model from a checkpoint in a run folder, and its vocabulary from the run folder's vocabulary.json.

    Raises:
        BadRequest: The checkpoint cannot be read, or the vocabulary is missing or is not the one that the checkpoint
            was trained with.
        Faulty: The vocabulary is not valid.
    """
    state = read_checkpoint(checkpoint, config=dict, vocabulary=str)
    vocab = vocabulary.read_vocabulary(checkpoint, state["vocabulary"])
    model = Captioner(Config(**state["config"]), vocab)
    load_weights(model, state, checkpoint)
    return model.eval()
