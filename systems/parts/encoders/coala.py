"""COALA's audio encoder as a HEAR module: 1152 values for each patch of 96 frames (2.26 s).

An embedding is the flattened output of the last block, as the authors use it for other tasks. Two files are needed: the
weights, and the scaler that was fitted to the training data. The weights are those of dual_ae_c, which was trained with
contrastive loss and whose embeddings the paper reports.

The front end works at 22 kHz. A Hann window of 1024 samples moves by 512. Frames are centred, and both ends are padded
by reflection. The magnitudes pass through 96 mel filters of unit area on Slaney's scale, from 0 to 11 kHz, and become
ln(x + 2^-23). Each of a patch's 96 frames is then multiplied by its own scale, and its own offset is added. The input
is at 44.1 kHz, because HEAR does not allow 22 kHz. This module resamples it.

The authors pad clips of less than 10 s to 10 s with zeros. They then add noise, uniform from 0 to 5e-4, which is drawn
again each time. They leave longer clips unchanged. This module adds neither padding nor noise, so that a clip always
has the same embedding.

Sources: Favory et al. 2020, and xavierfav/coala: `utils.py` (the settings of the spectrogram, and the noise),
`encode.py` (the patches, the scaler, and the layer of the embedding), `models_t1000.py` (layers, names),
`scripts/create_dataset.py` (the data that the scaler was fitted to, whose 96 columns are frames).
"""

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import Resample

from evaluation.data.audio import mel_filters
from evaluation.downloads import Asset
from evaluation.findings import BadRequest
from systems.parts.encoders import weights
from systems.parts.encoders.windows import checked, magnitudes, over_windows

PLACE = "https://github.com/xavierfav/coala/raw/master/"
ASSET = Asset(
    "COALA's audio encoder",
    f"{PLACE}saved_models/dual_ae_c/audio_encoder_epoch_200.pt",
    9_600_000,
    name="coala",
)
SCALER = Asset("COALA's scaler", f"{PLACE}scaler_top_1000.pkl", 5_000, name="coala")
ASSETS = (ASSET, SCALER)
RATE, FFT, HOP, MELS = 22000, 1024, 512, 96
FRAMES = 96  # frames of a patch
MARGIN = FFT // 2
WINDOW = (FRAMES - 1) * HOP + FFT  # samples
SIZE = 1152  # 128 channels x 3 x 3
UNUSED = {"fc_audio.0.weight": (1152, 1152)}  # the layer to the space that audio and tags share


class Coala(nn.Module):
    """The network up to its last block. Its tensors have the published names."""

    sample_rate = 44100
    timestamp_embedding_size = scene_embedding_size = SIZE
    hop = FRAMES * HOP * 1000 / RATE  # ms

    def __init__(self):
        super().__init__()
        layers = []
        for inputs in (1, 128, 128, 128, 128):
            layers += [nn.Conv2d(inputs, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.ReLU(), nn.Dropout(0.25)]
        self.audio_encoder = nn.Sequential(*layers)
        filters = mel_filters(RATE, FFT, MELS, 0, RATE // 2)
        self.resample = Resample(self.sample_rate, RATE, dtype=torch.float32)
        self.resample.register_buffer("kernel", self.resample.kernel, persistent=False)  # the weights' file lacks it
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("scale", torch.ones(FRAMES))
        self.register_buffer("offset", torch.zeros(FRAMES))

    def log_mels(self, windows: Tensor) -> Tensor:
        """Map (N, samples) to (N, 96, frames), before scaling."""
        energies = magnitudes(windows, FFT, HOP, FFT) @ self.filters
        return (energies + 2**-23).log().transpose(1, 2)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (N, 49664) samples to (N, 1152)."""
        x = self.log_mels(windows) * self.scale + self.offset
        return self.audio_encoder(x[:, None]).flatten(1)


def load_model(path: str = "") -> Coala:
    """Load the published weights and the scaler.

    Args:
        path: The file of weights, or the folder with it, as in `weights.find`. The scaler must be in the same folder.
            If `path` is empty, the scaler may also be in another folder in which `weights.find` searches.

    Raises:
        BadRequest: There is no such file, torch did not save it, or the scaler cannot be read.
        Faulty: The file does not hold the network's weights; the findings name every difference.
    """
    file = weights.find(ASSET, path)
    scaler = file.with_name(SCALER.file_name)
    if path or scaler.is_file():
        scaler = weights.find(SCALER, scaler)
    else:
        scaler = weights.find(SCALER)  # in all folders in which it searches
    values = read_scaler(scaler)
    state = weights.tensors(weights.read(file, ASSET), file)
    return weights.fill(Coala(), {**state, **values}, file, UNUSED)


def read_scaler(file: Path) -> dict[str, Tensor]:
    """Read the scale and the offset of a pickled MinMaxScaler of any scikit-learn version, without running its code.

    Raises:
        BadRequest: The file is not a pickled MinMaxScaler of 96 values.
    """
    try:
        with file.open("rb") as stream:
            scaler = _Plain(stream).load()
        arrays = {"scale": np.asarray(scaler.scale_), "offset": np.asarray(scaler.min_)}
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"{file}: must be {SCALER.title}, a pickled MinMaxScaler, but cannot be read ({reason})"
        raise BadRequest(f"{message}; fetch it again from {SCALER.source}") from None
    for name, values in arrays.items():
        if values.shape != (FRAMES,) or values.dtype.kind != "f":
            raise BadRequest(
                f"{file}: {name} must be {FRAMES} floats; found {values.shape} of {values.dtype}; fetch it again from "
                f"{SCALER.source}"
            )
    return {name: torch.from_numpy(values).float() for name, values in arrays.items()}


class _Plain(pickle.Unpickler):
    """An unpickler of arrays and of the scaler's attributes. It refuses all else, because a pickle can run any code."""

    def find_class(self, module: str, name: str) -> object:
        if name == "MinMaxScaler":
            return SimpleNamespace
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
            return getattr(multiarray, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"it needs {module}.{name}")


def get_timestamp_embeddings(audio: Tensor, model: Coala, hop: float | None = None) -> tuple[Tensor, Tensor]:
    """Embed the patches of clips, as `windows.get_timestamp_embeddings` does. The audio is at 44.1 kHz."""
    if hop is None:
        hop = model.hop
    audio = checked(audio)
    samples = max(1, audio.shape[1] * RATE // model.sample_rate)
    sound = model.resample(audio)[:, :samples]
    sound = F.pad(sound, (0, max(0, MARGIN + 1 - sound.shape[1])))  # reflection needs more samples than the margin
    sound = F.pad(sound[:, None], (MARGIN, MARGIN), "reflect")[:, 0]
    return over_windows(model, sound, RATE, WINDOW, hop, MARGIN)


def get_scene_embeddings(audio: Tensor, model: Coala) -> Tensor:
    """Embed clips as (n_sounds, 1152) float32, the mean over patches."""
    return get_timestamp_embeddings(audio, model)[0].mean(dim=1)
