"""What a training step of captioning with off-the-shelf models costs, against torch's own decoder of the same size."""

from pathlib import Path

from bench.captioner import VOCABULARY
from bench.measuring import Function, Row, duration, race, times

PAIRS, WORDS, FRAMES, SIZE = 64, 12, 47, 1024  # a caption and 22.5 s of sound, Clotho's means; YAMNet's half windows
EPOCH = 19_195  # pairs of Clotho's development split


def offtheshelf(alone: Function, folder: Path) -> list[Row]:
    """A training step at the published size over embeddings that are cached, without an adapter."""
    ours, theirs = alone(_step)
    what = f"training step of {PAIRS} captions over {FRAMES} embeddings / torch's TransformerDecoder"
    hours = f"an epoch of Clotho at this rate: {duration(ours * EPOCH / PAIRS)}"
    return [Row(what, duration(ours), duration(theirs), times(theirs / ours), "≥ 1x", theirs / ours >= 1, hours)]


def _step() -> list[float]:
    import torch
    from torch import nn
    from torch.nn import functional as F

    from systems.parts.decoder import Decoder
    from systems.parts.words import SIZE as WORD_SIZE

    torch.manual_seed(0)
    ours = Decoder(VOCABULARY, WORD_SIZE, SIZE, original=True)
    enter, leave, sound = nn.Linear(WORD_SIZE, 512), nn.Linear(512, VOCABULARY), nn.Linear(SIZE, 512)
    layer = nn.TransformerDecoderLayer(512, 4, 512, batch_first=True)
    theirs = nn.ModuleList([enter, nn.TransformerDecoder(layer, 3), leave, sound])
    vectors, memory = torch.randn(PAIRS, WORDS, WORD_SIZE), torch.randn(PAIRS, FRAMES, SIZE)
    ids, lengths = torch.randint(VOCABULARY, (PAIRS, WORDS)), torch.full((PAIRS,), FRAMES)
    causal = nn.Transformer.generate_square_subsequent_mask(WORDS)
    behind = torch.zeros(PAIRS, FRAMES, dtype=torch.bool)

    def step(optimizer: torch.optim.Optimizer, logits: torch.Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        optimizer.step()

    adams = [torch.optim.Adam(model.parameters()) for model in (ours, theirs)]
    return race(
        lambda: step(adams[0], ours(vectors, memory, lengths)),
        lambda: step(
            adams[1],
            leave(theirs[1](enter(vectors), sound(memory), causal, tgt_is_causal=True, memory_key_padding_mask=behind)),
        ),
        rounds=3,
    )


MEASURES = {"offtheshelf": offtheshelf}
