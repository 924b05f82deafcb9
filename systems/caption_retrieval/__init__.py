"""Captions by similar sound (Koizumi et al. 2020, section 3.2), to be read from top to bottom.

    python -m systems train systems.caption_retrieval --data DIR --run RUN
    python -m systems predict RUN --data DIR --split evaluation

A clip is answered with the caption of the training clip whose sound is nearest. What is near is learnt: a frozen audio
encoder gives a clip's frames, one Transformer encoder layer changes them, and end to end, scaled to length 1, they are
its embedding. Clips whose captions are similar (`similarity`: BERTScore) are pulled together by a triplet loss with
semi-hard negatives. With `embedding: raw` nothing is learnt, and the frames end to end are the embedding: the paper's
1NN. As a captioner it is a floor for others, and the first half of one, `systems.guided_gpt2`.

The paper's clips are all of one length. Here a clip is cut or padded to so many frames, `frames`, by default the median
of the development clips; what is cut is said. Padding is not attended to. It is zeros in an embedding, from which the
frames that only the longer of two clips has are as far as they are from zero: with `raw`, clips of one length are
compared by their sound alone, and those of different lengths by length too. `frames` no larger than the shortest clip
makes 1NN a floor by sound there. A clip with several captions is answered with the first; two clips are similar where
any of their captions are, or are the same.

Where the paper is silent: four heads, 512 values between the layer's two linear layers, no dropout but the one before
it; of weights that begin as N(0, 0.02) the biases begin at 0 and the norms at 1; a step has the loss of those anchors
that have a semi-hard negative among the clips of their batch, one of which is drawn; the loss that chooses the best
epoch is that of all triplets of the validation split.
"""

import json
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

from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Clip, Dataset, Split
from evaluation.files import replacing
from evaluation.findings import NOTE, BadRequest, Faulty, Finding, say
from systems.caching.embeddings import embed
from systems.caption_retrieval import similarity
from systems.parts import encoders, texts, vocabulary
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.digests import digest
from systems.parts.optimizers import AdaBound
from systems.parts.sequences import length_mask
from systems.training import Run, Schedule, read_checkpoint, save_tensors

LIBRARY = "library.npz"  # in the run folder
TOGETHER = 512  # clips that go through the layer at once

PAPER = "Koizumi et al. 2020 (retrieval)"
PARAMETERS = "198,272 (VGGish), and the encoder's"


class Config(Schedule):
    """What can be chosen; the defaults are Triplet-Retrieval as published."""

    epochs: int = Field(200, ge=1)
    batch: int = Field(128, ge=1)  # anchors a step, each with a clip that is similar
    learning_rate: float = Field(1e-4, gt=0)  # of AdaBound, to begin with
    final_rate: float = Field(0.1, gt=0)  # of AdaBound, in the end
    monitor: Literal["loss", "CIDEr-D"] = "loss"  # the validation value that chooses the best epoch
    plateau: int = Field(200, ge=1)
    patience: int = Field(200, ge=1)
    audio_encoder: str = "vggish"  # one of `encoders.NAMES`, or any HEAR module
    audio_weights: str = ""  # file or folder of its weights; where they are looked for by default
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)  # of the encoder module's `load_model`
    audio_hop: float | None = Field(None, gt=0)  # ms between frames; the encoder's own by default
    embedding: Literal["triplet", "raw"] = "triplet"  # learnt, or the frames as they are
    frames: int | None = Field(None, ge=1)  # of a clip; the median of the development clips by default
    heads: int = Field(4, ge=1)
    hidden: int = Field(512, ge=1)  # between the layer's two linear layers
    dropout: float = Field(0.3, ge=0, lt=1)  # of the frames
    margin: float = Field(0.3, gt=0)
    similarity_model: str = "roberta-large"  # of BERTScore: folder or hub name of a transformers model
    similarity_layer: int = 17  # bert-score's choice for that model
    threshold: float = Field(similarity.THRESHOLD, ge=0, le=1)  # normalised BERTScore above it is similar
    prefilter: str | None = None  # folder or hub name of a sentence encoder, which spares most pairs their BERTScore
    prefilter_above: float = Field(similarity.PASSES, ge=-1, le=1)  # the cosine that passes it
    # Of ray, that BERTScore is spread over: what is found is the same, so that a run goes on with more or none.
    workers: int = Field(0, ge=0, exclude=True)
    faiss: bool = False  # search with faiss, for large sets


# The model ---------------------------------------------------------------------------------------------------------


class Embedder(nn.Module):
    """Brings (N, T, size) frames to one embedding of length 1 (equation 6)."""

    def __init__(self, size: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        if size % heads:
            raise BadRequest(f"heads must divide the {size} values of a frame; found {heads}")
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.TransformerEncoderLayer(size, heads, hidden, dropout=0, batch_first=True)
        self.apply(initialise)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Map (N, T, size) frames, (N,) of each, to (N, T x size)."""
        mask = length_mask(lengths, frames.shape[1])
        changed = self.layer(self.dropout(frames), src_key_padding_mask=~mask)
        return F.normalize((changed * mask[..., None]).flatten(1), dim=1)


def initialise(module: nn.Module) -> None:
    """Draw a layer's weights from N(0, 0.02); biases begin at 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)


class Library(NamedTuple):
    """The training clips that are searched, kept in the run: what their embeddings follow from, and what they say."""

    frames: np.ndarray  # (clips, T, size) float32, zero behind a clip's end
    lengths: np.ndarray  # (clips,) int64, frames of each
    captions: list[list[str]]  # of each

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that change with any of it."""
        said = json.dumps(self.captions).encode()
        return digest(b"".join([self.frames.tobytes(), self.lengths.tobytes(), said]))

    def write(self, path: Path) -> None:
        """Write as npz, whole or not at all."""
        said = np.frombuffer(json.dumps(self.captions).encode(), np.uint8)
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, frames=self.frames, lengths=self.lengths, captions=said)


def read_library(path: Path) -> Library:
    """Read what `Library.write` wrote.

    Raises:
        BadRequest: There is no such file, or it is something else.
    """
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; it is written when training begins and belongs to the run")
    try:
        with np.load(path, allow_pickle=False) as file:
            return Library(file["frames"], file["lengths"], json.loads(file["captions"].tobytes()))
    except (ValueError, KeyError, OSError, EOFError):
        raise BadRequest(f"{path}: is not the clips of a training set; put the run's own back") from None


class Retriever(nn.Module):
    """Answers sounds with captions of similar ones.

    Args:
        config: The config.
        library: What is searched; needed to answer.

    Raises:
        BadRequest: The audio encoder is not on this machine, or the heads do not divide its frames.
    """

    def __init__(self, config: Config, library: Library | None = None):
        super().__init__()
        self.config, self.library = config, library
        self.audio = encoders.encoder(
            config.audio_encoder, config.audio_weights, config.audio_hop, options=config.audio_options
        )
        self.audio_encoder, self.sample_rate = self.audio.model.requires_grad_(False), self.audio.sample_rate
        raw = config.embedding == "raw"
        self.embedder = None if raw else Embedder(self.audio.size, config.heads, config.hidden, config.dropout)
        self.searched = None
        self.cut = False

    def train(self, mode: bool = True) -> "Retriever":
        """Begin training or end it; the encoder stays as it is, and what was known of the library does not."""
        super().train(mode)
        self.audio_encoder.eval()
        self.searched = None
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """What does not learn, by the prefix of its weights, and what it follows from."""
        return {"audio_encoder.": self.audio.identity}

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Embed (N, T, size) frames, (N,) of each, as (N, T x size)."""
        if self.embedder is None:
            return (frames * length_mask(lengths, frames.shape[1])[..., None]).flatten(1)
        return self.embedder(frames, lengths)

    def encode_frames(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Give the frames of (N, samples) mono sounds as the library has them; the first clip that is cut is said."""
        found = [values.cpu().numpy() for values in self.audio(audio, lengths)]
        longest = self.library.frames.shape[1]
        if not self.cut and max(map(len, found)) > longest:
            self.cut = True
            tqdm.write(f"clips are cut to {longest} frames, as in training; one has {max(map(len, found))}")
        return tuple(part.to(audio.device) for part in fitted(found, longest))

    @torch.no_grad()
    def nearest(self, frames: Tensor, lengths: Tensor, k: int) -> np.ndarray:
        """Find the k nearest clips of the library, by squared L2 distance, as (N, k) numbers, nearest first."""
        searched, k = self._searched(frames.device), min(k, len(self.library.captions))
        parts = [
            searched(self.embed(frames[start : start + TOGETHER], lengths[start : start + TOGETHER]).float(), k)
            for start in range(0, len(frames), TOGETHER)
        ]
        return np.concatenate(parts)

    def _searched(self, device: torch.device) -> "Exact | Faiss":
        if self.searched is None or self.searched.device != device:
            frames, lengths = torch.from_numpy(self.library.frames), torch.from_numpy(self.library.lengths)
            parts = [
                self.embed(some.to(device), count.to(device)).float()
                for some, count in zip(frames.split(TOGETHER), lengths.split(TOGETHER), strict=True)
            ]
            self.searched = (Faiss if self.config.faiss else Exact)(torch.cat(parts))
        return self.searched

    def captions(self, frames: Tensor, lengths: Tensor, k: int) -> list[list[str]]:
        """The first captions of the k nearest clips, nearest first, for each of N clips."""
        firsts = [captions[0] for captions in self.library.captions]
        nearest = np.array(firsts, dtype=object)[self.nearest(frames, lengths, k)]
        return nearest.tolist()

    def caption(self, audio: Tensor, lengths: Tensor) -> list[str]:
        """Caption (N, samples) mono sounds at `sample_rate`, of `lengths` (N,) samples."""
        return [" ".join(said.split()) for (said,) in self.captions(*self.encode_frames(audio, lengths), 1)]


class Exact:
    """All distances at once; of equal ones the first."""

    def __init__(self, embeddings: Tensor):
        self.embeddings, self.device = embeddings, embeddings.device
        self.norms = embeddings.square().sum(1)

    def __call__(self, asked: Tensor, k: int) -> np.ndarray:
        distances = torch.addmm(self.norms, asked, self.embeddings.T, alpha=-2)  # but for what is the same in a row
        return distances.argsort(dim=1, stable=True)[:, :k].cpu().numpy()


class Faiss:
    """An exact index of faiss, which holds no (asked, clips) matrix.

    Raises:
        BadRequest: faiss is not installed.
    """

    def __init__(self, embeddings: Tensor):
        try:
            import faiss
        except ModuleNotFoundError:
            raise BadRequest("faiss: must be installed to search with; install faiss-cpu, or set it false") from None
        self.device = embeddings.device
        self.index = faiss.IndexFlatL2(embeddings.shape[1])
        self.index.add(embeddings.cpu().numpy())

    def __call__(self, asked: Tensor, k: int) -> np.ndarray:
        return self.index.search(asked.cpu().numpy(), k)[1]


def fitted(frames: Sequence[np.ndarray], longest: int) -> tuple[Tensor, Tensor]:
    """Cut (T, size) sequences, or pad them with zeros, to (N, longest, size), and give their lengths (N,)."""
    found = np.zeros((len(frames), longest, frames[0].shape[1]), np.float32)
    for row, sequence in zip(found, frames, strict=True):
        row[: len(sequence)] = sequence[:longest]
    return torch.from_numpy(found), torch.tensor([min(len(sequence), longest) for sequence in frames])


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Anchors, and behind them a clip that is similar to each."""

    frames: Tensor  # (2N, T, size)
    lengths: Tensor  # (2N,)
    strange: Tensor  # (N, 2N) bool, whether a clip is not similar to an anchor, nor itself one


class Material:
    """A split's clips as the model takes them, and which of them are similar.

    Args:
        split: The split.
        frames: (T, size) of each clip.
        longest: Frames that each is cut or padded to.
        alike: (clips, clips) bool, sparse.
    """

    def __init__(self, split: Split, frames: Sequence[np.ndarray], longest: int, alike: scipy.sparse.csr_array):
        self.split, self.alike = split, alike
        self.frames, self.lengths = fitted(frames, longest)
        cut, padded = (sum(map(test, frames)) for test in (lambda f: len(f) > longest, lambda f: len(f) < longest))
        if cut or padded:
            message = f"of {len(frames)} clips {cut} are cut and {padded} are padded to {longest} frames"
            say([Finding(split.name, message=message, severity=NOTE)])

    @property
    def anchors(self) -> list[int]:
        """The clips that have similar ones."""
        return np.flatnonzero(np.diff(self.alike.indptr)).tolist()

    def similar(self, clip: int) -> np.ndarray:
        """The clips that are similar to one."""
        return self.alike.indices[self.alike.indptr[clip] : self.alike.indptr[clip + 1]]

    def batch(self, anchors: Sequence[int]) -> Batch:
        """Draw for each anchor a similar clip, and lay them side by side."""
        near = [self.similar(anchor) for anchor in anchors]
        positives = [int(some[torch.randint(len(some), ()).item()]) for some in near]
        clips = [*anchors, *positives]
        strange = [~np.isin(clips, [anchor, *some]) for anchor, some in zip(anchors, near, strict=True)]
        return Batch(self.frames[clips], self.lengths[clips], torch.from_numpy(np.stack(strange)))


def alike_clips(clips: Sequence[Clip], captions: Sequence[str], similar: similarity.Similar) -> scipy.sparse.csr_array:
    """Which clips have captions that are the same or similar, as (clips, clips) bool; none is similar to itself.

    Args:
        clips: The clips.
        captions: All their captions, each once.
        similar: Which of them are similar.
    """
    numbers = {caption: number for number, caption in enumerate(captions)}
    rows, columns = [], []
    for row, clip in enumerate(clips):
        for caption in set(clip.captions):
            rows.append(row)
            columns.append(numbers[caption])
    shape = len(clips), len(captions)
    owned = scipy.sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape)
    graph = (np.ones(len(similar.neighbours), np.float32), similar.neighbours, similar.starts)
    near = scipy.sparse.csr_array(graph, (len(captions), len(captions))) + scipy.sparse.eye_array(len(captions))
    alike = (owned @ near @ owned.T).tocsr()
    alike.setdiag(0)
    alike.eliminate_zeros()
    alike.sort_indices()
    return alike


def semi_hard(distances: Tensor, positive: Tensor, strange: Tensor, margin: float) -> Tensor:
    """Which clips are semi-hard negatives of an anchor (equation 8): farther than its positive, by less than a margin.

    Args:
        distances: (N, M) squared distances of N anchors to M clips.
        positive: (N,) squared distance of each to its positive.
        strange: (N, M) bool, which clips are not similar to the anchor.
        margin: The margin.
    """
    positive = positive[:, None]
    return strange & (distances >= positive) & (distances < positive + margin)


def squared(one: Tensor, other: Tensor) -> Tensor:
    """Squared L2 distances of (N, size) and (M, size) embeddings of length 1, as (N, M)."""
    return 2 - 2 * one @ other.T


class Training(SystemModule):
    """What lightning does with the model: one step of training, one of validation, the optimizer."""

    def __init__(self, model: Retriever, validation: Material):
        super().__init__(model)
        self.validation = validation

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Embed anchors and positives, and return the mean loss (7) of the anchors that have a semi-hard negative."""
        embedded = self.model.embed(batch.frames, batch.lengths).float()
        count = len(batch.strange)
        distances = squared(embedded[:count], embedded)  # (N, 2N)
        positive = distances.diagonal(count)
        chosen = semi_hard(distances.detach(), positive.detach(), batch.strange, self.model.config.margin)
        drawn = torch.rand_like(distances).masked_fill(~chosen, -1).argmax(1, keepdim=True)
        has = chosen.any(1)
        losses = F.relu(positive - distances.gather(1, drawn).squeeze(1) + self.model.config.margin)
        loss = (losses * has).sum() / has.sum().clamp(min=1)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=count, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the library's embeddings of the last time, and the clips."""
        self.model.searched, self.embedded = None, []

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Keep the clips' embeddings."""
        self.embedded.append(self.model.embed(*batch).float())

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss (7) over all triplets of the split, and CIDEr-D of the captions that are found."""
        embedded, material = torch.cat(self.embedded), self.validation
        total = count = 0
        for anchor in material.anchors:
            distances = squared(embedded[[anchor]], embedded)[0]
            near = torch.from_numpy(material.similar(anchor).astype(np.int64)).to(distances.device)
            strange = torch.ones_like(distances, dtype=torch.bool)
            strange[near] = strange[anchor] = False
            hinges = F.relu(distances[near, None] - distances[strange] + self.model.config.margin)
            total, count = total + hinges.sum().item(), count + hinges.numel()
        self.log("validation_loss", total / max(1, count), prog_bar=True)
        captions = self.model.captions(material.frames.to(self.device), material.lengths.to(self.device), 1)
        self.log("validation_CIDEr-D", vocabulary.cider(material.split, [one for (one,) in captions]), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdaBound, as published."""
        config = self.model.config
        return AdaBound(self.model.embedder.parameters(), lr=config.learning_rate, final_lr=config.final_rate)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep what the model follows from besides its weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["library"] = self.model.library.digest


# The three names of the contract -------------------------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split, choosing the best epoch on the validation split."""
    fit(*prepare(config, dataset, run), run)


def prepare(config: Config, dataset: Dataset, run: Run) -> tuple[Retriever, Material, Material]:
    """Make the model, and the development and validation clips as it takes them; nothing is written into the run.

    Raises:
        Faulty: A clip cannot be used, or has no caption to compare; with all such.
        BadRequest: A model is not on this machine, or no two clips have similar captions.
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
            least = similar.least  # of the training set, which validation is normalised by too
            alike = alike_clips(split.clips, captions, similar)
            if not alike.nnz and (split.name == DEVELOPMENT or config.monitor == "loss"):
                advice = "lower threshold" + (", or set monitor to CIDEr-D" if split.name == VALIDATION else "")
                raise BadRequest(
                    f"the {split.name} split must have two clips with similar captions; of its {len(captions)} "
                    f"captions no two clips' have a normalised BERTScore above {config.threshold:g}: {advice}"
                )
        materials.append(Material(split, sequences, longest, alike))
    development, validation = materials
    said = [list(clip.captions) for clip in development.split.clips]
    model.library = Library(development.frames.numpy(), development.lengths.numpy(), said)
    return model, development, validation


def fit(model: Retriever, development: Material, validation: Material, run: Run) -> None:
    """Train what `prepare` made, or go on training it."""
    config = model.config
    run.start()
    if not (run.folder / LIBRARY).exists():
        model.library.write(run.folder / LIBRARY)
    if model.embedder:

        def collate(items: Sequence[int | tuple[Tensor, Tensor]]) -> Batch | tuple[Tensor, Tensor]:
            if isinstance(items[0], int):
                return development.batch(items)
            return tuple(torch.stack(parts) for parts in zip(*items, strict=True))

        items = list(zip(validation.frames, validation.lengths, strict=True))
        run.fit(Training(model, validation), development.anchors, items, collate, config)
    elif not run.best.exists():
        state = {"state_dict": {}}
        Training(model, validation).on_save_checkpoint(state)
        save_tensors(state, run.best)
    learns = model.embedder is not None
    if learns:
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
    """Make sure that every clip of a split has a caption.

    Raises:
        Faulty: A clip has none, or a blank one; with all that have.
    """
    message = "must have captions, none of them empty; write one"
    findings = []
    for clip in split.clips:
        written = [caption for caption in clip.captions if caption.strip()]
        if not written or len(written) < len(clip.captions):
            findings.append(Finding(split.name, column=clip.file_name, message=message))
    if findings:
        raise Faulty(findings)
    return split


def similar_captions(
    config: Config, captions: Sequence[str], cache: Path, least: float | None = None
) -> similarity.Similar:
    """Which of some distinct captions are similar, by the config's model; raises as `similarity.similar` does."""
    encode = texts.encoder(config.similarity_model, config.similarity_layer)
    if not isinstance(encode, texts.Transformer):
        what = "must be a transformers model, whose tokens are compared; found word vectors"
        raise BadRequest(f"similarity_model: {config.similarity_model}: {what}")
    prefilter = None
    if config.prefilter:
        sentence = texts.encoder(config.prefilter, output="sentence")
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
    """Give back the model of a checkpoint in its run folder, where the clips that are searched lie too.

    Raises:
        BadRequest: The encoder is not on this machine or another than in training, or the clips are others.
    """
    state = read_checkpoint(checkpoint, config=dict, frozen=dict, library=str)
    path = checkpoint.parent.parent / LIBRARY
    model = Retriever(Config(**state["config"]), read_library(path))
    if state["library"] != model.library.digest:
        raise BadRequest(f"{path}: must be the clips that {checkpoint} was trained with; put the run's own back")
    load_weights(model, state, checkpoint)
    return model.eval()
