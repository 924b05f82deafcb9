"""OpenL3 (environmental sounds, 128 mels) as a HEAR module: 512 values for each second.

Front end: 48 kHz, periodic Hann window 2048, hop 242, power spectrum, 128 mels of HTK's scale and unit area from 0 to
24 kHz, the square root, then 10 log10(max(x, 1e-10)) below the maximum of the second, 80 dB at most. A second has 199
frames, with 982 zeros on either side. The mel filters are those in the file of weights.

Sources: Cramer et al. 2019; marl/openl3, `openl3/models.py` (layers, and up to version 0.3 the arguments of kapre's
Melspectrogram: n_dft, n_hop, n_mels, power_melgram, htk, padding) and `openl3/core.py`; the weights in torch's form and
their names, and kapre 0.1.4's padding and decibels: torchopenl3 1.0.1, `models.py` and `core.py`.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.audio import mel_filters
from evaluation.models import Part
from systems.parts.encoders import weights
from systems.parts.encoders.windows import get_scene_embeddings, get_timestamp_embeddings, magnitudes

PART = Part(
    "OpenL3 (env, mel128, 512)",
    "https://github.com/torchopenl3/torchopenl3-models/raw/master/torchopenl3_mel128_env_512.pth.tar",
    36_000_000,
    "CC BY 4.0, the port Apache 2.0",
)
FFT, HOP, MELS, PAD = 2048, 242, 128, 982
CHANNELS = (1, 64, 64, 128, 128, 256, 256, 512)
SIZE = 512
UNUSED = {"speclayer.dft_real_kernels": (1025, 1, 2048), "speclayer.dft_imag_kernels": (1025, 1, 2048)}


class OpenL3(nn.Module):
    """The network; names are the published ones."""

    sample_rate = 48000
    timestamp_embedding_size = scene_embedding_size = SIZE
    window = 48000  # samples
    hop = 1000.0  # ms

    def __init__(self):
        super().__init__()
        filters = mel_filters(self.sample_rate, FFT, MELS, 0, self.sample_rate // 2, htk=True)
        self.speclayer = nn.Module()
        self.speclayer.register_buffer("mel_basis", torch.from_numpy(filters.T.copy()).float())  # (128, 1025)
        for number, channels in enumerate(CHANNELS, 1):
            setattr(self, f"batch_normalization_{number}", nn.BatchNorm2d(channels, eps=0.001))
        for number, (inputs, outputs) in enumerate(pairwise(CHANNELS), 1):
            setattr(self, f"conv2d_{number}", nn.Conv2d(inputs, outputs, 3, padding=1))
        self.audio_embedding_layer = nn.Conv2d(SIZE, SIZE, 3, padding=1)

    def log_mels(self, windows: Tensor) -> Tensor:
        """Map (N, 48000) to (N, 128, 199) decibels from -80 to 0."""
        powers = magnitudes(F.pad(windows, (PAD, PAD)), FFT, HOP, FFT).square()
        levels = 10 * (powers @ self.speclayer.mel_basis.T).sqrt().clamp(min=1e-10).log10()
        return (levels - levels.amax(dim=(1, 2), keepdim=True)).clamp(min=-80).transpose(1, 2)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (N, 48000) samples to (N, 512)."""
        x = self.batch_normalization_1(self.log_mels(windows)[:, None])
        for number in range(1, 8):
            x = getattr(self, f"batch_normalization_{number + 1}")(getattr(self, f"conv2d_{number}")(x)).relu()
            if number in (2, 4, 6):
                x = F.max_pool2d(x, 2)
        return self.audio_embedding_layer(x).amax(dim=(2, 3))  # of (N, 512, 16, 24)


def load_model(path: str = "") -> OpenL3:
    """Load the published weights; `path` as in `weights.find`.

    Raises:
        BadRequest: There is no such file, or torch did not save it.
        Faulty: It holds other weights; with every difference.
    """
    file = weights.find(PART, path)
    with torch.device("meta"):
        model = OpenL3()
    return weights.fill(model, weights.read(file, PART), file, UNUSED)


__all__ = ["OpenL3", "get_scene_embeddings", "get_timestamp_embeddings", "load_model"]
