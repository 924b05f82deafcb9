"""PaSST as a HEAR module: 768 values for each segment of 10 s. PaSST is a Transformer over patches of a spectrogram.

A clip is cut into segments of 10 s, and the last one is padded with zeros. The network adds two tokens to the patches
of a segment: the class token, and the distillation token. The embedding of a segment is the mean of the two outputs at
these tokens. The embedding of a clip is the mean over its segments. With the option `logits`, the logits of AudioSet's
527 classes come before the 768 values. This is the embedding that the authors submitted to HEAR.

The front end works at 32 kHz. First, .97 times the previous sample is subtracted from each sample. A frame has 1024
samples, with a symmetric Hann window of 800 samples in its middle. Frames are 320 samples apart. They are centred, and
both ends of the audio are padded by reflection. The power spectrum passes through 128 mel filters on HTK's scale from 0
to 15,000 Hz. The filters are triangles of height 1, with sides that are straight lines over mel. The energies become
(ln(x + 0.00001) + 4.5) / 5.

In training mode, two random changes are made, as in the authors' code. The lower edge of the filters is drawn from 0 to
9 Hz, and the upper edge from 14,001 to 16,000 Hz. Structured patchout removes `patchout_time` columns and
`patchout_frequency` rows from the grid of patches. Both draws are the same for all segments of a batch.

The option `arch` chooses one of three published models by the authors' name. Each patch has 16 x 16 values:

    passt_s_swa_p16_128_ap476   a patch every 10 frames and bands   the default, as in HEAR
    passt_s_kd_p16_128_ap486    a patch every 10 frames and bands   trained with knowledge distillation
    passt_s_p16_s16_128_ap468   a patch every 16 frames and bands   a third of the patches: faster; DCASE 2025 baseline

Sources: Koutini et al. 2022 (PaSST); kkoutini/passt_hear21, `hear21passt/models/passt.py` (names and shapes of the
weights, layers, patchout, addresses of the files), `models/preprocess.py` and `base.py` (front end and its settings),
`wrapper.py` (segments of 10 s, order of logits and features); CPJKU/dcase2025_task6_baseline, `d25_t6/passt.py`
(segments without overlap).
"""

from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.data.audio import htk_mel, triangles
from evaluation.downloads import Asset
from evaluation.findings import BadRequest
from systems.parts.encoders import weights
from systems.parts.encoders.windows import CHUNK, checked, milliseconds, segments

RELEASE = "https://github.com/kkoutini/PaSST/releases/download"
SIZE, HEADS, LAYERS, HIDDEN, PATCH, CLASSES = 768, 12, 12, 3072, 16, 527
SAMPLE_RATE, WINDOW, HOP, FFT, MELS, HIGH = 32000, 800, 320, 1024, 128, 15000
SEGMENT = 10 * SAMPLE_RATE  # samples of a segment
FRAMES = SEGMENT // HOP  # frames of a segment
EPSILON = 1e-6  # of the layer norms
LOW_DRAWS, HIGH_DRAWS = 10, 2000  # number of values, 1 Hz apart, that the lower and the upper edge are drawn from

DEFAULT = "passt_s_swa_p16_128_ap476"
STRIDES = {DEFAULT: 10, "passt_s_kd_p16_128_ap486": 10, "passt_s_p16_s16_128_ap468": 16}
PUBLISHED = {
    DEFAULT: Asset(
        "PaSST",
        f"{RELEASE}/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt",
        345_000_000,
        "Apache 2.0",
        "passt",
    ),
    "passt_s_kd_p16_128_ap486": Asset(
        "PaSST with knowledge distillation",
        f"{RELEASE}/v.0.0.9/passt-s-kd-ap.486.pt",
        345_000_000,
        "Apache 2.0",
        "passt_s_kd_p16_128_ap486",
    ),
    "passt_s_p16_s16_128_ap468": Asset(
        "PaSST without overlap of patches",
        f"{RELEASE}/v0.0.2-audioset/passt-s-f128-p16-s16-ap.468.pt",
        345_000_000,
        "Apache 2.0",
        "passt_s_p16_s16_128_ap468",
    ),
}
ASSET = PUBLISHED[DEFAULT]
ASSETS = (ASSET,)
# Tensors of the published files that the network does not use. `head` is used only with the option `logits`.
UNUSED = {
    "head.0.weight": (SIZE,),
    "head.0.bias": (SIZE,),
    "head.1.weight": (CLASSES, SIZE),
    "head.1.bias": (CLASSES,),
    "head_dist.weight": (CLASSES, SIZE),
    "head_dist.bias": (CLASSES,),
}


class FrontEnd(nn.Module):
    """The front end, which has no weights. In training mode, it draws the edges of the mel filters in each call."""

    def forward(self, audio: Tensor) -> Tensor:
        """Map (N, samples), with more than 513 samples, to (N, 128, 1 + (samples - 1) // 320)."""
        emphasised = audio[:, 1:] - 0.97 * audio[:, :-1]
        window = torch.hann_window(WINDOW, periodic=False, device=audio.device)
        spectra = torch.stft(emphasised, FFT, HOP, WINDOW, window, center=True, return_complex=True)
        power = spectra.real.square() + spectra.imag.square()  # (N, 513, frames)
        low, high = 0, HIGH
        if self.training:
            low += int(torch.randint(LOW_DRAWS, ()))
            high += HIGH_DRAWS // 2 - int(torch.randint(HIGH_DRAWS, ()))
        with torch.autocast(audio.device.type, enabled=False):  # in half precision, small energies would become 0
            energies = torch.from_numpy(filters(low, high)).to(audio.device).T @ power
        return ((energies + 0.00001).log() + 4.5) / 5


class Attention(nn.Module):
    """Self-attention with 12 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(SIZE, 3 * SIZE)
        self.proj = nn.Linear(SIZE, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, 768) to (N, T, 768)."""
        parts = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # (3, N, heads, T, size of a head)
        values = F.scaled_dot_product_attention(*parts)
        return self.proj(values.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A Transformer layer with norms before attention and MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(SIZE, eps=EPSILON)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(SIZE, eps=EPSILON)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(SIZE, HIDDEN)
        self.mlp.fc2 = nn.Linear(HIDDEN, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, 768) to (N, T, 768)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class PaSST(nn.Module):
    """The network. Its tensors have the published names.

    Args:
        arch: The authors' name of the model, a key of `STRIDES`.
        patchout_time: Number of columns of patches to remove in training mode.
        patchout_frequency: Number of rows of patches to remove in training mode.
        logits: Put the logits of the 527 classes before the 768 values.
    """

    sample_rate = SAMPLE_RATE
    max_model_window = SEGMENT  # maximum number of samples that the network takes (`systems.parts.encoders`)

    def __init__(
        self, arch: str = DEFAULT, patchout_time: int = 0, patchout_frequency: int = 0, logits: bool = False
    ) -> None:
        super().__init__()
        stride = STRIDES[arch]
        rows, columns = grid(stride)
        self.arch, self.patchout_time, self.patchout_frequency = arch, patchout_time, patchout_frequency
        self.timestamp_embedding_size = self.scene_embedding_size = SIZE + CLASSES * logits
        self.mel = FrontEnd()
        self.cls_token = nn.Parameter(torch.randn(1, 1, SIZE) * 0.02)
        self.dist_token = nn.Parameter(torch.randn(1, 1, SIZE) * 0.02)
        self.new_pos_embed = nn.Parameter(torch.randn(1, 2, SIZE) * 0.02)  # of the two tokens
        self.freq_new_pos_embed = nn.Parameter(torch.randn(1, SIZE, rows, 1) * 0.02)
        self.time_new_pos_embed = nn.Parameter(torch.randn(1, SIZE, 1, columns) * 0.02)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(1, SIZE, PATCH, stride)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(SIZE, eps=EPSILON)
        self.head = None
        if logits:
            self.head = nn.Sequential(nn.LayerNorm(SIZE), nn.Linear(SIZE, CLASSES))

    @property
    def embedding_settings(self) -> dict[str, str]:
        """The settings that the embeddings depend on, apart from the weights and the options given to `load_model`."""
        return {"arch": self.arch}

    def forward(self, audio: Tensor) -> Tensor:
        """Map (N, samples), with 514 to 320,000 samples, to (N, `scene_embedding_size`)."""
        spectrogram = self.mel(audio)  # (N, 128, frames)
        patches = self.patch_embed.proj(spectrogram[:, None])  # (N, 768, rows, columns)
        patches = patches + self.freq_new_pos_embed + self.time_new_pos_embed[..., : patches.shape[3]]
        if self.training:
            patches = patchout(patches, 3, self.patchout_time)
            patches = patchout(patches, 2, self.patchout_frequency)
        tokens = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed  # (1, 2, 768)
        x = torch.cat([tokens.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        features = self.norm(self.blocks(x))[:, :2].mean(dim=1)  # (N, 768)
        if self.head is None:
            return features
        return torch.cat([self.head(features), features], dim=1)


def grid(stride: int) -> tuple[int, int]:
    """Return the number of rows and columns of patches in a segment.

    >>> grid(10), grid(16)
    ((12, 99), (8, 62))
    """
    return (MELS - PATCH) // stride + 1, (FRAMES - PATCH) // stride + 1


def patchout(patches: Tensor, axis: int, number: int) -> Tensor:
    """Remove random rows or columns from a grid of patches, the same ones from all segments. The order is kept."""
    if not number:
        return patches
    length = patches.shape[axis]
    kept = torch.randperm(length)[: length - number].sort().values
    return patches.index_select(axis, kept.to(patches.device))


@lru_cache(maxsize=4)
def filters(low: float, high: float) -> np.ndarray:
    """Return the mel filters from `low` to `high` Hz, (513, 128) float32."""
    edges = np.linspace(htk_mel(np.array(low)), htk_mel(np.array(high)), MELS + 2)
    values = triangles(htk_mel(np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT), edges)
    return values.astype(np.float32)


def load_model(
    path: str = "",
    arch: str = DEFAULT,
    patchout_time: int = 0,
    patchout_frequency: int = 0,
    logits: bool = False,
) -> PaSST:
    """Load the published weights.

    Args:
        path: The file, or the folder with it, as in `weights.find`.
        arch: The authors' name of the model.
        patchout_time: Number of columns of patches to remove in training mode. There are 99, or 62 without overlap.
        patchout_frequency: Number of rows of patches to remove in training mode. There are 12, or 8 without overlap.
        logits: Put the logits of the 527 classes before the 768 values.

    Raises:
        BadRequest: An option has a wrong value, there is no such file, or torch did not save it.
        Faulty: The file does not hold the network's weights. The findings name every difference.
    """
    asset = assets(arch=arch)[0]
    rows, columns = grid(STRIDES[arch])
    _check_patchout("patchout_time", patchout_time, columns)
    _check_patchout("patchout_frequency", patchout_frequency, rows)
    if not isinstance(logits, bool):
        raise BadRequest(f"passt: logits must be true or false; found {logits!r}: give one of them")
    return weights.load(partial(PaSST, arch, patchout_time, patchout_frequency, logits), asset, path, UNUSED)


def _check_patchout(option: str, number: object, available: int) -> None:
    """Make sure that patchout leaves at least one of the available rows or columns."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < available:
        raise BadRequest(
            f"passt: {option} must be a whole number from 0 to {available - 1}; found {number!r}: give such a number"
        )


def assets(arch: object = DEFAULT, **others: object) -> tuple[Asset, ...]:
    """Return the published files that `load_model` needs with these options.

    Raises:
        BadRequest: There is no such model.
    """
    if arch not in PUBLISHED:
        raise BadRequest(f"passt: arch must be one of {', '.join(PUBLISHED)}; found {arch!r}: give one of them")
    return (PUBLISHED[str(arch)],)


def get_timestamp_embeddings(audio: Tensor, model: PaSST) -> tuple[Tensor, Tensor]:
    """Embed the segments of clips.

    Args:
        audio: (n_sounds, n_samples) mono in [-1, 1] at 32 kHz.
        model: The network, from `load_model`.

    Returns:
        (n_sounds, n_timestamps, `model.timestamp_embedding_size`) float32, and (n_sounds, n_timestamps), the middle of
        each segment in ms. The middle of the last segment is that of its part inside the clip.

    Raises:
        BadRequest: `audio` does not have this shape.
    """
    audio = checked(audio)
    embeddings = []
    for sound in audio:
        parts = segments(sound, SEGMENT).split(CHUNK)
        embeddings.append(torch.cat([model(part) for part in parts]))
    values = torch.stack(embeddings)
    first = torch.arange(values.shape[1], device=audio.device) * SEGMENT
    middles = (first + (first + SEGMENT).clamp(max=audio.shape[1])) / 2
    return values, milliseconds(middles, SAMPLE_RATE, len(audio))


def get_scene_embeddings(audio: Tensor, model: PaSST) -> Tensor:
    """Embed clips as (n_sounds, `model.scene_embedding_size`) float32, the mean over segments."""
    return get_timestamp_embeddings(audio, model)[0].mean(dim=1)
