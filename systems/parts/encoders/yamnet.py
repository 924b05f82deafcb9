"""YAMNet as a HEAR module: 1024 values, and the scores of 521 sound classes, for each window of 0.975 s.

The module runs the published TFLite file, which includes the front end and maps 15,600 samples at 16 kHz (96 frames) to
521 scores. An embedding is the input of the last layer, the mean over the last convolution. This is tensor 115, whose
values have 8 bits. The module returns them as real numbers from 0 to 5.7. The interpreter keeps all its tensors,
because otherwise it would not return this one. It runs on the CPU, even if the audio is on another device.

Sources: tensorflow/models, research/audioset/yamnet (`params.py`, `features.py`: 16 kHz, 0.96 s, and its front end,
VGGish's); tensorflow/tflite-support, which publishes the file with its labels inside.
"""

import io
import threading
import warnings
import zipfile
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evaluation.downloads import Asset
from evaluation.findings import BadRequest
from systems.parts.encoders import weights
from systems.parts.encoders.windows import checked, get_scene_embeddings, get_timestamp_embeddings, over_windows

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

ASSET = Asset(
    "YAMNet",
    "https://storage.googleapis.com/mediapipe-assets/yamnet_audio_classifier_with_metadata.tflite",
    4_126_810,
    "Apache 2.0",
    "yamnet",
    "sha256:10c95ea3eb9a7bb4cb8bddf6feb023250381008177ac162ce169694d05c317de",
)
ASSETS = (ASSET,)
SIZE, SCORES, EMBEDDING = 1024, 521, 115
LABELS = "yamnet_label_list.txt"


class Yamnet(nn.Module):
    """The TFLite interpreter and the file that it runs.

    Args:
        content: The file's bytes.

    Attributes:
        labels: AudioSet's class names, in the order of the scores.
        held: The number of parameters of the network. torch cannot count them, because it sees only the bytes of the
            file. They belong to the 14 layers in `yamnet.py` of the source, whose batch norms do not have a scale, and
            to the layer that computes the scores.
    """

    sample_rate = 16000
    timestamp_embedding_size = scene_embedding_size = SIZE
    window = 15600  # samples
    hop = 960.0  # ms
    held = 3_751_369

    def __init__(self, content: bytes):
        super().__init__()
        self.register_buffer("file", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._threads = threading.local()
        tensors = {tensor["index"]: tensor for tensor in self.interpreter.get_tensor_details()}
        (input_details,) = self.interpreter.get_input_details()
        (output_details,) = self.interpreter.get_output_details()
        self._input, self._output = input_details["index"], output_details["index"]
        shapes = [tuple(tensors[index]["shape"]) for index in (self._input, EMBEDDING, self._output)]
        if shapes != [(self.window,), (1, 1, 1, SIZE), (1, SCORES)]:
            raise ValueError(f"input, tensor {EMBEDDING} and output are {shapes}")
        self._scale, self._zero = tensors[EMBEDDING]["quantization"]
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:  # a TFLite file with metadata is also a zip file
            self.labels = bundle.read(LABELS).decode().splitlines()

    @property
    def interpreter(self) -> "Interpreter":
        """The interpreter of the current thread. Each thread needs its own, because it keeps the values of a run."""
        if not hasattr(self._threads, "interpreter"):
            self._threads.interpreter = _interpreter(self.content)
        return self._threads.interpreter

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return self.file.cpu().numpy().tobytes()

    def __reduce__(self) -> tuple:
        """Make copies, also in other processes, from the file's bytes, so that each has its own interpreter."""
        return type(self), (self.content,)

    def run(self, windows: Tensor, tensor: int) -> Tensor:
        """Run the network on (N, 15600) samples and return the values of a tensor, (N, values)."""
        interpreter, outputs = self.interpreter, []
        for window in windows.detach().cpu().numpy():
            interpreter.set_tensor(self._input, window)
            interpreter.invoke()
            outputs.append(torch.from_numpy(interpreter.get_tensor(tensor).reshape(-1)))
        return torch.stack(outputs).to(windows.device)

    def forward(self, windows: Tensor) -> Tensor:
        """Map (N, 15600) samples to (N, 1024)."""
        return (self.run(windows, EMBEDDING).float() - self._zero) * self._scale

    def scores(self, windows: Tensor) -> Tensor:
        """Map (N, 15600) samples to (N, 521) scores from 0 to 1, in the order of `labels`."""
        return self.run(windows, self._output)


def _interpreter(content: bytes) -> "Interpreter":
    """Return an interpreter of a TFLite file that keeps the values of all tensors."""
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        # The warning is about memory, but all tensors together need only 2 MB.
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            num_threads=torch.get_num_threads(),
        )
    interpreter.allocate_tensors()
    return interpreter


def load_model(path: str = "") -> Yamnet:
    """Load the published file from `path`, as in `weights.find`.

    Raises:
        BadRequest: There is no such file, or it is not YAMNet.
    """
    file = weights.find(ASSET, path)
    try:
        return Yamnet(file.read_bytes()).eval()
    except (ValueError, RuntimeError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(
            f"{file}: must be YAMNet as a TFLite file with labels, which maps {Yamnet.window} samples to {SCORES} "
            f"scores, but cannot be loaded ({reason}); fetch it again from {ASSET.source}"
        ) from None


def get_timestamp_scores(audio: Tensor, model: Yamnet, hop: float | None = None) -> tuple[Tensor, Tensor]:
    """Score the windows of clips: (n_sounds, n_timestamps, 521), and the times as in `get_timestamp_embeddings`."""
    if hop is None:
        hop = model.hop
    return over_windows(model.scores, checked(audio), model.sample_rate, model.window, hop)


__all__ = ["Yamnet", "get_scene_embeddings", "get_timestamp_embeddings", "get_timestamp_scores", "load_model"]
