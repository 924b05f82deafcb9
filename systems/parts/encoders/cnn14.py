"""PANNs' CNN14 as a HEAR module: 2048 values for a whole clip, or for every 320 ms of it.

An embedding is the output of the penultimate layer after its activation, as the authors suggest. The embedding of a
clip is computed as in the authors' code: the last block's maximum over time plus its mean over time, then the
penultimate layer, then ReLU. The embedding of a step differs only in the range of time: the step and the steps before
and after it (0.96 s). The authors' Cnn14_DecisionLevelMax also pools over these three steps, except that its mean
counts zeros at both ends of the clip. For a clip of one step, the two embeddings are equal.

The front end works at 32 kHz. A Hann window of 1024 samples moves by 320. Frames are centred, and both ends are padded
by reflection. The power spectrum passes through 64 mel filters of unit area on Slaney's scale, from 50 Hz to 14 kHz,
and becomes 10 log10(max(x, 1e-10)). The network halves the number of frames five times, so a step has 32 frames. An
incomplete last step is left out. A clip of less than one step is padded with zeros.

Sources: Kong et al. 2020 (PANNs); qiuqiangkong/audioset_tagging_cnn, `pytorch/models.py` (Cnn14 and
Cnn14_DecisionLevelMax: layers, names, window, padding, ref, amin) and `README.md` (the command for training, whose
options give the sample rate, window, hop and mels); torchlibrosa's `stft.py` (logarithm, shapes of the front end's
tensors).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.data.audio import mel_filters
from evaluation.downloads import Asset
from evaluation.findings import BadRequest
from systems.parts.encoders import weights
from systems.parts.encoders.windows import checked, magnitudes, milliseconds

ASSET = Asset(
    "PANNs' CNN14",
    "https://zenodo.org/record/3987831/files/Cnn14_mAP%3D0.431.pth",
    327_428_481,
    "CC BY 4.0",
    "cnn14",
    "md5:541141fa2ee191a88f24a3219fff024e",  # Zenodo's
)
ASSETS = (ASSET,)
CHANNELS = (1, 64, 128, 256, 512, 1024, 2048)
WINDOW, HOP, MELS, LOW, HIGH = 1024, 320, 64, 50, 14000
FRAMES = 32  # frames of a step
STEP = 320.0  # ms of a step
SIZE = 2048

# Further tensors that the published file may contain: the kernels of its Fourier transform, which this module replaces
# by a faster one, and the classifier.
UNUSED = {
    "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
    "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
    "fc_audioset.weight": (527, 2048),
    "fc_audioset.bias": (527,),
}


class Block(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, T, F) to (N, outputs, T, F)."""
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


class Cnn14(nn.Module):
    """The network without its classifier. Its tensors have the published names."""

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
        """Map (N, samples), with at least 513 samples, to (N, 1 + samples // 320, 64) decibels."""
        padded = F.pad(audio[:, None], (WINDOW // 2, WINDOW // 2), "reflect")[:, 0]
        energies = magnitudes(padded, WINDOW, HOP, WINDOW).square() @ self.logmel_extractor.melW
        return 10 * energies.clamp(min=1e-10).log10()

    def forward(self, audio: Tensor) -> Tensor:
        """Map (N, samples) to the output of the last block, averaged over mels: (N, 2048, steps), at least one step."""
        samples_of_a_step = (FRAMES - 1) * HOP
        audio = F.pad(audio, (0, max(0, samples_of_a_step - audio.shape[1])))
        x = self.bn0(self.log_mels(audio).transpose(1, 2)[..., None])  # (N, 64, T, 1)
        x = x.permute(0, 3, 2, 1)  # (N, 1, T, 64)
        for number in range(1, 6):
            x = F.avg_pool2d(getattr(self, f"conv_block{number}")(x), 2)
        return self.conv_block6(x).mean(dim=3)


def load_model(path: str = "") -> Cnn14:
    """Load the published weights from `path`, as in `weights.find`. The errors are those of `weights.load`."""
    return weights.load(Cnn14, ASSET, path, UNUSED)


def get_timestamp_embeddings(audio: Tensor, model: Cnn14, hop: float = STEP) -> tuple[Tensor, Tensor]:
    """Embed the steps of clips.

    Args:
        audio: (n_sounds, n_samples) mono in [-1, 1] at 32 kHz.
        model: The network, from `load_model`.
        hop: ms between embeddings, a multiple of 320.

    Returns:
        (n_sounds, n_timestamps, 2048) float32, and (n_sounds, n_timestamps), the middle of each step in ms.

    Raises:
        BadRequest: `audio` does not have this shape, or `hop` is not a multiple of 320.
    """
    stride, remainder = divmod(hop, STEP)
    if not (stride >= 1 and remainder == 0):
        raise BadRequest(
            f"cnn14's hop must be a multiple of 320 ms, the step of its network; found {hop}: give a multiple"
        )
    steps = model(checked(audio))
    stride = int(stride)
    pooled = F.max_pool1d(steps, 3, stride, 1) + F.avg_pool1d(steps, 3, stride, 1, count_include_pad=False)
    values = model.fc1(pooled.transpose(1, 2)).relu()
    middles = (torch.arange(values.shape[1], device=audio.device) * stride * FRAMES + (FRAMES - 1) / 2) * HOP
    return values, milliseconds(middles, model.sample_rate, len(audio))


def get_scene_embeddings(audio: Tensor, model: Cnn14) -> Tensor:
    """Embed clips as (n_sounds, 2048) float32; the arguments are those of `get_timestamp_embeddings`."""
    steps = model(checked(audio))
    return model.fc1(steps.amax(dim=2) + steps.mean(dim=2)).relu()
