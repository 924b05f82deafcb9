"""A small retriever in one file, as an example of a complete system to copy and change.

    dcase-systems check systems.examples.spectra
    dcase-systems train systems.examples.spectra --data DIR --run RUN

A clip is described by 128 values: the mean and the standard deviation over time of each of its 64 mel bands. A linear
layer embeds these values. A caption is embedded as the mean of its word vectors. The layer and the word vectors are
learned together: for each caption, the cosine similarities with all development clips, times `SCALE`, are the logits of
a cross-entropy loss. Training takes about half a minute.

Every system must define `Config`, `train` and `load_model` (`systems.contract`). From the kit, this system uses only
the run folder, the data folder and the cached log-mel energies. With `systems.training.Run.fit`, it would also have
Lightning's epochs, checkpoints and exact resuming.
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

SIZE = 128  # number of values in an embedding
SCALE = 10  # factor by which the cosine similarities are multiplied before the softmax
PADDING = 0  # index of the word vector that is always zero; it is used for padding and for unknown words


class Config(BaseModel, extra="forbid"):
    """The settings of a run; `--set KEY=VALUE` changes them."""

    steps: int = Field(100, ge=1)  # number of training steps; each uses all clips and captions
    learning_rate: float = Field(0.01, gt=0)  # learning rate of Adam


class Spectra(nn.Module):
    """A retriever that embeds a clip from its spectrum, and a text from its words."""

    def __init__(self, words: Sequence[str]):
        super().__init__()
        self.log_mel = LogMel()
        self.sample_rate = self.log_mel.sample_rate  # sample rate in Hz of the audio that `embed_audio` accepts
        self.numbers = {word: number for number, word in enumerate(words, start=1)}
        features = 2 * self.log_mel.mels  # mean and standard deviation of each mel band
        self.sound = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, SIZE))
        self.text = nn.EmbeddingBag(len(words) + 1, SIZE, padding_idx=PADDING)  # returns the mean of the word vectors

    def embed_audio(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Embed clips as unit vectors.

        Args:
            audio: (clips, samples), padded with zeros at the ends of shorter clips.
            lengths: (clips,), the number of samples of each clip, not counting the padding.

        Returns:
            (clips, SIZE) unit vectors.
        """
        spectra = []
        for sound, length in zip(audio, lengths.tolist(), strict=True):
            log_mel = self.log_mel(sound[:length].cpu().numpy())
            spectra.append(summary(log_mel))
        return self.embed_spectra(torch.stack(spectra).to(audio.device))

    def embed_spectra(self, spectra: Tensor) -> Tensor:
        """Embed clips as (clips, SIZE) unit vectors.

        Args:
            spectra: (clips, features), one result of `summary` for each clip.
        """
        return F.normalize(self.sound(spectra))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as (texts, SIZE) unit vectors. The embedding of a text with no known word is zero."""
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
    """Return the mean and the standard deviation over time of each mel band.

    Args:
        log_mel: (frames, mels), the log-mel energies of a clip.

    Returns:
        (2 * mels,), first all means and then all standard deviations.
    """
    return torch.from_numpy(np.concatenate([log_mel.mean(axis=0), log_mel.std(axis=0)]))


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split, and write the checkpoint and system.yaml into the run folder."""
    run.start()
    torch.manual_seed(run.seed)
    split = dataset[DEVELOPMENT]
    captions = split.captions  # a dict from each different caption to the set of clips that have this caption

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
    targets = is_match / is_match.sum(dim=1, keepdim=True)  # if several clips share a caption, all are targets

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
    """Load a model from a checkpoint that `train` wrote. The model is in evaluation mode."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = Spectra(saved["words"])
    model.load_state_dict(saved["weights"])
    return model.eval()
