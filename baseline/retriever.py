"""The baseline retriever of DCASE 2022 task 6B (Xie et al. 2022), to be read from top to bottom.

    python -m systems train baseline.retriever --config baseline/retriever.yaml --data DIR --run RUN
    python -m systems predict RUN --data DIR --split evaluation

A CRNN turns the log-mel energies of a clip into frame vectors, whose mean is the clip; the mean of a caption's word2vec
vectors is the caption. Training pulls a clip and its captions together and pushes impostors away (triplet loss); only
the CRNN learns. A query is answered by the clips whose vectors have the largest dot product with it.

baseline/retriever-published.yaml has the settings of the published code (xieh97/dcase2022-audio-retrieval@f6fad50). On
equal weights and a batch of clips of unequal length, embeddings then differ from those of the code by 2e-7 at most, and
gradients by 5e-6 of 0.9. What no key changes:

- Impostors. The code never draws the caption of the clip that it drew; here the two draws are independent. Each is
  uniform in both, so the expected loss is the same. A caption that several clips share (16 of Clotho's 19,195 for
  training) is an impostor for none of them here.
- The validation loss. The code draws batches of pairs at random; here a batch is clips in order, each with all of its
  captions.
- Words: see `baseline.tokens`.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from gensim.models import KeyedVectors
from pydantic import Field, model_validator
from torch import Tensor, nn

from baseline import tokens
from baseline.crnn import CRNN, FLOOR, STRIDE
from evaluation.data.audio import LogMel
from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset, Split
from systems.caching.features import log_mels
from systems.parts import words
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.descriptions import describe_system
from systems.parts.losses import triplet
from systems.parts.validation import retrieval_metrics
from systems.training import Run, Schedule, metadata_name, read_checkpoint

PAPER = "Xie et al. 2022, DCASE task 6B"
PARAMETERS = 732_354  # of the CRNN; word vectors are not learnt with it
STOP_FROM, STOP_VALUES = 60, 10  # of `stop_deviation`, in the published code's conf.yaml


class Config(Schedule):
    """The settings. The defaults are what retrieves better here; baseline/retriever-published.yaml follows the code.

    "Published" is the code, xieh97/dcase2022-audio-retrieval@f6fad50, and the paper where it differs from the code.
    """

    monitor: Literal["mAP@10", "loss"] = "mAP@10"  # the validation value that chooses the best epoch; published: loss
    plateau_threshold: float | None = Field(None, ge=0)  # smallest improvement; None: any; published code: 0.01
    stop_deviation: float | None = Field(None, gt=0)  # stop when losses vary less; None: by patience; code: 0.01
    words: str = "train"  # a file of word vectors (word2vec .bin, or text), or `train`: on the development captions
    words_limit: int | None = 200_000  # how many words to read from a file, frequent ones first; published: all
    words_epochs: int = Field(50, ge=1)  # of training word vectors
    tokens: Literal["lower", "cased"] = "lower"  # lower-case words; published: cased, with lemma and stem (tokens.py)
    unknown: Literal["skip", "draw"] = "skip"  # words without a vector: left out; published: one vector, drawn
    center: bool = True  # subtract the mean caption, which neither paper nor code does; see `words.center`
    slope: float = 0.1  # of the leaky ReLU; the paper says -0.1, the code has 0.1
    pooling_floor: float = Field(FLOOR, ge=0)  # keeps the gradient of a pool of zeros finite; published: 0
    dropout: float = Field(0.3, ge=0, lt=1)
    score: Literal["cosine", "dot"] = "cosine"  # the paper says dot product; the code normalises first
    margin: float = Field(1.0, gt=0)  # of the triplet loss
    sampler: Literal["clip", "caption"] = "clip"  # encode a clip once a step with all its captions, or once a caption
    padding: Literal["clip", "batch"] = "clip"  # where clips end in training; published: with their batch's longest

    @model_validator(mode="after")
    def check_gradient(self) -> "Config":
        """Refuse pooling without a floor over frames behind a clip's end: their gradient is not a number."""
        if self.pooling_floor == 0 and self.padding == "clip":
            raise ValueError(
                "pooling_floor must be above 0 with padding: clip; found 0: raise it, or set padding: batch"
            )
        return self

    def lowers_rate(self, values: Sequence[float]) -> bool:
        """Return whether the learning rate falls after the last of `values` (higher is better).

        With a threshold, as torch's ReduceLROnPlateau: after more than `plateau` epochs without an improvement of more
        than the threshold, counted from the last improvement or the last fall. Without one, as the paper says it.
        """
        if self.plateau_threshold is None:
            return super().lowers_rate(values)
        best, waited, falls = -np.inf, 0, False
        for value in values:
            waited += 1
            if value > best + self.plateau_threshold:
                best, waited = value, 0
            falls = waited > self.plateau
            if falls:
                waited = 0
        return falls

    def stops(self, values: Sequence[float]) -> bool:
        """Return whether training stops after the last of `values` (higher is better).

        With a deviation, as Ray's TrialPlateauStopper in the published code: from the sixtieth value on, once the last
        ten have a standard deviation below it. The code's first value is that of the untrained model, which is not
        among `values`. Without one, as the paper says it: after `patience` epochs without improvement.
        """
        if self.stop_deviation is None:
            return super().stops(values)
        return len(values) + 1 >= STOP_FROM and np.std(values[-STOP_VALUES:]) < self.stop_deviation


# The model ---------------------------------------------------------------------------------------------------------


class Retriever(nn.Module):
    """Embeds sounds and texts into the space of the word vectors."""

    def __init__(self, config: Config, vectors: KeyedVectors):
        super().__init__()
        self.config, self.vectors = config, vectors
        self.log_mel = LogMel()
        self.sample_rate = self.log_mel.sample_rate
        self.audio_encoder = CRNN(config.slope, config.dropout, config.pooling_floor)
        self.split = word_splitter(config, vectors)

    def encode(self, mels: Tensor, lengths: Tensor) -> Tensor:
        """Embed (N, T, 64) log-mel energies of `lengths` (N,) frames as (N, 300).

        As published, the vectors of a clip, one every four frames, are interpolated to one a frame, and averaged.
        """
        vectors, counts = self.audio_encoder(mels, lengths)  # (N, T / 4, 300), (N,)
        weights = interpolation_weights(counts, lengths, vectors.shape[1])  # (N, T / 4)
        return self.normalize((vectors * weights[..., None]).sum(1))

    def embed_audio(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Embed (N, samples) mono sounds at `sample_rate`, of `lengths` (N,) samples, as (N, 300)."""
        clips = [sound[:length].cpu().numpy() for sound, length in zip(audio, lengths, strict=True)]
        return self.encode(*pad([self.log_mel(clip) for clip in clips], audio.device))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as (texts, 300)."""
        means = words.mean_vectors(texts, self.vectors, self.split)
        return self.normalize(torch.from_numpy(means).to(next(self.parameters()).device))

    def normalize(self, embeddings: Tensor) -> Tensor:
        """Scale to length 1 if the score is the cosine."""
        if self.config.score == "cosine":
            return F.normalize(embeddings.float(), dim=1)
        return embeddings.float()


def word_splitter(config: Config, vectors: KeyedVectors) -> words.Split:
    """Return the function that splits a text into words as the config has it."""
    if config.tokens == "cased":
        return partial(tokens.known_words, vectors=vectors)
    if config.unknown == "skip":
        return words.words_without_hyphens
    return partial(lower_words, vectors=vectors)


def lower_words(text: str, vectors: KeyedVectors) -> list[str]:
    """Return the lower-case words of a text, `tokens.UNKNOWN` for those without a vector."""
    return [word if word in vectors.key_to_index else tokens.UNKNOWN for word in words.words_without_hyphens(text)]


def interpolation_weights(counts: Tensor, lengths: Tensor, most: int) -> Tensor:
    """Return how much each vector of a clip counts in the mean of all frames, after linear interpolation.

    Published is `F.interpolate(vectors, lengths, mode="linear", align_corners=False)` and then the mean over frames, a
    weighted sum of the vectors. Its weights are equal if `lengths` is four times `counts`. Otherwise, frame t lies at
    (t + .5) counts / lengths - .5 between the vectors, and before the first one it is the first one.

    Args:
        counts: (N,) vectors of each clip.
        lengths: (N,) frames of each clip.
        most: The number of columns.

    Returns:
        (N, most) weights that sum to one, zero behind each clip's end.
    """
    weights = torch.zeros(len(counts), most, dtype=torch.float64)
    for row, (count, length) in enumerate(zip(counts.tolist(), lengths.tolist(), strict=True)):
        position = (torch.arange(length, dtype=torch.float64) + 0.5) * count / length - 0.5
        position = position.clamp(min=0)
        before = position.long()
        after = (before + 1).clamp(max=count - 1)
        share = position - before
        total = torch.bincount(before, 1 - share, most) + torch.bincount(after, share, most)
        weights[row] = total / length
    return weights.to(counts.device, torch.float32)


def pad(clips: Sequence[np.ndarray], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Stack (frames, 64) features as (N, T, 64), T a multiple of 4, and give their lengths, of four frames at least."""
    lengths = torch.tensor([max(len(clip), STRIDE) for clip in clips])
    longest = -(-int(lengths.max()) // STRIDE) * STRIDE
    mels = torch.zeros(len(clips), longest, clips[0].shape[1])
    for row, clip in enumerate(clips):
        mels.numpy()[row, : len(clip)] = clip
    return mels.to(device), lengths.to(device)


# The training step ---------------------------------------------------------------------------------------------------


class Item(NamedTuple):
    """What is encoded once in a step: a clip, and the captions that go with it there."""

    name: str
    mels: np.ndarray  # (frames, 64)
    captions: tuple[str, ...]


class Batch(NamedTuple):
    """Clips, their captions, and which belongs to which."""

    mels: Tensor  # (N, T, 64)
    lengths: Tensor  # (N,)
    captions: list[str]
    answers: Tensor  # (N, captions) bool
    pairs: Tensor  # (pairs, 2)


def make_batch(items: Sequence[Item], truth: dict[str, frozenset[str]]) -> Batch:
    """Lay items side by side. A caption that several clips share is an impostor for none of them."""
    captions: list[str] = []
    clip_of_caption: list[int] = []
    for row, item in enumerate(items):
        captions += item.captions
        clip_of_caption += [row] * len(item.captions)
    answers = []
    for item in items:
        answers.append([item.name in truth[caption] for caption in captions])
    pairs = torch.stack([torch.tensor(clip_of_caption), torch.arange(len(captions))], dim=1)
    mels, lengths = pad([item.mels for item in items])
    return Batch(mels, lengths, captions, torch.tensor(answers), pairs)


class Training(SystemModule):
    """What lightning does with the model: one step of training, one of validation, the optimizer."""

    def __init__(self, model: Retriever, validation: Split):
        super().__init__(model)
        self.split = validation

    def encode(self, batch: Batch) -> Tensor:
        """Embed the batch's clips as (N, 300)."""
        if self.model.config.padding == "clip":
            return self.model.encode(batch.mels, batch.lengths)
        longest = (
            batch.lengths.max()
        )  # the zeros of shorter clips up to its end are frames like any other, as published
        return self.model.encode(batch.mels[:, :longest], longest.expand(len(batch.lengths)))

    def loss(self, batch: Batch, clips: Tensor) -> Tensor:
        """The triplet loss of a batch whose clips are embedded as (N, 300)."""
        scores = clips @ self.model.embed_text(batch.captions).T  # (N, captions)
        return triplet(scores, batch.answers, batch.pairs, self.model.config.margin)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Encode the batch's clips, and return the loss."""
        loss = self.loss(batch, self.encode(batch))
        size = len(batch.mels)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the clips of the last time."""
        self.clips: list[Tensor] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Keep the clips' embeddings, and log the loss."""
        self.clips.append(self.encode(batch))
        self.log("validation_loss", self.loss(batch, self.clips[-1]), prog_bar=True, batch_size=len(batch.mels))

    def on_validation_epoch_end(self) -> None:
        """Answer every caption of the validation split, and log mAP@10 and R@10."""
        clips = torch.cat(self.clips)
        scores = self.model.embed_text(self.split.queries) @ clips.T
        self.log_dict(retrieval_metrics(self.split, scores), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        return torch.optim.Adam(self.model.parameters(), lr=self.model.config.learning_rate)


# The three names of the contract -------------------------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split, choosing the best epoch on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    kept = run.folder / "words.bin"
    if kept.exists():
        vectors = words.read_vectors(kept)
    elif config.words == "train":
        if config.tokens == "cased":
            split = tokens.cased_words
        else:
            split = words.words_without_hyphens
        vectors = words.train_vectors(development.captions, epochs=config.words_epochs, seed=run.seed, split=split)
    else:
        vectors = words.read_vectors(Path(config.words), limit=config.words_limit)
    if not kept.exists():
        prepare(vectors, config, development.captions, run.seed)
    lightning.seed_everything(run.seed, verbose=False)
    model = Retriever(config, vectors)
    clips = {split.name: make_items(split, model.log_mel, run.cache) for split in (development, validation)}
    to_train = clips[DEVELOPMENT]
    if config.sampler == "caption":
        to_train = by_caption(to_train)

    run.start()
    if not kept.exists():
        words.write_vectors(vectors, kept)
    truth = {**validation.captions, **development.captions}
    module = Training(model, validation)
    run.fit(module, to_train, clips[VALIDATION], partial(make_batch, truth=truth), config)
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features="log-mel energies",
        word_embeddings="Word2Vec" if config.words == "train" else metadata_name(config.words),
        machine_learning_method="cross-modal alignment",
        audio_modelling="CRNN",
        word_modelling="mean of word vectors",
        loss_function="triplet loss",
    )
    run.describe(load_model(run.best), description)


def prepare(vectors: KeyedVectors, config: Config, captions: Iterable[str], seed: int) -> None:
    """Add the vector of unknown words and center all, in place, as the config has it."""
    split = word_splitter(config, vectors)
    if config.unknown == "draw":
        different_words = set(chain.from_iterable(map(split, captions)))
        known = different_words.intersection(vectors.key_to_index)
        vectors.add_vectors([tokens.UNKNOWN], [tokens.unknown_vector(vectors, known, seed)])
        vectors.allocate_vecattrs()  # which add_vectors forgets and writing needs
    if config.center:
        words.center(vectors, captions, split)


def make_items(split: Split, log_mel: LogMel, cache: Path) -> list[Item]:
    """Every clip of a split with its features and all its captions."""
    features = log_mels(split.paths, log_mel, cache)
    return [Item(clip.file_name, mels, clip.captions) for clip, mels in zip(split.clips, features, strict=True)]


def by_caption(items: Sequence[Item]) -> list[Item]:
    """Return an item for each caption, with its clip."""
    single = []
    for item in items:
        single += [Item(item.name, item.mels, (caption,)) for caption in item.captions]
    return single


def load_model(checkpoint: Path) -> Retriever:
    """Give back the model of a checkpoint in its run folder, where the word vectors lie too."""
    state = read_checkpoint(checkpoint, config=dict)
    model = Retriever(Config(**state["config"]), words.read_vectors(checkpoint.parent.parent / "words.bin"))
    load_weights(model, state, checkpoint)
    return model.eval()
