"""AudioCLIP's published weights, which the heads begin with.

`AudioCLIP-Full-Training.pt` holds all three heads, trained on AudioSet; `ESRNXFBSP.pt` holds the audio head alone,
trained on AudioSet, with a classifier of 527 classes as its linear layer, in whose place one of size L is drawn. The
names and shapes of the heads' tensors must be those of the file. Not used, and therefore optional in the file:

- the image head (`visual.*`), the temperatures of pairs with an image, and three numbers of CLIP's own files
  (`input_resolution`, `context_length`, `vocab_size`);
- the window of the audio head's frames, which is computed;
- the learnt transform of the audio head (`fbsp.m`, `fbsp.fb`, `fbsp.fc`), unless the front end is `fbsp`;
- `fbsp.bias`, which has no values: the authors register `Parameter(None)`, and torch saves that as an empty tensor.

Source: AndreyGuzhov/AudioCLIP, release v0.1, `model/audioclip.py`, `model/esresnet/fbsp.py`; the sizes in bytes from
`assets/`.
"""

import torch
from torch import nn

from evaluation.assets import Asset
from systems.clip_aac.heads import FFT, SIZE, WINDOW, AudioClip, AudioHead
from systems.parts.encoders import weights

RELEASE = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
BOTH = Asset("AudioCLIP", f"{RELEASE}/AudioCLIP-Full-Training.pt", 537_302_068, "MIT")
AUDIO = Asset("AudioCLIP's audio head", f"{RELEASE}/ESRNXFBSP.pt", 124_795_647, "MIT")
CLASSES = 527  # of AudioSet
IMAGES = "visual."  # begins the names of the image head
UNUSED_AUDIO = {
    "window": (WINDOW,),
    "fbsp.m": (FFT // 2 + 1,),
    "fbsp.fb": (FFT // 2 + 1,),
    "fbsp.fc": (FFT // 2 + 1,),
}
UNUSED = {
    **{f"audio.{name}": shape for name, shape in UNUSED_AUDIO.items()},
    **dict.fromkeys(("logit_scale", "logit_scale_ai", "input_resolution", "context_length", "vocab_size"), ()),
}


def both(path: str = "") -> AudioClip:
    """AudioCLIP's two heads and their temperature; `path` as in `weights.find`, what is raised as in `weights.load`."""
    file = weights.find(BOTH, path)
    state = weights.tensors(weights.read(file, BOTH), file)
    state = {name: value for name, value in state.items() if not name.startswith(IMAGES)}
    with torch.device("meta"):  # nothing is drawn only to be overwritten
        heads = AudioClip()
    return weights.fill(heads, state, file, UNUSED)


def audio(path: str = "", size: int = SIZE) -> AudioHead:
    """The audio head as it was trained on AudioSet, with a linear layer of its own; arguments as in `both`."""
    head = weights.load(lambda: AudioHead(CLASSES), AUDIO, path, UNUSED_AUDIO)
    head.fc = nn.Linear(head.fc.in_features, size)
    return head
