"""A small retriever in one file: an example of a complete system, to copy and change.

    python -m systems check systems.examples.spectra
    python -m systems train systems.examples.spectra --data DIR --run RUN

A clip is described by its mean log-mel spectrum and by how much each mel band varies over time; a linear layer embeds
these 128 values. A caption is embedded as the mean of one vector per word. Both are learned together: for each caption,
the cosines with all development clips are the logits of a cross-entropy loss. Training takes about half a minute.

`Config`, `train` and `load_model` are all that `systems.contract` asks for. From the kit, the system uses only the run
folder and the cached log-mel energies. `systems.training.Run.fit` would add Lightning's epochs, checkpoints and exact
resuming.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from evaluation.data.audio import LogMel
from evaluation.data.dataset import DEVELOPMENT, Dataset
from systems.caching.features import log_mels
from systems.training import Run

SIZE = 128  # values of an embedding
SCALE = 10  # factor on the cosines before the softmax
PADDING = 0  # number of the word vector that is always zero: padding, and words that were not in training


class Config(BaseModel, extra="forbid"):
    """The settings of a run; `--set KEY=VALUE` changes them."""

    steps: int = Field(100, ge=1)  # training steps, each with all clips and captions
    learning_rate: float = Field(0.01, gt=0)  # of Adam


class Spectra(nn.Module):
    """Embeds clips by their spectrum and captions by their words."""

    def __init__(self, words: Sequence[str]):
        super().__init__()
        self.log_mel = LogMel()
        self.sample_rate = self.log_mel.sample_rate  # Hz of the audio that `embed_audio` takes
        self.numbers = {word: number for number, word in enumerate(words, start=1)}
        features = 2 * self.log_mel.mels  # mean and standard deviation of each mel band
        self.sound = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, SIZE))
        self.text = nn.EmbeddingBag(len(words) + 1, SIZE, padding_idx=PADDING)  # the mean of the words' vectors

    def embed_audio(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Map (clips, samples) audio, of which each clip has `lengths` samples, to (clips, SIZE) unit vectors."""
        spectra = []
        for sound, length in zip(audio, lengths.tolist(), strict=True):
            log_mel = self.log_mel(sound[:length].cpu().numpy())
            spectra.append(summary(log_mel))
        return self.embed_spectra(torch.stack(spectra).to(audio.device))

    def embed_spectra(self, spectra: Tensor) -> Tensor:
        """Map (clips, features) spectra, as from `summary`, to (clips, SIZE) unit vectors."""
        return F.normalize(self.sound(spectra))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Map texts to (texts, SIZE) unit vectors; a text without a known word becomes zeros."""
        rows = []
        for text in texts:
            numbers = [self.numbers.get(word, PADDING) for word in split_words(text)]
            rows.append(torch.tensor(numbers or [PADDING]))
        padded = pad_sequence(rows, batch_first=True, padding_value=PADDING)
        return F.normalize(self.text(padded.to(self.text.weight.device)))


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without the full stop at its end."""
    return text.lower().strip(".").split()


def summary(log_mel: np.ndarray) -> Tensor:
    """Map (frames, mels) log-mel energies to (2 * mels,): the mean and the standard deviation over time."""
    return torch.from_numpy(np.concatenate([log_mel.mean(axis=0), log_mel.std(axis=0)]))


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split, and write the checkpoint and system.yaml into the run folder."""
    run.start()
    torch.manual_seed(run.seed)
    split = dataset[DEVELOPMENT]
    captions = split.captions  # each different caption, and the set of clips that have it

    words = set()
    for caption in captions:
        words.update(split_words(caption))
    model = Spectra(sorted(words))

    energies = log_mels(split.paths, model.log_mel, run.cache)
    spectra = torch.stack([summary(log_mel) for log_mel in energies])  # (clips, features)
    rows = []
    for clips in captions.values():
        rows.append([name in clips for name in split.file_names])
    is_match = torch.tensor(rows).float()  # (captions, clips)
    targets = is_match / is_match.sum(dim=1, keepdim=True)  # a caption that several clips share is for all of them

    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for _ in range(config.steps):
        logits = SCALE * model.embed_text(list(captions)) @ model.embed_spectra(spectra).T
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    run.best.parent.mkdir(exist_ok=True)
    torch.save({"words": list(model.numbers), "weights": model.state_dict()}, run.best)
    description = {  # for the metadata of a submission
        "acoustic_features": "log-mel energies",
        "audio_modelling": "mean and standard deviation of the spectrum",
        "word_modelling": "mean of learned word vectors",
        "loss_function": "cross-entropy",
        "optimizer": "adam",
        "learning_rate": config.learning_rate,
    }
    run.describe(model, description)


def load_model(checkpoint: Path) -> Spectra:
    """Load the model of a checkpoint that `train` wrote, ready to use."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = Spectra(saved["words"])
    model.load_state_dict(saved["weights"])
    return model.eval()
