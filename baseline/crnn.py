"""The audio encoder of the baseline: it maps log-mel energies to one vector every four frames.

Source: Xie et al. 2022, section 3.1, and xieh97/dcase2022-audio-retrieval@f6fad50, `models/audio_encoders.py`. The
encoder has 732,354 trainable parameters. According to the paper, each of the three poolings divides time by four. The
published code and this module divide it by 2, 2 and 1. Two things differ from the published code on purpose:

- Each clip ends at its own last frame, and not at the end of the longest clip in its batch. This holds for
  convolutions, batch norm, recurrence and mean. So the padding of a clip, which depends on the other clips of its
  batch, does not affect its vectors. To get the published behaviour, pass the length of the batch's longest clip for
  every clip (the retriever's `padding: batch`).
- Pooling adds `FLOOR` = 1e-12 to the sum of fourth powers before it takes the fourth root. The slope of the fourth root
  is infinite at zero, so the gradient of a pool of zeros would be NaN. In this module, such pools occur after each
  clip's end. `FLOOR` changes a pool of value 0 to 0.001, increases a pool of 0.01 by 2.5e-7, and does not change a pool
  of 1 in float32. With random weights, the largest change of a value in the retriever's embeddings is 0 for noise, 2e-7
  for digital silence, and 9e-6 for frames that are all zero. `floor=0` gives the published pooling.

If training uses several devices, the statistics of the batch norms cover the clips of all devices.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from systems.parts.norms import Norm
from systems.parts.sequences import length_mask

CHANNELS = (32, 128, 128, 128, 128)
# The size (time, mels) of the pooling window after each block. The windows reduce 64 mels to 1.
POOLING = ((2, 4), None, (2, 4), None, (1, 4))
SIZE = 300  # number of values of an output vector: 150 for each direction of the GRU
STRIDE = 4  # number of input frames per output vector
FLOOR = 1e-12  # added to the sum of fourth powers before the fourth root


class Block(nn.Module):
    """Batch norm, 3x3 convolution, leaky ReLU and optional L4 pooling, in the published order.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        pool: Size of the pooling window as (time, mels), or None for a block without pooling.
        slope: Slope of the leaky ReLU for negative values.
        floor: The number that is added to the sum of fourth powers before the fourth root.
    """

    def __init__(self, inputs: int, outputs: int, pool: tuple[int, int] | None, slope: float, floor: float):
        super().__init__()
        self.norm = Norm(inputs)
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.activation = nn.LeakyReLU(slope)
        self.pool, self.floor = pool, floor
        nn.init.kaiming_normal_(self.convolution.weight)

    def forward(self, x: Tensor, lengths: Tensor, shortest: int) -> tuple[Tensor, Tensor]:
        """Process a batch of clips.

        Args:
            x: (N, inputs, T, F) values of N clips with T frames and F mel bands.
            lengths: (N,) number of frames of each clip.
            shortest: The smallest of these numbers. It is an int, so that the CPU need not wait for a GPU.

        Returns:
            (N, outputs, T / time, F / mels) values, where (time, mels) is the size of the pooling window; and (N,)
            number of remaining frames of each clip.
        """
        if shortest >= x.shape[2]:
            x = self.norm(x)
        else:
            inside = length_mask(lengths, x.shape[2])
            # Padding must not count in the statistics of the norm. After the norm, the values after a clip's end are
            # zero, as is the convolution's own padding.
            frames = x.transpose(1, 2)  # (N, T, C, F)
            normed = self.norm(frames[inside].unsqueeze(-1)).squeeze(-1)  # (frames of all clips, C, F)
            x = torch.zeros_like(frames).masked_scatter(inside[..., None, None], normed).transpose(1, 2)
        x = self.activation(self.convolution(x))
        if self.pool is None:
            return x, lengths
        # L4 pooling: the fourth root of the sum of fourth powers. Last frames that do not fill a window are dropped.
        x = nn.functional.avg_pool2d(x.square().square(), self.pool) * (self.pool[0] * self.pool[1])
        return (x + self.floor).sqrt().sqrt(), lengths // self.pool[0]


class CRNN(nn.Module):
    """Five convolution blocks and a bidirectional GRU.

    Args:
        slope: Slope of the leaky ReLU for negative values. The paper states -0.1, the published code uses 0.1.
        dropout: Dropout rate between the blocks and the GRU.
        floor: The number that is added to the sum of fourth powers before the fourth root; 0 gives the published
            pooling.
    """

    def __init__(self, slope: float = 0.1, dropout: float = 0.3, floor: float = FLOOR):
        super().__init__()
        sizes = zip((1, *CHANNELS), CHANNELS, POOLING)  # noqa: B905  # the last channel count is the GRU's input size
        self.blocks = nn.ModuleList(Block(inputs, outputs, pool, slope, floor) for inputs, outputs, pool in sizes)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(CHANNELS[-1], SIZE // 2, batch_first=True, bidirectional=True)

    def forward(self, mels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode log-mel energies.

        Args:
            mels: (N, T, 64) log-mel energies.
            lengths: (N,) number of frames of each clip, at least four.

        Returns:
            (N, T / 4, 300) vectors, which are zero after each clip's end; and (N,) number of vectors of each clip.
        """
        x = mels.unsqueeze(1)  # (N, 1, T, 64)
        lengths_on_cpu = lengths.cpu()  # only once, because the CPU waits for a GPU at this point
        for block in self.blocks:
            x, lengths = block(x, lengths, int(lengths_on_cpu.min()))
            if block.pool is not None:
                lengths_on_cpu = lengths_on_cpu // block.pool[0]
        x = self.dropout(x.squeeze(3).transpose(1, 2))  # (N, T / 4, 128)
        packed = pack_padded_sequence(x, lengths_on_cpu, batch_first=True, enforce_sorted=False)
        frames, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        return frames, lengths
