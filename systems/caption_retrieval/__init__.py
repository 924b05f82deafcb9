"""Captions of similar training clips (Koizumi et al. 2020, section 3.2). Read this module from top to bottom.

    dcase-systems train systems.caption_retrieval --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

The system captions a clip with the caption of the nearest training clip. A frozen audio encoder encodes a clip as a
sequence of frames, and one trained Transformer encoder layer transforms them. The clip's embedding is the concatenation
of the transformed frames, scaled to length 1. A triplet loss with semi-hard negatives moves the embeddings of clips
with similar captions together. `similarity.py` defines which captions are similar, by BERTScore. With `embedding: raw`,
nothing is trained, and the embedding is the concatenation of the encoder's frames. This is the paper's 1NN. Other
captioners should score higher than this simple system. It is also the first stage of `systems.guided_gpt2`.

In the paper, all clips have the same length. In this module, each clip is cut or padded to `frames` frames (default:
the median of the development clips), and the numbers of cut and padded clips are reported. Padding is masked in
attention and is zero in the embedding. If one of two clips is longer, each of its additional frames therefore adds its
squared distance from zero to the squared distance between the clips. With `raw`, clips of equal length are compared
only by their audio, and clips of different lengths also by their lengths. To compare all clips only by their audio, set
`frames` to the number of frames of the shortest clip, or less. If the nearest clip has several captions, the system
returns the first one. Two clips are similar if a caption of one clip is similar or equal to a caption of the other.

The paper leaves these points open. In this module, the layer has four heads and 512 values between its two linear
layers. Dropout is applied only before the layer. Weights are drawn from a normal distribution with standard deviation
0.02; biases start with 0 and norms with 1. The loss of a training step is the mean over the anchors that have a
semi-hard negative among the clips of the batch. One such negative is drawn for each anchor. The loss that chooses the
best epoch is the mean over all triplets of the validation split.
"""

import json
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from evaluation import npz
from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Clip, Dataset, Split
from evaluation.downloads import Download
from evaluation.files import replacing
from evaluation.findings import NOTE, BadRequest, Faulty, Finding, say
from systems.caching.embeddings import embed
from systems.caption_retrieval import similarity
from systems.parts import encoders, texts, vocabulary
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.digests import digest
from systems.parts.losses import dot_products
from systems.parts.optimizers import AdaBound
from systems.parts.sequences import length_mask
from systems.training import Run, Schedule, read_checkpoint, save_tensors

LIBRARY = "library.npz"  # name of the library's file in the run folder
CLIPS_PER_CALL = 512  # number of clips that go through the layer at once

PAPER = "Koizumi et al. 2020 (retrieval)"
PARAMETERS = "198,272 (VGGish) + encoder"


class Config(Schedule):
    """The settings; the defaults are Triplet-Retrieval as published."""

    epochs: int = Field(200, ge=1)
    batch: int = Field(128, ge=1)  # anchors in a training step, each with a similar clip
    learning_rate: float = Field(1e-4, gt=0)  # initial learning rate of AdaBound
    final_rate: float = Field(0.1, gt=0)  # final learning rate of AdaBound
    monitor: Literal["loss", "CIDEr-D"] = "loss"  # the validation value that chooses the best epoch
    plateau: int = Field(200, ge=1)
    patience: int = Field(200, ge=1)
    audio_encoder: str = "vggish"  # one of `encoders.NAMES`, or any HEAR module
    audio_weights: str = ""  # file or folder of its weights; empty: the encoder's default place
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)  # arguments for the encoder's `load_model`
    audio_hop: float | None = Field(None, gt=0)  # ms between frames; None: the encoder's own hop
    embedding: Literal["triplet", "raw"] = "triplet"  # trained with the triplet loss, or the encoder's own frames
    frames: int | None = Field(None, ge=1)  # number of frames of a clip; None: the median of the development clips
    heads: int = Field(4, ge=1)
    hidden: int = Field(512, ge=1)  # values between the layer's two linear layers
    dropout: float = Field(0.3, ge=0, lt=1)  # of the frames
    margin: float = Field(0.3, gt=0)  # of the triplet loss
    similarity_model: str = "roberta-large"  # for BERTScore: folder or hub name of a transformers model
    similarity_layer: int = 17  # bert-score's choice for roberta-large
    threshold: float = Field(similarity.THRESHOLD, ge=0, le=1)  # pairs with a higher normalised BERTScore are similar
    prefilter: str | None = None  # folder or hub name of a sentence encoder that excludes most pairs from BERTScore
    prefilter_above: float = Field(similarity.PASSES, ge=-1, le=1)  # pairs with a higher cosine pass the prefilter
    # Ray workers that compute BERTScore. The results are the same with any number, so a run can resume with another.
    workers: int = Field(0, ge=0, exclude=True)
    faiss: bool = False  # search with faiss, for large data sets


def downloads(config: Config) -> list[Download]:
    """Return the published files and models that a config needs."""
    needed = encoders.downloads(config.audio_encoder, config.audio_weights, config.audio_options)
    if config.embedding == "triplet":
        needed += similarity_downloads(config)
    return needed


def similarity_downloads(config: Config) -> list[Download]:
    """Return the models that `similar_captions` needs."""
    names = [config.similarity_model]
    if config.prefilter:
        names.append(config.prefilter)
    return [texts.download(name) for name in names]


# The model ---------------------------------------------------------------------------------------------------------


class Embedder(nn.Module):
    """The trained layer, which maps frames to one embedding of length 1 (equation 6).

    Args:
        size: Number of values in a frame.
        heads: Number of attention heads.
        hidden: Number of values between the layer's two linear layers.
        dropout: Dropout rate of the frames.

    Raises:
        BadRequest: The number of values in a frame is not a multiple of the number of heads.
    """

    def __init__(self, size: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        if size % heads:
            raise BadRequest(
                f"heads must divide the {size} values of a frame; found {heads}: choose a divisor of {size}"
            )
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.TransformerEncoderLayer(size, heads, hidden, dropout=0, batch_first=True)
        self.apply(initialise)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (N, T, size) frames and the (N,) numbers of frames of N clips to (N, T x size) embeddings."""
        mask = length_mask(lengths, frames.shape[1])
        transformed = self.layer(self.dropout(frames), src_key_padding_mask=~mask)
        return F.normalize((transformed * mask[..., None]).flatten(1), dim=1)


def initialise(module: nn.Module) -> None:
    """Draw a layer's weights from a normal distribution with standard deviation 0.02, and set its biases to 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)


class Library(NamedTuple):
    """The training clips that are searched, with their frames and captions. The run folder contains this library."""

    frames: np.ndarray  # (clips, T, size) float32, zero after a clip's end
    lengths: np.ndarray  # (clips,) int64, number of frames of each clip
    captions: list[list[str]]  # the captions of each clip

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that change with any frame, length or caption."""
        captions = json.dumps(self.captions).encode()
        return digest(b"".join([self.frames.tobytes(), self.lengths.tobytes(), captions]))

    def write(self, path: Path) -> None:
        """Write the library as NPZ. The file is put in its place only after all data are written."""
        captions = np.frombuffer(json.dumps(self.captions).encode(), np.uint8)
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, frames=self.frames, lengths=self.lengths, captions=captions)


def read_library(path: Path) -> Library:
    """Read a file that `Library.write` wrote.

    Raises:
        BadRequest: There is no such file, or it is damaged.
    """
    advice = "put the run's own file back, or train again"
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; it is written when training begins and belongs to the run: {advice}")
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {key: npz.read_header(archive, key) for key in Library._fields}
            needed, size = sum(header.bytes for header in headers.values()), path.stat().st_size
            if needed > size:  # `write` does not compress
                raise ValueError(f"its arrays would take {needed} bytes, but the file has {size}")
            arrays = {key: npz.read_array(archive, key) for key in headers}
        library = Library(arrays["frames"], arrays["lengths"], json.loads(arrays["captions"].tobytes()))
        if library.frames.ndim != 3 or not len(library.frames) == len(library.lengths) == len(library.captions):
            raise ValueError("its frames, lengths and captions belong to different numbers of clips")
    except Exception as error:  # zipfile, zlib, json and numpy raise almost anything for a damaged file
        raise BadRequest(
            f"{path}: must hold the training clips' frames, lengths and captions, but it is damaged ({error}); {advice}"
        ) from None
    return library


class Retriever(nn.Module):
    """A model that captions audio with captions of similar training clips.

    Args:
        config: The config.
        library: The clips to search. Only captioning needs them.

    Raises:
        BadRequest: The audio encoder is not on this machine, or the number of values in its frames is not a multiple of
            the number of heads.
    """

    def __init__(self, config: Config, library: Library | None = None):
        super().__init__()
        self.config, self._library = config, library
        self.audio = encoders.load_encoder(
            config.audio_encoder, config.audio_weights, config.audio_hop, options=config.audio_options
        )
        self.audio_encoder, self.sample_rate = self.audio.model.requires_grad_(False), self.audio.sample_rate
        self.embedder = None
        if config.embedding == "triplet":
            self.embedder = Embedder(self.audio.size, config.heads, config.hidden, config.dropout)
        self.searched: Exact | Faiss | None = None  # the index of the library's embeddings, made when it is needed
        self.cut = False  # true once a message has reported that clips are cut

    @property
    def library(self) -> Library:
        """The clips to search.

        Raises:
            ValueError: The model was made without a library.
        """
        if self._library is None:
            raise ValueError("the model has no clips to search; give it a library")
        return self._library

    @library.setter
    def library(self, library: Library) -> None:
        self._library = library

    def train(self, mode: bool = True) -> "Retriever":
        """Set training or evaluation mode, and drop the library's embeddings. The encoder stays in evaluation mode."""
        super().train(mode)
        self.audio_encoder.eval()
        self.searched = None
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """A dict from the prefix of the frozen encoder's weight names to its identity (`systems.parts.checkpoints`)."""
        return {"audio_encoder.": self.audio.identity}

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return the (N, T x size) embeddings of N clips, from (N, T, size) frames and the (N,) numbers of frames."""
        if self.embedder is None:
            return (frames * length_mask(lengths, frames.shape[1])[..., None]).flatten(1)
        return self.embedder(frames, lengths)

    def encode_frames(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode audio, and cut or pad the frames to the library's number. The first cut prints a message.

        Args:
            audio: (N, samples) mono audio at `sample_rate`.
            lengths: (N,) number of samples of each clip.

        Returns:
            (N, T, size) frames, and (N,) number of frames of each clip.
        """
        sequences = [frames.cpu().numpy() for frames in self.audio(audio, lengths)]
        most, longest = self.library.frames.shape[1], max(map(len, sequences))
        if not self.cut and longest > most:
            self.cut = True
            tqdm.write(f"clips are cut to {most} frames, as in training; one clip has {longest}")
        frames, frame_lengths = fitted(sequences, most)
        return frames.to(audio.device), frame_lengths.to(audio.device)

    @torch.no_grad()
    def nearest(self, frames: Tensor, lengths: Tensor, k: int) -> np.ndarray:
        """Find the k nearest clips of the library by squared L2 distance.

        Args:
            frames: (N, T, size) frames of N clips.
            lengths: (N,) number of frames of each clip.
            k: The number of clips to find. If the library has fewer clips, all its clips are returned.

        Returns:
            (N, k) indices of clips, nearest first.
        """
        index, k = self._index(frames.device), min(k, len(self.library.captions))
        parts = []
        for start in range(0, len(frames), CLIPS_PER_CALL):
            clips = slice(start, start + CLIPS_PER_CALL)
            parts.append(index(self.embed(frames[clips], lengths[clips]).float(), k))
        return np.concatenate(parts)

    def _index(self, device: torch.device) -> "Exact | Faiss":
        """Return the index of the library's embeddings on a device."""
        if self.searched is None or self.searched.device != device:
            frames = torch.from_numpy(self.library.frames).split(CLIPS_PER_CALL)
            lengths = torch.from_numpy(self.library.lengths).split(CLIPS_PER_CALL)
            parts = []
            for some_frames, some_lengths in zip(frames, lengths, strict=True):
                parts.append(self.embed(some_frames.to(device), some_lengths.to(device)).float())
            if self.config.faiss:
                self.searched = Faiss(torch.cat(parts))
            else:
                self.searched = Exact(torch.cat(parts))
        return self.searched

    def captions(self, frames: Tensor, lengths: Tensor, k: int) -> list[list[str]]:
        """Return the first caption of each of the k nearest clips, nearest first.

        Args:
            frames: (N, T, size) frames of N clips.
            lengths: (N,) number of frames of each clip.
            k: The number of captions for each clip.
        """
        first_captions = []
        for numbers in self.nearest(frames, lengths, k):
            first_captions.append([self.library.captions[number][0] for number in numbers])
        return first_captions

    def caption(self, audio: Tensor, lengths: Tensor) -> list[str]:
        """Caption audio with the caption of the nearest clip, on one line.

        Args:
            audio: (N, samples) mono audio at `sample_rate`.
            lengths: (N,) number of samples of each clip.
        """
        nearest = self.captions(*self.encode_frames(audio, lengths), 1)
        return [" ".join(caption.split()) for (caption,) in nearest]


class Exact:
    """An index that computes all distances at once. Clips at equal distances keep the library's order.

    Args:
        embeddings: (clips, size) embeddings to search.
    """

    def __init__(self, embeddings: Tensor):
        self.embeddings, self.device = embeddings, embeddings.device
        self.norms = embeddings.square().sum(1)

    def __call__(self, asked: Tensor, k: int) -> np.ndarray:
        """Return the indices of the k nearest clips, (N, k), for (N, size) embeddings."""
        # Squared distances, without the squared norm of `asked`: it is equal for all values of a row.
        distances = torch.addmm(self.norms, asked, self.embeddings.T, alpha=-2)
        return distances.argsort(dim=1, stable=True)[:, :k].cpu().numpy()


class Faiss:
    """An exact index of faiss. It does not store an (N, clips) matrix of distances.

    Args:
        embeddings: (clips, size) embeddings to search.

    Raises:
        BadRequest: faiss is not installed.
    """

    def __init__(self, embeddings: Tensor):
        try:
            import faiss
        except ModuleNotFoundError:
            raise BadRequest(
                "faiss=true needs the package faiss, which is not installed; install faiss-cpu, or set faiss=false"
            ) from None
        self.device = embeddings.device
        self.index = faiss.IndexFlatL2(embeddings.shape[1])
        self.index.add(embeddings.cpu().numpy())

    def __call__(self, asked: Tensor, k: int) -> np.ndarray:
        """Return the indices of the k nearest clips, (N, k), for (N, size) embeddings."""
        return self.index.search(asked.cpu().numpy(), k)[1]


def fitted(frames: Sequence[np.ndarray], longest: int) -> tuple[Tensor, Tensor]:
    """Cut sequences to `longest` frames, or pad them with zeros.

    Args:
        frames: N sequences, (T, size) each.
        longest: The number of frames to cut or pad to.

    Returns:
        (N, longest, size) float32, and (N,) the length of each sequence after the cut.
    """
    stacked = np.zeros((len(frames), longest, frames[0].shape[1]), np.float32)
    for row, sequence in zip(stacked, frames, strict=True):
        row[: len(sequence)] = sequence[:longest]
    return torch.from_numpy(stacked), torch.tensor([min(len(sequence), longest) for sequence in frames])


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """N anchors, followed by a similar clip for each of them."""

    frames: Tensor  # (2N, T, size)
    lengths: Tensor  # (2N,) number of frames of each clip
    strange: Tensor  # (N, 2N) bool, true for clips that are neither the anchor itself nor similar to it


class Material:
    """The frames of a split's clips, and the similar pairs among these clips.

    Args:
        split: The split.
        frames: (T, size) frames of each clip.
        longest: The number of frames that each clip is cut or padded to.
        alike: (clips, clips) sparse, nonzero for similar clips.
    """

    def __init__(self, split: Split, frames: Sequence[np.ndarray], longest: int, alike: scipy.sparse.csr_array):
        self.split, self.alike = split, alike
        self.frames, self.lengths = fitted(frames, longest)
        cut = sum(len(sequence) > longest for sequence in frames)
        padded = sum(len(sequence) < longest for sequence in frames)
        if cut or padded:
            message = f"of {len(frames)} clips {cut} are cut and {padded} are padded to {longest} frames"
            say([Finding(split.name, message=message, severity=NOTE)])

    @property
    def anchors(self) -> list[int]:
        """The indices of the clips that have similar clips."""
        return np.flatnonzero(np.diff(self.alike.indptr)).tolist()

    def similar(self, clip: int) -> np.ndarray:
        """Return the indices of the clips that are similar to a clip."""
        return self.alike.indices[self.alike.indptr[clip] : self.alike.indptr[clip + 1]]

    def batch(self, anchors: Sequence[int]) -> Batch:
        """Draw a similar clip for each anchor, and make a batch of the anchors and these clips."""
        similar_clips = [self.similar(anchor) for anchor in anchors]
        positives = [int(clips[torch.randint(len(clips), ()).item()]) for clips in similar_clips]
        clips = [*anchors, *positives]
        strange = []
        for anchor, similar in zip(anchors, similar_clips, strict=True):
            strange.append(~np.isin(clips, [anchor, *similar]))
        return Batch(self.frames[clips], self.lengths[clips], torch.from_numpy(np.stack(strange)))


def alike_clips(clips: Sequence[Clip], captions: Sequence[str], similar: similarity.Similar) -> scipy.sparse.csr_array:
    """Find the pairs of clips that share a caption or have similar captions.

    Args:
        clips: The clips.
        captions: All captions of the clips, without duplicates.
        similar: The similar pairs of these captions.

    Returns:
        (clips, clips) sparse, nonzero for similar clips. The diagonal is zero.
    """
    numbers = {caption: number for number, caption in enumerate(captions)}
    rows, columns = [], []
    for row, clip in enumerate(clips):
        for caption in set(clip.captions):
            rows.append(row)
            columns.append(numbers[caption])
    shape = len(clips), len(captions)
    has_caption = scipy.sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape)
    graph = (np.ones(len(similar.neighbours), np.float32), similar.neighbours, similar.starts)
    similar_or_equal = scipy.sparse.csr_array(graph, (len(captions), len(captions)))
    similar_or_equal = similar_or_equal + scipy.sparse.eye_array(len(captions))
    alike = (has_caption @ similar_or_equal @ has_caption.T).tocsr()
    alike.setdiag(0)
    alike.eliminate_zeros()
    alike.sort_indices()
    return alike


def semi_hard(distances: Tensor, positive: Tensor, strange: Tensor, margin: float) -> Tensor:
    """Find the semi-hard negatives of anchors (equation 8).

    They are as far as the positive or farther, but by less than the margin.

    Args:
        distances: (N, M) squared distances of N anchors to M clips.
        positive: (N,) squared distance of each anchor to its positive.
        strange: (N, M) bool, true if a clip is not similar to the anchor.
        margin: The margin.

    Returns:
        (N, M) bool, true for semi-hard negatives.
    """
    positive = positive[:, None]
    return strange & (distances >= positive) & (distances < positive + margin)


def squared(one: Tensor, other: Tensor) -> Tensor:
    """Return the (N, M) squared L2 distances between (N, size) and (M, size) embeddings of length 1."""
    return 2 - 2 * dot_products(one, other)


class Training(SystemModule):
    """The model's training under lightning: training step, validation step and optimizer.

    Args:
        model: The model.
        validation: The clips of the validation split.
    """

    def __init__(self, model: Retriever, validation: Material):
        super().__init__(model)
        self.validation = validation
        self.embedded: list[Tensor] = []  # embeddings of the validation clips

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the mean loss (equation 7) of the anchors that have a semi-hard negative."""
        embedded = self.model.embed(batch.frames, batch.lengths).float()
        count = len(batch.strange)
        distances = squared(embedded[:count], embedded)  # (N, 2N)
        positive = distances.diagonal(count)
        candidates = semi_hard(distances.detach(), positive.detach(), batch.strange, self.model.config.margin)
        drawn = torch.rand_like(distances).masked_fill(~candidates, -1).argmax(1, keepdim=True)
        has_negative = candidates.any(1)
        losses = F.relu(positive - distances.gather(1, drawn).squeeze(1) + self.model.config.margin)
        loss = (losses * has_negative).sum() / has_negative.sum().clamp(min=1)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=count, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Drop the embeddings of the library and of the previous validation."""
        self.model.searched = None
        self.embedded = []

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Store the clips' embeddings."""
        self.embedded.append(self.model.embed(*batch).float())

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss (equation 7) over all triplets of the split, and the CIDEr-D of the retrieved captions."""
        embedded, material = torch.cat(self.embedded), self.validation
        total = count = 0
        for anchor in material.anchors:
            distances = squared(embedded[[anchor]], embedded)[0]
            near = torch.from_numpy(material.similar(anchor).astype(np.int64)).to(distances.device)
            strange = torch.ones_like(distances, dtype=torch.bool)
            strange[near] = strange[anchor] = False
            hinges = F.relu(distances[near, None] - distances[strange] + self.model.config.margin)
            total += hinges.sum().item()
            count += hinges.numel()
        self.log("validation_loss", total / max(1, count), prog_bar=True)
        nearest = self.model.captions(material.frames.to(self.device), material.lengths.to(self.device), 1)
        captions = [caption for (caption,) in nearest]
        self.log("validation_CIDEr-D", vocabulary.validation_cider_d(material.split, captions), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdaBound, as in the paper."""
        config = self.model.config
        return AdaBound(self.model.embedder.parameters(), lr=config.learning_rate, final_lr=config.final_rate)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the digest of the library to the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["library"] = self.model.library.digest


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split and choose the best epoch on the validation split."""
    fit(*prepare(config, dataset, run), run)


def prepare(config: Config, dataset: Dataset, run: Run) -> tuple[Retriever, Material, Material]:
    """Make the model and its input for the development and validation clips. The run folder is not written to.

    Raises:
        Faulty: A clip cannot be used, or has no caption or an empty one. The exception lists all such clips.
        BadRequest: A model is not on this machine, or no two clips of a split have similar captions.
    """
    lightning.seed_everything(run.seed, verbose=False)
    model = Retriever(config)
    model.to(default_device())
    splits = [captioned(dataset[name]) for name in (DEVELOPMENT, VALIDATION)]
    frames = [embed(split.paths, model.audio, run.cache) for split in splits]
    longest = config.frames or int(np.median([len(sequence) for sequence in frames[0]]))
    least, materials = None, []
    for split, sequences in zip(splits, frames, strict=True):
        alike = scipy.sparse.csr_array((len(split.clips), len(split.clips)), dtype=np.float32)
        if model.embedder:
            captions = list(split.captions)
            similar = similar_captions(config, captions, run.cache, least)
            least = similar.least  # the minimum score of the development captions normalises validation scores too
            alike = alike_clips(split.clips, captions, similar)
            if not alike.nnz and (split.name == DEVELOPMENT or config.monitor == "loss"):
                advice = "lower threshold"
                if split.name == VALIDATION:
                    advice += ", or set monitor to CIDEr-D"
                raise BadRequest(
                    f"the {split.name} split must have two clips with similar captions; found none: among its "
                    f"{len(captions)} captions, no two of different clips are equal or have a normalised BERTScore "
                    f"above {config.threshold:g}; {advice}"
                )
        materials.append(Material(split, sequences, longest, alike))
    development, validation = materials
    captions_of_clips = [list(clip.captions) for clip in development.split.clips]
    model.library = Library(development.frames.numpy(), development.lengths.numpy(), captions_of_clips)
    return model, development, validation


def fit(model: Retriever, development: Material, validation: Material, run: Run) -> None:
    """Train a model that `prepare` made, or resume its training."""
    config = model.config
    run.start()
    if not (run.folder / LIBRARY).exists():
        model.library.write(run.folder / LIBRARY)
    if model.embedder:

        def collate(items: Sequence[int | tuple[Tensor, Tensor]]) -> Batch | tuple[Tensor, Tensor]:
            anchors = [item for item in items if isinstance(item, int)]
            if anchors:
                return development.batch(anchors)
            return tuple(torch.stack(parts) for parts in zip(*items, strict=True))

        items = list(zip(validation.frames, validation.lengths, strict=True))
        run.fit(Training(model, validation), development.anchors, items, collate, config)
    elif not run.best.exists():
        state: dict[str, object] = {"state_dict": {}}
        Training(model, validation).on_save_checkpoint(state)
        save_tensors(state, run.best)
    training: dict[str, str | None]
    if model.embedder is not None:
        training = {
            "audio_modelling": f"{config.audio_encoder} and transformer",
            "loss_function": "triplet loss",
            "optimizer": "AdaBound",
        }
    else:
        training = {
            "audio_modelling": config.audio_encoder,
            "optimizer": None,
            "learning_rate": None,
            "metric_monitored": None,
        }
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features=f"{config.audio_encoder} embeddings",
        machine_learning_method="nearest neighbour",
        **training,
    )
    run.describe(model, description)


def captioned(split: Split) -> Split:
    """Make sure that every clip has captions and that all captions have text, and return the split.

    Raises:
        Faulty: A clip has no caption, or an empty one. The exception lists all such clips.
    """
    message = "must have captions that are not empty; write one"
    findings = []
    for clip in split.clips:
        not_empty = [caption for caption in clip.captions if caption.strip()]
        if not not_empty or len(not_empty) < len(clip.captions):
            findings.append(Finding(split.name, column=clip.file_name, message=message))
    if findings:
        raise Faulty(findings)
    return split


def similar_captions(
    config: Config, captions: Sequence[str], cache: Path, least: float | None = None
) -> similarity.Similar:
    """Find the similar pairs of captions with the models that the config names.

    Args:
        config: The config.
        captions: The captions, without duplicates.
        cache: Folder of the cache.
        least: The score that is normalised to 0 (default: the minimum score of all pairs).

    Raises:
        Faulty: As in `similarity.similar`.
        BadRequest: As in `similarity.similar`, or a model is not on this machine or of another kind.
    """
    encode = texts.load_text_encoder(config.similarity_model, config.similarity_layer)
    if not isinstance(encode, texts.Transformer):
        raise BadRequest(
            f"similarity_model: {config.similarity_model}: must be a transformers model, because BERTScore compares "
            "its token embeddings; found word vectors: give another model"
        )
    prefilter = None
    if config.prefilter:
        sentence = texts.load_text_encoder(config.prefilter, output="sentence")
        prefilter = similarity.Prefilter(sentence, config.prefilter_above)
    return similarity.similar(
        captions,
        encode,
        cache,
        threshold=config.threshold,
        least=least,
        prefilter=prefilter,
        workers=config.workers,
    )


def load_model(checkpoint: Path) -> Retriever:
    """Load the model from a checkpoint in a run folder, and the library from library.npz in the same run folder.

    Raises:
        BadRequest: The encoder or the library is missing, the library is damaged, or one of them is not the one that
            was used in training.
    """
    state = read_checkpoint(checkpoint, config=dict, frozen=dict, library=str)
    path = checkpoint.parent.parent / LIBRARY
    model = Retriever(Config(**state["config"]), read_library(path))
    if state["library"] != model.library.digest:
        raise BadRequest(
            f"{path}: must hold the clips that {checkpoint} was trained with; found other clips: put the run's own "
            "file back, or train again"
        )
    load_weights(model, state, checkpoint)
    return model.eval()
