"""The inputs of the check: a data folder, audio and texts that are as awkward as real ones."""

import csv
from pathlib import Path

import numpy as np
import soundfile
import torch

from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION

SECONDS = (0.1, 1.07, 1.98, 4.0, 30.0)  # durations of the clips
IN_FOLDER = 4  # only the first four durations are used in the data folder: clips of 30 s would make training slow
SPLITS = {DEVELOPMENT: 6, VALIDATION: 3, EVALUATION: 3}  # from the name of a split to its number of clips
RATE = 44100  # sample rate in Hz of the audio files in the data folder
# The file names of a split's clips, in this order. All splits use them, because in Clotho, too, two splits share names.
NAMES = (
    " check, no.1 &amp; first.wav",
    "it's a 'check'; v1.2.wav",
    "Check.WAV.wav",
    "été – 鳥 🐦.wav",
    "check #5 100%.wav",
    "no trouble.wav",
)
TEXTS = (
    "A dog barks, and rain falls.",
    "  blanks at both ends, and  two within  ",
    "He says &quot;stop&quot; &amp; <b>leaves</b> &#39;now&#39;",
    "\"It's\", “it”, ‘is’, a dog's bark",
    "🐦🌧️ ünïcödé 鳥",
    "?!",
    " ".join(f"word{number % 37}" for number in range(200)),
)
# The labels of the clips that the probes use by name.
USUAL = "1.98 s"
SAME_LENGTH = "other 1.98 s"
SILENCE = "1 s of silence"


def make_data(folder: Path) -> None:
    """Write a data folder in Clotho's layout. Its clips are tones with noise, with awkward names, captions and lengths.

    Args:
        folder: The folder to write.
    """
    rng = np.random.default_rng(0)
    for split, clips in SPLITS.items():
        (folder / split).mkdir(parents=True)
        rows = [["file_name", *(f"caption_{number}" for number in range(1, 6))]]
        for index, name in enumerate(NAMES[:clips]):
            samples = round(SECONDS[index % IN_FOLDER] * RATE)
            time = np.arange(samples) / RATE
            tone = np.sin(2 * np.pi * rng.uniform(100, 2000) * time)
            soundfile.write(folder / split / name, 0.2 * tone + rng.uniform(-0.2, 0.2, samples), RATE)
            captions = [f"{text} {split} {index}" for text in TEXTS[index % 3 + 1 : index % 3 + 5]]
            shared = TEXTS[0]  # the first two clips share this caption; in Clotho, some clips share captions too
            if index >= 2:
                shared = f"{TEXTS[0]} {split} {index}"
            rows.append([name, *captions, shared])
        with (folder / f"captions_{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def make_sounds(sample_rate: int) -> dict[str, torch.Tensor]:
    """Make a clip of each length, a second clip of one of these lengths, and a silent clip.

    Args:
        sample_rate: The sample rate in Hz.

    Returns:
        A dict from a label, such as `1.98 s`, to the audio of shape (samples,).
    """
    generator = torch.Generator().manual_seed(0)
    lengths = {f"{seconds:g} s": seconds for seconds in SECONDS} | {SAME_LENGTH: 1.98}
    sounds = {}
    for number, (label, seconds) in enumerate(lengths.items()):
        samples = max(1, round(seconds * sample_rate))
        tone = torch.sin(2 * torch.pi * 150 * (number + 1) * torch.arange(samples) / sample_rate)
        sounds[label] = 0.3 * tone + 0.3 * (torch.rand(samples, generator=generator) - 0.5)
    sounds[SILENCE] = torch.zeros(sample_rate)
    return sounds
