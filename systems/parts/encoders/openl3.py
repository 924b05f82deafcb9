"""OpenL3 (environmental sounds, 128 mels) as a HEAR module: 512 values for each second.

The weights are those of torchopenl3, a port of the package openl3 to torch.

The front end works at 48 kHz. A periodic Hann window of 2048 samples moves by 242, so a second has 199 frames. The
power spectrum passes through 128 mel filters on HTK's scale from 0 to 24 kHz. The square root x of each energy becomes
10 log10(max(x, 1e-10)). These levels are relative to the maximum of the second, and the lowest level is -80 dB.

The mel filters come from the file of weights. Their normalisation depends on the version of librosa that wrote the
file. The port calls librosa with `norm=1`. From librosa 0.8 on, this makes the values of each filter add up to 1. In
earlier versions, it gave each filter unit area in Hz (Slaney). `normalisation` detects the normalisation of a file's
filters, and the encoder's identity contains the result.

A second is padded with zeros before its spectrum is computed. Up to version 0.3, openl3 puts 982 zeros at both ends of
a second. This is the default in this module and in the port. From version 0.4 on, openl3 puts 1964 zeros at the end;
`padding="end"` does the same. Version 0.4 has two more differences, because it uses the defaults of kapre 0.3: Slaney's
mel scale, and magnitudes instead of powers. This module does not have these two.

Sources: Cramer et al. 2019; marl/openl3, `openl3/models.py` (layers, and up to version 0.3 the arguments of kapre's
Melspectrogram: n_dft, n_hop, n_mels, power_melgram, htk, padding; from 0.4 on pad_end) and `openl3/core.py`; kapre 0.3,
`composed.py`; the weights in torch's form, their names, `norm=1`, and kapre 0.1.4's padding and decibels: torchopenl3
1.0.1, `models.py` and `core.py`.
"""

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.data.audio import htk_hertz, htk_mel, mel_filters
from evaluation.downloads import Asset
from evaluation.findings import BadRequest
from systems.parts.encoders import weights
from systems.parts.encoders.windows import get_scene_embeddings, get_timestamp_embeddings, magnitudes

ASSET = Asset(
    "OpenL3 (env, mel128, 512)",
    "https://github.com/torchopenl3/torchopenl3-models/raw/master/torchopenl3_mel128_env_512.pth.tar",
    36_000_000,
    "CC BY 4.0, the port Apache 2.0",
    "openl3",
)
ASSETS = (ASSET,)
RATE, FFT, HOP, MELS = 48000, 2048, 242, 128
PADDING = {"both": (982, 982), "end": (0, 1964)}  # zeros before and after a second
CHANNELS = (1, 64, 64, 128, 128, 256, 256, 512)
SIZE = 512
UNUSED = {"speclayer.dft_real_kernels": (1025, 1, 2048), "speclayer.dft_imag_kernels": (1025, 1, 2048)}


class OpenL3(nn.Module):
    """The network. Its tensors have the published names.

    Args:
        padding: The place of the zeros that pad a second: `both` ends, or the `end`.
    """

    sample_rate = RATE
    timestamp_embedding_size = scene_embedding_size = SIZE
    window = 48000  # samples
    hop = 1000.0  # ms

    def __init__(self, padding: str = "both"):
        super().__init__()
        self.padding = padding
        self.speclayer = nn.Module()
        self.speclayer.register_buffer("mel_basis", unit_area_filters())
        for number, channels in enumerate(CHANNELS, 1):
            setattr(self, f"batch_normalization_{number}", nn.BatchNorm2d(channels, eps=0.001))
        for number, (inputs, outputs) in enumerate(pairwise(CHANNELS), 1):
            setattr(self, f"conv2d_{number}", nn.Conv2d(inputs, outputs, 3, padding=1))
        self.audio_embedding_layer = nn.Conv2d(SIZE, SIZE, 3, padding=1)

    @property
    def embedding_settings(self) -> dict[str, str]:
        """The settings that the embeddings depend on, apart from the weights."""
        return {"padding": self.padding, "mel_normalisation": normalisation(self.speclayer.mel_basis)}

    def log_mels(self, windows: Tensor) -> Tensor:
        """Map (N, 48000) to (N, 128, 199) decibels from -80 to 0."""
        powers = magnitudes(F.pad(windows, PADDING[self.padding]), FFT, HOP, FFT).square()
        levels = 10 * (powers @ self.speclayer.mel_basis.T).sqrt().clamp(min=1e-10).log10()
        return (levels - levels.amax(dim=(1, 2), keepdim=True)).clamp(min=-80).transpose(1, 2)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (N, 48000) samples to (N, 512)."""
        x = self.batch_normalization_1(self.log_mels(windows)[:, None])
        for number in range(1, 8):
            x = getattr(self, f"batch_normalization_{number + 1}")(getattr(self, f"conv2d_{number}")(x)).relu()
            if number in (2, 4, 6):
                x = F.max_pool2d(x, 2)
        return self.audio_embedding_layer(x).amax(dim=(2, 3))  # the maximum over (N, 512, 16, 24)


def unit_area_filters() -> Tensor:
    """Return the mel filters with unit area in Hz, (128, 1025) float32."""
    filters = mel_filters(RATE, FFT, MELS, 0, RATE // 2, htk=True)
    return torch.from_numpy(filters.T.copy()).float()


def normalisation(filters: Tensor) -> str:
    """Return the name of the normalisation of mel filters.

    Args:
        filters: (128, 1025) filters from a file of weights.

    Returns:
        `slaney` (unit area in Hz), `sum 1` (the values of each filter add up to 1), `peak 1` (triangles of height 1),
        or `other` for filters that are not triangles on HTK's scale.
    """
    low, high = htk_mel(np.array([0.0, RATE / 2]))
    edges = htk_hertz(np.linspace(low, high, MELS + 2))
    widths = torch.from_numpy(edges[2:] - edges[:-2])[:, None]  # Hz
    slaney = unit_area_filters().double()
    candidates = {
        "slaney": slaney,
        "sum 1": slaney / slaney.sum(dim=1, keepdim=True).clamp(min=1e-12),
        "peak 1": slaney * widths / 2,
    }
    values = filters.detach().cpu().double()
    for name, candidate in candidates.items():
        if (values - candidate).abs().max() < 1e-4 * candidate.max():
            return name
    return "other"


def load_model(path: str = "", padding: str = "both") -> OpenL3:
    """Load the published weights.

    Args:
        path: The file, or the folder with it, as in `weights.find`.
        padding: The place of the zeros that pad a second: `both` ends, as in openl3 up to 0.3 and in the port to torch;
            or the `end`, as in openl3 from 0.4 on.

    Raises:
        BadRequest: `padding` has another value, there is no such file, or torch did not save it.
        Faulty: The file does not hold the network's weights. The findings name every difference.
    """
    if padding not in PADDING:
        choices = " or ".join(PADDING)
        raise BadRequest(f"openl3: padding must be {choices}; found {padding!r}: give one of them")
    return weights.load(partial(OpenL3, padding), ASSET, path, UNUSED)


__all__ = ["OpenL3", "get_scene_embeddings", "get_timestamp_embeddings", "load_model"]
