"""The captioner of Weck et al. 2021: its decoder starts with random weights, and its word vectors may be pretrained."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from evaluation.findings import BadRequest
from systems.offtheshelf.captioner import AudioCaptioner, adapter
from systems.offtheshelf.config import Config
from systems.offtheshelf.context import Context
from systems.parts import generation, vocabulary, words
from systems.parts.decoder import CachedSteps, Decoder, UncachedSteps
from systems.parts.vocabulary import START, Vocabulary


class Captioner(AudioCaptioner):
    """A captioner with a decoder of its own.

    Args:
        config: The config.
        vocab: The vocabulary.
        vectors: (words, size) initial word embeddings; None if a text model gives the embeddings.

    Raises:
        BadRequest: An encoder is not on this machine, or its windows cannot overlap.
        Faulty: A file of weights does not hold the encoder's weights.
    """

    padding = vocabulary.PADDING

    def __init__(self, config: Config, vocab: Vocabulary, vectors: Tensor | None):
        super().__init__(config)
        self.vocabulary = vocab
        if vectors is None:
            self.words = Context(config.words, config.text_layer, config.context)
            word_size = self.words.size
        else:
            self.words = nn.Embedding.from_pretrained(vectors, freeze=not config.train_words)
            word_size = vectors.shape[1]
        self.adapter = adapter(config, self.audio.size)
        self.decoder = Decoder(
            len(vocab),
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

    @cached_property
    def frozen(self) -> dict[str, str]:
        """A dict from the prefix of each frozen encoder's weights to its identity (`systems.parts.checkpoints`)."""
        identities = {"audio_encoder.": self.audio.identity}
        if isinstance(self.words, Context):
            identities["words."] = self.words.identity
        return identities

    def tokens(self, caption: str) -> list[int]:
        """Return the word indices of a training caption, from start to end."""
        return self.vocabulary.sequence(caption, self.config.longest)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a caption's word indices."""
        return self.vocabulary.decode(ids)

    def embed_words(self, ids: Tensor) -> Tensor:
        """Embed (rows, L) word indices, which begin with the start, as (rows, L, size).

        The vector of the start is zeros (equation 3).
        """
        if not isinstance(self.words, Context):
            return self.words(ids) * (ids != START)[..., None]
        start = torch.zeros(len(ids), 1, self.words.size, device=ids.device)
        if ids.shape[1] == 1:
            return start
        captions = []
        for row in ids[:, 1:].tolist():
            captions.append(" ".join(self.vocabulary.words[number] for number in row))
        return torch.cat([start, self.words(captions)], dim=1)

    def logits(self, ids: Tensor, vectors: Tensor | None, memory: Tensor, lengths: Tensor) -> Tensor:
        """Compute the logits of the next word, as `AudioCaptioner.logits` describes them."""
        if vectors is None:
            vectors = self.embed_words(ids)
        return self.decoder(vectors, memory, lengths)

    def steps(self, memory: Tensor, lengths: Tensor) -> generation.Step:
        """Return the function that predicts the next word. The arguments are those of `AudioCaptioner.steps`."""
        if not isinstance(self.words, Context):
            return CachedSteps(self.decoder, memory, lengths, lambda ids: self.embed_words(ids[:, -1:]))
        if self.config.context == "prefix":
            return CachedSteps(self.decoder, memory, lengths, lambda ids: self.embed_words(ids)[:, -1:])
        return UncachedSteps(self.decoder, memory, lengths, self.embed_words)


def begin_words(config: Config, vocab: Vocabulary, captions: Iterable[str], seed: int) -> Tensor | None:
    """Return the initial word vectors (section 3.4).

    The values are scaled to a standard deviation of 1, which is that of random vectors (not in the paper). A word gets
    a random vector if the file does not contain it. A word with a hyphen gets the mean of its parts' vectors.

    Args:
        config: The config.
        vocab: The vocabulary.
        captions: The captions to train vectors on.
        seed: Seed of random vectors and of training.

    Returns:
        (words, size); None if a text model gives the vectors.

    Raises:
        BadRequest: There is no such file, it is not a file of word vectors, or it does not contain any word of the
            captions.
    """
    if not config.static:
        return None
    generator = torch.Generator().manual_seed(seed)
    if config.words == "random":
        return torch.randn(len(vocab), words.SIZE, generator=generator)
    if config.words == "train":
        table = words.train_vectors(captions, seed=seed, cbow=True)
    else:
        table = words.read_vectors(config.words, size=None, limit=config.words_limit)
    from_table = torch.from_numpy(words.mean_vectors(vocab.words, table))
    from_table[: len(vocabulary.SPECIAL)] = 0
    has_vector = from_table.any(1)
    if not has_vector.any():
        raise BadRequest(
            f"words: {config.words}: must contain vectors for words of the captions; found only vectors for other "
            "words: give another file"
        )
    vectors = torch.randn(from_table.shape, generator=generator)
    vectors[has_vector] = from_table[has_vector] / from_table[has_vector].std()
    return vectors
