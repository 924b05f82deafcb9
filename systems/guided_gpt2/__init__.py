"""Captions by a frozen GPT-2 that reads similar ones (Koizumi et al. 2020), to be read from top to bottom.

    python -m systems train systems.guided_gpt2 --config systems/guided_gpt2/whole.yaml --data DIR --run RUN
    python -m systems predict RUN --data DIR --split evaluation
    python -m systems.guided_gpt2.scopes RUN --data DIR --split evaluation

Two modules in a row. `systems.caption_retrieval` finds the captions of the training clips that sound most alike, the
guidance. GPT-2 reads guidance and what was said so far, each by itself; attention joins the two, and joins them with
the sound; what learns beside it is the last layer, which chooses the next token (`generator`).

A run has two stages. The first is a run of `systems.caption_retrieval` in the folder `retrieval`, which can be
predicted with by itself. In the second a caption of the development split is learnt with guidance drawn among the
captions that are similar to it and belong to other clips too, in any order; a caption without such is left out, and how
many are is said. Validation, as prediction, has the guidance that the first stage finds.

Where the paper is silent: captions of the guidance are joined by blanks; where fewer than K are similar, so many guide;
the cosine falls from the learning rate to the lowest within a period of epochs, and begins anew.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
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
from evaluation.findings import BadRequest
from systems import caption_retrieval
from systems.caption_retrieval import similar_captions, similarity
from systems.guided_gpt2.generator import IGNORED, Generator, LanguageModel, Memory, Steps, padded, too_long
from systems.parts import generation, vocabulary
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.digests import weights_digest
from systems.training import Run, Schedule, metadata_name, read_checkpoint

RETRIEVAL = "retrieval"  # the first stage's folder in the run folder
PADDING = -1  # behind the end of what was said

PAPER = "Koizumi et al. 2020"
PARAMETERS = "41,075,112 (GPT-2, VGGish), those of the retrieval, and what is frozen"


class Config(Schedule):
    """What can be chosen; the defaults are the system as published."""

    epochs: int = Field(200, ge=1)
    batch: int = Field(512, ge=1)  # captions a step
    learning_rate: float = Field(1e-4, gt=0)  # of Adam, the largest
    lowest_rate: float = Field(1e-6, gt=0)  # in the last epoch of a period
    period: int = Field(20, ge=1)  # epochs of the cosine
    monitor: Literal["loss", "CIDEr-D"] = "loss"  # the validation value that chooses the best epoch
    plateau: Literal[200] = 200  # the rate goes by the cosine alone
    patience: int = Field(200, ge=1)
    retrieval: caption_retrieval.Config = caption_retrieval.Config()  # of the first stage
    language_model: str = "gpt2"  # folder or hub name of a causal transformers model
    guidance: int = Field(5, ge=1)  # captions
    reduced: int = Field(60, ge=4, multiple_of=4)  # values of the attention to the sound
    dropout: float = Field(0.3, ge=0, lt=1)  # behind both attentions
    label_smoothing: float = Field(0.1, ge=0, lt=1)

    beams: int = Field(4, ge=1)
    length_penalty: float = 1.0  # log-probability / length ** penalty ranks
    max_tokens: int = Field(40, ge=1)
    no_repeat: int = Field(0, ge=0)  # so many tokens in a row never stand twice in a caption; 0: whatever repeats


# The model ---------------------------------------------------------------------------------------------------------


class Captioner(nn.Module):
    """Says what sounds hold, after what is said of similar ones.

    Args:
        config: The config.
        retriever: The trained first stage.
        language: The language model that the config names.
    """

    def __init__(self, config: Config, retriever: caption_retrieval.Retriever, language: LanguageModel):
        super().__init__()
        self.config, self.language = config, language
        self.retriever = retriever.eval().requires_grad_(False)
        self.sample_rate = retriever.sample_rate
        self.generator = Generator(language, retriever.audio.size, config.reduced, config.dropout)
        self.rules = generation.Rules(
            language.start, language.end, PADDING, tuple(language.unspeakable()), 1, config.max_tokens, config.no_repeat
        )

    def train(self, mode: bool = True) -> "Captioner":
        """Begin training or end it, of what learns."""
        super().train(mode)
        self.retriever.eval()
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """What does not learn, by the prefix of its weights, and what it follows from."""
        retriever = self.retriever
        learnt = weights_digest(retriever.embedder) if retriever.embedder else "raw"
        found = repr((retriever.audio.identity, learnt, retriever.library.digest))
        return {"language.": self.language.identity, "retriever.": found}

    def remember(self, frames: Tensor, frame_lengths: Tensor, ids: Tensor, lengths: Tensor) -> Memory:
        """The memory of N clips, of their frames and of the tokens of their guidance."""
        return self.generator.remember(self.language(ids), lengths, frames, frame_lengths)

    def say(self, memory: Memory, beams: int | None = None) -> generation.Generated:
        """Caption clips by beam search, as wide as the config says."""
        config, steps = self.config, Steps(self.language, self.generator, memory)
        device = memory.guidance_mask.device
        return generation.beam(
            steps, len(memory), self.rules, beams or config.beams, config.length_penalty, device=device
        )

    def guided(self, frames: Tensor, lengths: Tensor, guidance: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
        """Caption (N, T, size) frames, (N,) of each, with some guidance; with log-probabilities (N,)."""
        ids = [part.to(frames.device) for part in self.language.read(guidance)]
        found = self.say(self.remember(frames, lengths, *ids))
        return [self.language.decode(row) for row in found.ids.tolist()], found.log_probability

    def caption_scored(self, audio: Tensor, lengths: Tensor) -> tuple[list[str], Tensor]:
        """Caption (N, samples) mono sounds at `sample_rate`, of `lengths` (N,) samples; with log-probabilities (N,)."""
        frames = self.retriever.encode_frames(audio, lengths)
        return self.guided(*frames, self.retriever.captions(*frames, self.config.guidance))

    def caption(self, audio: Tensor, lengths: Tensor) -> list[str]:
        """Caption sounds as `caption_scored` does."""
        return self.caption_scored(audio, lengths)[0]


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Clips, each with the tokens of its guidance and of a caption."""

    frames: Tensor  # (N, T, size)
    frame_lengths: Tensor  # (N,)
    guidance: Tensor  # (N, M)
    guidance_lengths: Tensor  # (N,)
    prefix: Tensor  # (N, L) from the start on
    following: Tensor  # (N, L) what comes next, up to the end; `IGNORED` behind it
    clips: Tensor  # (N,) numbers of the clips in their split


class Item(NamedTuple):
    """A clip and one of its captions, with the captions that may guide it."""

    clip: int
    caption: str
    guides: np.ndarray | list[str]  # numbers of captions to draw from; the guidance itself in validation


class Material:
    """What both splits are made of.

    Args:
        language: The language model.
        guidance: How many captions guide one.
        development: The split that is learnt from.
        similar: Which of its distinct captions are similar.
    """

    def __init__(self, language: LanguageModel, guidance: int, development: Split, similar: similarity.Similar):
        self.language, self.guidance, self.captions = language, guidance, list(development.captions)
        numbers = {caption: number for number, caption in enumerate(self.captions)}
        owners = [len(names) for names in development.captions.values()]
        self.items = []
        for clip, one in enumerate(development.clips):
            # What says how it goes on in training must not be there alone: a caption that other clips have too may.
            own = [numbers[caption] for caption in set(one.captions) if owners[numbers[caption]] == 1]
            for caption in one.captions:
                number = numbers[caption]
                guides = np.setdiff1d(np.append(similar.of(number), number), own)
                if len(guides):
                    self.items.append(Item(clip, caption, guides))
        total = sum(len(one.captions) for one in development.clips)
        if not self.items:
            raise BadRequest(
                f"the {development.name} split must have captions that are similar to those of other clips; none of "
                f"its {total} has one: lower retrieval.threshold"
            )
        if len(self.items) < total:
            tqdm.write(f"{total - len(self.items)} of {total} captions have no similar one to guide them: left out")

    def batch(self, items: Sequence[Item], frames: tuple[Tensor, Tensor]) -> Batch:
        """Draw guidance where it is to be drawn, and lay clips side by side."""
        language, guidance = self.language, []
        for item in items:
            guides = item.guides
            if isinstance(guides, np.ndarray):
                drawn = torch.randperm(len(guides))[: self.guidance].tolist()
                guides = [self.captions[number] for number in guides[drawn]]
            guidance.append(guides)
        said = [language.encode(item.caption) for item in items]
        clips = torch.tensor([item.clip for item in items])
        prefix, _ = padded([[language.start, *ids] for ids in said], language.end)
        following, _ = padded([[*ids, language.end] for ids in said], IGNORED)
        return Batch(frames[0][clips], frames[1][clips], *language.read(guidance), prefix, following, clips)


class Training(SystemModule):
    """What lightning does with the model: one step of training, one of validation, the optimizer."""

    def __init__(self, model: Captioner, validation: Split):
        super().__init__(model)
        self.split = validation

    def loss(self, batch: Batch, memory: Memory, smoothing: float = 0) -> Tensor:
        """Mean cross-entropy of the tokens of a batch's captions, each given the true ones before it."""
        logits = self.model.generator(self.model.language(batch.prefix), memory)
        following = batch.following.flatten()
        return F.cross_entropy(logits.flatten(0, 1), following, ignore_index=IGNORED, label_smoothing=smoothing)

    def on_train_epoch_start(self) -> None:
        """Set the epoch's learning rate."""
        config = self.model.config
        turn = (self.current_epoch % config.period) / max(1, config.period - 1)
        rate = config.lowest_rate + (config.learning_rate - config.lowest_rate) * (1 + math.cos(math.pi * turn)) / 2
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of the batch."""
        memory = self.model.remember(batch.frames, batch.frame_lengths, batch.guidance, batch.guidance_lengths)
        loss = self.loss(batch, memory, self.model.config.label_smoothing)
        size = int((batch.following != IGNORED).sum())
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the captions of the last time."""
        self.captions: dict[int, str] = {}

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the loss, and caption each clip greedily where that is what chooses the epoch."""
        memory = self.model.remember(batch.frames, batch.frame_lengths, batch.guidance, batch.guidance_lengths)
        size = int((batch.following != IGNORED).sum())
        self.log("validation_loss", self.loss(batch, memory), prog_bar=True, batch_size=size)
        if self.model.config.monitor == "CIDEr-D":
            firsts = {clip: row for row, clip in reversed([*enumerate(batch.clips.tolist())])}
            new = {clip: row for clip, row in firsts.items() if clip not in self.captions}
            if new:
                found = self.model.say(memory.of(torch.tensor([*new.values()], device=self.device)), beams=1)
                said = [self.model.language.decode(row) for row in found.ids.tolist()]
                self.captions.update(zip(new, said, strict=True))

    def on_validation_epoch_end(self) -> None:
        """Log CIDEr-D of the captions."""
        if self.captions:
            captions = [self.captions[clip] for clip in range(len(self.split.clips))]
            self.log("validation_CIDEr-D", vocabulary.cider(self.split, captions), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        return torch.optim.Adam(self.model.generator.parameters(), lr=self.model.config.learning_rate)


# The three names of the contract -------------------------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train both stages on the development split, choosing the best epoch of each on the validation split."""
    language = LanguageModel(config.language_model)
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    check_window(config, language, development, validation)
    stage = replace(run, folder=run.folder / RETRIEVAL, system=caption_retrieval.__name__, config=config.retrieval)
    try:
        prepared = caption_retrieval.prepare(config.retrieval, dataset, run)
    except BadRequest as error:
        raise BadRequest(f"in the first stage, whose keys are retrieval.KEY: {error}") from None
    similar = similar_captions(config.retrieval, list(development.captions), run.cache)
    material = Material(language, config.guidance, development, similar)

    run.start()
    caption_retrieval.fit(*prepared, stage)
    lightning.seed_everything(run.seed, verbose=False)
    device = default_device()
    retriever = caption_retrieval.load_model(stage.best).to(device)
    model = Captioner(config, retriever, language).to(device)
    known, asked = ((part.frames, part.lengths) for part in prepared[1:])
    found = retriever.captions(*(part.to(device) for part in asked), config.guidance)
    to_validate = []
    for number, clip in enumerate(validation.clips):
        to_validate += [Item(number, caption, found[number]) for caption in clip.captions]

    def collate(items: Sequence[Item]) -> Batch:
        return material.batch(items, known if isinstance(items[0].guides, np.ndarray) else asked)

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


def check_window(config: Config, language: LanguageModel, development: Split, validation: Split) -> None:
    """Make sure that whatever guidance is drawn, and each caption with start and end, fits into the language model.

    Raises:
        BadRequest: The longest captions together are too long, a caption is, or what may be said.
    """
    longest = sorted((len(language.encode(caption)) for caption in development.captions), reverse=True)
    guidance = sum(longest[: config.guidance]) + config.guidance - 1
    said = max([*longest, *(len(language.encode(caption)) for caption in validation.captions), config.max_tokens - 1])
    for what, tokens in (
        (f"guidance of the {config.guidance} longest captions", guidance),
        ("every caption and its start", said + 1),
    ):
        if tokens > language.window:
            raise BadRequest(too_long(what, tokens, language.window))


def load_model(checkpoint: Path) -> Captioner:
    """Give back the model of a checkpoint in its run folder, where the first stage lies too.

    Raises:
        BadRequest: An encoder or the language model is not on this machine, or something frozen is another than in
            training.
    """
    state = read_checkpoint(checkpoint, config=dict, frozen=dict)
    config = Config(**state["config"])
    first = checkpoint.parent.parent / RETRIEVAL / "checkpoints" / "best.ckpt"
    if not first.is_file():
        raise BadRequest(f"{first}: no such file; it is the run's first stage, without which there is no guidance")
    model = Captioner(config, caption_retrieval.load_model(first), LanguageModel(config.language_model))
    load_weights(model, state, checkpoint)
    return model.eval()
