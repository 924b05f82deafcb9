"""The captions of a single audio file."""

from pathlib import Path

import torch

from evaluation.data import audio
from evaluation.data.audio import UnusableSound
from systems.contract import Captioner
from systems.parts.devices import default_device

LONGEST = 300  # maximum duration of a sound in seconds; longer sounds may need too much memory
NUMBER = 5  # maximum number of captions of a sound


def captions_of(model: Captioner, path: Path) -> list[tuple[str, float | None]]:
    """Return the captions of an audio file, best first.

    Args:
        model: The captioner.
        path: The audio file.

    Returns:
        Pairs of a caption and its log-probability, which is None if the model does not compute it. There is only one
        pair unless the model has the method `caption_alternatives`.

    Raises:
        UnusableSound: The file cannot be decoded, is empty, or is too long.
    """
    samples, rate = audio.decode(path)
    seconds = len(samples) / rate
    if seconds > LONGEST:
        raise UnusableSound(f"must last at most {LONGEST} s; found {seconds:.0f} s: cut it")
    samples = audio.resample(samples, rate, model.sample_rate)
    device = default_device()
    sounds = torch.from_numpy(samples)[None].to(device)
    lengths = torch.tensor([len(samples)]).to(device)
    with torch.inference_mode():
        if hasattr(model, "caption_alternatives"):
            return model.caption_alternatives(sounds, lengths, NUMBER)[0]
        if hasattr(model, "caption_scored"):
            texts, log_probabilities = model.caption_scored(sounds, lengths)
            return [(texts[0], float(log_probabilities[0]))]
        return [(model.caption(sounds, lengths)[0], None)]
