"""Captioning with off-the-shelf models (Weck et al. 2021). Read this module from top to bottom.

    dcase-systems train systems.offtheshelf --config systems/offtheshelf/offtheshelf.yaml --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

A pretrained audio encoder maps a clip to a sequence of embeddings. An adapter maps these to the decoder's size, and a
Transformer decoder predicts the caption word by word from them. The decoder reads the previous words as vectors, which
are random, trained on the captions, or those of a pretrained model. The paper compares four encoders with two overlaps,
three adapters and eleven kinds of word embeddings (`grid.yaml`). The defaults are the best of these settings.

The decoder may also be a pretrained language model (`decoder`), which the paper does not have (README.md, "Pretrained
decoders"). `own.py` has the paper's decoder, and `pretrained.py` the pretrained ones.

Encoders are frozen (section 3.2). The audio encoder encodes each clip once, and a text model encodes each caption
once. Training reads these embeddings from the cache.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset, Split
from evaluation.downloads import Download
from systems.caching.embeddings import embed
from systems.offtheshelf.captioner import AudioCaptioner
from systems.offtheshelf.config import OWN, Config
from systems.offtheshelf.context import Context
from systems.offtheshelf.own import Captioner, begin_words
from systems.offtheshelf.pretrained import PretrainedCaptioner
from systems.parts import encoders, generation, texts, vocabulary
from systems.parts.checkpoints import load_initial_weights, load_weights
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.extra import Chosen, WithExtra, choose_extra
from systems.parts.self_critical import CaptionerModule, Rewards, SelfCritical
from systems.parts.sequences import stack_sequences
from systems.parts.vocabulary import PADDING
from systems.training import Run, metadata_name, read_checkpoint, require_entries

PAPER = "Weck et al. 2021"
PARAMETERS = "10,385,408 + 513 per word (YAMNet, MHA, BERT) + encoders"
VECTORS = "model.words.weight"  # in a checkpoint


def downloads(config: Config) -> list[Download]:
    """Return the published files and models that a config needs."""
    needed = encoders.downloads(config.audio_encoder, config.audio_weights, config.audio_options)
    if config.decoder != OWN:
        needed.append(texts.download(config.decoder))
    elif config.words not in ("random", "train"):
        needed.append(texts.download(config.words))
    return needed


# The training step ---------------------------------------------------------------------------------------------------


class Item(NamedTuple):
    """A training example: a clip and one of its captions (section 3.1)."""

    sound: np.ndarray  # (T, size) embeddings of the clip
    ids: list[int]  # word indices of the caption, from start to end
    vectors: np.ndarray | None  # (words, size) vectors of words in context; None if the words have static vectors
    name: str  # the clip's file name


class Batch(NamedTuple):
    """N pairs of a clip and a caption."""

    sounds: Tensor  # (N, T, size) embeddings of the clips
    lengths: Tensor  # (N,) number of embeddings of each clip
    ids: Tensor  # (N, L) word indices of the captions, from start to end, padded
    vectors: Tensor | None  # (N, L - 1, size) vectors of all words but the last, zeros for the start; None as in `Item`
    names: list[str]  # file names of the clips
    words: int  # number of words in the captions, with their ends


def make_items(split: Split, model: AudioCaptioner, cache: Path) -> list[Item]:
    """Return an item for each pair of a clip and a caption of a split.

    Raises:
        Faulty: Some audio files cannot be used. The findings name all of them.
    """
    sounds = embed(split.paths, model.audio, cache)
    pairs = []
    for sound, clip in zip(sounds, split.clips, strict=True):
        pairs += [(sound, caption, clip.file_name) for caption in clip.captions]
    vectors: Sequence[np.ndarray | None] = [None] * len(pairs)
    if isinstance(model, Captioner) and isinstance(model.words, Context):
        texts_to_embed = [" ".join(vocabulary.words_with_hyphens(caption)) for _, caption, _ in pairs]
        vectors = model.words.embed(texts_to_embed, cache)
    items = []
    for (sound, caption, name), own in zip(pairs, vectors, strict=True):
        items.append(Item(sound, model.tokens(caption), own, name))
    return items


def make_batch(items: Sequence[Item], padding: int = PADDING) -> Batch:
    """Make a batch of pairs.

    Args:
        items: The pairs.
        padding: The number that fills `Batch.ids` after a caption's end.
    """
    sounds, lengths = stack_sequences([torch.from_numpy(item.sound.copy()) for item in items])
    ids = nn.utils.rnn.pad_sequence([torch.tensor(item.ids) for item in items], True, padding)
    vectors = None
    in_context = [item.vectors for item in items if item.vectors is not None]
    if in_context:
        vectors = torch.zeros(len(items), ids.shape[1] - 1, in_context[0].shape[1])
        for row, (item, word_vectors) in enumerate(zip(items, in_context, strict=True)):
            caption_vectors = torch.from_numpy(word_vectors[: len(item.ids) - 2].copy())
            vectors[row, 1 : 1 + len(caption_vectors)] = caption_vectors
    number_of_words = sum(len(item.ids) - 1 for item in items)
    return Batch(sounds, lengths, ids, vectors, [item.name for item in items], number_of_words)


class Training(CaptionerModule):
    """The model's training under lightning: training step, validation step and optimizer."""

    def loss(self, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, int]:
        """Return the mean cross-entropy over all words of a batch, and the number of words.

        Args:
            batch: The batch.
            smoothing: Share of the target that all words get (label smoothing).
        """
        model = self.model
        memory = model.adapt(batch.sounds, batch.lengths)
        logits = model.logits(batch.ids[:, :-1], batch.vectors, memory, batch.lengths)  # (N, L - 1, words)
        next_words = batch.ids[:, 1:]
        loss = F.cross_entropy(
            logits.flatten(0, 1), next_words.flatten(), ignore_index=model.padding, label_smoothing=smoothing
        )
        return loss, batch.words

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss."""
        model, lengths = self.model, batch.lengths
        if self.critical:
            memory = model.adapt(batch.sounds, lengths)
            loss = self.self_critical_loss(
                self.critical, lambda ids: model.logits(ids, None, memory, lengths), memory, lengths, batch.names
            )
            size = len(batch.names)
        else:
            loss, size = self.loss(batch, model.config.label_smoothing)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Drop the captions of the previous validation."""
        self.captions: dict[str, str] = {}

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the validation loss. If CIDEr-D chooses the best epoch, caption each clip by greedy decoding too."""
        loss, size = self.loss(batch)
        self.log("validation_loss", loss, prog_bar=True, batch_size=size)
        if self.model.config.monitor == "CIDEr-D":
            model, lengths = self.model, batch.lengths
            steps = model.steps(model.adapt(batch.sounds, lengths), lengths)
            generated = generation.greedy(steps, len(lengths), model.rules, lengths.device)
            captions = [model.decode(ids) for ids in generated.ids.tolist()]
            self.captions.update(zip(batch.names, captions, strict=True))

    def on_validation_epoch_end(self) -> None:
        """Log the CIDEr-D of the captions."""
        if self.captions:
            captions = [self.captions[name] for name in self.split.file_names]
            self.log("validation_CIDEr-D", vocabulary.validation_cider_d(self.split, captions), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam as published, with betas 0.9 and 0.999 and epsilon 1e-8, or AdamW if the weights decay."""
        config = self.model.config
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if config.weight_decay:
            return torch.optim.AdamW(trainable, config.learning_rate, weight_decay=config.weight_decay)
        return torch.optim.Adam(trainable, config.learning_rate, betas=(0.9, 0.999), eps=1e-8)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the digest of the vocabulary to the checkpoint, unless a pretrained decoder has its own vocabulary."""
        super().on_save_checkpoint(checkpoint)
        if isinstance(self.model, Captioner):
            checkpoint["vocabulary"] = self.model.vocabulary.digest


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split and choose the best epoch on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    extra = choose_extra(config, development)
    run = replace(run, data={**run.data, **extra.digests})
    model = new_model(config, development, extra, run)
    if config.init_from and not run.last.exists():
        digest = model.vocabulary.digest if isinstance(model, Captioner) else None
        load_initial_weights(model, Path(config.init_from), digest)
    model.to(default_device())
    items = {split.name: make_items(split, model, run.cache) for split in (development, validation)}
    if isinstance(model, PretrainedCaptioner):
        every_item = [*items[DEVELOPMENT], *items[VALIDATION]]
        model.check_window(max(len(item.sound) for item in every_item), max(len(item.ids) for item in every_item) - 1)

    run.start()
    if isinstance(model, Captioner):
        model.vocabulary.write(run.folder / vocabulary.FILE)
    collate = partial(make_batch, padding=model.padding)
    to_train: Sequence[Item] | WithExtra = items[DEVELOPMENT]
    critical = None
    if config.loss == "self_critical":  # extra captions only add their words to the vocabulary
        to_train = list({item.name: item for item in items[DEVELOPMENT]}.values())  # each clip once
        critical = SelfCritical(config, Rewards(development, config.reward), model.rules, model.decode, run.seed)
    elif extra.pairs:
        extra_items = make_items(extra.as_split(), model, run.cache)
        to_train = WithExtra(items[DEVELOPMENT], extra_items, config.extra_share)
    run.fit(Training(model, validation, critical), to_train, items[VALIDATION], collate, config)
    word_modelling, optimizer = "transformer", "Adam"
    if config.decoder != OWN:
        word_modelling = metadata_name(config.decoder)
    if config.weight_decay:
        optimizer = "AdamW"
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features=f"{config.audio_encoder} embeddings",
        word_embeddings=word_embeddings(config),
        machine_learning_method="encoder-decoder",
        audio_modelling=config.audio_encoder,
        word_modelling=word_modelling,
        loss_function=config.loss_name,
        optimizer=optimizer,
    )
    run.describe(load_model(run.best), description)


def new_model(config: Config, development: Split, extra: Chosen, run: Run) -> AudioCaptioner:
    """Return the model to train.

    Args:
        config: The config.
        development: The development split.
        extra: The extra captions to train on.
        run: The run. If its training is resumed, its last checkpoint gives the word vectors.
    """
    if config.decoder != OWN:
        lightning.seed_everything(run.seed, verbose=False)
        return PretrainedCaptioner(config)
    vocab = vocabulary.from_captions([*development.all_captions, *extra.captions])
    if run.last.exists():  # the last checkpoint holds the vectors, which training may have changed
        vectors = read_checkpoint(run.last)["state_dict"].get(VECTORS)
    else:
        vectors = begin_words(config, vocab, [*development.captions, *extra.captions], run.seed)
    lightning.seed_everything(run.seed, verbose=False)
    return Captioner(config, vocab, vectors)


def word_embeddings(config: Config) -> str:
    """Return the kind of word embeddings, for the submission's metadata."""
    if config.decoder != OWN:
        return metadata_name(config.decoder)
    if config.words == "random":
        return "learned"
    if config.words == "train":
        return "CBOW"
    return metadata_name(config.words)


def load_model(checkpoint: Path) -> AudioCaptioner:
    """Load the model from a checkpoint in a run folder.

    If the decoder is not pretrained, the folder also contains the vocabulary, vocabulary.json.

    Raises:
        BadRequest: The vocabulary, an encoder or a pretrained decoder differs from that of training or is not on this
            machine.
    """
    state = read_checkpoint(checkpoint, config=dict, frozen=dict)
    config = Config(**state["config"])
    model: AudioCaptioner
    if config.decoder == OWN:
        require_entries(state, checkpoint, vocabulary=str)
        vocab = vocabulary.read_vocabulary(checkpoint, state["vocabulary"])
        model = Captioner(config, vocab, state["state_dict"].get(VECTORS))
    else:
        model = PretrainedCaptioner(config)
    load_weights(model, state, checkpoint)
    return model.eval()
