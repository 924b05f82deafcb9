"""ATAE, aligned text and audio embeddings (Weck et al. 2022), to be read from top to bottom.

    python -m systems train systems.atae --config systems/atae/atae.yaml --data DIR --run RUN
    python -m systems predict RUN --data DIR --split evaluation

An audio encoder turns a clip into a sequence of embeddings, and a text encoder a caption; an adapter each brings them
to one size, and their means are what is compared, by cosine. Training pulls matching sounds and texts together and
pushes all others in a batch apart. An encoder that stays as it was published is asked once for each clip or caption,
and training reads what it said; one that learns goes through every step.

Training has one stage or several, each on clean captions (the data folder), on noisy ones (another folder), or on both,
and goes on from the best epoch of the stage before. All but the last keep a run folder of their own in the run's.
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
from evaluation.findings import BadRequest
from systems.caching.embeddings import embed
from systems.caching.features import waveforms
from systems.caption_retrieval import fsd50k
from systems.parts import adapters, encoders, losses, pairs, texts, words
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.descriptions import describe_system
from systems.parts.devices import default_device
from systems.parts.sequences import chunks, length_mask, masked_mean, stack_sequences
from systems.parts.validation import retrieval_metrics
from systems.training import Run, Schedule, metadata_name, read_checkpoint

Adapter = Literal["mlp", "mha", "identity"]
WORDS = "words.bin"  # in the run folder

PAPER = "Weck et al. 2022"
PARAMETERS = "1,968,128 in the adapters (CNN14, DistilRoBERTa), and the encoders'"


class Config(Schedule):
    """What can be chosen; the defaults are the system ATAE as it was submitted."""

    learning_rate: float = Field(1e-4, gt=0)  # of Adam; the paper has 1e-3 too, as Adam's own default
    monitor: Literal["mAP@10", "loss"] = "mAP@10"  # the validation value that chooses the best epoch
    audio_encoder: str = "cnn14"  # one of `encoders.NAMES`, or any HEAR module
    audio_weights: str = ""  # file or folder of its weights; where they are looked for by default
    # Keyword arguments for its load_model: vggish has post_activation, openl3 padding.
    audio_options: dict[str, encoders.Option] = Field(default_factory=dict)
    audio_hop: float | None = Field(None, gt=0)  # ms between embeddings; the encoder's own by default
    audio_scene: bool = False  # one embedding per clip (HEAR's scene embedding) instead of a sequence
    text_encoder: str = "distilroberta-base"  # folder, hub name, file of word vectors, or `train`: on the captions
    text_layer: int = -2  # of a transformers model; -1 is its last
    text_output: texts.Output = "tokens"  # all of a text's, their `mean`, or a sentence encoder's `sentence`
    train_audio: bool = False  # whether the audio encoder learns
    train_text: bool = False  # whether the text encoder learns
    audio_adapter: Adapter = "mlp"
    text_adapter: Adapter = "mlp"
    size: int = Field(512, ge=1)  # of the adapters' hidden layer and of what they give
    loss: Literal["contrastive", "nt_xent", "triplet"] = "contrastive"
    pairs: Literal["all", "text-audio"] = "all"  # that the loss is over: two sounds and two texts among them, or not
    temperature: float = Field(0.07, gt=0)  # of nt_xent
    margin: float = Field(1.0, gt=0)  # of triplet
    stages: tuple[tuple[Literal["clean", "noisy"], ...], ...] = (("clean",),)  # what each is trained on
    noisy: str | None = None  # folder of the noisy captions: FSD50K as published, or one in Clotho's layout
    noisy_share: float = Field(1.0, gt=0, le=1)  # of its clips, drawn by the seed

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if not self.stages or not all(self.stages):
            raise ValueError("stages must be lists of clean, noisy or both, one at least; as [[noisy], [clean]]")
        if self.audio_scene and self.audio_hop is not None:
            raise ValueError(f"audio_hop must be null with audio_scene, which has no sequence; found {self.audio_hop}")
        if any("noisy" in stage for stage in self.stages) and not self.noisy:
            raise ValueError("noisy must be the folder of the noisy captions, which stages asks for; found none")
        if self.text_encoder == "train" and self.text_output == "sentence":
            raise ValueError("text_output must be tokens or mean, of word vectors that are trained; found sentence")
        return self


# The model ---------------------------------------------------------------------------------------------------------


class Retriever(nn.Module):
    """Embeds sounds and texts into one space.

    Args:
        config: The config.
        vectors: Word vectors, where the config's text encoder is `train`.

    Raises:
        BadRequest: An encoder is not on this machine or cannot learn, or the two ends do not have one size.
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
                f"sounds and texts must get embeddings of one size; audio_adapter {config.audio_adapter} gives "
                f"{self.audio_adapter.size} and text_adapter {config.text_adapter} {self.text_adapter.size}"
            )
        if config.train_audio:
            noise = torch.rand(1, self.sample_rate) - 0.5  # a second
            learn(self.audio_encoder, lambda: self.audio(noise, torch.tensor([noise.shape[1]]))[0], "audio")
        if config.train_text:
            learn(self.text_encoder, lambda: self.text_encoder(["a dog barks"])[0], "text")
        self.train()

    def train(self, mode: bool = True) -> "Retriever":
        """Begin training or end it: of the encoders only a text encoder that learns has dropout."""
        super().train(mode)
        self.audio_encoder.eval()  # sounds go through it one by one: its norms keep the statistics that they have
        self.text_encoder.train(mode and self.config.train_text)
        return self

    @cached_property
    def frozen(self) -> dict[str, str]:
        """The encoders that do not learn, by the prefix of their weights, and what their embeddings follow from."""
        frozen = {}
        if not self.config.train_audio:
            frozen["audio_encoder."] = self.audio.identity
        if not self.config.train_text:
            frozen["text_encoder."] = self.text_encoder.identity
        return frozen

    def align_audio(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map what the audio encoder gives, (N, T, size) with (N,) lengths, to (N, size) of length 1."""
        return self._align(self.audio_adapter, sequences, lengths)

    def align_text(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Map what the text encoder gives, (N, T, size) with (N,) lengths, to (N, size) of length 1."""
        return self._align(self.text_adapter, sequences, lengths)

    @staticmethod
    def _align(adapter: nn.Module, sequences: Tensor, lengths: Tensor) -> Tensor:
        mask = length_mask(lengths, sequences.shape[1])
        return F.normalize(masked_mean(adapter(sequences, mask), mask).float(), dim=1)

    def embed_audio(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        """Embed (N, samples) mono sounds at `sample_rate`, of `lengths` (N,) samples, as (N, size)."""
        return self.align_audio(*stack_sequences(self.audio(sounds, lengths)))

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Embed texts as (texts, size)."""
        parts = chunks(captions, texts.TEXTS_PER_BATCH)
        return torch.cat([self.align_text(*self.text_encoder(part)) for part in parts])


def learn(encoder: nn.Module, embed: Callable[[], Tensor], what: str) -> None:
    """Let an encoder learn: all parameters that its embeddings follow from. DDP waits in vain for others.

    Raises:
        BadRequest: There is none.
    """
    parameters = list(encoder.requires_grad_(True).parameters())
    with torch.enable_grad():
        found = embed()
    if not parameters or not found.requires_grad:
        raise BadRequest(f"train_{what}: must be false for this encoder, which has no parameters that could learn")
    gradients = torch.autograd.grad(found.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Pairs of a sound and a text."""

    sounds: Tensor  # (N, T, size) embeddings; (N, samples) if the audio encoder learns
    sound_lengths: Tensor  # (N,)
    texts: Tensor | list[str]  # (N, T, size) embeddings; the captions if the text encoder learns
    text_lengths: Tensor  # (N,)
    clips: Tensor  # (N,) numbers of the clips
    owners: Tensor  # (N, K) numbers of all clips whose caption it is


class Material:
    """Clips and captions as a model takes them: what its frozen encoders say of them, computed once.

    Args:
        clips: The clips; a clip is known by its place.
        queries: Texts beside their captions.
        model: The model.
        cache: Folder of the cache.

    Attributes:
        pairs: Every (clip, caption), by number.
        numbers: The number of each distinct text.
    """

    def __init__(self, clips: Sequence[Clip], queries: Sequence[str], model: Retriever, cache: Path):
        known = pairs.clip_caption_pairs(clips, queries)
        self.captions, self.numbers, self.pairs, self.owners = known
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
        """Lay pairs side by side."""
        clips, captions = map(list, zip(*pairs, strict=True))
        sounds = stack_sequences([torch.from_numpy(self.sounds[number].copy()) for number in clips])
        return Batch(*sounds, *self.caption_embeddings(captions), torch.tensor(clips), self.owners[captions])

    def caption_embeddings(self, captions: Sequence[int]) -> tuple[Tensor | list[str], Tensor]:
        """Some captions' embeddings side by side with their lengths; the captions if the text encoder learns."""
        if self.train_text:
            return [self.captions[number] for number in captions], torch.ones(len(captions))
        return stack_sequences([torch.from_numpy(self.texts[number].copy()) for number in captions])


class Training(SystemModule):
    """What lightning does with the model: one step of training, one of validation, the optimizer."""

    def __init__(self, model: Retriever, split: Split, material: Material):
        super().__init__(model)
        self.split, self.material = split, material

    def embed_sounds(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        """Embed a batch's sounds as (N, size)."""
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

    def loss(self, sounds: Tensor, captions: Tensor, clips: Tensor, owners: Tensor) -> Tensor:
        """The config's loss of (N, size) sounds and captions."""
        config, matches = self.model.config, losses.matching(clips, owners)
        if config.loss == "contrastive":
            return losses.contrastive(sounds, captions, matches, config.pairs)
        if config.loss == "nt_xent":
            return losses.nt_xent(sounds, captions, matches, config.temperature, config.pairs)
        answers = matches[: len(sounds), len(sounds) :]
        own = torch.arange(len(sounds), device=answers.device)
        return losses.triplet(sounds @ captions.T, answers, torch.stack([own, own], dim=1), config.margin)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Embed the batch's pairs, and return their loss among those of all processes."""
        sounds = self.embed_sounds(batch.sounds, batch.sound_lengths)
        captions = self.embed_captions(batch.texts, batch.text_lengths)
        loss = self.loss(*map(losses.gathered, (sounds, captions, batch.clips, batch.owners)))
        size = len(batch.clips)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the clips of the last time."""
        self.clips: list[Tensor] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Keep the clips' embeddings, and log the loss of each with its first caption."""
        sounds = self.embed_sounds(batch.sounds, batch.sound_lengths)
        captions = self.embed_captions(batch.texts, batch.text_lengths)
        self.clips.append(sounds)
        loss = self.loss(sounds, captions, batch.clips, batch.owners)
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(batch.clips))

    def on_validation_epoch_end(self) -> None:
        """Answer every query of the validation split, and log mAP@10 and R@10."""
        numbers = [self.material.numbers[query] for query in self.split.queries]
        captions = []
        for part in chunks(numbers, texts.TEXTS_PER_BATCH):
            batch = self.transfer_batch_to_device(self.material.caption_embeddings(part), self.device, 0)
            captions.append(self.embed_captions(*batch))
        scores = torch.cat(captions) @ torch.cat(self.clips).T
        self.log_dict(retrieval_metrics(self.split, scores), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learning, lr=self.model.config.learning_rate)


# The three names of the contract -------------------------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train in the config's stages, each of which chooses its best epoch on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    clips = {"clean": development.clips}
    if config.noisy:
        noisy = read_noisy(Path(config.noisy), config.noisy_share, run.seed)
        clips["noisy"] = noisy.clips
        run = replace(run, data={**run.data, "noisy": noisy.digest})
    vectors, kept = None, run.folder / WORDS
    if config.text_encoder == "train":
        if kept.exists():
            vectors = words.read_vectors(kept)
        else:
            vectors = words.train_vectors(development.captions, seed=run.seed, cbow=True)
    lightning.seed_everything(run.seed, verbose=False)
    model = Retriever(config, vectors)

    run.start()
    if vectors and not kept.exists():
        words.write_vectors(vectors, kept)
    for number, stage in enumerate(config.stages, 1):
        part = run
        if number < len(config.stages):
            part = replace(run, folder=run.folder / f"stage-{number}")
        part.start()
        known = [*validation.clips]
        for kind in stage:
            known += clips[kind]
        material = Material(known, validation.queries, model, run.cache)
        to_train = [pair for pair in material.pairs if pair[0] >= len(validation.clips)]
        firsts = {clip: (clip, caption) for clip, caption in reversed(material.pairs) if clip < len(validation.clips)}
        to_validate = [firsts[clip] for clip in sorted(firsts)]
        part.fit(Training(model, validation, material), to_train, to_validate, material.batch, config)
        load_weights(model, read_checkpoint(part.best), part.best)
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


def read_noisy(folder: Path, share: float, seed: int) -> Split:
    """Read noisy captions, FSD50K's or those of a data folder's development split, and draw a share of the clips."""
    if (folder / fsd50k.METADATA.parent).is_dir():
        split = fsd50k.read_fsd50k(folder)
    else:
        split = read_dataset(folder, DEVELOPMENT)[DEVELOPMENT]
    drawn = np.random.default_rng(seed).permutation(len(split.clips))[: max(1, round(share * len(split.clips)))]
    return Split(split.name, tuple(split.clips[index] for index in sorted(drawn)))


def load_model(checkpoint: Path) -> Retriever:
    """Give back the model of a checkpoint; its encoders are loaded as its config says.

    Raises:
        BadRequest: An encoder is not on this machine, or one that did not learn is another than in training.
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
