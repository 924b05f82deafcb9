"""AudioCLIP's audio head and text head: a sound, and a text, each as one vector of the same space.

The audio head is ESResNeXt: a power spectrogram in decibels, its three bands as the three channels of an image, and a
ResNeXt-50 (32 x 4d) beside whose every stage a short path of its own looks at what enters the stage and says, between 0
and 1, what of its output counts. The text head is CLIP's Transformer. All names and shapes of tensors are those of the
published files (`audioclip.py`); with them the figures of Chen et al. 2022, section 2.1, give way:

- a stage has 3, 4, 6 and 3 bottlenecks (the paper: three each);
- the attention path's convolution by neighbourhood is by channel, and of 3x1 and 1x5 in turn (the paper: 3x3), and a
  fifth path stands beside the average pooling;
- what stands before the sigmoid of each path is a 1x1 convolution and a batch norm, as in the paper.

Front end: 44.1 kHz; frames of 1654 samples (37.5 ms) under a periodic Blackman-Harris window every 561 (12.7 ms), the
sound in the middle of as many as cover it, zeros at both ends; 2048 points, orthonormal; the power |X|^2 of the lower
1023 of 1025 bins, in decibels. As in AudioCLIP, a power of exactly 0 counts as 1e-18 (-180 dB), and any other power
stays as it is, however small. Samples are taken as AudioCLIP takes 16-bit ones: -32768 to 32767 becomes -1 to 1, so
digital silence is 1/65535 and its bins lie between -74 and -261 dB. AudioCLIP multiplies a frame with kernels of
frequency B-spline wavelets whose order m, bandwidth fb and centre fc are learnt for each bin; at their start, m = 0, fb
= 1, fc = k, they are the kernels of this transform, but for the 2047 steps that they divide the circle into. The
paper's log-power spectrogram is that start: of the learnt m, fb and fc nothing is kept.

Sources: Guzhov et al. 2021 (ESResNet; ESResNe(X)t-fbsp; AudioCLIP), and AndreyGuzhov/AudioCLIP:
`model/audioclip.py` (STFT, sizes), `model/esresnet/base.py`, `fbsp.py` and `attention.py` (layers, bands, decibels),
`utils/transforms.py` (frames), `utils/datasets/esc50.py` (16 bits); Radford et al. 2021 and openai/CLIP `model.py`.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from systems.parts.losses import gathered

SAMPLE_RATE = 44100
WINDOW, HOP, FFT = 1654, 561, 2048
BANDS = 3
BAND = (FFT // 2 + 1) // BANDS  # bins of each
FLOOR = 1e-18  # stands for a power of exactly 0: -180 dB
BLACKMAN_HARRIS = (0.35875, 0.48829, 0.14128, 0.01168)

SIZE = 1024  # L
BLOCKS = (3, 4, 6, 3)
CHANNELS = 64
GROUPS = 32
EXPANSION = 4
CONTEXT = 77  # tokens of a text, at most
WORDS = 49408
WIDTH, LAYERS = 512, 12
HEAD = 64  # values of a head of the text's attention


# The audio head ------------------------------------------------------------------------------------------------------


def frames(samples: int) -> int:
    """Return the number of frames of a sound with this many samples."""
    return 1 + max(0, math.ceil((samples - WINDOW) / HOP))


def spectrogram(audio: Tensor) -> Tensor:
    """Return the power of sounds in decibels.

    It is computed in float64. In float32, rounding errors of a loud bin would hide what is in a faint one.

    Args:
        audio: (N, samples) mono sounds in [-1, 1] at 44.1 kHz.

    Returns:
        (N, 3, 341, frames) float32, three bands of 341 bins.
    """
    count = frames(audio.shape[1])
    missing = (count - 1) * HOP + WINDOW - audio.shape[1]
    window = torch.signal.windows.general_cosine(
        WINDOW, a=BLACKMAN_HARRIS, sym=False, dtype=torch.float64, device=audio.device
    )
    images = []
    for sound in audio:  # one at a time: the spectra of a batch would be hundreds of megabytes
        scaled = F.pad(sound.double() * (65536 / 65535) + 1 / 65535, (missing // 2, missing - missing // 2))
        windowed = scaled.unfold(0, WINDOW, HOP) * window  # (frames, 1654)
        spectrum = torch.fft.rfft(windowed, FFT, norm="ortho")
        power = spectrum.real.square() + spectrum.imag.square()  # (frames, 1025)
        decibels = 10 * torch.where(power == 0, FLOOR, power).log10()
        images.append(decibels.float().T[: BANDS * BAND].unflatten(0, (BANDS, BAND)))
    return torch.stack(images)


class Norm(nn.BatchNorm2d):
    """Batch norm over the clips of all processes, on any device, and over a single value.

    torch's own of that kind runs on GPUs only; and of one clip the last path has one value a channel, which it refuses.
    """

    counts = True  # whether what is seen enters the running statistics: not when it is computed again

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, channels, F, T)."""
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        values = x.numel() // x.shape[1]
        if not self.training or (values > 1 and not together):
            if self.training and not Norm.counts:
                copies = self.running_mean.clone(), self.running_var.clone()
                return F.batch_norm(x, *copies, self.weight, self.bias, True, eps=self.eps)
            return super().forward(x)
        wide = x.float()
        mean = wide.mean((0, 2, 3))
        spread = (wide - mean[:, None, None]).square().sum((0, 2, 3))
        own = torch.stack([torch.full_like(mean, values), mean, spread])
        counts, means, spreads = gathered(own[None]).unbind(1)  # (processes, channels) each
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (spreads + counts * (means - mean).square()).sum(0) / count
        if Norm.counts:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (wide * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(x.dtype)


@contextlib.contextmanager
def _again() -> Iterator[None]:
    Norm.counts = False
    try:
        yield
    finally:
        Norm.counts = True


class Bottleneck(nn.Module):
    """1x1, 3x3 in 32 groups and 1x1 convolution, added to what came in (He et al. 2016; Xie et al. 2017)."""

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        width, outputs = 2 * planes, EXPANSION * planes
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), Norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=GROUPS, bias=False)
        self.bn2 = Norm(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), Norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), Norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, F, T) to (N, 4 planes, F / stride, T / stride), rounded up."""
        # In place: of every three tensors that training keeps, one less.
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y, inplace=True)


class Attention(nn.Module):
    """What counts of a stage's output, seen from what enters the stage."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int]):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(inputs, inputs, kernel, padding=padding, groups=inputs)
        self.conv_point = nn.Conv2d(inputs, outputs, 1)
        self.bn = Norm(outputs)

    def forward(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Map (N, inputs, F, T) to (N, outputs, *shape) in (0, 1)."""
        return self.bn(self.conv_point(self.conv_depth(F.adaptive_max_pool2d(x, shape)))).sigmoid()


class AudioHead(nn.Module):
    """ESResNeXt behind its front end.

    Args:
        size: Of the embedding, L.
        blocks: Bottlenecks of each stage.
        channels: Of the first convolution, a multiple of 16; each stage doubles the bottlenecks'.

    Attributes:
        recompute: Whether what a bottleneck holds inside is computed again for the gradient instead of kept.
    """

    def __init__(self, size: int = SIZE, blocks: Sequence[int] = BLOCKS, channels: int = CHANNELS):
        super().__init__()
        self.recompute = False
        self.conv1, self.bn1 = nn.Conv2d(BANDS, channels, 7, 2, padding=3, bias=False), Norm(channels)
        inputs = channels
        for number, count in enumerate(blocks, 1):
            planes = channels * 2 ** (number - 1)
            outputs = EXPANSION * planes
            first = Bottleneck(inputs, planes, 1 if number == 1 else 2)
            rest = (Bottleneck(outputs, planes, 1) for _ in range(count - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            self.add_module(f"att{number}", Attention(inputs, outputs, (3, 1) if number % 2 else (1, 5)))
            inputs = outputs
        self.att5 = Attention(inputs, inputs, (3, 5))
        self.fc = nn.Linear(inputs, size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, 341, frames) decibels to (N, size); a frame or more."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        for number in range(1, 5):
            y = x
            for block in getattr(self, f"layer{number}"):
                y = self._through(block, y)
            x = y * getattr(self, f"att{number}")(x, y.shape[2:])
        x = x.mean((2, 3), keepdim=True) * self.att5(x, (1, 1))
        return self.fc(x.flatten(1))

    def _through(self, block: Bottleneck, x: Tensor) -> Tensor:
        if not (self.recompute and self.training):
            return block(x)
        return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _again()))


# The text head, and both ---------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """A layer of CLIP's Transformer: normalised before each part, and a sigmoid for GELU's curve."""

    def __init__(self, width: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        """Map (N, T, width) to the same shape; `later` (T, T) bool says which tokens a token does not see."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=later, is_causal=True)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class AudioClip(nn.Module):
    """AudioCLIP without its image head.

    Args:
        words: Tokens that the text head knows; 0: there is no text head.
        size: Of the embeddings, L.
        blocks: Of the audio head.
        channels: Of the audio head.
        width: Of the text head, a multiple of 64.
        layers: Of the text head.
        temperature: That training begins with.
    """

    def __init__(
        self,
        words: int = WORDS,
        *,
        size: int = SIZE,
        blocks: Sequence[int] = BLOCKS,
        channels: int = CHANNELS,
        width: int = WIDTH,
        layers: int = LAYERS,
        temperature: float = 0.07,
    ):
        super().__init__()
        self.audio = AudioHead(size, blocks, channels)
        if not words:
            return
        self.logit_scale_at = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, width) * 0.01)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Layer(width) for _ in range(layers))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, size) * width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for layer in self.transformer.resblocks:  # as in openai/CLIP
            nn.init.normal_(layer.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(layer.mlp["c_fc"].weight, std=(2 * width) ** -0.5)
            for last in (layer.attn.out_proj, layer.mlp["c_proj"]):
                nn.init.normal_(last.weight, std=(2 * layers * width) ** -0.5)

    @property
    def temperature(self) -> Tensor:
        """What cosines are divided by, from .01 to 1, as AudioCLIP has it."""
        return 1 / self.logit_scale_at.exp().clamp(1, 100)

    def hear(self, audio: Tensor) -> Tensor:
        """Embed (N, samples) mono sounds in [-1, 1] at 44.1 kHz as (N, size), of any length."""
        return self.audio(spectrogram(audio))

    def read(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Embed (N, T) token numbers, of which (N,) `lengths` there are, as (N, size), by the last, the text's end.

        T is at most 77; no token sees those behind it, so that it is of no account what fills up.
        """
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        for layer in self.transformer.resblocks:
            x = layer(x, later)
        ends = x[torch.arange(len(ids), device=ids.device), lengths - 1]
        return self.ln_final(ends) @ self.text_projection
