"""The part of a captioner that does not depend on its decoder: audio encoder, adapter, and generation of captions."""

from abc import abstractmethod
from dataclasses import replace

from torch import Tensor, nn

from evaluation.findings import BadRequest
from systems.offtheshelf.config import Config
from systems.parts import adapters, encoders, generation
from systems.parts.sequences import length_mask, stack_sequences


class AudioCaptioner(generation.WordByWord, nn.Module):
    """A model that captions audio. Its subclasses have the decoder.

    Args:
        config: The config.

    Attributes:
        adapter: The adapter between audio encoder and decoder. Subclasses set it.
        rules: The rules for generated captions. Subclasses set them.
        padding: The number that fills a batch of word indices after a caption's end.

    Raises:
        BadRequest: The audio encoder is not on this machine, or its windows cannot overlap.
        Faulty: A file of weights does not hold the encoder's weights.
    """

    adapter: nn.Module
    padding: int

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.decoding = generation.Decoding.of(config)
        audio = encoders.load_encoder(config.audio_encoder, config.audio_weights, options=config.audio_options)
        self.audio = overlapping(audio, config.overlap)
        self.audio_encoder, self.sample_rate = self.audio.model.requires_grad_(False), self.audio.sample_rate

    @abstractmethod
    def tokens(self, caption: str) -> list[int]:
        """Return the word indices of a training caption, from start to end."""

    @abstractmethod
    def logits(self, ids: Tensor, vectors: Tensor | None, memory: Tensor, lengths: Tensor) -> Tensor:
        """Compute the logits of the next word at all positions of captions (teacher forcing).

        Args:
            ids: (N, L) word indices, from the start on, padded.
            vectors: (N, L, size) vectors of these words (default: the model computes them).
            memory: (N, T, size) embeddings of the clips, from `adapt`.
            lengths: (N,) number of embeddings of each clip.

        Returns:
            (N, L, words) logits.
        """

    @abstractmethod
    def steps(self, memory: Tensor, lengths: Tensor) -> generation.Step:
        """Return the function that predicts the next word.

        Args:
            memory: (N, T, size) embeddings of the clips, from `adapt`.
            lengths: (N,) number of embeddings of each clip.
        """

    def train(self, mode: bool = True) -> "AudioCaptioner":
        """Set training or evaluation mode; the audio encoder stays in evaluation mode."""
        super().train(mode)
        self.audio_encoder.eval()
        return self

    def adapt(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map the audio encoder's output, (N, T, size) with (N,) lengths, to (N, T, the adapter's size)."""
        return self.adapter(sequences, length_mask(lengths, sequences.shape[1]))

    def encode(self, audio: Tensor, lengths: Tensor) -> generation.Step:
        """Encode (N, samples) audio, and return the function that predicts the next word."""
        sequences, lengths = stack_sequences(self.audio(audio, lengths))
        return self.steps(self.adapt(sequences, lengths), lengths)


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
