"""A Transformer decoder over encoded audio, which maps word vectors to logits of the next word.

Source: Vaswani et al. 2017, sections 3.1 to 3.5, with the sizes of Weck et al. 2021, section 3.1: three blocks with
four heads of 128 values. Audio and words may have other sizes than the decoder. By default, this decoder differs from
the source in three points; `original=True` removes these differences:

- Norms come before each sublayer instead of after it (Xiong et al. 2020), which needs no warm-up in training. GELU
  replaces ReLU between the linear layers.
- Positions are added after the linear layer that maps words to the decoder's size.
- Each block computes keys and values directly from the encoded audio, whose size may differ from the decoder's.

*Rows* are sequences of words, and *clips* are encoded audio. Each clip has the same number of rows, and the rows of a
clip are consecutive: its captions in training, its beams in a search. The rows of a clip attend to the same memory,
which is not copied for each row.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from systems.parts.sequences import length_mask

HEADS, HEAD_SIZE = 4, 128

KeysValues = tuple[Tensor, Tensor]  # keys and values, each (N, heads, T, head size)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention to a memory.

    Args:
        size: Number of values of a query, and of the output.
        memory_size: Number of values of an element of the memory.
        heads: Number of attention heads.
        head_size: Number of values of a head.
    """

    def __init__(self, size: int, memory_size: int, heads: int, head_size: int):
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.query = nn.Linear(size, heads * head_size)
        self.key_value = nn.Linear(memory_size, 2 * heads * head_size)
        self.leave = nn.Linear(heads * head_size, size)

    def keys_values(self, memory: Tensor) -> KeysValues:
        """Compute the keys and values of a memory, (N, T, memory size)."""
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        return self._heads(keys), self._heads(values)

    def forward(self, x: Tensor, memory: KeysValues, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attend to a memory.

        Args:
            x: (N, L, size), L queries for each of N memories.
            memory: Keys and values, from `keys_values`.
            mask: (N, 1, 1, T) bool, false for padding of the memory (default: no padding).
            causal: If true, query i attends only to the first i + 1 elements of the memory.

        Returns:
            (N, L, size) outputs.
        """
        values = F.scaled_dot_product_attention(self._heads(self.query(x)), *memory, attn_mask=mask, is_causal=causal)
        return self.leave(values.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)


class Block(nn.Module):
    """A block of three sublayers: attention to previous words, attention to the audio, and two linear layers.

    The output of each sublayer is added to its input.

    Args:
        size: Width of the block.
        memory_size: Number of values of a frame of the audio.
        heads: Number of heads of each attention.
        head_size: Number of values of a head.
        hidden: Width between the two linear layers.
        dropout: Dropout rate.
        original: As in `Decoder`.
    """

    def __init__(
        self, size: int, memory_size: int, heads: int, head_size: int, hidden: int, dropout: float, original: bool
    ):
        super().__init__()
        self.original = original
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))
        self.words = Attention(size, size, heads, head_size)
        self.sound = Attention(size, memory_size, heads, head_size)
        activation = nn.ReLU() if original else nn.GELU()
        self.linear = nn.Sequential(nn.Linear(size, hidden), activation, nn.Dropout(dropout), nn.Linear(hidden, size))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, sound: KeysValues, mask: Tensor, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """Apply the block to the vectors of words.

        Args:
            x: (rows, L, size) vectors of L words in each row; with `past`, L is 1.
            sound: Keys and values of the clips' audio.
            mask: (clips, 1, 1, T) bool, false for padding of the audio.
            past: Keys and values of the words before `x`.

        Returns:
            (rows, L, size) new vectors of the words, and the keys and values of all words so far.
        """
        queries = self._norm_before(0, x)
        keys_values = self.words.keys_values(queries)
        if past is not None:
            keys, values = keys_values
            keys_values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        x = self._norm_after(0, x + self.dropout(self.words(queries, keys_values, causal=past is None)))
        queries = self._norm_before(1, x).reshape(len(mask), -1, x.shape[2])  # (clips, rows per clip * L, size)
        x = self._norm_after(1, x + self.dropout(self.sound(queries, sound, mask).view_as(x)))
        x = self._norm_after(2, x + self.dropout(self.linear(self._norm_before(2, x))))
        return x, keys_values

    def _norm_before(self, sublayer: int, x: Tensor) -> Tensor:
        if self.original:
            return x
        return self.norms[sublayer](x)

    def _norm_after(self, sublayer: int, x: Tensor) -> Tensor:
        if self.original:
            return self.norms[sublayer](x)
        return x


class Decoder(nn.Module):
    """A Transformer decoder that maps word vectors to logits of the next word.

    Args:
        words: Number of words in the vocabulary.
        word_size: Number of values of a word vector.
        memory_size: Number of values of a frame of the audio.
        blocks: Number of blocks.
        heads: Number of heads of each attention.
        head_size: Number of values of a head. The width of a block is heads x head_size.
        hidden: Width between the two linear layers of a block.
        dropout: Dropout rate of each sublayer's output and of the word vectors.
        original: True for the Transformer of Vaswani et al. 2017, in the form of Weck et al. 2021. Norms come after
            each sublayer, and ReLU is between the linear layers. Positions are added to the word vectors before a
            linear layer maps these to the decoder's size (section 2). All blocks attend to audio of the decoder's size.
            If the audio has another size, one linear layer maps it to the decoder's size first. This is the only layer
            whose size depends on the audio (section 3.3).
    """

    def __init__(
        self,
        words: int,
        word_size: int,
        memory_size: int,
        *,
        blocks: int = 3,
        heads: int = HEADS,
        head_size: int = HEAD_SIZE,
        hidden: int = 512,
        dropout: float = 0.1,
        original: bool = False,
    ):
        super().__init__()
        size = heads * head_size
        self.original = original
        self.enter = nn.Linear(word_size, size)
        self.enter_sound = nn.Identity()
        if original and memory_size != size:
            self.enter_sound = nn.Linear(memory_size, size)
            memory_size = size
        sizes = (size, memory_size, heads, head_size, hidden)
        self.blocks = nn.ModuleList(Block(*sizes, dropout, original) for _ in range(blocks))
        self.norm = nn.Identity() if original else nn.LayerNorm(size)
        self.leave = nn.Linear(size, words)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        """Compute the logits of the next word at all positions at once (teacher forcing).

        Args:
            vectors: (rows, L, word size) vectors of the start and the L - 1 words after it.
            memory: (clips, T, memory size) encoded audio.
            lengths: (clips,) int64, number of frames of each clip, at least one.

        Returns:
            (rows, L, words) logits. The logits at a position do not depend on later words.
        """
        mask = length_mask(lengths, memory.shape[1])[:, None, None]
        x = self.enter_words(vectors, 0)
        for block, sound in zip(self.blocks, self.keys_values(memory), strict=True):
            x, _ = block(x, sound, mask)
        return self.leave(self.norm(x))

    def keys_values(self, memory: Tensor) -> list[KeysValues]:
        """Compute each block's keys and values of (clips, T, memory size) encoded audio."""
        sound = self.enter_sound(memory)
        return [block.sound.keys_values(sound) for block in self.blocks]

    def enter_words(self, vectors: Tensor, position: int) -> Tensor:
        """Add positions to word vectors and map them to the decoder's size.

        Args:
            vectors: (rows, L, word size) word vectors.
            position: The position of the first word.

        Returns:
            (rows, L, heads x head size) vectors.
        """
        if self.original:
            return self.enter(self.dropout(_with_positions(vectors, position)))
        return self.dropout(_with_positions(self.enter(vectors), position))


class CachedSteps:
    """A `generation.Step` that runs a decoder with a key/value cache of the previous words and the audio.

    Args:
        decoder: The decoder. Its logits are equal to those of `Decoder.forward` only in evaluation mode.
        memory: (clips, T, memory size) encoded audio.
        lengths: (clips,) int64, number of frames of each clip.
        embed: A function that maps (rows, L) word indices to the vector of each row's last word, (rows, 1, word size).
    """

    def __init__(self, decoder: Decoder, memory: Tensor, lengths: Tensor, embed: Callable[[Tensor], Tensor]):
        self.decoder, self.embed = decoder, embed
        self.mask = length_mask(lengths, memory.shape[1])[:, None, None]
        self.sounds = decoder.keys_values(memory)
        self.pasts: list[KeysValues | None] = [None] * len(decoder.blocks)
        self.rows_per_clip = 1

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Return the logits of each row's next word, (rows, words). The arguments are those of `generation.Step`."""
        clips = (rows // self.rows_per_clip).unique_consecutive()
        if len(clips) < len(self.mask):  # the captions of the other clips are complete
            self.mask = self.mask[clips]
            self.sounds = [(keys[clips], values[clips]) for keys, values in self.sounds]
        self.rows_per_clip = len(rows) // len(clips)
        x = self.decoder.enter_words(self.embed(ids), ids.shape[1] - 1)
        for number, (block, sound) in enumerate(zip(self.decoder.blocks, self.sounds, strict=True)):
            past = self.pasts[number]
            if past is not None:
                past = past[0][rows], past[1][rows]
            x, self.pasts[number] = block(x, sound, self.mask, past)
        return self.decoder.leave(self.decoder.norm(x))[:, 0]


class UncachedSteps:
    """A `generation.Step` that runs a decoder without a key/value cache.

    Use it if the vectors of earlier words change when further words follow. The arguments are those of `CachedSteps`,
    except that `embed` returns the vectors of all words, (rows, L, word size).
    """

    def __init__(self, decoder: Decoder, memory: Tensor, lengths: Tensor, embed: Callable[[Tensor], Tensor]):
        self.decoder, self.memory, self.lengths, self.embed = decoder, memory, lengths, embed
        self.clips: Tensor | None = None  # (rows,) the clip of each row

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Return the logits of each row's next word, (rows, words). The arguments are those of `generation.Step`."""
        if self.clips is None:
            self.clips = rows
        else:
            self.clips = self.clips[rows]
        clips = self.clips.unique_consecutive()
        return self.decoder(self.embed(ids), self.memory[clips], self.lengths[clips])[:, -1]


def positions(first: int, number: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """Compute the positional encoding (Vaswani et al. 2017, section 3.5).

    Args:
        first: The first position.
        number: Number of positions.
        size: Number of values for each position. If it is odd, the last cosine is left out.
        device: The device of the result.

    Returns:
        (number, size) encoding.
    """
    rates = torch.exp(torch.arange(0, size, 2, device=device) * (-math.log(10_000) / size))
    angles = torch.arange(first, first + number, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :size]


def _with_positions(x: Tensor, first: int) -> Tensor:
    """Add the positional encoding, from position `first` on, to (rows, L, size) vectors."""
    return x + positions(first, x.shape[1], x.shape[2], x.device).to(x)
