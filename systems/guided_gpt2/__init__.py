"""Captions by a frozen GPT-2, guided by captions of similar clips (Koizumi et al. 2020). Read this module top-down.

    dcase-systems train systems.guided_gpt2 --config systems/guided_gpt2/whole.yaml --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation
    python -m systems.guided_gpt2.scopes RUN --data DIR --split evaluation

The system has two parts. `systems.caption_retrieval` finds the K training clips whose audio is most similar, and
returns the first caption of each. These captions are the guidance. GPT-2 encodes the guidance, and separately the words
generated so far. An attention layer combines the two encodings, and a second attention layer combines the result with
the audio. The last layer predicts the next token. The attention layers and the last layer are trained (`generator.py`).

A run has two stages. The first stage is a run of `systems.caption_retrieval` in the folder `retrieval`, which can
predict on its own. In the second stage, the model learns to generate each caption of the development split. The
guidance is drawn at random, in random order, from the captions that are similar to this caption. The clip's own
captions are not drawn, except those that another clip has too. If no guidance can be drawn for a caption, the model is
not trained on it, and the number of such captions is reported. Validation and prediction use the guidance that the
first stage retrieves.

The paper leaves three points open. In this module, the captions of the guidance are joined by spaces. If fewer than K
captions are similar, the guidance has fewer captions. The learning rate falls along a cosine from `learning_rate` to
`lowest_rate` within `period` epochs, and then starts again from `learning_rate`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset, Split
from evaluation.downloads import Download
from evaluation.findings import BadRequest
from systems import caption_retrieval
from systems.caption_retrieval import similar_captions, similarity
from systems.guided_gpt2.generator import IGNORED, Generator, LanguageModel, Memory, Steps, padded, too_long
from systems.parts import generation, texts, vocabulary
from systems.parts.checkpoints import SystemModule, load_weights, trained_weights
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.digests import weights_digest
from systems.training import Run, Schedule, metadata_name, read_checkpoint

RETRIEVAL = "retrieval"  # name of the first stage's folder in the run folder
PADDING = -1  # fills the positions after the end of a generated caption

PAPER = "Koizumi et al. 2020"
PARAMETERS = "41,075,112 (GPT-2, VGGish) + retrieval + frozen models"


class Config(Schedule):
    """The settings; the defaults are the system as published."""

    epochs: int = Field(200, ge=1)
    batch: int = Field(512, ge=1)  # captions in a training step
    learning_rate: float = Field(1e-4, gt=0)  # of Adam, in the first epoch of a period
    lowest_rate: float = Field(1e-6, gt=0)  # learning rate in the last epoch of a period
    period: int = Field(20, ge=1)  # epochs until the cosine schedule restarts
    monitor: Literal["loss", "CIDEr-D"] = "loss"  # the validation value that chooses the best epoch
    plateau: Literal[200] = 200  # the learning rate follows the cosine schedule only
    patience: int = Field(200, ge=1)
    retrieval: caption_retrieval.Config = caption_retrieval.Config()  # settings of the first stage
    language_model: str = "gpt2"  # folder, GGUF file or hub name of a causal transformers model
    tokens: Literal["all", "captions"] = "all"  # predict any token, or only those of the development captions
    guidance: int = Field(5, ge=1)  # number of captions in the guidance, K
    reduced: int = Field(60, ge=4, multiple_of=4)  # number of values in the attention to the audio
    dropout: float = Field(0.3, ge=0, lt=1)  # after both attention layers
    label_smoothing: float = Field(0.1, ge=0, lt=1)

    beams: int = Field(4, ge=1)
    length_penalty: float = 1.0  # beam search ranks by log-probability / length ** length_penalty
    max_tokens: int = Field(40, ge=1)
    no_repeat: int = Field(0, ge=0)  # no sequence of this many tokens occurs twice; 0: repetition is allowed


def downloads(config: Config) -> list[Download]:
    """Return the published files and models that a config needs."""
    stage = caption_retrieval.downloads(config.retrieval)
    # Guidance needs similar captions, even if the first stage is not trained with them.
    return [*stage, *caption_retrieval.similarity_downloads(config.retrieval), texts.download(config.language_model)]


# The model ---------------------------------------------------------------------------------------------------------


class Captioner(generation.WordByWord, nn.Module):
    """A model that captions audio. It is guided by captions of similar clips.

    Args:
        config: The config.
        retriever: The trained first stage.
        language: The language model that the config names.
        tokens: The ids of the tokens that can be predicted (default: all tokens of the language model).
    """

    def __init__(
        self,
        config: Config,
        retriever: caption_retrieval.Retriever,
        language: LanguageModel,
        tokens: Sequence[int] | None = None,
    ):
        super().__init__()
        self.config, self.language = config, language
        self.retriever = retriever.eval().requires_grad_(False)
        self.sample_rate = retriever.sample_rate
        self.generator = Generator(language, retriever.audio.size, config.reduced, config.dropout, tokens)
        self.decoding = generation.Decoding.of(config, max_words=config.max_tokens)
        self.rules = generation.Rules(
            language.start, language.end, PADDING, tuple(language.unspeakable()), 1, config.max_tokens, config.no_repeat
        )

    def train(self, mode: bool = True) -> "Captioner":
        """Set training or evaluation mode of the generator. The frozen parts stay in evaluation mode."""
        super().train(mode)
        self.retriever.eval()
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """A dict from the prefix of each frozen part's weight names to its identity (`systems.parts.checkpoints`)."""
        retriever = self.retriever
        if retriever.embedder:
            embedder = weights_digest(retriever.embedder)
        else:
            embedder = "raw"
        identity = repr((retriever.audio.identity, embedder, retriever.library.digest))
        return {"language.": self.language.identity, "retriever.": identity}

    def remember(self, frames: Tensor, frame_lengths: Tensor, ids: Tensor, lengths: Tensor) -> Memory:
        """Encode the guidance and the audio of N clips, once for all tokens of their captions.

        Args:
            frames: (N, T, size) frames of the audio encoder.
            frame_lengths: (N,) number of frames of each clip.
            ids: (N, M) token ids of the guidance, padded.
            lengths: (N,) number of tokens of the guidance of each clip.
        """
        return self.generator.remember(self.language(ids), lengths, frames, frame_lengths)

    def steps(self, memory: Memory) -> Steps:
        """Return the function that predicts the next token."""
        return Steps(self.language, self.generator, memory)

    def start(self, frames: Tensor, lengths: Tensor, guidance: Sequence[Sequence[str]]) -> Steps:
        """Encode clips and their guidance, and return the function that predicts the next token.

        Args:
            frames: (N, T, size) frames of the audio encoder.
            lengths: (N,) number of frames of each clip.
            guidance: The captions that guide each clip.
        """
        ids, id_lengths = (part.to(frames.device) for part in self.language.read(guidance))
        return self.steps(self.remember(frames, lengths, ids, id_lengths))

    def guided(self, frames: Tensor, lengths: Tensor, guidance: Sequence[Sequence[str]]) -> list[str]:
        """Caption clips with given guidance. The arguments are those of `start`."""
        numbers = range(len(frames))  # the seeds of sampling
        step = self.start(frames, lengths, guidance)
        generated = generation.search(step, numbers, self.rules, self.decoding, frames.device)
        return [self.decode(row) for row in generated.ids.tolist()]

    def encode(self, audio: Tensor, lengths: Tensor) -> Steps:
        """Encode (N, samples) audio and its guidance, which the first stage retrieves.

        Args:
            audio: (N, samples) mono audio at `sample_rate`.
            lengths: (N,) number of samples of each clip.

        Returns:
            The function that predicts the next token.
        """
        frames, frame_lengths = self.retriever.encode_frames(audio, lengths)
        guidance = self.retriever.captions(frames, frame_lengths, self.config.guidance)
        return self.start(frames, frame_lengths, guidance)

    def decode(self, ids: list[int]) -> str:
        """Return the text of a caption's token ids."""
        return self.language.decode(ids)


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """N clips, each with the tokens of its guidance and of one caption."""

    frames: Tensor  # (N, T, size) frames of the audio encoder
    frame_lengths: Tensor  # (N,) number of frames of each clip
    guidance: Tensor  # (N, M) token ids
    guidance_lengths: Tensor  # (N,) number of tokens of each guidance
    prefix: Tensor  # (N, L) token ids of the caption, which begin with the start token
    following: Tensor  # (N, L) the next token id at each position, up to the end token; `IGNORED` at padded positions
    clips: Tensor  # (N,) indices of the clips in their split
    tokens: int  # number of tokens in the captions, with their ends


class Item(NamedTuple):
    """A clip and one of its captions, with the captions that may guide it."""

    clip: int  # the clip's index in its split
    caption: str
    guides: np.ndarray | list[str]  # training: indices of captions to draw from; validation: the guidance


class Material:
    """The items to train on. The method `batch` makes batches of these items or of others.

    Args:
        language: The language model.
        guidance: Maximum number of captions in the guidance.
        development: The split to train on.
        similar: The similar pairs among the distinct captions of this split.

    Raises:
        BadRequest: For every caption of the split, no similar caption can guide it.
    """

    def __init__(self, language: LanguageModel, guidance: int, development: Split, similar: similarity.Similar):
        self.language, self.guidance, self.captions = language, guidance, list(development.captions)
        numbers = {caption: number for number, caption in enumerate(self.captions)}
        owners = [len(names) for names in development.captions.values()]
        self.items = []
        for number_of_clip, clip in enumerate(development.clips):
            # The clip's own captions contain the target, so they must not guide it, unless other clips have them too.
            own = [numbers[caption] for caption in set(clip.captions) if owners[numbers[caption]] == 1]
            for caption in clip.captions:
                number = numbers[caption]
                guides = np.setdiff1d(np.append(similar.of(number), number), own)
                if len(guides):
                    self.items.append(Item(number_of_clip, caption, guides))
        total = sum(len(clip.captions) for clip in development.clips)
        if not self.items:
            raise BadRequest(
                f"the {development.name} split must have captions that are similar to captions of other clips; found "
                f"none among its {total} captions: lower retrieval.threshold"
            )
        left_out = total - len(self.items)
        if left_out:
            tqdm.write(f"left out {left_out} of {total} captions, because no similar caption can guide them")

    def batch(self, items: Sequence[Item], frames: tuple[Tensor, Tensor]) -> Batch:
        """Make a batch. For training items, draw the guidance at random.

        Args:
            items: The items of the batch.
            frames: (clips, T, size) frames and (clips,) lengths of all clips of the items' split.
        """
        language, guidance = self.language, []
        for item in items:
            guides = item.guides
            if isinstance(guides, np.ndarray):
                drawn = torch.randperm(len(guides))[: self.guidance].tolist()
                guides = [self.captions[number] for number in guides[drawn]]
            guidance.append(guides)
        captions = [language.encode(item.caption) for item in items]
        clips = torch.tensor([item.clip for item in items])
        prefix, caption_lengths = padded([[language.start, *ids] for ids in captions], language.end)
        following, _ = padded([[*ids, language.end] for ids in captions], IGNORED)
        tokens = int(caption_lengths.sum())
        return Batch(frames[0][clips], frames[1][clips], *language.read(guidance), prefix, following, clips, tokens)


class Training(SystemModule):
    """The model's training under lightning: training step, validation step and optimizer.

    Args:
        model: The model.
        validation: The validation split.
    """

    def __init__(self, model: Captioner, validation: Split):
        super().__init__(model)
        self.split = validation

    def loss(self, batch: Batch, memory: Memory, smoothing: float = 0) -> Tensor:
        """Return the mean cross-entropy over all tokens of the captions.

        Each token is predicted from the true tokens before it. Tokens that cannot be predicted (`Config.tokens`) do not
        count.
        """
        logits = self.model.generator(self.model.language(batch.prefix), memory)
        following = self.model.generator.targets(batch.following).flatten()
        return F.cross_entropy(logits.flatten(0, 1), following, ignore_index=IGNORED, label_smoothing=smoothing)

    def on_train_epoch_start(self) -> None:
        """Set the epoch's learning rate by the cosine schedule."""
        config = self.model.config
        progress = (self.current_epoch % config.period) / max(1, config.period - 1)  # within the period, from 0 to 1
        cosine = (1 + math.cos(math.pi * progress)) / 2  # from 1 to 0
        rate = config.lowest_rate + (config.learning_rate - config.lowest_rate) * cosine
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of the batch."""
        memory = self.model.remember(batch.frames, batch.frame_lengths, batch.guidance, batch.guidance_lengths)
        loss = self.loss(batch, memory, self.model.config.label_smoothing)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=batch.tokens, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Drop the captions of the previous validation."""
        self.captions: dict[int, str] = {}

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the loss. If CIDEr-D chooses the best epoch, caption each clip by greedy decoding too."""
        memory = self.model.remember(batch.frames, batch.frame_lengths, batch.guidance, batch.guidance_lengths)
        self.log("validation_loss", self.loss(batch, memory), prog_bar=True, batch_size=batch.tokens)
        if self.model.config.monitor == "CIDEr-D":
            row_of_clip: dict[int, int] = {}  # only clips that do not have a caption yet
            for row, clip in enumerate(batch.clips.tolist()):
                if clip not in self.captions:
                    row_of_clip.setdefault(clip, row)
            if row_of_clip:
                rows = torch.tensor([*row_of_clip.values()], device=self.device)
                generated = generation.beam(
                    self.model.steps(memory.of(rows)),
                    len(rows),
                    self.model.rules,
                    width=1,
                    length_penalty=self.model.config.length_penalty,
                    device=self.device,
                )
                captions = [self.model.language.decode(ids) for ids in generated.ids.tolist()]
                self.captions.update(zip(row_of_clip, captions, strict=True))

    def on_validation_epoch_end(self) -> None:
        """Log the CIDEr-D of the captions."""
        if self.captions:
            captions = [self.captions[clip] for clip in range(len(self.split.clips))]
            self.log("validation_CIDEr-D", vocabulary.validation_cider_d(self.split, captions), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, as in the paper."""
        return torch.optim.Adam(self.model.generator.parameters(), lr=self.model.config.learning_rate)


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train both stages on the development split, and choose the best epoch of each on the validation split."""
    language = LanguageModel(config.language_model)
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    check_window(config, language, development, validation)
    stage = replace(run, folder=run.folder / RETRIEVAL, system=caption_retrieval.__name__, config=config.retrieval)
    try:
        prepared = caption_retrieval.prepare(config.retrieval, dataset, run)
    except BadRequest as error:
        raise BadRequest(f"in the first stage (its config keys are retrieval.KEY): {error}") from None
    similar = similar_captions(config.retrieval, list(development.captions), run.cache)
    material = Material(language, config.guidance, development, similar)

    run.start()
    caption_retrieval.fit(*prepared, stage)
    lightning.seed_everything(run.seed, verbose=False)
    device = default_device()
    retriever = caption_retrieval.load_model(stage.best).to(device)
    tokens = None
    if config.tokens == "captions":
        tokens = tokens_of(language, development)
    model = Captioner(config, retriever, language, tokens).to(device)
    if config.guidance == 1:
        language.precompute(texts_read(language, development, validation), run.cache)
    training_frames, validation_frames = ((part.frames, part.lengths) for part in prepared[1:])
    guidance = retriever.captions(*(part.to(device) for part in validation_frames), config.guidance)
    to_validate = []
    for number, clip in enumerate(validation.clips):
        to_validate += [Item(number, caption, guidance[number]) for caption in clip.captions]

    def collate(items: Sequence[Item]) -> Batch:
        if isinstance(items[0].guides, np.ndarray):
            return material.batch(items, training_frames)
        return material.batch(items, validation_frames)

    run.fit(Training(model, validation), material.items, to_validate, collate, config)
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features=f"{config.retrieval.audio_encoder} embeddings",
        word_embeddings=metadata_name(config.language_model),
        machine_learning_method="retrieval and encoder-decoder",
        audio_modelling=config.retrieval.audio_encoder,
        word_modelling=metadata_name(config.language_model),
        loss_function="cross-entropy",
    )
    run.describe(model, description)


def tokens_of(language: LanguageModel, split: Split) -> list[int]:
    """Return the ids of the tokens of a split's captions, and of the end token, in ascending order."""
    tokens = {language.end}
    for caption in split.captions:
        tokens.update(language.encode(caption))
    return sorted(tokens)


def texts_read(language: LanguageModel, *splits: Split) -> list[list[int]]:
    """Return the token ids of all texts that the language model reads in training if one caption is the guidance.

    These are each caption alone, as guidance, and each caption after the start token. With more guidance, the captions
    are joined in random order, so the texts are not known before training.
    """
    texts = []
    for caption in dict.fromkeys(chain.from_iterable(split.captions for split in splits)):
        ids = language.encode(caption)
        texts += [ids, [language.start, *ids]]
    return texts


def check_window(config: Config, language: LanguageModel, development: Split, validation: Split) -> None:
    """Make sure that any guidance, and each caption with its start token, fits into the language model's window.

    Raises:
        BadRequest: The K longest captions together, a single caption, or `max_tokens` tokens do not fit.
    """
    training_lengths = sorted((len(language.encode(caption)) for caption in development.captions), reverse=True)
    validation_lengths = [len(language.encode(caption)) for caption in validation.captions]
    guidance = sum(training_lengths[: config.guidance]) + config.guidance - 1
    longest = max([*training_lengths, *validation_lengths, config.max_tokens - 1])
    for what, tokens in (
        (f"guidance of the {config.guidance} longest captions", guidance),
        ("every caption and its start", longest + 1),
    ):
        if tokens > language.window:
            raise BadRequest(too_long(what, tokens, language.window))


def load_model(checkpoint: Path) -> Captioner:
    """Load the model from a checkpoint in a run folder, and the first stage from the subfolder `retrieval`.

    Raises:
        BadRequest: The first stage is missing, an encoder or the language model is not on this machine, or a frozen
            part differs from the one used in training.
    """
    state = read_checkpoint(checkpoint, config=dict, frozen=dict)
    config = Config(**state["config"])
    first = checkpoint.parent.parent / RETRIEVAL / "checkpoints" / "best.ckpt"
    if not first.is_file():
        raise BadRequest(
            f"{first}: no such file; it is the run's first stage, which retrieves the guidance: put the run's own file "
            "back, or train again"
        )
    tokens = None
    if config.tokens == "captions":
        tokens = trained_weights(state)["generator.tokens"].tolist()
    model = Captioner(config, caption_retrieval.load_model(first), LanguageModel(config.language_model), tokens)
    load_weights(model, state, checkpoint)
    return model.eval()
