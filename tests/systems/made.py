"""Runs of made systems that need no training: a retriever and a captioner that recognise tones, and their data.

A tone of 500 Hz is low, and a tone of 2000 Hz is high.
"""

import csv

import numpy as np
import soundfile
import yaml

MODULE = '''
"""A retriever and a captioner that measure how low and how high a clip is."""
from pathlib import Path

import torch

CAPTIONS = ["a low tone", "a high tone"]

def energies(audio, lengths):
    """Return the energies below and above 1 kHz, (clips, 2), as vectors of length 1."""
    rows = []
    for sound, length in zip(audio, lengths):
        spectrum = torch.fft.rfft(sound[:length], 8000).abs()
        rows.append(torch.stack([spectrum[:1000].sum(), spectrum[1000:].sum()]))
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)

class Model:
    sample_rate = 8000
    def __init__(self, gain):
        self.gain = gain
    def to(self, device):
        return self

class Retriever(Model):
    def embed_audio(self, audio, lengths):
        return energies(audio, lengths) * self.gain
    def embed_text(self, texts):
        return torch.tensor([[float("low" in text), float("high" in text)] for text in texts])

class Captioner(Model):
    def caption(self, audio, lengths):
        return [captions[0][0] for captions in self.caption_alternatives(audio, lengths, 1)]
    def caption_alternatives(self, audio, lengths, number):
        alternatives = []
        for row in energies(audio, lengths).log_softmax(1):
            scored = sorted(zip(CAPTIONS, row.tolist()), key=lambda pair: -pair[1])
            alternatives.append(scored[:number])
        return alternatives

def load_model(checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    return globals()[saved["kind"]](saved["gain"])

Config = train = None
'''
NAME = "made_tones"  # import name of the module


def make_module(folder):
    """Write the module into a folder."""
    (folder / f"{NAME}.py").write_text(MODULE, encoding="utf-8")


def make_run(folder, kind, gain=1.0):
    """Write a run folder; `kind` is Retriever or Captioner."""
    import torch

    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"system": NAME}), encoding="utf-8")
    (folder / "system.yaml").write_text("{}", encoding="utf-8")
    torch.save({"kind": kind, "gain": gain}, folder / "checkpoints" / "best.ckpt")
    return folder


def tone(path, hertz, seconds=0.5, channels=1):
    """Write a tone."""
    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(8000 * seconds)) / 8000)
    soundfile.write(path, np.repeat(samples[:, None], channels, axis=1), 8000)
    return path


def make_data(folder, clips=6):
    """Write a data folder with an evaluation split. Every third clip is high; the names have blanks and commas."""
    (folder / "evaluation").mkdir(parents=True)
    with (folder / "captions_evaluation.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "caption_1"])
        for number in range(clips):
            is_high = number % 3 == 2
            name = f" clip, {number}.wav"
            tone(folder / "evaluation" / name, 2000 + number if is_high else 500 + 10 * number)
            table.writerow([name, "A <b>high</b> tone." if is_high else "A low tone."])
    return folder
