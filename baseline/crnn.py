"""The audio encoder of the baseline: log-mel energies in, one vector every four frames out.

Source: Xie et al. 2022, section 3.1, and xieh97/dcase2022-audio-retrieval@f6fad50, `models/audio_encoders.py`. 732,354
trainable parameters. The paper says that each of the three poolings divides time by four; the code, and this module,
divide it by 2, 2 and 1. Two things differ on purpose:

- A clip's frames end where the clip ends, not where the longest of its batch does, in convolutions, batch norm,
  recurrence and mean alike, so that a clip's vectors do not depend on its batch. Lengths of the whole batch's longest
  clip give the published behaviour (the retriever's `padding: batch`).
- Pooling adds `FLOOR` = 1e-12 to the sum of fourth powers before it takes the fourth root, whose slope at zero is
  infinite: the gradient of a pool of zeros, as there are behind a clip's end here, would be NaN. Such a pool becomes
  0.001 instead of 0, one of 0.01 grows by 2.5e-7, one of 1 by nothing that float32 holds. The largest change of a value
  of the retriever's embeddings, with random weights: none for noise, 2e-7 for digital silence, 9e-6 for frames that are
  all zero. `floor=0` is the published pooling.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from systems.parts.sequences import length_mask

CHANNELS = (32, 128, 128, 128, 128)
POOLING = ((2, 4), None, (2, 4), None, (1, 4))  # (time, mels) after each block: 64 mels end as one
SIZE = 300  # of a frame's vector: two directions of 150
STRIDE = 4  # frames in a frame out
FLOOR = 1e-12  # added before the fourth root


class Block(nn.Module):
    """Batch norm, 3x3 convolution, leaky ReLU, and L4 pooling where `pool` is given; in that order, as published."""

    def __init__(self, inputs: int, outputs: int, pool: tuple[int, int] | None, slope: float, floor: float):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.activation = nn.LeakyReLU(slope)
        self.pool, self.floor = pool, floor
        nn.init.kaiming_normal_(self.convolution.weight)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, inputs, T, F) with lengths in frames to (N, outputs, T / time, F / mels) and its lengths."""
        inside = length_mask(lengths, x.shape[2])
        if inside.all():
            x = self.norm(x)
        else:  # statistics of the clips alone; zeros behind their ends, as the convolution pads them
            frames = x.transpose(1, 2)  # (N, T, C, F)
            normed = self.norm(frames[inside].unsqueeze(-1)).squeeze(-1)  # (frames of all clips, C, F)
            x = torch.zeros_like(frames).masked_scatter(inside[..., None, None], normed).transpose(1, 2)
        x = self.activation(self.convolution(x))
        if self.pool is None:
            return x, lengths
        # The sum of fourth powers, and its fourth root. A last frame that fills no pool is left out.
        x = nn.functional.avg_pool2d(x.square().square(), self.pool) * (self.pool[0] * self.pool[1])
        return (x + self.floor).sqrt().sqrt(), lengths // self.pool[0]


class CRNN(nn.Module):
    """Five convolution blocks and a bidirectional GRU.

    Args:
        slope: Of the leaky ReLU for negative values. The paper says -0.1, the code 0.1.
        dropout: Between the blocks and the GRU.
        floor: Added to the sum of fourth powers before the root; 0 as published.
    """

    def __init__(self, slope: float = 0.1, dropout: float = 0.3, floor: float = FLOOR):
        super().__init__()
        sizes = zip((1, *CHANNELS), CHANNELS, POOLING)  # noqa: B905  # the last size feeds the GRU
        self.blocks = nn.ModuleList(Block(inputs, outputs, pool, slope, floor) for inputs, outputs, pool in sizes)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(CHANNELS[-1], SIZE // 2, batch_first=True, bidirectional=True)

    def forward(self, mels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (N, T, 64) log-mel energies of `lengths` (N,) frames, at least four.

        Returns:
            (N, T / 4, 300) vectors, zero behind each clip's end, and their number for each clip.
        """
        x = mels.unsqueeze(1)  # (N, 1, T, 64)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        x = self.dropout(x.squeeze(3).transpose(1, 2))  # (N, T / 4, 128)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        frames, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        return frames, lengths
