"""AudioCLIP's published weights, which can be the initial weights of the heads.

`AudioCLIP-Full-Training.pt` contains all three heads, trained on AudioSet. `ESRNXFBSP.pt` contains only the audio head,
trained on AudioSet. Its linear layer is a classifier of 527 classes, which is replaced by a random layer of size L. A
file must contain the tensors of its heads with the published names and shapes. The following tensors are not used, and
the file need not contain them:

- the image head (`visual.*`), the temperatures of pairs with an image, and three numbers from CLIP's own files
  (`input_resolution`, `context_length`, `vocab_size`);
- the window of the audio head's frames, which `heads.py` computes;
- the learnt transform of the audio head (`fbsp.m`, `fbsp.fb`, `fbsp.fc`), unless the front end is `fbsp`. This front
  end uses the transform, so the file must then contain it;
- `fbsp.bias`, which is an empty tensor: the authors register `Parameter(None)`, which torch saves in this form.

Source: AndreyGuzhov/AudioCLIP, release v0.1, `model/audioclip.py`, `model/esresnet/fbsp.py`. The sizes in bytes are
from its folder `assets/`.
"""

import torch
from torch import nn

from evaluation.downloads import Asset
from systems.clip_aac.heads import BINS, SIZE, WINDOW, AudioClip, AudioHead, FrontEnd
from systems.parts.encoders import weights

RELEASE = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
BOTH = Asset("AudioCLIP", f"{RELEASE}/AudioCLIP-Full-Training.pt", 537_302_068, "MIT", "audioclip")
AUDIO = Asset("AudioCLIP's audio head", f"{RELEASE}/ESRNXFBSP.pt", 124_795_647, "MIT", "audioclip-audio")
CLASSES = 527  # of AudioSet
IMAGES = "visual."  # prefix of the names of the image head's tensors
LEARNT_TRANSFORM = {"fbsp.m": (BINS,), "fbsp.fb": (BINS,), "fbsp.fc": (BINS,)}
OTHERS = ("logit_scale", "logit_scale_ai", "input_resolution", "context_length", "vocab_size")


def unused_audio(front_end: FrontEnd) -> dict[str, tuple[int, ...]]:
    """Return a dict from name to shape of the tensors in the published audio head that a front end does not use."""
    unused: dict[str, tuple[int, ...]] = {"window": (WINDOW,)}
    if front_end == "stft":
        unused |= LEARNT_TRANSFORM
    return unused


def both(path: str = "", front_end: FrontEnd = "stft") -> AudioClip:
    """Load AudioCLIP's audio head and text head, and their temperature.

    Args:
        path: The file, or the folder with it, as in `weights.find`.
        front_end: The audio head's front end.

    Raises:
        BadRequest: The file is not on this machine, or torch did not save it.
        Faulty: The file does not hold AudioCLIP's weights. The exception lists all differences.
    """
    file = weights.find(BOTH, path)
    state = weights.tensors(weights.read(file, BOTH), file)
    state = {name: value for name, value in state.items() if not name.startswith(IMAGES)}
    unused: dict[str, tuple[int, ...]] = dict.fromkeys(OTHERS, ())
    for name, shape in unused_audio(front_end).items():
        unused[f"audio.{name}"] = shape
    with torch.device("meta"):  # no random weights are drawn, because the file overwrites all of them
        heads = AudioClip(front_end=front_end)
    return weights.fill(heads, state, file, unused)


def audio(path: str = "", size: int = SIZE, front_end: FrontEnd = "stft") -> AudioHead:
    """Load the audio head that was trained on AudioSet, and give it a random linear layer.

    Args:
        path: The file, or the folder with it, as in `weights.find`.
        size: Size of the embedding, L.
        front_end: The audio head's front end.

    Raises:
        BadRequest: The file is not on this machine, or torch did not save it.
        Faulty: The file does not hold AudioCLIP's weights. The exception lists all differences.
    """
    head = weights.load(lambda: AudioHead(CLASSES, front_end=front_end), AUDIO, path, unused_audio(front_end))
    head.fc = nn.Linear(head.fc.in_features, size)
    return head
