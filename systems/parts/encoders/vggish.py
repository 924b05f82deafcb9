"""VGGish as a HEAR module: 128 values for each window of 0.975 s.

An embedding is the output of the last layer after a ReLU, as in the port to torch and in the authors' code up to 2021.
The authors now define it as the output before the ReLU: `load_model(post_activation=False)`. The embeddings released
with AudioSet are also whitened and quantised to 8 bits, which this module does not do.

The front end works at 16 kHz. A periodic Hann window of 400 samples moves by 160, and its transform has 512 points. The
magnitudes pass through 64 mel filters on HTK's scale from 125 to 7500 Hz, and become ln(x + 0.01). The filters are
triangles of height 1, with sides that are straight lines over mel and not over Hz. The network takes 96 frames. Frames
are not centred. Therefore windows of 15,600 samples of a clip give the same as windows of 96 frames of its spectrogram.

Sources: Hershey et al. 2017, and tensorflow/models, research/audioset: `vggish_params.py` (the settings),
`mel_features.py` (mels, window), `vggish/vggish_slim.py` and `vggish/README.md` (layers, no activation);
the weights in torch's form, their names and the order in which the last block is flattened:
harritaylor/torchvggish, `torchvggish/vggish.py` and `hubconf.py`.
"""

from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.data.audio import htk_mel, triangles
from evaluation.downloads import Asset
from evaluation.findings import BadRequest
from systems.parts.encoders import weights
from systems.parts.encoders.windows import get_scene_embeddings, get_timestamp_embeddings, magnitudes

RELEASE = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/"
# As in all files for torch.hub, the number in the name is the beginning of the file's SHA-256.
ASSET = Asset("VGGish", f"{RELEASE}vggish-10086976.pth", 288_600_000, "Apache 2.0", "vggish", "sha256:10086976")
ASSETS = (ASSET,)
WINDOW, HOP, FFT, MELS, LOW, HIGH, OFFSET = 400, 160, 512, 64, 125, 7500, 0.01
FRAMES = 96  # frames of a window
SIZE = 128
# The port's files may contain the tensors of its postprocessing, which this module does not use.
UNUSED = {"pproc.pca_eigen_vectors": (SIZE, SIZE), "pproc.pca_means": (SIZE, 1)}


class VGGish(nn.Module):
    """The network. Its tensors have the published names.

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
        BadRequest: `post_activation` is neither true nor false, there is no such file, or torch did not save it.
        Faulty: The file does not hold the network's weights. The findings name every difference.
    """
    if not isinstance(post_activation, bool):
        raise BadRequest(f"vggish: post_activation must be true or false; found {post_activation!r}: give one of them")
    return weights.load(partial(VGGish, post_activation), ASSET, path, UNUSED)


__all__ = ["VGGish", "get_scene_embeddings", "get_timestamp_embeddings", "load_model"]
