"""The baseline retriever of DCASE 2022 task 6B (Xie et al. 2022). Read this module from top to bottom.

    dcase-systems train baseline.retriever --config baseline/retriever.yaml --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

A CRNN maps the log-mel energies of a clip to frame vectors. Their mean is the clip's embedding. The mean of a caption's
word2vec vectors is the caption's embedding. The triplet loss moves a clip and its captions together, and moves
impostors away. An impostor is a caption that does not belong to the clip, or a clip that the caption does not belong
to. Only the CRNN is trained. The clips are ranked by the dot product of their embeddings with the query's embedding.

baseline/retriever-published.yaml has the settings of the published code (xieh97/dcase2022-audio-retrieval@f6fad50).
With these settings and the same weights, embeddings of a batch with clips of different lengths differ from those of the
published code by at most 2e-7. Gradients, which are as large as 0.9, differ by at most 5e-6. Config keys cannot remove
the following differences:

- Impostors: the published code never draws the impostor caption from the captions of the impostor clip. This module
  draws the two independently. In both, the distribution of a single draw is uniform, so the expected loss is the same.
- Captions of several clips: if several clips share a caption, it is not used as an impostor for any of these clips. The
  published code may use it. Clotho has 16 such captions among its 19,195 training captions.
- Validation loss: the published code draws batches of pairs at random. In this module, a validation batch contains
  clips in order, each with all of its captions.
- Words: see `baseline.cased_words`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
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

from baseline.cased_words import UNKNOWN, cased_words, known_words, unknown_vector
from baseline.crnn import CRNN, FLOOR, STRIDE
from evaluation.data.audio import LogMel
from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset, Split
from evaluation.downloads import Download
from systems.caching.features import log_mels
from systems.parts import words
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.descriptions import describe_system
from systems.parts.extra import ExtraCaptions, WithExtra, choose_extra
from systems.parts.losses import dot_products, triplet
from systems.parts.validation import retrieval_metrics
from systems.training import Run, Schedule, metadata_name, read_checkpoint

PAPER = "Xie et al. 2022, DCASE task 6B"
PARAMETERS = 732_354  # number of parameters of the CRNN; the word vectors are not trained
STOP_FROM, STOP_VALUES = 60, 10  # constants for `stop_deviation`, from the published code's conf.yaml


class Config(ExtraCaptions, Schedule):
    """The settings.

    In our tests, the defaults gave better retrieval than the published settings. For the settings of the published
    code, use baseline/retriever-published.yaml.

    In the comments, "published" means the published code, xieh97/dcase2022-audio-retrieval@f6fad50. If the paper
    differs from this code, the comment names both.
    """

    monitor: Literal["mAP@10", "loss"] = "mAP@10"  # the validation value that chooses the best epoch; published: loss
    plateau_threshold: float | None = Field(None, ge=0)  # smallest improvement that counts; None: any; published: 0.01
    stop_deviation: float | None = Field(None, gt=0)  # stop if values vary less; None: use `patience`; published: 0.01
    words: str = "train"  # `train` (on the development captions), or a file of word vectors (word2vec's .bin or text)
    words_limit: int | None = 200_000  # maximum number of words from a file, frequent ones first; published: None (all)
    words_epochs: int = Field(50, ge=1)  # epochs of training word vectors
    tokens: Literal["lower", "cased"] = "lower"  # lower-case words; published: cased (`baseline.cased_words`)
    unknown: Literal["skip", "draw"] = "skip"  # leave out words without a vector; published: draw one vector for all
    center: bool = True  # subtract the mean caption vector (`words.center`); not in the paper and not in the code
    slope: float = 0.1  # of the leaky ReLU for negative values; the paper states -0.1, the code uses 0.1
    pooling_floor: float = Field(FLOOR, ge=0)  # added before the root, for a finite gradient at 0; published: 0
    dropout: float = Field(0.3, ge=0, lt=1)
    score: Literal["cosine", "dot"] = "cosine"  # the paper states the dot product; the code normalises first
    margin: float = Field(1.0, gt=0)  # of the triplet loss
    sampler: Literal["clip", "caption"] = "clip"  # encode a clip once, with all its captions; published: once for each
    padding: Literal["clip", "batch"] = "clip"  # where a clip ends in training: at its own end; published: the batch's

    @model_validator(mode="after")
    def check_gradient(self) -> "Config":
        """Refuse a pooling floor of 0 if there are zeros after a clip's end, because their gradient would be NaN."""
        if self.pooling_floor == 0 and self.padding == "clip":
            raise ValueError(
                "pooling_floor must be above 0 with padding: clip; found 0: raise it, or set padding: batch"
            )
        return self

    def lowers_rate(self, values: Sequence[float]) -> bool:
        """Return True if the learning rate falls after the last of `values` (higher is better).

        With `plateau_threshold`, the rule is that of torch's ReduceLROnPlateau. The rate falls after more than
        `plateau` epochs without an improvement of more than the threshold. Epochs are counted from the last improvement
        or the last fall. If `plateau_threshold` is None, the rule is the paper's: any improvement counts.
        """
        if self.plateau_threshold is None:
            return super().lowers_rate(values)
        best = -np.inf
        epochs_without_improvement = 0
        falls = False
        for value in values:
            epochs_without_improvement += 1
            if value > best + self.plateau_threshold:
                best = value
                epochs_without_improvement = 0
            falls = epochs_without_improvement > self.plateau
            if falls:
                epochs_without_improvement = 0
        return falls

    def stops(self, values: Sequence[float]) -> bool:
        """Return True if training stops after the last of `values` (higher is better).

        With `stop_deviation`, the rule is that of Ray's TrialPlateauStopper in the published code. Training stops as
        soon as there are at least sixty values and the last ten have a standard deviation below `stop_deviation`. In
        the published code, the first value is that of the untrained model. `values` do not contain it, so 59 of them
        are enough. If `stop_deviation` is None, the rule is the paper's: training stops after `patience` epochs without
        improvement.
        """
        if self.stop_deviation is None:
            return super().stops(values)
        values_with_untrained = len(values) + 1
        return values_with_untrained >= STOP_FROM and float(np.std(values[-STOP_VALUES:])) < self.stop_deviation


def downloads(config: Config) -> list[Download]:
    """Return the published files that a config needs."""
    if config.words == "train":
        return []
    return [words.download(config.words)]


# The model ---------------------------------------------------------------------------------------------------------


class Retriever(nn.Module):
    """A model that embeds audio and text in the space of the word vectors.

    Args:
        config: The config.
        vectors: The word vectors.
    """

    def __init__(self, config: Config, vectors: KeyedVectors):
        super().__init__()
        self.config, self.vectors = config, vectors
        self.log_mel = LogMel()
        self.sample_rate = self.log_mel.sample_rate
        self.audio_encoder = CRNN(config.slope, config.dropout, config.pooling_floor)
        self.split = word_splitter(config, vectors)

    def encode(self, mels: Tensor, lengths: Tensor) -> Tensor:
        """Encode log-mel energies.

        The CRNN returns one vector every four frames. As published, these vectors are interpolated to one vector for
        each frame, and the mean over frames is the embedding.

        Args:
            mels: (N, T, 64) log-mel energies.
            lengths: (N,) number of frames of each clip.

        Returns:
            (N, 300) embeddings.
        """
        vectors, counts = self.audio_encoder(mels, lengths)  # (N, T / 4, 300), (N,)
        weights = interpolation_weights(counts, lengths, vectors.shape[1])  # (N, T / 4)
        return self.normalize((vectors * weights[..., None]).sum(1))

    def embed_audio(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Embed audio.

        Args:
            audio: (N, samples) mono audio at `sample_rate`.
            lengths: (N,) number of samples of each clip.

        Returns:
            (N, 300) embeddings.
        """
        clips = [samples[:length].cpu().numpy() for samples, length in zip(audio, lengths, strict=True)]
        return self.encode(*pad([self.log_mel(clip) for clip in clips], audio.device))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return the (texts, 300) embeddings of texts. If a text has no word with a vector, its embedding is zeros."""
        means = words.mean_vectors(texts, self.vectors, self.split)
        return self.normalize(torch.from_numpy(means).to(next(self.parameters()).device))

    def normalize(self, embeddings: Tensor) -> Tensor:
        """Scale embeddings to length 1 if the score is the cosine."""
        if self.config.score == "cosine":
            return F.normalize(embeddings.float(), dim=1)
        return embeddings.float()


def word_splitter(config: Config, vectors: KeyedVectors) -> words.Split:
    """Return the function that splits a text into words according to the config."""
    if config.tokens == "cased":
        return partial(known_words, vectors=vectors)
    if config.unknown == "skip":
        return words.words_without_hyphens
    return partial(lower_words, vectors=vectors)


def lower_words(text: str, vectors: KeyedVectors) -> list[str]:
    """Return the lower-case words of a text, with `UNKNOWN` in place of words that have no vector."""
    lower = []
    for word in words.words_without_hyphens(text):
        if word not in vectors.key_to_index:
            word = UNKNOWN
        lower.append(word)
    return lower


def interpolation_weights(counts: Tensor, lengths: Tensor, most: int) -> Tensor:
    """Return the weight of each vector of a clip in the mean over frames, after linear interpolation.

    The published code computes `F.interpolate(vectors, lengths, mode="linear", align_corners=False)` and then the mean
    over frames. This mean is a weighted sum of the vectors. All weights are equal if `lengths` is four times `counts`.
    Otherwise, frame t is at position (t + 0.5) counts / lengths - 0.5 between the vectors. Frames before the first
    vector get the first vector, and frames after the last vector get the last one.

    Args:
        counts: (N,) number of vectors of each clip.
        lengths: (N,) number of frames of each clip.
        most: The number of columns of the result: the largest possible number of vectors.

    Returns:
        (N, most) weights that sum to one in each row, and are zero after each clip's end.
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
    """Stack the log-mel energies of clips in one tensor.

    Args:
        clips: The log-mel energies of each clip, (frames, 64).
        device: The device of the tensors.

    Returns:
        (N, T, 64) log-mel energies, which are zero after each clip's end, where T is a multiple of 4; and (N,) number
        of frames of each clip. A clip with fewer than four frames counts as one with four frames.
    """
    lengths = torch.tensor([max(len(clip), STRIDE) for clip in clips])
    longest = -(-int(lengths.max()) // STRIDE) * STRIDE
    mels = torch.zeros(len(clips), longest, clips[0].shape[1])
    for row, clip in enumerate(clips):
        mels.numpy()[row, : len(clip)] = clip
    return mels.to(device), lengths.to(device)


# The training step ---------------------------------------------------------------------------------------------------


class Item(NamedTuple):
    """A clip, which is encoded once, and one or all of its captions."""

    name: str
    mels: np.ndarray  # (frames, 64)
    captions: tuple[str, ...]


class Batch(NamedTuple):
    """Clips, their captions, and the pairs that they form."""

    mels: Tensor  # (N, T, 64)
    lengths: Tensor  # (N,) number of frames of each clip
    captions: list[str]
    answers: Tensor  # (N, captions) bool, true if the caption belongs to the clip
    pairs: Tensor  # (pairs, 2) indices of the clip and the caption of each pair


def make_batch(items: Sequence[Item], truth: dict[str, frozenset[str]]) -> Batch:
    """Make a batch. If several clips share a caption, it is not an impostor for any of these clips.

    Args:
        items: The items of the batch.
        truth: A dict from each caption to the names of all clips that it belongs to.
    """
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
    """The model's training under lightning: training step, validation step and optimizer.

    Args:
        model: The model.
        validation: The validation split.
    """

    def __init__(self, model: Retriever, validation: Split):
        super().__init__(model)
        self.split = validation

    def encode(self, batch: Batch) -> Tensor:
        """Embed the batch's clips as (N, 300)."""
        if self.model.config.padding == "clip":
            return self.model.encode(batch.mels, batch.lengths)
        # As published: a shorter clip is padded with zeros to the length of the batch's longest clip. The zeros count
        # as frames.
        longest = batch.lengths.max()
        return self.model.encode(batch.mels[:, :longest], longest.expand(len(batch.lengths)))

    def loss(self, batch: Batch, clips: Tensor) -> Tensor:
        """Return the triplet loss of a batch, given the (N, 300) embeddings of its clips."""
        similarity = dot_products(clips, self.model.embed_text(batch.captions))  # (N, captions)
        return triplet(similarity, batch.answers, batch.pairs, self.model.config.margin)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Encode the batch's clips and return the loss."""
        loss = self.loss(batch, self.encode(batch))
        size = len(batch.mels)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Drop the embeddings of the previous validation."""
        self.clips: list[Tensor] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Store the clips' embeddings and log the loss."""
        self.clips.append(self.encode(batch))
        self.log("validation_loss", self.loss(batch, self.clips[-1]), prog_bar=True, batch_size=len(batch.mels))

    def on_validation_epoch_end(self) -> None:
        """Rank the clips of the validation split for each of its captions, and log mAP@10 and R@10."""
        clips = torch.cat(self.clips)
        scores = self.model.embed_text(self.split.queries) @ clips.T
        self.log_dict(retrieval_metrics(self.split, scores), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, the published optimizer."""
        return torch.optim.Adam(self.model.parameters(), lr=self.model.config.learning_rate)


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split and choose the best epoch on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    extra = choose_extra(config, development)
    run = replace(run, data={**run.data, **extra.digests})
    captions = [*development.captions, *extra.captions]
    vectors_file = run.folder / "words.bin"
    has_vectors = vectors_file.exists()  # asked once, because another process of this training may write the file
    if has_vectors:
        vectors = words.read_vectors(vectors_file)
    elif config.words == "train":
        if config.tokens == "cased":
            split = cased_words
        else:
            split = words.words_without_hyphens
        vectors = words.train_vectors(captions, epochs=config.words_epochs, seed=run.seed, split=split)
    else:
        vectors = words.read_vectors(Path(config.words), limit=config.words_limit)
    if not has_vectors:
        prepare(vectors, config, captions, run.seed)
    lightning.seed_everything(run.seed, verbose=False)
    model = Retriever(config, vectors)
    clips = {split.name: make_items(split, model.log_mel, run.cache) for split in (development, validation)}
    regular = clips[DEVELOPMENT]
    if config.sampler == "caption":
        regular = by_caption(regular)
    to_train: Sequence[Item] | WithExtra = regular
    if extra.pairs:
        extra_items = by_caption(make_items(extra.as_split(), model.log_mel, run.cache))
        to_train = WithExtra(regular, extra_items, config.extra_share)

    run.start()
    if not has_vectors:
        words.write_vectors(vectors, vectors_file)
    truth = {**validation.captions, **extra.truth()}
    module = Training(model, validation)
    run.fit(module, to_train, clips[VALIDATION], partial(make_batch, truth=truth), config)
    if config.words == "train":
        word_embeddings = "Word2Vec"
    else:
        word_embeddings = metadata_name(config.words)
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features="log-mel energies",
        word_embeddings=word_embeddings,
        machine_learning_method="cross-modal alignment",
        audio_modelling="CRNN",
        word_modelling="mean of word vectors",
        loss_function="triplet loss",
    )
    run.describe(load_model(run.best), description)


def prepare(vectors: KeyedVectors, config: Config, captions: Iterable[str], seed: int) -> None:
    """Add a vector for unknown words (`unknown: draw`) and center all word vectors (`center: true`), in place.

    Args:
        vectors: The word vectors, which this function changes.
        config: The config.
        captions: The captions to train on.
        seed: Seed for the vector of unknown words.
    """
    split = word_splitter(config, vectors)
    if config.unknown == "draw":
        different_words = set(chain.from_iterable(map(split, captions)))
        known = different_words.intersection(vectors.key_to_index)
        vectors.add_vectors([UNKNOWN], [unknown_vector(vectors, known, seed)])
        vectors.allocate_vecattrs()  # needed for writing the vectors; add_vectors does not do it
    if config.center:
        words.center(vectors, captions, split)


def make_items(split: Split, log_mel: LogMel, cache: Path) -> list[Item]:
    """Return an item for each clip of a split, with its log-mel energies and all its captions."""
    features = log_mels(split.paths, log_mel, cache)
    return [Item(clip.file_name, mels, clip.captions) for clip, mels in zip(split.clips, features, strict=True)]


def by_caption(items: Sequence[Item]) -> list[Item]:
    """Return an item for each caption of the given items, with its clip."""
    single = []
    for item in items:
        single += [Item(item.name, item.mels, (caption,)) for caption in item.captions]
    return single


def load_model(checkpoint: Path) -> Retriever:
    """Load the model from a checkpoint in a run folder, and its word vectors from the run folder's words.bin."""
    state = read_checkpoint(checkpoint, config=dict)
    model = Retriever(Config(**state["config"]), words.read_vectors(checkpoint.parent.parent / "words.bin"))
    load_weights(model, state, checkpoint)
    return model.eval()
