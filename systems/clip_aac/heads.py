"""AudioCLIP's audio head and text head, which map audio and text to vectors of the same space.

The audio head is ESResNeXt. Its input is a power spectrogram in decibels. The spectrogram is divided into three bands
of frequencies, which are the three channels of an image. A ResNeXt-50 (32 x 4d) encodes this image in four stages. In
parallel to each stage, a short attention path reads the stage's input. It computes a weight between 0 and 1 for each
value of the stage's output. The text head is CLIP's Transformer. All names and shapes of tensors are those of the
published files (`audioclip.py`). The published files differ in two points from Chen et al. 2022, section 2.1, and this
module follows the files:

- The stages have 3, 4, 6 and 3 bottlenecks. (In the paper, each stage has three.)
- The first convolution of an attention path is depthwise, with kernels of 3x1 and 1x5 in turn. (In the paper, it is a
  3x3 convolution.) There is a fifth path, in parallel to the average pooling.

Before the sigmoid, each path has a 1x1 convolution and a batch norm, as in the paper.

The front end reads mono audio at 44.1 kHz. Frames have 1654 samples (37.5 ms) and start every 561 samples (12.7 ms).
There are as many frames as are needed to cover the clip. Zeros are added at both ends, so that the clip is in the
middle. The window is a periodic Blackman-Harris window, and the transform has 2048 points. The result is the power
|X|^2 of the lower 1023 of 1025 bins, in decibels. As in AudioCLIP, a power of exactly 0 is replaced by 1e-18 (-180 dB),
and any other power is kept, however small. Samples are scaled as AudioCLIP scales 16-bit samples: -32768 to 32767
becomes -1 to 1. Digital silence therefore has the value 1/65535, and its bins are between -74 and -261 dB.

The paper uses a log-power spectrogram from a short-time Fourier transform (section 2.1). This is `front_end: stft`, the
default. AudioCLIP itself multiplies each frame with one wavelet for each bin (`LearntTransform`, `front_end: fbsp`).
The wavelet's order m, bandwidth fb and centre fc are learnt. The two transforms differ even with AudioCLIP's initial
values, which are m = 0, fb = 1 and fc = k for bin k: the wavelet goes through k periods in 2047 samples, and bin k of
the Fourier transform in 2048. The frequency of bin k is therefore k/2047 of a bin higher; for bin 1022 this is half a
bin.

The table gives the difference between the two transforms in decibels. It was measured on recordings (17 clips of ESC-10
without digital silence, 1 s each), for all bins, and for the bins within 60 dB of the loudest bin of their frame. We
did not compare the learnt values, which are in the published files. The table shows the initial values and random
changes of them instead.

| learnt transform            | all bins: median, mean, max | louder bins: median, mean, max |
|-----------------------------|-----------------------------|--------------------------------|
| initial values              | 0.60, 1.6, 72               | 0.32, 0.63, 36                 |
| fc changed by up to 0.5     | 0.74, 1.7, 74               | 0.54, 1.1, 55                  |
| fb changed by up to 10 %    | 0.65, 1.6, 73               | 0.40, 0.69, 37                 |
| m changed by up to 0.01     | 1.3, 15, 121                | 0.50, 0.97, 49                 |
| m changed by up to 0.1      | 3.8, 20, 137                | 1.5, 2.5, 46                   |

With the initial values, the median difference is 0.51 dB for white noise and 0.72 dB for tones. In bins next to a tone,
the difference is up to 64 dB. A small m changes faint bins most: a wavelet with a small m is not smooth, so a loud bin
leaks into all others.

With equal m, fb and fc, and all arithmetic in float64, `LearntTransform` and the authors' classes agree to 0.0004 dB.
The authors' classes compute in float32. This changes bins within 60 dB of the loudest bin of their frame by 0.0002 dB
(median). For bins that are 100 to 120 dB below the loudest bin, the change is 1 dB, and 10 dB or more for fainter bins.

Sources: Guzhov et al. 2021 (ESResNet; ESResNe(X)t-fbsp; AudioCLIP), and AndreyGuzhov/AudioCLIP:
`model/audioclip.py` (STFT, sizes), `model/esresnet/base.py`, `fbsp.py` and `attention.py` (layers, bands, decibels),
`utils/transforms.py` (frames), `utils/datasets/esc50.py` (16 bits); Radford et al. 2021 and openai/CLIP `model.py`.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from systems.parts.norms import Norm

SAMPLE_RATE = 44100
WINDOW, HOP, FFT = 1654, 561, 2048
BANDS = 3
BINS = FFT // 2 + 1
BAND = BINS // BANDS  # number of bins in a band
FLOOR = 1e-18  # replaces a power of exactly 0: -180 dB
EPSILON = 1e-8  # added to the time t and to m by the learnt transform, as in AudioCLIP
FrontEnd = Literal["stft", "fbsp"]  # the Fourier transform, or AudioCLIP's learnt transform
BLACKMAN_HARRIS = (0.35875, 0.48829, 0.14128, 0.01168)

SIZE = 1024  # L
BLOCKS = (3, 4, 6, 3)
CHANNELS = 64
GROUPS = 32
EXPANSION = 4
CONTEXT = 77  # maximum number of tokens in a text
WORDS = 49408  # number of tokens of CLIP's tokeniser
WIDTH, LAYERS = 512, 12
HEAD = 64  # number of values of an attention head in the text head


# The audio head ------------------------------------------------------------------------------------------------------


def frames(samples: int) -> int:
    """Return the number of frames of a clip with this many samples."""
    return 1 + max(0, math.ceil((samples - WINDOW) / HOP))


class LearntTransform(nn.Module):
    """Frequency B-spline wavelets, which AudioCLIP learns in place of a Fourier transform (Guzhov et al. 2021).

    For each bin, a frame is multiplied with the kernel sqrt(fb) sinc(fb t / m)^m exp(-i fc t) / sqrt(2048), where
    sinc(x) is sin(x) / x. The time t goes from -pi to pi in 2047 equal steps. A frame has 2048 samples: 197 zeros, the
    1654 windowed samples, and 197 zeros. A bias is not added.

    m, fb and fc are parameters. As in AudioCLIP, they are trained with the audio head; if the heads are frozen, they
    are frozen too. Two parts of AudioCLIP's training are left out. The first is a loss that keeps the norm of each
    kernel at 1: equation 7 of Chen et al. 2022 does not contain such a loss. The second is the division of each
    gradient by its largest value: Adam divides by the size of the gradient anyway.

    Attributes:
        m: (1025,) order of each bin's wavelet; initially 0, as in AudioCLIP.
        fb: (1025,) bandwidth, above 0; initially 1, as in AudioCLIP.
        fc: (1025,) centre frequency, in periods per 2047 samples; initially k, as in AudioCLIP.
    """

    def __init__(self):
        super().__init__()
        self.m = nn.Parameter(torch.zeros(BINS))
        self.fb = nn.Parameter(torch.ones(BINS))
        self.fc = nn.Parameter(torch.arange(BINS, dtype=torch.float32))

    def kernels(self) -> Tensor:
        """Return the kernels of the lower 1023 bins, over the samples of a frame that are not zero.

        Returns:
            (2, 1023, 1654) float64, the real and the imaginary parts.
        """
        m, fb, fc = (values[: BANDS * BAND, None].double() for values in (self.m, self.fb, self.fc))
        t = math.pi * torch.linspace(-1, 1, FFT, dtype=torch.float64, device=self.m.device) + EPSILON
        zeros = (FFT - WINDOW) // 2
        t = t[zeros : zeros + WINDOW]
        wavelet = torch.sinc(fb * t / (m + EPSILON) / math.pi)  # torch's sinc(x) is sin(pi x) / (pi x)
        size = fb.sqrt() * wavelet.abs() ** m / FFT**0.5
        # A negative number to the power of m has the angle pi m.
        angle = math.pi * m * (wavelet < 0) - fc * t
        return torch.stack([size * angle.cos(), size * angle.sin()])


def spectrogram(audio: Tensor, transform: LearntTransform | None = None) -> Tensor:
    """Return the power of audio in decibels.

    The power is computed in float64. In float32, the rounding errors of a loud bin would hide the power of a faint one.

    Args:
        audio: (N, samples) mono audio in [-1, 1] at 44.1 kHz.
        transform: The learnt transform (default: the Fourier transform).

    Returns:
        (N, 3, 341, frames) float32, three bands of 341 bins.
    """
    count = frames(audio.shape[1])
    missing = (count - 1) * HOP + WINDOW - audio.shape[1]
    window = torch.signal.windows.general_cosine(
        WINDOW, a=BLACKMAN_HARRIS, sym=False, dtype=torch.float64, device=audio.device
    )
    kernels = None
    if transform is not None:
        kernels = transform.kernels()
    images = []
    for sound in audio:  # one at a time, because the spectra of a batch would need hundreds of megabytes
        scaled = F.pad(sound.double() * (65536 / 65535) + 1 / 65535, (missing // 2, missing - missing // 2))
        windowed = scaled.unfold(0, WINDOW, HOP) * window  # (frames, 1654)
        if kernels is None:
            spectrum = torch.fft.rfft(windowed, FFT, norm="ortho")
            power = spectrum.real.square() + spectrum.imag.square()  # (frames, 1025)
        else:
            power = (windowed @ kernels.transpose(1, 2)).square().sum(0)  # (frames, 1023)
        decibels = 10 * torch.where(power == 0, FLOOR, power).log10()
        images.append(decibels.float().T[: BANDS * BAND].unflatten(0, (BANDS, BAND)))
    return torch.stack(images)


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Within a `with` statement, prevent the norms of a network block from updating their running statistics."""
    norms = [module for module in block.modules() if isinstance(module, Norm)]
    for norm in norms:
        norm.updates_statistics = False
    try:
        yield
    finally:
        for norm in norms:
            norm.updates_statistics = True


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 (in 32 groups) and 1x1, plus a shortcut (He et al. 2016; Xie et al. 2017)."""

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
        """Map (clips, inputs, bins, frames) to (clips, 4 * planes, bins / stride, frames / stride), rounded up."""
        # ReLU overwrites its input, so that training stores two tensors instead of three.
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            x = self.downsample(x)
        return F.relu(y + x, inplace=True)


class Attention(nn.Module):
    """An attention path: weights for a stage's output, computed from the stage's input."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int]):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(inputs, inputs, kernel, padding=padding, groups=inputs)
        self.conv_point = nn.Conv2d(inputs, outputs, 1)
        self.bn = Norm(outputs)

    def forward(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Map (clips, inputs, bins, frames) to weights between 0 and 1, of shape (clips, outputs, *shape)."""
        return self.bn(self.conv_point(self.conv_depth(F.adaptive_max_pool2d(x, shape)))).sigmoid()


class AudioHead(nn.Module):
    """ESResNeXt, which also contains the parameters of the front end if the front end is AudioCLIP's learnt transform.

    Args:
        size: Size of the embedding, L.
        blocks: Number of bottlenecks in each stage.
        channels: Number of channels of the first convolution, a multiple of 16. The number of channels doubles from
            stage to stage.
        front_end: `stft` for the Fourier transform, `fbsp` for AudioCLIP's learnt transform.

    Attributes:
        fbsp: The learnt transform, for `spectrogram`; None if the front end is the Fourier transform.
        recompute: True to compute the inner values of the bottlenecks again for the gradient instead of storing them.
    """

    def __init__(
        self,
        size: int = SIZE,
        blocks: Sequence[int] = BLOCKS,
        channels: int = CHANNELS,
        front_end: FrontEnd = "stft",
    ):
        super().__init__()
        self.recompute = False
        self.fbsp = None
        if front_end == "fbsp":
            self.fbsp = LearntTransform()
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
        """Map spectrograms of shape (N, 3, 341, frames), with at least one frame, to (N, size) vectors."""
        # On CPUs, a training step takes a quarter less time. In bfloat16, torch's gradients of short clips become NaN.
        if images.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            images = images.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        recompute = self.recompute and self.training
        for number in range(1, 5):
            y = x
            for block in getattr(self, f"layer{number}"):
                y = _recomputed(block, y) if recompute else block(y)
            x = y * getattr(self, f"att{number}")(x, y.shape[2:])
        x = x.mean((2, 3), keepdim=True) * self.att5(x, (1, 1))
        return self.fc(x.flatten(1))


def _recomputed(block: Bottleneck, x: Tensor) -> Tensor:
    """Apply a bottleneck. Do not store its inner values, but compute them again for the gradient."""

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        """Return the contexts of the first and the second computation."""
        return contextlib.nullcontext(), _statistics_kept(block)

    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


# The text head, and both ---------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """A layer of CLIP's Transformer: norms before each sublayer, and GELU approximated by a sigmoid."""

    def __init__(self, width: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        """Map (N, T, width) states of T tokens to the same shape.

        Args:
            x: The states.
            later: (T, T) bool, true in row i and column j if token i must not read token j.
        """
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=later, is_causal=True)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class AudioClip(nn.Module):
    """AudioCLIP without its image head.

    Args:
        words: Number of tokens of the text head's tokeniser; 0 for no text head.
        size: Size of the embeddings, L.
        blocks: Number of bottlenecks in each stage of the audio head.
        channels: Number of channels of the audio head's first convolution.
        width: Width of the text head, a multiple of 64.
        layers: Number of layers of the text head.
        temperature: The initial temperature.
        front_end: The audio head's front end.
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
        front_end: FrontEnd = "stft",
    ):
        super().__init__()
        self.audio = AudioHead(size, blocks, channels, front_end)
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
        """The number that cosines are divided by, from 0.01 to 1 as in AudioCLIP."""
        return 1 / self.logit_scale_at.exp().clamp(1, 100)

    def embed_audio(self, audio: Tensor) -> Tensor:
        """Return (N, size) vectors, not scaled to length 1, of (N, samples) mono audio in [-1, 1] at 44.1 kHz."""
        return self.audio(spectrogram(audio, self.audio.fbsp))

    def embed_text(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Embed texts. The embedding of a text is the output at its last token, which is the end token.

        A token does not read later tokens, so the padding after the end token does not affect the embedding.

        Args:
            ids: (N, T) token ids, where T is at most 77.
            lengths: (N,) number of tokens of each text.

        Returns:
            (N, size) vectors, not scaled to length 1.
        """
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        for layer in self.transformer.resblocks:
            x = layer(x, later)
        ends = x[torch.arange(len(ids), device=ids.device), lengths - 1]
        return self.ln_final(ends) @ self.text_projection
