"""AudioCLIP's published weights, which the heads begin with.

Names and shapes are checked whole. Of `AudioCLIP-Full-Training.pt`, all three heads trained on AudioSet, the image
head (`visual.*`) is left out, and so are, as `heads` says, the learnt frames of the audio head (`audio.fbsp.*`), its
window, which is computed, and the temperatures of pairs with an image. `ESRNXFBSP.pt`, the audio head trained on
AudioSet alone, has the same without a prefix, and for its linear layer a classifier of 527 classes, in whose place
one of size L is drawn. All other names and shapes are the heads' own.

Source: AndreyGuzhov/AudioCLIP, release v0.1, `model/audioclip.py`; the sizes in bytes from `assets/`.
"""

import torch
from torch import nn

from evaluation.models import Part
from systems.clip_aac.heads import FFT, SIZE, WINDOW, AudioClip, AudioHead
from systems.parts.encoders import weights

RELEASE = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
BOTH = Part("AudioCLIP", f"{RELEASE}/AudioCLIP-Full-Training.pt", 537_302_068, "MIT")
AUDIO = Part("AudioCLIP's audio head", f"{RELEASE}/ESRNXFBSP.pt", 124_795_647, "MIT")
CLASSES = 527  # of AudioSet
FRAMES = {**{f"fbsp.{name}": (FFT // 2 + 1,) for name in ("m", "fb", "fc")}, "window": (WINDOW,)}
UNUSED = {**{f"audio.{name}": shape for name, shape in FRAMES.items()}, "logit_scale": (), "logit_scale_ai": ()}


def both(path: str = "") -> AudioClip:
    """AudioCLIP's two heads and their temperature; `path` as in `weights.find`, what is raised as in `weights.load`."""
    file = weights.find(BOTH, path)
    state = weights.read(file, BOTH)
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if not str(name).startswith("visual.")}
    with torch.device("meta"):  # nothing is drawn only to be overwritten
        heads = AudioClip()
    return weights.fill(heads, state, file, UNUSED)


def audio(path: str = "", size: int = SIZE) -> AudioHead:
    """The audio head as it was trained on AudioSet, with a linear layer of its own; arguments as in `both`."""
    head = weights.load(lambda: AudioHead(CLASSES), AUDIO, path, FRAMES)
    head.fc = nn.Linear(head.fc.in_features, size)
    return head
