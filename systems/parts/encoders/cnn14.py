"""PANNs' CNN14 as a HEAR module: 2048 values, of a whole clip or for every 320 ms of it.

An embedding is the penultimate layer after its activation, as its authors suggest. Of a clip it is theirs: maximum
plus mean over time of the last block, the layer, ReLU. In time it is the same over each step and the one on either
side (0.96 s), as their Cnn14_DecisionLevelMax pools before that layer, but for the ends, where theirs counts zeros into
the mean. A clip of one step has the same embedding either way.

Front end: 32 kHz, Hann window 1024, hop 320, centred with reflected ends, power spectrum, 64 mels of Slaney's scale and
unit area from 50 Hz to 14 kHz, 10 log10(max(x, 1e-10)). Five poolings by two: a step is 32 frames, and a last one that
is not whole is left out. A sound of less than one step is filled up with zeros.

Sources: Kong et al. 2020 (PANNs), and qiuqiangkong/audioset_tagging_cnn: `pytorch/models.py` (Cnn14 and
Cnn14_DecisionLevelMax: layers, names, window, padding, ref, amin), `README.md` (the numbers of the training command);
torchlibrosa's `stft.py` (logarithm, shapes of the front end's tensors).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.assets import Asset
from evaluation.data.audio import mel_filters
from evaluation.findings import BadRequest
from systems.parts.encoders import weights
from systems.parts.encoders.windows import checked, magnitudes, milliseconds

ASSET = Asset(
    "PANNs' CNN14",
    "https://zenodo.org/record/3987831/files/Cnn14_mAP%3D0.431.pth",
    327_428_481,
    "CC BY 4.0",
)
CHANNELS = (1, 64, 128, 256, 512, 1024, 2048)
WINDOW, HOP, MELS, LOW, HIGH = 1024, 320, 64, 50, 14000
FRAMES = 32  # of a step
STEP = 320.0  # ms, which those last
SIZE = 2048

# The published file may have these too: Fourier kernels, of which a transform is the faster form, and the classifier.
UNUSED = {
    "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
    "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
    "fc_audioset.weight": (527, 2048),
    "fc_audioset.bias": (527,),
}


class Block(nn.Module):
    """Twice 3x3 convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, T, F) to (N, outputs, T, F)."""
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


class Cnn14(nn.Module):
    """The network up to its last block; names are the published ones."""

    sample_rate = 32000
    timestamp_embedding_size = scene_embedding_size = SIZE

    def __init__(self):
        super().__init__()
        filters = mel_filters(self.sample_rate, WINDOW, MELS, LOW, HIGH)
        self.logmel_extractor = nn.Module()
        self.logmel_extractor.register_buffer("melW", torch.from_numpy(filters).float())  # (513, 64)
        self.bn0 = nn.BatchNorm2d(MELS)
        for number, (inputs, outputs) in enumerate(pairwise(CHANNELS), 1):
            setattr(self, f"conv_block{number}", Block(inputs, outputs))
        self.fc1 = nn.Linear(SIZE, SIZE)

    def log_mels(self, audio: Tensor) -> Tensor:
        """Map (N, samples) to (N, 1 + samples // 320, 64) decibels; 513 samples or more."""
        padded = F.pad(audio[:, None], (WINDOW // 2, WINDOW // 2), "reflect")[:, 0]
        energies = magnitudes(padded, WINDOW, HOP, WINDOW).square() @ self.logmel_extractor.melW
        return 10 * energies.clamp(min=1e-10).log10()

    def forward(self, audio: Tensor) -> Tensor:
        """Map (N, samples) to the last block, averaged over mels: (N, 2048, steps), at least one step."""
        least = (FRAMES - 1) * HOP
        audio = F.pad(audio, (0, max(0, least - audio.shape[1])))
        x = self.bn0(self.log_mels(audio).transpose(1, 2)[..., None])  # (N, 64, T, 1)
        x = x.permute(0, 3, 2, 1)  # (N, 1, T, 64)
        for number in range(1, 6):
            x = F.avg_pool2d(getattr(self, f"conv_block{number}")(x), 2)
        return self.conv_block6(x).mean(dim=3)


def load_model(path: str = "") -> Cnn14:
    """Load the published weights; `path` as in `weights.find`, what is raised as in `weights.load`."""
    return weights.load(Cnn14, ASSET, path, UNUSED)


def get_timestamp_embeddings(audio: Tensor, model: Cnn14, hop: float = STEP) -> tuple[Tensor, Tensor]:
    """Embed the steps of sounds.

    Args:
        audio: (n_sounds, n_samples) mono in [-1, 1] at 32 kHz.
        model: From `load_model`.
        hop: ms between embeddings, a multiple of 320.

    Returns:
        (n_sounds, n_timestamps, 2048) float32, and (n_sounds, n_timestamps), the middle of each step in ms.

    Raises:
        BadRequest: `audio` is not of that shape, or `hop` no multiple of 320.
    """
    stride, rest = divmod(hop, STEP)
    if not (stride >= 1 and rest == 0):
        raise BadRequest(f"cnn14's hop must be a multiple of 320 ms, a step of its network; found {hop}")
    steps = model(checked(audio))
    stride = int(stride)
    pooled = F.max_pool1d(steps, 3, stride, 1) + F.avg_pool1d(steps, 3, stride, 1, count_include_pad=False)
    values = model.fc1(pooled.transpose(1, 2)).relu()
    middles = (torch.arange(values.shape[1], device=audio.device) * stride * FRAMES + (FRAMES - 1) / 2) * HOP
    return values, milliseconds(middles, model.sample_rate, len(audio))


def get_scene_embeddings(audio: Tensor, model: Cnn14) -> Tensor:
    """Embed sounds as (n_sounds, 2048) float32; arguments as in `get_timestamp_embeddings`."""
    steps = model(checked(audio))
    return model.fc1(steps.amax(dim=2) + steps.mean(dim=2)).relu()
