"""ATAE, aligned text and audio embeddings (Weck et al. 2022). Read this module from top to bottom.

    dcase-systems train systems.atae --config systems/atae/atae.yaml --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

An audio encoder maps a clip to a sequence of embeddings, and a text encoder does the same for a caption. One adapter
for audio and one for text map these sequences to the same size. The means over the mapped sequences are compared by
their cosine. Training moves matching audio and texts together, and all others in a batch apart. A frozen encoder
encodes each clip or caption once, and training reads these embeddings from the cache. An encoder that is trained runs
in every training step.

Training has one or more stages. Each stage uses clean captions (the data folder), noisy captions (another folder) or
both. It starts from the best epoch of the previous stage. Each stage except the last has its own folder inside the run
folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from gensim.models import KeyedVectors
from pydantic import Field, model_validator
from torch import Tensor, nn

from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Clip, Dataset, Split, read_dataset
from evaluation.downloads import Download
from evaluation.findings import BadRequest
from systems import contract
from systems.atae.teachers import Teachers, read_or_embed
from systems.caching.embeddings import embed
from systems.caching.features import waveforms
from systems.caption_retrieval import fsd50k
from systems.parts import adapters, encoders, losses, pairs, texts, words
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.extra import ExtraCaptions, WithExtra, choose_extra
from systems.parts.sequences import chunks, length_mask, masked_mean, stack_sequences
from systems.parts.validation import retrieval_metrics
from systems.runs import trained_checkpoint
from systems.training import Run, Schedule, metadata_name, read_checkpoint

Adapter = Literal["mlp", "mha", "identity"]
WORDS = "words.bin"  # in the run folder
TEACHERS = "teachers.npz"  # in the run folder

PAPER = "Weck et al. 2022"
PARAMETERS = "1,968,128 in the adapters (CNN14, DistilRoBERTa) + encoders"


class Config(Schedule, ExtraCaptions):
    """The settings; the defaults are the system ATAE as submitted."""

    learning_rate: float = Field(1e-4, gt=0)  # of Adam; the paper also names 1e-3, Adam's default
    monitor: Literal["mAP@10", "loss"] = "mAP@10"  # the validation value that chooses the best epoch
    audio_encoder: str = "cnn14"  # one of `encoders.NAMES`, or any HEAR module
    audio_weights: str = ""  # file or folder of its weights; empty: the encoder's default place
    # Keyword arguments for the encoder's load_model, such as vggish's post_activation or openl3's padding.
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)
    audio_hop: float | None = Field(None, gt=0)  # ms between embeddings; None: the encoder's own hop
    audio_scene: bool = False  # one embedding per clip (HEAR's scene embedding) instead of a sequence
    text_encoder: str = "distilroberta-base"  # folder, hub name, file of word vectors, or `train` (on the captions)
    text_layer: int = -2  # index of a transformers model's layer; -1 is the last layer
    text_output: texts.Output = "tokens"  # embeddings of all tokens, their `mean`, or a `sentence` embedding
    train_audio: bool = False  # train the audio encoder
    train_text: bool = False  # train the text encoder
    audio_adapter: Adapter = "mlp"
    text_adapter: Adapter = "mlp"
    size: int = Field(512, ge=1)  # width of the adapters' hidden layer and of their output
    loss: Literal["contrastive", "nt_xent", "triplet", "distilled"] = "contrastive"
    pairs: Literal["all", "text-audio"] = "all"  # pairs in the loss; `all` includes pairs of two clips and of two texts
    temperature: float = Field(0.07, gt=0)  # of nt_xent and distilled
    teachers: tuple[str, ...] = ()  # run folders of trained retrievers, whose similarities distilled learns
    init_from: str = ""  # run folder of a system with the same model, whose weights the training starts from
    margin: float = Field(1.0, gt=0)  # of triplet
    stages: tuple[tuple[Literal["clean", "noisy"], ...], ...] = (("clean",),)  # the training data of each stage
    noisy: str | None = None  # folder of the noisy captions: FSD50K as published, or a folder in Clotho's layout
    noisy_share: float = Field(1.0, gt=0, le=1)  # share of the noisy clips to use; the seed decides which

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if not self.stages or not all(self.stages):
            raise ValueError(
                "stages must be one or more lists, each with clean, noisy or both of them, such as [[noisy], [clean]]; "
                f"found {[list(stage) for stage in self.stages]}"
            )
        if self.audio_scene and self.audio_hop is not None:
            raise ValueError(
                "audio_hop must be null with audio_scene, which gives one embedding per clip; "
                f"found {self.audio_hop:g}: set audio_hop=null"
            )
        if any("noisy" in stage for stage in self.stages) and not self.noisy:
            raise ValueError(
                "noisy must be the folder of the noisy captions, because stages names them; found no folder: set "
                "noisy=DIR"
            )
        if (self.loss == "distilled") != bool(self.teachers):
            raise ValueError(
                f"teachers must be run folders if, and only if, loss is distilled; found {list(self.teachers)} with "
                f"the loss {self.loss}: set both teachers and loss=distilled, or neither"
            )
        if self.loss == "distilled" and len(self.stages) > 1:
            raise ValueError(
                f"stages must be one stage with the loss distilled; found {len(self.stages)}: train the earlier stages "
                "as a run of their own, and name it in init_from"
            )
        if self.text_encoder == "train" and self.text_output == "sentence":
            raise ValueError(
                "text_output must be tokens or mean with text_encoder: train, because word vectors have no sentence "
                "embedding; found sentence"
            )
        return self


def downloads(config: Config) -> list[Download]:
    """Return the published files and models that a config needs."""
    needed = encoders.downloads(config.audio_encoder, config.audio_weights)
    if config.text_encoder != "train":
        needed.append(texts.download(config.text_encoder))
    return needed


# The model ---------------------------------------------------------------------------------------------------------


class Retriever(nn.Module):
    """A model that embeds audio and texts in one space.

    Args:
        config: The config.
        vectors: Word vectors, if the config's text encoder is `train`.

    Raises:
        BadRequest: An encoder is not on this machine or cannot be trained, or the two adapters give embeddings of
            different sizes.
    """

    def __init__(self, config: Config, vectors: KeyedVectors | None = None):
        super().__init__()
        self.config = config
        self.audio = encoders.load_encoder(
            config.audio_encoder,
            config.audio_weights,
            config.audio_hop,
            scene=config.audio_scene,
            options=config.audio_options,
        )
        self.audio_encoder, self.sample_rate = self.audio.model.requires_grad_(False), self.audio.sample_rate
        if vectors:
            self.text_encoder = texts.Words(vectors, config.text_output == "mean")
        else:
            self.text_encoder = texts.load_text_encoder(config.text_encoder, config.text_layer, config.text_output)
        self.audio_adapter = adapters.adapter(config.audio_adapter, self.audio.size, config.size)
        self.text_adapter = adapters.adapter(config.text_adapter, self.text_encoder.size, config.size)
        if self.audio_adapter.size != self.text_adapter.size:
            raise BadRequest(
                f"audio and texts must get embeddings of the same size; audio_adapter {config.audio_adapter} gives "
                f"{self.audio_adapter.size} values and text_adapter {config.text_adapter} gives "
                f"{self.text_adapter.size}: choose adapters of the same size"
            )
        if config.train_audio:
            noise = torch.rand(1, self.sample_rate) - 0.5  # a second
            learn(self.audio_encoder, lambda: self.audio(noise, torch.tensor([noise.shape[1]]))[0], "audio")
        if config.train_text:
            learn(self.text_encoder, lambda: self.text_encoder(["a dog barks"])[0], "text")
        self.train()

    def train(self, mode: bool = True) -> "Retriever":
        """Set training or evaluation mode. The audio encoder and a frozen text encoder stay in evaluation mode."""
        super().train(mode)
        self.audio_encoder.eval()  # it encodes clips one by one, so its batch norms must keep their statistics
        self.text_encoder.train(mode and self.config.train_text)
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """A dict from the prefix of each frozen encoder's weights to its identity (`systems.parts.checkpoints`)."""
        frozen = {}
        if not self.config.train_audio:
            frozen["audio_encoder."] = self.audio.identity
        if not self.config.train_text:
            frozen["text_encoder."] = self.text_encoder.identity
        return frozen

    def align_audio(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map the audio encoder's output, (N, T, size) with (N,) lengths, to (N, size) embeddings of length 1."""
        return self._align(self.audio_adapter, sequences, lengths)

    def align_text(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map the text encoder's output, (N, T, size) with (N,) lengths, to (N, size) embeddings of length 1."""
        return self._align(self.text_adapter, sequences, lengths)

    @staticmethod
    def _align(adapter: nn.Module, sequences: Tensor, lengths: Tensor) -> Tensor:
        mask = length_mask(lengths, sequences.shape[1])
        return F.normalize(masked_mean(adapter(sequences, mask), mask).float(), dim=1)

    def embed_audio(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        """Embed audio.

        Args:
            sounds: (N, samples) mono audio at `sample_rate`.
            lengths: (N,) number of samples of each clip.

        Returns:
            (N, size) embeddings of length 1.
        """
        return self.align_audio(*stack_sequences(self.audio(sounds, lengths)))

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Embed texts as (texts, size)."""
        parts = chunks(captions, texts.TEXTS_PER_BATCH)
        return torch.cat([self.align_text(*self.text_encoder(part)) for part in parts])


def learn(encoder: nn.Module, embed: Callable[[], Tensor], what: str) -> None:
    """Make an encoder trainable: require gradients for the parameters that its embeddings depend on.

    All other parameters stay frozen, because DDP would wait for gradients that they never get.

    Args:
        encoder: The encoder.
        embed: A function that returns embeddings of an example.
        what: `audio` or `text`, for messages.

    Raises:
        BadRequest: The embeddings do not depend on any parameter.
    """
    parameters = list(encoder.requires_grad_(True).parameters())
    with torch.enable_grad():
        embeddings = embed()
    if not parameters or not embeddings.requires_grad:
        raise BadRequest(
            f"train_{what} must be false for this encoder, because it has no trainable parameters; found true"
        )
    gradients = torch.autograd.grad(embeddings.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """N pairs of a clip and a caption."""

    sounds: Tensor  # (N, T, size) embeddings; (N, samples) audio if the audio encoder is trained
    sound_lengths: Tensor  # (N,) number of embeddings or samples of each clip
    texts: Tensor | list[str]  # (N, T, size) embeddings; the captions if the text encoder is trained
    text_lengths: Tensor  # (N,) number of embeddings of each caption; ones if the text encoder is trained
    clips: Tensor  # (N,) indices of the clips
    owners: Tensor  # (N, K) indices of all clips that each caption belongs to
    captions: Tensor  # (N,) indices of the captions


class Material:
    """The input of a model for clips and captions.

    It consists of embeddings from frozen encoders, which are computed once, and of audio or text for encoders that are
    trained.

    Args:
        clips: The clips. The index of a clip is its index in this sequence.
        queries: Further texts, which need not be captions of these clips.
        model: The model.
        cache: Folder of the cache.
        extra: Extra captions, each with the index of its clip.

    Attributes:
        pairs: The indices (clip, caption) of every pair.
        extra: The indices (clip, caption) of every pair of a clip and one of its extra captions.
        numbers: A dict from each distinct text to its index.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        queries: Sequence[str],
        model: Retriever,
        cache: Path,
        extra: Sequence[tuple[int, str]] = (),
    ):
        self.captions, self.numbers, self.pairs, self.extra, self.owners = pairs.clip_caption_pairs(
            clips, queries, extra
        )
        self.train_text = model.config.train_text
        paths = [clip.path for clip in clips]
        model.to(default_device())
        if model.config.train_audio:
            self.sounds = waveforms(paths, model.sample_rate, cache)
        else:
            self.sounds = embed(paths, model.audio, cache)
        if not self.train_text:
            self.texts = texts.embed(self.captions, model.text_encoder, cache)

    def batch(self, pairs: Sequence[tuple[int, int]]) -> Batch:
        """Make a batch of pairs, each with the index of a clip and the index of a caption."""
        clips, captions = map(list, zip(*pairs, strict=True))
        sounds = stack_sequences([torch.from_numpy(self.sounds[number].copy()) for number in clips])
        embedded = self.caption_embeddings(captions)
        return Batch(*sounds, *embedded, torch.tensor(clips), self.owners[captions], torch.tensor(captions))

    def caption_embeddings(self, captions: Sequence[int]) -> tuple[Tensor | list[str], Tensor]:
        """Return the input of the model for captions, and their lengths.

        Args:
            captions: The indices of N captions.

        Returns:
            (N, T, size) embeddings and (N,) lengths. If the text encoder is trained, the N captions and (N,) ones.
        """
        if self.train_text:
            return [self.captions[number] for number in captions], torch.ones(len(captions))
        return stack_sequences([torch.from_numpy(self.texts[number].copy()) for number in captions])


class Training(SystemModule):
    """The model's training under lightning: training step, validation step and optimizer.

    Args:
        model: The model.
        split: The validation split.
        material: The model's input for the clips and captions of training and validation.
        teachers: The teachers' embeddings of the clips and captions, for the loss `distilled`.
    """

    def __init__(self, model: Retriever, split: Split, material: Material, teachers: Teachers | None = None):
        super().__init__(model)
        self.split, self.material, self.teachers = split, material, teachers

    def embed_sounds(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        """Embed a batch's audio as (N, size)."""
        model = self.model
        if model.config.train_audio:
            return model.embed_audio(sounds, lengths)
        return model.align_audio(sounds, lengths)

    def embed_captions(self, captions: Tensor | list[str], lengths: Tensor) -> Tensor:
        """Embed a batch's texts as (N, size)."""
        model = self.model
        if model.config.train_text:
            return model.embed_text(captions)
        return model.align_text(captions, lengths)

    def loss(self, sounds: Tensor, captions: Tensor, clips: Tensor, owners: Tensor, numbers: Tensor) -> Tensor:
        """Return the config's loss.

        Args:
            sounds: (N, size) embeddings of the clips.
            captions: (N, size) embeddings of the captions.
            clips: (N,) indices of the clips.
            owners: (N, K) indices of all clips that each caption belongs to.
            numbers: (N,) indices of the captions.
        """
        config = self.model.config
        if self.teachers:
            return losses.distilled(sounds, captions, self.teachers.similarity(clips, numbers), config.temperature)
        matches = losses.matching(clips, owners)
        if config.loss == "contrastive":
            return losses.contrastive(sounds, captions, matches, config.pairs)
        if config.loss == "nt_xent":
            return losses.nt_xent(sounds, captions, matches, config.temperature, config.pairs)
        answers = matches[: len(sounds), len(sounds) :]
        own = torch.arange(len(sounds), device=answers.device)
        return losses.triplet(sounds @ captions.T, answers, torch.stack([own, own], dim=1), config.margin)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Embed the pairs of the batch, and return the loss over the pairs of all processes."""
        sounds = self.embed_sounds(batch.sounds, batch.sound_lengths)
        captions = self.embed_captions(batch.texts, batch.text_lengths)
        loss = self.loss(*map(losses.gathered, (sounds, captions, batch.clips, batch.owners, batch.captions)))
        size = len(batch.clips)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Drop the embeddings of the previous validation."""
        self.clips: list[Tensor] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Store the clips' embeddings, and log the loss of each clip with its first caption."""
        sounds = self.embed_sounds(batch.sounds, batch.sound_lengths)
        captions = self.embed_captions(batch.texts, batch.text_lengths)
        self.clips.append(sounds)
        loss = self.loss(sounds, captions, batch.clips, batch.owners, batch.captions)
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(batch.clips))

    def on_validation_epoch_end(self) -> None:
        """Score every query of the validation split against every clip, and log mAP@10 and R@10."""
        numbers = [self.material.numbers[query] for query in self.split.queries]
        captions = []
        for part in chunks(numbers, texts.TEXTS_PER_BATCH):
            batch = self.transfer_batch_to_device(self.material.caption_embeddings(part), self.device, 0)
            captions.append(self.embed_captions(*batch))
        scores = torch.cat(captions) @ torch.cat(self.clips).T
        self.log_dict(retrieval_metrics(self.split, scores), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, the published optimizer."""
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trainable, lr=self.model.config.learning_rate)


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train in the config's stages, and choose the best epoch of each stage on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    extra = choose_extra(config, development)
    run = replace(run, data={**run.data, **extra.digests})
    clips = {"clean": development.clips}
    if config.noisy:
        noisy = read_noisy(Path(config.noisy), config.noisy_share, run.seed)
        clips["noisy"] = noisy.clips
        run = replace(run, data={**run.data, "noisy": noisy.digest})
    vectors, vectors_file = None, run.folder / WORDS
    if config.text_encoder == "train":
        if vectors_file.exists():
            vectors = words.read_vectors(vectors_file)
        else:
            captions = [*development.captions, *extra.captions]
            vectors = words.train_vectors(captions, seed=run.seed, cbow=True)
    lightning.seed_everything(run.seed, verbose=False)
    model = Retriever(config, vectors)
    for folder in config.teachers:
        contract.read_model_run(Path(folder))
    if config.init_from:
        contract.read_model_run(Path(config.init_from))
        checkpoint = trained_checkpoint(Path(config.init_from))
        load_weights(model, read_checkpoint(checkpoint), checkpoint)

    run.start()
    if vectors and not vectors_file.exists():
        words.write_vectors(vectors, vectors_file)
    for number, stage in enumerate(config.stages, 1):
        stage_run = run
        if number < len(config.stages):
            stage_run = replace(run, folder=run.folder / f"stage-{number}")
        stage_run.start()
        stage_clips = [*validation.clips]
        stage_extra: list[tuple[int, str]] = []
        for kind in stage:
            if kind == "clean":
                stage_extra = [(len(stage_clips) + clip, caption) for clip, caption in extra.pairs]
            stage_clips += clips[kind]
        material = Material(stage_clips, validation.queries, model, run.cache, stage_extra)
        to_train, to_validate = split_pairs(material.pairs, len(validation.clips))
        items: Sequence | WithExtra = to_train
        if material.extra:
            items = WithExtra(to_train, material.extra, config.extra_share)
        teachers = None
        if config.teachers:
            file = run.folder / TEACHERS
            teachers = read_or_embed(file, config.teachers, stage_clips, material.captions, run.cache)
        stage_run.fit(Training(model, validation, material, teachers), items, to_validate, material.batch, config)
        load_weights(model, read_checkpoint(stage_run.best), stage_run.best)
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features=f"{config.audio_encoder} embeddings",
        word_embeddings=metadata_name(config.text_encoder),
        machine_learning_method="cross-modal alignment",
        audio_modelling=config.audio_encoder,
        word_modelling=metadata_name(config.text_encoder),
        loss_function=f"{config.loss.replace('_', '-')} loss",
    )
    run.describe(model, description)


def split_pairs(
    pairs: Sequence[tuple[int, int]], validation_clips: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Separate the pairs for training from those for validation.

    Args:
        pairs: The indices (clip, caption) of every pair. The captions of a clip are consecutive.
        validation_clips: The number of validation clips. Their indices come before those of all other clips.

    Returns:
        All pairs of the other clips, for training, and one pair of each validation clip with its first caption.
    """
    to_train = []
    first_pairs: dict[int, tuple[int, int]] = {}
    for clip, caption in pairs:
        if clip >= validation_clips:
            to_train.append((clip, caption))
        else:
            first_pairs.setdefault(clip, (clip, caption))
    return to_train, [first_pairs[clip] for clip in sorted(first_pairs)]


def read_noisy(folder: Path, share: float, seed: int) -> Split:
    """Read noisy captions and draw a share of their clips.

    Args:
        folder: FSD50K as published, or a data folder. Only the development split is read.
        share: The share of the clips to draw, in (0, 1].
        seed: Seed of the draw.

    Returns:
        A split with the drawn clips.
    """
    if (folder / fsd50k.METADATA.parent).is_dir():
        split = fsd50k.read_fsd50k(folder)
    else:
        split = read_dataset(folder, DEVELOPMENT)[DEVELOPMENT]
    drawn = np.random.default_rng(seed).permutation(len(split.clips))[: max(1, round(share * len(split.clips)))]
    return Split(split.name, tuple(split.clips[index] for index in sorted(drawn)))


def load_model(checkpoint: Path) -> Retriever:
    """Load the model from a checkpoint. The config in the checkpoint names the encoders.

    Raises:
        BadRequest: An encoder is not on this machine, or a frozen encoder differs from the one used in training.
    """
    state = read_checkpoint(checkpoint, config=dict, frozen=dict)
    config = Config(**state["config"])
    if config.text_encoder == "train":
        vectors = words.read_vectors(checkpoint.parent.parent / WORDS)
    else:
        vectors = None
    model = Retriever(config, vectors)
    load_weights(model, state, checkpoint)
    return model.eval()
