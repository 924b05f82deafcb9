"""The captioner whose decoder is a pretrained language model, such as BART, GPT-2 or SmolLM2."""

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from systems.offtheshelf.captioner import AudioCaptioner, adapter
from systems.offtheshelf.config import Config
from systems.parts import generation, texts
from systems.parts.pretrained_decoder import Lora, PretrainedDecoder, PretrainedSteps

PADDING = -100  # fills the positions after the end of a caption, because each id from 0 on may be a token


class PretrainedCaptioner(AudioCaptioner):
    """A captioner with a pretrained decoder. Its words are the decoder's tokens.

    Args:
        config: The config.

    Raises:
        BadRequest: The audio encoder or the decoder is not on this machine, or the decoder cannot read audio.
        Faulty: A file of weights does not hold the audio encoder's weights.
    """

    padding = PADDING

    def __init__(self, config: Config):
        super().__init__(config)
        self.adapter = adapter(config, self.audio.size)
        lora = Lora(config.lora_rank, config.lora_alpha, config.lora_dropout)
        self.decoder = PretrainedDecoder(config.decoder, self.adapter.size, config.fusion, config.tuning, lora)
        self.rules = generation.Rules(
            self.decoder.start,
            self.decoder.end,
            PADDING,
            tuple(self.decoder.unspeakable()),
            config.min_words,
            config.max_words,
            config.no_repeat,
        )
        self.train()

    @cached_property
    def frozen(self) -> dict[str, str]:
        """A dict from the prefix of each frozen part's weights to its identity (`systems.parts.checkpoints`)."""
        identities = {"audio_encoder.": self.audio.identity}
        if self.config.tuning == "full":  # the weights are trained, but their tokens must be those of training
            identities["decoder.tokenizer."] = texts.tokenizer_digest(self.decoder.tokenizer)
        else:
            identities["decoder.language."] = self.decoder.identity
        return identities

    @property
    def trained_inside(self) -> list[str]:
        """The names of the trained weights of a decoder whose other weights are frozen."""
        return [f"decoder.{name}" for name in self.decoder.trained_inside()]

    def check_window(self, audio: int, tokens: int) -> None:
        """Make sure that the longest audio, with the longest caption, fits into the decoder's window.

        Args:
            audio: Number of embeddings of the longest clip.
            tokens: Number of tokens of the longest training caption, with its start.

        Raises:
            BadRequest: They do not fit.
        """
        positions = len(self.decoder.before) + max(tokens, self.config.max_words)
        if self.config.fusion == "prefix":
            positions += audio
        self.decoder.require_window(positions)

    def tokens(self, caption: str) -> list[int]:
        """Return the token ids of a training caption, from start to end."""
        ids = self.decoder.encode(" ".join(caption.split()))
        return [self.decoder.start, *ids[: self.config.longest], self.decoder.end]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a caption's token ids."""
        return self.decoder.decode(ids)

    def logits(self, ids: Tensor, vectors: Tensor | None, memory: Tensor, lengths: Tensor) -> Tensor:
        """Compute the logits of the next token, as `AudioCaptioner.logits` describes them. It ignores `vectors`."""
        return self.decoder(ids, memory, lengths)

    def steps(self, memory: Tensor, lengths: Tensor) -> generation.Step:
        """Return the function that predicts the next token. The arguments are those of `AudioCaptioner.steps`."""
        return PretrainedSteps(self.decoder, memory, lengths)
