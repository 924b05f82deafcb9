"""VGGish as a HEAR module: 128 values for each window of 0.975 s.

An embedding is the output of the last layer after a ReLU, as in the port to torch and in the authors' code up to 2021.
The authors now define it as the output before the ReLU: `load_model(post_activation=False)`. The embeddings released
with AudioSet are also whitened and quantised to 8 bits, which this module does not do.

Front end: 16 kHz, periodic Hann window 400, hop 160, transform of 512 points, magnitudes, 64 mels on HTK's scale from
125 to 7500 Hz (triangles that are straight in mel, with height 1), ln(x + 0.01). The network takes 96 frames. Frames
are not centred, so cutting a clip into windows of 15,600 samples gives the same as cutting its sequence of frames.

Sources: Hershey et al. 2017, and tensorflow/models, research/audioset: `vggish_params.py` (the numbers),
`mel_features.py` (mels, window), `vggish/vggish_slim.py` and `vggish/README.md` (layers, no activation);
the weights in torch's form, their names and the order in which the last block is flattened:
harritaylor/torchvggish, `torchvggish/vggish.py` and `hubconf.py`.
"""

from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.assets import Asset
from evaluation.data.audio import htk_mel, triangles
from evaluation.findings import BadRequest
from systems.parts.encoders import weights
from systems.parts.encoders.windows import get_scene_embeddings, get_timestamp_embeddings, magnitudes

RELEASE = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/"
ASSET = Asset("VGGish", f"{RELEASE}vggish-10086976.pth", 288_600_000, "Apache 2.0")
WINDOW, HOP, FFT, MELS, LOW, HIGH, OFFSET = 400, 160, 512, 64, 125, 7500, 0.01
FRAMES = 96  # frames of a window
SIZE = 128
# A file saved from the port may contain its postprocessing, which is not used here.
UNUSED = {"pproc.pca_eigen_vectors": (SIZE, SIZE), "pproc.pca_means": (SIZE, 1)}


class VGGish(nn.Module):
    """The network; the names of its tensors are the published ones.

    Args:
        post_activation: True for embeddings after the last layer's ReLU, false for embeddings before it.
    """

    sample_rate = 16000
    timestamp_embedding_size = scene_embedding_size = SIZE
    window = (FRAMES - 1) * HOP + WINDOW  # samples
    hop = 960.0  # ms

    def __init__(self, post_activation: bool = True):
        super().__init__()
        self.post_activation = post_activation
        layers, inputs = [], 1
        for outputs in (64, None, 128, None, 256, 256, None, 512, 512, None):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()] if outputs else [nn.MaxPool2d(2)]
            inputs = outputs or inputs
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(6 * 4 * 512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, SIZE)
        )

    @property
    def embedding_settings(self) -> dict[str, bool]:
        """The settings that the embeddings depend on, apart from the weights."""
        return {"post_activation": self.post_activation}

    def log_mels(self, windows: Tensor) -> Tensor:
        """Map (N, samples) to (N, frames, 64)."""
        energies = magnitudes(windows, WINDOW, HOP, FFT) @ torch.from_numpy(filters()).to(windows.device)
        return (energies + OFFSET).log()

    def forward(self, windows: Tensor) -> Tensor:
        """Map (N, 15600) samples to (N, 128)."""
        x = self.features(self.log_mels(windows)[:, None])  # (N, 512, 6, 4)
        values = self.embeddings(x.permute(0, 2, 3, 1).flatten(1))
        if self.post_activation:
            return values.relu()
        return values


@lru_cache
def filters() -> np.ndarray:
    """Return the mel filters, (257, 64) float32. The bin at 0 Hz has no weight, as in HTK."""
    edges = np.linspace(htk_mel(np.array(LOW)), htk_mel(np.array(HIGH)), MELS + 2)
    values = triangles(htk_mel(np.arange(FFT // 2 + 1) * VGGish.sample_rate / FFT), edges)
    values[0] = 0
    return values.astype(np.float32)


def load_model(path: str = "", post_activation: bool = True) -> VGGish:
    """Load the published weights.

    Args:
        path: The file, or the folder with it, as in `weights.find`.
        post_activation: True for embeddings after the last layer's ReLU, as in the port to torch and in the authors'
            code up to 2021; false for embeddings before it, as the authors define them now.

    Raises:
        BadRequest: `post_activation` is neither true nor false, or as `weights.load`.
        Faulty: As `weights.load`.
    """
    if not isinstance(post_activation, bool):
        raise BadRequest(f"vggish: post_activation must be true or false; found {post_activation!r}: give one of them")
    return weights.load(partial(VGGish, post_activation), ASSET, path, UNUSED)


__all__ = ["VGGish", "get_scene_embeddings", "get_timestamp_embeddings", "load_model"]
