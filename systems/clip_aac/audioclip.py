"""AudioCLIP's published weights, which the heads begin with.

`AudioCLIP-Full-Training.pt` holds all three heads, trained on AudioSet; `ESRNXFBSP.pt` holds the audio head alone,
trained on AudioSet, with a classifier of 527 classes as its linear layer, in whose place one of size L is drawn. The
names and shapes of the heads' tensors must be those of the file. Not used, and therefore optional in the file:

- the image head (`visual.*`), the temperatures of pairs with an image, and three numbers of CLIP's own files
  (`input_resolution`, `context_length`, `vocab_size`);
- the window of the audio head's frames, which is computed;
- the learnt transform of the audio head (`fbsp.m`, `fbsp.fb`, `fbsp.fc`) where the front end is `stft`; with the front
  end `fbsp` it is used, and the file must hold it;
- `fbsp.bias`, which has no values: the authors register `Parameter(None)`, and torch saves that as an empty tensor.

Source: AndreyGuzhov/AudioCLIP, release v0.1, `model/audioclip.py`, `model/esresnet/fbsp.py`; the sizes in bytes from
`assets/`.
"""

import torch
from torch import nn

from evaluation.assets import Asset
from systems.clip_aac.heads import BINS, SIZE, WINDOW, AudioClip, AudioHead, FrontEnd
from systems.parts.encoders import weights

RELEASE = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
BOTH = Asset("AudioCLIP", f"{RELEASE}/AudioCLIP-Full-Training.pt", 537_302_068, "MIT")
AUDIO = Asset("AudioCLIP's audio head", f"{RELEASE}/ESRNXFBSP.pt", 124_795_647, "MIT")
CLASSES = 527  # of AudioSet
IMAGES = "visual."  # begins the names of the image head
LEARNT_TRANSFORM = {"fbsp.m": (BINS,), "fbsp.fb": (BINS,), "fbsp.fc": (BINS,)}
OTHERS = ("logit_scale", "logit_scale_ai", "input_resolution", "context_length", "vocab_size")


def unused_audio(front_end: FrontEnd) -> dict[str, tuple[int, ...]]:
    """Return the shapes, by name, of the audio head's published tensors that are not used with this front end."""
    unused = {"window": (WINDOW,)}
    if front_end == "stft":
        unused |= LEARNT_TRANSFORM
    return unused


def both(path: str = "", front_end: FrontEnd = "stft") -> AudioClip:
    """Load AudioCLIP's two heads and their temperature.

    Args:
        path: The file, or a folder that holds it, as in `weights.find`.
        front_end: Of the audio head.

    Raises:
        BadRequest: As `weights.load`.
        Faulty: As `weights.load`.
    """
    file = weights.find(BOTH, path)
    state = weights.tensors(weights.read(file, BOTH), file)
    state = {name: value for name, value in state.items() if not name.startswith(IMAGES)}
    unused: dict[str, tuple[int, ...]] = dict.fromkeys(OTHERS, ())
    for name, shape in unused_audio(front_end).items():
        unused[f"audio.{name}"] = shape
    with torch.device("meta"):  # nothing is drawn only to be overwritten
        heads = AudioClip(front_end=front_end)
    return weights.fill(heads, state, file, unused)


def audio(path: str = "", size: int = SIZE, front_end: FrontEnd = "stft") -> AudioHead:
    """Load the audio head as it was trained on AudioSet, and draw a linear layer of its own.

    Args:
        path: As in `both`.
        size: Of the embedding, L.
        front_end: As in `both`.

    Raises:
        BadRequest: As `weights.load`.
        Faulty: As `weights.load`.
    """
    head = weights.load(lambda: AudioHead(CLASSES, front_end=front_end), AUDIO, path, unused_audio(front_end))
    head.fc = nn.Linear(head.fc.in_features, size)
    return head
