"""VGGish as a HEAR module: 128 values for each window of 0.975 s.

An embedding is the last layer before any activation, as its authors define it now. Up to 2021 theirs had a ReLU there,
and so has the port to torch; what was published with that is `embeddings.relu()`. The embeddings released with AudioSet
are whitened and quantised: `postprocess`.

Front end: 16 kHz, periodic Hann window 400, hop 160, transform of 512, magnitudes, 64 mels of HTK's scale from 125 to
7500 Hz whose triangles are straight in mel and have height 1, ln(x + 0.01); 96 frames are an example. Frames are not
centred, so that cutting the sound into windows of 15,600 samples gives the same as cutting its frames.

Sources: Hershey et al. 2017, and tensorflow/models, research/audioset: `vggish_params.py` (the numbers),
`mel_features.py` (mels, window), `vggish/vggish_slim.py` and `vggish/README.md` (layers, no activation),
`vggish_postprocess.py`; the weights in torch's form, their names and the order in which the last block is flattened:
harritaylor/torchvggish, `torchvggish/vggish.py` and `hubconf.py`.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.audio import htk_mel, triangles
from evaluation.findings import BadRequest
from evaluation.models import Part
from systems.parts.encoders import weights
from systems.parts.encoders.windows import get_scene_embeddings, get_timestamp_embeddings, magnitudes

RELEASE = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/"
PART = Part("VGGish", f"{RELEASE}vggish-10086976.pth", 288_600_000, "Apache 2.0")
PCA = Part("VGGish's PCA", f"{RELEASE}vggish_pca_params-970ea276.pth", 70_000, "Apache 2.0")
WINDOW, HOP, FFT, MELS, LOW, HIGH, OFFSET = 400, 160, 512, 64, 125, 7500, 0.01
FRAMES = 96  # of an example
SIZE = 128
# In a file that was saved from the port with its postprocessing: see `postprocess`.
UNUSED = {"pproc.pca_eigen_vectors": (SIZE, SIZE), "pproc.pca_means": (SIZE, 1)}


class VGGish(nn.Module):
    """The network; names are the published ones."""

    sample_rate = 16000
    timestamp_embedding_size = scene_embedding_size = SIZE
    window = (FRAMES - 1) * HOP + WINDOW  # samples
    hop = 960.0  # ms

    def __init__(self):
        super().__init__()
        layers, inputs = [], 1
        for outputs in (64, None, 128, None, 256, 256, None, 512, 512, None):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()] if outputs else [nn.MaxPool2d(2)]
            inputs = outputs or inputs
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(6 * 4 * 512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, SIZE)
        )

    def log_mels(self, windows: Tensor) -> Tensor:
        """Map (N, samples) to (N, frames, 64)."""
        energies = magnitudes(windows, WINDOW, HOP, FFT) @ torch.from_numpy(filters()).to(windows.device)
        return (energies + OFFSET).log()

    def forward(self, windows: Tensor) -> Tensor:
        """Map (N, 15600) samples to (N, 128)."""
        x = self.features(self.log_mels(windows)[:, None])  # (N, 512, 6, 4)
        return self.embeddings(x.permute(0, 2, 3, 1).flatten(1))


@lru_cache
def filters() -> np.ndarray:
    """The mel filters, (257, 64) float32; the bin at 0 Hz is left out, as in HTK."""
    edges = np.linspace(htk_mel(np.array(LOW)), htk_mel(np.array(HIGH)), MELS + 2)
    found = triangles(htk_mel(np.arange(FFT // 2 + 1) * VGGish.sample_rate / FFT), edges)
    found[0] = 0
    return found.astype(np.float32)


def load_model(path: str = "") -> VGGish:
    """Load the published weights; `path` as in `weights.find`, what is raised as in `weights.load`."""
    return weights.load(VGGish, PART, path, UNUSED)


def postprocess(embeddings: Tensor, path: str = "") -> Tensor:
    """Whiten and quantise embeddings as those that were released with AudioSet.

    Args:
        embeddings: (…, 128).
        path: File of the principal components, as in `weights.find`.

    Returns:
        (…, 128) whole numbers from 0 to 255, float32.

    Raises:
        BadRequest: There is no such file, or it holds something else.
    """
    file = weights.find(PCA, path)
    saved = weights.read(file, PCA)
    try:
        vectors = torch.as_tensor(saved["pca_eigen_vectors"]).float().reshape(SIZE, SIZE).to(embeddings.device)
        means = torch.as_tensor(saved["pca_means"]).float().reshape(SIZE).to(embeddings.device)
    except (KeyError, TypeError, RuntimeError):
        message = f"{file}: must hold pca_eigen_vectors, {SIZE} x {SIZE}, and pca_means, {SIZE}"
        raise BadRequest(f"{message}; fetch it again from {PCA.source}") from None
    return (((embeddings - means) @ vectors.T).clamp(-2, 2).add(2) * (255 / 4)).floor()


__all__ = ["VGGish", "get_scene_embeddings", "get_timestamp_embeddings", "load_model", "postprocess"]
