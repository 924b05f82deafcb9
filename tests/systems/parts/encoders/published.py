"""Names and shapes of the published weights, and files that hold such tensors with random values.

Sources: the authors' module definitions, whose state dicts the files are: qiuqiangkong/audioset_tagging_cnn,
`pytorch/models.py` (Cnn14) with torchlibrosa's `stft.py`; harritaylor/torchvggish, `torchvggish/vggish.py`;
torchopenl3 1.0.1, `models.py` (PytorchOpenl3 of mel128 and 512); xavierfav/coala, `models_t1000.py` (AudioEncoder);
kkoutini/passt_hear21, `hear21passt/models/passt.py` (PaSST with a distillation token).
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import MinMaxScaler

Shapes = dict[str, tuple[int, ...]]


def layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    """A convolution or a linear layer."""
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def norm(name: str, channels: int) -> Shapes:
    """A batch norm."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def layer_norm(name: str, size: int) -> Shapes:
    """A layer norm."""
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def transformer_layer(number: int) -> Shapes:
    """A Transformer layer of PaSST."""
    name = f"blocks.{number}"
    return {
        **layer_norm(f"{name}.norm1", 768),
        **layer(f"{name}.attn.qkv", 2304, 768),
        **layer(f"{name}.attn.proj", 768, 768),
        **layer_norm(f"{name}.norm2", 768),
        **layer(f"{name}.mlp.fc1", 3072, 768),
        **layer(f"{name}.mlp.fc2", 768, 3072),
    }


def block(number: int, inputs: int, outputs: int) -> Shapes:
    """A block of CNN14."""
    name = f"conv_block{number}"
    return {
        **layer(f"{name}.conv1", outputs, inputs, 3, 3, bias=False),
        **layer(f"{name}.conv2", outputs, outputs, 3, 3, bias=False),
        **norm(f"{name}.bn1", outputs),
        **norm(f"{name}.bn2", outputs),
    }


CNN14: Shapes = {
    "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
    "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
    "logmel_extractor.melW": (513, 64),
    **norm("bn0", 64),
    **block(1, 1, 64),
    **block(2, 64, 128),
    **block(3, 128, 256),
    **block(4, 256, 512),
    **block(5, 512, 1024),
    **block(6, 1024, 2048),
    **layer("fc1", 2048, 2048),
    **layer("fc_audioset", 527, 2048),
}
VGGISH: Shapes = {
    **layer("features.0", 64, 1, 3, 3),
    **layer("features.3", 128, 64, 3, 3),
    **layer("features.6", 256, 128, 3, 3),
    **layer("features.8", 256, 256, 3, 3),
    **layer("features.11", 512, 256, 3, 3),
    **layer("features.13", 512, 512, 3, 3),
    **layer("embeddings.0", 4096, 12288),
    **layer("embeddings.2", 4096, 4096),
    **layer("embeddings.4", 128, 4096),
}
OPENL3: Shapes = {
    "speclayer.dft_real_kernels": (1025, 1, 2048),
    "speclayer.dft_imag_kernels": (1025, 1, 2048),
    "speclayer.mel_basis": (128, 1025),
    **norm("batch_normalization_1", 1),
    **layer("conv2d_1", 64, 1, 3, 3),
    **norm("batch_normalization_2", 64),
    **layer("conv2d_2", 64, 64, 3, 3),
    **norm("batch_normalization_3", 64),
    **layer("conv2d_3", 128, 64, 3, 3),
    **norm("batch_normalization_4", 128),
    **layer("conv2d_4", 128, 128, 3, 3),
    **norm("batch_normalization_5", 128),
    **layer("conv2d_5", 256, 128, 3, 3),
    **norm("batch_normalization_6", 256),
    **layer("conv2d_6", 256, 256, 3, 3),
    **norm("batch_normalization_7", 256),
    **layer("conv2d_7", 512, 256, 3, 3),
    **norm("batch_normalization_8", 512),
    **layer("audio_embedding_layer", 512, 512, 3, 3),
}
COALA: Shapes = {
    **layer("audio_encoder.0", 128, 1, 4, 4),
    **norm("audio_encoder.1", 128),
    **layer("audio_encoder.4", 128, 128, 4, 4),
    **norm("audio_encoder.5", 128),
    **layer("audio_encoder.8", 128, 128, 4, 4),
    **norm("audio_encoder.9", 128),
    **layer("audio_encoder.12", 128, 128, 4, 4),
    **norm("audio_encoder.13", 128),
    **layer("audio_encoder.16", 128, 128, 4, 4),
    **norm("audio_encoder.17", 128),
    **layer("fc_audio.0", 1152, 1152, bias=False),
}
PASST: Shapes = {
    "cls_token": (1, 1, 768),
    "dist_token": (1, 1, 768),
    "new_pos_embed": (1, 2, 768),
    "freq_new_pos_embed": (1, 768, 12, 1),
    "time_new_pos_embed": (1, 768, 1, 99),
    **layer("patch_embed.proj", 768, 1, 16, 16),
    **layer_norm("norm", 768),
    **layer_norm("head.0", 768),
    **layer("head.1", 527, 768),
    **layer("head_dist", 527, 768),
}
for index in range(12):
    PASST |= transformer_layer(index)

# The file's name, its tensors, and their number, counted by hand in the definitions.
FILES = {
    "cnn14": ("Cnn14_mAP=0.431.pth", CNN14, 84),
    "vggish": ("vggish-10086976.pth", VGGISH, 18),
    "openl3": ("torchopenl3_mel128_env_512.pth.tar", OPENL3, 59),
    "coala": ("audio_encoder_epoch_200.pt", COALA, 36),
    "passt": ("passt-s-f128-p16-s10-ap.476-swa.pt", PASST, 159),
}


def tensors(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Random weights with which signals keep their size from layer to layer."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(7)
        elif len(shape) == 1:  # biases and norms; variances are positive
            found[name] = torch.rand(shape, generator=random) * 0.1 + (0.95 if "weight" in name or "var" in name else 0)
        else:
            found[name] = torch.randn(shape, generator=random) * (2 / np.prod(shape[1:])) ** 0.5
    for name in ("logmel_extractor.melW", "speclayer.mel_basis"):
        if name in found:
            found[name] = found[name].abs()
    return found


def write(name: str, folder: Path, state: dict[str, torch.Tensor]) -> Path:
    """Write an encoder's file as it is published, and COALA's scaler in the same folder."""
    file = folder / FILES[name][0]
    within = name == "cnn14" and "model" not in state
    torch.save({"iteration": 600_000, "model": state} if within else state, file)
    if name == "coala":
        scaler = MinMaxScaler().fit(np.random.default_rng(0).uniform(-16, 4, (50, 96)))
        (folder / "scaler_top_1000.pkl").write_bytes(pickle.dumps(scaler))
    return file
