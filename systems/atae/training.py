"""The training of ATAE under Lightning: the batches, the losses, and the training and validation steps."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.data.dataset import Clip, Split
from systems.atae.model import Retriever
from systems.atae.teachers import Teachers
from systems.caching.embeddings import embed
from systems.caching.excerpts import Sounds, read_parts, waveforms_or_recordings
from systems.parts import losses, pairs, texts
from systems.parts.augmentation import mixed
from systems.parts.checkpoints import SystemModule
from systems.parts.devices import default_device
from systems.parts.optimizers import warmup_cosine
from systems.parts.sequences import chunks, stack_sequences
from systems.parts.validation import retrieval_metrics

TEMPERATURES = (0.01, 1.0)  # the range of a trained temperature, as in CLIP and AudioCLIP


class Batch(NamedTuple):
    """N pairs of a clip and a caption."""

    sounds: Tensor  # (N, T, size) embeddings; (N, samples) audio if the audio encoder is trained
    sound_lengths: Tensor  # (N,) number of embeddings or samples of each clip
    texts: Tensor | list[str]  # (N, T, size) embeddings; the captions if the text encoder is trained
    text_lengths: Tensor  # (N,) number of embeddings of each caption; ones if the text encoder is trained
    clips: Tensor  # (N,) indices of the clips
    owners: Tensor  # (N, K) indices of all clips that each caption belongs to
    captions: Tensor  # (N,) indices of the captions


class Material:
    """The input of a model for clips and captions.

    It consists of embeddings from frozen encoders, which are computed once, and of audio or text for encoders that are
    trained.

    Args:
        clips: The clips. The index of a clip is its index in this sequence.
        queries: Further texts, which need not be captions of these clips.
        model: The model.
        cache: Folder of the cache.
        held_out: The number of clips for validation, which come first. Excerpts of these clips are not random.
        extra: Extra captions, each with the index of its clip.

    Attributes:
        pairs: The indices (clip, caption) of every pair.
        extra: The indices (clip, caption) of every pair of a clip and one of its extra captions.
        numbers: A dict from each distinct text to its index.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        queries: Sequence[str],
        model: Retriever,
        cache: Path,
        held_out: int = 0,
        extra: Sequence[tuple[int, str]] = (),
    ):
        self.held_out = held_out
        self.longest = math.inf  # maximum number of samples of a clip in a batch
        if model.config.audio_seconds:
            self.longest = round(model.config.audio_seconds * model.sample_rate)
        self.captions, self.numbers, self.pairs, self.extra, self.owners = pairs.clip_caption_pairs(
            clips, queries, extra
        )
        self.train_text = model.config.train_text
        paths = [clip.path for clip in clips]
        model.to(default_device())
        self.sounds: Sounds
        if model.config.train_audio:
            self.sounds = waveforms_or_recordings(paths, model.sample_rate, self.longest, cache)
        else:
            self.sounds = embed(paths, model.audio, cache)
        if not self.train_text:
            self.texts = texts.embed(self.captions, model.text_encoder, cache)

    def batch(self, pairs: Sequence[tuple[int, int]]) -> Batch:
        """Make a batch of pairs, each with the index of a clip and the index of a caption."""
        clips, captions = map(list, zip(*pairs, strict=True))
        places = [self._excerpt(number) for number in clips]
        excerpts = read_parts([self.sounds[number] for number in clips], places)
        sounds = stack_sequences([torch.from_numpy(excerpt.copy()) for excerpt in excerpts])
        embedded = self.caption_embeddings(captions)
        return Batch(*sounds, *embedded, torch.tensor(clips), self.owners[captions], torch.tensor(captions))

    def _excerpt(self, clip: int) -> slice:
        """Return the range of a clip's embeddings or samples to use: all of them, or an excerpt if they are too many.

        The excerpt of a training clip is at a random place, and that of a validation clip at the beginning.
        """
        total = len(self.sounds[clip])
        if total <= self.longest:
            return slice(0, total)
        length = int(self.longest)
        start = 0
        if clip >= self.held_out:
            start = int(torch.randint(total - length + 1, ()))
        return slice(start, start + length)

    def caption_embeddings(self, captions: Sequence[int]) -> tuple[Tensor | list[str], Tensor]:
        """Return the input of the model for captions, and their lengths.

        Args:
            captions: The indices of N captions.

        Returns:
            (N, T, size) embeddings and (N,) lengths. If the text encoder is trained, the N captions and (N,) ones.
        """
        if self.train_text:
            return [self.captions[number] for number in captions], torch.ones(len(captions))
        return stack_sequences([torch.from_numpy(self.texts[number].copy()) for number in captions])


class Training(SystemModule):
    """The model's training under lightning: training step, validation step and optimizer.

    Args:
        model: The model.
        split: The validation split.
        material: The model's input for the clips and captions of training and validation.
        teachers: The teachers' embeddings of the clips and captions, for the loss `distilled`.
    """

    def __init__(self, model: Retriever, split: Split, material: Material, teachers: Teachers | None = None):
        super().__init__(model)
        self.split, self.material, self.teachers = split, material, teachers

    def embed_sounds(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        """Return the embeddings of a batch's audio, (N, size)."""
        model = self.model
        if model.config.train_audio:
            return model.embed_audio(sounds, lengths)
        return model.align_audio(sounds, lengths)

    def embed_captions(self, captions: Tensor | list[str], lengths: Tensor) -> Tensor:
        """Return the embeddings of a batch's texts, (N, size)."""
        model = self.model
        if model.config.train_text:
            return model.embed_text(captions)
        return model.align_text(captions, lengths)

    def loss(self, sounds: Tensor, captions: Tensor, clips: Tensor, owners: Tensor, numbers: Tensor) -> Tensor:
        """Return the config's loss.

        Args:
            sounds: (N, size) embeddings of the clips.
            captions: (N, size) embeddings of the captions.
            clips: (N,) indices of the clips.
            owners: (N, K) indices of all clips that each caption belongs to.
            numbers: (N,) indices of the captions.
        """
        config = self.model.config
        if self.teachers:
            return losses.distilled(sounds, captions, self.teachers.similarity(clips, numbers), config.temperature)
        matches = losses.matching(clips, owners)
        if config.loss == "contrastive":
            return losses.contrastive(sounds, captions, matches, config.pairs)
        if config.loss == "nt_xent":
            return losses.nt_xent(sounds, captions, matches, self.model.temperature, config.pairs)
        answers = matches[: len(sounds), len(sounds) :]
        own = torch.arange(len(sounds), device=answers.device)
        similarity = losses.dot_products(sounds, captions)
        return losses.triplet(similarity, answers, torch.stack([own, own], dim=1), config.margin)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Embed the pairs of the batch, and return the loss over the pairs of all processes."""
        sounds = batch.sounds
        if self.model.config.mixup:
            sounds = mixed(sounds, batch.sound_lengths, self.model.config.mixup)
        sounds = self.embed_sounds(sounds, batch.sound_lengths)
        captions = self.embed_captions(batch.texts, batch.text_lengths)
        loss = self.loss(*map(losses.gathered, (sounds, captions, batch.clips, batch.owners, batch.captions)))
        size = len(batch.clips)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Drop the embeddings of the previous validation."""
        self.clips: list[Tensor] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Store the clips' embeddings, and log the loss of each clip with its first caption."""
        sounds = self.embed_sounds(batch.sounds, batch.sound_lengths)
        captions = self.embed_captions(batch.texts, batch.text_lengths)
        self.clips.append(sounds)
        loss = self.loss(sounds, captions, batch.clips, batch.owners, batch.captions)
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(batch.clips))

    def on_validation_epoch_end(self) -> None:
        """Score every query of the validation split against every clip, and log mAP@10 and R@10."""
        numbers = [self.material.numbers[query] for query in self.split.queries]
        captions = []
        for part in chunks(numbers, texts.TEXTS_PER_BATCH):
            batch = self.transfer_batch_to_device(self.material.caption_embeddings(part), self.device, 0)
            captions.append(self.embed_captions(*batch))
        scores = torch.cat(captions) @ torch.cat(self.clips).T
        self.log_dict(retrieval_metrics(self.split, scores), prog_bar=True)

    def on_train_batch_start(self, batch: Batch, number: int) -> None:
        """With the cosine schedule, set the learning rates of the training step."""
        config = self.model.config
        if config.schedule == "cosine":
            epochs = self.current_epoch + number / self.trainer.num_training_batches
            decay = config.decay or config.epochs - config.warmup
            share = warmup_cosine(epochs, config.warmup, decay, config.lowest_share)
            for group, rate in zip(self.optimizers().param_groups, self.rates, strict=True):
                group["lr"] = share * rate

    def on_train_batch_end(self, *arguments: object) -> None:
        """Keep a trained temperature in its range, as CLIP does."""
        if self.model.config.train_temperature:
            low, high = map(math.log, TEMPERATURES)
            self.model.log_temperature.data.clamp_(low, high)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, the published optimizer, or AdamW if weights decay."""
        config = self.model.config
        groups = parameter_groups(self.model)
        self.rates = [group.get("lr", config.learning_rate) for group in groups]
        if config.weight_decay:
            return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        return torch.optim.Adam(groups, lr=config.learning_rate)


def parameter_groups(model: Retriever) -> list[dict[str, Any]]:
    """Return a model's trainable parameters in groups of the same learning rate and weight decay.

    The adapters come first, so their rate is the one in metrics.csv. An encoder has its own group if the config has a
    rate for it. A trained temperature does not decay.
    """
    config = model.config
    own_rates = {"audio_encoder.": config.audio_learning_rate, "text_encoder.": config.text_learning_rate}
    others: list[Tensor] = []
    of_encoders: dict[str, list[Tensor]] = {prefix: [] for prefix, rate in own_rates.items() if rate}
    temperature = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        prefix = name.partition(".")[0] + "."
        if name == "log_temperature":
            temperature.append(parameter)
        else:
            of_encoders.get(prefix, others).append(parameter)
    groups: list[dict[str, Any]] = []
    if others:
        groups.append({"params": others})
    for prefix, parameters in of_encoders.items():
        groups.append({"params": parameters, "lr": own_rates[prefix]})
    if temperature:
        groups.append({"params": temperature, "weight_decay": 0.0})
    return groups
