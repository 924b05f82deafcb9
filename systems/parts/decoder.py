"""A Transformer decoder over encoded sound: word vectors in, logits of the next word out.

Source: Vaswani et al. 2017, sections 3.1 to 3.5, in the size of Weck et al. 2021, section 3.1: three blocks of four
heads of 128. Sound and words may be of other sizes than the decoder. Unless `original` is asked for, layers are
normalised before each part instead of behind it (Xiong et al. 2020), which trains without a warm-up, with GELU between
the linear layers instead of ReLU; positions are added behind the linear layer that brings words to the decoder's size;
and each block has keys and values of the sound's own size.

In all of it the *rows* are sequences of words and the *clips* encoded sounds. Rows of one clip stand together, as many
for each clip: the captions of a clip in training, its beams in a search. They are queries to the clip's one memory,
which is neither repeated nor copied for them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from systems.parts.sequences import length_mask

HEADS, HEAD_SIZE = 4, 128

KeysValues = tuple[Tensor, Tensor]  # (N, heads, T, head size) each


class Attention(nn.Module):
    """Multi-head scaled dot-product attention of `size` wide queries to a memory of another size."""

    def __init__(self, size: int, memory_size: int, heads: int, head_size: int):
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.query = nn.Linear(size, heads * head_size)
        self.key_value = nn.Linear(memory_size, 2 * heads * head_size)
        self.leave = nn.Linear(heads * head_size, size)

    def keys_values(self, memory: Tensor) -> KeysValues:
        """What (N, T, memory size) is asked by and answers with."""
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        return self._heads(keys), self._heads(values)

    def forward(self, x: Tensor, memory: KeysValues, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Ask (N, L, size) queries.

        Args:
            x: The queries.
            memory: Of `keys_values`.
            mask: (N, 1, 1, T) bool, which of the memory there is; all of it by default.
            causal: Whether query i sees the first i + 1 of the memory alone.
        """
        found = F.scaled_dot_product_attention(self._heads(self.query(x)), *memory, attn_mask=mask, is_causal=causal)
        return self.leave(found.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)


class Block(nn.Module):
    """Attention to the words before, attention to the sound, and two linear layers, each added to what came in."""

    def __init__(
        self, size: int, memory_size: int, heads: int, head_size: int, hidden: int, dropout: float, original: bool
    ):
        super().__init__()
        self.original = original
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))
        self.words = Attention(size, size, heads, head_size)
        self.sound = Attention(size, memory_size, heads, head_size)
        between = nn.ReLU() if original else nn.GELU()
        self.linear = nn.Sequential(nn.Linear(size, hidden), between, nn.Dropout(dropout), nn.Linear(hidden, size))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, sound: KeysValues, mask: Tensor, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """Map (rows, L, size) to the same shape.

        Args:
            x: The words; behind `past` a single one.
            sound: Keys and values of the clips.
            mask: (clips, 1, 1, T) bool, which of them there are.
            past: Keys and values of the words before `x`.

        Returns:
            The words, and keys and values of all words up to here.
        """
        asking = self._before(0, x)
        known = self.words.keys_values(asking)
        if past is not None:
            known = tuple(torch.cat(both, dim=2) for both in zip(past, known, strict=True))
        x = self._behind(0, x + self.dropout(self.words(asking, known, causal=past is None)))
        together = self._before(1, x).reshape(len(mask), -1, x.shape[2])  # (clips, rows of a clip * L, size)
        x = self._behind(1, x + self.dropout(self.sound(together, sound, mask).view_as(x)))
        return self._behind(2, x + self.dropout(self.linear(self._before(2, x)))), known

    def _before(self, part: int, x: Tensor) -> Tensor:
        if self.original:
            return x
        return self.norms[part](x)

    def _behind(self, part: int, x: Tensor) -> Tensor:
        if self.original:
            return self.norms[part](x)
        return x


class Decoder(nn.Module):
    """Blocks between word vectors and logits of words.

    Args:
        words: How many words there are to choose from.
        word_size: Of the word vectors.
        memory_size: Of a frame of sound.
        blocks: How many.
        heads: Of each attention.
        head_size: Of each head; a block is heads x head_size wide.
        hidden: Width between the two linear layers of a block.
        dropout: Of what each part adds, and of the word vectors.
        original: The Transformer of Vaswani et al. 2017, in the form of Weck et al. 2021. Each part is normalised
            behind, and between the linear layers is ReLU. Positions are added to the word vectors themselves (section
            2), before the linear layer that brings these to the decoder's size. All blocks attend to sound of the
            decoder's size: sound of another size passes through one linear layer first, the only one whose size
            depends on the sound (section 3.3).
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
        """Logits of the word behind each word, all at once (teacher forcing).

        Args:
            vectors: (rows, L, word size) the words from the start on.
            memory: (clips, T, memory size) the sounds.
            lengths: (clips,) int64 frames of each, one at least.

        Returns:
            (rows, L, words). Those of a word do not depend on the words behind it.
        """
        mask = length_mask(lengths, memory.shape[1])[:, None, None]
        x = self.enter_words(vectors, 0)
        for block, sound in zip(self.blocks, self.keys_values(memory), strict=True):
            x, _ = block(x, sound, mask)
        return self.leave(self.norm(x))

    def keys_values(self, memory: Tensor) -> list[KeysValues]:
        """Keys and values of each block for (clips, T, memory size) sounds."""
        sound = self.enter_sound(memory)
        return [block.sound.keys_values(sound) for block in self.blocks]

    def enter_words(self, vectors: Tensor, position: int) -> Tensor:
        """Map (rows, L, word size) words, the first of them at a position, to (rows, L, heads x head size)."""
        if self.original:
            return self.enter(self.dropout(_with_positions(vectors, position)))
        return self.dropout(_with_positions(self.enter(vectors), position))


class CachedSteps:
    """A decoder a word at a time, as `generation.Step`: what was computed for the words before and the sound is kept.

    Args:
        decoder: The decoder, which must be in evaluation mode for the same logits as `Decoder.forward`.
        memory: (clips, T, memory size) the sounds.
        lengths: (clips,) int64 frames of each.
        embed: Gives the vectors (rows, 1, word size) of the last words of (rows, L) numbers.
    """

    def __init__(self, decoder: Decoder, memory: Tensor, lengths: Tensor, embed: Callable[[Tensor], Tensor]):
        self.decoder, self.embed = decoder, embed
        self.mask = length_mask(lengths, memory.shape[1])[:, None, None]
        self.sounds = decoder.keys_values(memory)
        self.pasts: list[KeysValues | None] = [None] * len(decoder.blocks)
        self.each = 1  # rows of a clip

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Logits (rows, words) of the next word of each row; the arguments are those of `generation.Step`."""
        clips = (rows // self.each).unique_consecutive()
        if len(clips) < len(self.mask):  # the others are done
            self.mask = self.mask[clips]
            self.sounds = [(keys[clips], values[clips]) for keys, values in self.sounds]
        self.each = len(rows) // len(clips)
        x = self.decoder.enter_words(self.embed(ids), ids.shape[1] - 1)
        for number, (block, sound) in enumerate(zip(self.decoder.blocks, self.sounds, strict=True)):
            past = self.pasts[number]
            x, self.pasts[number] = block(x, sound, self.mask, past and (past[0][rows], past[1][rows]))
        return self.decoder.leave(self.decoder.norm(x))[:, 0]


class UncachedSteps:
    """A decoder that begins anew with each word, as `generation.Step`, for vectors that change with the words behind.

    The arguments are those of `CachedSteps`, but that `embed` gives the vectors (rows, L, word size) of all words.
    """

    def __init__(self, decoder: Decoder, memory: Tensor, lengths: Tensor, embed: Callable[[Tensor], Tensor]):
        self.decoder, self.memory, self.lengths, self.embed = decoder, memory, lengths, embed
        self.clips: Tensor | None = None  # (rows,) which each row is of

    def __call__(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Logits (rows, words) of the next word of each row; the arguments are those of `generation.Step`."""
        self.clips = rows if self.clips is None else self.clips[rows]
        clips = self.clips.unique_consecutive()
        return self.decoder(self.embed(ids), self.memory[clips], self.lengths[clips])[:, -1]


def positions(first: int, number: int, size: int) -> Tensor:
    """The positional encoding (Vaswani et al. 2017, section 3.5) of so many positions as (number, size).

    An odd size leaves out the last cosine.
    """
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10_000) / size))
    angles = torch.arange(first, first + number)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :size]


def _with_positions(x: Tensor, first: int) -> Tensor:
    """Add the positions from `first` on to (rows, L, size) vectors."""
    return x + positions(first, x.shape[1], x.shape[2]).to(x)
