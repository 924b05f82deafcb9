"""The model of ATAE: two encoders, two adapters, and the embeddings of audio and texts in one space."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from gensim.models import KeyedVectors
from torch import Tensor, nn

from evaluation.findings import BadRequest
from systems.atae.config import Config
from systems.parts import adapters, augmentation, encoders, texts
from systems.parts.sequences import chunks, length_mask, masked_mean, stack_sequences


class Retriever(nn.Module):
    """A model that embeds audio and texts in one space.

    Args:
        config: The config.
        vectors: Word vectors, if the config's text encoder is `train`.

    Raises:
        BadRequest: An encoder is not on this machine or cannot be trained, or the two adapters give embeddings of
            different sizes.
    """

    def __init__(self, config: Config, vectors: KeyedVectors | None = None):
        super().__init__()
        self.config = config
        self.audio = encoders.load_encoder(
            config.audio_encoder,
            config.audio_weights,
            config.audio_hop,
            scene=config.audio_scene,
            options=config.audio_options,
            trained=config.train_audio,
        )
        self.audio_encoder, self.sample_rate = self.audio.model.requires_grad_(False), self.audio.sample_rate
        if vectors:
            self.text_encoder = texts.Words(vectors, config.text_output == "mean")
        else:
            self.text_encoder = texts.load_text_encoder(
                config.text_encoder,
                config.text_layer,
                config.text_output,
                plain=config.text_plain,
                longest=config.text_longest,
                dropout=config.text_dropout,
            )
        self.audio_adapter = adapters.adapter(config.audio_adapter, self.audio.size, config.size)
        self.text_adapter = adapters.adapter(config.text_adapter, self.text_encoder.size, config.size)
        if self.audio_adapter.size != self.text_adapter.size:
            raise BadRequest(
                f"audio and texts must get embeddings of the same size; audio_adapter {config.audio_adapter} gives "
                f"{self.audio_adapter.size} values and text_adapter {config.text_adapter} gives "
                f"{self.text_adapter.size}: choose adapters of the same size"
            )
        if config.train_temperature:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        if config.spec_augment:
            self.audio.change_spectrograms(self._mask_spectrograms)
        if config.train_audio:
            noise = torch.rand(1, self.sample_rate) - 0.5  # a second
            learn(self.audio_encoder, lambda: self.audio(noise, torch.tensor([noise.shape[1]]))[0], "audio")
        if config.train_text:
            learn(self.text_encoder, lambda: self.text_encoder(["a dog barks"])[0], "text")
        self.train()

    def train(self, mode: bool = True) -> "Retriever":
        """Set training or evaluation mode.

        Frozen encoders stay in evaluation mode, and so do the batch norms of the audio encoder. A trained audio encoder
        that does not offer its network stays in evaluation mode, too (`systems.parts.encoders`).
        """
        super().train(mode)
        self.audio.train(mode)
        self.text_encoder.train(mode and self.config.train_text)
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """A dict from the prefix of each frozen encoder's weights to its identity (`systems.parts.checkpoints`)."""
        frozen = {}
        if not self.config.train_audio:
            frozen["audio_encoder."] = self.audio.identity
        if not self.config.train_text:
            frozen["text_encoder."] = self.text_encoder.identity
        return frozen

    @property
    def temperature(self) -> float | Tensor:
        """The number that cosines are divided by in the loss."""
        if self.config.train_temperature:
            return self.log_temperature.exp()
        return self.config.temperature

    def _mask_spectrograms(self, spectrograms: Tensor) -> Tensor:
        """Mask ranges of (N, mels, frames) spectrograms by SpecAugment."""
        frames = torch.full((len(spectrograms),), spectrograms.shape[2], device=spectrograms.device)
        masked = augmentation.spec_augment(spectrograms.transpose(1, 2), frames, self.config.spec_augment)
        return masked.transpose(1, 2)

    def align_audio(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map the audio encoder's output, (N, T, size) with (N,) lengths, to (N, size) embeddings of length 1."""
        return self._align(self.audio_adapter, sequences, lengths)

    def align_text(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map the text encoder's output, (N, T, size) with (N,) lengths, to (N, size) embeddings of length 1."""
        return self._align(self.text_adapter, sequences, lengths)

    @staticmethod
    def _align(adapter: nn.Module, sequences: Tensor, lengths: Tensor) -> Tensor:
        mask = length_mask(lengths, sequences.shape[1])
        return F.normalize(masked_mean(adapter(sequences, mask), mask).float(), dim=1)

    def embed_audio(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        """Embed audio.

        Args:
            sounds: (N, samples) mono audio at `sample_rate`.
            lengths: (N,) number of samples of each clip.

        Returns:
            (N, size) embeddings of length 1.
        """
        return self.align_audio(*stack_sequences(self.audio(sounds, lengths)))

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Return the embeddings of texts, (texts, size)."""
        parts = chunks(captions, texts.TEXTS_PER_BATCH)
        return torch.cat([self.align_text(*self.text_encoder(part)) for part in parts])


def learn(encoder: nn.Module, embed: Callable[[], Tensor], what: str) -> None:
    """Make an encoder trainable: require gradients for the parameters that its embeddings depend on.

    All other parameters stay frozen, because DDP would wait for gradients that they never get.

    Args:
        encoder: The encoder.
        embed: A function that returns embeddings of an example.
        what: `audio` or `text`, for messages.

    Raises:
        BadRequest: The embeddings do not depend on any parameter.
    """
    parameters = list(encoder.requires_grad_(True).parameters())
    with torch.enable_grad():
        embeddings = embed()
    if not parameters or not embeddings.requires_grad:
        raise BadRequest(
            f"train_{what} must be false for this encoder, because it has no trainable parameters; found true"
        )
    gradients = torch.autograd.grad(embeddings.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
