"""Measure of captioning with off-the-shelf models: a training step, compared with torch's decoder of the same size."""

from pathlib import Path

from bench.captioner import VOCABULARY
from bench.measuring import Function, Measure, Row, duration, race, times

# WORDS is Clotho's mean caption length. FRAMES is the number of half windows of YAMNet in 22.5 s, Clotho's mean length.
PAIRS, WORDS, FRAMES, SIZE = 64, 12, 47, 1024
EPOCH = 19_195  # number of pairs of a clip and a caption in Clotho's development split


def offtheshelf(alone: Function, folder: Path) -> list[Row]:
    """Measure a training step at the published size on cached embeddings, without an adapter."""
    ours, theirs = alone(_step)
    what = f"training step of {PAIRS} captions over {FRAMES} embeddings / torch's TransformerDecoder"
    note = f"an epoch of Clotho at this rate: {duration(ours * EPOCH / PAIRS)}"
    return [Row(what, duration(ours), duration(theirs), times(theirs / ours), "≥ 1x", theirs / ours >= 1, note)]


def _step() -> list[float]:
    import torch
    from torch import nn
    from torch.nn import functional as F

    from systems.parts.decoder import Decoder
    from systems.parts.words import SIZE as WORD_SIZE

    torch.manual_seed(0)
    ours = Decoder(VOCABULARY, WORD_SIZE, SIZE, original=True)
    words_in, words_out, audio_in = nn.Linear(WORD_SIZE, 512), nn.Linear(512, VOCABULARY), nn.Linear(SIZE, 512)
    layer = nn.TransformerDecoderLayer(512, 4, 512, batch_first=True)
    decoder = nn.TransformerDecoder(layer, 3)
    theirs = nn.ModuleList([words_in, decoder, words_out, audio_in])
    vectors, memory = torch.randn(PAIRS, WORDS, WORD_SIZE), torch.randn(PAIRS, FRAMES, SIZE)
    ids, lengths = torch.randint(VOCABULARY, (PAIRS, WORDS)), torch.full((PAIRS,), FRAMES)
    causal = nn.Transformer.generate_square_subsequent_mask(WORDS)
    padding = torch.zeros(PAIRS, FRAMES, dtype=torch.bool)

    def their_logits() -> torch.Tensor:
        hidden = decoder(
            words_in(vectors), audio_in(memory), causal, tgt_is_causal=True, memory_key_padding_mask=padding
        )
        return words_out(hidden)

    def step(optimizer: torch.optim.Optimizer, logits: torch.Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        optimizer.step()

    our_optimizer = torch.optim.Adam(ours.parameters())
    their_optimizer = torch.optim.Adam(theirs.parameters())
    return race(
        lambda: step(our_optimizer, ours(vectors, memory, lengths)),
        lambda: step(their_optimizer, their_logits()),
        rounds=3,
    )


MEASURES: dict[str, Measure] = {"offtheshelf": offtheshelf}
