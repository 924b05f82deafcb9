"""ATAE, aligned text and audio embeddings (Weck et al. 2022).

    dcase-systems train systems.atae --config systems/atae/atae.yaml --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation

An audio encoder maps a clip to a sequence of embeddings, and a text encoder does the same for a caption. One adapter
for audio and one for text map these sequences to the same size. The means over the mapped sequences are compared by
their cosine. Training moves matching audio and texts together, and all others in a batch apart. A frozen encoder
encodes each clip or caption once, and training reads these embeddings from the cache. An encoder that is trained runs
in every training step.

Training has one or more stages. Each stage uses clean captions (the data folder), noisy captions or other external
data (further folders), or several of them. It starts from the best epoch of the previous stage. Each stage except the
last has its own folder inside the run folder.

Five modules contain the system. Read them in this order:

    config      the settings
    model       the encoders, the adapters, and the embeddings
    training    batches, losses, training and validation steps
    external    reading of external data
    __init__    the stages of a training, and loading a trained model
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning

from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Dataset
from evaluation.downloads import Download
from systems import contract
from systems.atae.config import CLEAN, NOISY, Config
from systems.atae.external import locate_excluded, locate_folder, read_external, read_noisy
from systems.atae.model import Retriever
from systems.atae.teachers import read_or_embed
from systems.atae.training import Material, Training
from systems.parts import encoders, texts, words
from systems.parts.checkpoints import load_weights
from systems.parts.descriptions import describe_system
from systems.parts.extra import WithExtra, choose_extra
from systems.runs import trained_checkpoint
from systems.training import Run, metadata_name, read_checkpoint

WORDS = "words.bin"  # in the run folder
TEACHERS = "teachers.npz"  # in the run folder

PAPER = "Weck et al. 2022"
PARAMETERS = "1,968,128 in the adapters (CNN14, DistilRoBERTa) + encoders"


def downloads(config: Config) -> list[Download]:
    """Return the published files and models that a config needs."""
    needed = encoders.downloads(config.audio_encoder, config.audio_weights, config.audio_options)
    if config.text_encoder != "train":
        needed.append(texts.download(config.text_encoder))
    return needed


def training_data(config: Config) -> list[Download]:
    """Return the data besides the data folder that training needs."""
    needed = [locate_folder(f"external.{name}", folder) for name, folder in config.external.items()]
    if config.noisy:
        needed.append(locate_folder(NOISY, config.noisy))
    if config.excluded:
        needed.append(locate_excluded(config.excluded))
    return needed


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train in the config's stages, and choose the best epoch of each stage on the validation split."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    extra = choose_extra(config, development)
    run = replace(run, data={**run.data, **extra.digests})
    clips = {CLEAN: development.clips}
    further = {}
    if config.noisy:
        further[NOISY] = read_noisy(Path(config.noisy), config.noisy_share, run.seed)
    for name, folder in config.external.items():
        further[name] = read_external(Path(folder), config.excluded)
    for name, split in further.items():
        clips[name] = split.clips
        run = replace(run, data={**run.data, name: split.digest})
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
            if kind == CLEAN:
                stage_extra = [(len(stage_clips) + clip, caption) for clip, caption in extra.pairs]
            stage_clips += clips[kind]
        material = Material(stage_clips, validation.queries, model, run.cache, len(validation.clips), stage_extra)
        to_train, to_validate = split_pairs(material.pairs, len(validation.clips))
        items: Sequence[tuple[int, int]] | WithExtra = to_train
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
        optimizer="AdamW" if config.weight_decay else "Adam",
        data_augmentation=augmentations(config),
    )
    run.describe(model, description)


def augmentations(config: Config) -> str | None:
    """Return the data augmentation of a config for a submission's metadata, or None if there is none."""
    names = []
    if config.spec_augment:
        names.append("SpecAugment")
    if config.mixup:
        names.append("mixup")
    if config.audio_options.get("patchout_time") or config.audio_options.get("patchout_frequency"):
        names.append("patchout")
    return ", ".join(names) or None


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
